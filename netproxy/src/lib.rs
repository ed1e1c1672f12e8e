//! netproxy: everything that programs this node's network.
//!
//! Owns Services (nftables rules in one table of our own, over raw netlink), the CNI plugin,
//! routes between nodes and cluster DNS. It does not know pods' specs or containers, and it reads
//! the cluster only through a `kube::Client` it is given.

pub mod cni;
pub mod dns;
pub mod routes;

pub mod cidr;
pub mod services;

//! netproxy: everything that programs this node's network.
//!
//! Owns Services (nftables rules in one table of our own, over raw netlink), the CNI plugin,
//! routes between nodes and cluster DNS. It does not know pods' specs or containers, and it reads
//! the cluster only through a `kube::Client` it is given.
//!
//! Services go one way: `snapshot` (what the cluster wants) → `topology` (which endpoints) →
//! `ruleset` (which objects) → `nft` (the difference, and its bytes) → `backend` (the kernel).
//! Everything before `backend` is pure; `sync` is the only loop.

pub mod accept;
pub mod api;
pub mod backend;
pub mod cidr;
pub mod cluster;
pub mod cni;
pub mod config;
pub mod conntrack;
pub mod dns;
#[cfg(any(test, feature = "testing"))]
pub mod fake;
pub mod firewall;
pub mod healthz;
pub mod http;
pub mod informer;
pub mod links;
pub mod metrics;
pub mod network;
pub mod nft;
pub mod routes;
pub mod ruleset;
pub mod services;
pub mod snapshot;
pub mod sync;
pub mod topology;
#[cfg(any(test, feature = "testing"))]
pub mod tracer;

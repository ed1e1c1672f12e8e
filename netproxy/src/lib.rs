//! netproxy: everything that programs this node's network.
//!
//! Owns Services (nftables rules in one table of our own, over raw netlink), the CNI plugin,
//! routes between nodes and cluster DNS. It does not know pods' specs or containers, and it reads
//! the cluster only through a `kube::Client` it is given.
//!
//! Services go one way: `snapshot` (what the cluster wants) → `topology` (which endpoints) →
//! `ruleset` (which objects) → `nft` (the difference, and its bytes) → `backend` (the kernel).
//! Everything before `backend` is pure; `sync` is the only loop.

mod accept;
mod api;
pub mod backend;
pub mod cidr;
pub mod cluster;
pub mod cni;
pub mod config;
pub mod conntrack;
pub mod dns;
#[cfg(test)]
mod fake;
pub mod firewall;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod healthz;
mod http;
pub mod informer;
pub mod links;
mod metrics;
pub mod network;
pub mod nft;
mod note;
pub mod routes;
pub mod ruleset;
pub mod services;
pub mod snapshot;
mod sync;
pub mod topology;
#[cfg(test)]
mod tracer;

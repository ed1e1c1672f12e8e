//! Local clusters: several nodes on one machine, each in network, mount, PID,
//! UTS and IPC namespaces of its own with its own containerd, joined by a
//! bridge without an uplink. The API is reachable on 127.0.0.1.
//!
//! `plan` decides names and addresses, `state` keeps them on disk, `network`
//! makes links, `init` is process 1 of every node, `start` knows what a node's
//! start comes to, `lifecycle` puts it together.

pub mod init;
mod lifecycle;
mod network;
mod plan;
mod start;
mod state;

pub use lifecycle::{CreateOptions, create, delete, list, run_dirs};
pub use plan::ClusterName;

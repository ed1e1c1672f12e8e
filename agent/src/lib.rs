//! The kubelet: everything that happens to pods on this node.
//!
//! [`app::run`] is the composition root. Pods come from [`podsource`], one task
//! per pod UID in [`podworker`] compares them with the runtime's view
//! ([`podcache`], fed by [`pleg`]), [`plan`] decides and [`convert`] translates
//! (both pure), and [`status`] is the only writer of pod status. Nothing here
//! speaks gRPC to the runtime itself: that is crate `cri`.

pub mod app;
pub mod bootstrap;
pub mod cgroup;
pub mod clock;
pub mod config;
pub mod contract;
pub mod convert;
pub mod events;
pub mod eviction;
pub mod ids;
pub mod image;
pub mod logs;
pub mod node;
pub mod objectcache;
pub mod plan;
pub mod pleg;
pub mod podcache;
pub mod podsource;
pub mod podworker;
pub mod probe;
pub mod removal;
pub mod resolver;
pub mod retention;
pub mod runtimeclass;
pub mod server;
pub mod services;
pub mod status;
pub mod tasks;
#[cfg(test)]
mod testutil;
pub mod volume;
pub mod watch;

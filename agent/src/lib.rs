//! The kubelet: everything that happens to pods on this node.
//!
//! [`app::run`] is the composition root. Pods come from [`podsource`], one task
//! per pod UID in [`podworker`] compares them with the runtime's view
//! ([`podcache`], fed by [`pleg`]), [`plan`] decides and [`convert`] translates
//! (both pure), and [`status`] is the only writer of pod status. Nothing here
//! speaks gRPC to the runtime itself: that is crate `cri`.

pub mod answers;
pub mod app;
pub mod bootstrap;
pub mod cgroup;
pub mod clock;
pub mod config;
mod contract;
pub mod convert;
pub mod events;
mod eviction;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod ids;
pub mod image;
pub mod logs;
mod node;
mod objectcache;
mod percent;
mod plan;
mod pleg;
pub mod podcache;
mod podsource;
pub mod podworker;
pub mod probe;
mod read;
mod resolver;
pub mod retention;
mod runtimeclass;
pub mod server;
mod services;
mod status;
mod tasks;
#[cfg(test)]
mod testutil;
pub mod volume;
mod watch;

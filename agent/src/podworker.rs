//! One task per pod UID that makes the runtime look like the pod's spec.
//!
//! [`dispatch`] owns the set of workers, [`worker`] is one of them with its
//! typed [`state`]. Work for one UID never runs twice at once; different UIDs
//! run in parallel. A sync is level-triggered: it takes the newest pod and the
//! runtime's view, lets [`crate::plan`] decide and performs the result,
//! whatever woke it.

pub mod admission;
pub mod deps;
pub mod dispatch;
pub mod files;
mod gather;
pub mod housekeeping;
pub mod inbox;
pub mod kernel_log;
pub mod kill;
mod launch;
pub mod lifecycle;
pub mod messages;
pub mod refresh;
pub mod sandbox;
pub mod start;
pub mod state;
pub mod sync;
pub mod terminate;
pub mod worker;

#[cfg(test)]
mod tests;

pub use deps::{Deps, NodeView, WorkerSettings};
pub use dispatch::{Dispatcher, PodWorkers};
pub use inbox::Eviction;

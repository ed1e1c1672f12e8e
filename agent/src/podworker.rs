//! One task per pod UID that makes the runtime look like the pod's spec.
//!
//! [`dispatch`] owns the set of workers, [`worker`] is one of them: its memory
//! ([`crate::plan::memory`], data) under one small loop, and [`effects`], each a
//! function of its own. Work for one UID never runs twice at once; different
//! UIDs run in parallel. A sync is level-triggered: it takes the newest pod and
//! the runtime's view, lets [`crate::plan::decide`] decide and performs the
//! result, whatever woke it. Statuses are made and written by
//! [`crate::status`], from the facts a worker hands in.

pub mod admission;
pub mod deps;
pub mod dispatch;
mod effects;
pub mod files;
pub mod housekeeping;
mod inbox;
mod journal;
pub mod kernel_log;
mod messages;
pub mod refresh;
mod worker;

#[cfg(test)]
mod tests;

pub use deps::{Deps, NodeView, WorkerSettings};
pub use dispatch::{Dispatcher, PodWorkers};
pub use inbox::Eviction;

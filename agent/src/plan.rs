//! Pure decisions about pods: what to start, what to kill and when. A pod
//! worker asks [`decide`] alone; eviction and image collection have plans of
//! their own.
//!
//! Every input, the clock included, is an argument; the answers are data that
//! [`crate::podworker`] performs.

pub mod admit;
pub mod backoff;
pub mod container_gc;
pub mod decide;
pub mod effect;
pub mod eviction;
pub mod grace;
pub mod image_gc;
mod init_actions;
pub mod memory;
mod pod_actions;
pub mod preempt;
pub mod restart;
pub mod stage;

pub use pod_actions::{KillContainer, KillReason};

//! Pure decisions about pods: what to start, what to kill and when.
//!
//! Every input, the clock included, is an argument; the answers are data that
//! [`crate::podworker`] performs.

pub mod admit;
pub mod backoff;
pub mod container_gc;
pub mod eviction;
pub mod grace;
pub mod image_gc;
pub mod init_actions;
pub mod pod_actions;
pub mod preempt;
pub mod restart;

pub use pod_actions::{KillContainer, KillReason, PodActions, StartContainer, pod_actions};

//! Pure decisions about pods: what to start, what to kill and when. A pod
//! worker asks [`decide`] alone; eviction has plans of its own, and what may go
//! of what is dead is [`crate::retention::plan`]'s.
//!
//! Every input, the clock included, is an argument; the answers are data that
//! [`crate::podworker`] performs.

pub mod admit;
pub mod backoff;
pub mod decide;
pub mod effect;
pub mod eviction;
pub mod grace;
mod init_actions;
pub mod memory;
mod node_fit;
mod pod_actions;
pub mod preempt;
pub mod restart;
pub mod stage;

pub use pod_actions::{KillContainer, KillReason};

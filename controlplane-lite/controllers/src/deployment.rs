//! Deployment: rolls a new template out over ReplicaSets.

pub mod plan;
pub mod revision;
pub mod rolling;
pub mod status;
mod sync;

pub(super) use sync::start;

//! ReplicaSet: as many pods of a template as asked for.

pub mod plan;
pub mod pods;
mod sync;

pub(super) use sync::{delete_pod, namespace_terminating, start};

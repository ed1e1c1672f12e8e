//! Pod garbage collection: pods of nodes that are gone, pods that were never
//! scheduled and are being deleted, and finished pods beyond a threshold.

mod plan;
mod sync;

pub(super) use sync::start;

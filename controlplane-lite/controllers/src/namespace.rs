//! Namespace deletion: everything in a namespace goes before its finalizer does.

mod discovery;
mod plan;
mod sync;

pub(super) use discovery::{Discovered, Resource, discover};
pub(super) use sync::start;

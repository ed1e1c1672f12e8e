//! Endpoints and EndpointSlices of Services with a selector.

pub mod plan;
pub mod slices;
pub mod subsets;
mod sync;

pub(super) use sync::start;

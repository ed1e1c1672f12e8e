//! Mirrors Endpoints that somebody else writes for a Service without selector
//! into EndpointSlices, since service proxies read slices only.

mod plan;
mod repack;
mod sync;

pub(crate) use sync::start;

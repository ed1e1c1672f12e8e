//! Pod lifecycle events: what happens in the runtime wakes the pod's worker.
//!
//! Events come from the runtime's own stream; a slow relist is the safety net
//! for what a stream can lose. Comparing two looks at the runtime is pure
//! ([`diff`]).

pub mod diff;
pub mod evented;

pub use evented::Pleg;

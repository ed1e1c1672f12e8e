//! Pod lifecycle events: what happens in the runtime wakes the pod's worker.
//!
//! Events come from the runtime's own stream; a slow relist is the safety net
//! for what a stream can lose. Comparing two looks at the runtime is pure
//! ([`diff`]); a list that does not come makes the node unready ([`health`]).

mod diff;
mod evented;
mod health;

pub use evented::Pleg;
pub use health::RelistHealth;

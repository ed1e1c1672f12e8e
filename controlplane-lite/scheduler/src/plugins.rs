//! The plugins, under upstream's names and with upstream's reasons. Pure.

pub mod affinity;
pub mod basic;
pub mod image;
pub mod preemption;
pub mod resources;
pub mod taints;

/// Reason of the NodeAffinity filter.
pub const REASON_AFFINITY: &str = "node(s) didn't match Pod's node affinity/selector";

#[cfg(test)]
mod tests;

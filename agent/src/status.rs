//! The API status of pods. Workers and probes hand in facts; the status manager
//! makes statuses of them, purely, and one task of its own writes them.

pub mod conditions;
pub mod containers;
pub mod generate;
pub mod manager;
pub mod patch;

pub use manager::{StatusFacts, StatusManager};

//! The API status of pods: generated purely, written by one task.

pub mod conditions;
pub mod containers;
pub mod generate;
pub mod manager;
pub mod patch;
pub mod probes;

pub use generate::{Stage, StatusInput, generate};
pub use manager::StatusManager;

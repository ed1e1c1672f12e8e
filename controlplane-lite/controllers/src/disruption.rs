//! Keeps the status of PodDisruptionBudgets, by which evictions are allowed.

pub(crate) mod plan;
mod scale;
mod sync;

pub(crate) use sync::start;

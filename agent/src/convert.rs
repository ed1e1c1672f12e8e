//! Pure translation of a pod into what the runtime is asked to run.

pub mod labels;

//! The bundled scheduler: an ordinary API client that binds pods to nodes. One
//! task owns the queue and the cache and makes all decisions; binding runs beside it.

mod bind;
mod cache;
mod config;
pub mod cycle;
pub mod engine;
mod framework;
mod monotonic;
mod nodes;
mod plugins;
pub mod pod;
mod profile;
mod queue;
mod resources;
mod sync;
#[cfg(test)]
mod testing;

pub use config::{SchedulerConfig, parse_config};
pub use sync::run;

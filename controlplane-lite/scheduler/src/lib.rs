//! The bundled scheduler: an ordinary API client that binds pods to nodes. One
//! task owns the queue and the cache and makes all decisions; binding runs beside it.

pub mod bind;
pub mod cache;
pub mod config;
pub mod cycle;
pub mod engine;
pub mod framework;
pub mod nodes;
pub mod plugins;
pub mod pod;
pub mod profile;
pub mod queue;
pub mod resources;
mod steady;
mod sync;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use config::{SchedulerConfig, parse_config};
pub use sync::run;

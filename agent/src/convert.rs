//! Pure translation of a pod into what the runtime is asked to run.
//!
//! Nothing here reads files, the clock or the network: callers bring resolved
//! ConfigMaps, Secrets, volume paths, addresses and the resolver's text.

pub mod container;
pub mod dns;
pub mod env;
pub mod expansion;
pub mod fields;
pub mod hosts;
pub mod labels;
pub mod qos;
pub mod quantity;
pub mod resources;
pub mod sandbox;
pub mod security;
pub mod service_env;
pub mod spec;

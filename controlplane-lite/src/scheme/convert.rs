//! Conversions between kinds that share storage or shape: events.k8s.io with
//! core events, and the `scale` subresource of workloads.

mod events;
mod scale;

pub use events::EVENTS;
pub use scale::{apply_scale, scale_of};

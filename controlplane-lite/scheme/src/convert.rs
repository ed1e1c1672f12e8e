//! Conversions between kinds that share storage or shape (events.k8s.io with
//! core events, autoscaling/v1 with v2), and the `scale` subresource of workloads.

mod autoscaling;
mod events;
mod scale;

pub use autoscaling::AUTOSCALERS;
pub use events::EVENTS;
pub use scale::{apply_scale, scale_of};

//! Conversions between kinds that share storage or shape (events.k8s.io with
//! core events, autoscaling/v1 with v2), and the `scale` subresource of workloads.

mod autoscaling;
mod custom_scale;
mod events;
mod scale;

pub use autoscaling::AUTOSCALERS;
pub use custom_scale::{UNSET_REPLICAS, apply_custom_scale, check_scale, custom_scale};
pub use events::EVENTS;
pub use scale::{apply_scale, scale_of};

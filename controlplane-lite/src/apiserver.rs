//! The Kubernetes API over a [`Store`](crate::storage): requests in, objects and watches out.
//!
//! The only module that touches storage. Knows nothing of scheduling, controllers or nodes' insides.

pub mod body;
pub mod negotiate;
pub mod options;
pub mod request_info;
pub mod status;

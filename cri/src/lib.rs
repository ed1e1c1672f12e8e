//! The only code that talks to containerd.
//!
//! This crate knows gRPC and the CRI v1 protocol; it knows nothing of pods as
//! the Kubernetes API describes them (no `PodSpec`, no `k8s-openapi`). Callers
//! meet [`RuntimeService`] and [`ImageService`] and the plain types beside
//! them; the generated protobuf types never leave this crate.

mod channel;
mod client;
pub mod containerd;
mod convert;
pub mod dirtree;
mod error;
mod events;
#[cfg(any(test, feature = "testing"))]
pub mod fake;
#[cfg(any(test, feature = "testing"))]
pub mod floor;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod id;
pub mod images;
pub mod mountinfo;
mod namespace;
mod service;
pub mod types;

pub use client::{CriClient, Deadlines};
pub use error::CriError;
pub use events::EventSource;
pub use id::{ContainerId, ImageRef, SandboxId};
pub use service::{ContainerEvents, ImageService, RuntimeService};

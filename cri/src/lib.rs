//! The only code that talks to containerd.
//!
//! This crate knows gRPC and the CRI v1 protocol; it knows nothing of pods as
//! the Kubernetes API describes them (no `PodSpec`, no `k8s-openapi`). Callers
//! meet [`RuntimeService`] and [`ImageService`] and the plain types beside
//! them; the generated protobuf types never leave this crate.

pub mod error;
pub mod id;
pub mod service;
pub mod types;

pub use error::CriError;
pub use id::{ContainerId, ImageRef, SandboxId};
pub use service::{ContainerEvents, ImageService, RuntimeService};

//! ConfigMaps, Secrets and service-account tokens that pods of this node use.
//!
//! An object is fetched and watched from the moment the first pod that names it
//! is registered until the last one is gone.

pub mod refs;
pub mod store;

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use tokio::sync::broadcast;

use crate::ids::ObjectName;

pub use store::ObjectCache;

/// The kinds of objects that are cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKind {
    ConfigMap,
    Secret,
}

/// One cached object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    pub kind: ObjectKind,
    pub name: ObjectName,
}

/// Why an object cannot be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ObjectError {
    /// The API server says it does not exist.
    #[error("{kind} \"{name}\" not found")]
    NotFound { kind: &'static str, name: Arc<str> },
    /// The API server refused or cannot be reached; worth another try.
    #[error("fetch {kind} {name}: {message}")]
    Unavailable { kind: &'static str, name: ObjectName, message: String },
}

impl ObjectError {
    /// Whether the object does not exist, as opposed to being out of reach.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

/// Reads objects of the API server on behalf of pods of this node.
#[async_trait]
pub trait ObjectReader: Send + Sync + Debug {
    /// A ConfigMap, from the cache when a registered pod names it.
    async fn config_map(&self, name: &ObjectName) -> Result<Arc<ConfigMap>, ObjectError>;
    /// A Secret, from the cache when a registered pod names it.
    async fn secret(&self, name: &ObjectName) -> Result<Arc<Secret>, ObjectError>;
    /// A new token of a service account (`name`); not cached.
    async fn service_account_token(
        &self,
        name: &ObjectName,
        spec: &TokenRequestSpec,
    ) -> Result<TokenRequest, ObjectError>;
    /// Objects that changed or vanished, from now on. A lagging receiver must
    /// look at everything it holds.
    fn changes(&self) -> broadcast::Receiver<ObjectRef>;
}

/// Knows which pods use which objects.
pub trait ObjectRegistry: Send + Sync + Debug {
    /// Starts caching what the pod refers to. Again is fine.
    fn register_pod(&self, pod: &k8s_openapi::api::core::v1::Pod);
    /// Stops caching what only this pod referred to.
    fn unregister_pod(&self, uid: &crate::ids::PodUid);
}

//! Why stored objects could not be read or written, in the registry's own words; `status` alone says it in HTTP's.

use scheme::{Kind, Text};
use storage::StoreError;
use storage::watch_cache::CacheError;

/// A resource as messages name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceName {
    /// API group; empty for core.
    pub group: Text,
    /// Plural.
    pub plural: Text,
}

impl ResourceName {
    /// The resource of a kind.
    pub fn of(kind: &Kind) -> Self {
        Self { group: kind.group.clone(), plural: kind.plural.clone() }
    }
}

impl std::fmt::Display for ResourceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.group.is_empty() { f.write_str(&self.plural) } else { write!(f, "{}.{}", self.plural, self.group) }
    }
}

/// Why stored objects could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// There is no such object.
    #[error("{resource} {name:?} is not there")]
    NotFound {
        /// Of this resource.
        resource: ResourceName,
        /// Of this name.
        name: String,
    },
    /// The name is taken.
    #[error("{resource} {name:?} is there already")]
    AlreadyExists {
        /// Of this resource.
        resource: ResourceName,
        /// Of this name.
        name: String,
    },
    /// Other writers were faster, every time.
    #[error("{resource} {name:?} was changed by others")]
    Modified {
        /// Of this resource.
        resource: ResourceName,
        /// Of this name.
        name: String,
    },
    /// The object would be larger than [`MAX_OBJECT`](super::MAX_OBJECT).
    #[error("the object is too large")]
    TooLarge,
    /// What is stored (or was to be) is no object.
    #[error("read a stored object")]
    Corrupt(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store failed; whether it did what it was asked to, nobody knows.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The caches failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl RegistryError {
    /// Whether the object is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether the name is taken.
    pub fn is_already_exists(&self) -> bool {
        matches!(self, Self::AlreadyExists { .. })
    }

    /// Whether nothing was written for sure.
    pub fn wrote_nothing(&self) -> bool {
        match self {
            Self::NotFound { .. } | Self::AlreadyExists { .. } | Self::Modified { .. } | Self::TooLarge => true,
            Self::Corrupt(_) | Self::Store(_) | Self::Cache(_) => false,
        }
    }

    pub(super) fn corrupt(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Corrupt(Box::new(error))
    }
}

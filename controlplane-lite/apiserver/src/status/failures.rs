//! What a client reads of failures below the API: of the registry, of its caches and store, and of admission's
//! refusals. The one place where they get codes and reasons.

use super::{ApiError, Cause, Subject};
use crate::admission::Refusal;
use crate::registry::{RegistryError, ResourceName};
use scheme::{FieldErrors, field};
use storage::StoreError;
use storage::watch_cache::CacheError;

impl<'r> From<&'r ResourceName> for Subject<'r> {
    fn from(resource: &'r ResourceName) -> Self {
        Self::new(&resource.group, &resource.plural)
    }
}

impl From<RegistryError> for ApiError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::NotFound { resource, name } => Self::not_found((&resource).into(), &name),
            RegistryError::AlreadyExists { resource, name } => Self::already_exists((&resource).into(), &name),
            RegistryError::Modified { resource, name } => Self::modified((&resource).into(), &name),
            // etcd's words, which clients know.
            RegistryError::TooLarge => Self::upstream(413, "etcdserver: request is too large"),
            RegistryError::Corrupt(source) => Self::internal(source),
            RegistryError::Store(error) => error.into(),
            RegistryError::Cache(error) => error.into(),
        }
    }
}

impl From<CacheError> for ApiError {
    fn from(error: CacheError) -> Self {
        match error {
            CacheError::Expired { requested, oldest } => {
                Self::expired(format!("too old resource version: {requested} ({oldest})"))
            }
            CacheError::TooLarge { requested, current } => Self::version_too_large(requested.0, current.0),
            CacheError::Stopped => Self::unavailable("the server is shutting down"),
            CacheError::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Compacted { requested, oldest } => {
                let oldest = oldest.unwrap_or_default();
                Self::expired(format!("too old resource version: {requested} ({oldest})"))
            }
            StoreError::Future { requested, current } => Self::version_too_large(requested.0, current.0),
            StoreError::Closed => Self::unavailable("the storage is closing"),
            StoreError::Lagged => Self::expired("the watch fell too far behind"),
            other => {
                let source = std::error::Error::source(&other).map(|s| format!(": {s}")).unwrap_or_default();
                Self::internal(format!("{other}{source}"))
            }
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Forbidden { resource, name, why, cause } => {
                let error = Self::forbidden((&resource).into(), &name, &why);
                match cause {
                    Some(cause) => error.with_cause(cause.reason, cause.message, cause.field),
                    None => error,
                }
            }
            Refusal::NotFound { resource, name } => Self::not_found((&resource).into(), &name),
            Refusal::Invalid { group, kind, name, errors } => invalid(Subject::new(group, kind), &name, &errors),
            Refusal::Denied(status) => Self::answered(&status),
            Refusal::Bad(why) => Self::bad_request(why),
            Refusal::Failed(why) => Self::internal(why),
            Refusal::Unknown(error) => error.into(),
        }
    }
}

/// 422 out of field errors.
pub fn invalid(kind: Subject<'_>, name: &str, errors: &FieldErrors) -> ApiError {
    let full = field::invalid_message(kind.kind, kind.group, name, &errors.0);
    let message = full.split_once(" is invalid: ").map_or(full.as_str(), |(_, message)| message);
    let causes = errors
        .0
        .iter()
        .map(|e| Cause { reason: e.kind.reason().to_owned(), message: e.body(), field: e.path.clone() })
        .collect();
    ApiError::invalid(kind, name, message, causes)
}

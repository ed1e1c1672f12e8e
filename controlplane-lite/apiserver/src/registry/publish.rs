//! Kinds that come and go while the server runs: another state of what is served, made of the one that is, and put in
//! its place when everything of it is ready. Nothing is written anywhere: a server that dies in between comes up with
//! the kinds it is started with, and with whatever publishes the others.

use std::sync::Arc;

use super::{Registry, Resource, spec};
use scheme::{Conflict, Kind};
use storage::StoreError;

/// Why a kind is not served.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Something of it is taken.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// Its objects cannot be read.
    #[error("read the stored objects of {resource}")]
    Load {
        /// Plural and group.
        resource: String,
        #[source]
        source: StoreError,
    },
}

impl Registry {
    /// Serves another kind. When this returns, requests find it, and its stored objects.
    ///
    /// # Errors
    /// When something of it is taken, or its objects cannot be read. Then nothing has changed.
    pub async fn publish(&self, kind: Kind) -> Result<(), PublishError> {
        let _one = self.changing.lock().await;
        let before = self.served();
        let (group, version, name) = (kind.group.clone(), kind.version.clone(), kind.kind.clone());
        let scheme = before.scheme.with(kind)?;
        let added = scheme.by_gvk(&group, &version, &name).filter(|kind| kind.stores());
        let resource = match added {
            None => None,
            Some(kind) => {
                let failed = |source| PublishError::Load { resource: kind.group_resource(), source };
                let cache = self.cache.add(spec(kind)).await.map_err(failed)?;
                Some(Resource::new(kind.clone(), &self.cache, cache))
            }
        };
        // From here on nothing waits, so nobody can leave half of it behind.
        self.served.store(Arc::new(before.with(scheme, resource)));
        self.changes.send_replace(());
        Ok(())
    }

    /// Serves a resource no longer, in none of its versions; whether it was served. When this returns, its paths are
    /// not found, its watches have ended and its cache is gone; the stored objects are left alone. Requests that were
    /// on their way see it as it was. Built-in kinds stay.
    pub async fn withdraw(&self, group: &str, plural: &str) -> bool {
        let _one = self.changing.lock().await;
        let before = self.served();
        let scheme = before.scheme.without(group, plural);
        if scheme.kinds().count() == before.scheme.kinds().count() {
            return false;
        }
        let after = Arc::new(before.with(scheme, None));
        self.served.store(after.clone());
        self.changes.send_replace(());
        // Only now: as long as requests find it, they must find it current.
        if let Some(gone) = before.get(group, plural).filter(|_| after.get(group, plural).is_none()) {
            // It fails when the caches have ended, and the watches with them.
            let _ = self.cache.remove(&gone.spec).await;
        }
        true
    }
}

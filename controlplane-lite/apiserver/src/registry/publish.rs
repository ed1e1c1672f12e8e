//! Kinds that come and go while the server runs: another state of what is served, made of the one that is, and put in
//! its place when everything of it is ready. Nothing is written anywhere: a server that dies in between comes up with
//! the kinds it is started with, and with whatever publishes the others.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Registry, Resource, field_paths, spec};
use crate::definitions::Converter;
use scheme::{Conflict, Kind};
use storage::StoreError;
use storage::watch_cache::ResourceSpec;

/// What becomes of open watches when kinds are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watches {
    /// They end, and clients begin new ones at the version that they came to: what they are told has another form now.
    End,
    /// They stay.
    Stay,
}

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

    /// Serves these kinds, which are all versions of one resource, in the place of those that were served of it, all at
    /// once. Its cache stays unless other fields can be selected. `converter` turns their objects into each other's.
    ///
    /// # Errors
    /// When something of them is taken, or the objects cannot be read. Then the old kinds are still served.
    pub async fn replace(
        &self,
        kinds: Vec<Kind>,
        watches: Watches,
        converter: Option<Arc<Converter>>,
    ) -> Result<(), PublishError> {
        let Some((group, plural)) = kinds.first().map(|kind| (kind.group.clone(), kind.plural.clone())) else {
            return Ok(());
        };
        let _one = self.changing.lock().await;
        let before = self.served();
        let scheme = before.scheme.replaced(&group, &plural, kinds)?;
        let old = before.get(&group, &plural).cloned();
        let ours: Vec<&Arc<Kind>> = scheme.kinds().filter(|k| k.group == group && k.plural == plural).collect();
        let stored = |kind: &&&Arc<Kind>| kind.conversion.as_ref().is_none_or(|form| form.version == kind.version);
        let Some(kind) = ours.iter().find(stored).or(ours.first()).map(|kind| Arc::clone(kind)) else { return Ok(()) };
        let spec = spec_of_all(&ours);
        let failed = |source| PublishError::Load { resource: kind.group_resource(), source };
        let cache = match old.as_ref().filter(|old| old.spec == spec && self.is_cached(old)) {
            Some(old) => old.cache.clone(),
            None => {
                if let Some(old) = &old {
                    self.cache.remove(&old.spec).await.map_err(failed)?;
                }
                self.cache.add(spec).await.map_err(failed)?
            }
        };
        let token = match (&old, watches) {
            (Some(old), Watches::Stay) => old.replaced.clone(),
            _ => CancellationToken::new(),
        };
        let resource = Resource::with(kind, &self.cache, cache, (token, converter));
        // From here on nothing waits, so nobody can leave half of it behind.
        self.served.store(Arc::new(before.with(scheme, Some(resource))));
        self.changes.send_replace(());
        if let Some(old) = old.filter(|_| watches == Watches::End) {
            old.replaced.cancel();
        }
        Ok(())
    }

    fn is_cached(&self, resource: &Resource) -> bool {
        let found = self.cache.resource(&resource.kind.group, &resource.kind.plural);
        found.is_some_and(|cache| Arc::ptr_eq(&cache, &resource.cache))
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

/// The keys of a resource, and the fields that can be selected in any of its versions.
fn spec_of_all(kinds: &[&Arc<Kind>]) -> ResourceSpec {
    let fields: BTreeMap<String, _> =
        kinds.iter().flat_map(|kind| field_paths(kind)).map(|path| (path.name().to_owned(), path)).collect();
    let first = &kinds[0];
    ResourceSpec::new(&first.group, &first.plural, first.namespaced).with_fields(fields.into_values())
}

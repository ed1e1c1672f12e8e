//! The resources the server stores: where their objects lie, how they are read and how a change is carried through
//! against concurrent writers. The only callers of [`Store`].
//!
//! Knows nothing of HTTP, admission or validation: verbs bring those as the change they want.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::status::{ApiError, Subject};
use scheme::{Kind, Scheme};
use storage::watch_cache::{CacheError, ResourceCache, ResourceSpec, WatchCache};
use storage::{
    Durability, EventKind, FieldPath, Key, Object, Precondition, Put, Revision, Store, StoreError, encode_stored,
};

/// One stored resource.
#[derive(Debug)]
pub struct Resource {
    /// The kind objects are stored as.
    pub kind: &'static Kind,
    spec: ResourceSpec,
    store: Arc<dyn Store>,
    cache: Arc<ResourceCache>,
}

/// All stored resources.
#[derive(Debug)]
pub struct Registry {
    cache: WatchCache,
    resources: HashMap<(&'static str, &'static str), Arc<Resource>>,
}

/// The end of a change.
#[derive(Debug, Clone)]
pub struct Written {
    /// The object as it is now (or was, when removed).
    pub object: Object,
    /// Whether it is gone.
    pub removed: bool,
}

/// What a change wants done with the object it was shown.
#[derive(Debug)]
pub enum Change {
    /// Store this.
    Write(Value),
    /// Store this with [`Durability::Eventual`]: a heartbeat.
    Beat(Value),
    /// Leave it as it is.
    Keep,
    /// Remove it; the answer is this last state.
    Remove(Value),
}

/// How often a change is tried again when somebody else was faster. Upstream's store tries until the request's deadline;
/// a client that named a version gets its conflict from the first try.
pub const RETRIES: usize = 1000;
/// Bytes of a stored object.
pub const MAX_OBJECT: usize = 3 << 20;

impl Registry {
    /// Loads the resources of a scheme from a store; the caches follow it until `token` is cancelled.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn start(store: Arc<dyn Store>, scheme: &Scheme, token: CancellationToken) -> Result<Self, StoreError> {
        let stored: Vec<&'static Kind> = scheme.kinds().filter(|k| k.stored() && k.conversion.is_none()).collect();
        let specs = stored.iter().map(|kind| spec(kind)).collect();
        let cache = WatchCache::start(store.clone(), specs, token).await?;
        let mut resources = HashMap::new();
        for kind in stored {
            // Two versions of one resource share storage; the first listed is the stored form.
            if let Some(of_kind) = cache.resource(kind.group, kind.plural) {
                let resource = Resource { kind, spec: of_kind.spec().clone(), store: store.clone(), cache: of_kind };
                resources.entry((kind.group, kind.plural)).or_insert_with(|| Arc::new(resource));
            }
        }
        Ok(Self { cache, resources })
    }

    /// The resource that holds objects served as `kind`.
    pub fn resource(&self, kind: &Kind) -> Option<Arc<Resource>> {
        self.get(kind.storage_group(), kind.storage_plural())
    }

    /// The resource stored as `group/plural`.
    pub fn get(&self, group: &str, plural: &str) -> Option<Arc<Resource>> {
        self.resources.iter().find(|((g, p), _)| *g == group && *p == plural).map(|(_, resource)| resource.clone())
    }

    /// The store's newest revision.
    ///
    /// # Errors
    /// When the store cannot say.
    pub async fn current_revision(&self) -> Result<Revision, ApiError> {
        self.cache.store().current_revision().await.map_err(store_failure)
    }

    /// Whether the store takes writes.
    ///
    /// # Errors
    /// When it does not.
    pub async fn check(&self) -> Result<(), ApiError> {
        self.cache.store().check().await.map_err(store_failure)
    }

    /// Waits until the caches show every write that was answered before this call.
    ///
    /// # Errors
    /// 504 when they do not get there in time.
    pub async fn fresh(&self) -> Result<Revision, ApiError> {
        self.cache.fresh().await.map_err(cache_failure)
    }

    /// The caches.
    pub fn cache(&self) -> &WatchCache {
        &self.cache
    }
}

/// How a try to change an object went.
enum Attempt {
    Written(Written),
    /// Somebody else wrote first, at this revision when the store says so.
    Lost(Option<Revision>),
}

impl Attempt {
    fn lost(error: StoreError) -> Result<Self, ApiError> {
        match error {
            StoreError::Conflict { current, .. } => Ok(Self::Lost(current)),
            StoreError::NotFound(_) => Ok(Self::Lost(None)),
            other => Err(store_failure(other)),
        }
    }
}

impl Resource {
    /// The subject of errors about objects of this resource.
    pub fn subject(&self) -> Subject<'static> {
        Subject::new(self.kind.group, self.kind.plural)
    }

    /// Key of an object; names that reach into other keys are not found.
    fn key(&self, namespace: &str, name: &str) -> Result<Key, ApiError> {
        self.spec.key(namespace, name).map_err(|_| ApiError::not_found(self.subject(), name))
    }

    /// Whether a key text is one of this resource's.
    pub fn owns_key(&self, key: &str) -> bool {
        key.starts_with(self.spec.prefix())
    }

    /// The key text after the resource's prefix.
    pub fn relative<'k>(&self, key: &'k Key) -> &'k str {
        key.as_str().strip_prefix(self.spec.prefix()).unwrap_or("")
    }

    /// The key of a text made by [`Resource::relative`].
    ///
    /// # Errors
    /// When it is no key text.
    pub fn absolute(&self, relative: &str) -> Result<Key, StoreError> {
        Key::new(format!("{}{relative}", self.spec.prefix()))
    }

    /// The watch cache.
    pub fn cache(&self) -> &Arc<ResourceCache> {
        &self.cache
    }

    /// The newest state of an object.
    ///
    /// # Errors
    /// 404 when there is none.
    pub async fn read(&self, namespace: &str, name: &str) -> Result<Object, ApiError> {
        let entry = self.store.get(&self.key(namespace, name)?).await.map_err(store_failure)?;
        let entry = entry.ok_or_else(|| ApiError::not_found(self.subject(), name))?;
        self.object(&entry.value, entry.revision, EventKind::Modified)
    }

    /// The newest state, decoded.
    ///
    /// # Errors
    /// 404 when there is none.
    pub async fn read_value(&self, namespace: &str, name: &str) -> Result<Value, ApiError> {
        self.read(namespace, name).await.map(|object| object.value())
    }

    fn object(&self, stored: &[u8], revision: Revision, kind: EventKind) -> Result<Object, ApiError> {
        Object::parse(stored, revision, kind, self.spec.fields()).map_err(ApiError::internal)
    }

    /// An object that is not stored, as dry runs answer it.
    ///
    /// # Errors
    /// 500 when it has no name.
    pub fn unstored(&self, mut value: Value, revision: Revision) -> Result<Object, ApiError> {
        self.object(&encode_stored(&mut value), revision, EventKind::Added)
    }

    /// Stores a new object.
    ///
    /// # Errors
    /// 409 when the name is taken.
    pub async fn create(&self, namespace: &str, name: &str, mut value: Value) -> Result<Object, ApiError> {
        let bytes = encoded(&mut value)?;
        let put = Put::create(self.key(namespace, name)?, bytes.clone());
        match self.store.put(put).await {
            Ok(revision) => self.object(&bytes, revision, EventKind::Added),
            Err(StoreError::Conflict { .. }) => Err(ApiError::already_exists(self.subject(), name)),
            Err(error) => Err(store_failure(error)),
        }
    }

    /// Whether an object is there.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn exists(&self, namespace: &str, name: &str) -> Result<bool, ApiError> {
        Ok(self.store.get(&self.key(namespace, name)?).await.map_err(store_failure)?.is_some())
    }

    /// Shows the stored object (with its resourceVersion) to `change` and does what that returns, again from the start
    /// when another writer came between, up to `attempts` times. `change` sees every newer state; it must not keep
    /// anything from an earlier call. With `dry_run` nothing is written.
    ///
    /// # Errors
    /// 404, the change's own error, or 409 when the attempts are used up.
    pub async fn change<F>(
        &self,
        namespace: &str,
        name: &str,
        dry_run: bool,
        attempts: usize,
        mut change: F,
    ) -> Result<Written, ApiError>
    where
        F: FnMut(&Value) -> Result<Change, ApiError>,
    {
        let key = self.key(namespace, name)?;
        for _ in 0..attempts.max(1) {
            let entry = self.store.get(&key).await.map_err(store_failure)?;
            let entry = entry.ok_or_else(|| ApiError::not_found(self.subject(), name))?;
            let mut current: Value = serde_json::from_slice(&entry.value).map_err(ApiError::internal)?;
            current["metadata"]["resourceVersion"] = json!(entry.revision.to_string());
            let asked = change(&current)?;
            match self.perform(&key, entry.value, entry.revision, asked, dry_run).await? {
                Attempt::Written(written) => return Ok(written),
                // The other write may have been decided and not yet committed: reading before it can be seen would
                // only lose the same race again. When it never shows, the next attempt says why.
                Attempt::Lost(Some(winner)) => drop(self.cache.wait_until_fresh(winner).await),
                Attempt::Lost(None) => {}
            }
        }
        Err(ApiError::modified(self.subject(), name))
    }

    /// Carries out one change.
    async fn perform(
        &self,
        key: &Key,
        before: bytes::Bytes,
        revision: Revision,
        change: Change,
        dry_run: bool,
    ) -> Result<Attempt, ApiError> {
        let (mut value, durability) = match change {
            Change::Keep => {
                let object = self.object(&before, revision, EventKind::Modified)?;
                return Ok(Attempt::Written(Written { object, removed: false }));
            }
            Change::Remove(last) => return self.remove(key, revision, last, dry_run).await,
            Change::Write(value) => (value, Durability::Immediate),
            Change::Beat(value) => (value, Durability::Eventual),
        };
        let bytes = encoded(&mut value)?;
        drop(value);
        // A write that changes nothing is none: no revision, no event.
        if dry_run || bytes == before {
            let object = self.object(&bytes, revision, EventKind::Modified)?;
            return Ok(Attempt::Written(Written { object, removed: false }));
        }
        let put = Put { durability, ..Put::update(key.clone(), bytes.clone(), revision) };
        match self.store.put(put).await {
            Ok(revision) => {
                let object = self.object(&bytes, revision, EventKind::Modified)?;
                Ok(Attempt::Written(Written { object, removed: false }))
            }
            Err(error) => Attempt::lost(error),
        }
    }

    async fn remove(&self, key: &Key, revision: Revision, mut last: Value, dry_run: bool) -> Result<Attempt, ApiError> {
        let removed_at = if dry_run {
            revision
        } else {
            match self.store.delete(key, Precondition::Revision(revision)).await {
                Ok((removed_at, _)) => removed_at,
                Err(error) => return Attempt::lost(error),
            }
        };
        let object = self.object(&encode_stored(&mut last), removed_at, EventKind::Deleted)?;
        Ok(Attempt::Written(Written { object, removed: true }))
    }
}

/// An object as it is stored. Requests are bounded by their bodies, objects by this: patch upon patch would make one
/// that every watcher is sent and every list reads, as large as somebody likes. etcd's own limit is half of it.
fn encoded(value: &mut Value) -> Result<Bytes, ApiError> {
    let bytes = encode_stored(value);
    if bytes.len() > MAX_OBJECT {
        return Err(ApiError::upstream(413, "etcdserver: request is too large"));
    }
    Ok(bytes)
}

/// The keys of a kind, and where its selectable fields are found in stored objects. Their values when absent are what
/// the kind says of an empty object.
fn spec(kind: &Kind) -> ResourceSpec {
    let empty = json!({});
    let path = |name: &'static str| {
        let elsewhere =
            kind.fields.paths.iter().find(|(field, _)| *field == name).and_then(|(_, paths)| paths.split_first());
        let path = match elsewhere {
            Some((first, others)) => others.iter().fold(FieldPath::at(name, first), |path, other| path.or_at(other)),
            None => FieldPath::new(name),
        };
        path.or(&(kind.fields.get)(&empty, name))
    };
    ResourceSpec::new(kind.group, kind.plural, kind.namespaced)
        .with_fields(kind.fields.names.iter().map(|name| path(name)))
}

/// What a client reads of a cache's failure.
pub fn cache_failure(error: CacheError) -> ApiError {
    match error {
        CacheError::Expired { requested, oldest } => {
            ApiError::expired(format!("too old resource version: {requested} ({oldest})"))
        }
        CacheError::TooLarge { requested, current } => ApiError::version_too_large(requested.0, current.0),
        CacheError::Stopped => ApiError::unavailable("the server is shutting down"),
        CacheError::Store(error) => store_failure(error),
    }
}

/// What a client reads of a store's failure.
pub fn store_failure(error: StoreError) -> ApiError {
    match error {
        StoreError::Compacted { requested, oldest } => {
            let oldest = oldest.unwrap_or_default();
            ApiError::expired(format!("too old resource version: {requested} ({oldest})"))
        }
        StoreError::Future { requested, current } => ApiError::version_too_large(requested.0, current.0),
        StoreError::Closed => ApiError::unavailable("the storage is closing"),
        StoreError::Lagged => ApiError::expired("the watch fell too far behind"),
        other => {
            let source = std::error::Error::source(&other).map(|s| format!(": {s}")).unwrap_or_default();
            ApiError::internal(format!("{other}{source}"))
        }
    }
}

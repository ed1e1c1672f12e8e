//! The resources the server stores: where their objects lie, how they are read and how a change is carried through
//! against concurrent writers. The only callers of [`Store`].
//!
//! Knows nothing of HTTP, admission or validation: whoever writes opens an object, decides, and commits what it decided
//! against what it saw. How long deciding takes is its own affair: nothing is held meanwhile.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::definitions::Converter;
use super::documents::Documents;
use scheme::{Kind, Scheme};
use storage::watch_cache::{ResourceCache, ResourceSpec, WatchCache};
use storage::{
    Durability, EventKind, FieldPath, Key, Object, ObjectError, Precondition, Put, Revision, Store, StoreError,
    encode_stored,
};

mod error;
mod publish;
mod served;

pub use error::{RegistryError, ResourceName};
pub use publish::{PublishError, Watches};
pub use served::Served;

/// One stored resource.
#[derive(Debug)]
pub struct Resource {
    /// The kind objects are stored as.
    pub kind: Arc<Kind>,
    spec: ResourceSpec,
    store: Arc<dyn Store>,
    cache: Arc<ResourceCache>,
    /// Cancelled when its objects are no longer served as they were: open watches end then.
    replaced: CancellationToken,
    /// Turns objects of one version into those of another, where that is not a matter of names.
    converter: Option<Arc<Converter>>,
}

/// The kinds served and the resources stored, now.
#[derive(Debug)]
pub struct Registry {
    cache: WatchCache,
    served: ArcSwap<Served>,
    /// Held by whoever makes another state out of the one that is.
    changing: tokio::sync::Mutex<()>,
    /// Tells that there is another state.
    changes: tokio::sync::watch::Sender<()>,
}

/// An object opened for a write: what is decided about it is committed against just this state.
#[derive(Debug)]
pub struct Opened {
    key: Key,
    stored: Bytes,
    revision: Revision,
    /// The object, with its resourceVersion.
    pub value: Value,
}

/// How a commit went.
#[derive(Debug)]
pub enum Commit {
    /// It is done.
    Written(WriteResult),
    /// Somebody else wrote first: nothing was written.
    Lost {
        /// At this revision, when the store says so.
        winner: Option<Revision>,
    },
}

/// The end of a change.
#[derive(Debug, Clone)]
pub struct WriteResult {
    /// The object as it is now (or was, when removed).
    pub object: Arc<Object>,
    /// Whether it is gone.
    pub removed: bool,
}

/// What a change wants done with the object it was shown.
#[derive(Debug)]
pub enum Change {
    /// Store this.
    Write(Value),
    /// Store this with [`Durability::Eventual`]: a heartbeat.
    Heartbeat(Value),
    /// Leave it as it is.
    Keep,
    /// Remove it; the answer is this last state.
    Remove(Value),
}

/// How often a change is tried again when somebody else was faster. Upstream's store tries until the request's
/// deadline; a client that named a version gets its conflict from the first try.
pub const RETRIES: usize = 1000;
/// Bytes of a stored object.
pub const MAX_OBJECT: usize = 3 << 20;

impl Registry {
    /// Loads the resources of a scheme from a store; the caches follow it until `token` is cancelled.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn start(
        store: Arc<dyn Store>,
        scheme: Arc<Scheme>,
        token: CancellationToken,
    ) -> Result<Self, StoreError> {
        let stores = |kind: &&Arc<Kind>| kind.stores();
        let specs = scheme.kinds().filter(stores).map(|kind| spec(kind)).collect();
        let cache = WatchCache::start(store, specs, token).await?;
        let resources = scheme.kinds().filter(stores).filter_map(|kind| {
            let of_kind = cache.resource(&kind.group, &kind.plural)?;
            Some(Resource::new(kind.clone(), &cache, of_kind))
        });
        let served = ArcSwap::from_pointee(Served::new(scheme.clone(), resources.collect(), Documents::default()));
        let changes = tokio::sync::watch::Sender::new(());
        Ok(Self { cache, served, changing: tokio::sync::Mutex::default(), changes })
    }

    /// What is served now. A request asks once, and goes on with that.
    pub fn served(&self) -> Arc<Served> {
        self.served.load_full()
    }

    /// Tells whenever something else is served.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// The resource stored as `group/plural` now.
    pub fn get(&self, group: &str, plural: &str) -> Option<Arc<Resource>> {
        self.served.load().get(group, plural).cloned()
    }

    /// The store's newest revision.
    ///
    /// # Errors
    /// When the store cannot say.
    pub async fn current_revision(&self) -> Result<Revision, RegistryError> {
        Ok(self.cache.store().current_revision().await?)
    }

    /// Whether the store takes writes.
    ///
    /// # Errors
    /// When it does not.
    pub async fn check(&self) -> Result<(), RegistryError> {
        Ok(self.cache.store().check().await?)
    }

    /// Waits until the caches show every write that was answered before this call.
    ///
    /// # Errors
    /// When they do not get there in time.
    pub async fn fresh(&self) -> Result<Revision, RegistryError> {
        Ok(self.cache.fresh().await?)
    }

    /// The caches.
    pub fn cache(&self) -> &WatchCache {
        &self.cache
    }
}

impl Resource {
    fn new(kind: Arc<Kind>, cache: &WatchCache, of_kind: Arc<ResourceCache>) -> Arc<Self> {
        Self::with(kind, cache, of_kind, (CancellationToken::new(), None))
    }

    fn with(
        kind: Arc<Kind>,
        cache: &WatchCache,
        of_kind: Arc<ResourceCache>,
        (replaced, converter): (CancellationToken, Option<Arc<Converter>>),
    ) -> Arc<Self> {
        Arc::new(Self {
            kind,
            spec: of_kind.spec().clone(),
            store: cache.store().clone(),
            cache: of_kind,
            replaced,
            converter,
        })
    }

    /// Who turns objects of one version into those of another.
    pub fn converter(&self) -> Option<&Arc<Converter>> {
        self.converter.as_ref()
    }

    /// Cancelled when watches that began with this state have to begin anew.
    pub fn replaced(&self) -> &CancellationToken {
        &self.replaced
    }

    /// The resource's name.
    pub fn name(&self) -> ResourceName {
        ResourceName::of(&self.kind)
    }

    fn not_found(&self, name: &str) -> RegistryError {
        RegistryError::NotFound { resource: self.name(), name: name.to_owned() }
    }

    /// What a write that lost every race answers.
    pub fn modified(&self, name: &str) -> RegistryError {
        RegistryError::Modified { resource: self.name(), name: name.to_owned() }
    }

    /// Key of an object; names that reach into other keys are not found.
    fn key(&self, namespace: &str, name: &str) -> Result<Key, RegistryError> {
        self.spec.key(namespace, name).map_err(|_| self.not_found(name))
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
    /// When there is none, or the store fails.
    pub async fn read(&self, namespace: &str, name: &str) -> Result<Object, RegistryError> {
        let entry = self.store.get(&self.key(namespace, name)?).await?.ok_or_else(|| self.not_found(name))?;
        self.object(&entry.value, entry.revision, EventKind::Modified)
    }

    /// The newest state, decoded.
    ///
    /// # Errors
    /// As [`Resource::read`].
    pub async fn read_value(&self, namespace: &str, name: &str) -> Result<Value, RegistryError> {
        self.read(namespace, name).await.map(|object| object.value())
    }

    fn object(&self, stored: &[u8], revision: Revision, kind: EventKind) -> Result<Object, RegistryError> {
        Object::parse(stored, revision, kind, self.spec.fields()).map_err(RegistryError::corrupt)
    }

    /// Stores a new object. A dry run only looks whether it could.
    ///
    /// # Errors
    /// When the name is taken, the object is too large, or the store fails.
    pub async fn create(
        &self,
        namespace: &str,
        name: &str,
        mut value: Value,
        dry_run: bool,
    ) -> Result<Arc<Object>, RegistryError> {
        let bytes = encoded(&mut value)?;
        drop(value);
        let taken = || RegistryError::AlreadyExists { resource: self.name(), name: name.to_owned() };
        if dry_run {
            if self.exists(namespace, name).await? {
                return Err(taken());
            }
            return self.object(&bytes, Revision::default(), EventKind::Added).map(Arc::new);
        }
        let key = self.key(namespace, name)?;
        match self.store.put(Put::create(key.clone(), bytes.clone())).await {
            Ok(revision) => self.shown(&key, &bytes, revision, EventKind::Added),
            Err(StoreError::Conflict { .. }) => Err(taken()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether an object is there.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn exists(&self, namespace: &str, name: &str) -> Result<bool, RegistryError> {
        Ok(self.store.get(&self.key(namespace, name)?).await?.is_some())
    }

    /// Opens an object for a write.
    ///
    /// # Errors
    /// When there is none, or the store fails.
    pub async fn open(&self, namespace: &str, name: &str) -> Result<Opened, RegistryError> {
        let key = self.key(namespace, name)?;
        let entry = self.store.get(&key).await?.ok_or_else(|| self.not_found(name))?;
        let mut value: Value = serde_json::from_slice(&entry.value).map_err(RegistryError::corrupt)?;
        let metadata = value.get_mut("metadata").and_then(Value::as_object_mut);
        let metadata = metadata.ok_or_else(|| RegistryError::corrupt(ObjectError::NoName))?;
        metadata.insert("resourceVersion".into(), json!(entry.revision.to_string()));
        Ok(Opened { key, stored: entry.value, revision: entry.revision, value })
    }

    /// Does what was decided about an opened object, unless somebody else wrote since. A dry run writes nothing.
    ///
    /// # Errors
    /// When the object is too large, or the store fails.
    pub async fn commit(&self, opened: &Opened, change: Change, dry_run: bool) -> Result<Commit, RegistryError> {
        let (mut value, durability) = match change {
            Change::Keep => return self.written(opened, &opened.stored, opened.revision),
            Change::Remove(last) => return self.remove(opened, last, dry_run).await,
            Change::Write(value) => (value, Durability::Immediate),
            Change::Heartbeat(value) => (value, Durability::Eventual),
        };
        let bytes = encoded(&mut value)?;
        drop(value);
        if dry_run {
            let object = self.object(&bytes, opened.revision, EventKind::Modified).map(Arc::new)?;
            return Ok(Commit::Written(WriteResult { object, removed: false }));
        }
        // A write that changes nothing is none: no revision, no event.
        if bytes == opened.stored {
            return self.written(opened, &bytes, opened.revision);
        }
        let put = Put { durability, ..Put::update(opened.key.clone(), bytes.clone(), opened.revision) };
        match self.store.put(put).await {
            Ok(revision) => self.written(opened, &bytes, revision),
            Err(error) => lost(error),
        }
    }

    /// What is stored, as the cache shows it or will show it.
    fn shown(
        &self,
        key: &Key,
        stored: &[u8],
        revision: Revision,
        kind: EventKind,
    ) -> Result<Arc<Object>, RegistryError> {
        self.cache.written(key, stored, revision, kind).map_err(RegistryError::corrupt)
    }

    fn written(&self, opened: &Opened, bytes: &[u8], revision: Revision) -> Result<Commit, RegistryError> {
        let object = self.shown(&opened.key, bytes, revision, EventKind::Modified)?;
        Ok(Commit::Written(WriteResult { object, removed: false }))
    }

    async fn remove(&self, opened: &Opened, mut last: Value, dry_run: bool) -> Result<Commit, RegistryError> {
        let removed_at = if dry_run {
            opened.revision
        } else {
            match self.store.delete(&opened.key, Precondition::Revision(opened.revision)).await {
                Ok((removed_at, _)) => removed_at,
                Err(error) => return lost(error),
            }
        };
        let object = self.object(&encode_stored(&mut last), removed_at, EventKind::Deleted).map(Arc::new)?;
        Ok(Commit::Written(WriteResult { object, removed: true }))
    }

    /// Waits until the write that won a race can be read: it may have been decided and not yet committed, and reading
    /// before would only lose the same race again. When it never shows, the next try says why.
    pub async fn after_loss(&self, winner: Option<Revision>) {
        if let Some(winner) = winner {
            drop(self.cache.wait_until_fresh(winner).await);
        }
    }

    /// Shows the stored object (with its resourceVersion) to `change` and does what that returns, again from the start
    /// when another writer came between. `change` sees every newer state; it must not keep anything from an earlier
    /// call. For the server's own writes, and those that pass no strategy; a client's go through
    /// [`write`](super::write).
    ///
    /// # Errors
    /// When there is no such object, the change's own error, or when every try lost.
    pub async fn change<F, E>(
        &self,
        namespace: &str,
        name: &str,
        dry_run: bool,
        mut change: F,
    ) -> Result<WriteResult, E>
    where
        F: FnMut(&Value) -> Result<Change, E>,
        E: From<RegistryError>,
    {
        for _ in 0..RETRIES {
            let opened = self.open(namespace, name).await?;
            let asked = change(&opened.value)?;
            match self.commit(&opened, asked, dry_run).await? {
                Commit::Written(written) => return Ok(written),
                Commit::Lost { winner } => self.after_loss(winner).await,
            }
        }
        Err(self.modified(name).into())
    }
}

fn lost(error: StoreError) -> Result<Commit, RegistryError> {
    match error {
        StoreError::Conflict { current, .. } => Ok(Commit::Lost { winner: current }),
        StoreError::NotFound(_) => Ok(Commit::Lost { winner: None }),
        other => Err(other.into()),
    }
}

/// An object as it is stored. Requests are bounded by their bodies, objects by this: patch upon patch would make one
/// that every watcher is sent and every list reads, as large as somebody likes. etcd's own limit is half of it. An
/// object that fits without the owners of its fields is stored without them
/// (`k8s.io/apiserver/pkg/endpoints/handlers/create.go`: `isTooLargeError`).
fn encoded(value: &mut Value) -> Result<Bytes, RegistryError> {
    let bytes = encode_stored(value);
    if bytes.len() <= MAX_OBJECT {
        return Ok(bytes);
    }
    let metadata = value.get_mut("metadata").and_then(Value::as_object_mut);
    if metadata.and_then(|metadata| metadata.remove("managedFields")).is_none() {
        return Err(RegistryError::TooLarge);
    }
    encoded(value)
}

/// The keys of a kind, and its selectable fields.
fn spec(kind: &Kind) -> ResourceSpec {
    ResourceSpec::new(&kind.group, &kind.plural, kind.namespaced).with_fields(field_paths(kind))
}

/// Where a kind's selectable fields are found in stored objects. Their values when absent are what the kind says of an
/// empty object.
pub(crate) fn field_paths(kind: &Kind) -> Vec<FieldPath> {
    let empty = json!({});
    let path = |name: &str| {
        let path = match kind.fields.paths(name).and_then(<[_]>::split_first) {
            Some((first, others)) => others.iter().fold(FieldPath::at(name, first), |path, other| path.or_at(other)),
            None => FieldPath::new(name),
        };
        path.or(&kind.fields.read(&empty, name))
    };
    kind.fields.names().map(path).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::start;

    #[tokio::test]
    async fn a_write_and_the_caches_have_one_object() {
        let (api, _client) = start().await;
        let registry = &api.server().registry;
        let maps = registry.get("", "configmaps").unwrap();
        let shown = async || {
            registry.fresh().await.unwrap();
            maps.cache().get("default", "a").unwrap()
        };
        let map = json!({"metadata": {"name": "a", "namespace": "default"}});
        let made = maps.create("default", "a", map, false).await.unwrap();
        assert!(Arc::ptr_eq(&made, &shown().await));
        let write = |old: &Value| {
            let mut new = old.clone();
            new["data"] = json!({"k": old["metadata"]["resourceVersion"]});
            Ok::<_, RegistryError>(Change::Write(new))
        };
        let written = maps.change("default", "a", false, write).await.unwrap().object;
        assert!(Arc::ptr_eq(&written, &shown().await));
        assert_eq!(
            (written.kind(), written.value()["data"]["k"].clone()),
            (EventKind::Modified, json!(made.revision().to_string()))
        );
        let kept = maps.change("default", "a", false, |_| Ok::<_, RegistryError>(Change::Keep)).await.unwrap();
        assert!(Arc::ptr_eq(&kept.object, &written));
        let dry = maps.change("default", "a", true, write).await.unwrap().object;
        assert!(!Arc::ptr_eq(&dry, &written) && dry.json() != written.json());
        assert!(Arc::ptr_eq(&written, &shown().await));
    }
}

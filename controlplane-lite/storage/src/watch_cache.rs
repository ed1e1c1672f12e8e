//! The watch cache: every stored object in memory, per resource, fed by one watch
//! of the store. Answers gets, lists and watches; owns freshness (how far it has
//! come) and the task that follows the store. Writes go to the store directly.
//!
//! One feed for all resources means one revision for all of them, so a read that
//! must be fresh waits for a number and never for a quiet resource.

mod feed;
mod filter;
mod handoff;
mod history;
mod lag;
mod resource;
mod watch;
mod watchers;

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::object::FieldPath;
use super::store::{Key, Revision, Store, StoreError};
pub use filter::{Filter, Predicate};
pub use resource::{ListQuery, Listing, ResourceCache};
pub use watch::{CacheWatch, WatchEnd, WatchItem, WatchRequest, WatchStart};

/// Where all objects live in the store.
pub const ROOT: &str = "/registry/";

/// Longest wait for the cache to reach a revision, as upstream's.
const FRESH_TIMEOUT: Duration = Duration::from_secs(3);
/// After this long without news the store is asked for a progress report.
const PROGRESS_AFTER: Duration = Duration::from_millis(50);

/// One resource to cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceSpec {
    prefix: Box<str>,
    namespaced: bool,
    fields: Arc<[FieldPath]>,
}

impl ResourceSpec {
    /// A resource by its API group (empty for core) and plural. The keys are
    /// `/registry/GROUP/RESOURCE/[NAMESPACE/]NAME` with `core` for the core group.
    pub fn new(group: &str, resource: &str, namespaced: bool) -> Self {
        let group = if group.is_empty() { "core" } else { group };
        Self { prefix: format!("{ROOT}{group}/{resource}/").into(), namespaced, fields: Arc::new([]) }
    }

    /// With selectable fields beside `metadata.name` and `metadata.namespace`.
    #[must_use]
    pub fn with_fields(mut self, fields: impl IntoIterator<Item = FieldPath>) -> Self {
        self.fields = fields.into_iter().collect();
        self
    }

    /// The prefix of the resource's keys, with its slash.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The selectable fields.
    pub fn fields(&self) -> &Arc<[FieldPath]> {
        &self.fields
    }

    /// The key of one object. `namespace` is ignored for cluster-scoped
    /// resources. Refuses names that would reach into other keys.
    pub fn key(&self, namespace: &str, name: &str) -> Result<Key, StoreError> {
        let clean = |part: &str| !part.is_empty() && !part.contains('/');
        if !clean(name) || (self.namespaced && !clean(namespace)) {
            return Err(StoreError::InvalidKey(format!("{namespace}/{name}").chars().take(64).collect()));
        }
        let prefix = &self.prefix;
        Key::new(if self.namespaced { format!("{prefix}{namespace}/{name}") } else { format!("{prefix}{name}") })
    }
}

/// Why the cache cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The revision is older than what is remembered: "410 Gone".
    #[error("too old resource version: {requested} ({oldest})")]
    Expired { requested: Revision, oldest: Revision },
    /// The revision has not been reached in time: "504, Too large resource version".
    #[error("too large resource version: {requested}, current: {current}")]
    TooLarge { requested: Revision, current: Revision },
    #[error("the watch cache has stopped")]
    Stopped,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Commands to the feed.
enum Command {
    Add(ResourceSpec, mpsc::UnboundedSender<Command>, oneshot::Sender<Result<Added, StoreError>>),
    Remove(Box<str>, oneshot::Sender<()>),
    /// Removes this cache, and no other at its place, unless somebody has asked for it again.
    Undo(Arc<ResourceCache>),
}

/// A cache on its way to who asked for it. One that nobody claims, wherever its askers left, is removed again.
struct Added {
    cache: Arc<ResourceCache>,
    /// Who is told to remove it; nobody once it is claimed.
    unclaimed: Option<mpsc::UnboundedSender<Command>>,
}

impl Added {
    fn new(cache: Arc<ResourceCache>, commands: mpsc::UnboundedSender<Command>) -> Self {
        cache.askers.fetch_add(1, Ordering::AcqRel);
        Self { cache, unclaimed: Some(commands) }
    }

    fn claim(mut self) -> Arc<ResourceCache> {
        self.unclaimed = None;
        self.cache.clone()
    }
}

impl Drop for Added {
    fn drop(&mut self) {
        if let Some(commands) = self.unclaimed.take()
            && self.cache.askers.fetch_sub(1, Ordering::AcqRel) == 1
        {
            // It fails when the feed has ended, and all caches with it.
            let _ = commands.send(Command::Undo(self.cache.clone()));
        }
    }
}

/// State shared between the feed and the readers.
#[derive(Debug)]
struct Shared {
    store: Arc<dyn Store>,
    /// By prefix.
    resources: RwLock<HashMap<Box<str>, Arc<ResourceCache>>>,
    /// How far the feed has come; closed when it has stopped.
    progress: tokio::sync::watch::Receiver<Revision>,
}

/// All caches of one store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct WatchCache {
    shared: Arc<Shared>,
    /// Without a bound: commands are rare, and giving one must not wait between two steps of its giver.
    commands: mpsc::UnboundedSender<Command>,
}

impl WatchCache {
    /// Loads the given resources and follows the store until `token` is
    /// cancelled. Returns when all of them are loaded.
    pub async fn start(
        store: Arc<dyn Store>,
        resources: Vec<ResourceSpec>,
        token: CancellationToken,
    ) -> Result<Self, StoreError> {
        let (progress_sender, progress) = tokio::sync::watch::channel(Revision(0));
        let (commands, inbox) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared { store, resources: RwLock::default(), progress });
        let feed = feed::Feed::new(shared.clone(), progress_sender, inbox);
        feed.launch(resources, token).await?;
        Ok(Self { shared, commands })
    }

    /// The cache of one resource, by group and plural.
    pub fn resource(&self, group: &str, resource: &str) -> Option<Arc<ResourceCache>> {
        let prefix = ResourceSpec::new(group, resource, true).prefix;
        feed::read(&self.shared.resources).get(&prefix).cloned()
    }

    /// Starts caching another resource, as a new CustomResourceDefinition needs it. Nothing is cached for a caller who
    /// does not wait for the answer.
    pub async fn add(&self, spec: ResourceSpec) -> Result<Arc<ResourceCache>, StoreError> {
        let (answer, answered) = oneshot::channel();
        let add = Command::Add(spec, self.commands.clone(), answer);
        self.commands.send(add).map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?.map(Added::claim)
    }

    /// Stops caching a resource; its watches end. That happens whether or not the caller waits for it. Who still holds
    /// the cache reads what it showed last, as of then.
    pub fn remove(&self, spec: &ResourceSpec) -> impl Future<Output = Result<(), StoreError>> + use<> {
        let (answer, answered) = oneshot::channel();
        let sent = self.commands.send(Command::Remove(spec.prefix.clone(), answer));
        async move {
            sent.map_err(|_| StoreError::Closed)?;
            answered.await.map_err(|_| StoreError::Closed)
        }
    }

    /// How far the cache has come.
    pub fn revision(&self) -> Revision {
        *self.shared.progress.borrow()
    }

    /// Waits until the cache shows at least `revision`.
    pub async fn wait_until_fresh(&self, revision: Revision) -> Result<(), CacheError> {
        self.shared.wait_until_fresh(revision).await
    }

    /// Waits until the cache shows everything written before this call, by
    /// whatever server, and returns that revision.
    pub async fn fresh(&self) -> Result<Revision, CacheError> {
        let revision = self.shared.store.current_revision().await?;
        self.shared.wait_until_fresh(revision).await?;
        Ok(revision)
    }

    /// The store behind the cache, for writes.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.shared.store
    }
}

impl Shared {
    async fn wait_until_fresh(&self, revision: Revision) -> Result<(), CacheError> {
        let mut progress = self.progress.clone();
        if *progress.borrow() >= revision {
            return Ok(());
        }
        let reached = progress.wait_for(|reached| *reached >= revision);
        if let Ok(outcome) = tokio::time::timeout(PROGRESS_AFTER, reached).await {
            return outcome.map(drop).map_err(|_| CacheError::Stopped);
        }
        self.store.request_progress().await?;
        let reached = progress.wait_for(|reached| *reached >= revision);
        match tokio::time::timeout(FRESH_TIMEOUT, reached).await {
            Ok(outcome) => outcome.map(drop).map_err(|_| CacheError::Stopped),
            Err(_) => Err(CacheError::TooLarge { requested: revision, current: *self.progress.borrow() }),
        }
    }
}

#[cfg(test)]
mod tests;

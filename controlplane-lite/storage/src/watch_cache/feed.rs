//! The task that follows the store and keeps all caches current. When its watch
//! breaks it goes on from the last change it saw; when the store has forgotten what
//! came next, it lists everything anew, and readers notice nothing but a shorter
//! history.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use futures::{FutureExt as _, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::super::store::{Entry, Event, EventStream, Range, Revision, StoreError};
use super::resource::ResourceCache;
use super::{Added, Command, ROOT, ResourceSpec, Shared};

/// Events taken at once before readers are told.
const CHUNK: usize = 256;
/// Entries read at once while loading.
const PAGE: usize = 1000;
/// How often aged history is given back while nothing changes.
const TRIM_EVERY: Duration = Duration::from_secs(30);
/// Pauses between attempts to reach a store that fails.
const RETRY: [Duration; 4] =
    [Duration::from_millis(50), Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(5)];

/// How a watch of the store ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    /// The store may still know what came next.
    Resumable,
    /// It does not.
    Compacted,
}

pub(super) struct Feed {
    shared: Arc<Shared>,
    progress: watch::Sender<Revision>,
    inbox: mpsc::UnboundedReceiver<Command>,
    /// The store is not what was shown, and not all caches are loaded from it.
    restored: bool,
}

/// Reads through a lock whose holder may have panicked: the map is never left
/// half-written.
pub(super) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

impl Feed {
    pub(super) fn new(
        shared: Arc<Shared>,
        progress: watch::Sender<Revision>,
        inbox: mpsc::UnboundedReceiver<Command>,
    ) -> Self {
        Self { shared, progress, inbox, restored: false }
    }

    /// Loads the resources, then follows the store in a task of its own.
    pub(super) async fn launch(self, specs: Vec<ResourceSpec>, token: CancellationToken) -> Result<(), StoreError> {
        let at = self.shared.store.current_revision().await?;
        for spec in specs {
            // For as long as the feed runs.
            self.add(spec, at).await?.askers.fetch_add(1, Ordering::AcqRel);
        }
        let events = self.shared.store.watch("", at).await?;
        self.progress.send_replace(at);
        tokio::spawn(self.run(events, token));
        Ok(())
    }

    /// Follows the store, again from a whole list when that panics, until the token is cancelled or the store closed.
    async fn run(mut self, events: EventStream, token: CancellationToken) {
        let mut events = Some(events);
        loop {
            let following = self.follow(events.take(), &token);
            let Err(panic) = AssertUnwindSafe(following).catch_unwind().await else { break };
            tracing::error!(panic = crate::panic_text(&*panic), "the watch cache panicked and lists everything anew");
            // A change may have reached the cache, and not all who watch.
            self.caches().iter().for_each(|cache| cache.cut_off());
            let pause = tokio::time::sleep(RETRY[RETRY.len() - 2]);
            if token.run_until_cancelled(pause).await.is_none() {
                break;
            }
        }
        self.caches().iter().for_each(|cache| cache.close());
    }

    fn caches(&self) -> Vec<Arc<ResourceCache>> {
        read(&self.shared.resources).values().cloned().collect()
    }

    /// Follows `events`, or what comes after a whole list.
    async fn follow(&mut self, events: Option<EventStream>, token: &CancellationToken) {
        let mut attempt = 0;
        let events = match events {
            Some(events) => events,
            None => match self.recover(Broken::Compacted, &mut attempt, token).await {
                Some(events) => events,
                None => return,
            },
        };
        let mut events = events.ready_chunks(CHUNK);
        let mut trim = tokio::time::interval(TRIM_EVERY);
        trim.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // Each arm is cancel-safe: a chunk or command is taken whole or not at all.
                () = token.cancelled() => break,
                _ = trim.tick() => self.trim(Instant::now()),
                command = self.inbox.recv() => match command {
                    Some(command) => self.handle(command).await,
                    None => break,
                },
                chunk = events.next() => {
                    let Some(broken) = chunk.map_or(Some(Broken::Resumable), |chunk| self.apply(chunk)) else {
                        attempt = 0;
                        continue;
                    };
                    match self.recover(broken, &mut attempt, token).await {
                        Some(stream) => events = stream.ready_chunks(CHUNK),
                        None => break,
                    }
                }
            }
        }
    }

    fn trim(&self, now: Instant) {
        self.caches().iter().for_each(|cache| cache.trim(now));
    }

    /// Applies events in order and tells readers; how the stream broke, if it did.
    fn apply(&self, chunk: Vec<Result<Event, StoreError>>) -> Option<Broken> {
        let now = Instant::now();
        let mut reached = *self.progress.borrow();
        let mut broken = None;
        let resources = read(&self.shared.resources);
        for event in chunk {
            let event = match event {
                Ok(event) => event,
                // Someone shut the store down; `recover` finds out and ends the feed.
                Err(StoreError::Closed) => {
                    broken = Some(Broken::Resumable);
                    break;
                }
                Err(error) => {
                    let lost = matches!(error, StoreError::Compacted { .. });
                    broken = Some(if lost { Broken::Compacted } else { Broken::Resumable });
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "watch of the store broke");
                    break;
                }
            };
            reached = reached.max(event.revision());
            if let Some(cache) = event.key().and_then(|key| route(&resources, key.as_str())) {
                cache.apply(&event, now);
            }
        }
        drop(resources);
        self.progress.send_if_modified(|progress| std::mem::replace(progress, reached) != reached);
        broken
    }

    /// Goes on where the watch broke, or lists everything and opens a new one, as often as it takes.
    async fn recover(
        &mut self,
        mut broken: Broken,
        attempt: &mut usize,
        token: &CancellationToken,
    ) -> Option<EventStream> {
        loop {
            // A store that ends each resumed watch at once is listed.
            let resumed =
                if broken == Broken::Resumable && *attempt < RETRY.len() { self.resume().await } else { None };
            if let Some(events) = resumed {
                *attempt += 1;
                return Some(events);
            }
            broken = Broken::Compacted;
            match self.reload().await {
                Ok(events) => return Some(events),
                Err(StoreError::Closed) => return None,
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "store cannot be listed; trying again");
                }
            }
            let pause = RETRY[(*attempt).min(RETRY.len() - 1)];
            *attempt += 1;
            tokio::select! {
                () = token.cancelled() => return None,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// A watch from where the last one broke: no reader misses a state, and history stays. None when the store
    /// cannot tell what happened since, or is not what was watched (restored from a backup, it is behind us).
    async fn resume(&self) -> Option<EventStream> {
        let at = *self.progress.borrow();
        let current = self.shared.store.current_revision().await.ok()?;
        if current < at { None } else { self.shared.store.watch("", at).await.ok() }
    }

    /// Lists everything. A store that was restored from a backup counts again from a revision before what was shown:
    /// who watches has seen what is not in it and has to begin anew, and nobody reads what was there before.
    async fn reload(&mut self) -> Result<EventStream, StoreError> {
        let at = self.shared.store.current_revision().await?;
        if at < *self.progress.borrow() {
            self.restored = true;
            self.progress.send_replace(Revision(0));
        }
        for cache in self.caches() {
            let entries = self.load(cache.spec().prefix(), at).await?;
            if self.restored {
                cache.restart(entries, at, Instant::now());
            } else {
                cache.replace(entries, at, Instant::now());
            }
        }
        let events = self.shared.store.watch("", at).await?;
        self.restored = false;
        self.progress.send_if_modified(|progress| std::mem::replace(progress, at) != at);
        Ok(events)
    }

    async fn handle(&self, command: Command) {
        match command {
            Command::Add(spec, commands, answer) => {
                // As of what the feed has applied, so that its next event fits on.
                let at = *self.progress.borrow();
                let added = self.add(spec, at).await.map(|cache| Added::new(cache, commands));
                // The asker may have gone, now or before it looks.
                let _ = answer.send(added);
            }
            Command::Remove(prefix, answer) => {
                self.remove(&prefix);
                let _ = answer.send(());
            }
            Command::Undo(cache) => {
                let prefix = cache.spec().prefix();
                let is_there = read(&self.shared.resources).get(prefix).is_some_and(|there| Arc::ptr_eq(there, &cache));
                if is_there && cache.askers.load(Ordering::Acquire) == 0 {
                    self.remove(prefix);
                }
            }
        }
    }

    fn remove(&self, prefix: &str) {
        let removed = write(&self.shared.resources).remove(prefix);
        if let Some(cache) = removed {
            cache.close();
        }
    }

    async fn add(&self, spec: ResourceSpec, at: Revision) -> Result<Arc<ResourceCache>, StoreError> {
        let existing = read(&self.shared.resources).get(&spec.prefix).cloned();
        if let Some(cache) = existing {
            if *cache.spec() == spec {
                return Ok(cache);
            }
            self.remove(&spec.prefix);
        }
        let entries = self.load(&spec.prefix, at).await?;
        let prefix = spec.prefix.clone();
        let cache = Arc::new(ResourceCache::new(spec, &self.shared, at));
        cache.replace(entries, at, Instant::now());
        write(&self.shared.resources).insert(prefix, cache.clone());
        Ok(cache)
    }

    async fn load(&self, prefix: &str, at: Revision) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        let mut after = None;
        loop {
            let range = Range { prefix: prefix.into(), after, limit: PAGE, at: Some(at), count: false };
            let page = self.shared.store.list(range).await?;
            entries.extend(page.entries);
            if !page.more {
                return Ok(entries);
            }
            after = entries.last().map(|entry| entry.key.clone());
        }
    }
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// The cache a key belongs to: by the part up to the slash after the resource.
fn route<'m>(resources: &'m HashMap<Box<str>, Arc<ResourceCache>>, key: &str) -> Option<&'m Arc<ResourceCache>> {
    let rest = key.strip_prefix(ROOT)?;
    let group = rest.find('/')? + 1;
    let resource = rest[group..].find('/')? + 1;
    resources.get(&key[..ROOT.len() + group + resource])
}

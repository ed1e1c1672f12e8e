//! The cache of one resource: its objects by key, its history, its watches.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use super::super::object::{EventKind, Object, ObjectError};
use super::super::store::{Entry, Event, Key, Range, Revision};
use super::handoff::Handoff;
use super::history::{Change, History};
use super::watch::{CacheWatch, WatchRequest, WatchStart};
use super::watchers::{PendingEvent, Watchers};
use super::{CacheError, Filter, ResourceSpec, Shared};

/// Entries read from the store at once when a selector decides which of them count.
const STORED_CHUNK: usize = 500;

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    pub filter: Filter,
    /// Only keys greater than this: the last one of the page before.
    pub after: Option<Key>,
    /// At most so many objects; zero for all.
    pub limit: usize,
    /// As of this revision; `None` for what the cache shows now.
    pub at: Option<Revision>,
}

/// One page.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    pub items: Vec<Arc<Object>>,
    pub revision: Revision,
    /// Where the next page starts; `None` on the last one.
    pub next: Option<Key>,
    /// Objects after this page, known when nothing but a namespace was selected.
    pub remaining: Option<u64>,
}

/// Objects of one resource. Reads show at least what the feed's revision says.
#[derive(Debug)]
pub struct ResourceCache {
    spec: ResourceSpec,
    shared: std::sync::Weak<Shared>,
    progress: tokio::sync::watch::Receiver<Revision>,
    state: RwLock<State>,
    /// What writers have parsed already.
    handoff: Handoff,
    /// Who asked for it, claimed or on the way: without any it need not be here.
    pub(super) askers: AtomicUsize,
}

#[derive(Debug)]
pub(super) struct State {
    objects: BTreeMap<Key, Arc<Object>>,
    pub(super) history: History,
    pub(super) watchers: Watchers,
    /// The newest change applied here; may be ahead of the feed's progress.
    applied: Revision,
    /// Set when nothing is applied any more: what is here is as of then, whatever happens to the store.
    closed: Option<Revision>,
}

impl ResourceCache {
    pub(super) fn new(spec: ResourceSpec, shared: &Arc<Shared>, at: Revision) -> Self {
        let watchers = Watchers::new(spec.fields.len());
        let state =
            State { objects: BTreeMap::new(), history: History::new(at), watchers, applied: Revision(0), closed: None };
        Self {
            spec,
            shared: Arc::downgrade(shared),
            progress: shared.progress.clone(),
            state: RwLock::new(state),
            handoff: Handoff::default(),
            askers: AtomicUsize::new(0),
        }
    }

    /// What is cached here, and how its keys look.
    pub fn spec(&self) -> &ResourceSpec {
        &self.spec
    }

    /// One object, or `None`. Invalid names are never found.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let key = self.spec.key(namespace, name).ok()?;
        self.read().objects.get(&key).cloned()
    }

    /// The object that somebody wrote under a key: the one that is cached or will be, where that can be had.
    ///
    /// # Errors
    /// When what was stored is no object.
    pub fn written(
        &self,
        key: &Key,
        stored: &[u8],
        revision: Revision,
        kind: EventKind,
    ) -> Result<Arc<Object>, ObjectError> {
        let cached = self.read().objects.get(key).filter(|object| object.revision() == revision).cloned();
        if let Some(cached) = cached {
            return Ok(cached);
        }
        let object = Arc::new(Object::parse(stored, revision, kind, &self.spec.fields)?);
        self.handoff.offer(key, &object);
        Ok(object)
    }

    /// Whether a namespace has any object: for who asks with every request of others, and mostly hears no.
    pub fn has_any_in(&self, namespace: &str) -> bool {
        let state = self.read();
        if state.objects.is_empty() {
            return false;
        }
        let prefix = format!("{}{namespace}/", self.spec.prefix);
        let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        state.objects.range::<str, _>(from).next().is_some_and(|(key, _)| key.as_str().starts_with(&prefix))
    }

    /// Objects cached now.
    pub fn len(&self) -> usize {
        self.read().objects.len()
    }

    /// True when nothing is cached.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The revision a list without `at` would show.
    pub fn revision(&self) -> Revision {
        let state = self.read();
        self.now(&state)
    }

    /// The revision of the last change here: equal answers mean equal contents.
    pub fn changed(&self) -> Revision {
        self.read().applied
    }

    /// Whether a list as of `revision` needs nothing of the store, for now.
    pub fn remembers(&self, revision: Revision) -> bool {
        self.read().history.since() <= revision
    }

    /// Calls `visit` for each object that passes, without decoding or sorting
    /// anything. The cache may be used and changed meanwhile.
    pub fn for_each(&self, filter: &Filter, visit: impl FnMut(&Arc<Object>)) {
        let found: Vec<_> = {
            let state = self.read();
            let (start, prefix) = self.range(filter, None);
            let objects = state.objects.range::<str, _>((start.as_bound(), Bound::Unbounded));
            let within = objects.take_while(|(key, _)| key.as_str().starts_with(&prefix));
            within.filter(|(_, object)| filter.is_within(object)).map(|(_, object)| object.clone()).collect()
        };
        found.iter().filter(|object| filter.matches(object)).for_each(visit);
    }

    /// Waits until the cache shows everything written before this call.
    pub async fn fresh(&self) -> Result<Revision, CacheError> {
        let shared = self.shared.upgrade().ok_or(CacheError::Stopped)?;
        let revision = shared.store.current_revision().await?;
        shared.wait_until_fresh(revision).await?;
        Ok(revision)
    }

    /// Waits until the cache shows at least `revision`.
    pub async fn wait_until_fresh(&self, revision: Revision) -> Result<(), CacheError> {
        self.shared.upgrade().ok_or(CacheError::Stopped)?.wait_until_fresh(revision).await
    }

    /// One page. A past revision comes from memory while the history reaches
    /// back to it, else from the store's own history.
    pub async fn list(&self, query: &ListQuery) -> Result<Listing, CacheError> {
        if let Some(listing) = self.list_cached(query)? {
            return Ok(listing);
        }
        self.list_stored(query).await
    }

    /// A page out of memory, if the history reaches back so far. A predicate is asked when the cache is free again: it
    /// may take long.
    fn list_cached(&self, query: &ListQuery) -> Result<Option<Listing>, CacheError> {
        let state = self.read();
        let now = self.now(&state);
        let at = query.at.unwrap_or(now);
        if at > now {
            return Err(CacheError::TooLarge { requested: at, current: now });
        }
        if at < state.history.since() {
            return Ok(None);
        }
        // What changed since, undone: per key the state before its first change.
        let mut undo: BTreeMap<&str, (&Key, Option<&Arc<Object>>)> = BTreeMap::new();
        for change in state.history.after(at).rev() {
            undo.insert(change.key.as_str(), (&change.key, change.previous.as_ref()));
        }
        let (start, prefix) = self.range(&query.filter, query.after.as_ref());
        let bounds = (start.as_bound(), Bound::Unbounded);
        let within = |key: &Key| key.as_str().starts_with(&prefix);
        let kept = state.objects.range::<str, _>(bounds).take_while(|(key, _)| within(key));
        let kept = kept.filter(|(key, _)| !undo.contains_key(key.as_str()));
        if undo.is_empty() && query.filter.predicate.is_none() {
            return Ok(Some(page(query, at, kept)));
        }
        let undone = undo.range::<str, _>(bounds).map(|(_, state)| *state).take_while(|(key, _)| within(key));
        let all = kept.chain(undone.filter_map(|(key, old)| Some((key, old?))));
        let all = all.filter(|(_, object)| query.filter.is_within(object));
        let mut all: Vec<(Key, Arc<Object>)> = all.map(|(key, object)| (key.clone(), object.clone())).collect();
        drop(undo);
        drop(state);
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(Some(page(query, at, all.iter().map(|(key, object)| (key, object)))))
    }

    /// A page out of the store's history, reading no more of it than the page takes.
    async fn list_stored(&self, query: &ListQuery) -> Result<Listing, CacheError> {
        let shared = self.shared.upgrade().ok_or(CacheError::Stopped)?;
        let (_, prefix) = self.range(&query.filter, None);
        let limit = match query.limit {
            0 => 0,
            limit if query.filter.is_range() => limit,
            // A selector leaves some out; one more tells whether there is a next page.
            limit => limit.saturating_add(1).max(STORED_CHUNK),
        };
        let count = query.filter.is_range();
        let mut range = Range { prefix, after: query.after.clone(), limit, at: query.at, count };
        let mut found: Vec<(Key, Arc<Object>)> = Vec::new();
        loop {
            let stored = shared.store.list(range.clone()).await?;
            range.at = Some(stored.revision);
            range.after = stored.entries.last().map(|entry| entry.key.clone());
            let parsed = stored.entries.iter().filter_map(|entry| {
                let object = self.parse(entry, EventKind::Modified).filter(|object| query.filter.matches(object))?;
                Some((entry.key.clone(), Arc::new(object)))
            });
            found.extend(parsed);
            if count {
                let items = found.into_iter().map(|(_, object)| object).collect();
                let (next, remaining) = if stored.more { (range.after, stored.left_out) } else { (None, None) };
                return Ok(Listing { items, revision: stored.revision, next, remaining });
            }
            if !stored.more || found.len() > query.limit {
                return Ok(page(query, stored.revision, found.iter().map(|(key, object)| (key, object))));
            }
        }
    }

    /// Starts a watch. Its filter is asked about what there is when the watch is read, not here.
    pub fn watch(self: &Arc<Self>, request: WatchRequest) -> Result<CacheWatch, CacheError> {
        let mut state = self.write();
        let now = self.now(&state);
        let mut initial = Vec::new();
        let mut begun = now;
        let mut lag = None;
        match request.start {
            WatchStart::Now => {}
            WatchStart::State => {
                let (start, prefix) = self.range(&request.filter, None);
                let present = state.objects.range::<str, _>((start.as_bound(), Bound::Unbounded));
                let present = present.take_while(|(key, _)| key.as_str().starts_with(&prefix));
                let wanted = present.filter(|(_, object)| request.filter.is_within(object));
                initial.extend(wanted.map(|(_, object)| PendingEvent::Present(object.clone())));
            }
            WatchStart::After(revision) => {
                if revision < state.history.since() {
                    let oldest = state.history.since();
                    return Err(CacheError::Expired { requested: revision, oldest });
                }
                begun = revision;
                lag = state.history.after(revision).next().map(|_| revision);
            }
        }
        let fields = self.spec.fields.clone();
        let (id, pending) = state.watchers.add(&self.spec, &fields, request.filter.clone(), begun);
        pending.lag_behind(lag);
        if state.closed.is_some() {
            // It yields what it begins with, and ends.
            state.watchers.clear();
        }
        Ok(CacheWatch::new(self.clone(), id, request, initial, pending, begun))
    }

    /// Where a filtered range starts, and the prefix it stays within.
    fn range(&self, filter: &Filter, after: Option<&Key>) -> (Start, String) {
        let prefix = match &filter.namespace {
            Some(namespace) if self.spec.namespaced => format!("{}{namespace}/", self.spec.prefix),
            _ => self.spec.prefix.to_string(),
        };
        let start = match after.filter(|after| after.as_str() >= prefix.as_str()) {
            Some(after) => Start::After(after.clone()),
            None => Start::From(prefix.clone()),
        };
        (start, prefix)
    }

    fn now(&self, state: &State) -> Revision {
        // Everything up to the feed's progress is applied, and so is `applied`.
        state.closed.unwrap_or_else(|| state.applied.max(*self.progress.borrow()))
    }

    /// How far a watch that has yielded everything has come.
    pub(super) fn reached(&self) -> Revision {
        // Under the lock: progress that comes after the end is not this cache's.
        let state = self.read();
        state.closed.unwrap_or_else(|| *self.progress.borrow())
    }

    /// Ends the watches; what comes after is not for this cache.
    pub(super) fn close(&self) {
        let mut state = self.write();
        let now = self.now(&state);
        state.closed.get_or_insert(now);
        state.watchers.clear();
        self.handoff.pass(Revision(u64::MAX));
    }

    fn parse(&self, entry: &Entry, kind: EventKind) -> Option<Object> {
        match Object::parse(&entry.value, entry.revision, kind, &self.spec.fields) {
            Ok(object) => Some(object),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(key = %entry.key, error, "stored object cannot be read and is left out");
                None
            }
        }
    }

    /// Applies one change of the store. An unreadable object counts as absent.
    pub(super) fn apply(&self, event: &Event, now: Instant) {
        let (key, object) = match event {
            Event::Put { entry, created } => {
                let kind = if *created { EventKind::Added } else { EventKind::Modified };
                let written = self.handoff.take(&entry.key, entry.revision, kind);
                (&entry.key, written.or_else(|| self.parse(entry, kind).map(Arc::new)))
            }
            Event::Delete { previous, .. } => (&previous.key, None),
            Event::Progress(_) => return,
        };
        self.write().set(key, object, event.revision(), now);
    }

    /// Gives back history that has aged, and the watches that keep it.
    pub(super) fn trim(&self, now: Instant) {
        let mut state = self.write();
        state.history.trim(now);
        let forgotten = state.history.since();
        state.watchers.drop_behind(forgotten);
    }

    /// Ends the watches, and lets none be resumed from what was before.
    pub(super) fn cut_off(&self) {
        let mut state = self.write();
        state.watchers.clear();
        state.history = History::new(self.now(&state));
    }

    /// Replaces everything by a complete list as of `at`, telling watches only
    /// what differs. An object of the same name and another uid is another object:
    /// its predecessor was deleted at some revision before.
    pub(super) fn replace(&self, entries: Vec<Entry>, at: Revision, now: Instant) {
        self.load(&mut self.write(), entries, at, now);
    }

    /// The same with a list of another store, which may have counted the same revisions for something else: the watches
    /// end.
    pub(super) fn restart(&self, entries: Vec<Entry>, at: Revision, now: Instant) {
        let mut state = self.write();
        state.watchers.clear();
        state.objects.clear();
        self.load(&mut state, entries, at, now);
    }

    fn load(&self, state: &mut State, entries: Vec<Entry>, at: Revision, now: Instant) {
        let mut changed = Vec::new();
        let mut gone: std::collections::BTreeSet<Key> = state.objects.keys().cloned().collect();
        for entry in entries {
            gone.remove(&entry.key);
            let have = state.objects.get(&entry.key);
            if have.is_some_and(|have| have.revision() == entry.revision) {
                continue;
            }
            let mut object = self.parse(&entry, EventKind::Modified);
            let recreated = have.zip(object.as_ref()).is_some_and(|(have, object)| have.uid() != object.uid());
            if recreated {
                changed.push((Revision(entry.revision.0 - 1), entry.key.clone(), None));
            }
            if have.is_none() || recreated {
                object = self.parse(&entry, EventKind::Added);
            }
            changed.push((entry.revision, entry.key, object.map(Arc::new)));
        }
        changed.extend(gone.into_iter().map(|key| (at, key, None)));
        changed.sort_by_key(|(revision, ..)| *revision);
        for (revision, key, object) in changed {
            state.set(&key, object, revision, now);
        }
        self.handoff.restart(at);
        // What happened in between is not known, so nothing older can be resumed.
        state.history = History::new(at);
        state.applied = at;
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody reads or changes the cache right now.
    #[cfg(test)]
    pub(super) fn is_locked(&self) -> bool {
        self.state.try_write().is_err()
    }
}

impl State {
    fn set(&mut self, key: &Key, object: Option<Arc<Object>>, revision: Revision, now: Instant) {
        let previous = match &object {
            Some(object) => self.objects.insert(key.clone(), object.clone()),
            None => self.objects.remove(key),
        };
        self.applied = self.applied.max(revision);
        let object = match (object, &previous) {
            (Some(object), _) => object,
            (None, Some(previous)) => match previous.restamped(revision, EventKind::Deleted) {
                Ok(object) => Arc::new(object),
                Err(_) => return,
            },
            (None, None) => return,
        };
        let change = Arc::new(Change::new(key.clone(), object, previous));
        self.watchers.dispatch(&change);
        self.history.push(change, now);
    }
}

/// Where a range starts.
enum Start {
    From(String),
    After(Key),
}

impl Start {
    fn as_bound(&self) -> Bound<&str> {
        match self {
            Self::From(text) => Bound::Included(text),
            Self::After(key) => Bound::Excluded(key.as_str()),
        }
    }
}

/// Takes one page out of candidates in key order.
fn page<'o>(
    query: &ListQuery,
    revision: Revision,
    candidates: impl Iterator<Item = (&'o Key, &'o Arc<Object>)>,
) -> Listing {
    let mut matching = candidates.filter(|(_, object)| query.filter.matches(object));
    let limit = if query.limit == 0 { usize::MAX } else { query.limit };
    let mut listing = Listing { revision, ..Listing::default() };
    let mut last = None;
    for (key, object) in matching.by_ref().take(limit) {
        listing.items.push(object.clone());
        last = Some(key);
    }
    if matching.next().is_some() {
        listing.next = last.cloned();
        if query.filter.is_range() {
            listing.remaining = Some(1 + matching.count() as u64);
        }
    }
    listing
}

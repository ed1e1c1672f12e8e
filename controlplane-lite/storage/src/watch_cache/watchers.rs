//! The open watches of one resource, indexed by what they wait for, so that an
//! event reaches the few it concerns without asking all others.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::sync::mpsc;

use super::super::object::{EventKind, FieldPath, Object};
use super::super::store::{Key, Revision};
use super::history::Change;
use super::{Filter, ResourceSpec};

/// Events that wait for a watch before it has to read on in the history.
const MAX_PENDING: usize = 2048;
/// Bytes of objects that wait for it: a queue keeps objects in memory that everybody else has forgotten.
pub(super) const MAX_PENDING_BYTES: usize = 32 * 1024 * 1024;

pub(super) type Delivery = (EventKind, Arc<Object>);

/// What a watch has yet to read.
#[derive(Debug)]
pub(super) enum PendingEvent {
    /// The event as it is sent.
    Ready(Delivery),
    /// A change that it has to ask its filter about.
    Changed(Arc<Change>),
    /// An object that was there when it began; likewise.
    Present(Arc<Object>),
}

impl PendingEvent {
    /// The event that a watch with this filter sends, if any.
    pub(super) fn resolve(self, filter: &Filter) -> Option<Delivery> {
        match self {
            Self::Ready(delivery) => Some(delivery),
            Self::Changed(change) => change.seen_by(|object| filter.matches(object)),
            Self::Present(object) => filter.matches(&object).then_some((EventKind::Added, object)),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let object = match self {
            Self::Ready((_, object)) | Self::Present(object) => object,
            Self::Changed(change) => &change.object,
        };
        object.json_bytes().len()
    }

    fn revision(&self) -> Revision {
        match self {
            Self::Ready((_, object)) | Self::Present(object) => object.revision(),
            Self::Changed(change) => change.revision,
        }
    }
}

/// [`Backlog::lags`] of a watch that gets everything from its queue. Not a revision that anything could follow.
const UP_TO_DATE: u64 = u64::MAX;

/// How far a watch is behind.
#[derive(Debug)]
struct Backlog {
    /// Of what it has yet to read.
    bytes: AtomicUsize,
    /// It has read everything before this revision, perhaps more.
    oldest: AtomicU64,
    /// So much of it may be however old.
    spared: AtomicUsize,
    /// Set when it fell behind too far: it gets nothing more, not even what it has yet to read.
    cut: AtomicBool,
    /// Behind its queue it reads on in the history, after this revision. Set as long as nothing is dispatched, or by
    /// who dispatches.
    lags: AtomicU64,
}

impl Default for Backlog {
    fn default() -> Self {
        Self {
            bytes: AtomicUsize::default(),
            oldest: AtomicU64::default(),
            spared: AtomicUsize::default(),
            cut: AtomicBool::default(),
            lags: AtomicU64::new(UP_TO_DATE),
        }
    }
}

impl Backlog {
    /// Where it reads on when it has read its queue.
    fn lag(&self) -> Option<Revision> {
        Some(self.lags.load(Ordering::Acquire)).filter(|lags| *lags != UP_TO_DATE).map(Revision)
    }

    fn lag_behind(&self, revision: Option<Revision>) {
        self.lags.store(revision.map_or(UP_TO_DATE, |revision| revision.0), Ordering::Release);
    }

    /// Whether it has yet to read what happened at `revision` or before, and more than is spared. A watch that reads
    /// just now may seem to.
    fn reaches(&self, revision: Revision) -> bool {
        self.bytes.load(Ordering::Acquire) > self.spared.load(Ordering::Acquire)
            && self.oldest.load(Ordering::Acquire) <= revision.0
    }
}

/// Where a watch stands in the index.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    All,
    Namespace(Box<str>),
    Object(Key),
    Field(usize, Box<str>),
}

/// Names a watch so that it can be removed.
#[derive(Clone, Debug)]
pub(super) struct WatcherId {
    place: Place,
    number: u64,
}

#[derive(Debug)]
struct Watcher {
    number: u64,
    filter: Filter,
    after: Revision,
    sender: mpsc::Sender<PendingEvent>,
    backlog: Arc<Backlog>,
    /// Whether it seemed to be behind when that was looked at last.
    behind: bool,
}

/// The events that a watch has yet to read.
#[derive(Debug)]
pub(super) struct Pending {
    /// None once it was cut off.
    receiver: Option<mpsc::Receiver<PendingEvent>>,
    backlog: Arc<Backlog>,
}

impl Pending {
    /// Keeps nothing more if the watch was cut off. Upstream's cacheWatcher.stopLocked, when it does not drain
    /// (staging/src/k8s.io/apiserver/pkg/storage/cacher/cache_watcher.go).
    pub(super) fn let_go(&mut self) {
        if self.backlog.cut.load(Ordering::Acquire) {
            self.receiver = None;
        }
    }

    /// Whether it was cut off.
    pub(super) fn is_cut(&self) -> bool {
        self.receiver.is_none()
    }

    /// Where to read on in the history, once everything that was queued is read.
    pub(super) fn lag(&self) -> Option<Revision> {
        self.backlog.lag()
    }

    /// Says so; none when the queue gets what comes next.
    pub(super) fn lag_behind(&self, revision: Option<Revision>) {
        self.backlog.lag_behind(revision);
    }

    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<PendingEvent>> {
        self.let_go();
        let Some(receiver) = &mut self.receiver else { return Poll::Ready(None) };
        let mut polled = receiver.poll_recv(context);
        if polled.is_pending() && self.backlog.lag().is_some() {
            // It may have been filled since, and is not any more.
            polled = receiver.try_recv().map_or(Poll::Pending, |event| Poll::Ready(Some(event)));
        }
        if let Poll::Ready(Some(event)) = &polled {
            self.backlog.oldest.store(event.revision().next().0, Ordering::Release);
            self.backlog.bytes.fetch_sub(event.bytes(), Ordering::AcqRel);
        }
        polled
    }

    /// Lets so many bytes wait however old they are.
    pub(super) fn spare(&self, bytes: usize) {
        self.backlog.spared.store(bytes, Ordering::Release);
    }

    /// Whether everything was read that happened before the question, and nothing was lost.
    pub(super) fn is_complete(&self) -> bool {
        let empty = self.receiver.as_ref().is_some_and(|receiver| !receiver.is_closed() && receiver.is_empty());
        empty && self.lag().is_none()
    }
}

impl Watcher {
    /// Queues what concerns the watch; false when nobody reads it any more.
    fn offer(&self, change: &Arc<Change>) -> bool {
        if change.revision <= self.after || self.backlog.lag().is_some() {
            return true;
        }
        if self.filter.is_apart() {
            return !change.concerns(&self.filter) || self.send(PendingEvent::Changed(change.clone()));
        }
        match change.seen_by(|object| self.filter.matches(object)) {
            Some(delivery) => self.send(PendingEvent::Ready(delivery)),
            None => true,
        }
    }

    fn send(&self, event: PendingEvent) -> bool {
        let length = event.bytes();
        let before = self.backlog.bytes.fetch_add(length, Ordering::AcqRel);
        if before == 0 {
            self.backlog.oldest.store(event.revision().0, Ordering::Release);
        }
        // The first is taken whatever its size.
        let fits = before == 0 || before + length <= MAX_PENDING_BYTES;
        let revision = event.revision();
        if fits && self.sender.try_send(event).is_ok() {
            return true;
        }
        self.backlog.bytes.fetch_sub(length, Ordering::AcqRel);
        self.backlog.lag_behind(Some(Revision(revision.0 - 1)));
        !self.sender.is_closed()
    }

    /// Before it is dropped, which wakes the watch.
    fn cut(&self) {
        self.backlog.cut.store(true, Ordering::Release);
    }
}

/// All open watches of a resource.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    next: u64,
    all: Vec<Watcher>,
    by_namespace: HashMap<Box<str>, Vec<Watcher>>,
    by_object: HashMap<Key, Vec<Watcher>>,
    /// Per selectable field, by value.
    by_field: Vec<HashMap<Box<str>, Vec<Watcher>>>,
}

impl Watchers {
    pub(super) fn new(fields: usize) -> Self {
        Self { by_field: vec_of(fields), ..Self::default() }
    }

    pub(super) fn add(
        &mut self,
        spec: &ResourceSpec,
        fields: &[FieldPath],
        filter: Filter,
        after: Revision,
    ) -> (WatcherId, Pending) {
        let (sender, receiver) = mpsc::channel(MAX_PENDING);
        self.next += 1;
        let id = WatcherId { place: place(spec, fields, &filter), number: self.next };
        let pending = Pending { receiver: Some(receiver), backlog: Arc::default() };
        let backlog = pending.backlog.clone();
        let watcher = Watcher { number: self.next, filter, after, sender, backlog, behind: false };
        match &id.place {
            Place::All => self.all.push(watcher),
            Place::Namespace(namespace) => self.by_namespace.entry(namespace.clone()).or_default().push(watcher),
            Place::Object(key) => self.by_object.entry(key.clone()).or_default().push(watcher),
            Place::Field(index, value) => self.by_field[*index].entry(value.clone()).or_default().push(watcher),
        }
        (id, pending)
    }

    pub(super) fn remove(&mut self, id: &WatcherId) {
        match &id.place {
            Place::All => self.all.retain(|watcher| watcher.number != id.number),
            Place::Namespace(namespace) => drop_from(&mut self.by_namespace, namespace, id.number),
            Place::Object(key) => drop_from(&mut self.by_object, key.as_str(), id.number),
            Place::Field(index, value) => drop_from(&mut self.by_field[*index], value, id.number),
        }
    }

    /// Dispatches a change to the watches it concerns.
    pub(super) fn dispatch(&mut self, change: &Arc<Change>) {
        self.all.retain(|watcher| watcher.offer(change));
        // An object never changes its namespace or name, but its fields may.
        dispatch_at(&mut self.by_namespace, change.object.namespace(), change);
        dispatch_at(&mut self.by_object, change.key.as_str(), change);
        for (index, watchers) in self.by_field.iter_mut().enumerate().filter(|(_, watchers)| !watchers.is_empty()) {
            let new = change.object.field_at(index);
            let old = change.previous.as_ref().and_then(|previous| previous.field_at(index));
            for value in new.into_iter().chain(old.filter(|old| Some(*old) != new)) {
                dispatch_at(watchers, value, change);
            }
        }
    }

    /// Drops the watches that have yet to read what happened up to `forgotten`, now and when this was asked before: all
    /// of them together keep little more than the history does.
    pub(super) fn drop_behind(&mut self, forgotten: Revision) {
        let keep = |watcher: &mut Watcher| {
            let before = std::mem::replace(&mut watcher.behind, watcher.backlog.reaches(forgotten));
            let keep = !(before && watcher.behind);
            if !keep {
                watcher.cut();
            }
            keep
        };
        self.all.retain_mut(keep);
        retain_in(&mut self.by_namespace, keep);
        retain_in(&mut self.by_object, keep);
        self.by_field.iter_mut().for_each(|watchers| retain_in(watchers, keep));
    }

    /// Ends every watch.
    pub(super) fn clear(&mut self) {
        let fields = self.by_field.len();
        *self = Self { next: self.next, ..Self::new(fields) };
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let fields: usize = self.by_field.iter().flat_map(HashMap::values).map(Vec::len).sum();
        self.all.len()
            + self.by_namespace.values().map(Vec::len).sum::<usize>()
            + self.by_object.values().map(Vec::len).sum::<usize>()
            + fields
    }
}

fn vec_of(count: usize) -> Vec<HashMap<Box<str>, Vec<Watcher>>> {
    std::iter::repeat_with(HashMap::new).take(count).collect()
}

/// The narrowest place: one object, then a field's value, then a namespace.
fn place(spec: &ResourceSpec, fields: &[FieldPath], filter: &Filter) -> Place {
    if let Some(name) = &filter.name
        && let Ok(key) = spec.key(filter.namespace.as_deref().unwrap_or_default(), name)
    {
        return Place::Object(key);
    }
    if let Some((name, value)) = &filter.field
        && let Some(index) = fields.iter().position(|field| field.name() == &**name)
    {
        return Place::Field(index, value.clone());
    }
    filter.namespace.clone().map_or(Place::All, Place::Namespace)
}

fn retain_in<K: std::hash::Hash + Eq>(
    watchers: &mut HashMap<K, Vec<Watcher>>,
    mut keep: impl FnMut(&mut Watcher) -> bool,
) {
    watchers.retain(|_, list| {
        list.retain_mut(&mut keep);
        !list.is_empty()
    });
}

fn dispatch_at<K>(watchers: &mut HashMap<K, Vec<Watcher>>, at: &str, change: &Arc<Change>)
where
    K: std::hash::Hash + Eq + std::borrow::Borrow<str>,
{
    if let Some(list) = watchers.get_mut(at) {
        list.retain(|watcher| watcher.offer(change));
        if list.is_empty() {
            watchers.remove(at);
        }
    }
}

fn drop_from<K>(watchers: &mut HashMap<K, Vec<Watcher>>, at: &str, number: u64)
where
    K: std::hash::Hash + Eq + std::borrow::Borrow<str>,
{
    if let Some(list) = watchers.get_mut(at) {
        list.retain(|watcher| watcher.number != number);
        if list.is_empty() {
            watchers.remove(at);
        }
    }
}

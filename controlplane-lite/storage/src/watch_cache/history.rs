//! Recent changes of one resource: what watches resume from and past pages are
//! rebuilt with. Owns how much is remembered.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::super::object::{EventKind, Object};
use super::super::store::{Key, Revision};

/// One change as the cache saw it.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) key: Key,
    pub(super) revision: Revision,
    /// The new state; a restamped last state when the object was deleted.
    pub(super) object: Arc<Object>,
    /// The state before, if there was one.
    pub(super) previous: Option<Arc<Object>>,
    /// `previous` as a deletion, for watches whose selector it left; made once.
    departed: OnceLock<Option<Arc<Object>>>,
}

impl Change {
    pub(super) fn new(key: Key, object: Arc<Object>, previous: Option<Arc<Object>>) -> Self {
        Self { key, revision: object.revision(), object, previous, departed: OnceLock::new() }
    }

    pub(super) fn deleted(&self) -> bool {
        self.object.kind() == EventKind::Deleted
    }

    /// What a watch that accepts `new` and/or `old` has to be told.
    pub(super) fn seen_by(&self, matches: impl Fn(&Object) -> bool) -> Option<(EventKind, Arc<Object>)> {
        let new = !self.deleted() && matches(&self.object);
        let old = self.previous.as_ref().is_some_and(|previous| matches(previous));
        match (old, new) {
            (false, false) => None,
            (false, true) => Some((EventKind::Added, self.object.clone())),
            (true, true) => Some((EventKind::Modified, self.object.clone())),
            (true, false) if self.deleted() => Some((EventKind::Deleted, self.object.clone())),
            (true, false) => self.departed().map(|object| (EventKind::Deleted, object)),
        }
    }

    fn departed(&self) -> Option<Arc<Object>> {
        let restamp = || {
            let previous = self.previous.as_ref()?;
            // It was parsed before, so it parses again.
            previous.restamped(self.revision, EventKind::Deleted).ok().map(Arc::new)
        };
        self.departed.get_or_init(restamp).clone()
    }

    /// Bytes only the history keeps alive.
    fn weight(&self) -> usize {
        let deleted = if self.deleted() { self.object.footprint() } else { 0 };
        deleted + self.previous.as_ref().map_or(0, |previous| previous.footprint()) + std::mem::size_of::<Self>()
    }
}

/// Always kept, however old: quiet resources remember their last changes.
const MIN_CHANGES: usize = 64;
const MAX_CHANGES: usize = 16_384;
const MAX_BYTES: usize = 4 << 20;
const MAX_AGE: Duration = Duration::from_secs(300);

/// The last changes, oldest first.
#[derive(Debug)]
pub(super) struct History {
    changes: VecDeque<(Instant, Arc<Change>)>,
    bytes: usize,
    /// Changes after this revision are all here.
    since: Revision,
}

impl History {
    pub(super) fn new(since: Revision) -> Self {
        Self { changes: VecDeque::new(), bytes: 0, since }
    }

    /// The oldest revision that can be resumed from.
    pub(super) fn since(&self) -> Revision {
        self.since
    }

    pub(super) fn push(&mut self, change: Arc<Change>, now: Instant) {
        self.bytes += change.weight();
        self.changes.push_back((now, change));
        while self.too_much(now) {
            let Some((_, oldest)) = self.changes.pop_front() else { break };
            self.bytes -= oldest.weight();
            self.since = oldest.revision;
        }
    }

    fn too_much(&self, now: Instant) -> bool {
        let Some((at, _)) = self.changes.front() else { return false };
        let many = self.changes.len() > MIN_CHANGES;
        let few_but_huge = self.changes.len() > 1 && self.bytes > 16 * MAX_BYTES;
        few_but_huge
            || many && (self.changes.len() > MAX_CHANGES || self.bytes > MAX_BYTES || now.duration_since(*at) > MAX_AGE)
    }

    /// The changes after `revision`, oldest first.
    pub(super) fn after(&self, revision: Revision) -> impl DoubleEndedIterator<Item = &Arc<Change>> {
        let from = self.changes.partition_point(|(_, change)| change.revision <= revision);
        self.changes.range(from..).map(|(_, change)| change)
    }
}

//! Recent changes of one resource: what watches resume from and past pages are
//! rebuilt with. Owns how much is remembered.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::super::object::{EventKind, Object};
use super::super::store::{Key, Revision};
use super::Filter;

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

    /// Whether a filter may have anything to say about it, its predicate aside.
    pub(super) fn concerns(&self, filter: &Filter) -> bool {
        filter.is_within(&self.object) || self.previous.as_ref().is_some_and(|previous| filter.is_within(previous))
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
/// Younger changes are kept under any load that [`FRESH`] has room for, so that a watch that broke can be resumed.
/// Upstream's eventFreshDuration (staging/src/k8s.io/apiserver/pkg/storage/cacher/watch_cache.go): the default
/// bookmark period and a little more.
pub(super) const FRESH_FOR: Duration = Duration::from_secs(75);
const MAX_AGE: Duration = Duration::from_secs(300);

/// How much may be remembered.
#[derive(Clone, Copy, Debug)]
struct Bound {
    changes: usize,
    bytes: usize,
}

/// Of changes that are still fresh; their number is upstream's defaultUpperBoundCapacity.
const FRESH: Bound = Bound { changes: 100 * 1024, bytes: 64 << 20 };
/// Of older ones.
const AGED: Bound = Bound { changes: 16_384, bytes: 4 << 20 };

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
        self.trim(now);
    }

    /// Forgets what is too old or too much. Also to be called when nothing changes: what was fresh ages.
    pub(super) fn trim(&mut self, now: Instant) {
        let before = self.changes.len();
        while self.too_much(now) {
            let Some((_, oldest)) = self.changes.pop_front() else { break };
            self.bytes -= oldest.weight();
            self.since = oldest.revision;
        }
        if self.changes.len() < before / 2 {
            self.changes.shrink_to_fit();
        }
    }

    fn too_much(&self, now: Instant) -> bool {
        let Some((at, _)) = self.changes.front() else { return false };
        let age = now.duration_since(*at);
        let exceeds = |bound: Bound| self.changes.len() > bound.changes || self.bytes > bound.bytes;
        if self.changes.len() <= MIN_CHANGES {
            return self.changes.len() > 1 && exceeds(FRESH);
        }
        age > MAX_AGE || exceeds(if age > FRESH_FOR { AGED } else { FRESH })
    }

    /// The changes after `revision`, oldest first.
    pub(super) fn after(&self, revision: Revision) -> impl DoubleEndedIterator<Item = &Arc<Change>> {
        let from = self.changes.partition_point(|(_, change)| change.revision <= revision);
        self.changes.range(from..).map(|(_, change)| change)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn object(bytes: usize) -> Arc<Object> {
        let json = format!(r#"{{"metadata":{{"name":"a","namespace":"n"}},"data":"{}"}}"#, "x".repeat(bytes));
        Arc::new(Object::parse(json.as_bytes(), Revision(1), EventKind::Modified, &Arc::from([])).unwrap())
    }

    fn change(number: u64, object: &Arc<Object>) -> Arc<Change> {
        let key = Key::new("/k").unwrap();
        let change = Change::new(key, object.clone(), Some(object.clone()));
        Arc::new(Change { revision: Revision(number), ..change })
    }

    /// `rate` changes of `bytes` in each of `seconds`; the age of what can be resumed from then.
    fn resumable(rate: u64, bytes: usize, seconds: u64) -> (u64, History) {
        let (start, mut history, object) = (Instant::now(), History::new(Revision(1)), object(bytes));
        for second in 0..seconds {
            for n in 0..rate {
                history.push(change(2 + second * rate + n, &object), start + Duration::from_secs(second));
            }
        }
        (seconds - history.since().0.saturating_sub(1).div_ceil(rate), history)
    }

    #[test]
    fn changes_last_as_long_as_upstreams_under_load() {
        for (rate, bytes) in [(50, 10_000), (500, 500), (1_000, 10)] {
            let (age, history) = resumable(rate, bytes, 200);
            assert!(age >= FRESH_FOR.as_secs(), "{rate}/s of {bytes} bytes: {age} s");
            assert!(history.bytes <= FRESH.bytes && history.changes.len() <= FRESH.changes);
        }
    }

    #[test]
    fn memory_is_bounded_under_any_load() {
        let (_, history) = resumable(20, 1 << 20, 20);
        assert!(history.bytes <= FRESH.bytes, "{}", history.bytes);
        let (_, history) = resumable(20_000, 1, 8);
        assert!(history.changes.len() <= FRESH.changes);
    }

    #[test]
    fn what_was_fresh_is_given_back_when_it_has_aged() {
        let (start, mut history, object) = (Instant::now(), History::new(Revision(1)), object(10_000));
        for number in 2..2_002 {
            history.push(change(number, &object), start);
        }
        assert!(history.bytes > AGED.bytes);
        history.trim(start + FRESH_FOR);
        assert_eq!(history.since(), Revision(1), "all of it is still fresh");
        history.trim(start + FRESH_FOR + Duration::from_secs(1));
        assert!(history.bytes <= AGED.bytes && history.changes.len() >= MIN_CHANGES);
        let newest = history.after(history.since()).last().unwrap().revision;
        assert_eq!(newest, Revision(2_001), "the oldest go first");
    }
}

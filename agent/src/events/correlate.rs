//! Which object at the API server an event becomes: a new one, one more count on
//! an old one, or none. Pure.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hasher as _};

use jiff::{SignedDuration, Timestamp};

use super::limit::SpamFilter;
use super::{Event, EventType, ObjectReference, Reason};

/// Distinct events remembered; the oldest makes room.
const CAPACITY: usize = 1024;
/// Similar events within [`WINDOW`] after which they are combined.
const SIMILAR: usize = 10;
const WINDOW: SignedDuration = SignedDuration::from_mins(10);

/// What to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Object name.
    pub name: String,
    pub message: String,
    pub count: i32,
    pub first: Timestamp,
    pub last: Timestamp,
}

#[derive(Clone, Debug)]
struct Record {
    name: String,
    count: i32,
    first: Timestamp,
}

type SimilarKey = (ObjectReference, EventType, Reason);

/// Remembers what was written. Keys are hashes: a clash merges two events,
/// which costs a message and nothing else.
#[derive(Debug, Default)]
pub struct EventCorrelator {
    records: HashMap<u64, Record>,
    order: VecDeque<u64>,
    similar: HashMap<u64, (Timestamp, Vec<u64>)>,
    sequence: u64,
    spam: SpamFilter,
}

fn hash(value: &impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl EventCorrelator {
    /// The write for one event; `None` when its object has had too many. Those are
    /// counted all the same, as upstream's.
    pub fn correlate(&mut self, event: &Event, now: Timestamp) -> Option<Write> {
        let write = self.observe(event, now);
        (!self.spam.is_spam(&event.involved, now)).then_some(write)
    }

    fn observe(&mut self, event: &Event, now: Timestamp) -> Write {
        let mut involved = event.involved.clone();
        // The object's version does not make another event.
        involved.resource_version.clear();
        let similar: SimilarKey = (involved, event.kind, event.reason.clone());
        let (similar_key, own) = (hash(&similar), hash(&event.message));
        let crowd = self.similar.entry(similar_key).or_insert_with(|| (now, Vec::new()));
        if now.duration_since(crowd.0) > WINDOW {
            *crowd = (now, Vec::new());
        }
        if !crowd.1.contains(&own) && crowd.1.len() <= SIMILAR {
            crowd.1.push(own);
        }
        let combined = crowd.1.len() > SIMILAR;
        let message =
            if combined { format!("(combined from similar events): {}", event.message) } else { event.message.clone() };
        let key = hash(&(similar_key, if combined { 0 } else { own }));
        if let Some(record) = self.records.get_mut(&key) {
            record.count = record.count.saturating_add(1);
            return Write { name: record.name.clone(), message, count: record.count, first: record.first, last: now };
        }
        self.sequence += 1;
        let nanos = now.as_nanosecond();
        let name = format!("{}.{:x}", event.involved.name, nanos + i128::from(self.sequence % 1000));
        self.records.insert(key, Record { name: name.clone(), count: 1, first: now });
        self.order.push_back(key);
        if self.order.len() > CAPACITY
            && let Some(oldest) = self.order.pop_front()
        {
            self.records.remove(&oldest);
        }
        if self.similar.len() > CAPACITY {
            self.similar.retain(|_, (since, _)| now.duration_since(*since) <= WINDOW);
        }
        Write { name, message, count: 1, first: now, last: now }
    }

    /// Forgets the object behind a write that failed because it is gone.
    pub fn forget(&mut self, name: &str) {
        self.records.retain(|_, r| r.name != name);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn event(message: &str) -> Event {
        let involved = ObjectReference {
            kind: "Pod",
            namespace: "ns".into(),
            name: "p".into(),
            uid: "u".into(),
            resource_version: message.len().to_string(),
            field_path: String::new(),
        };
        Event { involved, kind: EventType::Warning, reason: "BackOff".into(), message: message.into() }
    }

    #[test]
    fn equal_events_count_up() {
        let (mut a, t) = (EventCorrelator::default(), Timestamp::from_second(100).unwrap());
        let first = a.observe(&event("x"), t);
        let second = a.observe(&event("x"), t + SignedDuration::from_secs(5));
        assert_eq!((first.count, second.count), (1, 2));
        assert_eq!((first.name.clone(), second.first), (second.name, t));
        assert_ne!(a.observe(&event("y"), t).name, first.name);
        a.forget(&first.name);
        assert_eq!(a.observe(&event("x"), t).count, 1);
    }

    #[test]
    fn a_flood_is_combined() {
        let (mut a, t) = (EventCorrelator::default(), Timestamp::from_second(100).unwrap());
        let writes: Vec<Write> = (0..30).map(|i| a.observe(&event(&format!("m{i}")), t)).collect();
        assert!(!writes[9].message.starts_with("(combined"));
        assert!(writes[10].message.starts_with("(combined"));
        assert_eq!(writes[29].count, 20);
        let later = t + SignedDuration::from_mins(11);
        assert!(!a.observe(&event("again"), later).message.starts_with("(combined"));
        for i in 0..5000 {
            a.observe(&event(&format!("z{i}")), later);
        }
        assert!(a.records.len() <= CAPACITY);
    }
}

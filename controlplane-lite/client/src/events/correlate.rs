//! Decides what becomes of an event: new, counted, combined or dropped. Pure;
//! the limits are upstream's (client-go's EventCorrelator).

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::json;

use super::Draft;
use crate::text;

/// Different messages of one reason before they are combined.
const MAX_SIMILAR: usize = 10;
/// The window for similar messages.
const SIMILAR_WINDOW: SignedDuration = SignedDuration::from_secs(600);
/// Events one object may cause at once.
const SPAM_BURST: f64 = 25.0;
/// Events per second it regains.
const SPAM_REFILL: f64 = 1.0 / 300.0;
/// Remembered keys per map; the oldest half goes when there are more.
const MEMORY: usize = 4096;

/// What to do with a draft.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Nothing: the object has caused too many events.
    Drop,
    /// Write a new event.
    Create(Box<Event>),
    /// Raise the count of a written one; write `fresh` if it has expired.
    Count {
        /// Namespace of the event.
        namespace: String,
        /// Name of the event.
        name: String,
        /// Merge patch.
        patch: serde_json::Value,
        /// The whole event.
        fresh: Box<Event>,
    },
}

type SourceKey = (&'static str, String);
type ReasonKey = (&'static str, String, &'static str);
type EventKey = (&'static str, String, &'static str, Message);

/// A text that was seen, by its hash: of two messages with the same one, the second would at worst be counted as the
/// first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Message(u64);

impl Message {
    fn of(text: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        Self(hasher.finish())
    }
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Timestamp,
}

#[derive(Debug)]
struct Similar {
    messages: BTreeSet<Message>,
    at: Timestamp,
}

#[derive(Debug)]
struct RecordedEvent {
    name: String,
    count: i32,
    first: Timestamp,
    at: Timestamp,
}

/// Remembers recent events.
#[derive(Debug, Default)]
pub struct Correlator {
    buckets: HashMap<SourceKey, Bucket>,
    similar: HashMap<ReasonKey, Similar>,
    recorded: HashMap<EventKey, RecordedEvent>,
    /// The number in the last name given: the time, or one more.
    last: i128,
}

impl Correlator {
    /// Decides one draft at the time `now`.
    pub fn observe(&mut self, draft: &Draft, now: Timestamp) -> Decision {
        let object = object_key(&draft.object);
        let message = self.combine(draft, &object, now);
        let key = (draft.component, object.clone(), draft.reason, Message::of(&message));
        let entry = self.recorded.get_mut(&key).map(|w| {
            w.count = w.count.saturating_add(1);
            w.at = now;
            (w.name.clone(), w.count, w.first)
        });
        if !self.admit(draft.component, object, now) {
            return Decision::Drop;
        }
        if let Some((name, count, first)) = entry {
            let fresh = Box::new(event(draft, message, &name, (count, first, now)));
            let namespace = event_namespace(&draft.object);
            let patch = json!({"count": count, "lastTimestamp": Time(now), "message": fresh.message});
            return Decision::Count { namespace, name, patch, fresh };
        }
        // Two events of one moment still need two names.
        self.last = now.as_nanosecond().max(self.last + 1);
        let name = event_name(&draft.object, self.last);
        let created = Box::new(event(draft, message, &name, (1, now, now)));
        self.recorded.insert(key, RecordedEvent { name, count: 1, first: now, at: now });
        forget_oldest(&mut self.recorded, |w| w.at);
        Decision::Create(created)
    }

    /// Forgets an event that is not at the server: there is nothing to count on.
    pub fn forget(&mut self, name: &str) {
        self.recorded.retain(|_, recorded| recorded.name != name);
    }

    /// The message to use: its own, or the combined one after too many similar.
    fn combine(&mut self, draft: &Draft, object: &str, now: Timestamp) -> String {
        let key = (draft.component, object.to_owned(), draft.reason);
        let similar = self.similar.entry(key).or_insert_with(|| Similar { messages: BTreeSet::new(), at: now });
        if now.duration_since(similar.at) > SIMILAR_WINDOW {
            similar.messages.clear();
        }
        similar.at = now;
        let message = Message::of(&draft.message);
        let combined = !similar.messages.contains(&message) && similar.messages.len() >= MAX_SIMILAR;
        if !combined {
            similar.messages.insert(message);
        }
        forget_oldest(&mut self.similar, |s| s.at);
        if combined { "(combined from similar events)".to_owned() } else { draft.message.clone() }
    }

    fn admit(&mut self, component: &'static str, object: String, now: Timestamp) -> bool {
        let bucket = self.buckets.entry((component, object)).or_insert(Bucket { tokens: SPAM_BURST, at: now });
        let gained = now.duration_since(bucket.at).as_secs_f64().max(0.0) * SPAM_REFILL;
        bucket.tokens = (bucket.tokens + gained).min(SPAM_BURST);
        bucket.at = now;
        let admitted = bucket.tokens >= 1.0;
        if admitted {
            bucket.tokens -= 1.0;
        }
        forget_oldest(&mut self.buckets, |b| b.at);
        admitted
    }
}

fn forget_oldest<K: std::hash::Hash + Eq, V>(map: &mut HashMap<K, V>, at: impl Fn(&V) -> Timestamp) {
    if map.len() <= MEMORY {
        return;
    }
    let mut times: Vec<Timestamp> = map.values().map(&at).collect();
    let middle = times.len() / 2;
    let (_, median, _) = times.select_nth_unstable(middle);
    let median = *median;
    map.retain(|_, v| at(v) > median);
}

fn object_key(object: &ObjectReference) -> String {
    let part = |s: &Option<String>| s.clone().unwrap_or_default();
    format!("{}/{}/{}/{}", part(&object.kind), part(&object.namespace), part(&object.name), part(&object.uid))
}

/// The name of a new event: as upstream's, the object's and a number. Names of some objects (RBAC's) cannot be an
/// event's: then it is two numbers, in place of upstream's random ones (`GenerateEventName` in client-go's
/// tools/record/util/util.go).
fn event_name(object: &ObjectReference, number: i128) -> String {
    let name = format!("{}.{number:x}", object.name.as_deref().unwrap_or("unknown"));
    if is_subdomain(&name) { name } else { format!("{:x}.{number:x}", Message::of(&object_key(object)).0) }
}

fn is_subdomain(name: &str) -> bool {
    let edge = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        let inner = bytes.iter().all(|byte| edge(byte) || *byte == b'-');
        inner && bytes.first().is_some_and(edge) && bytes.last().is_some_and(edge)
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

fn event_namespace(object: &ObjectReference) -> String {
    object.namespace.clone().filter(|n| !n.is_empty()).unwrap_or_else(|| "default".to_owned())
}

fn event(draft: &Draft, message: String, name: &str, (count, first, last): (i32, Timestamp, Timestamp)) -> Event {
    let message = if message.starts_with("(combined") { format!("{message}: {}", draft.message) } else { message };
    Event {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(event_namespace(&draft.object)),
            ..ObjectMeta::default()
        },
        involved_object: draft.object.clone(),
        type_: Some(draft.type_.as_str().to_owned()),
        reason: Some(draft.reason.to_owned()),
        message: Some(text::cut(message, text::EVENT_MESSAGE)),
        count: Some(count),
        first_timestamp: Some(Time(first)),
        last_timestamp: Some(Time(last)),
        source: Some(EventSource { component: Some(draft.component.to_owned()), host: None }),
        reporting_component: Some(draft.component.to_owned()),
        reporting_instance: Some(String::new()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::EventType;
    use super::*;

    fn draft(message: &str) -> Draft {
        Draft {
            component: "c",
            object: ObjectReference {
                kind: Some("Pod".into()),
                namespace: Some("ns".into()),
                name: Some("p".into()),
                ..Default::default()
            },
            type_: EventType::Normal,
            reason: "Why",
            message: message.into(),
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    #[test]
    fn a_repeated_event_is_counted() {
        let mut c = Correlator::default();
        let Decision::Create(first) = c.observe(&draft("m"), at(0)) else { panic!("created") };
        let Decision::Count { name, fresh, namespace, .. } = c.observe(&draft("m"), at(1)) else { panic!("counted") };
        assert_eq!((Some(name), fresh.count, namespace.as_str()), (first.metadata.name, Some(2), "ns"));
    }

    #[test]
    fn events_of_one_moment_have_different_names() {
        let mut c = Correlator::default();
        let mut name = |message: &str| match c.observe(&draft(message), at(0)) {
            Decision::Create(event) => event.metadata.name,
            other => panic!("created, not {other:?}"),
        };
        assert_ne!(name("a"), name("b"));
    }

    #[test]
    fn events_of_objects_whose_names_cannot_be_theirs_have_names_of_their_own() {
        let mut c = Correlator::default();
        let mut name = |object: &str| {
            let mut draft = draft("m");
            draft.object.name = Some(object.into());
            let Decision::Create(event) = c.observe(&draft, at(0)) else { panic!("created") };
            event.metadata.name.unwrap()
        };
        let number = format!("{:x}", at(0).as_nanosecond());
        assert_eq!(name("web-0.a"), format!("web-0.a.{number}"));
        let long = "x".repeat(250);
        for object in ["system:node", "?watch=true", "a/b", "..", "Upper", "-a", "", &long] {
            let name = name(object);
            assert!(is_subdomain(&name), "{object:?}: {name}");
        }
    }

    #[test]
    fn what_is_not_at_the_server_is_not_counted_on() {
        let mut c = Correlator::default();
        let Decision::Create(first) = c.observe(&draft("m"), at(0)) else { panic!("created") };
        c.forget(&first.metadata.name.unwrap());
        let Decision::Create(again) = c.observe(&draft("m"), at(1)) else { panic!("created anew") };
        assert_eq!(again.count, Some(1));
    }

    #[test]
    fn the_eleventh_similar_message_is_combined() {
        let mut c = Correlator::default();
        for i in 0..10 {
            assert!(matches!(c.observe(&draft(&format!("m{i}")), at(i)), Decision::Create(_)));
        }
        let Decision::Create(e) = c.observe(&draft("m10"), at(11)) else { panic!("created") };
        assert_eq!(e.message.as_deref(), Some("(combined from similar events): m10"));
        assert!(matches!(c.observe(&draft("m11"), at(12)), Decision::Count { .. }));
    }

    #[test]
    fn a_flood_is_dropped_and_regains_one_in_five_minutes() {
        let mut c = Correlator::default();
        for _ in 0..25 {
            assert_ne!(c.observe(&draft("m"), at(0)), Decision::Drop);
        }
        assert_eq!(c.observe(&draft("m"), at(0)), Decision::Drop);
        assert_ne!(c.observe(&draft("m"), at(301)), Decision::Drop);
    }

    #[test]
    fn memory_is_bounded() {
        let mut c = Correlator::default();
        for i in 0..10_000 {
            let mut d = draft("m");
            d.object.name = Some(format!("p{i}"));
            c.observe(&d, at(i));
        }
        assert!(c.recorded.len() <= MEMORY && c.buckets.len() <= MEMORY && c.similar.len() <= MEMORY);
    }
}

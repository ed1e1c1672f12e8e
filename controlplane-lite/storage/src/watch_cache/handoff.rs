//! Objects that a writer made of what it stored, for the feed that comes to the same change: parsed once, and one
//! object for both. Owns how much waits there, which is little: what is left out the feed parses itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::object::{EventKind, Object};
use super::super::store::{Key, Revision};

/// Bytes that may wait: a feed that is behind for long parses again.
const MAX_BYTES: usize = 16 << 20;

/// By key, the last that was written.
#[derive(Debug, Default)]
pub(super) struct Handoff(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    objects: HashMap<Key, Arc<Object>>,
    bytes: usize,
    /// Up to here the feed asks for nothing any more.
    passed: Revision,
}

impl Waiting {
    fn remove(&mut self, key: &Key) -> Option<Arc<Object>> {
        let object = self.objects.remove(key)?;
        self.bytes -= object.footprint();
        Some(object)
    }
}

impl Handoff {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves an object for the feed, unless that has come past it.
    pub(super) fn offer(&self, key: &Key, object: &Arc<Object>) {
        let mut waiting = self.lock();
        let newer = waiting.objects.get(key).is_some_and(|other| other.revision() >= object.revision());
        if object.revision() <= waiting.passed || newer {
            return;
        }
        waiting.remove(key);
        if waiting.bytes + object.footprint() <= MAX_BYTES {
            waiting.bytes += object.footprint();
            waiting.objects.insert(key.clone(), object.clone());
        }
    }

    /// The object of a change that the feed has come to, if its writer was there before.
    pub(super) fn take(&self, key: &Key, revision: Revision, kind: EventKind) -> Option<Arc<Object>> {
        let mut waiting = self.lock();
        waiting.passed = waiting.passed.max(revision);
        if waiting.objects.get(key)?.revision() > revision {
            return None;
        }
        waiting.remove(key).filter(|object| object.revision() == revision && object.kind() == kind)
    }

    /// The feed has come so far, whatever it saw.
    pub(super) fn pass(&self, revision: Revision) {
        let mut waiting = self.lock();
        waiting.passed = waiting.passed.max(revision);
        let gone: Vec<Key> = waiting
            .objects
            .iter()
            .filter(|(_, object)| object.revision() <= revision)
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            waiting.remove(&key);
        }
    }

    /// The feed begins anew at `revision`, which may be before what waits: a store that was restored counts again, so
    /// that another change may come by the same revision.
    pub(super) fn restart(&self, revision: Revision) {
        let mut waiting = self.lock();
        *waiting = Waiting { passed: waiting.passed.max(revision), ..Waiting::default() };
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let waiting = self.lock();
        waiting.objects.is_empty() && waiting.bytes == 0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn object(revision: u64, length: usize) -> Arc<Object> {
        let json = format!(r#"{{"metadata":{{"name":"a"}},"data":"{}"}}"#, "x".repeat(length));
        let made = Object::parse(json.as_bytes(), Revision(revision), EventKind::Modified, &Arc::from([]));
        Arc::new(made.unwrap())
    }

    #[test]
    fn each_is_for_its_own_change() {
        let (handoff, key) = (Handoff::default(), Key::new("/registry/core/pods/ns/a").unwrap());
        let take =
            |revision| handoff.take(&key, Revision(revision), EventKind::Modified).map(|object| object.revision().0);
        handoff.offer(&key, &object(5, 1));
        assert_eq!((take(5), take(5)), (Some(5), None));
        handoff.offer(&key, &object(5, 1));
        assert!(handoff.is_empty(), "the feed was here");
        handoff.offer(&key, &object(8, 1));
        handoff.offer(&key, &object(7, 1));
        assert_eq!((take(6), take(7), take(8)), (None, None, Some(8)));
        handoff.offer(&key, &object(9, 1));
        assert_eq!(handoff.take(&key, Revision(9), EventKind::Added).map(|o| o.revision()), None, "another event");
        handoff.offer(&key, &object(10, 1));
        assert_eq!((take(11), take(10)), (None, None), "it missed its change");
        handoff.offer(&key, &object(12, 1));
        handoff.pass(Revision(12));
        assert!(handoff.is_empty());
    }

    #[test]
    fn little_waits() {
        let (handoff, large) = (Handoff::default(), object(5, MAX_BYTES / 3));
        let key = |n: u32| Key::new(format!("/registry/core/pods/ns/{n}")).unwrap();
        (0..10).for_each(|n| handoff.offer(&key(n), &large));
        let kept = (0..10).filter(|n| handoff.take(&key(*n), Revision(5), EventKind::Modified).is_some()).count();
        assert_eq!(kept, 2);
        assert!(handoff.is_empty());
    }
}

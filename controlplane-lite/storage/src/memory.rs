//! A [`Store`] in memory: the reference for the contract, and what tests use.
//! Keeps all versions until it is compacted.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::fanout::{Fanout, replay_then};
use super::store::{
    Entry, Event, EventStream, Key, Page, Precondition, Put, Range, Revision, Store, StoreError, check_precondition,
};

/// Versions of all keys, in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<State>,
    fanout: Fanout,
}

#[derive(Debug)]
struct State {
    revision: Revision,
    compacted: Revision,
    closed: bool,
    /// Per key its versions, oldest first; `None` is a deletion.
    versions: BTreeMap<Key, Vec<(Revision, Option<Bytes>)>>,
}

impl Default for State {
    fn default() -> Self {
        // An empty store is at 1, so that a list of it has a usable version.
        Self { revision: Revision(1), compacted: Revision(0), closed: false, versions: BTreeMap::new() }
    }
}

impl MemoryStore {
    /// An empty store at revision 1.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.closed { Err(StoreError::Closed) } else { Ok(state) }
    }
}

impl State {
    fn at(&self, key: &Key, revision: Revision) -> Option<Entry> {
        visible(key, self.versions.get(key)?, revision)
    }

    fn readable(&self, requested: Revision) -> Result<(), StoreError> {
        if requested > self.revision {
            return Err(StoreError::Future { requested, current: self.revision });
        }
        if requested < self.compacted {
            return Err(StoreError::Compacted { requested, oldest: Some(self.compacted) });
        }
        Ok(())
    }

    fn push(&mut self, key: &Key, value: Option<Bytes>) -> Revision {
        self.revision = self.revision.next();
        self.versions.entry(key.clone()).or_default().push((self.revision, value));
        self.revision
    }

    fn replay(&self, prefix: &str, after: Revision) -> Vec<Event> {
        let mut events = Vec::new();
        for (key, versions) in self
            .versions
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(k, _)| k.as_str().starts_with(prefix))
        {
            for (index, (revision, value)) in versions.iter().enumerate().filter(|(_, (r, _))| *r > after) {
                let before = index.checked_sub(1).and_then(|i| versions.get(i));
                let previous = before.and_then(|(revision, value)| {
                    Some(Entry { key: key.clone(), value: value.clone()?, revision: *revision })
                });
                match (value, previous) {
                    (Some(value), previous) => events.push(Event::Put {
                        entry: Entry { key: key.clone(), value: value.clone(), revision: *revision },
                        created: previous.is_none(),
                    }),
                    (None, Some(previous)) => events.push(Event::Delete { previous, revision: *revision }),
                    (None, None) => {}
                }
            }
        }
        events.sort_by_key(Event::revision);
        events
    }
}

fn visible(key: &Key, versions: &[(Revision, Option<Bytes>)], revision: Revision) -> Option<Entry> {
    let (revision, value) = versions.iter().rev().find(|(r, _)| *r <= revision)?;
    Some(Entry { key: key.clone(), value: value.clone()?, revision: *revision })
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let state = self.lock()?;
        Ok(state.at(key, state.revision))
    }

    async fn list(&self, range: Range) -> Result<Page, StoreError> {
        let state = self.lock()?;
        let revision = range.at.unwrap_or(state.revision);
        state.readable(revision)?;
        let prefix = range.prefix.as_str();
        let start = range.after.as_ref().map(Key::as_str).filter(|after| *after >= prefix).unwrap_or(prefix);
        let mut found = state
            .versions
            .range::<str, _>((Bound::Included(start), Bound::Unbounded))
            .take_while(|(key, _)| key.as_str().starts_with(prefix))
            .filter(|(key, _)| range.after.as_ref().is_none_or(|after| *key > after))
            .filter_map(|(key, versions)| visible(key, versions, revision));
        let limit = if range.limit == 0 { usize::MAX } else { range.limit };
        let entries = found.by_ref().take(limit).collect();
        let more = found.next().is_some();
        let left_out = range.count.then(|| u64::from(more) + found.count() as u64);
        Ok(Page { entries, revision, more, left_out })
    }

    async fn put(&self, put: Put) -> Result<Revision, StoreError> {
        let mut state = self.lock()?;
        let current = state.at(&put.key, state.revision).map(|entry| entry.revision);
        check_precondition(&put.key, put.precondition, current)?;
        let revision = state.push(&put.key, Some(put.value.clone()));
        let entry = Entry { key: put.key, value: put.value, revision };
        self.fanout.publish(&Arc::from([Event::Put { entry, created: current.is_none() }]));
        Ok(revision)
    }

    async fn delete(&self, key: &Key, precondition: Precondition) -> Result<(Revision, Entry), StoreError> {
        let mut state = self.lock()?;
        let previous = state.at(key, state.revision).ok_or_else(|| StoreError::NotFound(key.clone()))?;
        check_precondition(key, precondition, Some(previous.revision))?;
        let revision = state.push(key, None);
        self.fanout.publish(&Arc::from([Event::Delete { previous: previous.clone(), revision }]));
        Ok((revision, previous))
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<EventStream, StoreError> {
        // Held until subscribed, so nothing falls between replay and live events.
        let state = self.lock()?;
        if after < state.compacted {
            return Err(StoreError::Compacted { requested: after, oldest: Some(state.compacted) });
        }
        let replay = state.replay(prefix, after);
        Ok(replay_then(replay, self.fanout.subscribe(prefix, after)))
    }

    async fn request_progress(&self) -> Result<(), StoreError> {
        let state = self.lock()?;
        self.fanout.publish(&Arc::from([Event::Progress(state.revision)]));
        Ok(())
    }

    async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        let mut state = self.lock()?;
        if before > state.revision {
            return Err(StoreError::Future { requested: before, current: state.revision });
        }
        if before <= state.compacted {
            return Ok(());
        }
        state.compacted = before;
        state.versions.retain(|_, versions| {
            let newest = versions.iter().rposition(|(revision, _)| *revision <= before);
            let from = newest.map_or(0, |i| if versions[i].1.is_some() { i } else { i + 1 });
            versions.drain(..from);
            !versions.is_empty()
        });
        Ok(())
    }

    async fn current_revision(&self) -> Result<Revision, StoreError> {
        Ok(self.lock()?.revision)
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.lock()?.closed = true;
        self.fanout.close();
        Ok(())
    }
}

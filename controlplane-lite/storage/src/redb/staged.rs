//! The writes of one batch as they are judged, each by those before it.

use std::collections::HashMap;

use bytes::Bytes;

use super::writer::{Answer, Write, WriteResult};
use super::{Overlay, read};
use crate::store::{Durability, Entry, Event, Key, Revision, StoreError, check_precondition};

/// Accepted writes of one batch, not visible yet.
#[derive(Default)]
pub(super) struct Staged {
    pub(super) versions: Overlay,
    /// Newest staged version per key.
    pub(super) latest: HashMap<Key, Revision>,
    pub(super) events: Vec<Event>,
    pub(super) answers: Vec<(Answer<WriteResult>, WriteResult)>,
    pub(super) durable: bool,
}

impl Staged {
    /// Judges one write; `current` is the newest version of its key.
    pub(super) fn accept(
        &mut self,
        write: Write,
        current: Option<(Revision, Option<Bytes>)>,
        revision: Revision,
    ) -> Result<WriteResult, StoreError> {
        let have = current.as_ref().and_then(|(revision, value)| value.as_ref().map(|_| *revision));
        match write {
            Write::Put(put) => {
                check_precondition(&put.key, put.precondition, have)?;
                self.durable |= put.durability == Durability::Immediate;
                self.latest.insert(put.key.clone(), revision);
                self.versions.insert((put.key.clone(), revision), Some(put.value.clone()));
                let entry = Entry { key: put.key, value: put.value, revision };
                self.events.push(Event::Put { entry, created: have.is_none() });
                Ok(WriteResult { revision, previous: None })
            }
            Write::Delete(key, precondition) => {
                let (Some(last), Some((_, Some(value)))) = (have, current) else {
                    return Err(StoreError::NotFound(key));
                };
                check_precondition(&key, precondition, have)?;
                self.durable = true;
                self.latest.insert(key.clone(), revision);
                self.versions.insert((key.clone(), revision), None);
                let previous = Entry { key, value, revision: last };
                self.events.push(Event::Delete { previous: previous.clone(), revision });
                Ok(WriteResult { revision, previous: Some(previous) })
            }
        }
    }
}

/// The newest version of a key: staged, about to be written, or stored.
pub(super) fn current(
    key: &Key,
    staged: &Staged,
    overlay: &Overlay,
    versions: &redb::ReadOnlyTable<&'static [u8], &'static [u8]>,
) -> Result<Option<(Revision, Option<Bytes>)>, redb::Error> {
    if let Some(revision) = staged.latest.get(key) {
        let value = staged.versions.get(&(key.clone(), *revision)).cloned().flatten();
        return Ok(Some((*revision, value)));
    }
    let newest = (key.clone(), Revision(u64::MAX));
    if let Some(((_, revision), value)) = overlay.range((key.clone(), Revision(0))..=newest).next_back() {
        return Ok(Some((*revision, value.clone())));
    }
    read::newest(versions, key.as_str(), Revision(u64::MAX))
}

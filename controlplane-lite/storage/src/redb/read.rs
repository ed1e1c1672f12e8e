//! Reading the file and the overlay as of one revision.

use bytes::Bytes;
use redb::{ReadOnlyTable, ReadTransaction};

use super::schema::{self, COMPACTED, GAPS, LOG, META, VERSIONS};
use super::{Shared, Visible, broken};
use crate::store::{Entry, Event, Key, Page, Range, Revision, StoreError};

type Versions = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// One consistent view: the overlay is taken first, so that a commit in between
/// shows its versions twice rather than not at all.
struct View {
    visible: Visible,
    read: ReadTransaction,
    versions: Versions,
}

impl View {
    fn of(shared: &Shared) -> Result<Self, redb::Error> {
        let visible = shared.visible().clone();
        let read = shared.begin_read()?;
        let versions = read.open_table(VERSIONS)?;
        Ok(Self { visible, read, versions })
    }

    /// Refuses revisions whose history is gone, or never was.
    fn readable(&self, requested: Revision) -> Result<Result<(), StoreError>, redb::Error> {
        let current = self.visible.revision;
        if requested > current {
            return Ok(Err(StoreError::Future { requested, current }));
        }
        let compacted = Revision(self.read.open_table(META)?.get(COMPACTED)?.map_or(0, |guard| guard.value()));
        if requested < compacted {
            return Ok(Err(StoreError::Compacted { requested, oldest: Some(compacted) }));
        }
        let gap = self.read.open_table(GAPS)?.range(..requested.0)?.next_back().transpose()?;
        if let Some((_, to)) = gap
            && requested.0 < to.value()
        {
            return Ok(Err(StoreError::Compacted { requested, oldest: Some(Revision(to.value())) }));
        }
        Ok(Ok(()))
    }

    /// The newest version of `key` at or before `at`, a deletion included.
    fn version(&self, key: &Key, at: Revision) -> Result<Option<(Revision, Option<Bytes>)>, redb::Error> {
        let overlaid = self.visible.overlay.range((key.clone(), Revision(0))..=(key.clone(), at)).next_back();
        if let Some(((_, revision), value)) = overlaid {
            return Ok(Some((*revision, value.clone())));
        }
        newest(&self.versions, key.as_str(), at)
    }

    fn entry(&self, key: &Key, at: Revision) -> Result<Option<Entry>, redb::Error> {
        let version = self.version(key, at)?;
        Ok(version.and_then(|(revision, value)| Some(Entry { key: key.clone(), value: value?, revision })))
    }
}

/// The newest version in the file at or before `at`.
pub(super) fn newest(
    versions: &Versions,
    key: &str,
    at: Revision,
) -> Result<Option<(Revision, Option<Bytes>)>, redb::Error> {
    let bounds = schema::row(key, Revision(0))..=schema::row(key, at);
    let last = versions.range::<&[u8]>(bounds.start().as_slice()..=bounds.end().as_slice())?.next_back();
    let Some((row, value)) = last.transpose()? else { return Ok(None) };
    Ok(schema::split(row.value()).map(|(_, revision)| (revision, schema::decode(value.value()))))
}

/// The entry under a key, now.
pub(super) fn get(shared: &Shared, key: &Key) -> Result<Option<Entry>, StoreError> {
    let read = || {
        let view = View::of(shared)?;
        view.entry(key, view.visible.revision)
    };
    read().map_err(|error| broken(&shared.path, "read", error))
}

/// One page.
pub(super) fn list(shared: &Shared, range: &Range) -> Result<Page, StoreError> {
    let fail = |error: redb::Error| broken(&shared.path, "list", error);
    let view = View::of(shared).map_err(fail)?;
    let at = range.at.unwrap_or(view.visible.revision);
    if range.at.is_some() {
        view.readable(at).map_err(fail)??;
    }
    let limit = if range.limit == 0 { usize::MAX } else { range.limit };
    let mut collector = Collector { entries: Vec::new(), limit, left_out: 0, count: range.count };
    collect(&view, range, at, &mut collector).map_err(fail)?;
    let Collector { entries, left_out, .. } = collector;
    Ok(Page { entries, revision: at, more: left_out > 0, left_out: range.count.then_some(left_out) })
}

struct Collector {
    entries: Vec<Entry>,
    limit: usize,
    left_out: u64,
    /// Go on behind the limit, counting.
    count: bool,
}

impl Collector {
    /// One entry too many is looked at, to know whether there are more.
    fn full(&self) -> bool {
        self.left_out > 0 && !self.count
    }

    /// Takes one version; `value` is decoded only for what fits.
    fn add(
        &mut self,
        key: impl FnOnce() -> Result<Key, redb::Error>,
        revision: Revision,
        value: Value<'_>,
    ) -> Result<(), redb::Error> {
        if !value.is_value() {
            return Ok(());
        }
        if self.entries.len() >= self.limit {
            self.left_out += 1;
        } else if let Some(value) = value.bytes() {
            self.entries.push(Entry { key: key()?, value, revision });
        }
        Ok(())
    }
}

/// A version's value where it is: copied only when it is wanted.
enum Value<'v> {
    Row(&'v [u8]),
    Overlaid(Option<Bytes>),
}

impl Value<'_> {
    fn is_value(&self) -> bool {
        match self {
            Self::Row(row) => schema::is_value(row),
            Self::Overlaid(value) => value.is_some(),
        }
    }

    fn bytes(self) -> Option<Bytes> {
        match self {
            Self::Row(row) => schema::decode(row),
            Self::Overlaid(value) => value,
        }
    }
}

/// Walks the file's rows and the overlay side by side in key order; of each key
/// the newest version at or before `at` counts, and the overlay's are newer.
fn collect(view: &View, range: &Range, at: Revision, out: &mut Collector) -> Result<(), redb::Error> {
    let prefix = range.prefix.as_str();
    let after = range.after.as_ref().map(Key::as_str);
    let wanted = |key: &str| key.starts_with(prefix) && after.is_none_or(|after| key > after);
    let start = match after {
        // Past every version of the key the page before ended with.
        Some(after) if after >= prefix => schema::row(after, Revision(u64::MAX)),
        _ => prefix.as_bytes().to_vec(),
    };
    let mut overlay = overlay(view, at, &wanted).into_iter().peekable();
    let mut rows = view.versions.range::<&[u8]>(start.as_slice()..)?.peekable();
    while !out.full() {
        let Some(row) = rows.next().transpose()? else { break };
        let Some((key, revision)) = schema::split(row.0.value()) else { continue };
        if !key.starts_with(prefix) {
            break;
        }
        if revision > at || !wanted(key) {
            continue;
        }
        // Not the newest version that counts? Then the next row is.
        let superseded = matches!(rows.peek(), Some(Ok((next, _)))
            if schema::split(next.value()).is_some_and(|(other, revision)| other == key && revision <= at));
        if superseded {
            continue;
        }
        while let Some((other, revision, value)) = overlay.next_if(|(other, ..)| other.as_str() < key) {
            out.add(|| Ok(other), revision, Value::Overlaid(value))?;
        }
        match overlay.next_if(|(other, ..)| other.as_str() == key) {
            Some((other, revision, value)) => out.add(|| Ok(other), revision, Value::Overlaid(value))?,
            None => out.add(|| schema::key(key), revision, Value::Row(row.1.value()))?,
        }
    }
    overlay.try_for_each(|(key, revision, value)| out.add(|| Ok(key), revision, Value::Overlaid(value)))
}

/// The newest overlaid version of each wanted key, in key order.
fn overlay(view: &View, at: Revision, wanted: &impl Fn(&str) -> bool) -> Vec<(Key, Revision, Option<Bytes>)> {
    let mut newest: Vec<(Key, Revision, Option<Bytes>)> = Vec::new();
    for ((key, revision), value) in view.visible.overlay.iter() {
        if *revision > at || !wanted(key.as_str()) {
            continue;
        }
        newest.pop_if(|(last, ..)| last == key);
        newest.push((key.clone(), *revision, value.clone()));
    }
    newest
}

/// The changes under `prefix` after `after` up to `upto`, oldest first.
pub(super) fn replay(shared: &Shared, prefix: &str, after: Revision, upto: Revision) -> Result<Vec<Event>, StoreError> {
    let fail = |error: redb::Error| broken(&shared.path, "watch", error);
    let view = View::of(shared).map_err(fail)?;
    if after >= upto {
        return Ok(Vec::new());
    }
    view.readable(after).map_err(fail)??;
    events(&view, prefix, after, upto).map_err(fail)
}

fn events(view: &View, prefix: &str, after: Revision, upto: Revision) -> Result<Vec<Event>, redb::Error> {
    let mut changes = Vec::new();
    for change in view.read.open_table(LOG)?.range(after.0 + 1..=upto.0)? {
        let (revision, key) = change?;
        if key.value().starts_with(prefix) {
            changes.push((Revision(revision.value()), schema::key(key.value())?));
        }
    }
    let overlaid = view.visible.overlay.keys().filter(|(key, _)| key.as_str().starts_with(prefix));
    let durable = changes.last().map_or(after, |(revision, _)| *revision);
    let mut fresh: Vec<_> = overlaid
        .filter(|(_, revision)| *revision > durable && *revision <= upto)
        .map(|(key, revision)| (*revision, key.clone()))
        .collect();
    fresh.sort();
    changes.extend(fresh);
    changes.into_iter().filter_map(|(revision, key)| event(view, key, revision).transpose()).collect()
}

fn event(view: &View, key: Key, revision: Revision) -> Result<Option<Event>, redb::Error> {
    let previous = view.entry(&key, Revision(revision.0 - 1))?;
    let value = view.version(&key, revision)?.and_then(|(_, value)| value);
    Ok(match (value, previous) {
        (Some(value), previous) => {
            Some(Event::Put { entry: Entry { key, value, revision }, created: previous.is_none() })
        }
        (None, Some(previous)) => Some(Event::Delete { previous, revision }),
        (None, None) => None,
    })
}

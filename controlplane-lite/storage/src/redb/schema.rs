//! The file's tables, how keys and values look in them, and what a start finds.

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError, WriteTransaction};

use crate::store::{Key, Revision};

/// `key NUL revision (big endian)` → tag and value: every version of every key.
pub(super) const VERSIONS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("versions");
/// revision → key: the order of changes.
pub(super) const LOG: TableDefinition<'_, u64, &str> = TableDefinition::new("log");
/// Ranges of revisions that were reserved and lost: from → to, both exclusive.
pub(super) const GAPS: TableDefinition<'_, u64, u64> = TableDefinition::new("gaps");
/// Single numbers, below.
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

const FORMAT: &str = "format";
const CURRENT_FORMAT: u64 = 1;
/// The last revision in the file.
pub(super) const REVISION: &str = "revision";
/// No revision at or above this has been handed out.
pub(super) const RESERVED: &str = "reserved";
/// Reads below this are refused.
pub(super) const COMPACTED: &str = "compacted";

/// Revisions that eventual writes may use before a commit has to reserve more.
pub(super) const RESERVE: u64 = 10_000;

const TOMBSTONE: u8 = 0;
const VALUE: u8 = 1;

/// The row key of one version.
pub(super) fn row(key: &str, revision: Revision) -> Vec<u8> {
    let mut row = Vec::with_capacity(key.len() + 9);
    row.extend_from_slice(key.as_bytes());
    row.push(0);
    row.extend_from_slice(&revision.0.to_be_bytes());
    row
}

/// The key text and revision of a row; `None` for a row this program never wrote.
pub(super) fn split(row: &[u8]) -> Option<(&str, Revision)> {
    let (rest, revision) = row.split_last_chunk::<8>()?;
    let (nul, key) = rest.split_last()?;
    (*nul == 0).then_some((std::str::from_utf8(key).ok()?, Revision(u64::from_be_bytes(*revision))))
}

/// A row's value.
pub(super) fn encode(value: Option<&Bytes>) -> Vec<u8> {
    match value {
        None => vec![TOMBSTONE],
        Some(value) => [&[VALUE], &value[..]].concat(),
    }
}

/// The value in a row; `None` for a deletion.
pub(super) fn decode(row: &[u8]) -> Option<Bytes> {
    match row.split_first() {
        Some((&VALUE, value)) => Some(Bytes::copy_from_slice(value)),
        _ => None,
    }
}

/// True when the row is a value and not a deletion.
pub(super) fn is_value(row: &[u8]) -> bool {
    row.first() == Some(&VALUE)
}

/// Where a start begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recovered {
    pub(super) revision: Revision,
    pub(super) reserved: Revision,
    pub(super) compacted: Revision,
}

/// The last revision in the file, zero in a new one.
pub(super) fn last(database: &Database) -> Result<Revision, redb::Error> {
    let read = database.begin_read()?;
    match read.open_table(META) {
        Ok(meta) => Ok(Revision(meta.get(REVISION)?.map_or(0, |guard| guard.value()))),
        Err(TableError::TableDoesNotExist(_)) => Ok(Revision(0)),
        Err(error) => Err(error.into()),
    }
}

/// Reads the counters, creates the tables of a new file, and steps over the
/// revisions a crash may have lost.
pub(super) fn recover(database: &Database) -> Result<Recovered, redb::Error> {
    let read = database.begin_read()?;
    let (format, last, reserved, compacted) = match read.open_table(META) {
        Ok(meta) => {
            let number = |name| Ok::<_, redb::StorageError>(meta.get(name)?.map(|guard| guard.value()));
            (number(FORMAT)?, number(REVISION)?, number(RESERVED)?, number(COMPACTED)?)
        }
        // A new file, or one whose creation was interrupted: nothing was acknowledged.
        Err(TableError::TableDoesNotExist(_)) => (Some(CURRENT_FORMAT), Some(1), Some(1), Some(0)),
        Err(error) => return Err(error.into()),
    };
    drop(read);
    let (Some(CURRENT_FORMAT), Some(last), Some(reserved), Some(compacted)) = (format, last, reserved, compacted)
    else {
        let reason = format!("format {format:?} is not {CURRENT_FORMAT}, or counters are missing");
        return Err(redb::Error::Corrupted(reason));
    };
    let start = last.max(reserved);
    let write = database.begin_write()?;
    {
        write.open_table(VERSIONS)?;
        write.open_table(LOG)?;
        let mut gaps = write.open_table(GAPS)?;
        if start > last {
            gaps.insert(last, start)?;
        }
        let mut meta = write.open_table(META)?;
        meta.insert(FORMAT, CURRENT_FORMAT)?;
        meta.insert(REVISION, start)?;
        meta.insert(RESERVED, start + RESERVE)?;
        meta.insert(COMPACTED, compacted)?;
    }
    write.commit()?;
    let reserved = Revision(start + RESERVE);
    Ok(Recovered { revision: Revision(start), reserved, compacted: Revision(compacted) })
}

/// Takes back changes after `keep` that reached the disk although their commit
/// failed. Returns what is reserved and compacted. Refuses a file that has lost
/// what was `durable`.
pub(super) fn roll_back(
    database: &Database,
    keep: Revision,
    durable: Revision,
) -> Result<(Revision, Revision), redb::Error> {
    let read = database.begin_read()?;
    let meta = read.open_table(META)?;
    let number = |name| Ok::<_, redb::Error>(meta.get(name)?.map_or(0, |guard| guard.value()));
    let last = number(REVISION)?;
    if last < durable.0 {
        return Err(redb::Error::Corrupted(format!("it ends at revision {last}, but {durable} was acknowledged")));
    }
    let counters = (Revision(number(RESERVED)?), Revision(number(COMPACTED)?));
    let mut stray = Vec::new();
    for change in read.open_table(LOG)?.range(keep.0 + 1..)? {
        let (revision, key) = change?;
        stray.push((Revision(revision.value()), key.value().to_owned()));
    }
    if stray.is_empty() {
        return Ok(counters);
    }
    let write = database.begin_write()?;
    {
        let mut log = write.open_table(LOG)?;
        let mut versions = write.open_table(VERSIONS)?;
        for (revision, key) in stray {
            versions.remove(row(&key, revision).as_slice())?;
            log.remove(revision.0)?;
        }
        write.open_table(META)?.insert(REVISION, keep.0)?;
    }
    write.commit()?;
    Ok(counters)
}

/// Drops up to `rows` changes at or before `horizon` from the history, oldest
/// first, with the versions they superseded. Returns the new oldest revision.
pub(super) fn compact(
    write: &WriteTransaction,
    compacted: Revision,
    horizon: Revision,
    rows: usize,
) -> Result<Revision, redb::Error> {
    let mut log = write.open_table(LOG)?;
    let mut versions = write.open_table(VERSIONS)?;
    let mut old = Vec::new();
    for change in log.range(..=horizon.0)?.take(rows) {
        let (revision, key) = change?;
        old.push((Revision(revision.value()), key.value().to_owned()));
    }
    let reached = if old.len() < rows { horizon } else { old.last().map_or(horizon, |(revision, _)| *revision) };
    for (revision, key) in old {
        let this = row(&key, revision);
        let mut obsolete = Vec::new();
        for version in versions.range::<&[u8]>(row(&key, Revision(0)).as_slice()..this.as_slice())? {
            obsolete.push(version?.0.value().to_vec());
        }
        let deleted = versions.get(this.as_slice())?.is_some_and(|guard| !is_value(guard.value()));
        if deleted {
            obsolete.push(this);
        }
        for version in obsolete {
            versions.remove(version.as_slice())?;
        }
        log.remove(revision.0)?;
    }
    let mut gaps = write.open_table(GAPS)?;
    let mut passed = Vec::new();
    for gap in gaps.range(..reached.0)? {
        let (from, to) = gap?;
        if to.value() <= reached.0 {
            passed.push(from.value());
        }
    }
    for from in passed {
        gaps.remove(from)?;
    }
    let reached = reached.max(compacted);
    write.open_table(META)?.insert(COMPACTED, reached.0)?;
    Ok(reached)
}

/// A key read back from the file.
pub(super) fn key(text: &str) -> Result<Key, redb::Error> {
    Key::new(text).map_err(|_| redb::Error::Corrupted(format!("impossible key {text:?}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rows_sort_by_key_then_revision() {
        let mut rows = [("a", 2), ("a/b", 1), ("a", 1), ("a-", 9), ("ab", 1)].map(|(k, r)| row(k, Revision(r)));
        rows.sort();
        let order: Vec<_> = rows.iter().map(|row| split(row).map(|(k, r)| (k.to_owned(), r.0)).unwrap()).collect();
        let expected = [("a", 1), ("a", 2), ("a-", 9), ("a/b", 1), ("ab", 1)].map(|(k, r)| (k.to_owned(), r));
        assert_eq!(order, expected);
    }

    #[test]
    fn garbage_rows_are_no_rows() {
        for bad in [&b""[..], b"short", b"key-without-nul!", b"\xff\xfe\0\0\0\0\0\0\0\0\x01"] {
            assert_eq!(split(bad), None, "{bad:?}");
        }
        assert_eq!(decode(b""), None);
        assert_eq!(decode(b"\x00"), None);
        assert_eq!(decode(b"\x01x"), Some(Bytes::from_static(b"x")));
    }
}

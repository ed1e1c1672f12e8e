//! The whole storage contract on one screen: [`Store`], the types it speaks and
//! its errors. Owns no data; the backends are siblings of this file.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

/// A revisioned map from [`Key`] to bytes, as etcd is one.
///
/// Every successful write takes the next [`Revision`]; revisions are global, grow
/// and are never handed out twice, not even across a crash. Reads are consistent:
/// what a call returns is the state at one revision. A write answered with `Ok`
/// is visible to every read that starts afterwards, and is on disk unless it
/// asked for [`Durability::Eventual`].
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug + 'static {
    /// The entry under `key`, or `None`.
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError>;

    /// Entries under a prefix in key order, now or at a past revision.
    /// [`StoreError::Compacted`] when `at` is too old, [`StoreError::Future`] when
    /// it has not happened yet.
    async fn list(&self, range: Range) -> Result<Page, StoreError>;

    /// Writes one value and returns its revision. [`StoreError::Conflict`] when
    /// the precondition fails, [`StoreError::NotFound`] when it names a revision
    /// and there is no entry.
    async fn put(&self, put: Put) -> Result<Revision, StoreError>;

    /// Removes one entry. Returns the deletion's revision and what was removed.
    async fn delete(&self, key: &Key, precondition: Precondition) -> Result<(Revision, Entry), StoreError>;

    /// Every change under `prefix` with a revision greater than `after`, in
    /// order, without gaps. When that is no longer possible the call, or the
    /// stream's first item, is [`StoreError::Compacted`]; a reader that is too slow
    /// has its stream ended with [`StoreError::Lagged`].
    async fn watch(&self, prefix: &str, after: Revision) -> Result<EventStream, StoreError>;

    /// Asks that every open watch reports [`Event::Progress`], or an event, at or
    /// past the revision this store had when called.
    async fn request_progress(&self) -> Result<(), StoreError>;

    /// Forgets what only reads at revisions before `before` need. Reads and
    /// watches older than that fail with [`StoreError::Compacted`].
    async fn compact(&self, before: Revision) -> Result<(), StoreError>;

    /// The newest revision. Linearizable: not older than any write that was
    /// acknowledged, by whatever server, before the call.
    async fn current_revision(&self) -> Result<Revision, StoreError>;

    /// Whether the store takes writes: for health checks, which set a deadline.
    async fn check(&self) -> Result<(), StoreError> {
        self.current_revision().await.map(drop)
    }

    /// Flushes what is pending and stops accepting calls.
    async fn close(&self) -> Result<(), StoreError>;
}

/// What [`Store::watch`] yields. Ends after the first error.
pub type EventStream = BoxStream<'static, Result<Event, StoreError>>;

/// A point in the store's history. Zero means "none"; the first is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// True for the zero revision, which no write ever has.
    pub fn is_none(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for Revision {
    type Err = std::num::ParseIntError;

    /// Digits alone, as Go's `ParseUint` takes them: a revision has no sign.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = if text.starts_with('+') { "" } else { text };
        digits.parse().map(Self)
    }
}

/// A key: a path such as `/registry/pods/default/web-1`. Never empty, at most
/// 2,048 bytes, without NUL (which the embedded store uses to end keys).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

/// Longest key that is accepted, in bytes.
pub const MAX_KEY_BYTES: usize = 2048;

impl Key {
    /// Checks and wraps a key.
    pub fn new(text: impl Into<Arc<str>>) -> Result<Self, StoreError> {
        let text = text.into();
        if text.is_empty() || text.len() > MAX_KEY_BYTES || text.contains('\0') {
            return Err(StoreError::InvalidKey(text.chars().take(64).collect()));
        }
        Ok(Self(text))
    }

    /// The key's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// What must hold for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    Any,
    /// There is no entry yet.
    NotExists,
    /// The entry was last written at exactly this revision.
    Revision(Revision),
}

/// When an acknowledged write has to be on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Before it is acknowledged.
    #[default]
    Immediate,
    /// Visible at once, on disk with the next group commit, within seconds. A
    /// crash may undo it, together with nothing but other eventual writes after
    /// the last durable one; its revision is never used again, and reads and
    /// watches from a lost revision get [`StoreError::Compacted`], so clients
    /// list anew. Meant for heartbeats, which the next beat repairs.
    Eventual,
}

/// One write.
#[derive(Clone, Debug)]
pub struct Put {
    pub key: Key,
    pub value: Bytes,
    pub precondition: Precondition,
    pub durability: Durability,
}

impl Put {
    /// A write that needs the key to be free.
    pub fn create(key: Key, value: impl Into<Bytes>) -> Self {
        Self { key, value: value.into(), precondition: Precondition::NotExists, durability: Durability::Immediate }
    }

    /// A write over the entry last written at `revision`.
    pub fn update(key: Key, value: impl Into<Bytes>, revision: Revision) -> Self {
        Self { precondition: Precondition::Revision(revision), ..Self::create(key, value) }
    }

    /// A write whatever is there.
    pub fn overwrite(key: Key, value: impl Into<Bytes>) -> Self {
        Self { precondition: Precondition::Any, ..Self::create(key, value) }
    }

    /// The same write with [`Durability::Eventual`].
    #[must_use]
    pub fn eventually(self) -> Self {
        Self { durability: Durability::Eventual, ..self }
    }
}

/// A stored value with the revision that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: Key,
    pub value: Bytes,
    pub revision: Revision,
}

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct Range {
    /// Only keys that start with this; empty for all.
    pub prefix: String,
    /// Only keys greater than this.
    pub after: Option<Key>,
    /// At most so many entries; zero for all.
    pub limit: usize,
    /// As of this revision; `None` for now.
    pub at: Option<Revision>,
    /// Also say how many entries a limit left out: a walk over all of them in some stores.
    pub count: bool,
}

impl Range {
    /// Everything under a prefix, now.
    pub fn prefix(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..Self::default() }
    }
}

/// One answer to [`Store::list`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub entries: Vec<Entry>,
    /// The revision the page shows: `at`, or the newest one.
    pub revision: Revision,
    /// True when the limit cut the page short.
    pub more: bool,
    /// How many entries the limit left out, if that was asked for.
    pub left_out: Option<u64>,
}

/// One change, or the news that there was none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// `entry` was written; `created` when the key was free before.
    Put { entry: Entry, created: bool },
    /// `previous` was removed at `revision`.
    Delete { previous: Entry, revision: Revision },
    /// Every change up to this revision has been reported.
    Progress(Revision),
}

impl Event {
    /// The revision this event brings its reader to.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Put { entry, .. } => entry.revision,
            Self::Delete { revision, .. } | Self::Progress(revision) => *revision,
        }
    }

    /// The key that changed, if one did.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Self::Put { entry, .. } => Some(&entry.key),
            Self::Delete { previous, .. } => Some(&previous.key),
            Self::Progress(_) => None,
        }
    }
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{key} was changed by another writer")]
    Conflict {
        key: Key,
        /// The revision that is there now; `None` when there is no entry.
        current: Option<Revision>,
    },
    #[error("{0} does not exist")]
    NotFound(Key),
    #[error("revision {requested} has been compacted")]
    Compacted {
        requested: Revision,
        /// The oldest revision that still can be read, where known.
        oldest: Option<Revision>,
    },
    #[error("revision {requested} is in the future, the newest is {current}")]
    Future { requested: Revision, current: Revision },
    #[error("watch fell too far behind")]
    Lagged,
    #[error("the store is closed")]
    Closed,
    #[error("invalid key {0:?}")]
    InvalidKey(String),
    #[error("{operation} {path}")]
    Io {
        operation: &'static str,
        path: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{path} is not a usable store file: {reason}")]
    Corrupt { path: String, reason: String },
}

impl StoreError {
    /// Wraps a backend's failure with what was being done, to what.
    pub fn io(
        operation: &'static str,
        path: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Io { operation, path: path.into(), source: source.into() }
    }
}

/// Judges a precondition against the revision that is there. Shared by backends
/// so that all of them answer alike.
pub fn check_precondition(key: &Key, precondition: Precondition, current: Option<Revision>) -> Result<(), StoreError> {
    match (precondition, current) {
        (Precondition::Any, _) | (Precondition::NotExists, None) => Ok(()),
        (Precondition::Revision(_), None) => Err(StoreError::NotFound(key.clone())),
        (Precondition::Revision(want), Some(have)) if want == have => Ok(()),
        (_, current) => Err(StoreError::Conflict { key: key.clone(), current }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keys_refuse_garbage() {
        for bad in ["", "a\0b", &"x".repeat(MAX_KEY_BYTES + 1)] {
            assert!(matches!(Key::new(bad), Err(StoreError::InvalidKey(_))), "{bad:?}");
        }
        assert_eq!(Key::new("/registry/pods/a/b").unwrap().as_str(), "/registry/pods/a/b");
    }

    #[test]
    fn preconditions() {
        let key = Key::new("k").unwrap();
        let r = |n| Some(Revision(n));
        let check = |p, c| check_precondition(&key, p, c);
        assert!(check(Precondition::Any, None).is_ok());
        assert!(check(Precondition::Any, r(3)).is_ok());
        assert!(check(Precondition::NotExists, None).is_ok());
        assert!(
            matches!(check(Precondition::NotExists, r(3)), Err(StoreError::Conflict { current, .. }) if current == r(3))
        );
        assert!(check(Precondition::Revision(Revision(3)), r(3)).is_ok());
        assert!(matches!(check(Precondition::Revision(Revision(3)), r(4)), Err(StoreError::Conflict { .. })));
        assert!(matches!(check(Precondition::Revision(Revision(3)), None), Err(StoreError::NotFound(_))));
    }

    #[test]
    fn revisions_parse() {
        assert_eq!("12".parse::<Revision>().unwrap(), Revision(12));
        for bad in ["", "-1", "+1", "abc", "99999999999999999999"] {
            assert!(bad.parse::<Revision>().is_err(), "{bad:?}");
        }
    }
}

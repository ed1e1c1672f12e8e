//! How far the store has acknowledged writes, in a small file beside it.
//!
//! A damaged last commit looks to redb like one that a crash cut short, and it goes
//! back to the one before. What this file says was on disk already when it was
//! written, so a store that ends before it has lost something. It is not synced: that
//! would cost as much as a commit; after a loss of power it is behind, never ahead.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::store::{Revision, StoreError};

/// The file, or nothing for stores that are no file.
#[derive(Debug, Default)]
pub(super) struct Acknowledged {
    file: Option<(PathBuf, File)>,
}

impl Acknowledged {
    /// Opens or creates the file of a store.
    pub(super) fn beside(store: &Path) -> io::Result<Self> {
        let mut path = store.as_os_str().to_owned();
        path.push(".acknowledged");
        let path = PathBuf::from(path);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        Ok(Self { file: Some((path, file)) })
    }

    /// Notes what is on disk now. A failure only makes the file less useful.
    pub(super) fn note(&self, revision: Revision) {
        let Some((path, file)) = &self.file else { return };
        // Of one length, so that a later number covers an earlier one.
        if let Err(error) = file.write_all_at(format!("{:020}\n", revision.0).as_bytes(), 0) {
            tracing::warn!(%error, path = %path.display(), "acknowledged revision not noted");
        }
    }

    fn read(&self) -> Option<Revision> {
        let (_, file) = self.file.as_ref()?;
        let mut text = [0; 20];
        file.read_exact_at(&mut text, 0).ok()?;
        std::str::from_utf8(&text).ok()?.parse().ok()
    }

    /// Refuses a store whose last revision is older than what was acknowledged.
    pub(super) fn check(&self, store: &str, last: Revision) -> Result<(), StoreError> {
        let Some(acknowledged) = self.read().filter(|acknowledged| *acknowledged > last) else { return Ok(()) };
        let beside = self.file.as_ref().map_or_else(String::new, |(path, _)| path.display().to_string());
        let reason = format!(
            "it ends at revision {last}, but {acknowledged} was acknowledged: its last commits are damaged, or it is a \
             backup (to go on without them, remove {beside})"
        );
        Err(StoreError::Corrupt { path: store.to_owned(), reason })
    }
}

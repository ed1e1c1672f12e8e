//! The embedded [`Store`]: one redb file, many versions per key, group commit.
//!
//! Owns a writer thread that gathers concurrent writes into one commit (one
//! fsync) and answers them together; readers use redb's snapshots. Eventual
//! writes are kept in an overlay that readers see and the next commit persists.
//!
//! **After a crash** the file shows the last commit: every write acknowledged as
//! durable is there, and of the eventual ones a prefix. Revisions are reserved
//! ahead in each commit, and a start after a crash skips the reserved ones, so a
//! revision that was handed out for a lost write is never used for another. The
//! skipped range is remembered as a gap: reads and watches from inside it get
//! `Compacted`, since what their reader saw never came to pass. A file that ends
//! before what was acknowledged is damaged and refused.
//!
//! **After a failed commit or read** (a disk that is full or away for a moment) redb
//! refuses all further work, so the writer closes the file and opens it again. Whatever
//! of a failed batch did reach the disk is taken back, since its writers were told that
//! it failed; eventual writes are still in the overlay.

mod acknowledged;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod read;
mod schema;
mod staged;
mod writer;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock, mpsc};

use ::redb::{Database, DatabaseError, ReadTransaction, ReadableDatabase, StorageError, WriteTransaction};
use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::oneshot;

use super::config::RedbConfig;
use super::fanout::{Fanout, replay_then};
use super::store::{Entry, Event, EventStream, Key, Page, Precondition, Put, Range, Revision, Store, StoreError};
use acknowledged::Acknowledged;
use writer::{Command, Write, WriteResult, Writer};

/// Versions that are visible but not on disk yet; `None` is a deletion.
type Overlay = BTreeMap<(Key, Revision), Option<Bytes>>;

/// What readers see beside the file.
#[derive(Clone, Debug, Default)]
struct Visible {
    revision: Revision,
    overlay: Arc<Overlay>,
}

/// Shared by readers and the writer thread.
#[derive(Debug)]
struct Shared {
    path: String,
    /// Absent while the file is reopened after a failure.
    database: RwLock<Option<Database>>,
    /// Also held while events are published, so that a watch can join between
    /// two revisions.
    visible: Mutex<Visible>,
    fanout: Fanout,
}

/// How the file is opened; tests put a disk of their own in its place.
type Open = Box<dyn Fn(&RedbConfig) -> Result<Database, StoreError> + Send>;

impl Shared {
    fn begin_read(&self) -> Result<ReadTransaction, ::redb::Error> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        Ok(database.as_ref().ok_or_else(reopening)?.begin_read()?)
    }

    fn begin_write(&self) -> Result<WriteTransaction, ::redb::Error> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        Ok(database.as_ref().ok_or_else(reopening)?.begin_write()?)
    }

    /// Puts another database in place of the present one, which is closed.
    fn install(&self, database: Option<Database>) {
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = database;
    }

    fn visible(&self) -> std::sync::MutexGuard<'_, Visible> {
        self.visible.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_open(&self) -> Result<(), StoreError> {
        if self.fanout.is_closed() { Err(StoreError::Closed) } else { Ok(()) }
    }
}

fn reopening() -> ::redb::Error {
    ::redb::Error::Io(std::io::Error::other("the store could not be reopened after a failure yet"))
}

/// The embedded store.
#[derive(Debug)]
pub struct RedbStore {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    /// Joined on drop, so that a dropped store has released its file.
    writer: Option<std::thread::JoinHandle<()>>,
}

impl RedbStore {
    /// Opens or creates the file. Blocks: after a crash redb reads it all.
    pub fn open(config: RedbConfig) -> Result<Self, StoreError> {
        Self::open_with(config, Box::new(open_database), |config| {
            let beside = Acknowledged::beside(&config.path);
            beside.map_err(|source| {
                StoreError::io("note what is acknowledged beside", config.path.display().to_string(), source)
            })
        })
    }

    fn open_with(
        config: RedbConfig,
        open: Open,
        acknowledged: impl Fn(&RedbConfig) -> Result<Acknowledged, StoreError>,
    ) -> Result<Self, StoreError> {
        let path = config.path.display().to_string();
        let database = open(&config)?;
        let acknowledged = acknowledged(&config)?;
        let last = schema::last(&database).map_err(|error| broken(&path, "open store", error))?;
        acknowledged.check(&path, last)?;
        let recovered = schema::recover(&database).map_err(|error| broken(&path, "open store", error))?;
        let visible = Visible { revision: recovered.revision, overlay: Arc::default() };
        let shared = Arc::new(Shared {
            path: path.clone(),
            database: RwLock::new(Some(database)),
            visible: Mutex::new(visible),
            fanout: Fanout::default(),
        });
        let (commands, inbox) = mpsc::channel();
        let writer = Writer::new(shared.clone(), config, (open, acknowledged), recovered);
        let writer = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run(&inbox))
            .map_err(|source| StoreError::io("start writer of", path, source))?;
        Ok(Self { shared, commands, writer: Some(writer) })
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Command,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// Runs a read that may touch many pages away from the async threads.
    async fn read<T: Send + 'static>(
        &self,
        operation: &'static str,
        read: impl FnOnce(&Shared) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.shared.check_open()?;
        let shared = self.shared.clone();
        let done = tokio::task::spawn_blocking(move || read(&shared)).await;
        self.noted(done.map_err(|source| StoreError::io(operation, self.shared.path.clone(), source))?)
    }

    /// Has the file opened again when it could not be read: redb refuses everything after one failed read.
    fn noted<T>(&self, read: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(StoreError::Io { .. } | StoreError::Corrupt { .. }) = &read {
            // Fails only when the writer has stopped.
            let _ = self.commands.send(Command::ReadFailed);
        }
        read
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        // Fails only when the writer has stopped already.
        let _ = self.commands.send(Command::Close(None));
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

#[async_trait]
impl Store for RedbStore {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.shared.check_open()?;
        // A few pages from the cache: cheaper than changing threads.
        self.noted(read::get(&self.shared, key))
    }

    async fn list(&self, range: Range) -> Result<Page, StoreError> {
        self.read("list", move |shared| read::list(shared, &range)).await
    }

    async fn put(&self, put: Put) -> Result<Revision, StoreError> {
        let WriteResult { revision, .. } = self.ask(|answer| Command::Write(Write::Put(put), answer)).await?;
        Ok(revision)
    }

    async fn delete(&self, key: &Key, precondition: Precondition) -> Result<(Revision, Entry), StoreError> {
        let write = Write::Delete(key.clone(), precondition);
        let WriteResult { revision, previous } = self.ask(|answer| Command::Write(write, answer)).await?;
        let previous = previous.ok_or_else(|| StoreError::NotFound(key.clone()))?;
        Ok((revision, previous))
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<EventStream, StoreError> {
        let (live, upto) = {
            let visible = self.shared.visible();
            (self.shared.fanout.subscribe(prefix, after.max(visible.revision)), visible.revision)
        };
        let prefix = prefix.to_owned();
        let replay = self.read("watch", move |shared| read::replay(shared, &prefix, after, upto)).await?;
        Ok(replay_then(replay, live))
    }

    async fn request_progress(&self) -> Result<(), StoreError> {
        self.shared.check_open()?;
        let visible = self.shared.visible();
        self.shared.fanout.publish(&Arc::from([Event::Progress(visible.revision)]));
        Ok(())
    }

    async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        self.ask(|answer| Command::Compact(before, answer)).await
    }

    async fn current_revision(&self) -> Result<Revision, StoreError> {
        self.shared.check_open()?;
        Ok(self.shared.visible().revision)
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.ask(Command::Check).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.ask(|answer| Command::Close(Some(answer))).await
    }
}

fn open_database(config: &RedbConfig) -> Result<Database, StoreError> {
    let path = config.path.display().to_string();
    if let Some(directory) = config.path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        std::fs::create_dir_all(directory).map_err(|source| StoreError::io("create directory of", &path, source))?;
    }
    create_file(&config.path).map_err(|source| StoreError::io("create", &path, source))?;
    let length = std::fs::metadata(&config.path).map_err(|source| StoreError::io("read the size of", &path, source))?;
    if length.len() == 0 {
        let reason =
            "the file is empty: what it held is lost (remove it, and the one with .acknowledged after its name, \
                      to begin with an empty cluster)"
                .into();
        return Err(StoreError::Corrupt { path, reason });
    }
    let mut builder = Database::builder();
    builder.set_cache_size(config.cache_bytes);
    // A damaged file is refused here instead of failing later in the middle.
    builder.set_check_integrity_on_open(true);
    // redb says of itself that it may panic on a damaged file.
    let opened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| builder.create(&config.path)));
    let corrupt = |reason: String| StoreError::Corrupt { path: path.clone(), reason };
    let database = match opened {
        Ok(Ok(database)) => database,
        Ok(Err(DatabaseError::Storage(StorageError::Corrupted(reason)))) => return Err(corrupt(reason)),
        Ok(Err(DatabaseError::Storage(StorageError::Io(error))))
            if matches!(error.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof) =>
        {
            return Err(corrupt(error.to_string()));
        }
        Ok(Err(DatabaseError::UpgradeRequired(version))) => {
            return Err(corrupt(format!("file format version {version} is not supported")));
        }
        Ok(Err(error)) => return Err(StoreError::io("open", path, error)),
        Err(_) => return Err(corrupt("its pages contradict each other".into())),
    };
    sync_directory(&config.path).map_err(|source| StoreError::io("sync directory of", &path, source))?;
    Ok(database)
}

/// Makes a store that is empty and complete, unless there is a file. Under
/// another name until then, so that an empty file is never a new store.
fn create_file(path: &Path) -> std::io::Result<()> {
    if path.try_exists()? {
        return Ok(());
    }
    let unfinished = path.with_extension("new");
    // Created here for its mode; redb fills an empty file.
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    let backend = ::redb::backends::FileBackend::new(file).map_err(std::io::Error::other)?;
    drop(Database::builder().create_with_backend(backend).map_err(std::io::Error::other)?);
    std::fs::File::open(&unfinished)?.sync_all()?;
    std::fs::rename(&unfinished, path)
}

/// Makes the file's name durable, as its contents are.
fn sync_directory(path: &Path) -> std::io::Result<()> {
    match path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        Some(directory) => std::fs::File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// A failure of redb while the store is in use.
fn broken(path: &str, operation: &'static str, error: impl Into<::redb::Error>) -> StoreError {
    match error.into() {
        ::redb::Error::Corrupted(reason) => StoreError::Corrupt { path: path.into(), reason },
        error => StoreError::io(operation, path, error),
    }
}

#[cfg(test)]
mod power_loss;
#[cfg(test)]
mod tests;

//! The writer thread: gathers, judges, commits, publishes, answers.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use redb::WriteTransaction;
use tokio::sync::oneshot;

use super::acknowledged::Acknowledged;
use super::schema::{self, LOG, META, RESERVE, RESERVED, REVISION, Recovered, VERSIONS};
use super::staged::{Staged, current};
use super::{Open, Overlay, Shared, broken};
use crate::config::RedbConfig;
use crate::store::{Entry, Event, Key, Precondition, Put, Revision, StoreError};

/// Most writes in one commit.
const MAX_BATCH: usize = 1024;
/// How long a commit waits for the writers of the previous one to come back.
const GATHER: Duration = Duration::from_micros(150);
/// A commit no older than this shows that commits work.
const FRESH_COMMIT: Duration = Duration::from_secs(1);
/// Least time between two attempts to reopen the file, which reads it all.
const REOPEN_PAUSE: Duration = Duration::from_millis(500);

pub(super) type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the writer is asked for.
#[derive(Debug)]
pub(super) enum Command {
    Write(Write, Answer<WriteResult>),
    Compact(Revision, Answer<()>),
    /// Commits, to see whether that works.
    Check(Answer<()>),
    /// A reader met an error of the disk.
    ReadFailed,
    Close(Option<Answer<()>>),
}

#[derive(Debug)]
pub(super) enum Write {
    Put(Put),
    Delete(Key, Precondition),
}

/// A successful write; a deletion says what it removed.
#[derive(Debug)]
pub(super) struct WriteResult {
    pub(super) revision: Revision,
    pub(super) previous: Option<Entry>,
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    config: RedbConfig,
    revision: Revision,
    reserved: Revision,
    compacted: Revision,
    /// When which revision was the newest, oldest first.
    ages: VecDeque<(Instant, Revision)>,
    /// When the oldest eventual write has to be on disk.
    flush_by: Option<Instant>,
    last_batch: usize,
    open: Open,
    /// The newest revision on disk, and where that is noted.
    durable: Revision,
    acknowledged: Acknowledged,
    /// When a commit last succeeded.
    committed: Option<Instant>,
    /// Since the last attempt to reopen, when the file cannot be used.
    failed: Option<Instant>,
    /// When the file was last opened.
    opened: Instant,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        config: RedbConfig,
        (open, acknowledged): (Open, Acknowledged),
        recovered: Recovered,
    ) -> Self {
        Self {
            shared,
            config,
            revision: recovered.revision,
            reserved: recovered.reserved,
            compacted: recovered.compacted,
            ages: VecDeque::from([(Instant::now(), recovered.revision)]),
            flush_by: None,
            last_batch: 1,
            open,
            durable: recovered.revision,
            acknowledged,
            committed: None,
            failed: None,
            opened: Instant::now(),
        }
    }

    pub(super) fn run(mut self, inbox: &Receiver<Command>) {
        loop {
            let first = match self.flush_by {
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(by) => inbox.recv_timeout(by.saturating_duration_since(Instant::now())),
            };
            match first {
                Ok(Command::Write(write, answer)) => {
                    let next = self.batch(inbox, (write, answer));
                    if next.is_some_and(|command| self.handle(command)) {
                        return;
                    }
                }
                Ok(command) => {
                    if self.handle(command) {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.flush(),
                Err(RecvTimeoutError::Disconnected) => {
                    let _ = self.close();
                    return;
                }
            }
        }
    }

    /// Anything but a write; true when the thread has to end.
    fn handle(&mut self, command: Command) -> bool {
        match command {
            // `batch` takes writes itself.
            Command::Write(_, answer) => drop(answer.send(Err(StoreError::Closed))),
            Command::Compact(before, answer) => drop(answer.send(self.compact(before))),
            Command::Check(answer) => drop(answer.send(self.check())),
            Command::ReadFailed => self.read_failed(),
            Command::Close(answer) => {
                let closed = self.close();
                if let Some(answer) = answer {
                    // Who asked may have gone.
                    let _ = answer.send(closed);
                }
                return true;
            }
        }
        false
    }

    /// Gathers what is waiting behind `first` and commits it as one. Returns a
    /// command that ended the gathering.
    fn batch(&mut self, inbox: &Receiver<Command>, first: (Write, Answer<WriteResult>)) -> Option<Command> {
        let mut writes = vec![first];
        let mut stopped_by = None;
        let until = Instant::now() + GATHER;
        while writes.len() < MAX_BATCH {
            // Closed loops: those just answered are about to write again, and a
            // commit that starts without them makes them wait for two.
            let next = match inbox.try_recv() {
                Err(mpsc::TryRecvError::Empty) if writes.len() < self.last_batch => {
                    inbox.recv_timeout(until.saturating_duration_since(Instant::now())).ok()
                }
                next => next.ok(),
            };
            match next {
                Some(Command::Write(write, answer)) => writes.push((write, answer)),
                Some(command) => {
                    stopped_by = Some(command);
                    break;
                }
                None => break,
            }
        }
        self.last_batch = writes.len();
        self.write(writes);
        stopped_by
    }

    /// Opens the file again, unless a failed read is from before it was opened.
    fn read_failed(&mut self) {
        if self.failed.is_some() {
            self.ensure_open();
        } else if self.opened.elapsed() >= REOPEN_PAUSE {
            self.reopen();
        }
    }

    /// Opens the file again after a failure. True when it is open.
    fn ensure_open(&mut self) -> bool {
        let Some(last) = self.failed else { return true };
        if last.elapsed() < REOPEN_PAUSE {
            return false;
        }
        self.reopen()
    }

    fn reopen(&mut self) -> bool {
        self.failed = Some(Instant::now());
        // Closed first: a file is open once.
        self.shared.install(None);
        let opened = (self.open)(&self.config).and_then(|database| {
            let counters = schema::roll_back(&database, self.revision, self.durable);
            let counters =
                counters.map_err(|error| broken(&self.shared.path, "take back a failed commit in", error))?;
            Ok((database, counters))
        });
        match opened {
            Ok((database, (reserved, compacted))) => {
                self.shared.install(Some(database));
                (self.reserved, self.compacted) = (reserved, compacted.max(self.compacted));
                self.failed = None;
                self.opened = Instant::now();
                tracing::info!(path = self.shared.path, "store reopened after a failure");
                true
            }
            Err(error) => {
                tracing::error!(%error, path = self.shared.path, "store cannot be reopened; trying again");
                false
            }
        }
    }

    /// Commits unless a commit has just succeeded.
    fn check(&mut self) -> Result<(), StoreError> {
        if self.failed.is_none() && self.committed.is_some_and(|at| at.elapsed() < FRESH_COMMIT) {
            return Ok(());
        }
        self.commit(&Overlay::new(), self.revision).map_err(|error| broken(&self.shared.path, "commit to", error))
    }

    fn write(&mut self, writes: Vec<(Write, Answer<WriteResult>)>) {
        if !self.ensure_open() {
            for (_, answer) in writes {
                drop(answer.send(Err(broken(&self.shared.path, "write to", super::reopening()))));
            }
            return;
        }
        let mut staged = Staged::default();
        if let Err((error, writes)) = self.stage(&mut staged, writes) {
            tracing::error!(error, path = self.shared.path, "store cannot be read");
            for (_, answer) in writes {
                drop(answer.send(Err(StoreError::io("read", self.shared.path.clone(), error.clone()))));
            }
            self.read_failed();
        }
        let Some(newest) = staged.events.last().map(Event::revision) else { return };
        let commit = staged.durable || newest.next() >= self.reserved;
        if commit && let Err(error) = self.commit(&staged.versions, newest) {
            let text = error.to_string();
            tracing::error!(error = text, path = self.shared.path, "commit failed; no write of this batch happened");
            for (answer, _) in staged.answers {
                drop(answer.send(Err(broken(
                    &self.shared.path,
                    "commit to",
                    redb::Error::Io(std::io::Error::other(text.clone())),
                ))));
            }
            return;
        }
        self.publish(staged, newest, commit);
    }

    /// Judges each write against what those before it leave behind. On a read
    /// error returns the writes that were not judged.
    #[allow(clippy::type_complexity)]
    fn stage(
        &self,
        staged: &mut Staged,
        writes: Vec<(Write, Answer<WriteResult>)>,
    ) -> Result<(), (String, Vec<(Write, Answer<WriteResult>)>)> {
        let opened = self.shared.begin_read();
        let versions = match opened.and_then(|read| Ok(read.open_table(VERSIONS)?)) {
            Ok(versions) => versions,
            Err(error) => return Err((error.to_string(), writes)),
        };
        let overlay = self.shared.visible().overlay.clone();
        let mut revision = self.revision;
        let mut writes = writes.into_iter();
        while let Some((write, answer)) = writes.next() {
            let key = match &write {
                Write::Put(put) => &put.key,
                Write::Delete(key, _) => key,
            };
            let current = match current(key, staged, &overlay, &versions) {
                Ok(current) => current,
                Err(error) => {
                    let rest = std::iter::once((write, answer)).chain(writes).collect();
                    return Err((error.to_string(), rest));
                }
            };
            match staged.accept(write, current, revision.next()) {
                Ok(written) => {
                    revision = revision.next();
                    staged.answers.push((answer, written));
                }
                // Who asked may have gone.
                Err(error) => drop(answer.send(Err(error))),
            }
        }
        Ok(())
    }

    /// Puts the overlay and `versions` on disk, with the counters, and forgets a
    /// little old history on the way.
    fn commit(&mut self, versions: &Overlay, newest: Revision) -> Result<(), redb::Error> {
        if !self.ensure_open() {
            return Err(super::reopening());
        }
        let committed = self.try_commit(versions, newest);
        match committed {
            Ok(()) => self.committed = Some(Instant::now()),
            // redb takes no more work until the file is opened again.
            Err(_) => drop(self.reopen()),
        }
        committed
    }

    fn try_commit(&mut self, versions: &Overlay, newest: Revision) -> Result<(), redb::Error> {
        let overlay = self.shared.visible().overlay.clone();
        let write = self.shared.begin_write()?;
        persist(&write, overlay.iter().chain(versions), newest, newest.0 + RESERVE)?;
        let rows = 64 + 2 * (overlay.len() + versions.len());
        let compacted = self.compact_some(&write, newest, rows)?;
        write.commit()?;
        self.durable = newest;
        self.acknowledged.note(newest);
        self.compacted = compacted;
        self.reserved = Revision(newest.0 + RESERVE);
        self.flush_by = None;
        self.shared.visible().overlay = Arc::default();
        Ok(())
    }

    fn compact_some(
        &mut self,
        write: &WriteTransaction,
        newest: Revision,
        rows: usize,
    ) -> Result<Revision, redb::Error> {
        let now = Instant::now();
        // Enough samples to be right within a sixteenth of the history's age.
        if self.ages.back().is_none_or(|(at, _)| now.duration_since(*at) > self.config.history / 16) {
            self.ages.push_back((now, self.revision));
        }
        let mut horizon = Revision(newest.0.saturating_sub(self.config.history_revisions));
        while let Some((at, revision)) = self.ages.front() {
            if now.duration_since(*at) <= self.config.history {
                break;
            }
            horizon = horizon.max(*revision);
            // Kept while it is the only one: it says how far back the next may go.
            if self.ages.len() == 1
                || self.ages.get(1).is_some_and(|(next, _)| now.duration_since(*next) <= self.config.history)
            {
                break;
            }
            self.ages.pop_front();
        }
        if horizon <= self.compacted {
            return Ok(self.compacted);
        }
        schema::compact(write, self.compacted, horizon, rows)
    }

    /// Makes staged writes visible, tells watches, answers.
    fn publish(&mut self, staged: Staged, newest: Revision, committed: bool) {
        self.revision = newest;
        {
            let mut visible = self.shared.visible();
            if !committed {
                Arc::make_mut(&mut visible.overlay).extend(staged.versions);
                self.flush_by.get_or_insert_with(|| Instant::now() + self.config.flush_after);
            }
            visible.revision = newest;
            self.shared.fanout.publish(&Arc::from(staged.events));
        }
        for (answer, written) in staged.answers {
            // Who asked may have gone; the write stands.
            drop(answer.send(Ok(written)));
        }
    }

    /// Brings eventual writes to disk.
    fn flush(&mut self) {
        if let Err(error) = self.commit(&Overlay::new(), self.revision) {
            tracing::error!(error = error.to_string(), path = self.shared.path, "flush failed; trying again later");
            self.flush_by = Some(Instant::now() + self.config.flush_after);
        }
    }

    fn compact(&mut self, before: Revision) -> Result<(), StoreError> {
        if before > self.revision {
            return Err(StoreError::Future { requested: before, current: self.revision });
        }
        if before <= self.compacted {
            return Ok(());
        }
        // What is compacted must be on disk first.
        let done = self.commit(&Overlay::new(), self.revision).and_then(|()| {
            let compacted = self.compact_now(before);
            if compacted.is_err() {
                self.reopen();
            }
            compacted
        });
        done.map_err(|error| broken(&self.shared.path, "compact", error))
    }

    fn compact_now(&mut self, before: Revision) -> Result<(), redb::Error> {
        let write = self.shared.begin_write()?;
        let compacted = schema::compact(&write, self.compacted, before, usize::MAX)?;
        write.commit()?;
        self.compacted = compacted;
        Ok(())
    }

    /// Flushes and gives back the reserve, so that the next start has no gap.
    fn close(&mut self) -> Result<(), StoreError> {
        self.ensure_open();
        let overlay = self.shared.visible().overlay.clone();
        let work = || {
            let write = self.shared.begin_write()?;
            persist(&write, overlay.iter(), self.revision, self.revision.0)?;
            write.commit()?;
            Ok(())
        };
        self.shared.fanout.close();
        work().map_err(|error: redb::Error| broken(&self.shared.path, "flush", error))?;
        self.acknowledged.note(self.revision);
        Ok(())
    }
}

fn persist<'v>(
    write: &WriteTransaction,
    versions: impl Iterator<Item = (&'v (Key, Revision), &'v Option<Bytes>)>,
    newest: Revision,
    reserved: u64,
) -> Result<(), redb::Error> {
    let mut rows = write.open_table(VERSIONS)?;
    let mut log = write.open_table(LOG)?;
    for ((key, revision), value) in versions {
        rows.insert(schema::row(key.as_str(), *revision).as_slice(), schema::encode(value.as_ref()).as_slice())?;
        log.insert(revision.0, key.as_str())?;
    }
    let mut meta = write.open_table(META)?;
    meta.insert(REVISION, newest.0)?;
    meta.insert(RESERVED, reserved)?;
    Ok(())
}

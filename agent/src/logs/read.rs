//! Sends a container's log to one reader, following it when asked.

use std::io::{self, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;

use super::line::{Flow, Renderer};
use super::open;
use super::options::LogOptions;
use super::tail;
use super::watch::{Change, DirectoryWatch, LogWatcher};

const CHUNK: usize = 32 * 1024;
/// A "line" longer than this is given up: runtimes cut at 16 KiB.
const LONGEST_LINE: usize = 1 << 20;
/// Without news, how often to ask whether the container still runs.
const SAFETY_NET: Duration = Duration::from_secs(5);
/// First wait after a writer closed the file: the runtime learns of the
/// container's end a moment later.
const AFTER_CLOSE: Duration = Duration::from_millis(10);

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("failed to try resolving symlinks in path {path:?}: {source}")]
    Open { path: PathBuf, source: io::Error },
    #[error("read log {path:?}")]
    Read { path: PathBuf, source: io::Error },
}

/// Whether the container may still write.
#[async_trait]
pub trait Liveness: Send + Sync {
    /// Asks the runtime.
    async fn is_running(&self) -> bool;
}

/// A log that is open for one reader.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    file: File,
    options: LogOptions,
    renderer: Renderer,
    watch: Option<DirectoryWatch>,
    /// Bytes of a line whose end was not read yet.
    pending: Vec<u8>,
}

impl LogReader {
    /// Opens the log at the place the options ask for; fails at once when it
    /// cannot be read.
    pub async fn open(path: &Path, options: LogOptions, watcher: &LogWatcher) -> Result<Self, LogError> {
        let cannot = |source| LogError::Open { path: path.to_owned(), source };
        // Before the first read, so that nothing is missed between.
        let watch = match path.parent().filter(|_| options.follow) {
            Some(directory) => watcher
                .watch(directory)
                .inspect_err(|error| tracing::warn!(%error, "log directory cannot be watched"))
                .ok(),
            None => None,
        };
        let mut file = open_log(path).await.map_err(cannot)?;
        if let Some(lines) = options.tail_lines {
            let mut blocking = file.into_std().await;
            let found = tokio::task::spawn_blocking(move || {
                tail::start_of_tail(&mut blocking, lines).map(|start| (blocking, start))
            });
            let (blocking, start) = found.await.map_err(io::Error::other).flatten().map_err(cannot)?;
            file = File::from_std(blocking);
            file.seek(SeekFrom::Start(start)).await.map_err(cannot)?;
        }
        let renderer = Renderer::new(&options, Timestamp::now());
        Ok(Self { path: path.to_owned(), file, options, renderer, watch, pending: Vec::new() })
    }

    /// Sends everything to `out` until the end, the limit, or the reader's going
    /// away.
    pub async fn run(mut self, container: &dyn Liveness, out: mpsc::Sender<Bytes>) -> Result<(), LogError> {
        let mut pause = SAFETY_NET;
        let mut ending = false;
        loop {
            let Some(got_any) = self.read_to_end(&out).await? else { return Ok(()) };
            if !self.options.follow {
                return Ok(());
            }
            // Before the end is believed: a rotation may have come just before it.
            if self.switch_file(&out).await? {
                continue;
            }
            if ending && !got_any {
                return Ok(());
            }
            ending = false;
            // All arms are cancel-safe: signals are kept, timers restart.
            tokio::select! {
                () = out.closed() => return Ok(()),
                change = changed(self.watch.as_ref()) => {
                    if change == Change::Closed {
                        pause = AFTER_CLOSE;
                    }
                }
                () = tokio::time::sleep(pause) => {
                    pause = (pause * 2).min(SAFETY_NET);
                    // One more read after the end: it may have raced with it.
                    ending = !container.is_running().await;
                }
            }
        }
    }

    /// Reads to the present end: whether anything came, `None` when the reader
    /// wants no more.
    async fn read_to_end(&mut self, out: &mpsc::Sender<Bytes>) -> Result<Option<bool>, LogError> {
        let mut got_any = false;
        loop {
            let mut chunk = std::mem::take(&mut self.pending);
            chunk.reserve(CHUNK);
            let before = chunk.len();
            let read = (&mut self.file).take(CHUNK as u64).read_to_end(&mut chunk).await;
            read.map_err(|source| LogError::Read { path: self.path.clone(), source })?;
            if chunk.len() == before {
                self.pending = chunk;
                return Ok(Some(got_any));
            }
            got_any = true;
            let (rendered, flow) = self.render(&chunk);
            let closed = !rendered.is_empty() && out.send(rendered.into()).await.is_err();
            if closed || flow == Flow::Done {
                return Ok(None);
            }
        }
    }

    /// Renders whole lines; what follows the last newline waits.
    fn render(&mut self, chunk: &[u8]) -> (Vec<u8>, Flow) {
        let mut rendered = Vec::with_capacity(chunk.len());
        for line in chunk.split_inclusive(|b| *b == b'\n') {
            if line.last() != Some(&b'\n') {
                if line.len() < LONGEST_LINE {
                    self.pending = line.to_vec();
                }
                break;
            }
            if self.renderer.push(line, &mut rendered) == Flow::Done {
                return (rendered, Flow::Done);
            }
        }
        (rendered, Flow::Continue)
    }

    /// After a rotation, reads the rest of the old file and goes on in the new.
    async fn switch_file(&mut self, out: &mpsc::Sender<Bytes>) -> Result<bool, LogError> {
        let failed = |source| LogError::Read { path: self.path.clone(), source };
        let mine = self.file.metadata().await.map_err(failed)?;
        let Ok(next) = open_log(&self.path).await else { return Ok(false) };
        let there = next.metadata().await.map_err(failed)?;
        if (mine.dev(), mine.ino()) == (there.dev(), there.ino()) {
            return Ok(false);
        }
        // Between the last read and the rename something may have been written.
        if self.read_to_end(out).await?.is_none() {
            self.options.follow = false;
        }
        self.file = next;
        self.pending.clear();
        Ok(true)
    }
}

async fn open_log(path: &Path) -> io::Result<File> {
    let path = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || open::log(&path)).await;
    opened.map_err(io::Error::other).flatten().map(File::from_std)
}

async fn changed(watch: Option<&DirectoryWatch>) -> Change {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;

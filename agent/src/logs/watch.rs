//! One inotify instance for all log readers: instances are scarce.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures::StreamExt;
use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask, Watches};
use tokio::sync::Notify;

/// Watches log directories while somebody follows a log in them.
#[derive(Debug, Default)]
pub struct LogWatcher {
    shared: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    watches: Option<Watches>,
    directories: HashMap<WatchDescriptor, Vec<Weak<Signal>>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("directories", &self.directories.len()).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Signal {
    changed: Notify,
    closed: AtomicBool,
}

/// Tells of changes in one directory; ends its watch when dropped.
#[derive(Debug)]
pub struct DirectoryWatch {
    signal: Arc<Signal>,
    descriptor: WatchDescriptor,
    shared: Arc<Mutex<State>>,
}

/// What happened in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Modified,
    /// A writer closed a file: perhaps its container has ended.
    Closed,
}

impl DirectoryWatch {
    /// Waits for the next change. Changes are never missed, equal ones merge.
    /// Cancel-safe.
    pub async fn changed(&self) -> Change {
        self.signal.changed.notified().await;
        if self.signal.closed.swap(false, Ordering::AcqRel) { Change::Closed } else { Change::Modified }
    }
}

impl Drop for DirectoryWatch {
    fn drop(&mut self) {
        let mut state = lock(&self.shared);
        let Some(signals) = state.directories.get_mut(&self.descriptor) else { return };
        signals.retain(|signal| signal.strong_count() > 0 && !std::ptr::eq(signal.as_ptr(), &raw const *self.signal));
        if signals.is_empty() {
            state.directories.remove(&self.descriptor);
            let descriptor = self.descriptor.clone();
            if let Some(watches) = &mut state.watches {
                // Gone with the directory already, perhaps.
                let _ = watches.remove(descriptor);
            }
        }
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LogWatcher {
    /// Watches a directory from now on. Must be called within a tokio runtime.
    pub fn watch(&self, directory: &Path) -> io::Result<DirectoryWatch> {
        let mut state = lock(&self.shared);
        if state.watches.is_none() {
            let inotify = Inotify::init()?;
            state.watches = Some(inotify.watches());
            let events = inotify.into_event_stream(vec![0u8; 4096])?;
            // Lives as long as the agent; without events it does nothing.
            tokio::spawn(dispatch(events, Arc::downgrade(&self.shared)));
        }
        let mask = WatchMask::MODIFY | WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::CLOSE_WRITE;
        let watches = state.watches.as_mut().ok_or_else(|| io::Error::other("inotify is gone"))?;
        let descriptor = watches.add(directory, mask)?;
        let signal = Arc::new(Signal::default());
        state.directories.entry(descriptor.clone()).or_default().push(Arc::downgrade(&signal));
        Ok(DirectoryWatch { signal, descriptor, shared: self.shared.clone() })
    }
}

async fn dispatch(mut events: inotify::EventStream<Vec<u8>>, shared: Weak<Mutex<State>>) {
    while let Some(event) = events.next().await {
        let Some(shared) = shared.upgrade() else { return };
        let Ok(event) = event else { continue };
        let state = lock(&shared);
        let overflow = event.mask.contains(EventMask::Q_OVERFLOW);
        let targets = state.directories.iter().filter(|(wd, _)| overflow || **wd == event.wd);
        for signal in targets.flat_map(|(_, signals)| signals).filter_map(Weak::upgrade) {
            if overflow || event.mask.contains(EventMask::CLOSE_WRITE) {
                signal.closed.store(true, Ordering::Release);
            }
            signal.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn tells_every_watcher_and_stops_when_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let watcher = LogWatcher::default();
        let (a, b) = (watcher.watch(dir.path()).unwrap(), watcher.watch(dir.path()).unwrap());
        std::fs::write(dir.path().join("f"), "x").unwrap();
        let closed = async |watch: &DirectoryWatch| while watch.changed().await != Change::Closed {};
        let both = async { (closed(&a).await, closed(&b).await) };
        harness::time::within("both hear of it", both).await.unwrap();
        drop(a);
        assert_eq!(lock(&watcher.shared).directories.len(), 1);
        drop(b);
        assert!(lock(&watcher.shared).directories.is_empty());
        assert!(watcher.watch(&dir.path().join("none")).is_err());
    }
}

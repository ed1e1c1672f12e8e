//! Static pods from a directory, watched by inotify.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use inotify::{Inotify, WatchMask};
use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

use super::merge::Merger;
use super::{PodOrigin, static_pod};
use crate::clock::Clock;
use crate::events::{EventRecorder, EventType};
use crate::ids::PodUid;

/// Largest file taken for a pod.
const MAX_BYTES: u64 = 10 << 20;
/// Editors write in several steps; look when they are done.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// How often a directory that cannot be watched is read.
const FALLBACK: Duration = Duration::from_secs(20);

/// Reads static pods from one directory.
#[derive(Debug)]
pub struct FileSource {
    directory: PathBuf,
    node_name: String,
    merger: Merger,
    events: EventRecorder,
    clock: Clock,
    /// Problems already reported, by file.
    reported: BTreeMap<PathBuf, String>,
    /// The last good pod of each file: a bad edit does not stop a pod.
    known: BTreeMap<PathBuf, Arc<Pod>>,
}

impl FileSource {
    /// A source that has not been read.
    pub fn new(directory: PathBuf, node_name: String, merger: Merger, events: EventRecorder, clock: Clock) -> Self {
        Self { directory, node_name, merger, events, clock, reported: BTreeMap::new(), known: BTreeMap::new() }
    }

    /// Follows the directory until cancelled.
    pub async fn run(mut self, token: CancellationToken) {
        let _ = std::fs::create_dir_all(&self.directory);
        loop {
            let watched = tokio::select! {
                () = token.cancelled() => return,
                result = self.follow() => result,
            };
            if let Err(error) = watched {
                tracing::warn!(directory = %self.directory.display(), %error, "static pods are read now and then only");
            }
            self.scan();
            tokio::select! {
                () = token.cancelled() => return,
                () = tokio::time::sleep(FALLBACK) => {}
            }
        }
    }

    async fn follow(&mut self) -> io::Result<()> {
        let inotify = Inotify::init()?;
        let mask = WatchMask::CLOSE_WRITE
            | WatchMask::MOVED_TO
            | WatchMask::MOVED_FROM
            | WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::DELETE_SELF;
        inotify.watches().add(&self.directory, mask)?;
        let mut stream = inotify.into_event_stream(vec![0; 4096])?;
        self.scan();
        while let Some(event) = stream.next().await {
            event?;
            // Everything that comes within a moment is one change.
            while let Ok(Some(more)) = tokio::time::timeout(DEBOUNCE, stream.next()).await {
                more?;
            }
            self.scan();
            if !self.directory.is_dir() {
                return Err(io::Error::new(io::ErrorKind::NotFound, "the directory is gone"));
            }
        }
        Ok(())
    }

    /// Reads every file. A file that is no pod is reported once; the pod it was
    /// before stays, as upstream's does not, because a typo should not kill it.
    fn scan(&mut self) {
        let entries = match std::fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            // Half a picture is none: what is known stays.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(directory = %self.directory.display(), %error, "static pods not readable");
                return;
            }
            Err(_) => {
                self.known.clear();
                self.merger.replace(PodOrigin::File, BTreeMap::new());
                return;
            }
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| is_candidate(p)).collect();
        paths.sort();
        self.known.retain(|path, _| paths.contains(path));
        self.reported.retain(|path, _| paths.contains(path));
        for path in paths {
            match self.read(&path) {
                Ok(pod) => {
                    self.reported.remove(&path);
                    let same = self.known.get(&path).is_some_and(|k| k.metadata.uid == pod.metadata.uid);
                    if !same {
                        self.known.insert(path, Arc::new(pod));
                    }
                }
                Err(problem) => self.report(path, problem),
            }
        }
        let pods = self.known.values().map(|p| (PodUid::of(p), p.clone())).collect();
        self.merger.replace(PodOrigin::File, pods);
    }

    fn read(&self, path: &Path) -> Result<Pod, String> {
        let meta = std::fs::metadata(path).map_err(|e| e.to_string())?;
        if meta.len() > MAX_BYTES {
            return Err(format!("larger than {MAX_BYTES} bytes"));
        }
        let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
        let text = String::from_utf8(bytes).map_err(|_| "not UTF-8 text".to_owned())?;
        let seen = self.clock.now().to_string();
        static_pod::parse(&text, PodOrigin::File, &self.node_name, &seen).map_err(|e| e.to_string())
    }

    fn report(&mut self, path: PathBuf, problem: String) {
        if self.reported.get(&path) == Some(&problem) {
            return;
        }
        tracing::warn!(file = %path.display(), %problem, "static pod file ignored");
        let text = format!("{}: {problem}", path.display());
        self.events.node(&self.node_name, EventType::Warning, "InvalidStaticPod", text);
        self.reported.insert(path, problem);
    }
}

/// Whether a directory entry can hold a pod: a file that is not hidden and not
/// an editor's left-over.
fn is_candidate(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    !name.starts_with('.') && !name.ends_with('~') && path.is_file()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::podsource::DesiredRx;

    const WEB: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: NAME}\nspec: {containers: [{name: a, image: i}]}";

    async fn names(rx: &mut DesiredRx, expect: &[&str]) {
        let wanted: Vec<String> = expect.iter().map(|n| format!("{n}-n1")).collect();
        let fits = |d: &Arc<crate::podsource::DesiredPods>| {
            let mut have: Vec<_> = d.pods.values().filter_map(|p| p.pod.metadata.name.clone()).collect();
            have.sort();
            have == wanted
        };
        tokio::time::timeout(Duration::from_secs(10), rx.wait_for(fits)).await.expect("in time").unwrap();
    }

    #[tokio::test]
    async fn files_come_change_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, name: &str| std::fs::write(dir.path().join(file), WEB.replace("NAME", name)).unwrap();
        write("a.yaml", "a");
        std::fs::write(dir.path().join("bad.yaml"), "{").unwrap();
        write(".hidden", "h");
        let (merger, mut rx) = Merger::new(false, true, false);
        let (events, mut happened) = EventRecorder::channel(8);
        let source = FileSource::new(dir.path().to_owned(), "n1".into(), merger, events, Clock::System);
        let token = CancellationToken::new();
        let task = tokio::spawn(source.run(token.clone()));
        names(&mut rx, &["a"]).await;
        assert!(happened.recv().await.unwrap().message.contains("bad.yaml"));
        write("b.yaml", "b");
        names(&mut rx, &["a", "b"]).await;
        // A bad edit keeps the pod, a removal ends it.
        std::fs::write(dir.path().join("a.yaml"), "kind: nonsense").unwrap();
        write("c.yaml", "c");
        names(&mut rx, &["a", "b", "c"]).await;
        std::fs::remove_file(dir.path().join("a.yaml")).unwrap();
        names(&mut rx, &["b", "c"]).await;
        token.cancel();
        task.await.unwrap();
    }
}

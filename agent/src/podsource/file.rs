//! Static pods from a directory, or one file, watched by inotify and read now and
//! then beside that: not every file system tells of changes.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use inotify::{Inotify, WatchMask};
use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::merge::Merger;
use super::{PodOrigin, static_pod};
use crate::clock::Clock;
use crate::events::{EventRecorder, EventType};
use crate::ids::PodUid;
use crate::read;

/// Largest file taken for a pod.
const MAX_BYTES: u64 = 10 << 20;
/// Editors write in several steps; look when they are done.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// Nobody reads more often than that.
const LEAST_PERIOD: Duration = Duration::from_secs(1);

/// Reads static pods from one path (pkg/kubelet/config/file.go).
#[derive(Debug)]
pub struct FileSource {
    path: PathBuf,
    /// How often it is read whatever is heard of it.
    period: Duration,
    node_name: String,
    merger: Merger,
    events: EventRecorder,
    clock: Clock,
    /// Problems already reported, by file.
    reported: BTreeMap<PathBuf, String>,
    /// The same of the path as a whole.
    complaint: Option<String>,
    /// The last good pod of each file: a bad edit does not stop a pod.
    known: BTreeMap<PathBuf, Arc<Pod>>,
}

/// The text of each file there is, or why it cannot be read.
type Texts = BTreeMap<PathBuf, Result<String, String>>;

impl FileSource {
    /// A source that has not been read.
    pub fn new(path: PathBuf, node_name: String, merger: Merger, events: EventRecorder, clock: Clock) -> Self {
        let (reported, known) = (BTreeMap::new(), BTreeMap::new());
        let period = Duration::from_secs(20);
        Self { path, period, node_name, merger, events, clock, reported, complaint: None, known }
    }

    /// Read at least that often.
    #[must_use]
    pub fn every(self, period: Duration) -> Self {
        Self { period: period.max(LEAST_PERIOD), ..self }
    }

    /// Follows the path until cancelled.
    pub async fn run(mut self, token: CancellationToken) {
        token.run_until_cancelled(self.keep()).await;
    }

    async fn keep(&mut self) {
        let path = self.path.clone();
        // A path like a file's is to be one, some day. What fails is told when it is read.
        let make = move || match !path.exists() && path.extension().is_none() {
            true => std::fs::create_dir_all(&path),
            false => Ok(()),
        };
        let _ = aside(make).await;
        loop {
            if let Err(error) = self.follow().await {
                self.complain(format!("read now and then only: {error}"));
                self.scan().await;
                tokio::time::sleep(self.period).await;
            }
        }
    }

    /// Watches what the path is now, until it is something else.
    async fn follow(&mut self) -> io::Result<()> {
        let path = self.path.clone();
        let (inotify, watched) = aside(move || watch(&path)).await?;
        let mut stream = inotify.into_event_stream(vec![0; 4096])?;
        loop {
            if self.scan().await {
                self.complaint = None;
            }
            let (path, place) = (self.path.clone(), watched.place.clone());
            if aside(move || Watched::now(&path, place)).await? != watched {
                return Ok(());
            }
            match tokio::time::timeout(self.period, stream.next()).await {
                // Nothing was heard: see for yourself.
                Err(_) => {}
                Ok(None) => return Ok(()),
                Ok(Some(event)) => {
                    event?;
                    // Everything that comes within a moment is one change.
                    let latest = Instant::now() + LEAST_PERIOD;
                    while let Ok(Some(more)) =
                        tokio::time::timeout_at((Instant::now() + DEBOUNCE).min(latest), stream.next()).await
                    {
                        more?;
                        if Instant::now() >= latest {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// Reads every file; false when that cannot be done. A file that is no pod is
    /// reported once; the pod it was before stays, as upstream's does not, because
    /// a typo should not kill it.
    async fn scan(&mut self) -> bool {
        let path = self.path.clone();
        let texts = match aside(move || texts(&path)).await {
            Ok(texts) => texts,
            // Half a picture is none: what is known stays.
            Err(error) => {
                self.complain(format!("not readable: {error}"));
                return false;
            }
        };
        self.known.retain(|path, _| texts.contains_key(path));
        let (seen, mut problems) = (self.clock.now().to_string(), BTreeMap::new());
        for (path, text) in texts {
            let parse = |text: String| {
                let pod = static_pod::parse(&text, PodOrigin::File, &self.node_name, &seen);
                pod.map_err(|error| error.to_string())
            };
            match text.and_then(parse) {
                Ok(pod) if self.known.get(&path).is_some_and(|k| k.metadata.uid == pod.metadata.uid) => {}
                Ok(pod) => _ = self.known.insert(path, Arc::new(pod)),
                Err(problem) => _ = problems.insert(path, problem),
            }
        }
        // Of each name the pod of the first file.
        let (mut pods, mut names) = (BTreeMap::new(), static_pod::Names::default());
        for (path, pod) in &self.known {
            match names.take(pod) {
                Ok(()) => _ = pods.insert(PodUid::of(pod), pod.clone()),
                Err(problem) => _ = problems.entry(path.clone()).or_insert(problem),
            }
        }
        self.merger.replace(PodOrigin::File, pods);
        self.report(problems);
        true
    }

    /// Says what is wrong with files, each problem once.
    fn report(&mut self, problems: BTreeMap<PathBuf, String>) {
        for (path, problem) in problems.iter().filter(|(path, problem)| self.reported.get(*path) != Some(problem)) {
            self.say(path, problem);
        }
        self.reported = problems;
    }

    fn complain(&mut self, problem: String) {
        if self.complaint.as_ref() != Some(&problem) {
            self.say(&self.path, &problem);
            self.complaint = Some(problem);
        }
    }

    fn say(&self, path: &Path, problem: &str) {
        tracing::warn!(file = %path.display(), problem, "static pod file ignored");
        let text = format!("{}: {problem}", path.display());
        self.events.node(&self.node_name, EventType::Warning, "InvalidStaticPod", text);
    }
}

/// Does work on files where it may take long: a file system that does not answer holds nobody else up.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other).flatten()
}

/// What is watched for a path.
#[derive(Debug, PartialEq, Eq)]
struct Watched {
    place: PathBuf,
    /// Which file or directory the place leads to.
    id: (u64, u64),
    /// Whether the path leads to a directory.
    is_dir: bool,
}

impl Watched {
    /// As it is now. Blocking.
    fn now(path: &Path, place: PathBuf) -> io::Result<Self> {
        let meta = std::fs::metadata(&place)?;
        Ok(Self { id: (meta.dev(), meta.ino()), is_dir: path.is_dir(), place })
    }
}

/// Watches what a path is now. Blocking.
fn watch(path: &Path) -> io::Result<(Inotify, Watched)> {
    let inotify = Inotify::init()?;
    let mask = WatchMask::CLOSE_WRITE
        | WatchMask::MOVED_TO
        | WatchMask::MOVED_FROM
        | WatchMask::CREATE
        | WatchMask::DELETE
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF;
    // A file that is replaced is another one: its directory tells of that.
    let place = if path.is_file() { path.parent().unwrap_or(path) } else { path };
    inotify.watches().add(place, mask)?;
    Ok((inotify, Watched::now(path, place.to_owned())?))
}

/// Reads what a path leads to: the files of a directory, or a file. Nothing is
/// there where there is no such path. Blocking.
fn texts(path: &Path) -> io::Result<Texts> {
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Texts::new()),
        Err(error) => return Err(error),
    };
    let mut paths = Vec::new();
    if meta.is_dir() {
        for entry in std::fs::read_dir(path)? {
            paths.push(entry?.path());
        }
        paths.retain(|path| is_candidate(path));
    } else if meta.is_file() {
        paths.push(path.to_owned());
    } else {
        return Err(io::Error::other("neither a directory nor a file"));
    }
    Ok(paths.into_iter().map(|path| (path.clone(), read_one(&path))).collect())
}

fn read_one(path: &Path) -> Result<String, String> {
    read::text(path, MAX_BYTES).map_err(|error| error.to_string())
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
    use crate::events::Event;
    use crate::podsource::DesiredRx;

    const WEB: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: NAME}\nspec: {containers: [{name: a, image: i}]}";

    async fn names(rx: &mut DesiredRx, expect: &[&str]) {
        let wanted: Vec<String> = expect.iter().map(|n| format!("{n}-n1")).collect();
        let fits = |d: &Arc<crate::podsource::DesiredPods>| {
            let mut have: Vec<_> = d.pods.values().filter_map(|p| p.pod.metadata.name.clone()).collect();
            have.sort();
            have == wanted
        };
        harness::time::within(&format!("{wanted:?}"), rx.wait_for(fits)).await.unwrap().unwrap();
    }

    /// A source of that path which hears of nothing for an hour.
    fn follow(path: &Path) -> (DesiredRx, tokio::sync::mpsc::Receiver<Event>, CancellationToken) {
        follow_every(path, Duration::from_secs(3600))
    }

    fn follow_every(
        path: &Path,
        period: Duration,
    ) -> (DesiredRx, tokio::sync::mpsc::Receiver<Event>, CancellationToken) {
        let (merger, rx) = Merger::new(false, true, false);
        let (events, happened) = EventRecorder::channel(8);
        let source = FileSource::new(path.to_owned(), "n1".into(), merger, events, Clock::System).every(period);
        let token = CancellationToken::new();
        tokio::spawn(source.run(token.clone()));
        (rx, happened, token)
    }

    fn write(path: &Path, name: &str) {
        std::fs::write(path, WEB.replace("NAME", name)).unwrap();
    }

    /// As upstream's `extractFromFile`.
    #[tokio::test]
    async fn one_file_is_one_pod() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pod.yaml");
        write(&dir.path().join("other.yaml"), "other");
        // It need not be there from the beginning.
        let (mut rx, _events, token) = follow_every(&file, Duration::from_secs(1));
        names(&mut rx, &[]).await;
        write(&file, "a");
        names(&mut rx, &["a"]).await;
        token.cancel();
        let (mut rx, _events, token) = follow(&file);
        names(&mut rx, &["a"]).await;
        assert!(rx.borrow().ready.file);
        write(&file, "b");
        names(&mut rx, &["b"]).await;
        // As editors replace it.
        write(&dir.path().join("new"), "c");
        std::fs::rename(dir.path().join("new"), &file).unwrap();
        names(&mut rx, &["c"]).await;
        std::fs::remove_file(&file).unwrap();
        names(&mut rx, &[]).await;
        write(&file, "d");
        names(&mut rx, &["d"]).await;
        token.cancel();
    }

    #[tokio::test]
    async fn a_directory_that_is_another_one_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two, link) = (dir.path().join("one"), dir.path().join("two"), dir.path().join("link"));
        std::fs::create_dir(&one).unwrap();
        std::fs::create_dir(&two).unwrap();
        std::os::unix::fs::symlink(&one, &link).unwrap();
        write(&one.join("a.yaml"), "a");
        write(&two.join("b.yaml"), "b");
        // The kernel tells nothing of a link: it is looked at now and then.
        let (mut rx, _events, token) = follow_every(&link, Duration::from_secs(1));
        names(&mut rx, &["a"]).await;
        std::os::unix::fs::symlink(&two, dir.path().join("new")).unwrap();
        std::fs::rename(dir.path().join("new"), &link).unwrap();
        names(&mut rx, &["b"]).await;
        token.cancel();
        // Of a directory that goes somewhere else it does.
        let (mut rx, _events, token) = follow(&one);
        names(&mut rx, &["a"]).await;
        std::fs::rename(&one, dir.path().join("away")).unwrap();
        names(&mut rx, &[]).await;
        token.cancel();
    }

    /// As upstream's `filterInvalidPods` (pkg/kubelet/config/config.go).
    #[tokio::test]
    async fn of_two_files_of_one_name_the_first_counts() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["a.yaml", "b.yaml"] {
            let text = WEB.replace("NAME", "web").replace("image: i", &format!("image: {file}"));
            std::fs::write(dir.path().join(file), text).unwrap();
        }
        let (mut rx, mut events, token) = follow(dir.path());
        let image = |rx: &DesiredRx| {
            let desired = rx.borrow().clone();
            let pods: Vec<_> = desired.pods.values().collect();
            assert_eq!(pods.len(), 1);
            pods[0].pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap()
        };
        names(&mut rx, &["web"]).await;
        assert_eq!(image(&rx), "a.yaml");
        let told = events.recv().await.unwrap().message;
        assert!(told.contains("b.yaml") && told.contains("duplicate pod name \"web-n1\""), "{told}");
        std::fs::remove_file(dir.path().join("a.yaml")).unwrap();
        let other = rx.wait_for(|d| {
            d.pods.values().any(|p| p.pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("b.yaml"))
        });
        harness::time::within("the other file's", other).await.unwrap().unwrap();
        assert_eq!(image(&rx), "b.yaml");
        assert!(events.try_recv().is_err(), "it is told once");
        token.cancel();
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

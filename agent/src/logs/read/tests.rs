//! Readers of logs that grow, rotate and end.

#![allow(clippy::unwrap_used)]
use super::*;
use harness::time;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Default)]
struct Flag(AtomicBool);

#[async_trait]
impl Liveness for Flag {
    async fn is_running(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

struct Follower {
    out: mpsc::Receiver<Bytes>,
    seen: String,
    task: tokio::task::JoinHandle<Result<(), LogError>>,
}

impl Follower {
    async fn start(path: &Path, options: LogOptions, running: Arc<Flag>) -> Self {
        let watcher = LogWatcher::default();
        let reader = LogReader::open(path, options, &watcher).await.unwrap();
        let (tx, out) = mpsc::channel(4);
        let task = tokio::spawn(async move {
            let _watcher = watcher;
            reader.run(&*running, tx).await
        });
        Self { out, seen: String::new(), task }
    }

    async fn until(&mut self, end: &str) {
        let wait = async {
            while !self.seen.ends_with(end) {
                let chunk = self.out.recv().await.unwrap_or_else(|| panic!("ended after {:?}", self.seen));
                self.seen.push_str(std::str::from_utf8(&chunk).unwrap());
            }
        };
        time::within("something new", wait).await.unwrap();
    }

    async fn finish(mut self) -> String {
        let wait = async {
            while let Some(chunk) = self.out.recv().await {
                self.seen.push_str(std::str::from_utf8(&chunk).unwrap());
            }
        };
        time::within("the reader's end", wait).await.unwrap();
        self.task.await.unwrap().unwrap();
        self.seen
    }
}

fn line(text: &str) -> String {
    format!("2020-01-01T00:00:00Z stdout F {text}\n")
}

fn append(path: &Path, text: &str) {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn follow() -> LogOptions {
    LogOptions { follow: true, ..LogOptions::default() }
}

#[tokio::test]
async fn reads_tails_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("0.log");
    append(&log, &(line("1") + "rubbish\n" + &line("2") + &line("3") + "unfinished"));
    let read = async |options| Follower::start(&log, options, Arc::default()).await.finish().await;
    assert_eq!(read(LogOptions::default()).await, "1\n2\n3\n");
    assert_eq!(read(LogOptions { tail_lines: Some(2), ..LogOptions::default() }).await, "3\n");
    assert_eq!(read(LogOptions { limit_bytes: Some(3), ..LogOptions::default() }).await, "1\n2");
    let none = LogReader::open(&dir.path().join("none"), follow(), &LogWatcher::default()).await;
    assert!(matches!(none, Err(LogError::Open { .. })));
}

#[tokio::test]
async fn follows_across_a_rotation_until_the_container_ends() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("0.log");
    append(&log, &line("1"));
    let running = Arc::new(Flag(AtomicBool::new(true)));
    let mut follower = Follower::start(&log, follow(), running.clone()).await;
    follower.until("1\n").await;
    append(&log, "2020-01-01T00:00:00Z stdout F ha");
    append(&log, "lf\n");
    follower.until("half\n").await;
    std::fs::rename(&log, dir.path().join("0.log.old")).unwrap();
    append(&dir.path().join("0.log.old"), &line("late"));
    append(&log, &line("new"));
    follower.until("late\nnew\n").await;
    append(&log, &line("last"));
    running.0.store(false, Ordering::SeqCst);
    assert_eq!(follower.finish().await, "1\nhalf\nlate\nnew\nlast\n");
}

/// The container ends right after a rotation: whichever news comes first, the
/// new file is read.
#[tokio::test]
async fn an_end_after_a_rotation_loses_nothing() {
    for _ in 0..50 {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        append(&log, &line("1"));
        let running = Arc::new(Flag(AtomicBool::new(true)));
        let mut follower = Follower::start(&log, follow(), running.clone()).await;
        follower.until("1\n").await;
        std::fs::rename(&log, dir.path().join("0.log.old")).unwrap();
        append(&log, &line("2"));
        running.0.store(false, Ordering::SeqCst);
        assert_eq!(follower.finish().await, "1\n2\n");
    }
}

#[tokio::test]
async fn a_reader_that_leaves_ends_the_following() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("0.log");
    append(&log, &line("1"));
    let mut follower = Follower::start(&log, follow(), Arc::new(Flag(AtomicBool::new(true)))).await;
    follower.until("1\n").await;
    drop(follower.out);
    time::within("the reader's end", follower.task).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_file_of_garbage_gives_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("0.log");
    std::fs::write(&log, vec![0xffu8; 3 << 20]).unwrap();
    assert_eq!(Follower::start(&log, LogOptions::default(), Arc::default()).await.finish().await, "");
}

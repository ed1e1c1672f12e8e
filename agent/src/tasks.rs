//! The agent's own tasks: named, and never silently gone. A panic of an
//! essential task ends the agent, which is started anew and adopts what runs; a
//! restartable one is started again, and counted.
//!
//! A lock that a panic left behind is used further everywhere in this crate:
//! either the process is about to end, or what the lock guards is replaced as a
//! whole and cannot be half changed.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Shortest and longest pause before a task is started again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A task that panicked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("task {task} panicked: {message}")]
pub struct TaskPanic {
    pub task: &'static str,
    pub message: String,
}

/// How often tasks were started again, by name. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct TaskRestarts(Arc<Mutex<BTreeMap<&'static str, u64>>>);

impl TaskRestarts {
    /// The counts of all restartable tasks.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, task: &'static str, more: u64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(task).or_default() += more;
    }
}

/// A group of tasks that end together. Cheap to clone.
#[derive(Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    token: CancellationToken,
    panics: mpsc::UnboundedSender<TaskPanic>,
    restarts: TaskRestarts,
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("running", &self.tracker.len()).finish_non_exhaustive()
    }
}

impl Tasks {
    /// A group without tasks. `panics` hears of essential tasks that panicked.
    pub fn new(panics: mpsc::UnboundedSender<TaskPanic>, restarts: TaskRestarts) -> Self {
        Self { tracker: TaskTracker::new(), token: CancellationToken::new(), panics, restarts }
    }

    /// Cancelled when the group is to end.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Starts an essential task.
    pub fn spawn(&self, task: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let panics = self.panics.clone();
        self.tracker.spawn(async move {
            if let Err(panic) = run(task, work).await {
                tracing::error!(task, panic = panic.message, "a task that the agent needs panicked");
                // Nobody listens only when the agent ends anyhow.
                let _ = panics.send(panic);
            }
        });
    }

    /// Starts a task that is started again, with growing pauses, when it panics.
    pub fn keep<F>(&self, task: &'static str, work: impl Fn() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (token, restarts) = (self.token.clone(), self.restarts.clone());
        restarts.add(task, 0);
        self.tracker.spawn(async move {
            let mut pause = FIRST_PAUSE;
            while let Err(panic) = run(task, work()).await {
                tracing::error!(task, panic = panic.message, "a task panicked and is started again");
                restarts.add(task, 1);
                if token.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                    return;
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        });
    }

    /// Ends the group; false when some task did not end within `limit`.
    pub async fn drain(&self, limit: Duration) -> bool {
        self.token.cancel();
        self.tracker.close();
        tokio::time::timeout(limit, self.tracker.wait()).await.is_ok()
    }
}

/// Runs a task, in one of its own so that a panic is seen. Dropping the future
/// leaves the work running.
async fn run(task: &'static str, work: impl Future<Output = ()> + Send + 'static) -> Result<(), TaskPanic> {
    match tokio::spawn(work).await {
        Err(error) if error.is_panic() => Err(TaskPanic { task, message: text(&*error.into_panic()) }),
        _ => Ok(()),
    }
}

/// What a panic said.
fn text(payload: &(dyn Any + Send)) -> String {
    let said = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    said.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn group() -> (Tasks, mpsc::UnboundedReceiver<TaskPanic>, TaskRestarts) {
        let ((panics, heard), restarts) = (mpsc::unbounded_channel(), TaskRestarts::default());
        (Tasks::new(panics, restarts.clone()), heard, restarts)
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_heard_of() {
        let (tasks, mut heard, _) = group();
        let token = tasks.token();
        tasks.spawn("steady", async move { token.cancelled().await });
        tasks.spawn("short", async {});
        tasks.spawn("shaky", async { panic!("oh {}", 1) });
        let panic = heard.recv().await.unwrap();
        assert_eq!(panic.to_string(), "task shaky panicked: oh 1");
        assert!(tasks.drain(Duration::from_secs(5)).await);
        assert!(heard.try_recv().is_err(), "only one panicked");
    }

    #[tokio::test(start_paused = true)]
    async fn a_restartable_task_is_started_again_and_counted() {
        let (tasks, mut heard, restarts) = group();
        let (starts, token) = (Arc::new(AtomicU64::new(0)), tasks.token());
        let (steady, mut is_steady) = mpsc::unbounded_channel();
        tasks.keep("flaky", move || {
            let (start, token, steady) = (starts.fetch_add(1, Ordering::SeqCst), token.clone(), steady.clone());
            async move {
                assert!(start >= 3, "not yet");
                steady.send(()).unwrap();
                token.cancelled().await;
            }
        });
        assert_eq!(restarts.counts(), [("flaky", 0)].into());
        is_steady.recv().await.unwrap();
        assert_eq!(restarts.counts(), [("flaky", 3)].into());
        assert!(tasks.drain(Duration::from_secs(5)).await);
        assert!(heard.try_recv().is_err());
    }
}

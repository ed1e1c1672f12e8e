//! The long-lived tasks of the process: named, supervised, drained in order.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long tasks may take to end once they are asked to.
const DRAIN: Duration = Duration::from_secs(10);

/// A group of tasks that stand and fall together.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    token: CancellationToken,
    ended: mpsc::UnboundedSender<(Arc<str>, Option<String>)>,
}

/// The one who waits for the group.
#[derive(Debug)]
pub struct Supervisor {
    tasks: Tasks,
    ended: mpsc::UnboundedReceiver<(Arc<str>, Option<String>)>,
}

/// A group without tasks and its supervisor.
pub fn group() -> (Tasks, Supervisor) {
    let (sender, ended) = mpsc::unbounded_channel();
    let tasks = Tasks { tracker: TaskTracker::new(), token: CancellationToken::new(), ended: sender };
    (tasks.clone(), Supervisor { tasks, ended })
}

impl Tasks {
    /// Starts a task. When it ends before the group is asked to, with an error
    /// or without, the whole group ends.
    pub fn spawn<F>(&self, name: &str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let name: Arc<str> = name.into();
        let work = task(self.token.child_token());
        let (ended, token) = (self.ended.clone(), self.token.clone());
        self.tracker.spawn(async move {
            // A task of its own, so that a panic is seen and named, too.
            let error = match tokio::spawn(work).await {
                Ok(Ok(())) if token.is_cancelled() => return,
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(format!("{error:#}")),
                Err(panic) => Some(panic.to_string()),
            };
            // The supervisor is gone only when the process ends.
            let _ = ended.send((name, error));
        });
    }

    /// Cancelled when the group is asked to end.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }
}

impl Supervisor {
    /// Waits for `stop` or for the first task to end, then drains the group.
    ///
    /// # Errors
    /// Names the task that ended by itself.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<()> {
        let first = tokio::select! {
            () = stop => None,
            ended = self.ended.recv() => ended,
        };
        self.tasks.token.cancel();
        self.tasks.tracker.close();
        if tokio::time::timeout(DRAIN, self.tasks.tracker.wait()).await.is_err() {
            tracing::warn!(seconds = DRAIN.as_secs(), "tasks did not end in time and are cut off");
        }
        match first {
            None => Ok(()),
            Some((name, Some(error))) => bail!("{name}: {error}"),
            Some((name, None)) => bail!("{name} ended by itself"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn the_group_ends_with_its_first_failure() {
        let (tasks, supervisor) = group();
        tasks.spawn("steady", |token| async move {
            token.cancelled().await;
            Ok(())
        });
        tasks.spawn("weak", |_| async { bail!("no more") });
        let error = supervisor.run(std::future::pending()).await.unwrap_err();
        assert_eq!(error.to_string(), "weak: no more");
    }

    #[tokio::test]
    async fn a_panic_is_a_failure_with_a_name() {
        let (tasks, supervisor) = group();
        tasks.spawn("shaky", |_| async { panic!("oh") });
        let error = supervisor.run(std::future::pending()).await.unwrap_err();
        assert!(error.to_string().starts_with("shaky: "), "{error}");
    }

    #[tokio::test]
    async fn a_stop_is_no_failure() {
        let (tasks, supervisor) = group();
        tasks.spawn("steady", |token| async move {
            token.cancelled().await;
            Ok(())
        });
        supervisor.run(async {}).await.unwrap();
    }
}

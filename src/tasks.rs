//! The long-lived tasks of the process: named, supervised, drained in order. Where one of them fails,
//! its class says what follows, and its state stays to be seen.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::errors;
use crate::node::UsageError;

/// How long tasks may take to end once they are asked to.
const DRAIN: Duration = Duration::from_secs(10);
/// Shortest and longest pause before a task is started again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// How long a task has to run for its next start to be the first of a row again.
const STEADY: Duration = Duration::from_secs(60);

/// What follows when a task ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The process ends, and says why.
    Essential,
    /// It is started again; meanwhile everything else runs on.
    Restartable,
}

/// How a task is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub class: Class,
    /// How often it was started again.
    pub restarts: u64,
    /// Why it does not run at present.
    pub problem: Option<String>,
}

/// All tasks by name.
pub type States = BTreeMap<Arc<str>, State>;

/// A group of tasks that end together.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    token: CancellationToken,
    ended: mpsc::UnboundedSender<(Arc<str>, End)>,
    states: watch::Sender<States>,
}

/// The one who waits for the group.
#[derive(Debug)]
pub struct Supervisor {
    tasks: Tasks,
    ended: mpsc::UnboundedReceiver<(Arc<str>, End)>,
}

/// A group without tasks and its supervisor.
pub fn group() -> (Tasks, Supervisor) {
    let (sender, ended) = mpsc::unbounded_channel();
    let (states, _) = watch::channel(States::new());
    let tasks = Tasks { tracker: TaskTracker::new(), token: CancellationToken::new(), ended: sender, states };
    (tasks.clone(), Supervisor { tasks, ended })
}

/// How one run of a task ended.
#[derive(Debug)]
struct End {
    /// `None`: it returned without an error.
    problem: Option<String>,
    /// Arguments that make no sense do not get better by another start.
    is_usage: bool,
}

/// Runs a task to its end. A task of its own, so that a panic is seen and named, too.
async fn run(work: impl Future<Output = Result<()>> + Send + 'static) -> End {
    match tokio::spawn(work).await {
        Ok(Ok(())) => End { problem: None, is_usage: false },
        Ok(Err(error)) => End { problem: Some(errors::one_line(&error)), is_usage: error.is::<UsageError>() },
        Err(error) if error.is_panic() => {
            let payload = error.into_panic();
            let said = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let said = said.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
            End { problem: Some(format!("panicked: {said}")), is_usage: false }
        }
        Err(error) => End { problem: Some(error.to_string()), is_usage: false },
    }
}

impl Tasks {
    /// Starts an essential task. When it ends before the group is asked to, with an error
    /// or without, the whole group ends.
    pub fn spawn<F>(&self, name: &str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let name = self.register(name, Class::Essential);
        let work = task(self.token.child_token());
        let group = self.clone();
        self.tracker.spawn(async move {
            let end = run(work).await;
            if !(group.token.is_cancelled() && end.problem.is_none()) {
                group.give_up(name, end);
            }
        });
    }

    /// Starts a task that is started again, with growing pauses, whenever it fails or panics.
    pub fn keep<F>(&self, name: &str, task: impl Fn(CancellationToken) -> F + Send + 'static)
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let name = self.register(name, Class::Restartable);
        let group = self.clone();
        self.tracker.spawn(async move {
            let mut pause = PAUSES.0;
            loop {
                let started = Instant::now();
                let end = run(task(group.token.child_token())).await;
                if group.token.is_cancelled() {
                    return;
                }
                if end.is_usage {
                    return group.give_up(name, end);
                }
                pause = if started.elapsed() >= STEADY { PAUSES.0 } else { pause };
                let problem = end.problem.unwrap_or_else(|| "ended by itself".to_owned());
                tracing::error!(
                    task = &*name,
                    problem,
                    seconds = pause.as_secs_f32(),
                    "a task ended and is started again"
                );
                group.set(&name, |state| state.problem = Some(problem.clone()));
                if group.token.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                    return;
                }
                pause = (pause * 2).min(PAUSES.1);
                group.set(&name, |state| {
                    state.restarts += 1;
                    // Whoever fails at once shall not look well in between.
                    if pause == PAUSES.0 * 2 {
                        state.problem = None;
                    }
                });
            }
        });
    }

    fn register(&self, name: &str, class: Class) -> Arc<str> {
        let name: Arc<str> = name.into();
        self.states.send_modify(|states| {
            states.insert(name.clone(), State { class, restarts: 0, problem: None });
        });
        name
    }

    fn set(&self, name: &str, change: impl FnOnce(&mut State)) {
        self.states.send_modify(|states| {
            if let Some(state) = states.get_mut(name) {
                change(state);
            }
        });
    }

    /// Ends the group for the sake of one task.
    fn give_up(&self, name: Arc<str>, end: End) {
        self.set(&name, |state| state.problem = Some(end.problem.clone().unwrap_or_else(|| "ended".to_owned())));
        // The supervisor is gone only when the process ends.
        let _ = self.ended.send((name, end));
    }

    /// Follows how all tasks are.
    pub fn states(&self) -> watch::Receiver<States> {
        self.states.subscribe()
    }

    /// Cancelled when the group is asked to end.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }
}

impl Supervisor {
    /// Waits for `stop` or for the first task that gives up, then drains the group.
    ///
    /// # Errors
    /// Names the task that ended by itself; a [`UsageError`] where that was one.
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
            Some((name, End { problem: Some(error), is_usage: true })) => bail!(UsageError(format!("{name}: {error}"))),
            Some((name, End { problem: Some(error), .. })) => bail!("{name}: {error}"),
            Some((name, End { problem: None, .. })) => bail!("{name} ended by itself"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    async fn until_cancelled(token: CancellationToken) -> Result<()> {
        token.cancelled().await;
        Ok(())
    }

    #[tokio::test]
    async fn the_group_ends_with_its_first_failure() {
        let (tasks, supervisor) = group();
        tasks.spawn("steady", until_cancelled);
        tasks.spawn("weak", |_| async { bail!("no more") });
        let error = supervisor.run(std::future::pending()).await.unwrap_err();
        assert_eq!((error.to_string().as_str(), error.is::<UsageError>()), ("weak: no more", false));
    }

    #[tokio::test]
    async fn a_panic_is_a_failure_with_a_name_and_its_words() {
        let (tasks, supervisor) = group();
        tasks.spawn("shaky", |_| async { panic!("oh {}", 1) });
        let states = tasks.states();
        let error = supervisor.run(std::future::pending()).await.unwrap_err();
        assert_eq!(error.to_string(), "shaky: panicked: oh 1");
        let expected = State { class: Class::Essential, restarts: 0, problem: Some("panicked: oh 1".to_owned()) };
        assert_eq!(states.borrow()["shaky"], expected);
    }

    #[tokio::test]
    async fn a_stop_is_no_failure() {
        let (tasks, supervisor) = group();
        tasks.spawn("steady", until_cancelled);
        tasks.keep("kept", until_cancelled);
        supervisor.run(async {}).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_restartable_task_is_started_again_and_seen_to_be() {
        let (tasks, supervisor) = group();
        let starts = Arc::new(AtomicU32::new(0));
        let counted = starts.clone();
        tasks.keep("flaky", move |token| {
            let start = counted.fetch_add(1, Ordering::Relaxed);
            async move {
                match start {
                    0 => panic!("at first"),
                    1 => bail!("then"),
                    2 => Ok(()),
                    _ => until_cancelled(token).await,
                }
            }
        });
        tasks.spawn("steady", until_cancelled);
        let mut states = tasks.states();
        let running = tokio::spawn(supervisor.run(std::future::pending()));
        for problem in ["panicked: at first", "then", "ended by itself"] {
            let seen = states.wait_for(|s| s["flaky"].problem.as_deref() == Some(problem)).await;
            assert_eq!(seen.unwrap()["flaky"].class, Class::Restartable, "{problem}");
        }
        states.wait_for(|states| states["flaky"].restarts == 3).await.unwrap();
        assert!(states.borrow()["steady"].problem.is_none() && !running.is_finished());
        tasks.token().cancel();
        assert_eq!(starts.load(Ordering::Relaxed), 4);
    }

    #[tokio::test]
    async fn arguments_that_make_no_sense_end_a_restartable_task_too() {
        let (tasks, supervisor) = group();
        tasks.keep("odd", |_| async { Err(UsageError("--odd".to_owned()).into()) });
        let error = supervisor.run(std::future::pending()).await.unwrap_err();
        // That is what the process exits with another code for.
        assert_eq!((error.to_string().as_str(), error.is::<UsageError>()), ("odd: --odd", true));
    }
}

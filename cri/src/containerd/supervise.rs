//! The task that starts the daemon again when it ends.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::process::{self, Plan, Process};
use super::{ContainerdError, Health, Options, Shutdown};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Running this long makes earlier ends forgotten.
const GOOD_RUN: Duration = Duration::from_secs(60);

type Done = Result<(), ContainerdError>;

/// Handle of the supervising task.
#[derive(Debug)]
pub(super) struct Supervisor {
    stop: oneshot::Sender<Shutdown>,
    task: JoinHandle<Done>,
    pid: watch::Receiver<u32>,
    health: watch::Receiver<Health>,
}

impl Supervisor {
    pub(super) fn spawn(options: Options, plan: Plan, process: Process, cancel: CancellationToken) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (pid_sender, pid) = watch::channel(process.pid());
        let (health_sender, health) = watch::channel(Health::Ready);
        let watcher = Watcher { options, plan, pid: pid_sender, health: health_sender };
        let task = tokio::spawn(watcher.run(process, stopped, cancel));
        Self { stop, task, pid, health }
    }

    pub(super) fn pid(&self) -> u32 {
        *self.pid.borrow()
    }

    pub(super) fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    pub(super) async fn shutdown(self, how: Shutdown) -> Done {
        // A task that is gone was cancelled, and left containerd running.
        let _ = self.stop.send(how);
        self.task.await.unwrap_or(Ok(()))
    }
}

struct Watcher {
    options: Options,
    plan: Plan,
    pid: watch::Sender<u32>,
    health: watch::Sender<Health>,
}

impl Watcher {
    async fn run(
        mut self,
        mut process: Process,
        mut stopped: oneshot::Receiver<Shutdown>,
        cancel: CancellationToken,
    ) -> Done {
        let mut pause = FIRST_PAUSE;
        let mut outdated = self.outdated();
        loop {
            let since = Instant::now();
            // All arms only wait, and may be dropped at any time. An owner that
            // dropped its handle leaves containerd running, as cancelling does.
            tokio::select! {
                how = &mut stopped => return end(process, how.unwrap_or(Shutdown::LeaveRunning)).await,
                () = cancel.cancelled() => {
                    // The owner may still say what is to happen.
                    let how = stopped.try_recv().unwrap_or(Shutdown::LeaveRunning);
                    return end(process, how).await;
                }
                plan = &mut outdated => {
                    self.plan = plan;
                    outdated = self.outdated();
                    if process::is_as_planned(&self.options, &self.plan).await {
                        continue;
                    }
                    info!(pid = process.pid(), version = self.plan.version.text, "containerd is another one now");
                }
                () = process.ended() => {
                    warn!(pid = process.pid(), ran = ?since.elapsed(), "containerd ended; starting it again");
                }
            }
            self.health.send_replace(Health::Down);
            pause = if since.elapsed() > GOOD_RUN { FIRST_PAUSE } else { pause };
            let next = tokio::select! {
                _ = &mut stopped => return Ok(()),
                () = cancel.cancelled() => return Ok(()),
                next = self.restart(&mut pause) => next,
            };
            process = next;
            outdated = self.outdated();
            self.pid.send_replace(process.pid());
            self.health.send_replace(Health::Ready);
            info!(pid = process.pid(), "containerd runs again");
        }
    }

    /// Ends with another plan, if one is needed.
    fn outdated(&self) -> BoxFuture<'static, Plan> {
        let (options, plan) = (self.options.clone(), self.plan.clone());
        let another = async move {
            match process::reconsider(&options, &plan).await {
                Some(plan) => plan,
                None => std::future::pending().await,
            }
        };
        another.boxed()
    }

    /// Starts it until it stays, in place of one that runs and is not as planned. Dropped midway, a daemon that was
    /// just started runs on, and is adopted next time.
    async fn restart(&mut self, pause: &mut Duration) -> Process {
        loop {
            sleep(*pause).await;
            *pause = (*pause * 2).min(LONGEST_PAUSE);
            match process::adopt_or_start(&self.options, &self.plan).await {
                Ok(process) => return process,
                Err(problem) => {
                    error!(%problem, retry_after = ?pause, "containerd does not start");
                    // It may not be what it was, and configured for that.
                    if let Some(plan) = process::ask_again(&self.options, &self.plan).await {
                        self.plan = plan;
                    }
                }
            }
        }
    }
}

async fn end(process: Process, how: Shutdown) -> Done {
    match how {
        Shutdown::LeaveRunning => Ok(()),
        Shutdown::StopDaemon => process.stop().await,
    }
}

//! Ending a pod: containers, then volumes, then cgroups, then what is left.

use std::time::Duration;

use cri::types::{ContainerState, SandboxState};
use tokio_util::sync::CancellationToken;

use super::state::{EndReason, TeardownStep, WorkerState};
use super::worker::{Progress, Worker};
use super::{files, kill};
use crate::events::EventType;
use crate::podcache::RuntimePod;
use crate::status::Stage;

impl Worker {
    /// Goes on with the tear-down at the step it has come to.
    pub(super) async fn terminate(
        &mut self,
        reason: EndReason,
        step: TeardownStep,
        interrupt: &CancellationToken,
    ) -> Progress {
        let next = match step {
            TeardownStep::Containers => {
                // A shorter grace period interrupts and starts again with it.
                let done = interrupt.run_until_cancelled(self.end_containers()).await;
                match done {
                    None => {
                        self.dirty = true;
                        return Progress::Again;
                    }
                    Some(Err(delay)) => return Progress::Wait(Some(delay)),
                    Some(Ok(())) => WorkerState::Terminating { reason, step: TeardownStep::Volumes },
                }
            }
            TeardownStep::Volumes => {
                if let Err(error) = self.deps.volumes.tear_down(&self.uid).await {
                    self.deps.events.pod(&self.pod, EventType::Warning, "FailedUnMount", error.to_string());
                    let delay = self.next_retry();
                    return Progress::Wait(Some(delay));
                }
                self.deps.registry.unregister_pod(&self.uid);
                self.deps.images.forget_pod(&self.uid);
                self.deps.admission.release(&self.uid);
                self.report_end();
                WorkerState::Terminating { reason, step: TeardownStep::Cgroups }
            }
            TeardownStep::Cgroups => {
                if let Some(tree) = &self.deps.cgroups
                    && let Err(error) = tree.remove_pod(&self.uid).await
                {
                    tracing::debug!(pod.uid = %self.uid, %error, "cgroup not removed yet");
                    let delay = self.next_retry();
                    return Progress::Wait(Some(delay));
                }
                WorkerState::Terminated { cleaned: false }
            }
        };
        self.failures = 0;
        self.change_state(next);
        Progress::Again
    }

    /// Tells the status writer that nothing of the pod runs any more: a deleted
    /// pod's object goes away now.
    fn report_end(&self) {
        if !self.removed {
            self.deps.status.finished(&self.pod);
        }
    }

    async fn end_containers(&mut self) -> Result<(), Duration> {
        self.deps.probes.stop_liveness_and_startup(&self.uid);
        if let Err(error) = self.refresh().await {
            tracing::warn!(pod.uid = %self.uid, %error, "runtime not readable");
            return Err(self.next_retry());
        }
        let alive = self.runtime.is_running();
        if alive {
            self.publish(Stage::Terminating);
        }
        let mut errors = kill::kill_containers(&self.deps, &self.pod, &self.runtime, self.evicted, &self.hooks).await;
        if errors.is_empty() && alive {
            // Its processes are gone: free the network while we look at how they went.
            self.dirty = true;
            let view = self.runtime.clone();
            let deps = self.deps.clone();
            let (stopped, read) = tokio::join!(kill::stop_sandboxes(&deps, &view), self.refresh());
            errors.extend(stopped);
            errors.extend(read.err());
        }
        let still = self.runtime.containers.iter().any(|c| c.status.state == ContainerState::Running);
        if !errors.is_empty() || still {
            self.dirty = true;
            for error in &errors {
                let text = format!("error killing pod: {error}");
                self.deps.events.pod(&self.pod, EventType::Warning, "FailedKillPod", text);
            }
            return Err(self.next_retry());
        }
        self.mark_sandboxes_stopped();
        self.deps.probes.remove_pod(&self.uid);
        self.waiting.clear();
        self.publish(Stage::Terminated);
        Ok(())
    }

    /// They were stopped after they were last read.
    fn mark_sandboxes_stopped(&mut self) {
        let mut view = RuntimePod::clone(&self.runtime);
        for sandbox in &mut view.sandboxes {
            sandbox.summary.state = SandboxState::NotReady;
        }
        self.replace_view(view);
    }

    /// Removes what is left once nobody wants the pod; before that its
    /// containers stay for their logs.
    pub(super) async fn clean(&mut self, cleaned: bool) -> Progress {
        if cleaned {
            return Progress::Done;
        }
        if !self.removed {
            if self.pod.metadata.deletion_timestamp.is_some() {
                self.report_end();
            }
            self.collect_garbage().await;
            return Progress::Wait(None);
        }
        // The view may lack what a lost answer left behind.
        self.dirty = true;
        if self.refresh().await.is_err() {
            let delay = self.next_retry();
            return Progress::Wait(Some(delay));
        }
        let view = self.runtime.clone();
        for sandbox in &view.sandboxes {
            let id = &sandbox.summary.id;
            let stopped = self.deps.runtime.stop_pod_sandbox(id).await;
            if let Err(error) = stopped.and(self.deps.runtime.remove_pod_sandbox(id).await) {
                tracing::warn!(pod.uid = %self.uid, %error, "sandbox not removed");
                let delay = self.next_retry();
                return Progress::Wait(Some(delay));
            }
        }
        let remains = files::remove_remains(&self.deps.settings.paths, &self.pod, true);
        if let Err(error) = remains {
            tracing::warn!(pod.uid = %self.uid, %error, "files of the pod not removed");
            let delay = self.next_retry();
            return Progress::Wait(Some(delay));
        }
        if let Some(tree) = &self.deps.cgroups
            && let Err(error) = tree.remove_pod(&self.uid).await
        {
            tracing::debug!(pod.uid = %self.uid, %error, "cgroup not removed yet");
        }
        self.deps.cache.remove(&self.uid);
        self.deps.status.forget(&self.uid);
        self.change_state(WorkerState::Terminated { cleaned: true });
        Progress::Done
    }
}

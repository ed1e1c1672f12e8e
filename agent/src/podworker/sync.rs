//! Making a pod that is to run, run.

use std::sync::Arc;
use std::time::Duration;

use cri::types::{ContainerState, SandboxStatus};
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

use super::admission::{NodeLimits, Taken};
use super::files;
use super::inbox::Eviction;
use super::kill::{self, Allowance, Kill};
use super::sandbox::{self, CreateSandboxError};
use super::state::EndReason;
use super::worker::{Progress, Worker};
use crate::convert::{container, security, spec};
use crate::events::EventType;
use crate::ids::PodUid;
use crate::plan::pod_actions::is_finished;
use crate::plan::preempt::PREEMPTING;
use crate::plan::{PodActions, StartContainer, pod_actions};
use crate::podcache::RuntimePod;
use crate::status::Stage;
use crate::status::containers::WaitReason;

/// What admission says of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admitted {
    Yes,
    /// The node refuses it for good.
    No,
    /// To be asked again after this long.
    Later(Duration),
}

/// How often a critical pod looks whether those it pushes out are gone.
const ROOM_LOOK: Duration = Duration::from_millis(500);

/// Rounds of one sync; more would mean that plan and runtime disagree for ever.
const MAX_ROUNDS: usize = 64;

impl Worker {
    /// One sync: look, decide, do, until there is nothing to do or only to wait.
    pub(super) async fn sync(&mut self, interrupt: &CancellationToken) -> Progress {
        for _ in 0..MAX_ROUNDS {
            if let Err(error) = self.refresh().await {
                tracing::warn!(pod.uid = %self.uid, %error, "runtime not readable");
                let delay = self.next_retry();
                return self.wait(Some(delay));
            }
            match self.admit().await {
                Admitted::Yes => {}
                Admitted::No => return self.end(EndReason::Finished),
                Admitted::Later(delay) => return self.wait(Some(delay)),
            }
            self.deps.probes.update_pod(&self.pod, &self.runtime);
            if self.deadline().is_some_and(|d| d <= self.deps.clock.now()) {
                let message = "Pod was active on the node longer than the specified deadline";
                self.fail("DeadlineExceeded".to_owned(), "", message);
                return self.end(EndReason::Finished);
            }
            let view = self.deps.probes.view(&self.uid);
            let actions = pod_actions(&self.pod, &self.runtime, &view);
            if is_finished(&self.pod, &self.runtime) || actions.ends_pod() {
                return self.end(EndReason::Finished);
            }
            let idle = actions.is_empty();
            let Some(progress) = self.perform_until(actions, interrupt).await else {
                // Given up in the middle: whatever the runtime did, it will show.
                self.dirty = true;
                return Progress::Again;
            };
            if progress != Progress::Again {
                if !idle {
                    self.publish(Stage::Syncing);
                }
                return progress;
            }
        }
        self.wait(Some(Duration::from_secs(10)))
    }

    /// Performs `actions` unless the pod is to end meanwhile: deletion, eviction,
    /// removal and the active deadline wait for nothing that the pod's own program
    /// or a registry holds up. `None` when interrupted.
    async fn perform_until(&mut self, actions: PodActions, interrupt: &CancellationToken) -> Option<Progress> {
        let left = self.time_to_deadline();
        let deadline = async {
            match left {
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
        };
        let work = async {
            if !actions.is_empty() {
                return self.perform(actions).await;
            }
            let retry = self.keep().await;
            if retry.is_none() {
                self.failures = 0;
            }
            self.wait(retry)
        };
        tokio::select! {
            biased;
            // None of them is polled again once one is done.
            () = interrupt.cancelled() => None,
            () = deadline => None,
            progress = work => Some(progress),
        }
    }

    /// Keeps a pod for which nothing is to be started: its volumes are set up and
    /// current, also after a restart of the agent, and its garbage goes. Returns
    /// when to try again what failed.
    async fn keep(&mut self) -> Option<Duration> {
        self.publish(Stage::Syncing);
        if let Err(error) = self.deps.volumes.set_up(&self.pod).await {
            self.deps.events.pod(&self.pod, EventType::Warning, "FailedMount", error.to_string());
            return Some(self.next_retry());
        }
        self.collect_garbage().await;
        None
    }

    /// The pod has failed as a whole: its status says so, with `prefix`, and an event.
    fn fail(&mut self, reason: String, prefix: &str, message: &str) {
        self.deps.events.pod(&self.pod, EventType::Warning, reason.clone(), message);
        self.failure = Some(WaitReason { reason, message: format!("{prefix}{message}") });
    }

    fn end(&mut self, reason: EndReason) -> Progress {
        self.change_state(self.state.terminate(reason));
        Progress::Again
    }

    /// Admits the pod once.
    async fn admit(&mut self) -> Admitted {
        if self.admitted {
            return Admitted::Yes;
        }
        let runs_already = self.runs_already();
        let mut strict_groups = true;
        if !runs_already && security::strict_groups(&self.pod) {
            match self.deps.runtime.status().await {
                Ok(status) => strict_groups = status.supplemental_groups_policy,
                Err(error) => {
                    tracing::warn!(pod.uid = %self.uid, %error, "what the runtime can do is not known");
                    return Admitted::Later(self.next_retry());
                }
            }
        }
        let node = self.deps.node_view();
        let limits = NodeLimits { allowed_unsafe_sysctls: &self.deps.settings.allowed_unsafe_sysctls, strict_groups };
        match self.deps.admission.take(&self.pod, &node, limits, runs_already) {
            Taken::Yes => {
                self.admitted = true;
                self.deps.registry.register_pod(&self.pod);
                Admitted::Yes
            }
            Taken::Refused(refusal) => {
                self.fail(refusal.reason, "Pod was rejected: ", &refusal.message);
                Admitted::No
            }
            Taken::Preempt(victims) => {
                self.preempt(&victims);
                Admitted::Later(ROOM_LOOK)
            }
        }
    }

    /// Ends pods for this critical one, each once; room is there when they are gone.
    fn preempt(&mut self, victims: &[Arc<Pod>]) {
        let message = "Preempted in order to admit critical pod";
        for victim in victims {
            let uid = PodUid::of(victim);
            if !self.preempted.insert(uid.clone()) {
                continue;
            }
            tracing::warn!(pod.uid = %self.uid, victim = %uid, "pod preempted");
            self.deps.events.pod(victim, EventType::Warning, PREEMPTING, message);
            let grace = Duration::from_secs(u64::try_from(spec::grace_seconds(victim)).unwrap_or(0));
            self.deps.workers.preempt(&uid, Eviction { message: message.to_owned(), grace });
        }
    }

    async fn perform(&mut self, actions: PodActions) -> Progress {
        if actions.kill_pod && !self.stop_everything(&actions).await {
            let delay = self.next_retry();
            return self.wait(Some(delay));
        }
        if !actions.kill.is_empty() {
            self.kill_some(&actions).await;
            if let Err(error) = self.refresh().await {
                tracing::warn!(pod.uid = %self.uid, %error, "runtime not readable");
                let delay = self.next_retry();
                return self.wait(Some(delay));
            }
        }
        let now = self.deps.clock.now();
        let mut soonest: Option<Duration> = None;
        let all = actions.start_ephemeral.iter().chain(&actions.start_init).chain(&actions.start);
        let mut ready: Vec<StartContainer> = Vec::new();
        for start in all {
            match self.held_back(start, now) {
                None => ready.push(start.clone()),
                Some(wait) => soonest = Some(soonest.map_or(wait, |s| s.min(wait))),
            }
        }
        if actions.create_sandbox.is_none() && ready.is_empty() {
            let retry = self.keep().await;
            return self.wait(retry.into_iter().chain(soonest).min());
        }
        // The first word of a pod tells where it starts.
        self.publish(Stage::Syncing);
        self.start_all(&actions, ready).await
    }

    /// Stops all containers and sandboxes because nothing is to run, or all anew.
    async fn stop_everything(&mut self, actions: &PodActions) -> bool {
        if actions.create_sandbox.is_some() {
            let text = "Pod sandbox changed, it will be killed and re-created.";
            self.deps.events.pod(&self.pod, EventType::Normal, "SandboxChanged", text);
        }
        let mut errors = kill::kill_containers(&self.deps, &self.pod, &self.runtime, None, &self.hooks).await;
        errors.extend(kill::stop_sandboxes(&self.deps, &self.runtime).await);
        self.dirty = true;
        for error in &errors {
            self.deps.events.pod(&self.pod, EventType::Warning, "FailedKillPod", format!("error killing pod: {error}"));
        }
        errors.is_empty() && self.refresh().await.is_ok()
    }

    async fn kill_some(&mut self, actions: &PodActions) {
        let kills = actions.kill.iter().filter_map(|k| {
            let target = self.runtime.containers.iter().find(|c| *c.id() == k.id)?;
            let kill = Kill::new(target, k.reason, &k.message, Allowance::Own);
            Some(kill::kill_container(&self.deps, &self.pod, kill, &self.hooks))
        });
        for error in join_all(kills).await.into_iter().filter_map(Result::err) {
            tracing::warn!(pod.uid = %self.uid, %error, "container not stopped");
        }
        self.dirty = true;
    }

    /// How long a container has to wait before it may start (again).
    fn held_back(&mut self, start: &StartContainer, now: Timestamp) -> Option<Duration> {
        if let Some(at) = self.not_before.get(&start.name)
            && let Ok(left) = Duration::try_from(at.duration_since(now))
            && !left.is_zero()
        {
            return Some(left);
        }
        let (key, finished) = self.last_end(&start.name)?;
        let left = self.crash.remaining(&key, finished, now)?;
        let whole = self.crash.current(&key);
        let text = |s: &Option<String>| s.clone().unwrap_or_default();
        let meta = &self.pod.metadata;
        let pod = format!("{}_{}({})", text(&meta.name), text(&meta.namespace), self.uid);
        let message = format!("back-off {} restarting failed container={} pod={pod}", go_duration(whole), start.name);
        let reason = WaitReason { reason: "CrashLoopBackOff".to_owned(), message };
        if self.waiting.get(&start.name) != Some(&reason) {
            let text = format!("Back-off restarting failed container {} in pod {pod}", start.name);
            self.deps.events.container(&self.pod, &start.name, EventType::Warning, "BackOff", text);
            self.waiting.insert(start.name.clone(), reason);
        }
        Some(left)
    }

    /// The crash-loop key of a container and when its last instance ended.
    pub(super) fn last_end(&self, name: &str) -> Option<((String, u64), Timestamp)> {
        let ended = self.runtime.containers_named(name).find(|c| c.status.state == ContainerState::Exited)?;
        let (_, found) = container::find(&self.pod, name)?;
        let finished = ended.status.finished_at.unwrap_or(Timestamp::MIN);
        Some(((name.to_owned(), spec::container_hash(&found)), finished))
    }

    async fn start_all(&mut self, actions: &PodActions, ready: Vec<StartContainer>) -> Progress {
        let attempt = actions.create_sandbox.map(|a| a.max(self.sandbox_attempt));
        if attempt.is_some()
            && let Some(problem) = self.network_problem()
        {
            let text = format!("network is not ready: {problem}");
            self.deps.events.pod(&self.pod, EventType::Warning, "NetworkNotReady", text);
            return self.wait(Some(Duration::from_millis(500)));
        }
        if spec::spec(&self.pod).resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
            // A pod that needs a device does not run without it.
            let text = "Failed to prepare dynamic resources: this node has no drivers for dynamic resources";
            self.deps.events.pod(&self.pod, EventType::Warning, "FailedPrepareDynamicResources", text);
            let delay = self.next_retry();
            return self.wait(Some(delay));
        }
        let number = attempt.or_else(|| self.runtime.sandboxes.first().map(|s| s.summary.metadata.attempt));
        let config = match sandbox::config(&self.deps, &self.pod, number.unwrap_or(0)) {
            Ok(config) => config,
            Err(error) => return self.sandbox_failed(&error),
        };
        if let Err(problem) = self.prepare().await {
            self.deps.events.pod(&self.pod, EventType::Warning, "FailedCreatePodContainer", problem);
            let delay = self.next_retry();
            return self.wait(Some(delay));
        }
        let (volumes, images) = match self.gather(&config, attempt.is_some(), &ready).await {
            (Ok(volumes), Ok(images)) => (volumes, images),
            (_, Err(error)) => return self.sandbox_failed(&error),
            (Err(error), _) => {
                self.deps.events.pod(&self.pod, EventType::Warning, "FailedMount", error.to_string());
                let delay = self.next_retry();
                return self.wait(Some(delay));
            }
        };
        self.launch(&config, &volumes, images, ready).await
    }

    fn network_problem(&self) -> Option<String> {
        if spec::host_network(&self.pod) {
            return None;
        }
        self.deps.node.borrow().network_problem.clone()
    }

    async fn prepare(&self) -> Result<(), String> {
        files::make_pod_dirs(&self.deps.settings.paths, &self.pod).map_err(|e| e.to_string())?;
        sandbox::ensure_cgroup(&self.deps, &self.pod)
            .await
            .map_err(|e| format!("unable to ensure pod container exists: {e}"))
    }

    fn sandbox_failed(&mut self, error: &CreateSandboxError) -> Progress {
        let text = format!("Failed to create pod sandbox: {error}");
        self.deps.events.pod(&self.pod, EventType::Warning, "FailedCreatePodSandBox", text);
        if let CreateSandboxError::Run(source) = error {
            // The name of a try whose answer was lost stays taken.
            if source.is_already_exists() {
                self.sandbox_attempt = self.sandbox_attempt.max(self.next_sandbox_attempt()) + 1;
            }
            self.dirty = true;
        }
        let delay = self.next_retry();
        self.wait(Some(delay))
    }

    fn next_sandbox_attempt(&self) -> u32 {
        self.runtime.sandboxes.first().map_or(0, |s| s.summary.metadata.attempt + 1)
    }

    pub(super) fn adopt_sandbox(&mut self, status: SandboxStatus) {
        let mut view = RuntimePod::clone(&self.runtime);
        view.sandboxes.retain(|s| s.summary.id != status.summary.id);
        view.sandboxes.insert(0, status);
        self.replace_view(view);
    }

    /// Removes dead instances nobody needs: one per container stays for its logs.
    pub(super) async fn collect_garbage(&mut self) {
        if let Some(view) = crate::retention::collect(self.deps.runtime.as_ref(), &self.runtime, false).await {
            self.replace_view(view);
        }
    }
}

/// A duration of whole seconds as Go prints it: `40s`, `1m20s`, `5m0s`.
fn go_duration(d: Duration) -> String {
    let s = d.as_secs();
    if s < 60 { format!("{s}s") } else { format!("{}m{}s", s / 60, s % 60) }
}

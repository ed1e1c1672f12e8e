//! One pod's worker: its loop, what it remembers, and how it reports.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::deps::Deps;
use super::inbox::{Inbox, Mail};
use super::kill::HooksRun;
use super::refresh::read_pod;
use super::state::{EndReason, WorkerState};
use crate::contract::ProbeView;
use crate::convert::spec;
use crate::ids::{ObjectName, PodUid};
use crate::plan::backoff::{Backoff, BackoffPolicy};
use crate::podcache::RuntimePod;
use crate::podsource::DesiredPod;
use crate::status::containers::{TerminationMessages, WaitReason};
use crate::status::{Stage, StatusInput, generate};

/// What a step leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more to do at once.
    Again,
    /// Wait for a change, or for this long.
    Wait(Option<Duration>),
    /// Nothing of the pod is left.
    Done,
}

/// Longest wait between tries that failed.
const MAX_RETRY: Duration = Duration::from_secs(10);

/// The worker of one pod.
#[derive(Debug)]
pub struct Worker {
    pub(super) deps: Arc<Deps>,
    pub(super) uid: PodUid,
    pub(super) name: ObjectName,
    pub(super) inbox: Arc<Inbox>,
    pub(super) pod: Arc<Pod>,
    /// Nobody wants the pod any more; its API object may be gone.
    pub(super) removed: bool,
    pub(super) runtime: Arc<RuntimePod>,
    /// The runtime's view has to be read again.
    pub(super) dirty: bool,
    pub(super) state: WorkerState,
    pub(super) waiting: BTreeMap<String, WaitReason>,
    pub(super) messages: TerminationMessages,
    pub(super) crash: Backoff<(String, u64)>,
    /// Containers that failed to start, and when they may try again.
    pub(super) not_before: HashMap<String, Timestamp>,
    /// Lowest attempt number that is free, after a name was found taken.
    pub(super) attempts: HashMap<String, u32>,
    pub(super) sandbox_attempt: u32,
    /// Failures in a row.
    pub(super) failures: u32,
    pub(super) failure: Option<WaitReason>,
    /// The node ends the pod for its own sake, and gives containers this long.
    pub(super) evicted: Option<Duration>,
    pub(super) admitted: bool,
    pub(super) hooks: HooksRun,
    /// Pods that end to make room for this one.
    pub(super) preempted: HashSet<PodUid>,
}

impl Worker {
    /// A worker of a pod that somebody wants.
    pub fn new(deps: Arc<Deps>, inbox: Arc<Inbox>, wanted: &DesiredPod) -> Self {
        let mut worker = Self::build(deps, inbox, wanted.pod.clone());
        let phase = wanted.pod.status.as_ref().and_then(|s| s.phase.as_deref());
        if matches!(phase, Some("Succeeded" | "Failed")) {
            worker.state = worker.state.terminate(EndReason::Finished);
        }
        worker
    }

    /// A worker that ends a pod only the runtime knows of.
    pub fn orphan(deps: Arc<Deps>, inbox: Arc<Inbox>, pod: Arc<Pod>) -> Self {
        let mut worker = Self::build(deps, inbox, pod);
        worker.removed = true;
        worker.state = worker.state.terminate(EndReason::Orphaned);
        worker
    }

    fn build(deps: Arc<Deps>, inbox: Arc<Inbox>, pod: Arc<Pod>) -> Self {
        let (uid, name) = (PodUid::of(&pod), ObjectName::of_pod(&pod));
        let known = deps.cache.get(&uid);
        let crash = Backoff::new(BackoffPolicy::crash_loop(deps.settings.max_crash_backoff));
        let dirty = deps.cache.is_unread(&uid);
        Self {
            runtime: known.unwrap_or_else(|| Arc::new(RuntimePod::empty(uid.clone(), name.clone()))),
            uid,
            name,
            inbox,
            dirty,
            pod,
            removed: false,
            state: WorkerState::Syncing,
            waiting: BTreeMap::new(),
            messages: TerminationMessages::new(),
            crash,
            not_before: HashMap::new(),
            attempts: HashMap::new(),
            sandbox_attempt: 0,
            failures: 0,
            failure: None,
            evicted: None,
            admitted: false,
            hooks: HooksRun::default(),
            preempted: HashSet::new(),
            deps,
        }
    }

    /// Runs until nothing of the pod is left (true), or until `token` is
    /// cancelled, which leaves the pod as it is (false).
    pub async fn run(mut self, token: CancellationToken) -> bool {
        let mut wake: Option<Instant> = Some(Instant::now());
        loop {
            let timer = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = token.cancelled() => return false,
                // Cancel-safe: the inbox keeps its wake-up until it is taken.
                () = self.inbox.changed() => {}
                // Cancel-safe: `wake` is computed anew after every step.
                () = timer => {}
            }
            wake = loop {
                let (mail, interrupt) = self.inbox.take();
                self.absorb(mail);
                // A step dropped at exit is like a crash: the next agent adopts.
                let step = tokio::select! {
                    () = token.cancelled() => return false,
                    step = Box::pin(self.step(&interrupt)) => step,
                };
                match step {
                    Progress::Again => {}
                    Progress::Wait(delay) => break delay.map(|d| Instant::now() + d),
                    Progress::Done => return true,
                }
            };
        }
    }

    /// Takes in what happened.
    pub(super) fn absorb(&mut self, mail: Mail) {
        self.dirty |= mail.dirty;
        self.removed |= mail.removed;
        if let Some(wanted) = mail.pod {
            self.pod = wanted.pod;
        }
        let deleting = self.removed || self.pod.metadata.deletion_timestamp.is_some();
        if deleting {
            self.change_state(self.state.terminate(EndReason::Deleted));
        }
        if let Some((reason, eviction)) = mail.eviction
            && self.state == WorkerState::Syncing
        {
            self.failure = Some(WaitReason { reason: reason.to_owned(), message: eviction.message });
            self.evicted = Some(eviction.grace);
            self.change_state(self.state.terminate(EndReason::Finished));
        }
    }

    pub(super) fn change_state(&mut self, next: WorkerState) {
        debug_assert!(self.state.may_become(next), "{:?} -> {next:?}", self.state);
        self.state = next;
    }

    async fn step(&mut self, interrupt: &CancellationToken) -> Progress {
        match self.state {
            WorkerState::Syncing => self.sync(interrupt).await,
            WorkerState::Terminating { reason, step } => self.terminate(reason, step, interrupt).await,
            WorkerState::Terminated { cleaned } => self.clean(cleaned).await,
        }
    }

    /// Reads the runtime's view when it may be out of date.
    pub(super) async fn refresh(&mut self) -> Result<(), cri::CriError> {
        if self.dirty {
            let read = read_pod(self.deps.runtime.as_ref(), &self.uid, &self.name, Some(&self.runtime)).await?;
            self.dirty = false;
            self.replace_view(read);
        }
        super::messages::read_new(&self.runtime, &mut self.messages, &self.deps.kernel_log).await;
        Ok(())
    }

    pub(super) fn replace_view(&mut self, view: RuntimePod) {
        if *self.runtime != view {
            self.runtime = self.deps.cache.put(view);
        }
    }

    /// Whether the pod has a container in the runtime already.
    pub(super) fn runs_already(&self) -> bool {
        !self.runtime.containers.is_empty() || !self.runtime.sandboxes.is_empty()
    }

    /// The status last reported, else the one the pod came with.
    pub(super) fn reported(&self) -> Option<Arc<PodStatus>> {
        self.deps.status.get(&self.uid).or_else(|| self.pod.status.clone().map(Arc::new))
    }

    /// Reports the pod's status when it changed.
    pub(super) fn publish(&mut self, stage: Stage) {
        if self.removed && !spec::is_static(&self.pod) {
            return;
        }
        let view = match stage {
            Stage::Terminated => ProbeView::default(),
            Stage::Syncing | Stage::Terminating => self.deps.probes.view(&self.uid),
        };
        let node = self.deps.node_view();
        let previous = self.deps.status.get(&self.uid);
        let status = generate(&StatusInput {
            pod: &self.pod,
            runtime: &self.runtime,
            probes: &view,
            waiting: &self.waiting,
            messages: &self.messages,
            previous: previous.as_deref(),
            stage,
            failure: self.failure.as_ref(),
            evicted: self.evicted.is_some(),
            host_ips: &node.host_ips,
            runtime_name: &self.deps.settings.runtime_name,
            now: self.deps.clock.now(),
        });
        // Also when it is unchanged: the pod object may differ from it.
        self.deps.status.set(&self.pod, &status);
        if stage != Stage::Terminated {
            // A result that came meanwhile was brought into the status before this one.
            self.deps.status.refresh_probes(&self.uid, self.deps.probes.as_ref(), self.deps.clock.now());
        }
    }

    /// The wait after one more failure: 0.5 s, doubling.
    pub(super) fn next_retry(&mut self) -> Duration {
        let wait = Duration::from_millis(500).saturating_mul(1 << self.failures.min(5));
        self.failures = self.failures.saturating_add(1);
        wait.min(MAX_RETRY)
    }

    /// When the pod's active deadline strikes.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        let seconds = spec::spec(&self.pod).active_deadline_seconds?;
        let started = self.reported().and_then(|s| s.start_time.as_ref().map(|t| t.0));
        let started = started.unwrap_or_else(|| self.deps.clock.now());
        started.checked_add(SignedDuration::from_secs(seconds)).ok()
    }

    /// How long the pod may still be active.
    pub(super) fn time_to_deadline(&self) -> Option<Duration> {
        let left = self.deadline().map(|d| d.duration_since(self.deps.clock.now()));
        left.map(|d| Duration::try_from(d).unwrap_or_default() + Duration::from_millis(1))
    }

    /// The shorter of `wait` and the time to the active deadline.
    pub(super) fn wait(&self, wait: Option<Duration>) -> Progress {
        Progress::Wait(match (wait, self.time_to_deadline()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        })
    }
}

//! What a pod worker remembers between two looks at its pod. Pure: outcomes and
//! time come in, nothing goes out but through [`super::decide`].
//!
//! All of it may be lost at any moment: a new agent begins with an empty memory
//! and finds in the runtime and in the API what it needs. So its times are of the clock that is never set back.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use cri::ContainerId;
use jiff::Timestamp;

use super::admit::Refusal;
use super::backoff::{Backoff, BackoffPolicy, PullBackoff};
use super::decide::Decision;
use super::effect::{ImageFailure, Outcome, PodFailure, StartFailure, WaitReason};
use super::stage::{TeardownStep, WorkerStage};
use crate::ids::PodUid;
use crate::podcache::{RuntimeContainer, RuntimePod};

/// Shortest and longest wait between tries that failed.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const MAX_RETRY: Duration = Duration::from_secs(10);
/// How often a critical pod looks whether those it pushes out are gone.
pub const ROOM_LOOK: Duration = Duration::from_millis(500);
/// How long it shows that a pull failed, or that nothing can be said of an image, before the next try.
const IMAGE_RETRY: Duration = Duration::from_secs(1);
/// How often it is looked whether an image is there that is not pulled now: somebody else may bring it. Upstream's
/// worker is back after that time (pkg/kubelet/kubelet.go: `backOffPeriod`).
const IMAGE_LOOK: Duration = Duration::from_secs(10);

/// The wait after `failures` failures in a row: 0.5 s, doubling.
pub fn retry_pause(failures: u32) -> Duration {
    FIRST_RETRY.saturating_mul(1 << failures.min(5)).min(MAX_RETRY)
}

/// `pause` after `now`.
pub fn after(now: Timestamp, pause: Duration) -> Timestamp {
    now.saturating_add(pause).unwrap_or(Timestamp::MAX)
}

/// Why the node ends a pod, and how fast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// The reason that its status will say.
    pub reason: &'static str,
    /// What its status will say.
    pub message: String,
    /// What containers get to stop, whatever the pod says.
    pub grace: Duration,
}

/// Whether the node has taken the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    #[default]
    NotAsked,
    Admitted,
    Refused(Refusal),
}

/// What is remembered of tries to start one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartTries {
    /// Failures in a row.
    failures: u32,
    pub not_before: Option<Timestamp>,
    /// Lowest attempt number that is free, after a name was found taken.
    pub free_attempt: u32,
}

/// The memory of one worker.
#[derive(Clone, Debug)]
pub struct Memory {
    pub stage: WorkerStage,
    pub admission: Admission,
    /// Pods that end to make room for this one.
    pub preempted: BTreeSet<PodUid>,
    /// The node has asked the pod to go.
    pub eviction: Option<Eviction>,
    /// What a pod that ends was given to do so.
    pub grace: Option<Duration>,
    pub failure: Option<PodFailure>,
    /// Why containers wait, by name.
    pub waiting: BTreeMap<String, WaitReason>,
    /// Crash-loop back-off by container and hash of its spec.
    pub crashes: Backoff<(String, u64)>,
    /// Pulls that failed.
    pub pulls: PullBackoff,
    /// Containers that failed to start.
    pub tries: BTreeMap<String, StartTries>,
    /// Lowest sandbox attempt that is free, after a name was found taken.
    pub free_sandbox: u32,
    /// Failures in a row of anything else, and when to try again.
    pub failures: u32,
    pub retry_at: Option<Timestamp>,
    /// The same of keeping the pod, which holds up nothing that has to start.
    pub keep_failures: u32,
    pub keep_at: Option<Timestamp>,
    /// Containers whose preStop hook has come to its end: it does not run again
    /// when a kill is repeated. One that was interrupted runs anew, as upstream's.
    pub hooks_ended: HashSet<ContainerId>,
    /// The runtime's view has to be read again.
    pub stale: bool,
    /// What there is to do in each sync was done since the last wake-up.
    pub rested: bool,
}

impl Memory {
    /// Of a worker that has done nothing yet.
    pub fn new(max_crash_backoff: Duration) -> Self {
        Self {
            stage: WorkerStage::default(),
            admission: Admission::default(),
            preempted: BTreeSet::new(),
            eviction: None,
            grace: None,
            failure: None,
            waiting: BTreeMap::new(),
            crashes: Backoff::new(BackoffPolicy::crash_loop(max_crash_backoff)),
            pulls: PullBackoff::default(),
            tries: BTreeMap::new(),
            free_sandbox: 0,
            failures: 0,
            retry_at: None,
            keep_failures: 0,
            keep_at: None,
            hooks_ended: HashSet::new(),
            stale: false,
            rested: false,
        }
    }

    /// Something happened: what waits for another try need not wait any longer.
    pub fn wake(&mut self) {
        (self.retry_at, self.keep_at) = (None, None);
        self.rested = false;
    }

    /// The runtime looks like this now: what runs waits for nothing, whoever
    /// started it.
    pub fn observe(&mut self, runtime: &RuntimePod) {
        let runs = |name: &str| runtime.container(name).is_some_and(RuntimeContainer::is_running);
        self.waiting.retain(|name, _| !runs(name));
        self.tries.retain(|name, _| !runs(name));
        self.hooks_ended.retain(|id| runtime.containers.iter().any(|c| c.id() == id));
    }

    /// The node asks the pod to go; one that ends already may have to be faster. The first reason counts.
    pub fn evict(&mut self, eviction: Eviction) {
        match &mut self.eviction {
            Some(known) => known.grace = known.grace.min(eviction.grace),
            None => self.eviction = Some(eviction),
        }
    }

    /// Takes in what was decided, before it is done.
    pub fn enter(&mut self, decision: &Decision) {
        if self.stage != decision.stage {
            // What was waited for before holds up no end.
            self.advance(decision.stage);
        }
        if let Some(failure) = &decision.failure {
            self.failure = Some(failure.clone());
        }
        self.grace = decision.grace;
        self.waiting.extend(decision.waiting.iter().cloned());
        if decision.blocked_until.is_some() {
            self.retry_at = decision.blocked_until;
        }
    }

    /// Takes in what came of an effect.
    pub fn note(&mut self, outcome: Outcome, now: Timestamp) {
        match outcome {
            Outcome::Admitted => self.admission = Admission::Admitted,
            Outcome::Refused(refusal) => self.admission = Admission::Refused(refusal),
            Outcome::Preempting(victims) => {
                self.preempted.extend(victims);
                self.retry_at = Some(after(now, ROOM_LOOK));
            }
            Outcome::Rested => {
                self.rested = true;
                (self.failures, self.keep_failures) = (0, 0);
            }
            Outcome::NotKept => {
                self.keep_at = Some(after(now, retry_pause(self.keep_failures)));
                self.keep_failures = self.keep_failures.saturating_add(1);
            }
            Outcome::HookEnded(id) => {
                self.hooks_ended.insert(id);
            }
            Outcome::SandboxNameTaken(attempt) => self.free_sandbox = self.free_sandbox.max(attempt.saturating_add(1)),
            Outcome::Starting(start) => {
                if let Some((hash, ended)) = start.ended {
                    self.crashes.next((start.name, hash), ended, now);
                }
            }
            Outcome::Started { name } => {
                self.waiting.remove(&name);
                self.tries.remove(&name);
                self.failures = 0;
            }
            Outcome::StartFailed { start, why, cause } => {
                let tries = self.tries.entry(start.name.clone()).or_default();
                let pause = match cause {
                    StartFailure::Other => retry_pause(tries.failures),
                    StartFailure::NameTaken => {
                        tries.free_attempt = tries.free_attempt.max(start.attempt.saturating_add(1));
                        retry_pause(tries.failures)
                    }
                    StartFailure::Image(ImageFailure::Pull(error)) => {
                        self.pulls.failed(&start.image, error, now);
                        IMAGE_RETRY
                    }
                    StartFailure::Image(ImageFailure::BackOff) => {
                        self.pulls.remaining(&start.image, now).unwrap_or_default().min(IMAGE_LOOK)
                    }
                    StartFailure::Image(ImageFailure::Inspect) => IMAGE_RETRY,
                    StartFailure::Image(ImageFailure::Never) => IMAGE_LOOK,
                };
                tries.not_before = Some(after(now, pause));
                tries.failures = tries.failures.saturating_add(1);
                self.waiting.insert(start.name, why);
            }
            Outcome::Stopped => {
                self.waiting.clear();
                self.advance(WorkerStage::Terminating(TeardownStep::Volumes));
            }
            Outcome::VolumesGone => self.advance(WorkerStage::Terminating(TeardownStep::Cgroups)),
            Outcome::CgroupGone => self.advance(WorkerStage::Terminated),
            Outcome::Removed => self.advance(WorkerStage::Removed),
            Outcome::Failed => {
                self.retry_at = Some(after(now, retry_pause(self.failures)));
                self.failures = self.failures.saturating_add(1);
            }
        }
    }

    fn advance(&mut self, stage: WorkerStage) {
        debug_assert!(self.stage <= stage, "{:?} -> {stage:?}", self.stage);
        self.stage = stage;
        (self.failures, self.retry_at) = (0, None);
    }
}

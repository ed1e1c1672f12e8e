//! What a pod worker does next, from what it sees and what it remembers. Pure:
//! the one place that knows the order of admission, deadline, back-off, sandbox,
//! containers and tear-down.
//!
//! Upstream spreads it over pkg/kubelet/kubelet.go (`SyncPod`,
//! `SyncTerminatingPod`, `SyncTerminatedPod`), pkg/kubelet/pod_workers.go,
//! pkg/kubelet/lifecycle and pkg/kubelet/kuberuntime (`computePodActions`,
//! `SyncPod`, `doBackOff`).

mod start;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};

use super::effect::{Effect, PodEvent, PodFailure, PodStart, SandboxChoice, WaitReason};
use super::grace;
use super::memory::{Admission, Memory, after};
use super::pod_actions::{PodActions, is_finished, pod_actions};
use super::stage::{Stage, TeardownStep, WorkerStage};
use crate::contract::ProbeView;
use crate::convert::spec;
use crate::podcache::RuntimePod;

/// How soon to look again whether the node's network is ready.
const NETWORK_LOOK: Duration = Duration::from_millis(500);
/// How soon to look again whether the Node is known.
const NODE_LOOK: Duration = Duration::from_millis(100);
/// How often it is said that the node lacks what the pod cannot do without.
const DRIVER_LOOK: Duration = Duration::from_secs(10);

/// What a worker sees.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub pod: &'a Pod,
    /// Nobody wants the pod any more; its API object may be gone.
    pub removed: bool,
    pub runtime: &'a RuntimePod,
    /// What an ended container left was not read yet.
    pub messages_missing: bool,
    pub probes: &'a ProbeView,
    /// The status reported last, else the one the pod came with.
    pub status: Option<&'a PodStatus>,
    /// Why the node can give no pod a network, if it cannot.
    pub network_problem: Option<&'a str>,
    /// The Node is not known yet, and the pod comes from where it is.
    pub node_awaited: bool,
    /// The machine's clock, which may be set; the time that decisions are made at is never set back.
    pub wall: Timestamp,
}

impl Facts<'_> {
    /// When it was, by the clock that shows `now`, that the machine's clock showed `at`.
    fn by_steady_clock(&self, at: Timestamp, now: Timestamp) -> Timestamp {
        let end = if at < self.wall { Timestamp::MIN } else { Timestamp::MAX };
        now.saturating_add(at.duration_since(self.wall)).unwrap_or(end)
    }
}

/// What to do next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// The stage the pod is in from now on.
    pub stage: WorkerStage,
    /// What to do, one after the other; the rest is left out when one fails.
    pub effects: Vec<Effect>,
    /// When to decide again at the latest: without effects this is waited for,
    /// and effects are given up then.
    pub wake_at: Option<Timestamp>,
    /// The pod's status is to be reported as of this stage.
    pub report: Option<Stage>,
    /// The pod has failed as a whole from now on.
    pub failure: Option<PodFailure>,
    /// What is left of a pod that ends is given this long from now on; `None` as long as it is to run.
    pub grace: Option<Duration>,
    /// Containers that wait from now on, and why.
    pub waiting: Vec<(String, WaitReason)>,
    pub events: Vec<PodEvent>,
    /// Something outside of the pod keeps it from going on until then.
    pub blocked_until: Option<Timestamp>,
}

/// Decides what to do next for a pod.
pub fn decide(facts: &Facts<'_>, memory: &Memory, now: Timestamp) -> Decision {
    match memory.stage {
        WorkerStage::Syncing => syncing(facts, memory, now),
        WorkerStage::Terminating(step) => terminating(step, facts, memory, now),
        WorkerStage::Terminated => terminated(facts, memory, now),
        WorkerStage::Removed => Decision { stage: WorkerStage::Removed, ..Decision::default() },
    }
}

/// When the pod's active deadline strikes
/// (pkg/kubelet/active_deadline.go).
fn deadline(facts: &Facts<'_>, now: Timestamp) -> Option<Timestamp> {
    let seconds = spec::spec(facts.pod).active_deadline_seconds?;
    let started = facts.status.and_then(|s| s.start_time.as_ref());
    let started = started.map_or(now, |t| facts.by_steady_clock(t.0, now));
    started.checked_add(SignedDuration::from_secs(seconds)).ok()
}

fn syncing(facts: &Facts<'_>, memory: &Memory, now: Timestamp) -> Decision {
    // Whoever says that a pod has failed or succeeded, it goes (pkg/kubelet/pod_workers.go: `UpdatePod`).
    let ends = facts.pod.metadata.deletion_timestamp.is_some() || spec::is_over(facts.pod);
    if facts.removed || ends || memory.eviction.is_some() {
        return end(None, facts, memory, now);
    }
    // A pod that was not taken yet is not active.
    let admitted = memory.admission == Admission::Admitted;
    let deadline = deadline(facts, now).filter(|_| admitted);
    let within = |until| Decision { wake_at: earliest(deadline, [until]), ..Decision::default() };
    if deadline.is_some_and(|at| at <= now) {
        let message = "Pod was active on the node longer than the specified deadline";
        return fail("DeadlineExceeded", "", message, facts, memory, now);
    }
    if let Some(at) = memory.retry_at.filter(|at| *at > now) {
        return within(Some(at));
    }
    if memory.stale || facts.messages_missing {
        return Decision { effects: vec![Effect::Read { list: memory.stale }], ..within(None) };
    }
    match &memory.admission {
        Admission::Admitted => {}
        Admission::NotAsked => {
            let runs_already = facts.runtime.exists();
            if facts.node_awaited && !runs_already {
                // Its labels and taints may say no.
                return within(Some(after(now, NODE_LOOK)));
            }
            let admit = Effect::Admit { runs_already, asked: memory.preempted.clone() };
            return Decision { effects: vec![admit], ..within(None) };
        }
        Admission::Refused(r) => return fail(&r.reason, "Pod was rejected: ", &r.message, facts, memory, now),
    }
    let actions = pod_actions(facts.pod, facts.runtime, facts.probes);
    if is_finished(facts.pod, facts.runtime) || actions.ends_pod() {
        return end(None, facts, memory, now);
    }
    run(&actions, facts, memory, (now, deadline))
}

/// What the pod's containers need, and until when they wait.
fn run(
    actions: &PodActions,
    facts: &Facts<'_>,
    memory: &Memory,
    (now, deadline): (Timestamp, Option<Timestamp>),
) -> Decision {
    let mut decision = Decision { report: Some(Stage::Syncing), ..Decision::default() };
    if actions.kill_pod {
        decision.events.push(pod_event(
            false,
            "SandboxChanged",
            "Pod sandbox changed, it will be killed and re-created.",
        ));
        decision.effects.push(Effect::StopForRestart);
    }
    if !actions.kill.is_empty() {
        decision.effects.push(Effect::Kill(actions.kill.clone()));
    }
    let starts = start::starts(actions, facts, memory, now);
    decision.waiting = starts.waiting;
    if actions.create_sandbox.is_none() && starts.ready.is_empty() {
        decision.events.extend(starts.events);
        // Nothing that is stopped now is given up because somebody else may start.
        let soonest = starts.soonest.filter(|_| decision.effects.is_empty());
        let keep_at = memory.keep_at.filter(|at| *at > now && !memory.rested);
        if decision.effects.is_empty() && !memory.rested && keep_at.is_none() {
            decision.effects.push(Effect::Keep);
        }
        return Decision { wake_at: earliest(deadline, [soonest, keep_at]), ..decision };
    }
    if let Some((event, until)) = blocked(actions, facts, now) {
        // What still runs of a dead sandbox is stopped all the same, once.
        decision.effects.retain(|_| facts.runtime.is_running());
        decision.blocked_until = decision.effects.is_empty().then_some(until);
        if decision.effects.is_empty() {
            decision.events = vec![event];
        }
        decision.events.extend(starts.events);
        return Decision { wake_at: earliest(deadline, [decision.blocked_until]), ..decision };
    }
    decision.events.extend(starts.events);
    decision.effects.push(Effect::Start(PodStart {
        sandbox: sandbox(actions, facts, memory),
        in_order: start::in_order(facts.pod, &starts.ready),
        containers: starts.ready,
    }));
    Decision { wake_at: deadline, ..decision }
}

fn sandbox(actions: &PodActions, facts: &Facts<'_>, memory: &Memory) -> SandboxChoice {
    match (actions.create_sandbox, facts.runtime.sandboxes.first()) {
        (None, Some(sandbox)) => {
            SandboxChoice::Existing { id: sandbox.summary.id.clone(), attempt: sandbox.summary.metadata.attempt }
        }
        (attempt, _) => SandboxChoice::Create(attempt.unwrap_or(0).max(memory.free_sandbox)),
    }
}

/// What keeps anything from starting, and until when.
fn blocked(actions: &PodActions, facts: &Facts<'_>, now: Timestamp) -> Option<(PodEvent, Timestamp)> {
    if let Some(problem) = facts.network_problem
        && actions.create_sandbox.is_some()
        && !spec::host_network(facts.pod)
    {
        let text = format!("network is not ready: {problem}");
        return Some((pod_event(true, "NetworkNotReady", &text), after(now, NETWORK_LOOK)));
    }
    let claims = spec::spec(facts.pod).resource_claims.as_ref();
    claims.filter(|claims| !claims.is_empty())?;
    // A pod that needs a device does not run without it.
    let text = "Failed to prepare dynamic resources: this node has no drivers for dynamic resources";
    let event = pod_event(true, "FailedPrepareDynamicResources", text);
    Some((event, after(now, DRIVER_LOOK)))
}

/// The pod has failed as a whole: its status says so, with `prefix`, and an event.
fn fail(reason: &str, prefix: &str, message: &str, facts: &Facts<'_>, memory: &Memory, now: Timestamp) -> Decision {
    let failure = PodFailure { reason: reason.to_owned(), message: format!("{prefix}{message}"), evicted: false };
    let mut decision = end(Some(failure), facts, memory, now);
    decision.events.push(pod_event(true, reason, message));
    decision
}

/// The pod ends, because of `failure` if there is one.
fn end(failure: Option<PodFailure>, facts: &Facts<'_>, memory: &Memory, now: Timestamp) -> Decision {
    // As it will be once this is entered.
    let memory = Memory { failure: failure.clone(), retry_at: None, failures: 0, ..memory.clone() };
    let decision = terminating(TeardownStep::Containers, facts, &memory, now);
    Decision { failure: failure.or(decision.failure), ..decision }
}

/// The node has asked the pod to go, and nothing was said to be wrong with it before: also when it ends already
/// (pkg/kubelet/pod_workers.go: `PodStatusFunc`).
fn evicted(memory: &Memory) -> Option<PodFailure> {
    let eviction = memory.eviction.as_ref().filter(|_| memory.failure.is_none())?;
    Some(PodFailure { reason: eviction.reason.to_owned(), message: eviction.message.clone(), evicted: true })
}

fn terminating(step: TeardownStep, facts: &Facts<'_>, memory: &Memory, now: Timestamp) -> Decision {
    let decision = Decision { stage: WorkerStage::Terminating(step), ..Decision::default() };
    let (grace, failure) = match step {
        TeardownStep::Containers => {
            let asked = memory.eviction.as_ref().map(|eviction| eviction.grace);
            (grace::effective(memory.grace, facts.pod, asked), evicted(memory))
        }
        // Nothing of it runs: nobody can have it end sooner.
        TeardownStep::Volumes | TeardownStep::Cgroups => (Duration::ZERO, None),
    };
    let decision = Decision { grace: Some(grace), failure, ..decision };
    if let Some(at) = memory.retry_at.filter(|at| *at > now) {
        return Decision { wake_at: Some(at), ..decision };
    }
    let (effect, report) = match step {
        TeardownStep::Containers if memory.stale || facts.messages_missing => {
            (Effect::Read { list: memory.stale }, None)
        }
        TeardownStep::Containers => (Effect::Stop { grace }, facts.runtime.is_running().then_some(Stage::Terminating)),
        TeardownStep::Volumes => (Effect::TearDownVolumes, Some(Stage::Terminated)),
        TeardownStep::Cgroups => (Effect::RemoveCgroup, None),
    };
    Decision { effects: vec![effect], report, ..decision }
}

fn terminated(facts: &Facts<'_>, memory: &Memory, now: Timestamp) -> Decision {
    let decision = Decision { stage: WorkerStage::Terminated, ..Decision::default() };
    if let Some(at) = memory.retry_at.filter(|at| *at > now) {
        return Decision { wake_at: Some(at), ..decision };
    }
    let effects = match (facts.removed, memory.rested) {
        (true, _) => vec![Effect::Remove],
        (false, false) => vec![Effect::Rest],
        (false, true) => Vec::new(),
    };
    Decision { effects, ..decision }
}

fn earliest<const N: usize>(first: Option<Timestamp>, others: [Option<Timestamp>; N]) -> Option<Timestamp> {
    first.into_iter().chain(others.into_iter().flatten()).min()
}

fn pod_event(warning: bool, reason: &str, message: &str) -> PodEvent {
    PodEvent { container: None, warning, reason: reason.to_owned(), message: message.to_owned() }
}

#[cfg(test)]
mod tests;

//! A pod's whole API status from its spec and the runtime's view. Pure.

use std::collections::BTreeMap;

use cri::types::{ContainerState, SandboxState};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::conditions::{self, ConditionState};
use super::containers::{ContainerInput, TerminationMessages, lost, statuses};
use crate::clock::to_seconds;
use crate::contract::ProbeView;
use crate::convert::qos::qos_class;
use crate::convert::spec::{self, ContainerKind};
use crate::plan::effect::{PodFailure, WaitReason};
use crate::plan::preempt::PREEMPTING;
use crate::plan::restart;
use crate::plan::stage::Stage;
use crate::podcache::RuntimePod;

/// Everything a status depends on.
#[derive(Clone, Copy, Debug)]
pub struct StatusInput<'a> {
    pub pod: &'a Pod,
    pub runtime: &'a RuntimePod,
    pub probes: &'a ProbeView,
    /// Containers held up, by name.
    pub waiting: &'a BTreeMap<String, WaitReason>,
    pub messages: &'a TerminationMessages,
    /// The status last generated here, else the one the API shows.
    pub previous: Option<&'a PodStatus>,
    pub stage: Stage,
    /// The pod as a whole has failed (deadline, refusal, eviction).
    pub failure: Option<&'a PodFailure>,
    pub host_ips: &'a [String],
    pub runtime_name: &'a str,
    pub now: Timestamp,
}

/// The status to report.
pub fn generate(input: &StatusInput<'_>) -> PodStatus {
    let pod = input.pod;
    let empty = PodStatus::default();
    let previous = input.previous.or(pod.status.as_ref()).unwrap_or(&empty);
    let input_of_containers = ContainerInput {
        pod,
        runtime: input.runtime,
        probes: input.probes,
        waiting: input.waiting,
        messages: input.messages,
        runtime_name: input.runtime_name,
    };
    let refused = was_refused(input, previous);
    let list = |kind, containers: &[Container], old: &Option<Vec<ContainerStatus>>| {
        if refused {
            return Vec::new();
        }
        let mut out = statuses(&input_of_containers, kind, containers, old.as_deref().unwrap_or_default());
        if input.stage == Stage::Terminated {
            finish(kind, containers, &mut out);
        }
        out.iter_mut().for_each(|status| shorten_messages(status, message_share(pod)));
        out
    };
    let init = list(ContainerKind::Init, spec::init_containers(pod), &previous.init_container_statuses);
    let main = list(ContainerKind::Regular, spec::containers(pod), &previous.container_statuses);
    let debuggers: Vec<Container> = spec::ephemeral_containers(pod).iter().map(spec::as_container).collect();
    let ephemeral = list(ContainerKind::Ephemeral, &debuggers, &previous.ephemeral_container_statuses);

    // Nothing leads out of a terminal phase, also of one that somebody else has written
    // (pkg/kubelet/kubelet_pods.go, generateAPIPodStatus).
    let shown = pod.status.as_ref().filter(|_| spec::is_over(pod));
    let over = shown.or(Some(previous)).filter(|status| status.phase.as_deref().is_some_and(spec::is_terminal));
    let phase = match (input.failure, over.and_then(|status| status.phase.as_ref())) {
        (_, Some(done)) => done.clone(),
        (Some(_), _) => "Failed".to_owned(),
        _ => phase(pod, &init, &main, input.stage).to_owned(),
    };
    let (reason, message) = match input.failure {
        Some(f) => (Some(f.reason.clone()), Some(f.message.clone())),
        // They belong to the phase.
        None => match shown.or(Some(previous)).filter(|status| status.phase.as_ref() == Some(&phase)) {
            Some(status) => (status.reason.clone(), status.message.clone()),
            None => (None, None),
        },
    };
    let held_back = over.is_none() && spec::is_terminal(&phase) && could_run(input.runtime);
    let old_conditions = previous.conditions.as_deref().unwrap_or_default();
    let conditions = all_conditions(input, &init, &main, (&phase, held_back), old_conditions);
    let (phase, reason, message) = match held_back {
        true => {
            let before = previous.phase.clone().unwrap_or_else(|| "Running".to_owned());
            (before, previous.reason.clone(), previous.message.clone())
        }
        false => (phase, reason, message),
    };
    let pod_ips = pod_ips(input, previous);
    let wrap = |list: Vec<ContainerStatus>| (!list.is_empty()).then_some(list);
    PodStatus {
        phase: Some(phase),
        reason,
        message,
        conditions: Some(conditions),
        host_ip: input.host_ips.first().cloned(),
        host_ips: Some(input.host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
        pod_ip: pod_ips.first().cloned(),
        pod_ips: (!pod_ips.is_empty()).then(|| pod_ips.into_iter().map(|ip| PodIP { ip }).collect()),
        start_time: Some(previous.start_time.clone().unwrap_or(Time(to_seconds(input.now)))),
        qos_class: Some(previous.qos_class.clone().unwrap_or_else(|| qos_class(pod).as_str().to_owned())),
        init_container_statuses: wrap(init),
        container_statuses: wrap(main),
        ephemeral_container_statuses: wrap(ephemeral),
        observed_generation: pod.metadata.generation,
        ..PodStatus::default()
    }
}

/// Whether anything of the pod may run: who hears that a pod is over takes what it held for free, an identity or a
/// volume (pkg/kubelet/status/status_manager.go: `mergePodStatus`).
fn could_run(runtime: &RuntimePod) -> bool {
    runtime.containers.iter().any(|c| matches!(c.status.state, ContainerState::Running | ContainerState::Unknown))
}

/// All termination messages of a pod together.
const MAX_POD_MESSAGES: usize = 12 * 1024;

/// How much of them one container may have.
fn message_share(pod: &Pod) -> usize {
    let all = spec::containers(pod).len() + spec::init_containers(pod).len() + spec::ephemeral_containers(pod).len();
    MAX_POD_MESSAGES / all.max(1)
}

fn shorten_messages(status: &mut ContainerStatus, limit: usize) {
    for state in [&mut status.state, &mut status.last_state].into_iter().flatten() {
        if let Some(message) = state.terminated.as_mut().and_then(|t| t.message.as_mut()) {
            let mut end = limit.min(message.len());
            while !message.is_char_boundary(end) {
                end -= 1;
            }
            message.truncate(end);
        }
    }
}

/// A pod that was refused shows no containers: there never were any.
fn was_refused(input: &StatusInput<'_>, previous: &PodStatus) -> bool {
    input.failure.is_some()
        && input.runtime.containers.is_empty()
        && input.runtime.sandboxes.is_empty()
        && previous.container_statuses.is_none()
}

/// Containers of a pod that is over have ended, known or not.
fn finish(kind: ContainerKind, containers: &[Container], list: &mut [ContainerStatus]) {
    for status in list {
        let sidecar = containers.iter().any(|c| c.name == status.name && spec::is_sidecar(c));
        let ended = status.state.as_ref().is_some_and(|s| s.terminated.is_some());
        // An init container that never got its turn keeps waiting.
        let begun = status.container_id.is_some() || status.last_state.is_some();
        status.started = Some(false);
        if kind != ContainerKind::Init || sidecar {
            status.ready = false;
        }
        if !ended && (kind == ContainerKind::Regular || begun) {
            status.state = Some(lost("The container could not be located when the pod was terminated"));
        }
    }
}

fn pod_ips(input: &StatusInput<'_>, previous: &PodStatus) -> Vec<String> {
    if spec::host_network(input.pod) {
        return input.host_ips.to_vec();
    }
    let ips = input.runtime.ips();
    if !ips.is_empty() || input.stage == Stage::Syncing && input.runtime.sandboxes.is_empty() {
        return ips.to_vec();
    }
    // The address of a stopped sandbox stays visible until a new one is known.
    previous.pod_ips.iter().flatten().map(|p| p.ip.clone()).collect()
}

fn all_conditions(
    input: &StatusInput<'_>,
    init: &[ContainerStatus],
    main: &[ContainerStatus],
    (phase, held_back): (&str, bool),
    old: &[PodCondition],
) -> Vec<PodCondition> {
    let pod = input.pod;
    let sandbox = input
        .runtime
        .sandboxes
        .iter()
        .any(|s| s.summary.state == SandboxState::Ready && (spec::host_network(pod) || !s.ips.is_empty()));
    let state = |status| ConditionState { status, ..ConditionState::default() };
    // Other writers' conditions come from the object, not from our memory.
    let foreign = pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let containers = conditions::containers_ready(pod, init, main, phase);
    let own = [
        (conditions::READY_TO_START, state(sandbox)),
        (conditions::INITIALIZED, conditions::initialized(pod, init, main, phase)),
        (conditions::READY, conditions::ready(pod, &containers, foreign)),
        (conditions::CONTAINERS_READY, containers),
        (conditions::POD_SCHEDULED, state(true)),
    ];
    let mut out: Vec<PodCondition> =
        own.iter().map(|(kind, v)| conditions::stamp(kind, v, pod, old, input.now)).collect();
    if let Some(scheduled) = foreign.iter().find(|c| c.type_ == conditions::POD_SCHEDULED && c.status == "True")
        && let Some(slot) = out.iter_mut().find(|c| c.type_ == conditions::POD_SCHEDULED)
    {
        let generation = slot.observed_generation;
        *slot = PodCondition { observed_generation: generation, ..scheduled.clone() };
    }
    // Who is told of a disruption may start a successor: not before the end is told.
    if let Some(failure) = input.failure.filter(|f| f.evicted && !held_back) {
        let reason = conditions::TERMINATION_BY_KUBELET;
        let message = match failure.reason.as_str() {
            PREEMPTING => "Pod was preempted by Kubelet to accommodate a critical pod.".to_owned(),
            _ => failure.message.clone(),
        };
        let target = ConditionState { status: true, reason, message };
        out.push(conditions::stamp(conditions::DISRUPTION_TARGET, &target, pod, old, input.now));
    }
    if let Some(pending) = conditions::resize_pending(pod, input.runtime) {
        out.push(conditions::stamp(conditions::RESIZE_PENDING, &pending, pod, old, input.now));
    }
    let foreign = foreign.iter().filter(|c| c.type_ != conditions::RESIZE_PENDING);
    let others: Vec<PodCondition> = foreign.filter(|c| out.iter().all(|own| own.type_ != c.type_)).cloned().collect();
    out.extend(others);
    out
}

#[derive(Default)]
struct Count {
    unknown: usize,
    running: usize,
    waiting: usize,
    stopped: usize,
    succeeded: usize,
    restarting: usize,
}

fn count(pod: &Pod, main: &[ContainerStatus]) -> Count {
    let mut n = Count::default();
    for container in spec::containers(pod) {
        let status = main.iter().find(|s| s.name == container.name);
        let Some(state) = status.and_then(|s| s.state.as_ref()) else {
            n.unknown += 1;
            continue;
        };
        if state.running.is_some() {
            n.running += 1;
        } else if let Some(ended) = &state.terminated {
            n.stopped += 1;
            n.succeeded += usize::from(ended.exit_code == 0);
            n.restarting += usize::from(restart::restarts_after(pod, container, ended.exit_code));
        } else if status.is_some_and(|s| s.last_state.as_ref().is_some_and(|l| l.terminated.is_some())) {
            n.stopped += 1;
            n.restarting += 1;
        } else {
            n.waiting += 1;
        }
    }
    n
}

/// The phase from the containers' states.
fn phase(pod: &Pod, init: &[ContainerStatus], main: &[ContainerStatus], stage: Stage) -> &'static str {
    let n = count(pod, main);
    let started = n.running + n.stopped > 0;
    let (mut pending, mut failed) = (false, false);
    for container in spec::init_containers(pod) {
        let status = init.iter().find(|s| s.name == container.name);
        let ended = status.and_then(|s| s.state.as_ref()).and_then(|s| s.terminated.as_ref());
        if spec::is_sidecar(container) {
            pending |= status.is_none_or(|s| s.started != Some(true));
        } else if let Some(ended) = ended {
            failed |= ended.exit_code != 0 && !restart::restarts_after(pod, container, ended.exit_code);
            pending |= ended.exit_code != 0;
        } else {
            pending = true;
        }
    }
    if failed && !started {
        return "Failed";
    }
    if stage == Stage::Terminated {
        let all = n.stopped > 0 && n.succeeded == n.stopped && n.waiting + n.running + n.unknown == 0;
        return if all { "Succeeded" } else { "Failed" };
    }
    if pending && !started || n.waiting > 0 {
        return "Pending";
    }
    if n.running > 0 && n.unknown == 0 {
        return "Running";
    }
    if n.stopped > 0 && n.unknown == 0 {
        if n.restarting > 0 && stage == Stage::Syncing {
            return "Running";
        }
        if stage == Stage::Terminating && n.restarting > 0 {
            return "Running";
        }
        return if n.stopped == n.succeeded { "Succeeded" } else { "Failed" };
    }
    "Pending"
}

#[cfg(test)]
mod tests;

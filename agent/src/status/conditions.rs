//! Pod conditions, with transition times.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodCondition, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::clock::to_seconds;
use crate::convert::quantity::{ResourceList, nanos};
use crate::convert::{labels, spec};
use crate::podcache::RuntimePod;

pub const POD_SCHEDULED: &str = "PodScheduled";
pub const READY_TO_START: &str = "PodReadyToStartContainers";
pub const INITIALIZED: &str = "Initialized";
pub const CONTAINERS_READY: &str = "ContainersReady";
pub const READY: &str = "Ready";
/// Set once, on a pod that the node evicts.
pub const DISRUPTION_TARGET: &str = "DisruptionTarget";
pub const TERMINATION_BY_KUBELET: &str = "TerminationByKubelet";

/// A resize that the spec asks for and the containers have not got.
pub const RESIZE_PENDING: &str = "PodResizePending";

/// A condition before its times are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConditionState {
    pub status: bool,
    pub reason: &'static str,
    pub message: String,
}

impl ConditionState {
    fn yes() -> Self {
        Self { status: true, ..Self::default() }
    }

    fn no(reason: &'static str, message: String) -> Self {
        Self { status: false, reason, message }
    }
}

fn find<'a>(statuses: &'a [ContainerStatus], name: &str) -> Option<&'a ContainerStatus> {
    statuses.iter().find(|s| s.name == name)
}

fn names(list: &[&str]) -> String {
    format!("[{}]", list.join(" "))
}

fn describe(unknown: &[&str], bad: &[&str], word: &str) -> String {
    let mut parts = Vec::new();
    if !unknown.is_empty() {
        parts.push(format!("containers with unknown status: {}", names(unknown)));
    }
    if !bad.is_empty() {
        parts.push(format!("containers with {word} status: {}", names(bad)));
    }
    parts.join(", ")
}

/// Whether all init containers are done (sidecars: started).
pub fn initialized(pod: &Pod, init: &[ContainerStatus], main: &[ContainerStatus], phase: &str) -> ConditionState {
    let containers = spec::init_containers(pod);
    // A main container that has begun proves that the sequence was complete.
    let begun = |s: &ContainerStatus| {
        let state = s.state.as_ref();
        state.is_some_and(|s| s.running.is_some() || s.terminated.is_some())
            || s.last_state.as_ref().is_some_and(|s| s.terminated.is_some())
    };
    if !containers.is_empty() && main.iter().any(begun) {
        return if phase == "Succeeded" { completed_true() } else { ConditionState::yes() };
    }
    let (mut unknown, mut bad) = (Vec::new(), Vec::new());
    for container in containers {
        match find(init, &container.name) {
            None => unknown.push(container.name.as_str()),
            Some(s) if spec::is_sidecar(container) && s.started == Some(true) => {}
            Some(s) if !spec::is_sidecar(container) && s.ready => {}
            Some(_) => bad.push(container.name.as_str()),
        }
    }
    if phase == "Succeeded" && unknown.is_empty() {
        return completed_true();
    }
    if unknown.is_empty() && bad.is_empty() {
        return ConditionState::yes();
    }
    ConditionState::no("ContainersNotInitialized", describe(&unknown, &bad, "incomplete"))
}

fn completed_true() -> ConditionState {
    ConditionState { status: true, reason: "PodCompleted", message: String::new() }
}

/// Whether all main containers and sidecars are ready.
pub fn containers_ready(pod: &Pod, init: &[ContainerStatus], main: &[ContainerStatus], phase: &str) -> ConditionState {
    match phase {
        "Succeeded" => return ConditionState::no("PodCompleted", String::new()),
        "Failed" => return ConditionState::no("PodFailed", String::new()),
        _ => {}
    }
    let (mut unknown, mut bad) = (Vec::new(), Vec::new());
    let sidecars = spec::init_containers(pod).iter().filter(|c| spec::is_sidecar(c)).map(|c| (c, init));
    let all: Vec<(&Container, &[ContainerStatus])> =
        sidecars.chain(spec::containers(pod).iter().map(|c| (c, main))).collect();
    for (container, list) in all {
        match find(list, &container.name) {
            None => unknown.push(container.name.as_str()),
            Some(s) if s.ready => {}
            Some(_) => bad.push(container.name.as_str()),
        }
    }
    if unknown.is_empty() && bad.is_empty() {
        return ConditionState::yes();
    }
    ConditionState::no("ContainersNotReady", describe(&unknown, &bad, "unready"))
}

/// Whether the pod is ready: its containers and every readiness gate.
pub fn ready(pod: &Pod, containers: &ConditionState, conditions: &[PodCondition]) -> ConditionState {
    if !containers.status {
        return containers.clone();
    }
    let mut problems = Vec::new();
    for gate in spec::spec(pod).readiness_gates.iter().flatten() {
        let kind = &gate.condition_type;
        match conditions.iter().find(|c| c.type_ == *kind) {
            Some(c) if c.status == "True" => {}
            Some(c) => {
                problems.push(format!("the status of pod readiness gate \"{kind}\" is not \"True\", but {}", c.status))
            }
            None => problems.push(format!("corresponding condition of pod readiness gate \"{kind}\" does not exist.")),
        }
    }
    if problems.is_empty() {
        return ConditionState::yes();
    }
    ConditionState::no("ReadinessGatesNotReady", problems.join(", "))
}

/// Whether a running container has other resources than its spec asks for by now,
/// and that they will not change: this node resizes nothing in place.
pub fn resize_pending(pod: &Pod, runtime: &RuntimePod) -> Option<ConditionState> {
    let sidecars = spec::init_containers(pod).iter().filter(|c| spec::is_sidecar(c));
    let differs = |c: &Container| {
        let running = runtime.container(&c.name).filter(|r| r.is_running());
        let created = running.and_then(|r| labels::resources(&r.status.annotations));
        created.is_some_and(|created| !same_amounts(&created, c.resources.as_ref()))
    };
    let message = "In-place resize is not supported by this node".to_owned();
    spec::containers(pod).iter().chain(sidecars).any(differs).then_some(ConditionState {
        status: true,
        reason: "Infeasible",
        message,
    })
}

fn same_amounts(created: &ResourceRequirements, wanted: Option<&ResourceRequirements>) -> bool {
    let amounts = |list: Option<&ResourceList>| -> BTreeMap<String, Option<i128>> {
        list.into_iter().flatten().map(|(name, quantity)| (name.clone(), nanos(&quantity.0))).collect()
    };
    let all = |r: Option<&ResourceRequirements>| {
        [amounts(r.and_then(|r| r.requests.as_ref())), amounts(r.and_then(|r| r.limits.as_ref()))]
    };
    all(Some(created)) == all(wanted)
}

/// The conditions this agent owns.
pub fn is_own(kind: &str) -> bool {
    matches!(kind, POD_SCHEDULED | READY_TO_START | INITIALIZED | CONTAINERS_READY | READY | RESIZE_PENDING)
}

/// The condition with its times: a transition happens only when the status
/// changes.
pub fn stamp(kind: &str, state: &ConditionState, pod: &Pod, previous: &[PodCondition], now: Timestamp) -> PodCondition {
    let status = if state.status { "True" } else { "False" };
    let before = previous.iter().find(|c| c.type_ == kind && c.status == status);
    let since = before.and_then(|c| c.last_transition_time.clone()).unwrap_or(Time(to_seconds(now)));
    let text = |s: &str| (!s.is_empty()).then(|| s.to_owned());
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: text(state.reason),
        message: text(&state.message),
        last_transition_time: Some(since),
        last_probe_time: None,
        observed_generation: pod.metadata.generation,
    }
}

//! Container statuses as the API shows them.

use std::collections::{BTreeMap, HashMap};

use cri::ContainerId;
use cri::types::ContainerState as RuntimeState;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    Pod, ResourceRequirements, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::clock::to_seconds;
use crate::contract::{ProbeOutcome, ProbeView};
use crate::convert::labels;
use crate::convert::spec::{self, ContainerKind};
use crate::plan::effect::WaitReason;
use crate::plan::restart;
use crate::podcache::{RuntimeContainer, RuntimePod};

/// The reason of a container that the kernel killed for memory.
pub const OOM_KILLED: &str = "OOMKilled";

/// What an ended container leaves beside its exit code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TerminationMessage {
    pub text: String,
    /// The kernel says that it killed processes of it for memory.
    pub oom_killed: bool,
}

/// What was read of ended containers.
pub type TerminationMessages = HashMap<ContainerId, TerminationMessage>;

/// What container statuses are made from.
#[derive(Clone, Copy, Debug)]
pub struct ContainerInput<'a> {
    pub pod: &'a Pod,
    pub runtime: &'a RuntimePod,
    pub probes: &'a ProbeView,
    pub waiting: &'a BTreeMap<String, WaitReason>,
    pub messages: &'a TerminationMessages,
    /// `containerd` in `containerd://<id>`.
    pub runtime_name: &'a str,
}

fn time(at: Option<jiff::Timestamp>) -> Option<Time> {
    at.map(|t| Time(to_seconds(t)))
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    let text = |s: &str| (!s.is_empty()).then(|| s.to_owned());
    ContainerState {
        waiting: Some(ContainerStateWaiting { reason: text(reason), message: text(message) }),
        ..ContainerState::default()
    }
}

/// The state of a container that is gone without a word.
pub fn lost(message: &str) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".to_owned()),
            message: Some(message.to_owned()),
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    }
}

fn container_uri(input: &ContainerInput<'_>, id: &ContainerId) -> String {
    format!("{}://{id}", input.runtime_name)
}

fn state_of(input: &ContainerInput<'_>, c: &RuntimeContainer) -> ContainerState {
    let s = &c.status;
    match s.state {
        RuntimeState::Running => ContainerState {
            running: Some(ContainerStateRunning { started_at: time(s.started_at) }),
            ..ContainerState::default()
        },
        RuntimeState::Created | RuntimeState::Unknown => waiting("", ""),
        RuntimeState::Exited => {
            let left = input.messages.get(&s.id);
            let message = left.map(|m| &m.text).filter(|text| !text.is_empty()).unwrap_or(&s.message);
            let text = |t: &str| (!t.is_empty()).then(|| t.to_owned());
            let reason = match (s.reason.as_str(), s.exit_code) {
                _ if left.is_some_and(|w| w.oom_killed) => OOM_KILLED,
                ("", 0) => "Completed",
                ("", _) => "Error",
                (known, _) => known,
            };
            ContainerState {
                terminated: Some(ContainerStateTerminated {
                    container_id: Some(container_uri(input, &s.id)),
                    exit_code: s.exit_code,
                    finished_at: time(s.finished_at),
                    started_at: time(s.started_at),
                    message: text(message),
                    reason: text(reason),
                    signal: None,
                }),
                ..ContainerState::default()
            }
        }
    }
}

/// Statuses of one list of containers, in spec order.
pub fn statuses(
    input: &ContainerInput<'_>,
    kind: ContainerKind,
    list: &[Container],
    previous: &[ContainerStatus],
) -> Vec<ContainerStatus> {
    let initialized = init_done(input);
    list.iter()
        .map(|container| {
            let old = previous.iter().find(|s| s.name == container.name);
            let mut status = one(input, kind, container, old, initialized);
            set_ready(input, kind, container, &mut status);
            status
        })
        .collect()
}

fn init_done(input: &ContainerInput<'_>) -> bool {
    spec::init_containers(input.pod).is_empty() || restart::was_ever_initialized(input.pod, input.runtime)
}

fn one(
    input: &ContainerInput<'_>,
    kind: ContainerKind,
    container: &Container,
    old: Option<&ContainerStatus>,
    initialized: bool,
) -> ContainerStatus {
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        ..ContainerStatus::default()
    };
    let mut instances = input.runtime.containers_named(&container.name);
    let Some(newest) = instances.next() else {
        let reason = match kind {
            ContainerKind::Ephemeral => "ContainerCreating",
            _ if initialized => "ContainerCreating",
            _ => "PodInitializing",
        };
        status.state = Some(waiting(reason, ""));
        without_instance(input, old, &mut status);
        set_waiting(input, container, &mut status, None);
        return status;
    };
    fill(input, container, newest, &mut status);
    if let Some(before) = instances.find(|c| c.status.state == RuntimeState::Exited) {
        status.last_state = Some(state_of(input, before));
    } else if let Some(kept) = old.and_then(|o| o.last_state.clone()) {
        // The runtime may have dropped the earlier instance; the API remembers.
        status.last_state = Some(kept);
    }
    set_waiting(input, container, &mut status, Some(newest));
    status
}

fn fill(input: &ContainerInput<'_>, container: &Container, newest: &RuntimeContainer, status: &mut ContainerStatus) {
    let s = &newest.status;
    status.restart_count = i32::try_from(newest.restart_count).unwrap_or(i32::MAX);
    status.container_id = Some(container_uri(input, &s.id));
    // The runtime names the image by its local id where it was started by id.
    if !s.image.is_empty() && !s.image.starts_with("sha256:") {
        status.image = s.image.clone();
    }
    status.image_id = s.image_ref.clone();
    status.state = Some(state_of(input, newest));
    if newest.is_running() {
        // What it was created with: the spec may have been resized since.
        let created = labels::resources(&s.annotations).or_else(|| container.resources.clone());
        status.allocated_resources = created.as_ref().and_then(|r| r.requests.clone());
        status.resources = created.map(|r| ResourceRequirements { claims: None, ..r });
    }
    let mounts: Vec<VolumeMountStatus> = container
        .volume_mounts
        .iter()
        .flatten()
        .map(|m| VolumeMountStatus {
            name: m.name.clone(),
            mount_path: m.mount_path.clone(),
            read_only: m.read_only.filter(|r| *r),
            recursive_read_only: m.read_only.filter(|r| *r).map(|_| "Disabled".to_owned()),
            ..VolumeMountStatus::default()
        })
        .collect();
    status.volume_mounts = (!mounts.is_empty()).then_some(mounts);
}

/// A container the runtime does not have (yet, or any more).
fn without_instance(input: &ContainerInput<'_>, old: Option<&ContainerStatus>, status: &mut ContainerStatus) {
    let Some(old) = old else { return };
    let state = old.state.clone().unwrap_or_default();
    if state.terminated.is_some() {
        *status = old.clone();
        return;
    }
    status.restart_count = old.restart_count;
    status.last_state = old.last_state.clone();
    if state.running.is_some() {
        let words = "The container could not be located when the pod was deleted.  The container used to be Running";
        status.last_state = Some(lost(words));
        if input.pod.metadata.deletion_timestamp.is_none() {
            status.restart_count = status.restart_count.saturating_add(1);
        }
    }
}

/// A container that is to run again and is held up shows why.
fn set_waiting(
    input: &ContainerInput<'_>,
    container: &Container,
    status: &mut ContainerStatus,
    newest: Option<&RuntimeContainer>,
) {
    let Some(why) = input.waiting.get(&container.name) else { return };
    if !restart::should_start(input.pod, container, newest) {
        return;
    }
    if newest.is_some() && status.state.as_ref().is_some_and(|s| s.terminated.is_some()) {
        status.last_state = status.state.take();
    }
    status.state = Some(waiting(&why.reason, &why.message));
}

fn set_ready(input: &ContainerInput<'_>, kind: ContainerKind, container: &Container, status: &mut ContainerStatus) {
    let state = status.state.clone().unwrap_or_default();
    if kind == ContainerKind::Ephemeral {
        status.ready = false;
        return;
    }
    if kind == ContainerKind::Init && !spec::is_sidecar(container) {
        status.ready = state.terminated.is_some_and(|t| t.exit_code == 0);
        status.started = Some(state.running.is_some());
        return;
    }
    let newest = input.runtime.container(&container.name).filter(|c| c.is_running());
    let Some(newest) = newest.filter(|_| state.running.is_some()) else {
        status.started = Some(false);
        status.ready = false;
        return;
    };
    let (started, ready) = started_and_ready(container, newest.id(), input.probes);
    (status.started, status.ready) = (Some(started), ready);
}

/// Whether a running container has started and whether it is ready, by its
/// probes; one that its spec lacks counts as passed.
fn started_and_ready(container: &Container, id: &ContainerId, probes: &ProbeView) -> (bool, bool) {
    let results = probes.get(id);
    let started = container.startup_probe.is_none() || results.startup == ProbeOutcome::Success;
    (started, started && (container.readiness_probe.is_none() || results.readiness == ProbeOutcome::Success))
}

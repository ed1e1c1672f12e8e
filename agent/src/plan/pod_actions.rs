//! What to do for one pod, from its spec, the runtime's view and probe results.

use cri::types::{ContainerState, NamespaceMode, SandboxState, SandboxStatus};
use cri::{ContainerId, SandboxId};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::init_actions::init_actions;
use super::restart::{init_succeeded, is_initialized, restarts_after, should_start, was_ever_initialized};
use crate::contract::{ProbeOutcome, ProbeView};
use crate::convert::spec::{self, ContainerKind, RestartPolicy};
use crate::podcache::{RuntimeContainer, RuntimePod};

/// Why a container is killed; decides its grace period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KillReason {
    LivenessProbe,
    StartupProbe,
    SpecChanged,
    Unknown,
    /// The pod ends.
    PodEnds,
}

/// A container to kill while the pod goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KillContainer {
    pub id: ContainerId,
    pub name: String,
    pub reason: KillReason,
    /// The text of the `Killing` event.
    pub message: String,
}

/// A container to start; `index` in its list of the spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartContainer {
    pub kind: ContainerKind,
    pub index: usize,
    pub name: String,
}

/// What to do for a pod, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodActions {
    /// Stop all containers and the sandbox; nothing is to run any more, or it
    /// has to be made anew.
    pub kill_pod: bool,
    /// Create a sandbox with this attempt.
    pub create_sandbox: Option<u32>,
    /// The sandbox in use when none is to be created.
    pub sandbox: Option<SandboxId>,
    pub kill: Vec<KillContainer>,
    /// Ephemeral containers: no order, no restart.
    pub start_ephemeral: Vec<StartContainer>,
    /// Init containers and sidecars, in order.
    pub start_init: Vec<StartContainer>,
    /// Main containers.
    pub start: Vec<StartContainer>,
}

impl PodActions {
    /// Whether the pod is over: what runs of it is stopped and nothing starts again.
    pub fn ends_pod(&self) -> bool {
        self.kill_pod && self.create_sandbox.is_none()
    }
}

/// Whether the pod needs a sandbox it has not got, and the next attempt number.
fn sandbox_needed(pod: &Pod, runtime: &RuntimePod) -> Result<SandboxId, u32> {
    let Some(latest) = runtime.sandboxes.first() else { return Err(0) };
    let ready = runtime.sandboxes.iter().filter(|s| s.summary.state == SandboxState::Ready).count();
    let host = spec::host_network(pod);
    if ready > 1 || latest.summary.state != SandboxState::Ready || network_changed(latest, host) {
        return Err(latest.summary.metadata.attempt.saturating_add(1));
    }
    if !host && latest.ips.is_empty() {
        return Err(latest.summary.metadata.attempt.saturating_add(1));
    }
    Ok(latest.summary.id.clone())
}

fn network_changed(sandbox: &SandboxStatus, host: bool) -> bool {
    (sandbox.namespaces.network == NamespaceMode::Node) != host
}

/// Decides what to do for a pod that is to run.
pub fn pod_actions(pod: &Pod, runtime: &RuntimePod, probes: &ProbeView) -> PodActions {
    let mut actions = PodActions::default();
    match sandbox_needed(pod, runtime) {
        Err(attempt) => {
            from_new_sandbox(pod, runtime, attempt, &mut actions);
            return actions;
        }
        Ok(id) => actions.sandbox = Some(id),
    }
    for (index, container) in spec::ephemeral_containers(pod).iter().enumerate() {
        // An ephemeral container runs once, whatever becomes of it.
        if runtime.container(&container.name).is_none() {
            actions.start_ephemeral.push(StartContainer {
                kind: ContainerKind::Ephemeral,
                index,
                name: container.name.clone(),
            });
        }
    }
    if !init_actions(pod, runtime, probes, &mut actions) {
        return actions;
    }
    let mut kept = 0;
    for (index, container) in spec::containers(pod).iter().enumerate() {
        if !visit_main(pod, container, index, runtime, probes, &mut actions) {
            kept += 1;
        }
    }
    // Sidecars must not keep a pod alive whose main containers are done.
    if kept == 0 && actions.start.is_empty() {
        actions.kill_pod = true;
        actions.start_init.clear();
    }
    actions
}

fn start(index: usize, container: &Container) -> StartContainer {
    StartContainer { kind: ContainerKind::Regular, index, name: container.name.clone() }
}

/// A pod without a usable sandbox: everything starts from the beginning, unless
/// the pod has nothing left to do.
fn from_new_sandbox(pod: &Pod, runtime: &RuntimePod, attempt: u32, actions: &mut PodActions) {
    actions.kill_pod = !runtime.sandboxes.is_empty() || !runtime.containers.is_empty();
    let policy = spec::restart_policy(pod);
    let has_rules = spec::containers(pod)
        .iter()
        .chain(spec::init_containers(pod))
        .any(|c| c.restart_policy_rules.is_some() || (c.restart_policy.is_some() && !spec::is_sidecar(c)));
    if policy == RestartPolicy::Never && !has_rules && attempt != 0 && !runtime.containers.is_empty() {
        // Never run anything twice: what has ended with its sandbox stays ended.
        return;
    }
    let to_start: Vec<StartContainer> = spec::containers(pod)
        .iter()
        .enumerate()
        .filter(|(_, c)| !stays_ended(pod, c, runtime.container(&c.name)))
        .map(|(i, c)| start(i, c))
        .collect();
    if to_start.is_empty() && (was_ever_initialized(pod, runtime) || spec::init_containers(pod).is_empty()) {
        return;
    }
    actions.create_sandbox = Some(attempt);
    match spec::init_containers(pod).first() {
        Some(first) => {
            actions.start_init.push(StartContainer { kind: ContainerKind::Init, index: 0, name: first.name.clone() });
        }
        None => actions.start = to_start,
    }
}

fn stays_ended(pod: &Pod, container: &Container, newest: Option<&RuntimeContainer>) -> bool {
    newest.is_some_and(|n| {
        n.status.state == ContainerState::Exited
            && match super::restart::policy_of(pod, container) {
                // Ended with the sandbox by force, it has not failed by itself.
                RestartPolicy::Always => false,
                _ => !restarts_after(pod, container, n.status.exit_code),
            }
    })
}

/// Returns whether the container is to be started or stays ended (it does not
/// keep the pod alive by itself).
fn visit_main(
    pod: &Pod,
    container: &Container,
    index: usize,
    runtime: &RuntimePod,
    probes: &ProbeView,
    actions: &mut PodActions,
) -> bool {
    let newest = runtime.container(&container.name);
    let Some(running) = newest.filter(|n| n.is_running()) else {
        if should_start(pod, container, newest) {
            actions.start.push(start(index, container));
            if let Some(unknown) = newest.filter(|n| n.status.state == ContainerState::Unknown) {
                let why = "is in an unknown state, try killing it before restart";
                actions.kill.push(kill(container, unknown, KillReason::Unknown, why));
            }
        }
        return true;
    };
    let results = probes.get(running.id());
    let failed = |has: bool, outcome| has && outcome == ProbeOutcome::Failure;
    let changed = running.hash != spec::container_hash(container);
    let (reason, what) = if changed {
        (KillReason::SpecChanged, "definition changed")
    } else if failed(container.liveness_probe.is_some(), results.liveness) {
        (KillReason::LivenessProbe, "failed liveness probe")
    } else if failed(container.startup_probe.is_some(), results.startup) {
        (KillReason::StartupProbe, "failed startup probe")
    } else {
        return false;
    };
    // A killed container ends with a signal, which counts as a failure.
    let restart = changed || restarts_after(pod, container, 137);
    let message = if restart { format!("{what}, will be restarted") } else { what.to_owned() };
    actions.kill.push(kill(container, running, reason, &message));
    if restart {
        actions.start.push(start(index, container));
    }
    // Killed without a restart, it still ran: the pod ends at the next look.
    restart
}

fn kill(container: &Container, target: &RuntimeContainer, reason: KillReason, why: &str) -> KillContainer {
    KillContainer {
        id: target.id().clone(),
        name: container.name.clone(),
        reason,
        message: format!("Container {} {why}", container.name),
    }
}

/// Whether all containers of the pod are done and none runs again: what upstream
/// calls a terminal phase.
pub fn is_finished(pod: &Pod, runtime: &RuntimePod) -> bool {
    let main = spec::containers(pod);
    let init_failed = spec::init_containers(pod).iter().filter(|c| !spec::is_sidecar(c)).any(|c| {
        runtime.present_container(&c.name).is_some_and(|r| {
            r.status.state == ContainerState::Exited
                && !init_succeeded(r)
                && !restarts_after(pod, c, r.status.exit_code)
        })
    });
    if init_failed && !is_initialized(pod, runtime) {
        return true;
    }
    !main.is_empty()
        && main.iter().all(|c| {
            runtime.container(&c.name).is_some_and(|r| {
                r.status.state == ContainerState::Exited && !restarts_after(pod, c, r.status.exit_code)
            })
        })
}

#[cfg(test)]
mod tests;

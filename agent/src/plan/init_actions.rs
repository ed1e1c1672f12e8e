//! Which init containers and sidecars to start or kill.

use cri::types::ContainerState;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::pod_actions::{KillContainer, KillReason, PodActions, StartContainer};
use super::restart::{init_succeeded, is_initialized, restarts_after};
use crate::contract::{ProbeOutcome, ProbeView};
use crate::convert::spec::{self, ContainerKind};
use crate::podcache::{RuntimeContainer, RuntimePod};

/// The exit code of what ends by SIGKILL.
const KILLED: i32 = 137;

/// What the walk over the init containers has found so far.
struct Walk<'a> {
    pod: &'a Pod,
    probes: &'a ProbeView,
    /// Main containers have run before: only sidecars need care.
    initialized_before: bool,
    actions: &'a mut PodActions,
    /// Collected from the last to the first.
    starts: Vec<usize>,
    done: bool,
}

/// Adds the starts and kills of init containers to `actions` and says whether
/// the pod is initialized, so that main containers may run.
///
/// Only containers of the pod's present sandbox count: a new sandbox begins with
/// the first init container. The walk goes backwards: earlier init containers may
/// have been removed already, the latest known one tells how far the pod has come.
pub fn init_actions(pod: &Pod, runtime: &RuntimePod, probes: &ProbeView, actions: &mut PodActions) -> bool {
    let containers = spec::init_containers(pod);
    if containers.is_empty() {
        return true;
    }
    let before = is_initialized(pod, runtime);
    let mut walk = Walk { pod, probes, initialized_before: before, actions, starts: Vec::new(), done: before };
    let mut found = before;
    for (index, container) in containers.iter().enumerate().rev() {
        let sidecar = spec::is_sidecar(container);
        let Some(newest) = runtime.present_container(&container.name) else {
            if found && sidecar {
                walk.starts.push(index);
            }
            continue;
        };
        if found && !sidecar {
            continue;
        }
        // The newest known container of the sequence decides how it goes on.
        let decides = !found;
        if !walk.visit(index, container, newest, decides) {
            walk.starts.clear();
            return false;
        }
        found = true;
    }
    if !found {
        walk.starts.push(0);
    }
    let (done, mut starts) = (walk.done, walk.starts);
    starts.sort_unstable();
    starts.dedup();
    actions.start_init.extend(starts.into_iter().map(|index| StartContainer {
        kind: ContainerKind::Init,
        index,
        name: containers[index].name.clone(),
    }));
    done
}

impl Walk<'_> {
    fn advance(&mut self, index: usize) {
        if index + 1 == spec::init_containers(self.pod).len() {
            self.done = true;
        } else {
            self.starts.push(index + 1);
        }
    }

    /// False: the pod has failed for good.
    fn visit(&mut self, index: usize, container: &Container, newest: &RuntimeContainer, decides: bool) -> bool {
        let sidecar = spec::is_sidecar(container);
        match newest.status.state {
            // Left behind between create and start: it is made anew.
            ContainerState::Created => self.starts.push(index),
            ContainerState::Running => self.visit_running(index, container, newest, decides),
            ContainerState::Exited if sidecar => {
                self.starts.push(index);
                // A sidecar that had started once does not hold up its successors
                // for ever, yet upstream waits until it runs again; so do we.
            }
            ContainerState::Exited if init_succeeded(newest) => {
                if decides {
                    self.advance(index);
                }
            }
            ContainerState::Exited => {
                if !restarts_after(self.pod, container, newest.status.exit_code) {
                    self.actions.kill_pod = true;
                    return false;
                }
                self.starts.push(index);
            }
            // Nobody knows whether it ran: a pod that runs nothing twice ends.
            ContainerState::Unknown if !sidecar && !restarts_after(self.pod, container, KILLED) => {
                self.actions.kill_pod = true;
                return false;
            }
            ContainerState::Unknown => {
                self.kill(
                    container,
                    newest,
                    KillReason::Unknown,
                    "is in an unknown state, try killing it before restart",
                );
                self.starts.push(index);
            }
        }
        true
    }

    fn visit_running(&mut self, index: usize, container: &Container, newest: &RuntimeContainer, decides: bool) {
        if !spec::is_sidecar(container) {
            return;
        }
        let results = self.probes.get(newest.id());
        let has = |probe: bool, outcome: ProbeOutcome| probe && outcome == ProbeOutcome::Failure;
        if newest.hash != spec::container_hash(container) {
            self.restart(index, container, newest, KillReason::SpecChanged, "definition changed, will be restarted");
        } else if has(container.startup_probe.is_some(), results.startup) {
            self.restart(index, container, newest, KillReason::StartupProbe, "failed startup probe, will be restarted");
        } else if container.startup_probe.is_some() && results.startup != ProbeOutcome::Success {
            // Not started yet: the sequence waits for it.
        } else if has(container.liveness_probe.is_some(), results.liveness) {
            self.restart(
                index,
                container,
                newest,
                KillReason::LivenessProbe,
                "failed liveness probe, will be restarted",
            );
        } else if decides && !self.initialized_before {
            self.advance(index);
        }
    }

    fn restart(&mut self, index: usize, c: &Container, newest: &RuntimeContainer, reason: KillReason, why: &str) {
        self.kill(c, newest, reason, why);
        self.starts.push(index);
    }

    fn kill(&mut self, container: &Container, newest: &RuntimeContainer, reason: KillReason, why: &str) {
        self.actions.kill.push(KillContainer {
            id: newest.id().clone(),
            name: container.name.clone(),
            reason,
            message: format!("Init container {} {why}", container.name),
        });
    }
}

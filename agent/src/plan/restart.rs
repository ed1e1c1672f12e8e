//! Whether a container that ended runs again.

use cri::types::ContainerState;
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::convert::spec::{self, RestartPolicy};
use crate::podcache::{RuntimeContainer, RuntimePod};

/// The policy that counts for a container: its own, else the pod's.
pub fn policy_of(pod: &Pod, container: &Container) -> RestartPolicy {
    match container.restart_policy.as_deref() {
        Some(own) => RestartPolicy::parse(Some(own)),
        None => spec::restart_policy(pod),
    }
}

/// Whether `restartPolicyRules` demand a restart after `exit_code`.
fn rule_restarts(container: &Container, exit_code: i32) -> bool {
    container.restart_policy_rules.iter().flatten().any(|rule| {
        let Some(codes) = &rule.exit_codes else { return false };
        let listed = codes.values.iter().flatten().any(|v| *v == exit_code);
        rule.action == "Restart" && if codes.operator == "NotIn" { !listed } else { listed }
    })
}

/// Whether an ended container runs again.
pub fn restarts_after(pod: &Pod, container: &Container, exit_code: i32) -> bool {
    if rule_restarts(container, exit_code) {
        return true;
    }
    match policy_of(pod, container) {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => exit_code != 0,
        RestartPolicy::Never => false,
    }
}

/// Whether the container has to be started, given its newest instance.
pub fn should_start(pod: &Pod, container: &Container, newest: Option<&RuntimeContainer>) -> bool {
    let Some(newest) = newest else { return true };
    match newest.status.state {
        ContainerState::Running => false,
        ContainerState::Created | ContainerState::Unknown => true,
        ContainerState::Exited => restarts_after(pod, container, newest.status.exit_code),
    }
}

/// Whether a main container has been created in the pod's present sandbox, so
/// that the init containers must have run in it before. Containers of an earlier
/// sandbox prove nothing: in a new one all init containers run again.
pub fn is_initialized(pod: &Pod, runtime: &RuntimePod) -> bool {
    created(pod, |name| runtime.present_container(name))
}

/// Whether a main container has been created in any sandbox of the pod.
pub fn was_ever_initialized(pod: &Pod, runtime: &RuntimePod) -> bool {
    created(pod, |name| runtime.container(name))
}

fn created<'a>(pod: &Pod, newest: impl Fn(&str) -> Option<&'a RuntimeContainer>) -> bool {
    spec::containers(pod).iter().any(|c| newest(&c.name).is_some_and(|r| r.status.state != ContainerState::Unknown))
}

/// Whether an init container is done with success.
pub fn init_succeeded(container: &RuntimeContainer) -> bool {
    container.status.state == ContainerState::Exited && container.status.exit_code == 0
}

//! Labels and annotations the agent puts on sandboxes and containers, under
//! upstream's keys and in upstream's form, so that a restarted agent, or upstream's
//! kubelet, adopts them.

use cri::types::StringMap;
use k8s_openapi::api::core::v1::{Container, ContainerPort, LifecycleHandler, Pod, ResourceRequirements};

use super::spec;

pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";

pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
pub const CONTAINER_RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
pub const CONTAINER_TERMINATION_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub const CONTAINER_TERMINATION_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
pub const CONTAINER_PRE_STOP: &str = "io.kubernetes.container.preStopHandler";
pub const CONTAINER_PORTS: &str = "io.kubernetes.container.ports";
/// Not upstream's, which keeps a file of its own: the requests and limits.
pub const CONTAINER_RESOURCES: &str = "copepod.io/container.resources";
pub const POD_DELETION_GRACE: &str = "io.kubernetes.pod.deletionGracePeriod";
pub const POD_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";

/// The spec hash a container was created with; 0 when absent or malformed.
pub fn container_hash(annotations: &StringMap) -> u64 {
    annotations.get(CONTAINER_HASH).and_then(|v| u64::from_str_radix(v, 16).ok()).unwrap_or(0)
}

/// The restart count a container was created with, else its attempt number.
pub fn restart_count(annotations: &StringMap, attempt: u32) -> u32 {
    annotations.get(CONTAINER_RESTART_COUNT).and_then(|v| v.parse().ok()).unwrap_or(attempt)
}

/// The preStop hook a container was created with.
pub fn pre_stop(annotations: &StringMap) -> Option<LifecycleHandler> {
    annotations.get(CONTAINER_PRE_STOP).and_then(|text| serde_json::from_str(text).ok())
}

/// The resources a container was created with.
pub fn resources(annotations: &StringMap) -> Option<ResourceRequirements> {
    annotations.get(CONTAINER_RESOURCES).and_then(|text| serde_json::from_str(text).ok())
}

/// The ports a container was created with.
pub fn ports(annotations: &StringMap) -> Option<Vec<ContainerPort>> {
    annotations.get(CONTAINER_PORTS).and_then(|text| serde_json::from_str(text).ok())
}

/// Labels of a pod's sandbox: the pod's own and its identity.
pub fn sandbox_labels(pod: &Pod) -> StringMap {
    let mut labels = pod.metadata.labels.clone().unwrap_or_default();
    labels.extend(identity(pod));
    labels
}

/// Annotations of a pod's sandbox: the pod's own and where it came from.
pub fn sandbox_annotations(pod: &Pod) -> StringMap {
    pod.metadata.annotations.clone().unwrap_or_default()
}

/// Labels of one container.
pub fn container_labels(pod: &Pod, container: &Container) -> StringMap {
    let mut labels: StringMap = identity(pod).into_iter().collect();
    labels.insert(CONTAINER_NAME.to_owned(), container.name.clone());
    labels
}

fn identity(pod: &Pod) -> [(String, String); 3] {
    let text = |v: &Option<String>| v.clone().unwrap_or_default();
    [
        (POD_NAME.to_owned(), text(&pod.metadata.name)),
        (POD_NAMESPACE.to_owned(), text(&pod.metadata.namespace)),
        (POD_UID.to_owned(), text(&pod.metadata.uid)),
    ]
}

/// Annotations of one container: what a later agent needs to go on with it even
/// when the pod object is gone.
pub fn container_annotations(pod: &Pod, container: &Container, restart_count: u32) -> StringMap {
    let mut out = StringMap::new();
    let mut put = |key: &str, value: String| out.insert(key.to_owned(), value);
    put(CONTAINER_HASH, format!("{:x}", spec::container_hash(container)));
    put(CONTAINER_RESTART_COUNT, restart_count.to_string());
    put(
        CONTAINER_TERMINATION_PATH,
        container.termination_message_path.clone().unwrap_or_else(|| "/dev/termination-log".to_owned()),
    );
    put(
        CONTAINER_TERMINATION_POLICY,
        container.termination_message_policy.clone().unwrap_or_else(|| "File".to_owned()),
    );
    if let Some(seconds) = pod.metadata.deletion_grace_period_seconds {
        put(POD_DELETION_GRACE, seconds.to_string());
    }
    if let Some(seconds) = spec::spec(pod).termination_grace_period_seconds {
        put(POD_GRACE, seconds.to_string());
    }
    if let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref()) {
        put(CONTAINER_PRE_STOP, serde_json::to_string(hook).unwrap_or_default());
    }
    if let Some(resources) = &container.resources {
        put(CONTAINER_RESOURCES, serde_json::to_string(resources).unwrap_or_default());
    }
    if let Some(ports) = container.ports.as_ref().filter(|p| !p.is_empty()) {
        put(CONTAINER_PORTS, serde_json::to_string(ports).unwrap_or_default());
    }
    out
}

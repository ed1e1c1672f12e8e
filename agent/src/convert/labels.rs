//! Labels and annotations the agent puts on sandboxes and containers, under
//! upstream's keys, so that a restarted agent (or upstream's) can adopt them.

use cri::types::StringMap;

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

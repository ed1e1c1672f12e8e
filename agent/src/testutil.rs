//! Small builders for tests of several modules.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use cri::types::{
    ContainerMetadata, ContainerState, ContainerStatus, NamespaceMode, NamespaceOptions, SandboxMetadata, SandboxState,
    SandboxStatus, SandboxSummary, StringMap,
};
use cri::{ContainerId, SandboxId};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::config::{DnsSettings, Paths};
use crate::convert::resources::MemoryControl;
use crate::convert::{container, labels};
use crate::ids::{ObjectName, PodUid};
use crate::podcache::RuntimePod;
use crate::podworker::WorkerSettings;

/// A pod named `p` in `ns` with uid `u`; `spec` is YAML below `spec:`.
pub fn pod(spec: &str) -> Pod {
    let text = format!("metadata: {{name: p, namespace: ns, uid: u, generation: 1}}\nspec:\n{spec}");
    let mut pod: Pod = serde_norway::from_str(&text).unwrap();
    let s = pod.spec.as_mut().unwrap();
    for c in s.containers.iter_mut().chain(s.init_containers.iter_mut().flatten()) {
        c.image.get_or_insert_with(|| "img".to_owned());
    }
    pod
}

/// Seconds after an arbitrary origin.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

/// A sandbox.
pub fn sandbox(attempt: u32, ready: bool, host: bool) -> SandboxStatus {
    let network = if host { NamespaceMode::Node } else { NamespaceMode::Pod };
    SandboxStatus {
        summary: SandboxSummary {
            id: SandboxId::new(format!("s{attempt}")),
            metadata: SandboxMetadata { name: "p".into(), uid: "u".into(), namespace: "ns".into(), attempt },
            state: if ready { SandboxState::Ready } else { SandboxState::NotReady },
            created_at: Some(at(i64::from(attempt))),
            labels: StringMap::new(),
            annotations: StringMap::new(),
            runtime_handler: String::new(),
        },
        ips: if host { vec![] } else { vec!["10.42.0.2".into()] },
        namespaces: NamespaceOptions { network, ..NamespaceOptions::default() },
        pid: None,
    }
}

/// One instance of a container of `pod`: `exit` is its code once exited. Later
/// attempts are newer.
pub fn instance(pod: &Pod, name: &str, attempt: u32, state: ContainerState, exit: i32) -> (SandboxId, ContainerStatus) {
    let annotations =
        container::find(pod, name).map(|(_, c)| labels::container_annotations(pod, &c, attempt)).unwrap_or_default();
    let began = i64::from(attempt) * 100;
    let status = ContainerStatus {
        id: ContainerId::new(format!("{name}-{attempt}")),
        metadata: ContainerMetadata { name: name.to_owned(), attempt },
        state,
        created_at: Some(at(10 + began)),
        started_at: (state != ContainerState::Created).then(|| at(11 + began)),
        finished_at: (state == ContainerState::Exited).then(|| at(12 + began)),
        exit_code: exit,
        image: "img".into(),
        image_ref: "sha256:1".into(),
        reason: if exit == 0 { "Completed".into() } else { "Error".into() },
        message: String::new(),
        labels: StringMap::new(),
        annotations,
        log_path: String::new(),
        mounts: vec![],
        pid: None,
    };
    (SandboxId::new("s0"), status)
}

/// The runtime's view of pod `u`.
pub fn runtime(sandboxes: Vec<SandboxStatus>, containers: Vec<(SandboxId, ContainerStatus)>) -> RuntimePod {
    RuntimePod::assemble(PodUid::new("u"), ObjectName::new("ns", "p"), sandboxes, containers)
}

/// Settings of workers whose files are below a directory.
pub fn worker_settings(dir: &Path) -> WorkerSettings {
    let mut paths = Paths::below(dir);
    paths.pod_logs = dir.join("logs");
    paths.resolv_conf = "/dev/null".into();
    WorkerSettings {
        node_name: "n1".into(),
        paths,
        dns: DnsSettings { servers: vec!["10.43.0.10".into()], domain: "cluster.local".into() },
        cfs_quota: true,
        cfs_period: 100_000,
        pod_pids_limit: None,
        memory: MemoryControl::default(),
        seccomp_default: false,
        max_crash_backoff: Duration::from_secs(300),
        allowed_unsafe_sysctls: vec![],
        runtime_name: "fake".into(),
    }
}

//! The one owner of what dead containers leave: their instances in the runtime,
//! the logs of each, and the sandboxes they were in.
//!
//! One dead instance per container stays while its pod runs, for its logs and
//! its last state. When disk is short, finished pods keep none.

use std::path::PathBuf;

use cri::{ContainerId, RuntimeService, SandboxId};
use futures::future::join_all;
use k8s_openapi::api::core::v1::PodStatus;

use crate::logs;
use crate::plan::container_gc::{Garbage, garbage};
use crate::podcache::RuntimePod;
use crate::podworker::Deps;

/// Removes the pod's garbage: with `all`, everything dead. Returns the view
/// without what went, if anything did; what could not be removed is tried again
/// with the next call.
pub async fn collect(runtime: &dyn RuntimeService, pod: &RuntimePod, all: bool) -> Option<RuntimePod> {
    let garbage = garbage(pod, 1, all);
    if garbage == Garbage::default() {
        return None;
    }
    let removed = join_all(garbage.containers.iter().map(|id| remove_container(runtime, pod, id))).await;
    let gone: Vec<&ContainerId> =
        garbage.containers.iter().zip(removed).filter_map(|(id, removed)| removed.then_some(id)).collect();
    let mut view = pod.clone();
    view.containers.retain(|c| !gone.contains(&c.id()));
    let empty = |id: &&SandboxId| !view.containers.iter().any(|c| c.sandbox == **id);
    let sandboxes: Vec<&SandboxId> = garbage.sandboxes.iter().filter(empty).collect();
    let removed = join_all(sandboxes.iter().map(|id| runtime.remove_pod_sandbox(id))).await;
    for (id, result) in sandboxes.into_iter().zip(removed) {
        match result {
            Ok(()) => view.sandboxes.retain(|s| s.summary.id != *id),
            Err(error) => tracing::debug!(pod.uid = %pod.uid, %error, "dead sandbox not removed"),
        }
    }
    (view != *pod).then_some(view)
}

/// Whether it went. Its logs go first: afterwards nobody would know of them.
async fn remove_container(runtime: &dyn RuntimeService, pod: &RuntimePod, id: &ContainerId) -> bool {
    let log = pod.containers.iter().find(|c| c.id() == id).map(|c| PathBuf::from(&c.status.log_path));
    if let Some(log) = log.filter(|log| log.is_absolute()) {
        let removed = tokio::task::spawn_blocking(move || logs::remove(&log)).await;
        if let Err(error) = removed.map_err(std::io::Error::other).flatten() {
            tracing::warn!(pod.uid = %pod.uid, container.id = %id, %error, "logs of a dead container not removed");
            return false;
        }
    }
    match runtime.remove_container(id).await {
        Ok(()) => true,
        Err(error) => {
            tracing::debug!(pod.uid = %pod.uid, container.id = %id, %error, "dead container not removed");
            false
        }
    }
}

/// Removes every dead container of pods that have finished.
pub async fn reclaim(deps: &Deps) {
    for pod in deps.cache.all() {
        let status = deps.status.get(&pod.uid);
        if !has_finished(status.as_deref(), deps.admission.has(&pod.uid)) || pod.is_running() {
            continue;
        }
        if let Some(left) = collect(deps.runtime.as_ref(), &pod, true).await {
            tracing::info!(pod.uid = %pod.uid, "removed dead containers");
            deps.cache.put(left);
        }
    }
}

/// Whether nothing of a pod will run again: its worker reported the end and gave
/// its room back. A pod without a status was not looked at yet. Pure.
fn has_finished(status: Option<&PodStatus>, admitted: bool) -> bool {
    let phase = status.and_then(|s| s.phase.as_deref());
    !admitted && matches!(phase, Some("Succeeded" | "Failed"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use cri::fake::{FakeRuntime, Op, runtime_error};
    use cri::types::{ContainerConfig, ContainerMetadata, SandboxConfig, SandboxMetadata};

    use super::*;
    use crate::ids::{ObjectName, PodUid};
    use crate::podworker::refresh::read_pod;

    /// A pod of which a container ran `instances` times; every log was rotated once.
    async fn pod(logs: &Path, instances: u32) -> (std::sync::Arc<FakeRuntime>, RuntimePod) {
        let runtime = FakeRuntime::new();
        runtime.add_image("img:1");
        let (uid, name) = (PodUid::new("u"), ObjectName::new("ns", "p"));
        let labels = [(crate::convert::labels::POD_UID.to_owned(), uid.to_string())];
        let sandbox = SandboxConfig {
            metadata: SandboxMetadata { name: "p".into(), uid: "u".into(), namespace: "ns".into(), attempt: 0 },
            log_directory: logs.to_str().unwrap().to_owned(),
            labels: labels.clone().into(),
            ..SandboxConfig::default()
        };
        let id = runtime.run_pod_sandbox(&sandbox, "").await.unwrap();
        std::fs::create_dir_all(logs.join("c")).unwrap();
        for attempt in 0..instances {
            let config = ContainerConfig {
                metadata: ContainerMetadata { name: "c".into(), attempt },
                image: "img:1".into(),
                log_path: format!("c/{attempt}.log"),
                labels: labels.clone().into(),
                ..ContainerConfig::default()
            };
            let container = runtime.create_container(&id, &config, &sandbox).await.unwrap();
            runtime.start_container(&container).await.unwrap();
            runtime.exit_container(&container, 1);
            for suffix in ["", ".20260101-000000.gz"] {
                std::fs::write(logs.join(format!("c/{attempt}.log{suffix}")), "x").unwrap();
            }
        }
        let view = read_pod(runtime.as_ref(), &uid, &name, None).await.unwrap();
        (runtime, view)
    }

    fn files(logs: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(logs.join("c")).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn logs_go_with_their_container() {
        let dir = tempfile::tempdir().unwrap();
        let (runtime, view) = pod(dir.path(), 3).await;
        let left = collect(runtime.as_ref(), &view, false).await.unwrap();
        assert_eq!((left.containers.len(), runtime.containers().len()), (1, 1));
        assert_eq!(files(dir.path()), ["2.log", "2.log.20260101-000000.gz"], "the last one's stay");
        assert_eq!(collect(runtime.as_ref(), &left, false).await, None);
    }

    #[tokio::test]
    async fn what_stays_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let (runtime, view) = pod(dir.path(), 2).await;
        runtime.fail_next(Op::RemoveContainer, 1, runtime_error(Op::RemoveContainer, "busy"));
        assert_eq!(collect(runtime.as_ref(), &view, false).await, None);
        assert_eq!(runtime.containers().len(), 2);
        let left = collect(runtime.as_ref(), &view, false).await.unwrap();
        assert_eq!((left.containers.len(), runtime.containers().len()), (1, 1));
    }

    #[test]
    fn only_what_was_reported_as_over_is_finished() {
        let status = |phase: &str| PodStatus { phase: Some(phase.to_owned()), ..PodStatus::default() };
        assert!(has_finished(Some(&status("Failed")), false));
        assert!(has_finished(Some(&status("Succeeded")), false));
        assert!(!has_finished(Some(&status("Succeeded")), true), "its volumes are not gone yet");
        assert!(!has_finished(Some(&status("Running")), false));
        assert!(!has_finished(None, false), "nobody looked at it yet");
    }
}

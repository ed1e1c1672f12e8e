//! Removes dead containers with the logs of each, and the sandboxes they were in.
//!
//! One dead instance per container stays while its pod runs, for its logs and
//! its last state. When disk is short, finished pods keep none.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use cri::types::ContainerState;
use cri::{ContainerId, CriError, RuntimeService, SandboxId};
use futures::future::join_all;
use k8s_openapi::api::core::v1::PodStatus;

use super::logs;
use super::plan::containers::{Garbage, Keep, garbage};
use crate::podcache::{RuntimeContainer, RuntimePod};
use crate::podworker::Deps;

/// What a container in an unknown state gets to stop: upstream's shortest grace.
const UNKNOWN_GRACE: Duration = Duration::from_secs(2);

/// Why a container is still there.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    #[error("remove logs of container {id}: {source}")]
    Logs {
        id: ContainerId,
        #[source]
        source: io::Error,
    },
    #[error("{0}")]
    Runtime(#[from] CriError),
}

/// Removes a container that does not run, and its logs. Those go first: afterwards nobody would know of them. They stay
/// while they are another one's of `others`, too: tries with the same restart count write to one file.
pub async fn remove_container<'a>(
    runtime: &dyn RuntimeService,
    container: &RuntimeContainer,
    others: impl IntoIterator<Item = &'a RuntimeContainer>,
) -> Result<(), RemoveError> {
    let (id, log) = (container.id(), PathBuf::from(&container.status.log_path));
    if container.status.state == ContainerState::Unknown {
        // It may run (pkg/kubelet/kuberuntime/kuberuntime_gc.go: `removeOldestN`).
        runtime.stop_container(id, UNKNOWN_GRACE).await?;
    }
    let shared = others.into_iter().any(|o| o.id() != id && o.status.log_path == container.status.log_path);
    if log.is_absolute() && !shared {
        let removed = tokio::task::spawn_blocking(move || logs::remove(&log)).await;
        let removed = removed.map_err(io::Error::other).flatten();
        removed.map_err(|source| RemoveError::Logs { id: id.clone(), source })?;
    }
    Ok(runtime.remove_container(id).await?)
}

/// Removes a sandbox with whatever is in it. It is stopped before, however dead it is: the network of one that died by
/// itself is still there (pkg/kubelet/kuberuntime/kuberuntime_gc.go: `removeSandbox`).
async fn remove_sandbox(runtime: &dyn RuntimeService, id: &SandboxId) -> Result<(), CriError> {
    runtime.stop_pod_sandbox(id).await?;
    runtime.remove_pod_sandbox(id).await
}

/// Removes all that the runtime has of a pod: each sandbox with its containers, and containers whose sandbox the
/// runtime has lost. Whether nothing is left of it.
pub async fn remove_all(runtime: &dyn RuntimeService, pod: &RuntimePod) -> bool {
    let sandboxes = remove_sandboxes(runtime, pod, pod.sandboxes.iter().map(|s| &s.summary.id));
    let lost = |c: &&RuntimeContainer| !pod.sandboxes.iter().any(|s| s.summary.id == c.sandbox);
    let containers = remove_containers(runtime, pod, pod.containers.iter().filter(lost));
    let (sandboxes, containers) = tokio::join!(sandboxes, containers);
    sandboxes.into_iter().all(|(_, gone)| gone) && containers.into_iter().all(|(_, gone)| gone)
}

/// Removes these, whatever becomes of the others; which of them went.
async fn remove_containers<'a>(
    runtime: &dyn RuntimeService,
    pod: &RuntimePod,
    containers: impl Iterator<Item = &'a RuntimeContainer>,
) -> Vec<(&'a ContainerId, bool)> {
    let going: Vec<&RuntimeContainer> = containers.collect();
    let staying: Vec<_> = pod.containers.iter().filter(|c| !going.iter().any(|g| g.id() == c.id())).collect();
    let removals = going.iter().map(|&container| async {
        let removed = remove_container(runtime, container, staying.iter().copied()).await;
        if let Err(error) = &removed {
            tracing::warn!(pod.uid = %pod.uid, container.id = %container.id(), %error, "dead container not removed");
        }
        (container.id(), removed.is_ok())
    });
    join_all(removals).await
}

/// The same for sandboxes.
async fn remove_sandboxes<'a>(
    runtime: &dyn RuntimeService,
    pod: &RuntimePod,
    sandboxes: impl Iterator<Item = &'a SandboxId>,
) -> Vec<(&'a SandboxId, bool)> {
    let removals = sandboxes.map(|id| async move {
        let removed = remove_sandbox(runtime, id).await;
        if let Err(error) = &removed {
            tracing::warn!(pod.uid = %pod.uid, sandbox.id = %id, %error, "sandbox not removed");
        }
        (id, removed.is_ok())
    });
    join_all(removals).await
}

/// Removes the pod's garbage. Returns the view without what went, if anything did;
/// what could not be removed is tried again with the next call.
pub async fn collect(runtime: &dyn RuntimeService, pod: &RuntimePod, keep: Keep) -> Option<RuntimePod> {
    let garbage = garbage(pod, keep);
    if garbage == Garbage::default() {
        return None;
    }
    let dead = pod.containers.iter().filter(|c| garbage.containers.contains(c.id()));
    let removed = remove_containers(runtime, pod, dead).await;
    let mut view = pod.clone();
    view.containers.retain(|c| !removed.contains(&(c.id(), true)));
    let empty = |id: &&SandboxId| !view.containers.iter().any(|c| c.sandbox == **id);
    let removed = remove_sandboxes(runtime, pod, garbage.sandboxes.iter().filter(empty)).await;
    view.sandboxes.retain(|s| !removed.contains(&(&s.summary.id, true)));
    (view != *pod).then_some(view)
}

/// Whether there is something of a pod to collect while it is wanted.
pub fn has_garbage(pod: &RuntimePod) -> bool {
    garbage(pod, Keep::Last) != Garbage::default()
}

/// Removes every dead container of pods that have finished. Until the API server shows that they have, their containers
/// alone say so: without these an agent that starts anew would run such a pod again.
pub async fn reclaim(deps: &Deps) {
    for pod in deps.cache.all() {
        let status = deps.status.get_written(&pod.uid);
        if !has_finished(status.as_deref(), deps.admission.has(&pod.uid)) || pod.is_running() {
            continue;
        }
        if let Some(left) = collect(deps.runtime.as_ref(), &pod, Keep::Nothing).await {
            tracing::info!(pod.uid = %pod.uid, "removed dead containers");
            deps.cache.replace(&pod, left);
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
        let left = collect(runtime.as_ref(), &view, Keep::Last).await.unwrap();
        assert_eq!((left.containers.len(), runtime.containers().len()), (1, 1));
        assert_eq!(files(dir.path()), ["2.log", "2.log.20260101-000000.gz"], "the last one's stay");
        assert_eq!(collect(runtime.as_ref(), &left, Keep::Last).await, None);
    }

    /// Tries with the same restart count write to one file.
    #[tokio::test]
    async fn logs_stay_with_whoever_else_writes_to_them() {
        let dir = tempfile::tempdir().unwrap();
        let (runtime, mut view) = pod(dir.path(), 3).await;
        let last = view.containers.iter().find(|c| c.status.metadata.attempt == 2).unwrap().status.log_path.clone();
        for container in view.containers.iter_mut().filter(|c| c.status.metadata.attempt == 1) {
            container.status.log_path = last.clone();
        }
        let left = collect(runtime.as_ref(), &view, Keep::Last).await.unwrap();
        assert_eq!((left.containers.len(), runtime.containers().len()), (1, 1));
        let own = ["1.log", "1.log.20260101-000000.gz", "2.log", "2.log.20260101-000000.gz"];
        assert_eq!(files(dir.path()), own);
        collect(runtime.as_ref(), &left, Keep::Nothing).await.unwrap();
        assert_eq!(files(dir.path()), own[..2], "nobody writes to the last one's any more");
    }

    #[tokio::test]
    async fn what_stays_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let (runtime, view) = pod(dir.path(), 2).await;
        runtime.fail_next(Op::RemoveContainer, 1, runtime_error(Op::RemoveContainer, "busy"));
        assert_eq!(collect(runtime.as_ref(), &view, Keep::Last).await, None);
        assert_eq!(runtime.containers().len(), 2);
        let left = collect(runtime.as_ref(), &view, Keep::Last).await.unwrap();
        assert_eq!((left.containers.len(), runtime.containers().len()), (1, 1));
    }

    /// The network of a sandbox whose process died is there until it is stopped.
    #[tokio::test]
    async fn sandboxes_are_stopped_before_they_go_and_none_keeps_another() {
        let dir = tempfile::tempdir().unwrap();
        let (runtime, view) = pod(dir.path(), 0).await;
        let first = view.sandboxes[0].summary.id.clone();
        let mut config = runtime.sandbox_config(&first).unwrap();
        config.metadata.attempt = 1;
        let second = runtime.run_pod_sandbox(&config, "").await.unwrap();
        for id in [&first, &second] {
            runtime.exit_sandbox(id);
        }
        let view = read_pod(runtime.as_ref(), &view.uid, &view.name, None).await.unwrap();
        runtime.fail_next(Op::StopPodSandbox, 1, runtime_error(Op::StopPodSandbox, "no network to free"));
        let left = collect(runtime.as_ref(), &view, Keep::Nothing).await.unwrap();
        assert_eq!((left.sandboxes.len(), runtime.sandboxes().len()), (1, 1), "one could not be stopped");
        assert!(remove_all(runtime.as_ref(), &left).await);
        let last = runtime.calls().into_iter().map(|call| call.op).rev().take(2);
        assert_eq!(last.collect::<Vec<_>>(), [Op::RemovePodSandbox, Op::StopPodSandbox]);
        assert!(runtime.sandboxes().is_empty());
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

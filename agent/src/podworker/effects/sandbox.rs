//! Creating the sandbox of a pod.

use std::sync::Arc;

use cri::types::{SandboxConfig, SandboxStatus};
use cri::{CriError, SandboxId};
use k8s_openapi::api::core::v1::Pod;

use crate::cgroup::Weighing;
use crate::convert::qos::{QosClass, qos_class};
use crate::convert::resources::{self, pod_cgroup_limits};
use crate::convert::sandbox::{SandboxContext, SandboxError, sandbox_config};
use crate::ids::PodUid;
use crate::podworker::deps::Deps;
use crate::resolver;
use crate::runtimeclass::RuntimeClassError;

/// Why a pod has no sandbox.
#[derive(Debug, thiserror::Error)]
pub(super) enum CreateSandboxError {
    #[error(transparent)]
    Config(#[from] SandboxError),
    #[error("the node's resolver configuration: {0}")]
    Resolver(#[source] std::io::Error),
    #[error(transparent)]
    RuntimeClass(#[from] RuntimeClassError),
    #[error("failed to create sandbox: {0}")]
    Run(#[source] CriError),
    #[error("failed to get sandbox status: {0}")]
    Status(#[source] CriError),
}

/// The configuration of the pod's sandbox with that attempt.
pub(super) fn config(deps: &Deps, pod: &Pod, attempt: u32) -> Result<SandboxConfig, CreateSandboxError> {
    let settings = &deps.settings;
    let parent = match &deps.cgroups {
        Some(tree) => tree.parent(qos_class(pod), &PodUid::of(pod)),
        None => String::new(),
    };
    let host_dns = resolver::host_dns(&settings.paths.resolv_conf).map_err(CreateSandboxError::Resolver)?;
    let ctx = SandboxContext {
        attempt,
        dns: &settings.dns,
        host_dns: &host_dns,
        pod_logs: &settings.paths.pod_logs,
        cgroup_parent: parent,
        limits: pod_cgroup_limits(pod, &deps.resources(), settings.pod_pids_limit),
    };
    Ok(sandbox_config(pod, &ctx)?)
}

/// Runs a sandbox and asks for its address. When the answer is lost, the next
/// look at the runtime finds the sandbox and adopts it.
pub(super) async fn create(
    deps: &Deps,
    pod: &Pod,
    config: &SandboxConfig,
) -> Result<SandboxStatus, CreateSandboxError> {
    let handler = deps.runtime_classes.handler(pod).await?;
    let id: SandboxId = deps.runtime.run_pod_sandbox(config, &handler).await.map_err(CreateSandboxError::Run)?;
    deps.runtime.pod_sandbox_status(&id).await.map_err(CreateSandboxError::Status)
}

/// The pod's cgroup, made or changed.
pub(super) async fn ensure_cgroup(deps: &Deps, pod: &Arc<Pod>) -> Result<(), crate::cgroup::CgroupError> {
    let Some(tree) = &deps.cgroups else { return Ok(()) };
    let limits = pod_cgroup_limits(pod, &deps.resources(), deps.settings.pod_pids_limit);
    let class = qos_class(pod);
    tree.ensure_pod(&PodUid::of(pod), class, &limits).await?;
    if class == QosClass::Burstable {
        // It counts from now on; what ended is taken out by housekeeping.
        let shares = resources::shares(deps.admission.burstable_milli_cpu());
        tree.weigh_burstable(Weighing::AtLeast(shares)).await?;
    }
    Ok(())
}

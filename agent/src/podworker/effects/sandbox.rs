//! Creating the sandbox of a pod.

use std::sync::Arc;

use cri::types::{DnsConfig, SandboxConfig, SandboxStatus};
use cri::{CriError, SandboxId};
use k8s_openapi::api::core::v1::Pod;

use crate::cgroup::Weighing;
use crate::convert::dns::{HostDns, PodDns, pod_dns};
use crate::convert::qos::{QosClass, qos_class};
use crate::convert::resources::{self, pod_cgroup_limits};
use crate::convert::sandbox::{SandboxContext, SandboxError, sandbox_config};
use crate::events::EventType;
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
    let ctx = SandboxContext {
        attempt,
        dns: resolver_config(deps, pod)?,
        cluster_domain: &settings.dns.domain,
        pod_logs: &settings.paths.pod_logs,
        cgroup_parent: parent,
        limits: pod_cgroup_limits(pod, &deps.resources(), settings.pod_pids_limit),
    };
    Ok(sandbox_config(pod, &ctx)?)
}

/// The pod's resolver configuration. What is wrong with it is told by events, as upstream's
/// (pkg/kubelet/network/dns/dns.go).
fn resolver_config(deps: &Deps, pod: &Pod) -> Result<DnsConfig, CreateSandboxError> {
    let settings = &deps.settings;
    let config = resolver::host_dns(&settings.paths.resolv_conf).map_err(CreateSandboxError::Resolver)?;
    let node = deps.node_view();
    let host = HostDns { config: config.as_ref(), addresses: &node.host_ips };
    let PodDns { config, left_out, misses_cluster } = pod_dns(pod, &settings.dns, host);
    if misses_cluster {
        let text = "the node knows no cluster DNS: policy ClusterFirst is taken for Default";
        deps.events.node(&settings.node_name, EventType::Warning, "MissingClusterDNS", text);
        deps.events.pod(pod, EventType::Warning, "MissingClusterDNS", text);
    }
    for text in left_out {
        deps.events.pod(pod, EventType::Warning, "DNSConfigForming", text);
    }
    Ok(config)
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

//! [`RuntimeService`] over gRPC.

use std::time::Duration;

use async_trait::async_trait;
use k8s_cri::v1;

use super::{CriClient, seconds};
use crate::channel::Call;
use crate::convert::{request, response};
use crate::error::{CriError, Result};
use crate::events;
use crate::id::{ContainerId, SandboxId};
use crate::service::{ContainerEvents, RuntimeService};
use crate::types::{
    AttachRequest, CgroupDriver, ContainerConfig, ContainerFilter, ContainerState, ContainerStats, ContainerStatus,
    ContainerSummary, ExecOutput, ExecRequest, LinuxContainerResources, RuntimeStatus, SandboxConfig, SandboxFilter,
    SandboxStatus, SandboxSummary, Version,
};

/// Gone is as good as stopped or removed.
fn gone_is_done<T>(result: Result<T>) -> Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(e) if e.is_not_found() => Ok(()),
        Err(e) => Err(e),
    }
}

/// What containerd answers about a container that ends just when it is to be
/// stopped or removed. containerd closes its connection to the shim of one that
/// has ended, and a kill on its way fails with that though nothing is left to kill;
/// one that has ended counts as running until its event has been seen.
const PASSING: [&str; 2] = ["ttrpc: closed", "container is still running, to stop first"];
/// Doubled seven times: for 1.3 s an end is asked for.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_millis(640);

/// Ends a container or a sandbox, and asks again while that cannot be done yet.
async fn ended<T, F: Future<Output = Result<T>>>(ask: impl Fn() -> F) -> Result<()> {
    let mut pause = FIRST_PAUSE;
    loop {
        let result = ask().await;
        let passing = match &result {
            Err(CriError::Runtime { message, .. }) => {
                // containerd 1.6 adds the class of an error that came over gRPC within it.
                let message = message.trim_end_matches(": unknown");
                PASSING.iter().any(|words| message.ends_with(words))
            }
            _ => false,
        };
        if !passing || pause > LAST_PAUSE {
            return gone_is_done(result);
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

impl CriClient {
    fn call(&self, op: &'static str, object: impl ToString) -> Call {
        Call::new(op, object, self.deadlines.request)
    }
}

#[async_trait]
impl RuntimeService for CriClient {
    async fn version(&self) -> Result<Version> {
        let call = self.call("Version", "");
        let answer = call.send(self.runtime().version(v1::VersionRequest { version: "v1".to_owned() })).await?;
        response::version(answer).map_err(|e| call.malformed(e))
    }

    async fn status(&self) -> Result<RuntimeStatus> {
        let call = self.call("Status", "");
        let answer = call.send(self.runtime().status(v1::StatusRequest { verbose: false })).await?;
        response::status(answer).map_err(|e| call.malformed(e))
    }

    async fn cgroup_driver(&self) -> Result<Option<CgroupDriver>> {
        let call = self.call("RuntimeConfig", "");
        let answer = call.send(self.runtime().runtime_config(v1::RuntimeConfigRequest {})).await?;
        response::cgroup_driver(answer).map_err(|e| call.malformed(e))
    }

    async fn update_pod_cidr(&self, pod_cidr: &str) -> Result<()> {
        let call = self.call("UpdateRuntimeConfig", pod_cidr);
        let network_config = Some(v1::NetworkConfig { pod_cidr: pod_cidr.to_owned() });
        let message = v1::UpdateRuntimeConfigRequest { runtime_config: Some(v1::RuntimeConfig { network_config }) };
        call.send(self.runtime().update_runtime_config(message)).await.map(drop)
    }

    async fn run_pod_sandbox(&self, config: &SandboxConfig, runtime_handler: &str) -> Result<SandboxId> {
        let m = &config.metadata;
        let object = format!("{}/{}", m.namespace, m.name);
        let call = Call::new("RunPodSandbox", object, self.deadlines.run_pod_sandbox);
        let message = v1::RunPodSandboxRequest {
            config: Some(request::sandbox_config(config)),
            runtime_handler: runtime_handler.to_owned(),
        };
        let answer = call.send(self.runtime().run_pod_sandbox(message)).await?;
        response::sandbox_id(answer.pod_sandbox_id).map_err(|e| call.malformed(e))
    }

    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<()> {
        let call = self.call("StopPodSandbox", id);
        let message = v1::StopPodSandboxRequest { pod_sandbox_id: id.to_string() };
        ended(|| async { call.send(self.runtime().stop_pod_sandbox(message.clone())).await }).await
    }

    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<()> {
        let call = self.call("RemovePodSandbox", id);
        let message = v1::RemovePodSandboxRequest { pod_sandbox_id: id.to_string() };
        ended(|| async { call.send(self.runtime().remove_pod_sandbox(message.clone())).await }).await
    }

    async fn pod_sandbox_status(&self, id: &SandboxId) -> Result<SandboxStatus> {
        let call = self.call("PodSandboxStatus", id);
        let message = v1::PodSandboxStatusRequest { pod_sandbox_id: id.to_string(), verbose: true };
        let answer = call.send(self.runtime().pod_sandbox_status(message)).await?;
        response::sandbox_status(answer).map_err(|e| call.malformed(e))
    }

    async fn list_pod_sandboxes(&self, filter: &SandboxFilter) -> Result<Vec<SandboxSummary>> {
        let call = self.call("ListPodSandbox", "");
        let message = v1::ListPodSandboxRequest { filter: Some(request::sandbox_filter(filter)) };
        let answer = call.send(self.runtime().list_pod_sandbox(message)).await?;
        let items: std::result::Result<_, _> = answer.items.into_iter().map(response::sandbox_summary).collect();
        items.map_err(|e| call.malformed(e))
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
        sandbox_config: &SandboxConfig,
    ) -> Result<ContainerId> {
        let call = self.call("CreateContainer", format!("{} in sandbox {sandbox}", config.metadata.name));
        let message = v1::CreateContainerRequest {
            pod_sandbox_id: sandbox.to_string(),
            config: Some(request::container_config(config)),
            sandbox_config: Some(request::sandbox_config(sandbox_config)),
        };
        let answer = call.send(self.runtime().create_container(message)).await?;
        response::container_id(answer.container_id).map_err(|e| call.malformed(e))
    }

    async fn start_container(&self, id: &ContainerId) -> Result<()> {
        let call = self.call("StartContainer", id);
        let message = v1::StartContainerRequest { container_id: id.to_string() };
        call.send(self.runtime().start_container(message)).await.map(drop)
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<()> {
        let call = Call::new("StopContainer", id, grace.saturating_add(self.deadlines.request));
        let message = v1::StopContainerRequest { container_id: id.to_string(), timeout: seconds(grace) };
        ended(|| async { call.send(self.runtime().stop_container(message.clone())).await }).await
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<()> {
        let call = self.call("RemoveContainer", id);
        let message = v1::RemoveContainerRequest { container_id: id.to_string() };
        ended(|| async { call.send(self.runtime().remove_container(message.clone())).await }).await
    }

    async fn container_status(&self, id: &ContainerId) -> Result<ContainerStatus> {
        let call = self.call("ContainerStatus", id);
        let message = v1::ContainerStatusRequest { container_id: id.to_string(), verbose: true };
        let answer = call.send(self.runtime().container_status(message)).await?;
        response::container_status(answer).map_err(|e| call.malformed(e))
    }

    async fn list_containers(&self, filter: &ContainerFilter) -> Result<Vec<ContainerSummary>> {
        let call = self.call("ListContainers", "");
        let message = v1::ListContainersRequest { filter: Some(request::container_filter(filter)) };
        let answer = call.send(self.runtime().list_containers(message)).await?;
        let items: std::result::Result<_, _> = answer.containers.into_iter().map(response::container_summary).collect();
        items.map_err(|e| call.malformed(e))
    }

    async fn update_container_resources(&self, id: &ContainerId, resources: &LinuxContainerResources) -> Result<()> {
        let call = self.call("UpdateContainerResources", id);
        let message = v1::UpdateContainerResourcesRequest {
            container_id: id.to_string(),
            linux: Some(request::resources(resources)),
            ..Default::default()
        };
        call.send(self.runtime().update_container_resources(message)).await.map(drop)
    }

    async fn reopen_container_log(&self, id: &ContainerId) -> Result<()> {
        let call = self.call("ReopenContainerLog", id);
        let message = v1::ReopenContainerLogRequest { container_id: id.to_string() };
        call.send(self.runtime().reopen_container_log(message)).await.map(drop)
    }

    async fn exec_sync(&self, id: &ContainerId, command: &[String], timeout: Duration) -> Result<ExecOutput> {
        let mut call = self.call("ExecSync", id);
        // Zero means no limit, as upstream: the runtime waits, and so do we.
        call.deadline = (!timeout.is_zero()).then(|| timeout.saturating_add(self.deadlines.request));
        let message =
            v1::ExecSyncRequest { container_id: id.to_string(), cmd: command.to_vec(), timeout: seconds(timeout) };
        let answer = match call.send(self.runtime().exec_sync(message)).await {
            // The runtime's timeout is the caller's, without our margin.
            Err(CriError::DeadlineExceeded { op, object, .. }) => {
                return Err(CriError::DeadlineExceeded { op, object, deadline: timeout });
            }
            other => other?,
        };
        Ok(ExecOutput { stdout: answer.stdout, stderr: answer.stderr, exit_code: answer.exit_code })
    }

    async fn exec(&self, r: &ExecRequest) -> Result<String> {
        let call = self.call("Exec", &r.container);
        let message = v1::ExecRequest {
            container_id: r.container.to_string(),
            cmd: r.command.clone(),
            tty: r.tty,
            stdin: r.stdin,
            stdout: r.stdout,
            stderr: r.stderr,
        };
        let answer = call.send(self.runtime().exec(message)).await?;
        response::url(answer.url).map_err(|e| call.malformed(e))
    }

    async fn attach(&self, r: &AttachRequest) -> Result<String> {
        let call = self.call("Attach", &r.container);
        let message = v1::AttachRequest {
            container_id: r.container.to_string(),
            stdin: r.stdin,
            tty: r.tty,
            stdout: r.stdout,
            stderr: r.stderr,
        };
        let answer = call.send(self.runtime().attach(message)).await?;
        response::url(answer.url).map_err(|e| call.malformed(e))
    }

    async fn port_forward(&self, sandbox: &SandboxId, ports: &[u16]) -> Result<String> {
        let call = self.call("PortForward", sandbox);
        let message = v1::PortForwardRequest {
            pod_sandbox_id: sandbox.to_string(),
            port: ports.iter().map(|p| i32::from(*p)).collect(),
        };
        let answer = call.send(self.runtime().port_forward(message)).await?;
        response::url(answer.url).map_err(|e| call.malformed(e))
    }

    async fn list_container_stats(&self, filter: &ContainerFilter) -> Result<Vec<ContainerStats>> {
        let call = self.call("ListContainerStats", "");
        let message = v1::ListContainerStatsRequest { filter: Some(request::stats_filter(filter)) };
        let answer = call.send(self.runtime().list_container_stats(message)).await?;
        let items: std::result::Result<Vec<_>, _> = answer.stats.into_iter().map(response::container_stats).collect();
        let items = items.map_err(|e| call.malformed(e))?;
        match filter.state {
            // Runtimes measure what runs, and nothing else.
            None | Some(ContainerState::Running) => Ok(items),
            Some(_) => Ok(Vec::new()),
        }
    }

    async fn container_events(&self) -> Result<ContainerEvents> {
        events::subscribe(self).await
    }
}

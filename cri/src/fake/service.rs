//! The traits, on the fake's state.

use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, future};
use jiff::Timestamp;
use tokio_stream::wrappers::BroadcastStream;

use super::state::{State, not_found};
use super::{Behavior, FakeRuntime, Op, lock};
use crate::error::{CriError, Result};
use crate::id::{ContainerId, ImageRef, SandboxId};
use crate::service::{ContainerEvents, ImageService, RuntimeService};
use crate::types::{
    AttachRequest, AuthConfig, CgroupDriver, ContainerConfig, ContainerFilter, ContainerState, ContainerStats,
    ContainerStatus, ContainerSummary, ExecOutput, ExecRequest, FilesystemUsage, Image, LinuxContainerResources,
    RuntimeStatus, SandboxConfig, SandboxFilter, SandboxStatus, SandboxSummary, StringMap, Version,
};

/// Where `exec`, `attach` and `port_forward` lead: nobody answers there.
const STREAMING_URL: &str = "http://127.0.0.1:1";

fn selects(selector: &StringMap, labels: &StringMap) -> bool {
    selector.iter().all(|(k, v)| labels.get(k) == Some(v))
}

fn container_matches(c: &ContainerSummary, f: &ContainerFilter) -> bool {
    f.id.as_ref().is_none_or(|id| *id == c.id)
        && f.sandbox.as_ref().is_none_or(|id| *id == c.sandbox)
        && f.state.is_none_or(|s| s == c.state)
        && selects(&f.labels, &c.labels)
}

impl FakeRuntime {
    /// One call: recorded, delayed, failed or done as scripted.
    async fn act<T>(&self, op: Op, object: impl ToString, work: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let verdict = lock(&self.script).take(op, object.to_string());
        if let Some(delay) = verdict.delay {
            tokio::time::sleep(delay).await;
        }
        if let Some(error) = verdict.fail {
            return Err(error);
        }
        let done = work(&mut self.state());
        match verdict.lose {
            Some(error) => done.and(Err(error)),
            None => done,
        }
    }

    /// Needs a running container.
    fn running_container(state: &State, op: Op, id: &ContainerId) -> Result<()> {
        let container = state.containers.get(id).ok_or_else(|| not_found(op.as_str(), id))?;
        if container.status.state == ContainerState::Running {
            return Ok(());
        }
        let message = "container is not running".to_owned();
        Err(CriError::Runtime { op: op.as_str(), object: id.to_string(), message })
    }
}

#[async_trait]
impl RuntimeService for FakeRuntime {
    async fn version(&self) -> Result<Version> {
        let version = Version {
            runtime_name: "fake".to_owned(),
            runtime_version: "1.0.0".to_owned(),
            runtime_api_version: "v1".to_owned(),
        };
        self.act(Op::Version, "", |_| Ok(version)).await
    }

    async fn status(&self) -> Result<RuntimeStatus> {
        let status = |s: &mut State| {
            Ok(RuntimeStatus {
                conditions: s.conditions.clone(),
                handlers: s.features.handlers.clone(),
                supplemental_groups_policy: s.features.supplemental_groups_policy,
            })
        };
        self.act(Op::Status, "", status).await
    }

    async fn cgroup_driver(&self) -> Result<Option<CgroupDriver>> {
        self.act(Op::RuntimeConfig, "", |_| Ok(Some(CgroupDriver::Cgroupfs))).await
    }

    async fn update_pod_cidr(&self, pod_cidr: &str) -> Result<()> {
        self.act(Op::UpdateRuntimeConfig, pod_cidr, |s| {
            pod_cidr.clone_into(&mut s.pod_cidr);
            Ok(())
        })
        .await
    }

    async fn run_pod_sandbox(&self, config: &SandboxConfig, runtime_handler: &str) -> Result<SandboxId> {
        let object = format!("{}/{}", config.metadata.namespace, config.metadata.name);
        self.act(Op::RunPodSandbox, object, |s| {
            let (id, events) = s.run_sandbox(config, runtime_handler)?;
            self.emit(events);
            Ok(id)
        })
        .await
    }

    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<()> {
        self.act(Op::StopPodSandbox, id, |s| {
            self.emit(s.stop_sandbox(id));
            Ok(())
        })
        .await
    }

    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<()> {
        self.act(Op::RemovePodSandbox, id, |s| {
            self.emit(s.remove_sandbox(id));
            Ok(())
        })
        .await
    }

    async fn pod_sandbox_status(&self, id: &SandboxId) -> Result<SandboxStatus> {
        let op = Op::PodSandboxStatus;
        let find = |s: &mut State| s.sandboxes.get(id).map(|s| s.status.clone());
        self.act(op, id, |s| find(s).ok_or_else(|| not_found(op.as_str(), id))).await
    }

    async fn list_pod_sandboxes(&self, f: &SandboxFilter) -> Result<Vec<SandboxSummary>> {
        let matches = |s: &SandboxSummary| {
            f.id.as_ref().is_none_or(|id| *id == s.id)
                && f.state.is_none_or(|state| state == s.state)
                && selects(&f.labels, &s.labels)
        };
        let list = |s: &mut State| s.sandboxes.values().map(|s| s.status.summary.clone()).filter(matches).collect();
        self.act(Op::ListPodSandbox, "", |s| Ok(list(s))).await
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
        _sandbox_config: &SandboxConfig,
    ) -> Result<ContainerId> {
        self.act(Op::CreateContainer, &config.metadata.name, |s| {
            let (id, event) = s.create(sandbox, config)?;
            self.emit([event]);
            Ok(id)
        })
        .await
    }

    async fn start_container(&self, id: &ContainerId) -> Result<()> {
        self.act(Op::StartContainer, id, |s| {
            self.emit(s.start(id)?);
            Ok(())
        })
        .await
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<()> {
        let stubborn =
            self.state().containers.get(id).is_some_and(|c| {
                c.status.state == ContainerState::Running && c.behavior == Behavior::IgnoresStopSignal
            });
        if stubborn {
            tokio::time::sleep(grace).await;
        }
        self.act(Op::StopContainer, id, |s| {
            let killed = stubborn || grace.is_zero();
            let (code, reason) = if killed { (137, "Error") } else { (0, "Completed") };
            self.emit(s.end(id, code, reason));
            Ok(())
        })
        .await
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<()> {
        self.act(Op::RemoveContainer, id, |s| {
            self.emit(s.remove_container(id));
            Ok(())
        })
        .await
    }

    async fn container_status(&self, id: &ContainerId) -> Result<ContainerStatus> {
        let op = Op::ContainerStatus;
        let find = |s: &mut State| s.containers.get(id).map(|c| c.status.clone());
        self.act(op, id, |s| find(s).ok_or_else(|| not_found(op.as_str(), id))).await
    }

    async fn list_containers(&self, filter: &ContainerFilter) -> Result<Vec<ContainerSummary>> {
        let list = |s: &mut State| {
            s.containers
                .values()
                .map(super::state::Container::summary)
                .filter(|c| container_matches(c, filter))
                .collect()
        };
        self.act(Op::ListContainers, "", |s| Ok(list(s))).await
    }

    async fn update_container_resources(&self, id: &ContainerId, resources: &LinuxContainerResources) -> Result<()> {
        let op = Op::UpdateContainerResources;
        self.act(op, id, |s| {
            let container = s.containers.get_mut(id).ok_or_else(|| not_found(op.as_str(), id))?;
            container.resources = resources.clone();
            Ok(())
        })
        .await
    }

    async fn reopen_container_log(&self, id: &ContainerId) -> Result<()> {
        let op = Op::ReopenContainerLog;
        self.act(op, id, |s| Self::running_container(s, op, id)).await
    }

    async fn exec_sync(&self, id: &ContainerId, command: &[String], timeout: Duration) -> Result<ExecOutput> {
        let op = Op::ExecSync;
        let object = format!("{id}: {}", command.join(" "));
        let call = self.act(op, object, |s| Self::running_container(s, op, id));
        if timeout.is_zero() {
            call.await?;
        } else {
            tokio::time::timeout(timeout, call).await.unwrap_or_else(|_| {
                Err(CriError::DeadlineExceeded { op: op.as_str(), object: id.to_string(), deadline: timeout })
            })?;
        }
        let hook = lock(&self.exec).clone();
        hook.map_or_else(|| Ok(ExecOutput::default()), |hook| hook(id, command))
    }

    async fn exec(&self, request: &ExecRequest) -> Result<String> {
        let op = Op::Exec;
        self.act(op, &request.container, |s| {
            Self::running_container(s, op, &request.container)?;
            Ok(format!("{STREAMING_URL}/exec/{}", request.container))
        })
        .await
    }

    async fn attach(&self, request: &AttachRequest) -> Result<String> {
        let op = Op::Attach;
        self.act(op, &request.container, |s| {
            Self::running_container(s, op, &request.container)?;
            Ok(format!("{STREAMING_URL}/attach/{}", request.container))
        })
        .await
    }

    async fn port_forward(&self, sandbox: &SandboxId, _ports: &[u16]) -> Result<String> {
        let op = Op::PortForward;
        self.act(op, sandbox, |s| {
            if !s.sandboxes.contains_key(sandbox) {
                return Err(not_found(op.as_str(), sandbox));
            }
            Ok(format!("{STREAMING_URL}/portforward/{sandbox}"))
        })
        .await
    }

    async fn list_container_stats(&self, filter: &ContainerFilter) -> Result<Vec<ContainerStats>> {
        let stats = |c: ContainerSummary| ContainerStats {
            id: c.id,
            metadata: c.metadata,
            labels: c.labels,
            at: Some(Timestamp::now()),
            cpu_usage_nanos: Some(1_000_000),
            memory_working_set: Some(1 << 20),
            memory_rss: Some(1 << 20),
            rootfs_used: Some(4096),
            rootfs_inodes: Some(1),
        };
        let list = |s: &mut State| {
            let all = s.containers.values().map(super::state::Container::summary);
            all.filter(|c| c.state == ContainerState::Running && container_matches(c, filter)).map(stats).collect()
        };
        self.act(Op::ListContainerStats, "", |s| Ok(list(s))).await
    }

    async fn container_events(&self) -> Result<ContainerEvents> {
        self.act(Op::GetContainerEvents, "", |_| {
            let receiver = lock(&self.events).subscribe();
            // A receiver that lags behind loses its stream, and relists.
            let events = BroadcastStream::new(receiver).take_while(|e| future::ready(e.is_ok()));
            Ok(events.filter_map(|e| future::ready(e.ok().map(Ok))).boxed())
        })
        .await
    }
}

#[async_trait]
impl ImageService for FakeRuntime {
    async fn list_images(&self) -> Result<Vec<Image>> {
        self.act(Op::ListImages, "", |s| Ok(s.images.iter().map(|n| State::describe(n)).collect())).await
    }

    async fn image_status(&self, image: &ImageRef) -> Result<Option<Image>> {
        self.act(Op::ImageStatus, image, |s| Ok(s.image(image.as_str()))).await
    }

    async fn pull_image(
        &self,
        image: &ImageRef,
        auth: Option<&AuthConfig>,
        _sandbox_config: &SandboxConfig,
    ) -> Result<ImageRef> {
        let op = Op::PullImage;
        self.act(op, image, |s| {
            let asked = s.passwords.get(image.as_str());
            let allowed = asked.is_none_or(|password| auth.is_some_and(|auth| auth.password == *password));
            if !allowed || !s.remote_images.contains(image.as_str()) {
                return Err(not_found(op.as_str(), image));
            }
            s.images.insert(image.to_string());
            s.image(image.as_str()).map(|i| i.id).ok_or_else(|| not_found(op.as_str(), image))
        })
        .await
    }

    async fn remove_image(&self, image: &ImageRef) -> Result<()> {
        self.act(Op::RemoveImage, image, |s| {
            if let Some(found) = s.image(image.as_str()) {
                s.images.retain(|name| !found.repo_tags.contains(name));
            }
            Ok(())
        })
        .await
    }

    async fn image_fs_info(&self) -> Result<Vec<FilesystemUsage>> {
        let usage = FilesystemUsage { mountpoint: "/".to_owned(), used_bytes: 1 << 20, inodes_used: 10 };
        self.act(Op::ImageFsInfo, "", |_| Ok(vec![usage])).await
    }
}

//! The runtime's contract in our own vocabulary: what the agent may ask of it.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::error::Result;
use crate::id::{ContainerId, ImageRef, SandboxId};
use crate::types::{
    AttachRequest, AuthConfig, CgroupDriver, ContainerConfig, ContainerEvent, ContainerFilter, ContainerStats,
    ContainerStatus, ContainerSummary, ExecOutput, ExecRequest, FilesystemUsage, Image, LinuxContainerResources,
    RuntimeStatus, SandboxConfig, SandboxFilter, SandboxStatus, SandboxSummary, Version,
};

/// Container events as they happen. The stream ends when the runtime goes away;
/// the caller relists and subscribes again.
pub type ContainerEvents = BoxStream<'static, Result<ContainerEvent>>;

/// Sandboxes and containers. Stop and remove succeed when the object is gone.
#[async_trait]
pub trait RuntimeService: Send + Sync + Debug {
    /// Name and version of the runtime.
    async fn version(&self) -> Result<Version>;
    /// Conditions (`RuntimeReady`, `NetworkReady`) and runtime handlers.
    async fn status(&self) -> Result<RuntimeStatus>;
    /// How the runtime is configured to manage cgroups, if it says so. Runtimes
    /// before containerd 2 answer `CriError::Unimplemented`.
    async fn cgroup_driver(&self) -> Result<Option<CgroupDriver>>;
    /// Tells the runtime the node's pod CIDRs, comma separated.
    async fn update_pod_cidr(&self, pod_cidr: &str) -> Result<()>;

    /// Creates and starts a sandbox; `runtime_handler` "" is the default one.
    async fn run_pod_sandbox(&self, config: &SandboxConfig, runtime_handler: &str) -> Result<SandboxId>;
    /// Stops every process of the sandbox and frees its network. Idempotent.
    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<()>;
    /// Removes a sandbox and its containers. Idempotent.
    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<()>;
    /// One sandbox in full.
    async fn pod_sandbox_status(&self, id: &SandboxId) -> Result<SandboxStatus>;
    /// All sandboxes that match.
    async fn list_pod_sandboxes(&self, filter: &SandboxFilter) -> Result<Vec<SandboxSummary>>;

    /// Creates a container without starting it.
    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
        sandbox_config: &SandboxConfig,
    ) -> Result<ContainerId>;
    /// Starts a created container.
    async fn start_container(&self, id: &ContainerId) -> Result<()>;
    /// Sends the stop signal, then SIGKILL after `grace`. Waits for the end.
    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<()>;
    /// Removes a container, running or not. Idempotent.
    async fn remove_container(&self, id: &ContainerId) -> Result<()>;
    /// One container in full.
    async fn container_status(&self, id: &ContainerId) -> Result<ContainerStatus>;
    /// All containers that match.
    async fn list_containers(&self, filter: &ContainerFilter) -> Result<Vec<ContainerSummary>>;
    /// Changes the cgroup limits of a running container.
    async fn update_container_resources(&self, id: &ContainerId, resources: &LinuxContainerResources) -> Result<()>;
    /// Makes the runtime open the log file anew, after a rotation.
    async fn reopen_container_log(&self, id: &ContainerId) -> Result<()>;

    /// Runs a command to its end; a timeout is `CriError::DeadlineExceeded`.
    async fn exec_sync(&self, id: &ContainerId, command: &[String], timeout: Duration) -> Result<ExecOutput>;
    /// URL of the runtime's streaming server for an exec session.
    async fn exec(&self, request: &ExecRequest) -> Result<String>;
    /// URL of the runtime's streaming server for an attach session.
    async fn attach(&self, request: &AttachRequest) -> Result<String>;
    /// URL of the runtime's streaming server for port forwarding.
    async fn port_forward(&self, sandbox: &SandboxId, ports: &[u16]) -> Result<String>;

    /// Usage of every container that matches.
    async fn list_container_stats(&self, filter: &ContainerFilter) -> Result<Vec<ContainerStats>>;
    /// Events from now on; list after subscribing, so that nothing is missed.
    async fn container_events(&self) -> Result<ContainerEvents>;
}

/// Images of the runtime.
#[async_trait]
pub trait ImageService: Send + Sync + Debug {
    /// Every local image.
    async fn list_images(&self) -> Result<Vec<Image>>;
    /// One local image, or `None` when it is absent.
    async fn image_status(&self, image: &ImageRef) -> Result<Option<Image>>;
    /// Pulls an image and returns its local id.
    async fn pull_image(
        &self,
        image: &ImageRef,
        auth: Option<&AuthConfig>,
        sandbox_config: &SandboxConfig,
    ) -> Result<ImageRef>;
    /// Removes an image. Idempotent.
    async fn remove_image(&self, image: &ImageRef) -> Result<()>;
    /// Usage of the file systems that hold images.
    async fn image_fs_info(&self) -> Result<Vec<FilesystemUsage>>;
}

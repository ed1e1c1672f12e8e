//! Plain data of the CRI contract: configurations, states and filters.
//!
//! Field by field what CRI v1's `api.proto` describes, in Rust's words; times
//! are [`jiff::Timestamp`], never nanoseconds in an `i64`.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::id::{ContainerId, ImageRef, SandboxId};

/// Labels or annotations.
pub type StringMap = BTreeMap<String, String>;

/// The runtime's name and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub runtime_name: String,
    pub runtime_version: String,
    pub runtime_api_version: String,
}

/// One of the runtime's conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeCondition {
    /// `RuntimeReady` or `NetworkReady`.
    pub kind: String,
    pub status: bool,
    pub reason: String,
    pub message: String,
}

/// What `Status` reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeStatus {
    pub conditions: Vec<RuntimeCondition>,
    /// What is known of runtime handlers; runtimes before containerd 2 say nothing.
    pub handlers: Vec<RuntimeHandler>,
    /// Whether groups of the image can be left out of a container's.
    pub supplemental_groups_policy: bool,
}

/// A runtime handler and what it can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeHandler {
    /// "" is the default one.
    pub name: String,
    pub recursive_read_only_mounts: bool,
    pub user_namespaces: bool,
}

/// Who manages the cgroups of pods: agent and runtime must agree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupDriver {
    #[default]
    Cgroupfs,
    Systemd,
}

/// Identity of a sandbox. `attempt` distinguishes the tries for one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SandboxMetadata {
    pub name: String,
    pub uid: String,
    pub namespace: String,
    pub attempt: u32,
}

/// Identity of a container within its sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ContainerMetadata {
    pub name: String,
    pub attempt: u32,
}

/// The resolver configuration of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsConfig {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

/// A transport protocol of a port mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

/// A host port that leads to a port of the sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortMapping {
    pub protocol: Protocol,
    pub container_port: u16,
    pub host_port: u16,
    pub host_ip: String,
}

/// Whose namespace a container shares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NamespaceMode {
    #[default]
    Pod,
    Container,
    Node,
}

/// Namespaces of a sandbox or container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceOptions {
    pub network: NamespaceMode,
    pub pid: NamespaceMode,
    pub ipc: NamespaceMode,
}

impl Default for NamespaceOptions {
    fn default() -> Self {
        Self { network: NamespaceMode::Pod, pid: NamespaceMode::Container, ipc: NamespaceMode::Pod }
    }
}

/// A seccomp or AppArmor profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SecurityProfile {
    #[default]
    RuntimeDefault,
    Unconfined,
    /// Path (seccomp) or name (AppArmor) of a profile on the node.
    Localhost(String),
}

/// SELinux label parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelinuxOption {
    pub user: String,
    pub role: String,
    pub kind: String,
    pub level: String,
}

/// Security of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SandboxSecurity {
    pub namespaces: NamespaceOptions,
    pub run_as_user: Option<i64>,
    pub run_as_group: Option<i64>,
    pub supplemental_groups: Vec<i64>,
    /// Whether these are all, without the groups that the image has for the user.
    pub strict_supplemental_groups: bool,
    pub readonly_rootfs: bool,
    pub privileged: bool,
    pub seccomp: Option<SecurityProfile>,
    pub selinux: Option<SelinuxOption>,
}

/// Security of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerSecurity {
    pub add_capabilities: Vec<String>,
    pub drop_capabilities: Vec<String>,
    pub privileged: bool,
    pub namespaces: NamespaceOptions,
    /// A container whose processes this one is put among, whatever `namespaces` says.
    pub pid_target: Option<ContainerId>,
    pub run_as_user: Option<i64>,
    pub run_as_username: String,
    pub run_as_group: Option<i64>,
    pub supplemental_groups: Vec<i64>,
    /// Whether these are all, without the groups that the image has for the user.
    pub strict_supplemental_groups: bool,
    pub readonly_rootfs: bool,
    pub no_new_privs: bool,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    pub seccomp: Option<SecurityProfile>,
    pub apparmor: Option<SecurityProfile>,
    pub selinux: Option<SelinuxOption>,
}

/// cgroup limits; `None` or zero leaves a limit alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinuxContainerResources {
    /// Microseconds.
    pub cpu_period: i64,
    /// Microseconds per period.
    pub cpu_quota: i64,
    pub cpu_shares: i64,
    /// Bytes.
    pub memory_limit: i64,
    pub oom_score_adj: i64,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    /// Raw cgroup v2 files and values.
    pub unified: StringMap,
    /// Bytes of memory and swap together.
    pub memory_swap_limit: i64,
    /// Bytes of huge pages by size, as the kernel names sizes (`2MB`).
    pub hugepage_limits: BTreeMap<String, u64>,
}

/// What a sandbox is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SandboxConfig {
    pub metadata: SandboxMetadata,
    pub hostname: String,
    /// Directory that holds the container logs.
    pub log_directory: String,
    /// `None` copies the node's resolver.
    pub dns: Option<DnsConfig>,
    pub port_mappings: Vec<PortMapping>,
    pub labels: StringMap,
    pub annotations: StringMap,
    /// In the form of the runtime's cgroup driver.
    pub cgroup_parent: String,
    pub sysctls: StringMap,
    pub security: SandboxSecurity,
    pub overhead: Option<LinuxContainerResources>,
    pub resources: Option<LinuxContainerResources>,
}

/// How mounts travel between host and container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MountPropagation {
    #[default]
    Private,
    HostToContainer,
    Bidirectional,
}

/// A bind mount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    pub container_path: String,
    pub host_path: String,
    pub readonly: bool,
    /// Whether what is mounted below is read-only, too.
    pub recursive_read_only: bool,
    pub selinux_relabel: bool,
    pub propagation: MountPropagation,
}

/// A device node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    pub container_path: String,
    pub host_path: String,
    /// Some of `r`, `w`, `m`.
    pub permissions: String,
}

/// What a container is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerConfig {
    pub metadata: ContainerMetadata,
    pub image: String,
    /// The image as the user wrote it.
    pub user_specified_image: String,
    pub command: Vec<String>,
    pub args: Vec<String>,
    pub working_dir: String,
    pub envs: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    pub devices: Vec<Device>,
    pub labels: StringMap,
    pub annotations: StringMap,
    /// Relative to the sandbox's log directory.
    pub log_path: String,
    pub stdin: bool,
    pub stdin_once: bool,
    pub tty: bool,
    pub resources: LinuxContainerResources,
    pub security: ContainerSecurity,
}

/// Whether a sandbox can take containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxState {
    Ready,
    NotReady,
}

/// A sandbox as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxSummary {
    pub id: SandboxId,
    pub metadata: SandboxMetadata,
    pub state: SandboxState,
    pub created_at: Option<Timestamp>,
    pub labels: StringMap,
    pub annotations: StringMap,
    pub runtime_handler: String,
}

/// A sandbox in full. `ips` is empty with the node's network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxStatus {
    pub summary: SandboxSummary,
    pub ips: Vec<String>,
    pub namespaces: NamespaceOptions,
    /// Process id of the pause process where the runtime tells.
    pub pid: Option<u32>,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerState {
    Created,
    Running,
    Exited,
    Unknown,
}

/// A container as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerSummary {
    pub id: ContainerId,
    pub sandbox: SandboxId,
    pub metadata: ContainerMetadata,
    pub image: String,
    pub image_ref: String,
    pub state: ContainerState,
    pub created_at: Option<Timestamp>,
    pub labels: StringMap,
    pub annotations: StringMap,
}

/// A container in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerStatus {
    pub id: ContainerId,
    pub metadata: ContainerMetadata,
    pub state: ContainerState,
    pub created_at: Option<Timestamp>,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub exit_code: i32,
    pub image: String,
    pub image_ref: String,
    /// A short word such as `Completed`, `Error`, `OOMKilled`.
    pub reason: String,
    pub message: String,
    pub labels: StringMap,
    pub annotations: StringMap,
    pub log_path: String,
    pub mounts: Vec<Mount>,
    /// Process id of the container's init process where the runtime tells.
    pub pid: Option<u32>,
}

/// Which sandboxes to list; empty matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SandboxFilter {
    pub id: Option<SandboxId>,
    pub state: Option<SandboxState>,
    pub labels: StringMap,
}

/// Which containers to list; empty matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerFilter {
    pub id: Option<ContainerId>,
    pub sandbox: Option<SandboxId>,
    pub state: Option<ContainerState>,
    pub labels: StringMap,
}

/// What a command left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOutput {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub exit_code: i32,
}

/// An interactive command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecRequest {
    pub container: ContainerId,
    pub command: Vec<String>,
    pub tty: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// A session on a container's own streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachRequest {
    pub container: ContainerId,
    pub tty: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// What a container uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerStats {
    pub id: ContainerId,
    pub metadata: ContainerMetadata,
    pub labels: StringMap,
    pub at: Option<Timestamp>,
    /// CPU time since the start, nanoseconds.
    pub cpu_usage_nanos: Option<u64>,
    /// Bytes that cannot be reclaimed easily.
    pub memory_working_set: Option<u64>,
    /// Bytes of anonymous memory.
    pub memory_rss: Option<u64>,
    /// Bytes written to the container's own layer.
    pub rootfs_used: Option<u64>,
    pub rootfs_inodes: Option<u64>,
}

/// What happened to a container or sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerEventKind {
    Created,
    Started,
    Stopped,
    Deleted,
    /// Out-of-memory kill.
    Oom,
}

/// Something happened to a container or to a sandbox's own process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerEvent {
    /// A container's or a sandbox's id: containerd does not always tell which.
    pub id: String,
    pub kind: ContainerEventKind,
    /// `None` where the source does not tell; look the id up then.
    pub sandbox: Option<SandboxMetadata>,
    pub at: Option<Timestamp>,
}

/// Credentials of a registry, for whatever host the image is pulled from: containerd drops those that name a server
/// unless that is a URL whose host is the very one it asks.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AuthConfig {
    pub username: String,
    pub password: String,
}

impl std::fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthConfig").field("username", &self.username).finish_non_exhaustive()
    }
}

/// A local image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub id: ImageRef,
    pub repo_tags: Vec<String>,
    pub repo_digests: Vec<String>,
    /// Bytes.
    pub size: u64,
    pub uid: Option<i64>,
    pub username: String,
    pub pinned: bool,
}

/// Usage of one file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesystemUsage {
    pub mountpoint: String,
    pub used_bytes: u64,
    pub inodes_used: u64,
}

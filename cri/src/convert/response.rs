//! What we receive: CRI messages as our types, garbage as [`Malformed`].

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_cri::v1;
use serde::Deserialize;

use super::Malformed;
use crate::id::{ContainerId, ImageRef, SandboxId};
use crate::types::{
    CgroupDriver, ContainerEvent, ContainerEventKind, ContainerMetadata, ContainerState, ContainerStats,
    ContainerStatus, ContainerSummary, FilesystemUsage, Image, Mount, MountPropagation, NamespaceMode,
    NamespaceOptions, RuntimeCondition, RuntimeHandler, RuntimeStatus, SandboxMetadata, SandboxState, SandboxStatus,
    SandboxSummary, StringMap, Version,
};

type Result<T> = std::result::Result<T, Malformed>;

fn map(m: HashMap<String, String>) -> StringMap {
    m.into_iter().collect()
}

/// Nanoseconds since the epoch; zero and Go's zero time (negative) mean "never".
fn time(nanos: i64) -> Option<Timestamp> {
    if nanos <= 0 { None } else { Timestamp::from_nanosecond(nanos.into()).ok() }
}

fn required<T>(value: Option<T>, field: &str) -> Result<T> {
    value.ok_or_else(|| Malformed::missing(field))
}

fn id(value: String, field: &str) -> Result<String> {
    if value.is_empty() { Err(Malformed::missing(field)) } else { Ok(value) }
}

pub(crate) fn sandbox_id(value: String) -> Result<SandboxId> {
    id(value, "pod_sandbox_id").map(SandboxId::new)
}

pub(crate) fn container_id(value: String) -> Result<ContainerId> {
    id(value, "container_id").map(ContainerId::new)
}

pub(crate) fn image_ref(value: String) -> Result<ImageRef> {
    id(value, "image_ref").map(ImageRef::new)
}

/// The URL of a streaming session.
pub(crate) fn url(value: String) -> Result<String> {
    if value.starts_with("http://") || value.starts_with("https://") {
        Ok(value)
    } else {
        Err(Malformed(format!("url {value:?} is not an http URL")))
    }
}

pub(crate) fn version(v: v1::VersionResponse) -> Result<Version> {
    Ok(Version {
        runtime_name: id(v.runtime_name, "runtime_name")?,
        runtime_version: v.runtime_version,
        runtime_api_version: v.runtime_api_version,
    })
}

pub(crate) fn status(s: v1::StatusResponse) -> Result<RuntimeStatus> {
    let conditions = required(s.status, "status")?.conditions;
    let condition = |c: v1::RuntimeCondition| RuntimeCondition {
        kind: c.r#type,
        status: c.status,
        reason: c.reason,
        message: c.message,
    };
    Ok(RuntimeStatus {
        conditions: conditions.into_iter().map(condition).collect(),
        handlers: s.runtime_handlers.into_iter().map(runtime_handler).collect(),
        supplemental_groups_policy: s.features.is_some_and(|f| f.supplemental_groups_policy),
    })
}

fn runtime_handler(h: v1::RuntimeHandler) -> RuntimeHandler {
    let features = h.features.unwrap_or_default();
    RuntimeHandler {
        name: h.name,
        recursive_read_only_mounts: features.recursive_read_only_mounts,
        user_namespaces: features.user_namespaces,
    }
}

/// `None` of a runtime that does not say.
pub(crate) fn cgroup_driver(c: v1::RuntimeConfigResponse) -> Result<Option<CgroupDriver>> {
    let Some(linux) = c.linux else { return Ok(None) };
    match v1::CgroupDriver::try_from(linux.cgroup_driver) {
        Ok(v1::CgroupDriver::Systemd) => Ok(Some(CgroupDriver::Systemd)),
        Ok(v1::CgroupDriver::Cgroupfs) => Ok(Some(CgroupDriver::Cgroupfs)),
        Err(_) => Err(Malformed(format!("cgroup driver {} is unknown", linux.cgroup_driver))),
    }
}

fn sandbox_metadata(m: Option<v1::PodSandboxMetadata>) -> Result<SandboxMetadata> {
    let m = required(m, "metadata")?;
    Ok(SandboxMetadata { name: m.name, uid: m.uid, namespace: m.namespace, attempt: m.attempt })
}

fn container_metadata(m: Option<v1::ContainerMetadata>) -> Result<ContainerMetadata> {
    let m = required(m, "metadata")?;
    Ok(ContainerMetadata { name: m.name, attempt: m.attempt })
}

fn sandbox_state(state: i32) -> Result<SandboxState> {
    match v1::PodSandboxState::try_from(state) {
        Ok(v1::PodSandboxState::SandboxReady) => Ok(SandboxState::Ready),
        Ok(v1::PodSandboxState::SandboxNotready) => Ok(SandboxState::NotReady),
        Err(_) => Err(Malformed(format!("sandbox state {state} is unknown"))),
    }
}

fn container_state(state: i32) -> Result<ContainerState> {
    match v1::ContainerState::try_from(state) {
        Ok(v1::ContainerState::ContainerCreated) => Ok(ContainerState::Created),
        Ok(v1::ContainerState::ContainerRunning) => Ok(ContainerState::Running),
        Ok(v1::ContainerState::ContainerExited) => Ok(ContainerState::Exited),
        Ok(v1::ContainerState::ContainerUnknown) => Ok(ContainerState::Unknown),
        Err(_) => Err(Malformed(format!("container state {state} is unknown"))),
    }
}

fn namespace_mode(mode: i32) -> Result<NamespaceMode> {
    match v1::NamespaceMode::try_from(mode) {
        Ok(v1::NamespaceMode::Pod) => Ok(NamespaceMode::Pod),
        Ok(v1::NamespaceMode::Container | v1::NamespaceMode::Target) => Ok(NamespaceMode::Container),
        Ok(v1::NamespaceMode::Node) => Ok(NamespaceMode::Node),
        Err(_) => Err(Malformed(format!("namespace mode {mode} is unknown"))),
    }
}

fn namespaces(options: Option<v1::NamespaceOption>) -> Result<NamespaceOptions> {
    let Some(o) = options else { return Ok(NamespaceOptions::default()) };
    Ok(NamespaceOptions {
        network: namespace_mode(o.network)?,
        pid: namespace_mode(o.pid)?,
        ipc: namespace_mode(o.ipc)?,
    })
}

pub(crate) fn sandbox_summary(s: v1::PodSandbox) -> Result<SandboxSummary> {
    Ok(SandboxSummary {
        id: sandbox_id(s.id)?,
        metadata: sandbox_metadata(s.metadata)?,
        state: sandbox_state(s.state)?,
        created_at: time(s.created_at),
        labels: map(s.labels),
        annotations: map(s.annotations),
        runtime_handler: s.runtime_handler,
    })
}

/// The part of containerd's verbose information that is of use.
#[derive(Deserialize)]
struct VerboseInfo {
    pid: Option<u32>,
}

/// The process id in verbose information; not part of the protocol, so its
/// absence or garbage is not an error.
fn pid(info: &HashMap<String, String>) -> Option<u32> {
    let info: VerboseInfo = serde_json::from_str(info.get("info")?).ok()?;
    info.pid.filter(|pid| *pid != 0)
}

pub(crate) fn sandbox_status(r: v1::PodSandboxStatusResponse) -> Result<SandboxStatus> {
    let pid = pid(&r.info);
    let s = required(r.status, "status")?;
    let mut ips = Vec::new();
    if let Some(network) = s.network {
        ips.push(network.ip);
        ips.extend(network.additional_ips.into_iter().map(|ip| ip.ip));
        ips.retain(|ip| !ip.is_empty());
    }
    let options = s.linux.and_then(|l| l.namespaces).and_then(|n| n.options);
    Ok(SandboxStatus {
        summary: SandboxSummary {
            id: sandbox_id(s.id)?,
            metadata: sandbox_metadata(s.metadata)?,
            state: sandbox_state(s.state)?,
            created_at: time(s.created_at),
            labels: map(s.labels),
            annotations: map(s.annotations),
            runtime_handler: s.runtime_handler,
        },
        ips,
        namespaces: namespaces(options)?,
        pid,
    })
}

pub(crate) fn container_summary(c: v1::Container) -> Result<ContainerSummary> {
    Ok(ContainerSummary {
        id: container_id(c.id)?,
        sandbox: sandbox_id(c.pod_sandbox_id)?,
        metadata: container_metadata(c.metadata)?,
        image: c.image.map(|i| i.image).unwrap_or_default(),
        image_ref: c.image_ref,
        state: container_state(c.state)?,
        created_at: time(c.created_at),
        labels: map(c.labels),
        annotations: map(c.annotations),
    })
}

fn mount(m: v1::Mount) -> Result<Mount> {
    let propagation = match v1::MountPropagation::try_from(m.propagation) {
        Ok(v1::MountPropagation::PropagationPrivate) => MountPropagation::Private,
        Ok(v1::MountPropagation::PropagationHostToContainer) => MountPropagation::HostToContainer,
        Ok(v1::MountPropagation::PropagationBidirectional) => MountPropagation::Bidirectional,
        Err(_) => return Err(Malformed(format!("mount propagation {} is unknown", m.propagation))),
    };
    Ok(Mount {
        container_path: m.container_path,
        host_path: m.host_path,
        readonly: m.readonly,
        recursive_read_only: m.recursive_read_only,
        selinux_relabel: m.selinux_relabel,
        propagation,
    })
}

pub(crate) fn container_status(r: v1::ContainerStatusResponse) -> Result<ContainerStatus> {
    let pid = pid(&r.info);
    let s = required(r.status, "status")?;
    let state = container_state(s.state)?;
    Ok(ContainerStatus {
        id: container_id(s.id)?,
        metadata: container_metadata(s.metadata)?,
        state,
        created_at: time(s.created_at),
        started_at: time(s.started_at),
        finished_at: time(s.finished_at),
        exit_code: s.exit_code,
        image: s.image.map(|i| i.image).unwrap_or_default(),
        image_ref: s.image_ref,
        reason: s.reason,
        message: s.message,
        labels: map(s.labels),
        annotations: map(s.annotations),
        log_path: s.log_path,
        mounts: s.mounts.into_iter().map(mount).collect::<Result<_>>()?,
        // containerd goes on telling the pid of a process that is gone.
        pid: pid.filter(|_| state == ContainerState::Running),
    })
}

pub(crate) fn container_stats(s: v1::ContainerStats) -> Result<ContainerStats> {
    let a = required(s.attributes, "attributes")?;
    let at = s.cpu.as_ref().and_then(|c| time(c.timestamp)).or(s.memory.as_ref().and_then(|m| time(m.timestamp)));
    let value = |v: Option<v1::UInt64Value>| v.map(|v| v.value);
    let layer = s.writable_layer.unwrap_or_default();
    let memory = s.memory.unwrap_or_default();
    Ok(ContainerStats {
        id: container_id(a.id)?,
        metadata: container_metadata(a.metadata)?,
        labels: map(a.labels),
        at,
        cpu_usage_nanos: s.cpu.and_then(|c| value(c.usage_core_nano_seconds)),
        memory_working_set: value(memory.working_set_bytes),
        memory_rss: value(memory.rss_bytes),
        rootfs_used: value(layer.used_bytes),
        rootfs_inodes: value(layer.inodes_used),
    })
}

pub(crate) fn image(i: v1::Image) -> Result<Image> {
    Ok(Image {
        id: id(i.id, "image.id").map(ImageRef::new)?,
        repo_tags: i.repo_tags,
        repo_digests: i.repo_digests,
        size: i.size,
        uid: i.uid.map(|u| u.value),
        username: i.username,
        pinned: i.pinned,
    })
}

pub(crate) fn filesystem(f: v1::FilesystemUsage) -> Result<FilesystemUsage> {
    Ok(FilesystemUsage {
        mountpoint: required(f.fs_id, "fs_id")?.mountpoint,
        used_bytes: f.used_bytes.map(|v| v.value).unwrap_or_default(),
        inodes_used: f.inodes_used.map(|v| v.value).unwrap_or_default(),
    })
}

pub(crate) fn event(e: v1::ContainerEventResponse) -> Result<ContainerEvent> {
    let kind = match v1::ContainerEventType::try_from(e.container_event_type) {
        Ok(v1::ContainerEventType::ContainerCreatedEvent) => ContainerEventKind::Created,
        Ok(v1::ContainerEventType::ContainerStartedEvent) => ContainerEventKind::Started,
        Ok(v1::ContainerEventType::ContainerStoppedEvent) => ContainerEventKind::Stopped,
        Ok(v1::ContainerEventType::ContainerDeletedEvent) => ContainerEventKind::Deleted,
        Err(_) => return Err(Malformed(format!("event type {} is unknown", e.container_event_type))),
    };
    let sandbox = match e.pod_sandbox_status.and_then(|s| s.metadata) {
        Some(m) => Some(sandbox_metadata(Some(m))?),
        None => None,
    };
    Ok(ContainerEvent { id: id(e.container_id, "container_id")?, kind, sandbox, at: time(e.created_at) })
}

//! The fake's world: sandboxes, containers, images, and how they change.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use jiff::Timestamp;

use super::{Behavior, Behaviors};
use crate::error::{CriError, Result};
use crate::id::{ContainerId, ImageRef, SandboxId};
use crate::types::{
    ContainerConfig, ContainerEvent, ContainerEventKind, ContainerState, ContainerStatus, ContainerSummary, Image,
    LinuxContainerResources, NamespaceMode, RuntimeCondition, RuntimeStatus, SandboxConfig, SandboxMetadata,
    SandboxState, SandboxStatus, SandboxSummary,
};

#[derive(Debug)]
pub(super) struct Sandbox {
    pub serial: u64,
    pub config: SandboxConfig,
    pub status: SandboxStatus,
}

#[derive(Debug)]
pub(super) struct Container {
    pub serial: u64,
    pub sandbox: SandboxId,
    pub config: ContainerConfig,
    pub resources: LinuxContainerResources,
    pub behavior: Behavior,
    pub status: ContainerStatus,
}

impl Container {
    pub(super) fn summary(&self) -> ContainerSummary {
        let s = &self.status;
        ContainerSummary {
            id: s.id.clone(),
            sandbox: self.sandbox.clone(),
            metadata: s.metadata.clone(),
            image: s.image.clone(),
            image_ref: s.image_ref.clone(),
            state: s.state,
            created_at: s.created_at,
            labels: s.labels.clone(),
            annotations: s.annotations.clone(),
        }
    }
}

#[derive(Debug)]
pub(super) struct State {
    serial: u64,
    /// How far its clock is behind this machine's.
    pub behind: Duration,
    pub images: BTreeSet<String>,
    pub remote_images: BTreeSet<String>,
    /// Passwords of those of them that ask for one.
    pub passwords: HashMap<String, String>,
    /// Names of runtime handlers; "" is the default.
    pub handlers: BTreeSet<String>,
    pub behaviors: Behaviors,
    pub conditions: Vec<RuntimeCondition>,
    /// What `status` tells of handlers and features.
    pub features: RuntimeStatus,
    pub pod_cidr: String,
    pub sandboxes: HashMap<SandboxId, Sandbox>,
    pub containers: HashMap<ContainerId, Container>,
}

impl Default for State {
    fn default() -> Self {
        let ready = |kind: &str| RuntimeCondition {
            kind: kind.to_owned(),
            status: true,
            reason: String::new(),
            message: String::new(),
        };
        Self {
            serial: 0,
            behind: Duration::ZERO,
            images: BTreeSet::new(),
            remote_images: BTreeSet::new(),
            passwords: HashMap::new(),
            handlers: BTreeSet::from([String::new()]),
            behaviors: Behaviors::new(),
            conditions: vec![ready("RuntimeReady"), ready("NetworkReady")],
            features: RuntimeStatus::default(),
            pod_cidr: String::new(),
            sandboxes: HashMap::new(),
            containers: HashMap::new(),
        }
    }
}

pub(super) fn not_found(op: &'static str, object: impl ToString) -> CriError {
    CriError::NotFound { op, object: object.to_string(), message: "not in the fake".to_owned() }
}

fn failed(op: &'static str, object: impl ToString, message: &str) -> CriError {
    CriError::Runtime { op, object: object.to_string(), message: message.to_owned() }
}

fn taken(op: &'static str, object: impl ToString) -> CriError {
    CriError::AlreadyExists { op, object: object.to_string(), message: "name is reserved".to_owned() }
}

/// The local id of the image of that name.
fn image_id(name: &str) -> ImageRef {
    let sum = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    ImageRef::new(format!("sha256:{sum:064x}"))
}

impl State {
    fn next(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// What its clock shows.
    fn now(&self) -> Option<Timestamp> {
        Timestamp::now().checked_sub(self.behind).ok()
    }

    /// A pid that no process has: above the kernel's limit.
    fn pid(serial: u64) -> Option<u32> {
        u32::try_from(serial).ok().map(|s| (1 << 23) + s)
    }

    pub(super) fn run_sandbox(
        &mut self,
        config: &SandboxConfig,
        handler: &str,
    ) -> Result<(SandboxId, Vec<ContainerEvent>)> {
        let op = "RunPodSandbox";
        if !self.handlers.contains(handler) {
            return Err(failed(op, &config.metadata.name, &format!("no runtime for {handler:?} is configured")));
        }
        if self.sandboxes.values().any(|s| s.config.metadata == config.metadata) {
            return Err(taken(op, &config.metadata.name));
        }
        let serial = self.next();
        let id = SandboxId::new(format!("{serial:064x}"));
        let host = config.security.namespaces.network == NamespaceMode::Node;
        let summary = SandboxSummary {
            id: id.clone(),
            metadata: config.metadata.clone(),
            state: SandboxState::Ready,
            created_at: self.now(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            runtime_handler: handler.to_owned(),
        };
        let ips = if host { Vec::new() } else { vec![format!("10.88.{}.{}", serial >> 8 & 0xff, serial & 0xff)] };
        let status = SandboxStatus { summary, ips, namespaces: config.security.namespaces, pid: Self::pid(serial) };
        let events = [ContainerEventKind::Created, ContainerEventKind::Started]
            .map(|kind| event(id.as_str(), kind, &config.metadata));
        self.sandboxes.insert(id.clone(), Sandbox { serial, config: config.clone(), status });
        Ok((id, events.to_vec()))
    }

    /// The sandbox's own process is gone.
    pub(super) fn sandbox_ends(&mut self, id: &SandboxId) -> Option<ContainerEvent> {
        let sandbox = self.sandboxes.get_mut(id)?;
        if sandbox.status.summary.state == SandboxState::NotReady {
            return None;
        }
        sandbox.status.summary.state = SandboxState::NotReady;
        sandbox.status.pid = None;
        sandbox.status.ips.clear();
        Some(event(id.as_str(), ContainerEventKind::Stopped, &sandbox.config.metadata))
    }

    fn members(&self, id: &SandboxId) -> Vec<ContainerId> {
        self.containers.values().filter(|c| c.sandbox == *id).map(|c| c.status.id.clone()).collect()
    }

    pub(super) fn stop_sandbox(&mut self, id: &SandboxId) -> Vec<ContainerEvent> {
        let mut events = Vec::new();
        for member in self.members(id) {
            events.extend(self.end(&member, 137, "Error"));
        }
        events.extend(self.sandbox_ends(id));
        events
    }

    pub(super) fn remove_sandbox(&mut self, id: &SandboxId) -> Vec<ContainerEvent> {
        let mut events = self.stop_sandbox(id);
        for member in self.members(id) {
            events.extend(self.remove_container(&member));
        }
        if let Some(sandbox) = self.sandboxes.remove(id) {
            events.push(event(id.as_str(), ContainerEventKind::Deleted, &sandbox.config.metadata));
        }
        events
    }

    pub(super) fn create(
        &mut self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
    ) -> Result<(ContainerId, ContainerEvent)> {
        let op = "CreateContainer";
        let owner = self.sandboxes.get(sandbox).ok_or_else(|| not_found(op, sandbox))?;
        if owner.status.summary.state != SandboxState::Ready {
            return Err(not_found(op, sandbox));
        }
        let metadata = owner.config.metadata.clone();
        let log_directory = owner.config.log_directory.clone();
        let same = |c: &&Container| c.sandbox == *sandbox && c.config.metadata == config.metadata;
        if self.containers.values().any(|c| same(&c)) {
            return Err(taken(op, &config.metadata.name));
        }
        let image = self.image(&config.image).ok_or_else(|| not_found(op, &config.image))?;
        let serial = self.next();
        let id = ContainerId::new(format!("{serial:064x}"));
        let status = ContainerStatus {
            id: id.clone(),
            metadata: config.metadata.clone(),
            state: ContainerState::Created,
            created_at: self.now(),
            started_at: None,
            finished_at: None,
            exit_code: 0,
            image: config.image.clone(),
            image_ref: image.id.to_string(),
            reason: String::new(),
            message: String::new(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            log_path: format!("{log_directory}/{}", config.log_path),
            mounts: config.mounts.clone(),
            pid: None,
        };
        let created = event(id.as_str(), ContainerEventKind::Created, &metadata);
        let container = Container {
            serial,
            sandbox: sandbox.clone(),
            config: config.clone(),
            resources: config.resources.clone(),
            behavior: Behavior::Runs,
            status,
        };
        self.containers.insert(id.clone(), container);
        Ok((id, created))
    }

    pub(super) fn start(&mut self, id: &ContainerId) -> Result<Vec<ContainerEvent>> {
        let op = "StartContainer";
        let now = self.now();
        let container = self.containers.get_mut(id).ok_or_else(|| not_found(op, id))?;
        if container.status.state != ContainerState::Created {
            return Err(failed(op, id, "container is not in the created state"));
        }
        container.behavior = self.behaviors.get(&container.config.metadata.name).copied().unwrap_or_default();
        container.status.state = ContainerState::Running;
        container.status.started_at = now;
        container.status.pid = Self::pid(container.serial);
        let behavior = container.behavior;
        let mut events = vec![self.event_of(id, ContainerEventKind::Started)];
        if let Behavior::ExitsWith(code) = behavior {
            events.extend(self.end(id, code, if code == 0 { "Completed" } else { "Error" }));
        }
        Ok(events)
    }

    /// A container's process is gone; a created one ends too, as containerd has it.
    pub(super) fn end(&mut self, id: &ContainerId, code: i32, reason: &str) -> Option<ContainerEvent> {
        let now = self.now();
        let container = self.containers.get_mut(id)?;
        let status = &mut container.status;
        if status.state == ContainerState::Exited {
            return None;
        }
        status.state = ContainerState::Exited;
        status.exit_code = code;
        reason.clone_into(&mut status.reason);
        status.finished_at = now;
        status.pid = None;
        Some(self.event_of(id, ContainerEventKind::Stopped))
    }

    pub(super) fn remove_container(&mut self, id: &ContainerId) -> Vec<ContainerEvent> {
        if !self.containers.contains_key(id) {
            return Vec::new();
        }
        let mut events: Vec<_> = self.end(id, 137, "Error").into_iter().collect();
        events.push(self.event_of(id, ContainerEventKind::Deleted));
        self.containers.remove(id);
        events
    }

    fn event_of(&self, id: &ContainerId, kind: ContainerEventKind) -> ContainerEvent {
        let sandbox = self.containers.get(id).and_then(|c| self.sandboxes.get(&c.sandbox));
        let mut event = ContainerEvent::new(id.as_str(), kind);
        event.sandbox = sandbox.map(|s| s.config.metadata.clone());
        event
    }

    /// The present image of that name or id.
    pub(super) fn image(&self, reference: &str) -> Option<Image> {
        let images = self.images.iter().map(|name| Self::describe(name));
        let named = |i: &Image| i.repo_tags.iter().chain(&i.repo_digests).any(|n| n == reference);
        images.into_iter().find(|i| i.id.as_str() == reference || named(i))
    }

    pub(super) fn describe(name: &str) -> Image {
        let id = image_id(name);
        let repository = name.rsplit_once(':').map_or(name, |(r, _)| r);
        Image {
            repo_tags: vec![name.to_owned()],
            repo_digests: vec![format!("{repository}@{id}")],
            id,
            size: 1 << 20,
            uid: None,
            username: String::new(),
            pinned: false,
        }
    }
}

fn event(id: &str, kind: ContainerEventKind, sandbox: &SandboxMetadata) -> ContainerEvent {
    ContainerEvent { sandbox: Some(sandbox.clone()), ..ContainerEvent::new(id, kind) }
}

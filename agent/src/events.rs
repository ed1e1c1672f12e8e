//! The event recorder: upstream's reasons, aggregated, never blocking.

pub mod correlate;
pub mod limit;
pub mod write;

use std::borrow::Cow;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;

/// `Normal` or `Warning`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    Normal,
    Warning,
}

/// What an event is about: as much of upstream's `ObjectReference` as is used.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectReference {
    pub kind: &'static str,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub resource_version: String,
    /// For example `spec.containers{web}`; empty for the whole object.
    pub field_path: String,
}

/// A short word in upstream's spelling; few are not known beforehand.
pub type Reason = Cow<'static, str>;

/// An event to record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Event {
    pub involved: ObjectReference,
    pub kind: EventType,
    pub reason: Reason,
    pub message: String,
}

/// Hands events to the writing task. When its queue is full, an event is
/// dropped rather than waited for: events are best effort, as upstream.
#[derive(Clone, Debug)]
pub struct EventRecorder {
    queue: mpsc::Sender<Event>,
}

impl EventRecorder {
    /// A recorder and the queue its writer drains.
    pub fn channel(capacity: usize) -> (Self, mpsc::Receiver<Event>) {
        let (queue, rx) = mpsc::channel(capacity);
        (Self { queue }, rx)
    }

    /// Records something about a pod.
    pub fn pod(&self, pod: &Pod, kind: EventType, reason: impl Into<Reason>, message: impl Into<String>) {
        self.field(pod, "", kind, reason, message);
    }

    /// Records something about a container of a pod. The field path says which
    /// list of the spec holds it.
    pub fn container(
        &self,
        pod: &Pod,
        name: &str,
        kind: EventType,
        reason: impl Into<Reason>,
        message: impl Into<String>,
    ) {
        self.field(pod, &container_field_path(pod, name), kind, reason, message);
    }

    /// Records something about the node.
    pub fn node(&self, name: &str, kind: EventType, reason: impl Into<Reason>, message: impl Into<String>) {
        // Upstream uses the node's name as the UID of these events.
        let involved = ObjectReference {
            kind: "Node",
            namespace: String::new(),
            name: name.to_owned(),
            uid: name.to_owned(),
            resource_version: String::new(),
            field_path: String::new(),
        };
        self.send(Event { involved, kind, reason: reason.into(), message: message.into() });
    }

    fn field(&self, pod: &Pod, path: &str, kind: EventType, reason: impl Into<Reason>, message: impl Into<String>) {
        let text = |v: &Option<String>| v.clone().unwrap_or_default();
        let involved = ObjectReference {
            kind: "Pod",
            namespace: text(&pod.metadata.namespace),
            name: text(&pod.metadata.name),
            uid: text(&pod.metadata.uid),
            resource_version: text(&pod.metadata.resource_version),
            field_path: path.to_owned(),
        };
        self.send(Event { involved, kind, reason: reason.into(), message: message.into() });
    }

    fn send(&self, event: Event) {
        if self.queue.try_send(event).is_err() {
            tracing::debug!("event dropped: queue full or closed");
        }
    }
}

/// `spec.containers{name}`, or the list of the spec that holds the container.
pub fn container_field_path(pod: &Pod, name: &str) -> String {
    let Some(spec) = &pod.spec else { return String::new() };
    let init = spec.init_containers.iter().flatten().any(|c| c.name == name);
    let ephemeral = spec.ephemeral_containers.iter().flatten().any(|c| c.name == name);
    let list = match (init, ephemeral) {
        (true, _) => "initContainers",
        (_, true) => "ephemeralContainers",
        _ => "containers",
    };
    format!("spec.{list}{{{name}}}")
}

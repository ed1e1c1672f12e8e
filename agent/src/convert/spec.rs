//! Looking into a pod's spec: its containers by kind, policies and small facts.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};

/// Which list of the spec a container stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ContainerKind {
    Init,
    Regular,
    Ephemeral,
}

/// Annotation that marks a pod read from a file, and its source.
pub const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
/// Annotation with the hash of a static pod's text.
pub const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// Annotation with the time a static pod was first seen.
pub const CONFIG_SEEN: &str = "kubernetes.io/config.seen";
/// Annotation of a mirror pod: the hash of the static pod it shows.
pub const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";

/// The priority class of pods that the node itself needs.
const SYSTEM_NODE_CRITICAL: &str = "system-node-critical";

/// Priority from which a pod is critical to the system.
const SYSTEM_CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// The pod's spec; an empty one when it has none.
pub fn spec(pod: &Pod) -> &PodSpec {
    static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
    pod.spec.as_ref().unwrap_or(&EMPTY)
}

/// Init containers, in order; sidecars among them.
pub fn init_containers(pod: &Pod) -> &[Container] {
    spec(pod).init_containers.as_deref().unwrap_or_default()
}

/// The main containers.
pub fn containers(pod: &Pod) -> &[Container] {
    &spec(pod).containers
}

/// Ephemeral containers.
pub fn ephemeral_containers(pod: &Pod) -> &[EphemeralContainer] {
    spec(pod).ephemeral_containers.as_deref().unwrap_or_default()
}

/// Whether an init container is a sidecar.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// An ephemeral container as a container, for everything they have in common.
pub fn as_container(e: &EphemeralContainer) -> Container {
    Container {
        name: e.name.clone(),
        image: e.image.clone(),
        image_pull_policy: e.image_pull_policy.clone(),
        command: e.command.clone(),
        args: e.args.clone(),
        working_dir: e.working_dir.clone(),
        env: e.env.clone(),
        env_from: e.env_from.clone(),
        security_context: e.security_context.clone(),
        stdin: e.stdin,
        stdin_once: e.stdin_once,
        tty: e.tty,
        termination_message_path: e.termination_message_path.clone(),
        termination_message_policy: e.termination_message_policy.clone(),
        volume_mounts: e.volume_mounts.clone(),
        volume_devices: e.volume_devices.clone(),
        ..Container::default()
    }
}

/// The pod's restart policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    /// From its text; anything unknown is the default, `Always`.
    pub fn parse(text: Option<&str>) -> Self {
        match text {
            Some("Never") => Self::Never,
            Some("OnFailure") => Self::OnFailure,
            _ => Self::Always,
        }
    }
}

/// The pod's restart policy.
pub fn restart_policy(pod: &Pod) -> RestartPolicy {
    RestartPolicy::parse(spec(pod).restart_policy.as_deref())
}

/// Whether the pod uses the node's network.
pub fn host_network(pod: &Pod) -> bool {
    spec(pod).host_network.unwrap_or(false)
}

/// Whether the pod is over for good, as the API server shows it: by whomever that was written, nothing takes it back.
pub fn is_over(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).is_some_and(is_terminal)
}

/// Whether a phase is one of a pod that is over.
pub fn is_terminal(phase: &str) -> bool {
    matches!(phase, "Failed" | "Succeeded")
}

/// A value of the pod's annotations.
pub fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Whether the pod is shown at the API server on behalf of a static pod. An annotation is anybody's; a mirror pod has
/// one owner besides, which is its Node (the NodeRestriction admission plugin asks for both).
pub fn is_mirror(pod: &Pod) -> bool {
    let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
    let of_node = matches!(owners, [owner] if owner.kind == "Node" && owner.api_version == "v1");
    of_node && annotation(pod, CONFIG_MIRROR).is_some()
}

/// Whether the pod comes from a file or URL. The annotation is true of every pod
/// that came through [`crate::podsource`], which writes it by the pod's origin.
pub fn is_static(pod: &Pod) -> bool {
    annotation(pod, CONFIG_SOURCE).is_some_and(|s| s != "api")
}

/// Whether the node cannot do without the pod.
pub fn is_critical(pod: &Pod) -> bool {
    is_static(pod) || is_mirror(pod) || spec(pod).priority.is_some_and(|p| p >= SYSTEM_CRITICAL_PRIORITY)
}

/// Whether the node itself cannot do without the pod.
pub fn is_node_critical(pod: &Pod) -> bool {
    is_critical(pod) && spec(pod).priority_class_name.as_deref() == Some(SYSTEM_NODE_CRITICAL)
}

/// Seconds of grace the pod has to stop.
pub fn grace_seconds(pod: &Pod) -> i64 {
    pod.metadata.deletion_grace_period_seconds.or(spec(pod).termination_grace_period_seconds).unwrap_or(30)
}

/// A hash of what makes a container another one: its name and image. Restarts
/// follow from a change, so nothing else belongs in it. The value is upstream's,
/// so that its containers are adopted: FNV-1a over how Go's spew prints the bytes
/// of the two fields' JSON.
pub fn container_hash(container: &Container) -> u64 {
    let fields =
        BTreeMap::from([("name", container.name.as_str()), ("image", container.image.as_deref().unwrap_or_default())]);
    let json = serde_json::to_vec(&fields).unwrap_or_default();
    let bytes: Vec<String> = json.iter().map(u8::to_string).collect();
    let printed = format!("([]uint8)[{}]", bytes.join(" "));
    let fnv = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    u64::from(printed.bytes().fold(0x811c_9dc5, fnv))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_a_container_is_upstreams() {
        let container = Container {
            name: "test_container".to_owned(),
            image: Some("foo/image:v1".to_owned()),
            args: Some(vec!["-c".to_owned()]),
            ..Container::default()
        };
        assert_eq!(container_hash(&container), 0x8e45_cbd0);
        let other = Container { image: Some("foo/image:v2".to_owned()), ..container.clone() };
        assert_ne!(container_hash(&other), container_hash(&container));
    }
}

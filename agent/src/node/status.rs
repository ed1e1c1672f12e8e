//! The status of the node object, and whether it is worth a write. Pure.

use std::net::IpAddr;

use cri::types::{Image, Version};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures, NodeRuntimeHandler,
    NodeRuntimeHandlerFeatures, NodeStatus, NodeSwapStatus, NodeSystemInfo,
};
use serde_json::{Map, Value, json};

use super::capacity::{allocatable, capacity};
use super::conditions::{RuntimeView, conditions};
use super::facts::{MachineInfo, MachineUsage};
use crate::config::{EvictionSettings, NodeSettings};
use crate::plan::eviction::Pressures;

/// How many images a node lists.
const MAX_IMAGES: usize = 50;
const MAX_NAMES_PER_IMAGE: usize = 5;

/// What a status is made from.
#[derive(Clone, Copy, Debug)]
pub struct NodeInput<'a> {
    pub settings: &'a NodeSettings,
    pub eviction: &'a EvictionSettings,
    pub pressures: &'a Pressures,
    pub machine: &'a MachineInfo,
    pub usage: &'a MachineUsage,
    pub runtime: &'a RuntimeView,
    /// What is wrong with listing the runtime, if anything.
    pub pleg: Option<&'a str>,
    pub version: Option<&'a Version>,
    pub images: &'a [Image],
    pub ips: &'a [IpAddr],
    /// Port of the kubelet's server, 0 when there is none.
    pub port: u16,
    pub previous: &'a [NodeCondition],
    pub now: Timestamp,
}

/// The status.
pub fn node_status(input: &NodeInput<'_>) -> NodeStatus {
    let capacity = capacity(input.machine, input.usage, input.settings.max_pods);
    let address = |kind: &str, address: String| NodeAddress { type_: kind.to_owned(), address };
    let mut addresses: Vec<NodeAddress> = input.ips.iter().map(|ip| address("InternalIP", ip.to_string())).collect();
    addresses.push(address("Hostname", input.settings.hostname.clone()));
    let endpoint = (input.port != 0).then(|| DaemonEndpoint { port: i32::from(input.port) });
    NodeStatus {
        allocatable: Some(allocatable(&capacity, &input.settings.reserved, input.eviction)),
        capacity: Some(capacity),
        addresses: Some(addresses),
        conditions: Some(conditions(input.runtime, input.pleg, input.pressures, input.previous, input.now)),
        daemon_endpoints: Some(NodeDaemonEndpoints { kubelet_endpoint: endpoint }),
        node_info: Some(system_info(input)),
        images: Some(images(input.images)),
        runtime_handlers: handlers(input.runtime),
        features: Some(NodeFeatures {
            supplemental_groups_policy: input.runtime.as_ref().ok().map(|r| r.supplemental_groups_policy),
        }),
        ..NodeStatus::default()
    }
}

fn handlers(runtime: &RuntimeView) -> Option<Vec<NodeRuntimeHandler>> {
    let handlers = &runtime.as_ref().ok()?.handlers;
    let one = |h: &cri::types::RuntimeHandler| NodeRuntimeHandler {
        name: Some(h.name.clone()),
        features: Some(NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(h.recursive_read_only_mounts),
            // The runtime may be able to; the agent hands out no users yet.
            user_namespaces: Some(false),
        }),
    };
    (!handlers.is_empty()).then(|| handlers.iter().map(one).collect())
}

fn system_info(input: &NodeInput<'_>) -> NodeSystemInfo {
    let m = input.machine;
    let runtime = input.version.map_or_else(
        || "unknown://unknown".to_owned(),
        |v| format!("{}://{}", v.runtime_name, v.runtime_version.trim_start_matches('v')),
    );
    NodeSystemInfo {
        architecture: m.architecture.clone(),
        boot_id: m.boot_id.clone(),
        container_runtime_version: runtime,
        kernel_version: m.kernel.clone(),
        kube_proxy_version: String::new(),
        kubelet_version: input.settings.version.clone(),
        machine_id: m.machine_id.clone(),
        operating_system: "linux".to_owned(),
        os_image: m.os_image.clone(),
        swap: (m.swap > 0).then(|| NodeSwapStatus { capacity: i64::try_from(m.swap).ok() }),
        system_uuid: m.system_uuid.clone(),
    }
}

/// The largest images first, as upstream lists them.
fn images(images: &[Image]) -> Vec<ContainerImage> {
    let mut sorted: Vec<&Image> = images.iter().collect();
    sorted.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    let one = |image: &&Image| {
        let names: Vec<String> =
            image.repo_digests.iter().chain(&image.repo_tags).take(MAX_NAMES_PER_IMAGE).cloned().collect();
        ContainerImage { names: Some(names), size_bytes: i64::try_from(image.size).ok() }
    };
    sorted.iter().take(MAX_IMAGES).map(one).collect()
}

fn without_heartbeats(status: &NodeStatus) -> NodeStatus {
    let mut out = status.clone();
    for condition in out.conditions.iter_mut().flatten() {
        condition.last_heartbeat_time = None;
    }
    out
}

/// Whether two statuses differ in more than their heartbeats.
pub fn differs(a: &NodeStatus, b: &NodeStatus) -> bool {
    without_heartbeats(a) != without_heartbeats(b)
}

/// The strategic merge patch that makes the node show `new`. Addresses are
/// merged by type at the server, so those of ours that are gone are removed.
pub fn status_patch(old: Option<&NodeStatus>, new: &NodeStatus) -> Value {
    let mut status = match serde_json::to_value(new) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let kept = |kind: &str| new.addresses.iter().flatten().any(|a| a.type_ == kind);
    let gone = old.into_iter().flat_map(|o| o.addresses.iter().flatten()).filter(|a| !kept(&a.type_));
    let mut removals: Vec<Value> = gone.map(|a| json!({"type": a.type_, "$patch": "delete"})).collect();
    if let Some(Value::Array(list)) = status.get_mut("addresses") {
        list.append(&mut removals);
    }
    json!({ "status": status })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use cri::ImageRef;

    #[test]
    fn a_node() {
        let config = crate::config::AgentConfig::new("n1", "/data");
        let image = |id: &str, size| Image {
            id: ImageRef::new(id),
            repo_tags: vec![format!("{id}:latest")],
            repo_digests: vec![],
            size,
            uid: None,
            username: String::new(),
            pinned: false,
        };
        let images: Vec<Image> = (0..60).map(|i| image(&format!("i{i:02}"), i)).collect();
        let version = Version {
            runtime_name: "containerd".into(),
            runtime_version: "v1.6.20".into(),
            runtime_api_version: "v1".into(),
        };
        let machine = MachineInfo { cpus: 2, memory: 1 << 30, architecture: "amd64".into(), ..MachineInfo::default() };
        let (usage, runtime) = (MachineUsage::default(), Err("down".to_owned()));
        let input = NodeInput {
            settings: &config.node,
            eviction: &config.eviction,
            pressures: &Pressures::new(),
            machine: &machine,
            usage: &usage,
            runtime: &runtime,
            pleg: None,
            version: Some(&version),
            images: &images,
            ips: &[IpAddr::from([10, 0, 0, 1])],
            port: 10250,
            previous: &[],
            now: Timestamp::UNIX_EPOCH,
        };
        let status = node_status(&input);
        assert_eq!(status.images.as_ref().unwrap().len(), 50);
        assert_eq!(status.images.as_ref().unwrap()[0].names.as_ref().unwrap(), &["i59:latest"]);
        assert_eq!(status.node_info.as_ref().unwrap().container_runtime_version, "containerd://1.6.20");
        let kinds: Vec<&str> = status.addresses.iter().flatten().map(|a| a.type_.as_str()).collect();
        assert_eq!(kinds, ["InternalIP", "Hostname"]);
        let later = NodeInput {
            now: Timestamp::from_second(60).unwrap(),
            previous: status.conditions.as_ref().unwrap(),
            ..input
        };
        assert!(!differs(&status, &node_status(&later)), "a heartbeat is no difference");
        let mut old = status.clone();
        old.addresses.as_mut().unwrap().push(NodeAddress { type_: "ExternalIP".into(), address: "1.1.1.1".into() });
        let patch = status_patch(Some(&old), &status);
        assert_eq!(patch["status"]["addresses"][2], json!({"type": "ExternalIP", "$patch": "delete"}));
    }
}

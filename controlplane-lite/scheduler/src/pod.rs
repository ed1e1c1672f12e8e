//! The scheduler's view of a pod: what its decision needs, and no more. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{NodeAffinity, Pod, Toleration};

use super::resources::{Requests, requests};

/// Unique id of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodUid(pub Arc<str>);

/// A port of the node's own address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Address, `0.0.0.0` for all.
    pub ip: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Number.
    pub port: i32,
}

impl HostPort {
    /// Whether both cannot be had at once.
    pub fn conflicts(&self, other: &Self) -> bool {
        let same = self.port == other.port && self.protocol == other.protocol;
        same && (self.ip == other.ip || self.ip == "0.0.0.0" || other.ip == "0.0.0.0")
    }
}

/// A pod as the scheduler sees it.
#[derive(Debug, Clone)]
pub struct PodInfo {
    /// Uid.
    pub uid: PodUid,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Which scheduler it asks for.
    pub scheduler_name: String,
    /// Priority, larger first.
    pub priority: i32,
    /// Creation, for the order among equals.
    pub created: Timestamp,
    /// Names of gates that hold it back.
    pub gates: Vec<String>,
    /// The node it is bound to.
    pub node: Option<String>,
    /// Succeeded or Failed.
    pub terminal: bool,
    /// Deletion has been asked for.
    pub deleting: bool,
    /// What it asks for.
    pub requests: Requests,
    /// Ports of the node it takes.
    pub host_ports: Vec<HostPort>,
    /// Taints it bears.
    pub tolerations: Vec<Toleration>,
    /// Labels the node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Node affinity.
    pub node_affinity: Option<NodeAffinity>,
    /// Images of its containers.
    pub images: Vec<String>,
    /// The message of its PodScheduled condition, if that is False.
    pub unschedulable_message: Option<String>,
    /// Resource version it was seen at.
    pub resource_version: Option<String>,
}

impl PodInfo {
    /// Extracts the view.
    pub fn new(pod: Pod) -> Self {
        let meta = pod.metadata;
        let spec = pod.spec.unwrap_or_default();
        let status = pod.status.unwrap_or_default();
        let requests = requests(&spec);
        let host_ports = host_ports(&spec);
        let condition = status.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled" && c.status == "False");
        Self {
            uid: PodUid(meta.uid.unwrap_or_default().into()),
            namespace: meta.namespace.unwrap_or_default(),
            name: meta.name.unwrap_or_default(),
            scheduler_name: spec.scheduler_name.unwrap_or_else(|| "default-scheduler".to_owned()),
            priority: spec.priority.unwrap_or(0),
            created: meta.creation_timestamp.map_or(Timestamp::UNIX_EPOCH, |t| t.0),
            gates: spec.scheduling_gates.into_iter().flatten().map(|g| g.name).collect(),
            node: spec.node_name.filter(|n| !n.is_empty()),
            terminal: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
            deleting: meta.deletion_timestamp.is_some(),
            requests,
            host_ports,
            tolerations: spec.tolerations.unwrap_or_default(),
            node_selector: spec.node_selector.unwrap_or_default(),
            node_affinity: spec.affinity.and_then(|a| a.node_affinity),
            images: spec.containers.into_iter().filter_map(|c| c.image).collect(),
            unschedulable_message: condition.and_then(|c| c.message.clone()),
            resource_version: meta.resource_version,
        }
    }

    /// What remains of interest once the pod is on a node.
    pub fn placed(&self) -> Self {
        Self {
            uid: self.uid.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            requests: self.requests.clone(),
            host_ports: self.host_ports.clone(),
            priority: self.priority,
            created: self.created,
            scheduler_name: String::new(),
            gates: Vec::new(),
            node: None,
            terminal: false,
            deleting: false,
            tolerations: Vec::new(),
            node_selector: BTreeMap::new(),
            node_affinity: None,
            images: Vec::new(),
            unschedulable_message: None,
            resource_version: None,
        }
    }

    /// `namespace/name`.
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Whether a new attempt could end differently with `self` than with `old`.
    pub fn differs_for_scheduling(&self, old: &Self) -> bool {
        self.gates != old.gates
            || self.tolerations != old.tolerations
            || self.requests != old.requests
            || self.node_selector != old.node_selector
            || self.node_affinity != old.node_affinity
            || self.priority != old.priority
    }
}

fn host_ports(spec: &k8s_openapi::api::core::v1::PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|p| {
            let port = p.host_port.filter(|n| *n > 0)?;
            Some(HostPort {
                ip: p.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".to_owned()),
                protocol: p.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                port,
            })
        })
        .collect()
}

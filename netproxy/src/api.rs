//! API objects, reduced to the fields that this crate reads. Fields we do not know of cannot keep
//! an object from being read, and what is not read is not kept.
//!
//! An absent field has its zero value, as in upstream's own types. How an object is read that has
//! nulls, or makes no sense, is [`crate::informer`]'s.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer};

/// `metadata`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// `name`
    pub name: String,
    /// `namespace`
    pub namespace: String,
    /// `resourceVersion`
    pub resource_version: String,
    /// `creationTimestamp`, in seconds.
    #[serde(deserialize_with = "seconds")]
    pub creation_timestamp: Option<i64>,
    /// `deletionTimestamp`, of which only its presence matters.
    pub deletion_timestamp: Option<String>,
    /// `labels`
    pub labels: BTreeMap<String, String>,
    /// `annotations`, of which few are read.
    pub annotations: Annotations,
}

/// A time in seconds; what is no time is none.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.and_then(|text| text.parse::<Timestamp>().ok()).map(Timestamp::as_second))
}

/// The annotations that are read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Annotations {
    /// When the change began that an EndpointSlice carries.
    #[serde(rename = "endpoints.kubernetes.io/last-change-trigger-time")]
    pub last_change_trigger_time: Option<String>,
    /// The hardware address of a node's end of the tunnels.
    #[serde(rename = "copepod.local/vtep-mac")]
    pub vtep_mac: Option<String>,
    /// The address that a node's tunnels lead to.
    #[serde(rename = "copepod.local/vtep-ip")]
    pub vtep_ip: Option<String>,
}

/// `v1` Service
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Service {
    /// `metadata`
    pub metadata: Metadata,
    /// `spec`
    pub spec: ServiceSpec,
    /// `status`
    pub status: ServiceStatus,
}

/// `spec` of a Service
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// `type`
    pub r#type: String,
    /// `clusterIP`
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    /// `clusterIPs`
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<String>,
    /// `ports`
    pub ports: Vec<ServicePort>,
    /// `externalIPs`
    #[serde(rename = "externalIPs")]
    pub external_ips: Vec<String>,
    /// `externalName`
    pub external_name: String,
    /// `sessionAffinity`
    pub session_affinity: String,
    /// `sessionAffinityConfig`
    pub session_affinity_config: SessionAffinityConfig,
    /// `internalTrafficPolicy`
    pub internal_traffic_policy: String,
    /// `externalTrafficPolicy`
    pub external_traffic_policy: String,
    /// `healthCheckNodePort`
    pub health_check_node_port: i32,
    /// `loadBalancerSourceRanges`
    pub load_balancer_source_ranges: Vec<String>,
}

/// `spec.ports[]` of a Service
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    /// `name`
    pub name: String,
    /// `protocol`
    pub protocol: String,
    /// `port`
    pub port: i32,
    /// `nodePort`
    pub node_port: i32,
}

/// `spec.sessionAffinityConfig` of a Service
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionAffinityConfig {
    /// `clientIP`
    #[serde(rename = "clientIP")]
    pub client_ip: ClientIpConfig,
}

/// `spec.sessionAffinityConfig.clientIP` of a Service
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientIpConfig {
    /// `timeoutSeconds`
    pub timeout_seconds: Option<i32>,
}

/// `status` of a Service
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatus {
    /// `loadBalancer`
    pub load_balancer: LoadBalancerStatus,
}

/// `status.loadBalancer` of a Service
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LoadBalancerStatus {
    /// `ingress`
    pub ingress: Vec<LoadBalancerIngress>,
}

/// `status.loadBalancer.ingress[]` of a Service
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerIngress {
    /// `ip`
    pub ip: String,
    /// `ipMode`
    pub ip_mode: Option<String>,
}

/// `discovery.k8s.io/v1` EndpointSlice
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSlice {
    /// `metadata`
    pub metadata: Metadata,
    /// `addressType`
    pub address_type: String,
    /// `endpoints`
    pub endpoints: Vec<Endpoint>,
    /// `ports`
    pub ports: Vec<EndpointPort>,
}

/// `endpoints[]` of an EndpointSlice
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// `addresses`
    pub addresses: Vec<String>,
    /// `conditions`
    pub conditions: EndpointConditions,
    /// `hostname`
    pub hostname: String,
    /// `nodeName`
    pub node_name: Option<String>,
    /// `hints`
    pub hints: EndpointHints,
}

/// `endpoints[].conditions` of an EndpointSlice: what is not said is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct EndpointConditions {
    /// `ready`
    pub ready: Option<bool>,
    /// `serving`
    pub serving: Option<bool>,
    /// `terminating`
    pub terminating: Option<bool>,
}

/// `endpoints[].hints` of an EndpointSlice
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointHints {
    /// `forZones`
    pub for_zones: Vec<NamedHint>,
    /// `forNodes`
    pub for_nodes: Vec<NamedHint>,
}

/// A hint: one zone's or node's name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NamedHint {
    /// `name`
    pub name: String,
}

/// `ports[]` of an EndpointSlice
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct EndpointPort {
    /// `name`
    pub name: String,
    /// `protocol`
    pub protocol: String,
    /// `port`; none stands for all ports.
    pub port: Option<i32>,
}

/// `v1` Node
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Node {
    /// `metadata`
    pub metadata: Metadata,
    /// `spec`
    pub spec: NodeSpec,
    /// `status`
    pub status: NodeStatus,
}

/// `status` of a Node
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    /// `addresses`
    pub addresses: Vec<NodeAddress>,
}

/// `status.addresses[]` of a Node
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NodeAddress {
    /// `type`
    pub r#type: String,
    /// `address`
    pub address: String,
}

/// `spec` of a Node
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSpec {
    /// `podCIDR`
    #[serde(rename = "podCIDR")]
    pub pod_cidr: String,
    /// `podCIDRs`
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<String>,
    /// `taints`
    pub taints: Vec<Taint>,
}

/// `spec.taints[]` of a Node
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Taint {
    /// `key`
    pub key: String,
}

/// `networking.k8s.io/v1` ServiceCIDR
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ServiceCIDR {
    /// `spec`
    pub spec: ServiceCidrSpec,
}

/// `spec` of a ServiceCIDR
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ServiceCidrSpec {
    /// `cidrs`
    pub cidrs: Vec<String>,
}

/// `v1` Namespace
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Namespace {
    /// `metadata`
    pub metadata: Metadata,
}

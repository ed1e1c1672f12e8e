//! Kubernetes objects → the snapshot's own types. Pure. What upstream's kube-proxy ignores is
//! ignored here; a value that cannot be read drops that value, never the whole Service.

use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint as ApiEndpoint, EndpointSlice};

use super::{Endpoint, Hints, Protocol, ServiceName, ServicePort, Slice};
use crate::cidr::Cidr4;

/// Label of Services and slices that belong to another proxy.
pub const LABEL_SERVICE_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// Label of slices of headless Services.
pub const LABEL_HEADLESS: &str = "service.kubernetes.io/headless";
/// Label of a slice that names its Service.
pub const LABEL_SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Annotation of a slice: when the change began that it carries.
pub const ANNOTATION_TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// Upstream's default of `sessionAffinityConfig.clientIP.timeoutSeconds`.
const DEFAULT_AFFINITY_SECONDS: i32 = 10_800;

/// A protocol by its name in the API; an absent name is TCP.
#[must_use]
pub fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("" | "TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}

fn port_number(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|n| *n != 0)
}

/// The Service's name; `None` for an object without one.
#[must_use]
pub fn service_name(service: &Service) -> Option<ServiceName> {
    Some(ServiceName {
        namespace: service.metadata.namespace.as_deref()?.into(),
        name: service.metadata.name.as_deref()?.into(),
    })
}

/// The ports we serve: none for headless and ExternalName Services, for those of another proxy and
/// those without an IPv4 ClusterIP.
#[must_use]
pub fn service_ports(service: &Service) -> Vec<ServicePort> {
    let labels = service.metadata.labels.as_ref();
    let Some(spec) = &service.spec else { return Vec::new() };
    if labels.is_some_and(|l| l.contains_key(LABEL_SERVICE_PROXY_NAME)) || spec.type_.as_deref() == Some("ExternalName")
    {
        return Vec::new();
    }
    let Some(cluster_ip) = vips(spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip)).next() else {
        return Vec::new();
    };
    let template = ServicePort {
        port_name: "".into(),
        protocol: Protocol::Tcp,
        cluster_ip,
        port: 0,
        node_port: 0,
        external_ips: sorted(vips(spec.external_ips.iter().flatten()).collect()),
        load_balancer_ips: load_balancer_ips(service),
        source_ranges: source_ranges(spec),
        affinity: affinity(spec),
        internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
        health_check_node_port: spec.health_check_node_port.and_then(port_number).unwrap_or(0),
    };
    let ports = spec.ports.iter().flatten().filter_map(|port| {
        Some(ServicePort {
            port_name: port.name.as_deref().unwrap_or("").into(),
            protocol: protocol(port.protocol.as_deref())?,
            port: port_number(port.port)?,
            node_port: port.node_port.and_then(port_number).unwrap_or(0),
            ..template.clone()
        })
    });
    ports.collect()
}

/// Addresses that may be virtual: rules for the node's own loopback or for everything would cut
/// the node off.
fn vips<'a>(texts: impl Iterator<Item = &'a String>) -> impl Iterator<Item = Ipv4Addr> {
    texts
        .filter_map(|text| text.parse::<Ipv4Addr>().ok())
        .filter(|ip| !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_broadcast()))
}

fn sorted(mut addresses: Vec<Ipv4Addr>) -> Vec<Ipv4Addr> {
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn load_balancer_ips(service: &Service) -> Vec<Ipv4Addr> {
    let status = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    let ingress = status.and_then(|lb| lb.ingress.as_ref()).into_iter().flatten();
    // With ipMode Proxy the load balancer must see the traffic itself.
    let served = ingress.filter(|i| i.ip_mode.as_deref().unwrap_or("VIP") == "VIP");
    sorted(vips(served.filter_map(|i| i.ip.as_ref())).collect())
}

/// `None` when everyone may come. A list of which nothing is readable admits nobody: it was meant
/// to keep somebody out.
fn source_ranges(spec: &ServiceSpec) -> Option<Vec<Cidr4>> {
    let ranges = spec.load_balancer_source_ranges.as_ref().filter(|ranges| !ranges.is_empty())?;
    Some(ranges.iter().filter_map(|range| range.parse().ok()).collect())
}

fn affinity(spec: &ServiceSpec) -> Option<u32> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let configured = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref()?.timeout_seconds);
    u32::try_from(configured.unwrap_or(DEFAULT_AFFINITY_SECONDS)).ok().filter(|seconds| *seconds > 0)
}

/// The Service and name of a slice; `None` when it is not for us (another proxy's, headless,
/// without a Service).
#[must_use]
pub fn slice_key(slice: &EndpointSlice) -> Option<(ServiceName, Arc<str>)> {
    let labels = slice.metadata.labels.as_ref()?;
    if labels.contains_key(LABEL_SERVICE_PROXY_NAME) || labels.contains_key(LABEL_HEADLESS) {
        return None;
    }
    let service = ServiceName {
        namespace: slice.metadata.namespace.as_deref()?.into(),
        name: labels.get(LABEL_SERVICE_NAME).filter(|name| !name.is_empty())?.as_str().into(),
    };
    Some((service, slice.metadata.name.as_deref()?.into()))
}

/// The slice's content; empty for families other than IPv4.
#[must_use]
pub fn slice_content(slice: &EndpointSlice, node_name: &str) -> Slice {
    if slice.address_type != "IPv4" {
        return Slice::default();
    }
    let ports = slice.ports.iter().flatten().filter_map(|port| {
        // A port without a number stands for "all ports", which no Service can use.
        let number = port_number(port.port?)?;
        Some((port.name.as_deref().unwrap_or("").into(), protocol(port.protocol.as_deref())?, number))
    });
    Slice {
        ports: ports.collect(),
        endpoints: slice.endpoints.iter().flatten().filter_map(|e| endpoint(e, node_name)).collect(),
    }
}

fn endpoint(endpoint: &ApiEndpoint, node_name: &str) -> Option<Endpoint> {
    // Only the first address counts, as upstream: the list is a leftover of the API's history.
    let addr: Ipv4Addr = endpoint.addresses.first()?.parse().ok()?;
    if addr.is_unspecified() {
        return None;
    }
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
    let node = endpoint.node_name.as_deref();
    Some(Endpoint {
        addr,
        port: 0,
        ready,
        serving: conditions.and_then(|c| c.serving).unwrap_or(ready),
        terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
        local: node == Some(node_name),
        node_unknown: node.is_none(),
        hints: hints(endpoint),
    })
}

fn hints(endpoint: &ApiEndpoint) -> Option<Arc<Hints>> {
    let hints = endpoint.hints.as_ref()?;
    let zones: Vec<Box<str>> = hints.for_zones.iter().flatten().map(|z| z.name.as_str().into()).collect();
    let nodes: Vec<Box<str>> = hints.for_nodes.iter().flatten().map(|n| n.name.as_str().into()).collect();
    (!zones.is_empty() || !nodes.is_empty()).then(|| Arc::new(Hints { zones, nodes }))
}

/// When the change began that this slice carries, in milliseconds since 1970; for the network
/// programming latency metric.
#[must_use]
pub fn trigger_time(slice: &EndpointSlice) -> Option<i64> {
    let text = slice.metadata.annotations.as_ref()?.get(ANNOTATION_TRIGGER_TIME)?;
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

//! Kubernetes objects → the snapshot's own types. Pure. What upstream's kube-proxy ignores is
//! ignored here; a value that cannot be read drops that value, never the whole Service.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::{Endpoint, Hints, Protocol, ServicePort, Slice};
use crate::api::{self, EndpointSlice, Service, ServiceSpec};
use crate::cidr::Cidr4;

/// Label of Services and slices that belong to another proxy.
pub const LABEL_SERVICE_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// Label of slices of headless Services.
pub const LABEL_HEADLESS: &str = "service.kubernetes.io/headless";
/// Label of a slice that names its Service.
pub const LABEL_SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Upstream's default of `sessionAffinityConfig.clientIP.timeoutSeconds`.
const DEFAULT_AFFINITY_SECONDS: i32 = 10_800;

/// A protocol by its name in the API; an absent name is TCP.
#[must_use]
pub fn protocol(name: &str) -> Option<Protocol> {
    match name {
        "" | "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        _ => None,
    }
}

fn port_number(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|n| *n != 0)
}

/// The ports of a Service: none for headless and ExternalName Services and those without an IPv4 ClusterIP. One of
/// another proxy is told for its ClusterIP alone.
#[must_use]
pub fn service_ports(service: &Service) -> Vec<ServicePort> {
    let spec = &service.spec;
    if spec.r#type == "ExternalName" {
        return Vec::new();
    }
    let Some(cluster_ip) = vips(spec.cluster_ips.iter().chain([&spec.cluster_ip])).next() else {
        return Vec::new();
    };
    let proxied = !service.metadata.labels.contains_key(LABEL_SERVICE_PROXY_NAME);
    let bare = ServicePort { proxied, ..ServicePort::new(Protocol::Tcp, cluster_ip, 0) };
    let template = if proxied { template(service, bare) } else { bare };
    let ports = spec.ports.iter().filter_map(|port| {
        Some(ServicePort {
            port_name: port.name.as_str().into(),
            protocol: protocol(&port.protocol)?,
            port: port_number(port.port)?,
            node_port: port_number(port.node_port).filter(|_| proxied).unwrap_or(0),
            ..template.clone()
        })
    });
    ports.collect()
}

/// What all ports of a Service have in common.
fn template(service: &Service, bare: ServicePort) -> ServicePort {
    let spec = &service.spec;
    ServicePort {
        external_ips: sorted(vips(spec.external_ips.iter()).collect()),
        load_balancer_ips: load_balancer_ips(service),
        source_ranges: source_ranges(spec),
        affinity: affinity(spec),
        internal_local: spec.internal_traffic_policy == "Local",
        external_local: spec.external_traffic_policy == "Local",
        health_check_node_port: health_check_node_port(spec),
        ..bare
    }
}

/// Where a load balancer asks this node, 0 for nowhere: nothing else is asked, whatever the field says.
fn health_check_node_port(spec: &ServiceSpec) -> u16 {
    let asked = spec.r#type == "LoadBalancer" && spec.external_traffic_policy == "Local";
    port_number(spec.health_check_node_port).filter(|_| asked).unwrap_or(0)
}

/// Addresses that may be virtual: rules for the node's own loopback or for everything would cut
/// the node off.
fn vips<'a>(texts: impl Iterator<Item = &'a String>) -> impl Iterator<Item = Ipv4Addr> {
    texts
        .filter_map(|text| text.parse::<Ipv4Addr>().ok())
        .filter(|ip| !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_broadcast()))
}

fn sorted(mut addresses: Vec<Ipv4Addr>) -> Arc<[Ipv4Addr]> {
    addresses.sort_unstable();
    addresses.dedup();
    addresses.into()
}

fn load_balancer_ips(service: &Service) -> Arc<[Ipv4Addr]> {
    let ingress = service.status.load_balancer.ingress.iter();
    // With ipMode Proxy the load balancer must see the traffic itself.
    let served = ingress.filter(|i| i.ip_mode.as_deref().unwrap_or("VIP") == "VIP");
    sorted(vips(served.map(|i| &i.ip)).collect())
}

/// `None` when everyone may come. A list of which nothing is readable admits nobody: it was meant
/// to keep somebody out.
fn source_ranges(spec: &ServiceSpec) -> Option<Vec<Cidr4>> {
    let ranges = &spec.load_balancer_source_ranges;
    (!ranges.is_empty()).then(|| ranges.iter().filter_map(|range| range.parse().ok()).collect())
}

fn affinity(spec: &ServiceSpec) -> Option<u32> {
    if spec.session_affinity != "ClientIP" {
        return None;
    }
    let configured = spec.session_affinity_config.client_ip.timeout_seconds;
    u32::try_from(configured.unwrap_or(DEFAULT_AFFINITY_SECONDS)).ok().filter(|seconds| *seconds > 0)
}

/// Whether a slice is for us, and not another proxy's or a headless Service's.
#[must_use]
pub fn is_proxied(slice: &EndpointSlice) -> bool {
    let labels = &slice.metadata.labels;
    !labels.contains_key(LABEL_SERVICE_PROXY_NAME) && !labels.contains_key(LABEL_HEADLESS)
}

/// The slice's content; empty for families other than IPv4.
#[must_use]
pub fn slice_content(slice: &EndpointSlice, node_name: &str) -> Slice {
    if slice.address_type != "IPv4" {
        return Slice::default();
    }
    let ports = slice.ports.iter().filter_map(|port| {
        // A port without a number stands for "all ports", which no Service can use.
        let number = port_number(port.port?)?;
        Some((port.name.as_str().into(), protocol(&port.protocol)?, number))
    });
    Slice { ports: ports.collect(), endpoints: slice.endpoints.iter().filter_map(|e| endpoint(e, node_name)).collect() }
}

fn endpoint(endpoint: &api::Endpoint, node_name: &str) -> Option<Endpoint> {
    // Only the first address counts, as upstream: the list is a leftover of the API's history.
    let addr: Ipv4Addr = endpoint.addresses.first()?.parse().ok()?;
    if addr.is_unspecified() {
        return None;
    }
    let conditions = endpoint.conditions;
    let ready = conditions.ready.unwrap_or(true);
    let node = endpoint.node_name.as_deref();
    Some(Endpoint {
        addr,
        port: 0,
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating.unwrap_or(false),
        local: node == Some(node_name),
        node_unknown: node.is_none(),
        hints: hints(endpoint),
    })
}

fn hints(endpoint: &api::Endpoint) -> Option<Arc<Hints>> {
    let names = |hints: &[api::NamedHint]| hints.iter().map(|hint| hint.name.as_str().into()).collect();
    let hints = Hints { zones: names(&endpoint.hints.for_zones), nodes: names(&endpoint.hints.for_nodes) };
    (!hints.zones.is_empty() || !hints.nodes.is_empty()).then(|| Arc::new(hints))
}

/// When the change began that this slice carries, in milliseconds since 1970; for the network
/// programming latency metric.
#[must_use]
pub fn trigger_time(slice: &EndpointSlice) -> Option<i64> {
    let text = slice.metadata.annotations.last_change_trigger_time.as_ref()?;
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

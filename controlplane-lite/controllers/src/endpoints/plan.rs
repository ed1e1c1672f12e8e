//! Which pods stand behind a Service, with which addresses and ports. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Node, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use client::events::reference;
use client::objects::{deleting, label, name, ready, terminated};
use pki::canonical;

/// The zone of a node.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// Marks slices and endpoints of headless Services.
pub const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// IP family of a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The `addressType`.
    pub fn address_type(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    fn of(ip: &str) -> Self {
        if ip.contains(':') { Self::V6 } else { Self::V4 }
    }
}

/// Ports of a group of endpoints.
pub type Ports = Vec<EndpointPort>;

/// Endpoints by family and ports. Pods of one Service may differ in their ports
/// where the Service names them.
pub type Desired = BTreeMap<(Family, String), (Ports, Vec<Endpoint>)>;

/// The IP families of a Service; IPv4 when nothing says otherwise.
pub fn families(service: &Service) -> Vec<Family> {
    let spec = service.spec.clone().unwrap_or_default();
    if let Some(families) = spec.ip_families.filter(|f| !f.is_empty()) {
        return families.iter().map(|f| if f == "IPv6" { Family::V6 } else { Family::V4 }).collect();
    }
    match spec.cluster_ip.as_deref() {
        Some(ip) if ip != "None" && !ip.is_empty() => vec![Family::of(ip)],
        _ => vec![Family::V4],
    }
}

/// Whether the controller makes endpoints for the Service at all.
pub fn has_endpoints(service: &Service) -> bool {
    let Some(spec) = &service.spec else { return false };
    let selects = spec.selector.as_ref().is_some_and(|s| !s.is_empty());
    selects && spec.type_.as_deref() != Some("ExternalName") && !deleting(&service.metadata)
}

/// Whether a Service's selector matches labels.
pub fn selects(service: &Service, meta: &ObjectMeta) -> bool {
    let Some(selector) = service.spec.as_ref().and_then(|s| s.selector.as_ref()) else { return false };
    !selector.is_empty() && selector.iter().all(|(k, v)| label(meta, k) == Some(v))
}

/// Whether the Service has no cluster IP.
pub fn headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
}

/// Everything that ought to be in the slices of a Service.
pub fn desired<'a>(
    service: &Service,
    pods: impl IntoIterator<Item = &'a Pod>,
    node: &dyn Fn(&str) -> Option<std::sync::Arc<Node>>,
) -> Desired {
    let mut out = Desired::new();
    let families = families(service);
    // A family without pods still has a slice that says so.
    for family in &families {
        let ports = ports_for(service, None);
        out.insert((*family, port_key(&ports)), (ports, Vec::new()));
    }
    for pod in pods {
        if terminated(pod) || pod_node(pod).is_empty() {
            continue;
        }
        for family in &families {
            let Some(ip) = pod_ip(pod, *family) else { continue };
            let ports = ports_for(service, Some(pod));
            let endpoint = endpoint(service, pod, ip, node(pod_node(pod)).as_deref());
            out.entry((*family, port_key(&ports))).or_insert_with(|| (ports, Vec::new())).1.push(endpoint);
        }
    }
    // The placeholder without pods goes where there are endpoints of the family.
    for family in families {
        let any = out.iter().any(|((f, _), (_, e))| *f == family && !e.is_empty());
        out.retain(|(f, _), (_, endpoints)| *f != family || !any || !endpoints.is_empty());
    }
    out
}

/// A comparable text of ports.
pub fn port_key(ports: &[EndpointPort]) -> String {
    let text = |p: &EndpointPort| format!("{:?}|{:?}|{:?}|{:?}", p.name, p.port, p.protocol, p.app_protocol);
    let mut parts: Vec<String> = ports.iter().map(text).collect();
    parts.sort();
    parts.join(",")
}

fn pod_node(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or("")
}

/// The address of a pod in a family: one that an EndpointSlice may have. Of all others the API refuses the slice, and
/// with it the endpoints of all other pods.
pub fn pod_ip(pod: &Pod, family: Family) -> Option<&str> {
    let status = pod.status.as_ref()?;
    let mut all = status.pod_ips.iter().flatten().map(|p| p.ip.as_str()).chain(status.pod_ip.as_deref());
    all.find(|text| {
        let fits = |ip: &IpAddr| ip.is_ipv4() == (family == Family::V4) && may_be_endpoint(*ip);
        text.parse().as_ref().is_ok_and(fits)
    })
}

/// Upstream's ValidateEndpointIP (`pkg/apis/core/validation/validation.go`).
fn may_be_endpoint(ip: IpAddr) -> bool {
    let plain = canonical(ip);
    let link_local = match plain {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let disguised = matches!(ip, IpAddr::V6(ip) if ip.segments()[..5] == [0; 5]) && plain != ip;
    !(disguised || plain.is_unspecified() || plain.is_loopback() || plain.is_multicast() || link_local)
}

/// The Service's ports as this pod serves them; those it does not have are left
/// out. Without a pod: none, unless all are numbers.
fn ports_for(service: &Service, pod: Option<&Pod>) -> Ports {
    let ports = service.spec.as_ref().and_then(|s| s.ports.as_ref());
    let resolve = |p: &ServicePort| {
        let port = match pod {
            Some(pod) => target_port(pod, p)?,
            None => return None,
        };
        Some(EndpointPort {
            name: Some(p.name.clone().unwrap_or_default()),
            port: Some(port),
            protocol: Some(p.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
            app_protocol: p.app_protocol.clone(),
        })
    };
    ports.into_iter().flatten().filter_map(resolve).collect()
}

/// The number behind a Service port on this pod.
pub fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(n)) => Some(*n),
        Some(IntOrString::String(wanted)) if wanted.is_empty() => Some(port.port),
        Some(IntOrString::String(wanted)) => named_port(pod, wanted, port.protocol.as_deref().unwrap_or("TCP")),
    }
}

fn named_port(pod: &Pod, wanted: &str, protocol: &str) -> Option<i32> {
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|c| c.ports.iter().flatten())
        .find(|p| p.name.as_deref() == Some(wanted) && p.protocol.as_deref().unwrap_or("TCP") == protocol)
        .map(|p| p.container_port)
}

fn endpoint(service: &Service, pod: &Pod, ip: &str, node: Option<&Node>) -> Endpoint {
    let publish = service.spec.as_ref().is_some_and(|s| s.publish_not_ready_addresses == Some(true));
    let serving = ready(pod);
    let terminating = deleting(&pod.metadata);
    let spec = pod.spec.as_ref();
    let hostname = spec.and_then(|s| s.hostname.clone()).filter(|h| !h.is_empty());
    let subdomain = spec.and_then(|s| s.subdomain.as_deref());
    // The name is resolvable only below the Service the pod names as its subdomain.
    let hostname = hostname.filter(|_| subdomain == Some(name(&service.metadata)));
    let mut target = reference(pod);
    target.api_version = None;
    target.resource_version = None;
    let ready = publish || (serving && !terminating);
    let zone = node.and_then(|n| label(&n.metadata, ZONE_LABEL));
    Endpoint {
        addresses: vec![ip.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname,
        node_name: Some(pod_node(pod).to_owned()),
        target_ref: Some(target),
        zone: zone.map(str::to_owned),
        hints: if ready { hints(service, zone, pod_node(pod)) } else { None },
        ..Endpoint::default()
    }
}

/// For whom an endpoint that is ready is meant, by the Service's trafficDistribution, as upstream's ReconcileHints
/// (staging/src/k8s.io/endpointslice/trafficdist/trafficdist.go).
fn hints(service: &Service, zone: Option<&str>, node: &str) -> Option<EndpointHints> {
    let distribution = service.spec.as_ref()?.traffic_distribution.as_deref()?;
    let same_node = distribution == "PreferSameNode";
    if !same_node && !matches!(distribution, "PreferClose" | "PreferSameZone") {
        return None;
    }
    let for_zones = zone.map(|zone| vec![ForZone { name: zone.to_owned() }]);
    let for_nodes = same_node.then(|| vec![ForNode { name: node.to_owned() }]);
    (for_zones.is_some() || for_nodes.is_some()).then_some(EndpointHints { for_nodes, for_zones })
}

#[cfg(test)]
pub(super) mod tests;

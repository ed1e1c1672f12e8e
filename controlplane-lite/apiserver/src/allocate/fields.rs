//! The fields of a Service that allocation reads and writes.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};

use super::Cidr;
use scheme::access::{ensure_map, int_at, is_empty, list_at, str_at};
use scheme::prepare::{needs_health_check_port, needs_node_port};
use scheme::{FieldErrors, Path};

/// The address a Service asks for: empty, `None` or an address.
pub(super) fn wanted_ip(service: &Value) -> String {
    let single = str_at(service, &["spec", "clusterIP"]);
    if !single.is_empty() {
        return single.to_owned();
    }
    list_at(service, &["spec", "clusterIPs"]).first().and_then(Value::as_str).unwrap_or("").to_owned()
}

pub(super) fn set_ip(service: &mut Value, address: &str) {
    let spec = ensure_map(service, &["spec"]);
    spec.insert("clusterIP".into(), json!(address));
    spec.insert("clusterIPs".into(), json!([address]));
}

pub(super) fn addresses(service: &Value) -> Vec<Ipv4Addr> {
    let mut seen = HashSet::new();
    let listed = list_at(service, &["spec", "clusterIPs"]).iter().filter_map(Value::as_str);
    let all = std::iter::once(str_at(service, &["spec", "clusterIP"])).chain(listed);
    all.filter_map(|text| text.parse().ok()).filter(|address| seen.insert(*address)).collect()
}

/// What a port is spoken to in.
pub(super) fn protocol(port: &Value) -> String {
    let protocol = str_at(port, &["protocol"]);
    if protocol.is_empty() { "TCP" } else { protocol }.to_owned()
}

/// The node ports of a Service's ports. A type that has none holds none, whatever its fields say.
pub(super) fn node_ports(service: &Value) -> Vec<u16> {
    if !needs_node_port(service) {
        return Vec::new();
    }
    let mut seen = HashSet::new();
    let ports = list_at(service, &["spec", "ports"]).iter().filter_map(|p| int_at(p, &["nodePort"]));
    ports.filter_map(|p| u16::try_from(p).ok()).filter(|p| *p > 0 && seen.insert(*p)).collect()
}

/// The port at which a load balancer asks whether a node has endpoints.
pub(super) fn health_port(service: &Value) -> Option<u16> {
    let port = int_at(service, &["spec", "healthCheckNodePort"]).filter(|_| needs_health_check_port(service));
    port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)
}

/// Every port of the nodes that a Service holds.
pub(super) fn held_ports(service: &Value) -> Vec<u16> {
    let mut ports = node_ports(service);
    ports.extend(health_port(service).filter(|port| !ports.contains(port)));
    ports
}

/// An update that leaves allocated fields out keeps them (upstream's patchAllocatedValues).
pub(super) fn keep_allocated(service: &mut Value, old: &Value) {
    let needs_ip = |s: &Value| matches!(str_at(s, &["spec", "type"]), "ClusterIP" | "NodePort" | "LoadBalancer");
    if needs_ip(service) && needs_ip(old) && wanted_ip(service).is_empty() {
        let address = wanted_ip(old);
        if !address.is_empty() {
            set_ip(service, &address);
        }
    }
    for field in ["ipFamilies", "ipFamilyPolicy"] {
        if needs_ip(service) && is_empty(&service["spec"][field]) && !is_empty(&old["spec"][field]) {
            let value = old["spec"][field].clone();
            ensure_map(service, &["spec"]).insert(field.into(), value);
        }
    }
    if !(needs_node_port(service) && needs_node_port(old)) {
        return;
    }
    // Whatever else of a port is changed, its name says which it is.
    let name = |p: &Value| str_at(p, &["name"]).to_owned();
    let before: HashMap<String, Option<i64>> =
        list_at(old, &["spec", "ports"]).iter().map(|port| (name(port), int_at(port, &["nodePort"]))).collect();
    if let Some(list) = service["spec"].get_mut("ports").and_then(Value::as_array_mut) {
        let mut used: HashSet<i64> = list.iter().filter_map(|p| int_at(p, &["nodePort"])).collect();
        for entry in list.iter_mut().filter(|p| int_at(p, &["nodePort"]).unwrap_or(0) == 0) {
            let held = before.get(&name(entry)).copied().flatten();
            if let Some(port) = held.filter(|port| *port > 0 && used.insert(*port)) {
                entry["nodePort"] = json!(port);
            }
        }
    }
}

/// Single-stack IPv4, with upstream's words for whoever wants more.
pub(super) fn set_families(service: &mut Value, errors: &mut FieldErrors) {
    if str_at(service, &["spec", "type"]) == "ExternalName" {
        return;
    }
    let headless = wanted_ip(service) == "None";
    let selectorless = is_empty(&service["spec"]["selector"]);
    let policy = str_at(service, &["spec", "ipFamilyPolicy"]).to_owned();
    let spec = Path::new("spec");
    if headless && selectorless {
        let spec = ensure_map(service, &["spec"]);
        if policy.is_empty() && spec.get("ipFamilies").is_none_or(is_empty) {
            spec.insert("ipFamilyPolicy".into(), json!("RequireDualStack"));
            spec.insert("ipFamilies".into(), json!(["IPv4", "IPv6"]));
        }
        return;
    }
    if policy == "RequireDualStack" {
        errors.invalid(&spec.child("ipFamilyPolicy"), policy, "this cluster is not configured for dual-stack services");
        return;
    }
    let families = spec.child("ipFamilies");
    for (index, family) in list_at(service, &["spec", "ipFamilies"]).iter().enumerate() {
        if family == "IPv6" {
            errors.invalid(&families.index(index), "IPv6", "not configured on this cluster");
        }
    }
    let spec = ensure_map(service, &["spec"]);
    if policy.is_empty() {
        spec.insert("ipFamilyPolicy".into(), json!("SingleStack"));
    }
    if spec.get("ipFamilies").is_none_or(is_empty) {
        spec.insert("ipFamilies".into(), json!(["IPv4"]));
    }
}

/// An address outside the cluster is none of a Service's: its owner would get what is meant for another Service, or for
/// the API. What is stored already stays, so that an old Service can be changed.
pub(super) fn external_addresses(
    service: &Value,
    old: Option<&Value>,
    ranges: impl Iterator<Item = Cidr> + Clone,
    errors: &mut FieldErrors,
) {
    let listed = old.map_or(&[][..], |old| list_at(old, &["spec", "externalIPs"]));
    let before: HashSet<&str> = listed.iter().filter_map(Value::as_str).collect();
    let spec = Path::new("spec");
    let path = spec.child("externalIPs");
    for (i, text) in list_at(service, &["spec", "externalIPs"]).iter().enumerate() {
        if text.as_str().is_some_and(|text| before.contains(text)) {
            continue;
        }
        let Some(IpAddr::V4(ip)) = text.as_str().and_then(|text| text.parse().ok()).map(pki::canonical) else {
            continue;
        };
        if let Some(range) = ranges.clone().find(|range| range.contains(ip)) {
            errors.invalid(&path.index(i), text, format!("may not be in the range of cluster IPs, {range}"));
        }
    }
}

//! Services, endpoints, ingress, network policies.

use std::collections::HashSet;
use std::net::IpAddr;

use pki::canonical;
use serde_json::Value;

use super::{dns_label, dns_subdomain, immutable, one_of, port_name, port_number, port_or_name};
use crate::access::{at, int_at, is_empty, list_at, str_at};
use crate::field::{FieldErrors, Path};
use crate::{meta, selector};

mod ranges;
mod reach;

pub use ranges::{service_cidr, service_cidr_update};
pub use reach::status as service_status;

const SPEC: Path<'static> = Path::new("spec");
const IP_WORDS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

/// Service.
pub fn service(object: &Value, errors: &mut FieldErrors) {
    let spec = at(object, &["spec"]);
    let ty = str_at(spec, &["type"]);
    one_of(spec, "type", &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], true, &SPEC, errors);
    one_of(spec, "sessionAffinity", &["ClientIP", "None"], true, &SPEC, errors);
    let headless = str_at(spec, &["clusterIP"]) == "None";
    if ty != "ExternalName" && !headless && list_at(spec, &["ports"]).is_empty() {
        errors.required(&SPEC.child("ports"), "");
    }
    match ty {
        "LoadBalancer" if headless => {
            errors.invalid(
                &SPEC.child("clusterIPs").index(0),
                "None",
                "may not be set to 'None' for LoadBalancer services",
            );
        }
        "NodePort" if headless => {
            errors.invalid(
                &SPEC.child("clusterIPs").index(0),
                "None",
                "may not be set to 'None' for NodePort services",
            );
        }
        "ExternalName" => external_name(spec, errors),
        _ => {}
    }
    service_ports(spec, errors);
    meta::validate_labels(at(spec, &["selector"]), &SPEC.child("selector"), errors);
    cluster_ips(spec, errors);
    session_affinity(spec, errors);
    addresses(spec, errors);
    reach::policies(object, errors);
    reach::health_check_port(object, errors);
}

fn external_name(spec: &Value, errors: &mut FieldErrors) {
    let name = str_at(spec, &["externalName"]).trim_end_matches('.');
    if name.is_empty() {
        errors.required(&SPEC.child("externalName"), "");
    } else {
        dns_subdomain(name, &SPEC.child("externalName"), errors);
    }
    if !is_empty(at(spec, &["clusterIPs"])) {
        errors.forbidden(&SPEC.child("clusterIPs"), "may not be set for ExternalName services");
    }
}

fn service_ports(spec: &Value, errors: &mut FieldErrors) {
    let path = SPEC.child("ports");
    let ports = list_at(spec, &["ports"]);
    let named = ports.len() > 1;
    let ty = str_at(spec, &["type"]);
    let (mut names, mut numbers, mut node_ports) = (HashSet::new(), HashSet::new(), HashSet::new());
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        let name = str_at(port, &["name"]);
        if named && name.is_empty() {
            errors.required(&path.child("name"), "");
        } else if !name.is_empty() {
            dns_label(name, &path.child("name"), errors);
            if !names.insert(name) {
                errors.duplicate(&path.child("name"), name);
            }
        }
        let number = int_at(port, &["port"]).unwrap_or(0);
        port_number(number, &path.child("port"), errors);
        one_of(port, "protocol", &["SCTP", "TCP", "UDP"], true, &path, errors);
        let target = at(port, &["targetPort"]);
        port_or_name(target, &path.child("targetPort"), errors);
        if !numbers.insert((str_at(port, &["protocol"]), number)) {
            errors.duplicate(&path, port);
        }
        let node = int_at(port, &["nodePort"]).unwrap_or(0);
        if node != 0 {
            if matches!(ty, "ClusterIP" | "ExternalName") {
                errors.forbidden(&path.child("nodePort"), "may not be used when `type` is 'ClusterIP'");
            }
            port_number(node, &path.child("nodePort"), errors);
            if !node_ports.insert((str_at(port, &["protocol"]), node)) {
                errors.duplicate(&path.child("nodePort"), node);
            }
        }
    }
}

fn cluster_ips(spec: &Value, errors: &mut FieldErrors) {
    let path = SPEC.child("clusterIPs");
    let list = list_at(spec, &["clusterIPs"]);
    let single = str_at(spec, &["clusterIP"]);
    if let Some(first) = list.first()
        && first.as_str() != Some(single)
    {
        errors.invalid(&path, list, "first value must match `clusterIP`");
    }
    if list.len() > 2 {
        errors.invalid(&path, list, "may only hold up to 2 values");
    }
    for (i, ip) in list.iter().enumerate() {
        let text = ip.as_str().unwrap_or("");
        if text == "None" && list.len() == 1 || text.parse::<IpAddr>().is_ok_and(|ip| canonical(ip) == ip) {
            continue;
        }
        errors.invalid(&path.index(i), text, IP_WORDS);
    }
    let families = SPEC.child("ipFamilies");
    for (i, family) in list_at(spec, &["ipFamilies"]).iter().enumerate() {
        if !matches!(family.as_str(), Some("IPv4" | "IPv6")) {
            errors.not_supported(&families.index(i), family, &["IPv4", "IPv6"]);
        }
    }
    one_of(spec, "ipFamilyPolicy", &["PreferDualStack", "RequireDualStack", "SingleStack"], false, &SPEC, errors);
}

fn session_affinity(spec: &Value, errors: &mut FieldErrors) {
    if str_at(spec, &["sessionAffinity"]) != "ClientIP" {
        return;
    }
    let affinity = SPEC.child("sessionAffinityConfig");
    let client = affinity.child("clientIP");
    let seconds = int_at(spec, &["sessionAffinityConfig", "clientIP", "timeoutSeconds"]).unwrap_or(0);
    if !(1..=86400).contains(&seconds) {
        errors.invalid(
            &client.child("timeoutSeconds"),
            seconds,
            "must be greater than 0 and less than or equal to 86400",
        );
    }
}

fn addresses(spec: &Value, errors: &mut FieldErrors) {
    let path = SPEC.child("externalIPs");
    for (i, ip) in list_at(spec, &["externalIPs"]).iter().enumerate() {
        let text = ip.as_str().unwrap_or("");
        match text.parse::<IpAddr>() {
            Err(_) => errors.invalid(&path.index(i), text, IP_WORDS),
            Ok(ip) => special_address(&ip, text, &path.index(i), errors),
        }
    }
    let path = SPEC.child("loadBalancerSourceRanges");
    for (i, range) in list_at(spec, &["loadBalancerSourceRanges"]).iter().enumerate() {
        let text = range.as_str().unwrap_or("").trim();
        if !is_cidr(text) {
            errors.invalid(&path.index(i), text, CIDR_WORDS);
        }
    }
}

pub(super) const CIDR_WORDS: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

pub(super) fn is_cidr(text: &str) -> bool {
    let Some((ip, bits)) = text.split_once('/') else { return false };
    let (Ok(ip), Ok(bits)) = (ip.parse::<IpAddr>(), bits.parse::<u8>()) else { return false };
    bits <= if ip.is_ipv4() { 32 } else { 128 }
}

fn special_address(ip: &IpAddr, text: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    let disguised = matches!(ip, IpAddr::V6(v6) if v6.segments()[..5] == [0; 5]) && canonical(*ip) != *ip;
    if disguised {
        return errors.invalid(path, text, "must not be an IPv4-mapped IPv6 address");
    }
    // Behind a translator an address of this machine is one of the translator's.
    let ip = &canonical(*ip);
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    if ip.is_unspecified() {
        errors.invalid(path, text, "may not be unspecified (0.0.0.0 or ::)");
    }
    if ip.is_loopback() {
        errors.invalid(path, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if link_local {
        errors.invalid(path, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if ip.is_multicast() {
        errors.invalid(path, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

/// Addresses of a Service never change while it has any.
pub fn service_update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let needs = crate::prepare::needs_cluster_ip;
    if needs(new) && needs(old) {
        let (before, after) = (at(old, &["spec", "clusterIP"]), at(new, &["spec", "clusterIP"]));
        if !is_empty(before) {
            let path = SPEC.child("clusterIPs");
            if before != after {
                errors.invalid(&path.index(0), after, "field is immutable");
            }
        }
        let family = |s: &Value| list_at(s, &["spec", "ipFamilies"]).first().cloned();
        if let (Some(before), Some(after)) = (family(old), family(new))
            && before != after
        {
            errors.invalid(&SPEC.child("ipFamilies").index(0), after, "field is immutable");
        }
    }
    reach::update(new, old, errors);
    let class = |s: &Value| at(s, &["spec", "loadBalancerClass"]).clone();
    let balancer = |s: &Value| str_at(s, &["spec", "type"]) == "LoadBalancer";
    if balancer(new) && balancer(old) && class(new) != class(old) {
        errors.invalid(&SPEC.child("loadBalancerClass"), class(new), "may not change once set");
    }
}

/// Endpoints.
pub fn endpoints(object: &Value, errors: &mut FieldErrors) {
    let subsets = Path::new("subsets");
    for (i, subset) in list_at(object, &["subsets"]).iter().enumerate() {
        let path = subsets.index(i);
        if list_at(subset, &["addresses"]).is_empty() && list_at(subset, &["notReadyAddresses"]).is_empty() {
            errors.required(&path, "must specify `addresses` or `notReadyAddresses`");
        }
        for list in ["addresses", "notReadyAddresses"] {
            let path = path.child(list);
            for (j, address) in list_at(subset, &[list]).iter().enumerate() {
                let path = path.index(j);
                let text = str_at(address, &["ip"]);
                match text.parse::<IpAddr>() {
                    Err(_) => errors.invalid(&path.child("ip"), text, IP_WORDS),
                    Ok(ip) => special_address(&ip, text, &path.child("ip"), errors),
                }
                let host = str_at(address, &["hostname"]);
                if !host.is_empty() {
                    dns_label(host, &path.child("hostname"), errors);
                }
            }
        }
        let ports = list_at(subset, &["ports"]);
        let path = path.child("ports");
        for (j, port) in ports.iter().enumerate() {
            let path = path.index(j);
            let name = str_at(port, &["name"]);
            if name.is_empty() && ports.len() > 1 {
                errors.required(&path.child("name"), "");
            } else if !name.is_empty() {
                dns_label(name, &path.child("name"), errors);
            }
            port_number(int_at(port, &["port"]).unwrap_or(0), &path.child("port"), errors);
            one_of(port, "protocol", &["SCTP", "TCP", "UDP"], true, &path, errors);
        }
    }
}

/// EndpointSlice.
pub fn endpoint_slice(object: &Value, errors: &mut FieldErrors) {
    one_of(object, "addressType", &["FQDN", "IPv4", "IPv6"], true, &Path::ROOT, errors);
    let endpoints = Path::new("endpoints");
    let list = list_at(object, &["endpoints"]);
    if list.len() > 1000 {
        errors.too_many(&endpoints, list.len(), 1000);
    }
    for (i, endpoint) in list.iter().enumerate() {
        let path = endpoints.index(i);
        let addresses = path.child("addresses");
        let count = list_at(endpoint, &["addresses"]).len();
        if count == 0 {
            errors.required(&addresses, "must contain at least 1 address");
        } else if count > 100 {
            errors.too_many(&addresses, count, 100);
        }
        for (j, address) in list_at(endpoint, &["addresses"]).iter().enumerate() {
            slice_address(str_at(object, &["addressType"]), address, &addresses.index(j), errors);
        }
        let host = str_at(endpoint, &["hostname"]);
        if !host.is_empty() {
            dns_label(host, &path.child("hostname"), errors);
        }
    }
    let ports = Path::new("ports");
    let mut names = HashSet::new();
    for (i, port) in list_at(object, &["ports"]).iter().enumerate() {
        let path = ports.index(i);
        let name = str_at(port, &["name"]);
        if !names.insert(name) {
            errors.duplicate(&path.child("name"), name);
        }
        if !name.is_empty() {
            dns_label(name, &path.child("name"), errors);
        }
        one_of(port, "protocol", &["SCTP", "TCP", "UDP"], true, &path, errors);
        if let Some(number) = int_at(port, &["port"]) {
            port_number(number, &path.child("port"), errors);
        }
    }
}

/// IPAddress: what it belongs to.
pub fn ip_address(object: &Value, errors: &mut FieldErrors) {
    let path = SPEC.child("parentRef");
    let parent = at(object, &["spec", "parentRef"]);
    if parent.is_null() {
        return errors.required(&path, "");
    }
    for key in ["resource", "name"] {
        if str_at(parent, &[key]).is_empty() {
            errors.required(&path.child(key), "");
        }
    }
}

/// IPAddress: never changes.
pub fn ip_address_update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    immutable(at(new, &["spec", "parentRef"]), at(old, &["spec", "parentRef"]), &SPEC.child("parentRef"), errors);
}

fn slice_address(ty: &str, address: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let text = address.as_str().unwrap_or("");
    match (ty, text.parse::<IpAddr>()) {
        ("IPv4", Ok(ip @ IpAddr::V4(_))) | ("IPv6", Ok(ip @ IpAddr::V6(_))) => {
            special_address(&ip, text, path, errors);
        }
        ("IPv4", _) => errors.invalid(path, text, "must be an IPv4 address"),
        ("IPv6", _) => errors.invalid(path, text, "must be an IPv6 address"),
        ("FQDN", _) => dns_subdomain(text.trim_end_matches('.'), path, errors),
        _ => {}
    }
}

/// The address type of a slice never changes.
pub fn endpoint_slice_update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    immutable(at(new, &["addressType"]), at(old, &["addressType"]), &Path::new("addressType"), errors);
}

/// Ingress.
pub fn ingress(object: &Value, errors: &mut FieldErrors) {
    let spec = at(object, &["spec"]);
    if list_at(spec, &["rules"]).is_empty() && at(spec, &["defaultBackend"]).is_null() {
        errors.invalid(&SPEC, Value::Array(Vec::new()), "either `defaultBackend` or `rules` must be specified");
    }
    if !at(spec, &["defaultBackend"]).is_null() {
        ingress_backend(at(spec, &["defaultBackend"]), &SPEC.child("defaultBackend"), errors);
    }
    let rules = SPEC.child("rules");
    for (i, rule) in list_at(spec, &["rules"]).iter().enumerate() {
        let path = rules.index(i);
        let host = str_at(rule, &["host"]);
        if host.parse::<IpAddr>().is_ok() {
            errors.invalid(&path.child("host"), host, "must be a DNS name, not an IP address");
        } else if !host.is_empty() {
            dns_subdomain(host.strip_prefix("*.").unwrap_or(host), &path.child("host"), errors);
        }
        let http = path.child("http");
        let paths = http.child("paths");
        if !at(rule, &["http"]).is_null() && list_at(rule, &["http", "paths"]).is_empty() {
            errors.required(&paths, "");
        }
        for (j, item) in list_at(rule, &["http", "paths"]).iter().enumerate() {
            let path = paths.index(j);
            if at(item, &["pathType"]).is_null() {
                errors.required(&path.child("pathType"), "pathType must be specified");
            } else {
                one_of(item, "pathType", &["Exact", "ImplementationSpecific", "Prefix"], true, &path, errors);
            }
            let text = str_at(item, &["path"]);
            let kind = str_at(item, &["pathType"]);
            if (kind != "ImplementationSpecific" || !text.is_empty()) && !text.starts_with('/') {
                errors.invalid(&path.child("path"), text, "must be an absolute path");
            }
            ingress_backend(at(item, &["backend"]), &path.child("backend"), errors);
        }
    }
}

fn ingress_backend(backend: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    match (backend.get("service"), backend.get("resource")) {
        (Some(_), Some(_)) => {
            errors.invalid(path, "", "cannot set both resource and service backends");
        }
        (None, None) => errors.required(path, "resource or service backend is required"),
        (Some(service), None) => {
            let path = path.child("service");
            let name = str_at(service, &["name"]);
            if name.is_empty() {
                errors.required(&path.child("name"), "");
            } else {
                for problem in meta::dns1035_label(name) {
                    errors.invalid(&path.child("name"), name, problem);
                }
            }
            let port = path.child("port");
            let (name, number) =
                (str_at(service, &["port", "name"]), int_at(service, &["port", "number"]).unwrap_or(0));
            match (name.is_empty(), number) {
                (true, 0) => errors.required(&path, "port name or number is required"),
                (false, 0) => port_name(name, &port.child("name"), errors),
                (true, number) => port_number(number, &port.child("number"), errors),
                (false, _) => errors.invalid(&path, "", "cannot set both port name & port number"),
            }
        }
        (None, Some(_)) => {}
    }
}

/// NetworkPolicy.
pub fn network_policy(object: &Value, errors: &mut FieldErrors) {
    let spec = at(object, &["spec"]);
    selector::validate_object(at(spec, &["podSelector"]), &SPEC.child("podSelector"), errors);
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        let path = SPEC.child(direction);
        for (i, rule) in list_at(spec, &[direction]).iter().enumerate() {
            let path = path.index(i);
            let ports = path.child("ports");
            for (j, port) in list_at(rule, &["ports"]).iter().enumerate() {
                one_of(port, "protocol", &["SCTP", "TCP", "UDP"], false, &ports.index(j), errors);
                let number = at(port, &["port"]);
                if !number.is_null() {
                    port_or_name(number, &ports.index(j).child("port"), errors);
                }
            }
            let list = path.child(peers);
            for (j, peer) in list_at(rule, &[peers]).iter().enumerate() {
                network_peer(peer, &list.index(j), errors);
            }
        }
    }
    let types = SPEC.child("policyTypes");
    for (i, ty) in list_at(spec, &["policyTypes"]).iter().enumerate() {
        if !matches!(ty.as_str(), Some("Ingress" | "Egress")) {
            errors.not_supported(&types.index(i), ty, &["Egress", "Ingress"]);
        }
    }
}

fn network_peer(peer: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    for key in ["podSelector", "namespaceSelector"] {
        selector::validate_object(at(peer, &[key]), &path.child(key), errors);
    }
    let block = at(peer, &["ipBlock"]);
    if block.is_null() {
        if at(peer, &["podSelector"]).is_null() && at(peer, &["namespaceSelector"]).is_null() {
            errors.required(path, "must specify a peer");
        }
        return;
    }
    if peer.as_object().is_some_and(|m| m.len() > 1) {
        errors.forbidden(path, "may not specify both ipBlock and another peer");
    }
    let path = path.child("ipBlock");
    let cidr = str_at(block, &["cidr"]);
    if cidr.is_empty() {
        errors.required(&path.child("cidr"), "");
    } else if !is_cidr(cidr) {
        errors.invalid(&path.child("cidr"), cidr, CIDR_WORDS);
    }
    for (i, except) in list_at(block, &["except"]).iter().enumerate() {
        let text = except.as_str().unwrap_or("");
        if !is_cidr(text) {
            errors.invalid(&path.child("except").index(i), text, CIDR_WORDS);
        }
    }
}

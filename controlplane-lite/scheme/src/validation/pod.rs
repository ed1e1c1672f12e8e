//! Pods and pod templates.

use std::collections::HashSet;

use serde_json::Value;

use super::container::{Context, Role, container, resources};
use super::{annotations, dns_label, dns_subdomain, ephemeral, one_of, placement, security, volume};
use crate::access::{at, bool_at, int_at, list_at, str_at};
use crate::field::{FieldErrors, Path};
use crate::meta;

/// A Pod.
pub fn pod(object: &Value, errors: &mut FieldErrors) {
    annotations::pod(object, errors);
    pod_spec(at(object, &["spec"]), &Path::new("spec"), errors);
}

/// What a Pod may only get later (`ValidatePodCreate` in upstream's `pkg/apis/core/validation`).
pub fn new_pod(object: &Value, errors: &mut FieldErrors) {
    let path = Path::new("spec");
    if !list_at(object, &["spec", "ephemeralContainers"]).is_empty() {
        errors.forbidden(&path.child("ephemeralContainers"), "cannot be set on create");
    }
    let gated = !list_at(object, &["spec", "schedulingGates"]).is_empty();
    if gated && !str_at(object, &["spec", "nodeName"]).is_empty() {
        errors.forbidden(&path.child("nodeName"), "cannot be set until all schedulingGates have been cleared");
    }
}

/// A PodTemplateSpec: labels, annotations and spec.
pub fn template(value: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let metadata = path.child("metadata");
    meta::validate_labels(at(value, &["metadata", "labels"]), &metadata.child("labels"), errors);
    meta::validate_annotations(at(value, &["metadata", "annotations"]), &metadata.child("annotations"), errors);
    pod_spec(at(value, &["spec"]), &path.child("spec"), errors);
    if !list_at(value, &["spec", "ephemeralContainers"]).is_empty() {
        errors.forbidden(
            &path.child("spec").child("ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        );
    }
}

/// A PodSpec.
pub fn pod_spec(spec: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let context = Context {
        volumes: volume::volumes(spec, &path.child("volumes"), errors),
        claims: list_at(spec, &["resourceClaims"]).iter().map(|claim| str_at(claim, &["name"])).collect(),
        restart_policy: str_at(spec, &["restartPolicy"]),
        host_network: bool_at(spec, &["hostNetwork"]),
        host_users: at(spec, &["hostUsers"]) != &Value::Bool(false),
    };
    containers(spec, &context, path, errors);
    one_of(spec, "restartPolicy", &["Always", "Never", "OnFailure"], true, path, errors);
    one_of(spec, "dnsPolicy", &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"], true, path, errors);
    if str_at(spec, &["dnsPolicy"]) == "None" && list_at(spec, &["dnsConfig", "nameservers"]).is_empty() {
        errors.required(
            &path.child("dnsConfig").child("nameservers"),
            "must provide at least one DNS nameserver when `dnsPolicy` is None",
        );
    }
    if let Some(seconds) = int_at(spec, &["activeDeadlineSeconds"])
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        errors.invalid(&path.child("activeDeadlineSeconds"), seconds, "must be between 1 and 2147483647, inclusive");
    }
    names(spec, path, errors);
    resources(at(spec, &["resources"]), &path.child("resources"), errors);
    security_context(spec, path, errors);
    placement::placement(spec, path, errors);
    host_port_conflicts(spec, path, errors);
}

fn containers(spec: &Value, context: &Context<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    if list_at(spec, &["containers"]).is_empty() {
        errors.required(&path.child("containers"), "");
    }
    let mut names = HashSet::new();
    for (list, role) in [("containers", Role::Main), ("initContainers", Role::Init)] {
        let path = path.child(list);
        for (i, item) in list_at(spec, &[list]).iter().enumerate() {
            named(item, role, context, &mut names, &path.index(i), errors);
        }
    }
    let others = names.clone();
    let path = path.child("ephemeralContainers");
    for (i, item) in list_at(spec, &["ephemeralContainers"]).iter().enumerate() {
        let path = path.index(i);
        named(item, Role::Ephemeral, context, &mut names, &path, errors);
        ephemeral::container(item, &others, &path, errors);
    }
}

/// A container whose name no container before it has.
fn named<'a>(
    item: &'a Value,
    role: Role,
    context: &Context<'_>,
    names: &mut HashSet<&'a str>,
    path: &Path<'_>,
    errors: &mut FieldErrors,
) {
    container(item, role, context, path, errors);
    let name = str_at(item, &["name"]);
    if !name.is_empty() && !names.insert(name) {
        errors.duplicate(&path.child("name"), name);
    }
}

fn names(spec: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    for key in ["serviceAccountName", "nodeName", "runtimeClassName", "priorityClassName"] {
        let name = str_at(spec, &[key]);
        if !name.is_empty() {
            dns_subdomain(name, &path.child(key), errors);
        }
    }
    for key in ["hostname", "subdomain"] {
        let name = str_at(spec, &[key]);
        if !name.is_empty() {
            dns_label(name, &path.child(key), errors);
        }
    }
    let aliases = path.child("hostAliases");
    for (i, alias) in list_at(spec, &["hostAliases"]).iter().enumerate() {
        let ip = str_at(alias, &["ip"]);
        if ip.parse::<std::net::IpAddr>().is_err() {
            errors.invalid(
                &aliases.index(i).child("ip"),
                ip,
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            );
        }
        for (j, host) in list_at(alias, &["hostnames"]).iter().enumerate() {
            let host = host.as_str().unwrap_or("");
            dns_subdomain(host, &aliases.index(i).child("hostnames").index(j), errors);
        }
    }
    for (key, max) in [("nameservers", 3), ("searches", 32)] {
        let list = list_at(spec, &["dnsConfig", key]);
        if list.len() > max {
            errors.invalid(&path.child("dnsConfig").child(key), list, format!("must not have more than {max} {key}"));
        }
    }
    dns_config(spec, &path.child("dnsConfig"), errors);
}

/// What becomes lines of a resolv.conf must be words.
fn dns_config(spec: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let list = path.child("nameservers");
    for (i, server) in list_at(spec, &["dnsConfig", "nameservers"]).iter().enumerate() {
        let server = server.as_str().unwrap_or("");
        if server.parse::<std::net::IpAddr>().is_err() {
            let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            errors.invalid(&list.index(i), server, why);
        }
    }
    let list = path.child("searches");
    for (i, search) in list_at(spec, &["dnsConfig", "searches"]).iter().enumerate() {
        let search = search.as_str().unwrap_or("");
        if search == "." {
            continue;
        }
        // Upstream lets underscores stand wherever letters may, and a final dot.
        let masked = search.strip_suffix('.').unwrap_or(search).replace('_', "a");
        for problem in meta::NameRule::Dns1123Subdomain.check(&masked, false) {
            errors.invalid(&list.index(i), search, problem);
        }
    }
    let list = path.child("options");
    for (i, option) in list_at(spec, &["dnsConfig", "options"]).iter().enumerate() {
        let (name, value) = (str_at(option, &["name"]), str_at(option, &["value"]));
        if name.is_empty() {
            errors.required(&list.index(i), "must not be empty");
        }
        // A line break would begin another directive.
        for (key, text) in [("name", name), ("value", value)] {
            if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
                errors.invalid(&list.index(i).child(key), text, "must not contain whitespace");
            }
        }
    }
}

fn security_context(spec: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let context = at(spec, &["securityContext"]);
    let security_path = path.child("securityContext");
    security::ids(context, &["runAsUser", "runAsGroup", "fsGroup"], &security_path, errors);
    security::profiles(context, &security_path, errors);
    if bool_at(spec, &["hostPID"]) && bool_at(spec, &["shareProcessNamespace"]) {
        errors.invalid(
            &path.child("shareProcessNamespace"),
            true,
            "ShareProcessNamespace and HostPID cannot both be enabled",
        );
    }
    let mut seen = HashSet::new();
    for (i, sysctl) in list_at(context, &["sysctls"]).iter().enumerate() {
        let name = str_at(sysctl, &["name"]);
        let path = security_path.child("sysctls");
        let path = path.index(i);
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else if !is_sysctl(name) {
            errors.invalid(&path.child("name"), name, SYSCTL);
        } else if !seen.insert(name) {
            errors.duplicate(&path.child("name"), name);
        }
    }
}

const SYSCTL: &str = "must have at most 253 characters and match regex \
                      ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

/// Whether a text names a sysctl: segments between dots or slashes.
fn is_sysctl(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let segment = |text: &str| {
        let bytes = text.as_bytes();
        bytes.first().is_some_and(|b| plain(*b))
            && bytes.last().is_some_and(|b| plain(*b))
            && bytes.iter().all(|b| plain(*b) || matches!(b, b'-' | b'_'))
    };
    name.len() <= 253 && name.split(['.', '/']).all(segment)
}

/// Two containers of a pod cannot have the same host port.
fn host_port_conflicts(spec: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let mut seen = HashSet::new();
    for list in ["containers", "initContainers"] {
        let path = path.child(list);
        for (i, item) in list_at(spec, &[list]).iter().enumerate() {
            let sidecar = str_at(item, &["restartPolicy"]) == "Always";
            if list == "initContainers" && !sidecar {
                continue;
            }
            let path = path.index(i);
            for (j, port) in list_at(item, &["ports"]).iter().enumerate() {
                let number = int_at(port, &["hostPort"]).unwrap_or(0);
                if number == 0 {
                    continue;
                }
                let text = format!("{}/{}/{number}", str_at(port, &["protocol"]), str_at(port, &["hostIP"]));
                if !seen.insert(text.clone()) {
                    errors.duplicate(&path.child("ports").index(j).child("hostPort"), text);
                }
            }
        }
    }
}

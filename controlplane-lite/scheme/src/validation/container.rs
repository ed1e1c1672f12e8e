//! Containers: names, images, ports, environment, mounts, probes, resources.

use std::collections::{HashMap, HashSet};

use quantity::Quantity;
use serde_json::Value;

use super::quota::container_resource_name;
use super::{dns_label, mounts, non_negative, one_of, port_name, port_number, port_or_name, resize, security};
use crate::access::{at, entries_at, int_at, list_at, str_at};
use crate::field::{FieldErrors, Path};
use crate::meta;

/// Which list a container stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `containers`.
    Main,
    /// `initContainers`.
    Init,
    /// `ephemeralContainers`.
    Ephemeral,
}

/// The pod around the containers, as far as they refer to it.
#[derive(Debug)]
pub struct Context<'a> {
    /// The pod's volumes by name.
    pub volumes: HashMap<&'a str, &'a Value>,
    /// Names of the pod's resource claims.
    pub claims: HashSet<&'a str>,
    /// The pod's restart policy.
    pub restart_policy: &'a str,
    /// Whether the pod uses the host's network.
    pub host_network: bool,
    /// Whether the pod uses the host's users.
    pub host_users: bool,
}

/// One container, its name's uniqueness excepted.
pub fn container(item: &Value, role: Role, context: &Context<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    let name = str_at(item, &["name"]);
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    } else {
        dns_label(name, &path.child("name"), errors);
    }
    let image = str_at(item, &["image"]);
    if image.is_empty() {
        errors.required(&path.child("image"), "");
    } else if image.trim() != image {
        errors.invalid(&path.child("image"), image, "must not have leading or trailing whitespace");
    }
    one_of(item, "imagePullPolicy", &["Always", "IfNotPresent", "Never"], true, path, errors);
    one_of(item, "terminationMessagePolicy", &["File", "FallbackToLogsOnError"], true, path, errors);
    ports(item, context, &path.child("ports"), errors);
    environment(item, path, errors);
    mounts::mounts_and_devices(item, context, path, errors);
    resources(at(item, &["resources"]), &path.child("resources"), errors);
    claims(item, context, &path.child("resources").child("claims"), errors);
    resize::policies(item, context.restart_policy, &path.child("resizePolicy"), errors);
    security::container(at(item, &["securityContext"]), context.host_users, &path.child("securityContext"), errors);
    let sidecar = role == Role::Init && str_at(item, &["restartPolicy"]) == "Always";
    match role {
        // Its own rules forbid whatever they do not know.
        Role::Ephemeral => return,
        Role::Init if !sidecar => {
            for key in ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
                if !at(item, &[key]).is_null() {
                    let words = "may not be set for init containers without restartPolicy=Always";
                    errors.forbidden(&path.child(key), words);
                }
            }
        }
        Role::Init | Role::Main => {
            probes(item, path, errors);
            lifecycle(item, path, errors);
        }
    }
    one_of(item, "restartPolicy", &["Always", "Never", "OnFailure"], false, path, errors);
}

fn ports(item: &Value, context: &Context<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    let mut names = HashSet::new();
    for (i, port) in list_at(item, &["ports"]).iter().enumerate() {
        let path = path.index(i);
        let name = str_at(port, &["name"]);
        if !name.is_empty() {
            port_name(name, &path.child("name"), errors);
            if !names.insert(name) {
                errors.duplicate(&path.child("name"), name);
            }
        }
        let number = int_at(port, &["containerPort"]).unwrap_or(0);
        if number == 0 {
            errors.required(&path.child("containerPort"), "");
        } else {
            port_number(number, &path.child("containerPort"), errors);
        }
        let host = int_at(port, &["hostPort"]).unwrap_or(0);
        if host != 0 {
            port_number(host, &path.child("hostPort"), errors);
            if context.host_network && host != number {
                errors.invalid(
                    &path.child("containerPort"),
                    number,
                    "must match `hostPort` when `hostNetwork` is true",
                );
            }
        }
        one_of(port, "protocol", &["SCTP", "TCP", "UDP"], true, &path, errors);
        let ip = str_at(port, &["hostIP"]);
        if !ip.is_empty() && ip.parse::<std::net::IpAddr>().is_err() {
            let words = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            errors.invalid(&path.child("hostIP"), ip, words);
        }
    }
}

fn environment(item: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let list = path.child("env");
    for (i, env) in list_at(item, &["env"]).iter().enumerate() {
        let path = list.index(i);
        let name = str_at(env, &["name"]);
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else if !name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
            errors.invalid(
                &path.child("name"),
                name,
                "a valid environment variable name must consist only of printable ASCII characters other than '='",
            );
        }
        env_source(env, &path.child("valueFrom"), errors);
    }
    let list = path.child("envFrom");
    for (i, source) in list_at(item, &["envFrom"]).iter().enumerate() {
        let path = list.index(i);
        let mut count = 0;
        for key in ["configMapRef", "secretRef"] {
            let Some(reference) = source.get(key) else { continue };
            count += 1;
            if count == 1 && str_at(reference, &["name"]).is_empty() {
                errors.required(&path.child(key).child("name"), "");
            }
        }
        match count {
            0 => errors.invalid(&path, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => errors.invalid(&path, "", "may not have more than one field specified at a time"),
        }
    }
}

fn env_source(env: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    const SOURCES: [&str; 5] = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
    let source = at(env, &["valueFrom"]);
    if source.is_null() {
        return;
    }
    let set: Vec<&str> = SOURCES.into_iter().filter(|k| source.get(*k).is_some()).collect();
    match set.as_slice() {
        [] => errors.invalid(
            path,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ),
        _ if !str_at(env, &["value"]).is_empty() => {
            errors.invalid(path, "", "may not be specified when `value` is not empty");
        }
        [_, _, ..] => errors.invalid(path, "", "may not have more than one field specified at a time"),
        [key @ ("configMapKeyRef" | "secretKeyRef")] => {
            for field in ["name", "key"] {
                if str_at(source, &[key, field]).is_empty() {
                    errors.required(&path.child(key).child(field), "");
                }
            }
        }
        ["fieldRef"] => field_ref(at(source, &["fieldRef"]), ENV_FIELDS, &path.child("fieldRef"), errors),
        ["resourceFieldRef"] => {
            if str_at(source, &["resourceFieldRef", "resource"]).is_empty() {
                errors.required(&path.child("resourceFieldRef").child("resource"), "");
            }
        }
        [_] => {}
    }
}

const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Fields a downward API volume may show.
pub(super) const VOLUME_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// A reference to a field of the pod: known field, or one label or annotation by key.
pub(super) fn field_ref(value: &Value, allowed: &[&str], path: &Path<'_>, errors: &mut FieldErrors) {
    let field = str_at(value, &["fieldPath"]);
    if field.is_empty() {
        errors.required(&path.child("fieldPath"), "");
        return;
    }
    if let Some((map, rest)) = field.split_once("['")
        && let Some(key) = rest.strip_suffix("']")
    {
        if matches!(map, "metadata.labels" | "metadata.annotations") {
            for problem in meta::qualified_name(&key.to_lowercase()) {
                errors.invalid(&path.child("fieldPath"), field, problem);
            }
        } else {
            errors.invalid(&path.child("fieldPath"), field, "does not support subscript");
        }
    } else if !allowed.contains(&field) {
        errors.not_supported(&path.child("fieldPath"), field, allowed);
    }
}

fn probes(item: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = at(item, &[key]);
        if probe.is_null() {
            continue;
        }
        let path = path.child(key);
        handler(probe, &["exec", "httpGet", "tcpSocket", "grpc"], &path, errors);
        for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
        {
            non_negative(probe, field, &path, errors);
        }
        if let Some(seconds) = int_at(probe, &["terminationGracePeriodSeconds"]) {
            if key == "readinessProbe" {
                errors.invalid(
                    &path.child("terminationGracePeriodSeconds"),
                    seconds,
                    "must not be set for readinessProbes",
                );
            } else if seconds <= 0 {
                errors.invalid(&path.child("terminationGracePeriodSeconds"), seconds, "must be greater than 0");
            }
        }
        let threshold = int_at(probe, &["successThreshold"]).unwrap_or(1);
        if key != "readinessProbe" && threshold != 1 && threshold >= 0 {
            errors.invalid(&path.child("successThreshold"), threshold, "must be 1");
        }
    }
}

fn lifecycle(item: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let path = path.child("lifecycle");
    for key in ["postStart", "preStop"] {
        let hook = at(item, &["lifecycle", key]);
        if !hook.is_null() {
            handler(hook, &["exec", "httpGet", "tcpSocket", "sleep"], &path.child(key), errors);
        }
    }
}

fn handler(value: &Value, kinds: &[&str], path: &Path<'_>, errors: &mut FieldErrors) {
    let mut count = 0;
    for kind in kinds {
        let action = at(value, &[kind]);
        if action.is_null() {
            continue;
        }
        let path = path.child(kind);
        count += 1;
        if count > 1 {
            errors.forbidden(&path, "may not specify more than 1 handler type");
            continue;
        }
        match *kind {
            "exec" if list_at(action, &["command"]).is_empty() => errors.required(&path.child("command"), ""),
            "httpGet" => {
                if str_at(action, &["path"]).is_empty() {
                    errors.required(&path.child("path"), "");
                }
                port_or_name(at(action, &["port"]), &path.child("port"), errors);
                one_of(action, "scheme", &["HTTP", "HTTPS"], true, &path, errors);
            }
            "tcpSocket" => port_or_name(at(action, &["port"]), &path.child("port"), errors),
            "grpc" => port_number(int_at(action, &["port"]).unwrap_or(0), &path.child("port"), errors),
            _ => {}
        }
    }
    if count == 0 {
        errors.required(path, "must specify a handler type");
    }
}

/// Requests and limits of a container or pod.
pub fn resources(value: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    for list in ["limits", "requests"] {
        let path = path.child(list);
        for (name, quantity) in entries_at(value, &[list]) {
            container_resource_name(name, &path.key(name), errors);
            let Some(quantity) = parse(quantity) else { continue };
            if quantity.is_negative() {
                errors.invalid(&path.key(name), quantity.to_string(), "must be greater than or equal to 0");
            } else if name.contains('/') && !name.starts_with("hugepages-") && !quantity.is_whole() {
                errors.invalid(&path.key(name), quantity.to_string(), "must be an integer");
            }
        }
    }
    let requests = path.child("requests");
    for (name, request) in entries_at(value, &["requests"]) {
        let limit = at(value, &["limits", name]);
        let (Some(request), Some(limit)) = (parse(request), parse(limit)) else { continue };
        let extended = name.contains('/') || name.starts_with("hugepages-");
        if extended && request != limit {
            errors.invalid(&requests, request.to_string(), format!("must be equal to {name} limit of {limit}"));
        } else if request > limit {
            errors.invalid(
                &requests,
                request.to_string(),
                format!("must be less than or equal to {name} limit of {limit}"),
            );
        }
    }
}

/// The pod's resource claims that the container uses.
fn claims(item: &Value, context: &Context<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    let mut seen = HashSet::new();
    for (i, claim) in list_at(item, &["resources", "claims"]).iter().enumerate() {
        let (name, request) = (str_at(claim, &["name"]), str_at(claim, &["request"]));
        let path = path.index(i);
        if name.is_empty() {
            errors.required(&path, "");
        } else if !context.claims.contains(name) {
            errors.not_found(&path, name);
        } else if !seen.insert((name, request)) {
            errors.duplicate(&path, name);
        }
    }
}

fn parse(value: &Value) -> Option<Quantity> {
    value.as_str().and_then(|s| s.parse().ok())
}

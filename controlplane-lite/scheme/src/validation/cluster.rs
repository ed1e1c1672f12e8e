//! ConfigMaps, Secrets, Nodes, Events.

use std::collections::HashSet;

use quantity::Quantity;
use serde_json::Value;

use super::{immutable, one_of};
use crate::access::{at, bool_at, entries_at, is_empty, list_at, str_at};
use crate::field::{FieldErrors, Path};
use crate::meta;

/// Namespace: its content's finalizers are the standard one, or bear a domain.
pub fn namespace(object: &Value, errors: &mut FieldErrors) {
    let spec = Path::new("spec");
    let path = spec.child("finalizers");
    for (i, finalizer) in list_at(object, &["spec", "finalizers"]).iter().enumerate() {
        let text = finalizer.as_str().unwrap_or("");
        let item = path.index(i);
        for problem in meta::qualified_name(text) {
            errors.invalid(&item, text, problem);
        }
        if !text.contains('/') && !matches!(text, "kubernetes" | "orphan" | "foregroundDeletion") {
            errors.invalid(&item, text, "name is neither a standard finalizer name nor is it fully qualified");
        }
    }
}

/// Most bytes in one ConfigMap or Secret.
pub const DATA_MAX: usize = 1024 * 1024;

fn data_key(key: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    let valid = !key.is_empty()
        && key.len() <= meta::SUBDOMAIN_MAX
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if key.len() > meta::SUBDOMAIN_MAX {
        errors.invalid(path, key, format!("must be no more than {} characters", meta::SUBDOMAIN_MAX));
    } else if !valid {
        errors.invalid(
            path,
            key,
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        );
    }
    if key == "." {
        errors.invalid(path, key, "must not be '.'");
    } else if key.starts_with("..") {
        errors.invalid(path, key, "must not start with '..'");
    }
}

fn decoded_len(value: &Value) -> usize {
    let text = value.as_str().unwrap_or("");
    text.len() / 4 * 3 - text.bytes().rev().take_while(|b| *b == b'=').count().min(text.len() / 4 * 3)
}

/// ConfigMap.
pub fn config_map(object: &Value, errors: &mut FieldErrors) {
    let (data, binary) = (Path::new("data"), Path::new("binaryData"));
    let mut total = 0;
    for (key, value) in entries_at(object, &["data"]) {
        data_key(key, &data.key(key), errors);
        if at(object, &["binaryData"]).get(key).is_some() {
            errors.invalid(&data.key(key), key.as_str(), "duplicate of key present in binaryData");
        }
        total += value.as_str().unwrap_or("").len();
    }
    for (key, value) in entries_at(object, &["binaryData"]) {
        data_key(key, &binary.key(key), errors);
        total += decoded_len(value);
    }
    if total > DATA_MAX {
        errors.too_long(&Path::ROOT, DATA_MAX);
    }
}

fn frozen(new: &Value, old: &Value, keys: &[&str], errors: &mut FieldErrors) {
    if !bool_at(old, &["immutable"]) {
        return;
    }
    if !bool_at(new, &["immutable"]) {
        errors.forbidden(&Path::new("immutable"), "field is immutable when `immutable` is set");
    }
    for key in keys {
        let (n, o) = (at(new, &[key]), at(old, &[key]));
        if n != o && !(is_empty(n) && is_empty(o)) {
            errors.forbidden(&Path::new(key), "field is immutable when `immutable` is set");
        }
    }
}

/// An immutable ConfigMap stays as it is.
pub fn config_map_update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    frozen(new, old, &["data", "binaryData"], errors);
}

/// Secret: keys, size, and what its type demands.
pub fn secret(object: &Value, errors: &mut FieldErrors) {
    let data = Path::new("data");
    let mut total = 0;
    for (key, value) in entries_at(object, &["data"]) {
        data_key(key, &data.key(key), errors);
        total += decoded_len(value);
    }
    if total > DATA_MAX {
        errors.too_long(&data, DATA_MAX);
    }
    let has = |key: &str| at(object, &["data"]).get(key).is_some();
    let mut need = |key: &str| {
        if !has(key) {
            errors.required(&data.key(key), "");
        }
    };
    match str_at(object, &["type"]) {
        "kubernetes.io/dockercfg" => need(".dockercfg"),
        "kubernetes.io/dockerconfigjson" => need(".dockerconfigjson"),
        "kubernetes.io/ssh-auth" => need("ssh-privatekey"),
        "kubernetes.io/tls" => {
            need("tls.crt");
            need("tls.key");
        }
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            need("username");
            need("password");
        }
        "kubernetes.io/service-account-token" => {
            let metadata = Path::new("metadata");
            let annotations = metadata.child("annotations");
            let name = "kubernetes.io/service-account.name";
            if at(object, &["metadata", "annotations"]).get(name).and_then(Value::as_str).unwrap_or("").is_empty() {
                errors.required(&annotations.key(name), "");
            }
        }
        _ => {}
    }
    dockerconfig(object, errors);
}

fn dockerconfig(object: &Value, errors: &mut FieldErrors) {
    use base64::Engine as _;
    for key in [".dockercfg", ".dockerconfigjson"] {
        let kind = format!("kubernetes.io/{}", &key[1..]);
        let Some(text) = at(object, &["data"]).get(key).and_then(Value::as_str) else { continue };
        let json = base64::engine::general_purpose::STANDARD
            .decode(text)
            .is_ok_and(|bytes| serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok());
        if str_at(object, &["type"]) == kind && !json {
            errors.invalid(&Path::new("data").key(key), "<secret contents redacted>", "invalid character");
        }
    }
}

/// Type never changes; an immutable Secret stays as it is.
pub fn secret_update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    immutable(at(new, &["type"]), at(old, &["type"]), &Path::new("type"), errors);
    frozen(new, old, &["data"], errors);
}

/// Node: taints, labels of capacity, pod ranges.
pub fn node(object: &Value, errors: &mut FieldErrors) {
    let spec = Path::new("spec");
    let taints = spec.child("taints");
    let mut seen = HashSet::new();
    for (i, taint) in list_at(object, &["spec", "taints"]).iter().enumerate() {
        let path = taints.index(i);
        let (key, effect) = (str_at(taint, &["key"]), str_at(taint, &["effect"]));
        for problem in meta::qualified_name(key) {
            errors.invalid(&path.child("key"), key, problem);
        }
        let value = str_at(taint, &["value"]);
        for problem in meta::label_value(value) {
            errors.invalid(&path.child("value"), value, problem);
        }
        one_of(taint, "effect", &["NoExecute", "NoSchedule", "PreferNoSchedule"], true, &path, errors);
        if !seen.insert((key, effect)) {
            errors.duplicate(&path, taint);
        }
    }
    pod_ranges(object, &spec, errors);
    node_resources(object, errors);
}

/// What a node's status says of itself (`ValidateNodeUpdate` in upstream's `pkg/apis/core/validation`, which runs for
/// it, too). Addresses that were stored twice under other rules keep nobody from labelling the node.
pub fn node_status(object: &Value, errors: &mut FieldErrors) {
    node_resources(object, errors);
    let status = Path::new("status");
    let addresses = status.child("addresses");
    let mut seen = HashSet::new();
    for (i, address) in list_at(object, &["status", "addresses"]).iter().enumerate() {
        if !seen.insert((str_at(address, &["type"]), str_at(address, &["address"]))) {
            errors.duplicate(&addresses.index(i), address.clone());
        }
    }
}

fn node_resources(object: &Value, errors: &mut FieldErrors) {
    let status = Path::new("status");
    for list in ["capacity", "allocatable"] {
        let path = status.child(list);
        for (name, value) in entries_at(object, &["status", list]) {
            if value.as_str().and_then(|s| s.parse::<Quantity>().ok()).is_some_and(|q| q.is_negative()) {
                errors.invalid(&path.key(name), value, "must be greater than or equal to 0");
            }
        }
    }
}

/// One range of each family, and the older field says the same as the newer.
fn pod_ranges(node: &Value, spec: &Path<'_>, errors: &mut FieldErrors) {
    let ranges = list_at(node, &["spec", "podCIDRs"]);
    let path = spec.child("podCIDRs");
    for (i, range) in ranges.iter().enumerate() {
        if !range.as_str().is_some_and(super::network::is_cidr) {
            errors.invalid(&path.index(i), range, super::network::CIDR_WORDS);
        }
    }
    let is_v6 = |range: &Value| range.as_str().is_some_and(|text| text.contains(':'));
    match ranges {
        [first, second] if is_v6(first) == is_v6(second) => {
            errors.invalid(&path, ranges, "must specify no more than one CIDR for each IP family");
        }
        [_, _, _, ..] => errors.invalid(&path, ranges, "must specify no more than one CIDR for each IP family"),
        _ => {}
    }
    let single = str_at(node, &["spec", "podCIDR"]);
    if ranges.first().map_or("", |first| first.as_str().unwrap_or_default()) != single {
        errors.invalid(&spec.child("podCIDR"), single, "must match podCIDRs[0]");
    }
}

/// A node's pod ranges and provider id are set once.
pub fn node_update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let spec = Path::new("spec");
    let (before, after) = (at(old, &["spec", "podCIDRs"]), at(new, &["spec", "podCIDRs"]));
    if !is_empty(before) && before != after {
        errors.forbidden(&spec.child("podCIDRs"), "node updates may not change podCIDR except from \"\" to valid");
    }
    let (before, after) = (str_at(old, &["spec", "providerID"]), str_at(new, &["spec", "providerID"]));
    if !before.is_empty() && before != after {
        errors.forbidden(&spec.child("providerID"), "node updates may not change providerID except from \"\" to valid");
    }
}

/// Event: lives where its object lives.
pub fn event(object: &Value, errors: &mut FieldErrors) {
    let namespace = str_at(object, &["metadata", "namespace"]);
    let involved = Path::new("involvedObject");
    let target = str_at(object, &["involvedObject", "namespace"]);
    // Events of cluster-scoped objects live in `default`; a v1 writer may also use kube-system.
    let matches =
        if target.is_empty() { matches!(namespace, "default" | "kube-system" | "") } else { target == namespace };
    if !matches {
        errors.invalid(&involved.child("namespace"), target, "does not match event.namespace");
    }
}

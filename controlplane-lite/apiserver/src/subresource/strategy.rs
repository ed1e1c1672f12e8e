//! Pure: what a write through a subresource may change, and how it is validated. Upstream's strategies.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use crate::call::Call;
use scheme::access::{copy_field, list_at, str_at};
use scheme::validation::{certificates, resize};
use scheme::{FieldErrors, Path, meta, prepare};

/// Restores what the write may not change.
pub fn prepare(call: &Call, new: &mut Value, old: &Value) {
    let kind = call.resource.kind;
    match call.info.subresource.as_str() {
        "" => kind.prepare_update(new, old),
        "status" => kind.prepare_status_update(new, old),
        "finalize" => keep_all_but(new, old, |new, kept| copy_path(new, kept, &["spec", "finalizers"])),
        "approval" => keep_all_but(new, old, |new, kept| {
            copy_path(new, kept, &["status", "conditions"]);
            copy_path(new, kept, &["metadata", "annotations"]);
            copy_path(new, kept, &["metadata", "labels"]);
        }),
        "ephemeralcontainers" => {
            keep_all_but(new, old, |new, kept| copy_path(new, kept, &["spec", "ephemeralContainers"]));
            meta::bump_generation(new, old);
        }
        "resize" => {
            keep_all_but(new, old, |new, kept| {
                copy_resources(new, kept, "containers");
                copy_resources(new, kept, "initContainers");
            });
            meta::bump_generation(new, old);
        }
        _ => *new = old.clone(),
    }
    if (kind.group, kind.plural) == ("certificates.k8s.io", "certificatesigningrequests") {
        prepare::request_conditions(new, old, &call.server.now_text());
    }
}

/// Everything wrong with the write.
pub fn validate(call: &Call, new: &Value, old: &Value) -> FieldErrors {
    let kind = call.resource.kind;
    match call.info.subresource.as_str() {
        "" => kind.validate_update(new, old),
        "status" => kind.validate_status_update(new, old),
        "approval" => {
            let mut errors = FieldErrors::new();
            meta::validate_update(new, old, kind.namespaced, &Path::new("metadata"), &mut errors);
            certificates::approval_update(new, old, &mut errors);
            errors
        }
        "ephemeralcontainers" => ephemeral(new, old),
        "resize" => {
            let mut errors = FieldErrors::new();
            resize::pod_resize(new, old, &mut errors);
            errors
        }
        _ => FieldErrors::new(),
    }
}

fn keep_all_but(new: &mut Value, old: &Value, take: impl Fn(&Value, &mut Value)) {
    let mut kept = old.clone();
    take(new, &mut kept);
    // Preconditions were checked against the client's metadata already.
    *new = kept;
}

fn copy_path(from: &Value, to: &mut Value, path: &[&str; 2]) {
    let source = from[path[0]].clone();
    let target = scheme::access::ensure_map(to, &path[..1]);
    let mut inner = Value::Object(std::mem::take(target));
    copy_field(&mut inner, &source, path[1]);
    to[path[0]] = inner;
}

fn copy_resources(from: &Value, to: &mut Value, list: &str) {
    let wanted: HashMap<&str, &Value> =
        list_at(from, &["spec", list]).iter().map(|c| (str_at(c, &["name"]), c)).collect();
    let Some(containers) = to["spec"].get_mut(list).and_then(Value::as_array_mut) else { return };
    for container in containers {
        let new = wanted.get(str_at(container, &["name"])).copied();
        if let Some(new) = new {
            copy_field(container, new, "resources");
            copy_field(container, new, "resizePolicy");
        }
    }
}

/// Ephemeral containers may only be added.
fn ephemeral(new: &Value, old: &Value) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let spec = Path::new("spec");
    let path = spec.child("ephemeralContainers");
    let now = list_at(new, &["spec", "ephemeralContainers"]);
    let by_name: HashMap<&str, &Value> = now.iter().map(|c| (str_at(c, &["name"]), c)).collect();
    for before in list_at(old, &["spec", "ephemeralContainers"]) {
        match by_name.get(str_at(before, &["name"])).copied() {
            None => errors
                .forbidden(&path, format!("existing ephemeral containers {} may not be removed\n", before["name"])),
            Some(after) if after != before => {
                errors
                    .forbidden(&path, format!("existing ephemeral containers {} may not be changed\n", before["name"]));
            }
            Some(_) => {}
        }
    }
    let all = ["containers", "initContainers"].iter().flat_map(|list| list_at(new, &["spec", list]));
    let mut names: HashSet<&str> = all.map(|c| str_at(c, &["name"])).collect();
    for (index, container) in now.iter().enumerate() {
        let item = path.index(index);
        let name = str_at(container, &["name"]);
        if name.is_empty() {
            errors.required(&item.child("name"), "");
        } else if !names.insert(name) {
            errors.duplicate(&item.child("name"), name);
        }
        if container["image"].as_str().is_none_or(str::is_empty) {
            errors.required(&item.child("image"), "");
        }
        for field in ["ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
            if !container[field].is_null() && container[field] != json!([]) {
                errors.forbidden(&item.child(field), "cannot be set for an Ephemeral Container");
            }
        }
    }
    errors
}

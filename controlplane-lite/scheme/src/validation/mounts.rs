//! Where containers have the pod's volumes: mounts and block devices (`ValidateVolumeMounts` and
//! `ValidateVolumeDevices` in upstream's `pkg/apis/core/validation/validation.go`).

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::container::Context;
use super::one_of;
use crate::access::{at, bool_at, list_at, str_at};
use crate::field::{FieldErrors, Path};

/// `volumeMounts` and `volumeDevices` of a container.
pub(super) fn mounts_and_devices(item: &Value, context: &Context<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    mounts(item, context, &path.child("volumeMounts"), errors);
    devices(item, context, &path.child("volumeDevices"), errors);
}

fn mounts(item: &Value, context: &Context<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    let privileged = bool_at(item, &["securityContext", "privileged"]);
    let of_devices = |field: &str| -> HashSet<&str> {
        list_at(item, &["volumeDevices"]).iter().map(|device| str_at(device, &[field])).collect()
    };
    let (device_names, device_paths) = (of_devices("name"), of_devices("devicePath"));
    let mut seen = HashSet::new();
    for (i, mount) in list_at(item, &["volumeMounts"]).iter().enumerate() {
        let path = path.index(i);
        let name = str_at(mount, &["name"]);
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else if !context.volumes.contains_key(name) {
            errors.not_found(&path.child("name"), name);
        }
        let target = str_at(mount, &["mountPath"]);
        if target.is_empty() {
            errors.required(&path.child("mountPath"), "");
        } else if target.contains(':') {
            errors.invalid(&path.child("mountPath"), target, "must not contain ':'");
        } else if !seen.insert(target) {
            errors.invalid(&path.child("mountPath"), target, "must be unique");
        }
        for (field, others, own) in [("name", &device_names, name), ("mountPath", &device_paths, target)] {
            if !own.is_empty() && others.contains(own) {
                let words = if field == "name" {
                    "must not already exist in volumeDevices"
                } else {
                    "must not already exist as a path in volumeDevices"
                };
                errors.invalid(&path.child(field), own, words);
            }
        }
        sub_path(mount, &path, errors);
        one_of(mount, "mountPropagation", &["Bidirectional", "HostToContainer", "None"], false, &path, errors);
        if str_at(mount, &["mountPropagation"]) == "Bidirectional" && !privileged {
            let words = "Bidirectional mount propagation is available only to privileged containers";
            errors.forbidden(&path.child("mountPropagation"), words);
        }
    }
}

fn sub_path(mount: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    for field in ["subPath", "subPathExpr"] {
        let text = str_at(mount, &[field]);
        if !text.is_empty() {
            local_descending_path(text, &path.child(field), errors);
        }
    }
    let (sub, expression) = (str_at(mount, &["subPath"]), str_at(mount, &["subPathExpr"]));
    if !sub.is_empty() && !expression.is_empty() {
        let words = "subPathExpr and subPath are mutually exclusive";
        errors.invalid(&path.child("subPathExpr"), expression, words);
    }
}

fn devices(item: &Value, context: &Context<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    let (mut names, mut paths) = (HashSet::new(), HashSet::new());
    for (i, device) in list_at(item, &["volumeDevices"]).iter().enumerate() {
        let path = path.index(i);
        let (name, target) = (str_at(device, &["name"]), str_at(device, &["devicePath"]));
        let at_name = path.child("name");
        match context.volumes.get(name) {
            _ if name.is_empty() => errors.required(&at_name, ""),
            None => errors.not_found(&at_name, name),
            Some(volume) if !is_claim(volume) => {
                let words = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.invalid(&at_name, name, words);
            }
            Some(_) if !names.insert(name) => errors.invalid(&at_name, name, "must be unique"),
            Some(_) => {}
        }
        let at_path = path.child("devicePath");
        if target.is_empty() {
            errors.required(&at_path, "");
        } else if target.split('/').any(|part| part == "..") {
            errors.invalid(&at_path, target, "can not contain backsteps ('..')");
        } else if !paths.insert(target) {
            errors.invalid(&at_path, target, "must be unique");
        }
    }
}

/// Whether a volume is one of those that can be block devices.
fn is_claim(volume: &Value) -> bool {
    ["persistentVolumeClaim", "ephemeral"].iter().any(|source| !at(volume, &[source]).is_null())
}

/// The pod's volumes by name.
pub(super) type Volumes<'a> = HashMap<&'a str, &'a Value>;

/// A relative path that stays below its directory.
pub(super) fn local_descending_path(text: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    if text.starts_with('/') {
        errors.invalid(path, text, "must be a relative path");
    }
    if text.split('/').any(|part| part == "..") {
        errors.invalid(path, text, "must not contain '..'");
    }
}

/// The same for a file in a volume whose own files begin with two dots.
pub(super) fn local_non_reserved_path(text: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    local_descending_path(text, path, errors);
    if text.starts_with("..") && text.split('/').next() != Some("..") {
        errors.invalid(path, text, "must not start with '..'");
    }
}

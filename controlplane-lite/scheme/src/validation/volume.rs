//! Volumes of a pod.

use std::collections::HashMap;

use serde_json::Value;

use super::container::{VOLUME_FIELDS, field_ref};
use super::mounts::{Volumes, local_non_reserved_path};
use super::{dns_label, dns_subdomain, one_of};
use crate::access::{at, int_at, list_at, str_at};
use crate::field::{FieldErrors, Path};

/// Checks all volumes and returns them by name.
pub(super) fn volumes<'a>(spec: &'a Value, path: &Path<'_>, errors: &mut FieldErrors) -> Volumes<'a> {
    let mut names = HashMap::new();
    for (i, volume) in list_at(spec, &["volumes"]).iter().enumerate() {
        let path = path.index(i);
        let name = str_at(volume, &["name"]);
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            dns_label(name, &path.child("name"), errors);
            if names.insert(name, volume).is_some() {
                errors.duplicate(&path.child("name"), name);
            }
        }
        source(volume, &path, errors);
    }
    names
}

fn source(volume: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let mut count = 0;
    for (kind, value) in volume.as_object().into_iter().flatten() {
        if kind == "name" || value.is_null() {
            continue;
        }
        count += 1;
        let path = path.child(kind);
        if count > 1 {
            errors.forbidden(&path, "may not specify more than 1 volume type");
            continue;
        }
        match kind.as_str() {
            "hostPath" => host_path(value, &path, errors),
            "secret" => {
                required(value, "secretName", &path, errors);
                keys_to_paths(value, &path, errors);
            }
            "configMap" => {
                required(value, "name", &path, errors);
                keys_to_paths(value, &path, errors);
            }
            "downwardAPI" => downward(value, &path, errors),
            "projected" => projected(value, &path, errors),
            "persistentVolumeClaim" => required(value, "claimName", &path, errors),
            "csi" => required(value, "driver", &path, errors),
            "nfs" => {
                required(value, "server", &path, errors);
                required(value, "path", &path, errors);
            }
            "image" => {
                required(value, "reference", &path, errors);
                one_of(value, "pullPolicy", &["Always", "IfNotPresent", "Never"], true, &path, errors);
            }
            "emptyDir" => {
                let medium = str_at(value, &["medium"]);
                let pages = medium.strip_prefix("HugePages-").and_then(|size| size.parse::<quantity::Quantity>().ok());
                if !matches!(medium, "" | "Memory" | "HugePages") && pages.is_none() {
                    let known = ["Memory", "HugePages", "HugePages-<size>"];
                    errors.not_supported(&path.child("medium"), medium, &known);
                }
                let negative =
                    str_at(value, &["sizeLimit"]).parse::<quantity::Quantity>().is_ok_and(|q| q.is_negative());
                if negative {
                    errors.forbidden(&path.child("sizeLimit"), "SizeLimit field must be a valid resource quantity");
                }
            }
            _ => {}
        }
    }
    if count == 0 {
        errors.required(path, "must specify a volume type");
    }
}

fn required(value: &Value, key: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    if str_at(value, &[key]).is_empty() {
        errors.required(&path.child(key), "");
    }
}

fn host_path(value: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let target = str_at(value, &["path"]);
    if target.is_empty() {
        errors.required(&path.child("path"), "");
    } else if target.split('/').any(|part| part == "..") {
        errors.invalid(&path.child("path"), target, "must not contain '..'");
    }
    one_of(
        value,
        "type",
        &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"],
        false,
        path,
        errors,
    );
}

fn mode(value: &Value, key: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    if let Some(mode) = int_at(value, &[key])
        && !(0..=0o777).contains(&mode)
    {
        errors.invalid(&path.child(key), mode, "must be a number between 0 and 0777 (octal), both inclusive");
    }
}

fn keys_to_paths(value: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    mode(value, "defaultMode", path, errors);
    let items = path.child("items");
    for (i, item) in list_at(value, &["items"]).iter().enumerate() {
        let path = items.index(i);
        required(item, "key", &path, errors);
        required(item, "path", &path, errors);
        local_non_reserved_path(str_at(item, &["path"]), &path.child("path"), errors);
        mode(item, "mode", &path, errors);
    }
}

fn downward(value: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    mode(value, "defaultMode", path, errors);
    let items = path.child("items");
    for (i, item) in list_at(value, &["items"]).iter().enumerate() {
        let path = items.index(i);
        required(item, "path", &path, errors);
        local_non_reserved_path(str_at(item, &["path"]), &path.child("path"), errors);
        mode(item, "mode", &path, errors);
        match (item.get("fieldRef").is_some(), item.get("resourceFieldRef").is_some()) {
            (true, true) => {
                errors.invalid(&path, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously");
            }
            (true, false) => field_ref(at(item, &["fieldRef"]), VOLUME_FIELDS, &path.child("fieldRef"), errors),
            (false, true) => {
                let reference = at(item, &["resourceFieldRef"]);
                required(reference, "containerName", &path.child("resourceFieldRef"), errors);
                required(reference, "resource", &path.child("resourceFieldRef"), errors);
            }
            (false, false) => errors.required(&path, "one of fieldRef and resourceFieldRef is required"),
        }
    }
}

fn projected(value: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    mode(value, "defaultMode", path, errors);
    let sources = path.child("sources");
    for (i, source) in list_at(value, &["sources"]).iter().enumerate() {
        let path = sources.index(i);
        let mut count = 0;
        for (kind, value) in source.as_object().into_iter().flatten() {
            count += 1;
            let path = path.child(kind);
            match kind.as_str() {
                _ if count > 1 => errors.forbidden(&path, "may not specify more than 1 volume type"),
                "secret" | "configMap" => {
                    let name = str_at(value, &["name"]);
                    if name.is_empty() {
                        errors.required(&path.child("name"), "");
                    } else {
                        dns_subdomain(name, &path.child("name"), errors);
                    }
                    keys_to_paths(value, &path, errors);
                }
                "downwardAPI" => downward(value, &path, errors),
                "serviceAccountToken" => {
                    required(value, "path", &path, errors);
                    local_non_reserved_path(str_at(value, &["path"]), &path.child("path"), errors);
                    let seconds = int_at(value, &["expirationSeconds"]).unwrap_or(3600);
                    if seconds < 600 {
                        errors.invalid(
                            &path.child("expirationSeconds"),
                            seconds,
                            "may not specify a duration less than 10 minutes",
                        );
                    } else if seconds > 1 << 32 {
                        errors.invalid(
                            &path.child("expirationSeconds"),
                            seconds,
                            "may not specify a duration larger than 2^32 seconds",
                        );
                    }
                }
                "clusterTrustBundle" => {
                    required(value, "path", &path, errors);
                    local_non_reserved_path(str_at(value, &["path"]), &path.child("path"), errors);
                }
                "podCertificate" => {
                    for field in ["credentialBundlePath", "keyPath", "certificateChainPath"] {
                        local_non_reserved_path(str_at(value, &[field]), &path.child(field), errors);
                    }
                }
                _ => {}
            }
        }
        if count == 0 {
            errors.required(&path, "must specify a volume type");
        }
    }
}

//! Ephemeral containers: what one may be (`validateEphemeralContainers` in upstream's
//! `pkg/apis/core/validation/validation.go`), and what the subresource may change
//! (`ValidatePodEphemeralContainersUpdate`).

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::{annotations, pod};
use crate::access::{at, is_empty, list_at, str_at};
use crate::field::{FieldErrors, Path};

/// All that an ephemeral container may have, so that a field nobody thought of is refused.
const ALLOWED: [&str; 17] = [
    "name",
    "image",
    "command",
    "args",
    "workingDir",
    "envFrom",
    "env",
    "volumeMounts",
    "volumeDevices",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "imagePullPolicy",
    "securityContext",
    "stdin",
    "stdinOnce",
    "tty",
    "targetContainerName",
];

const FORBIDDEN: &str = "cannot be set for an Ephemeral Container";

/// What is asked of an ephemeral container beyond what is asked of every container. `others` are the names of the
/// pod's containers that are none.
pub(super) fn container(item: &Value, others: &HashSet<&str>, path: &Path<'_>, errors: &mut FieldErrors) {
    let target = str_at(item, &["targetContainerName"]);
    if !target.is_empty() && !others.contains(target) {
        errors.not_found(&path.child("targetContainerName"), target);
    }
    for (field, value) in item.as_object().into_iter().flatten() {
        if !ALLOWED.contains(&field.as_str()) && !is_empty(value) {
            errors.forbidden(&path.child(field), FORBIDDEN);
        }
    }
    // Bind mounts of sub-paths would stay until the pod ends.
    let mounts = path.child("volumeMounts");
    for (i, mount) in list_at(item, &["volumeMounts"]).iter().enumerate() {
        for field in ["subPath", "subPathExpr"] {
            if !str_at(mount, &[field]).is_empty() {
                errors.forbidden(&mounts.index(i).child(field), FORBIDDEN);
            }
        }
    }
}

/// Everything wrong with a write through `pods/ephemeralcontainers`: the pod as it would be, and containers that are
/// not added but changed or removed.
pub fn update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    if at(old, &["metadata", "annotations"]).get(annotations::MIRROR).is_some() {
        return errors.forbidden(&Path::ROOT, "static pods do not support ephemeral containers");
    }
    pod::pod(new, errors);
    let spec = Path::new("spec");
    let path = spec.child("ephemeralContainers");
    let now = list_at(new, &["spec", "ephemeralContainers"]);
    let by_name: HashMap<&str, &Value> = now.iter().map(|c| (str_at(c, &["name"]), c)).collect();
    for before in list_at(old, &["spec", "ephemeralContainers"]) {
        let name = str_at(before, &["name"]);
        let done = match by_name.get(name).copied() {
            None => "removed",
            Some(after) if after != before => "changed",
            Some(_) => continue,
        };
        errors.forbidden(&path, format!("existing ephemeral containers {name:?} may not be {done}\n"));
    }
}

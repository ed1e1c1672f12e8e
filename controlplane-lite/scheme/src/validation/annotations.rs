//! Annotations of pods that mean something to the node (`ValidatePodSpecificAnnotations` and
//! `ValidatePodSpecificAnnotationUpdates` in upstream's `pkg/apis/core/validation/validation.go`).

use std::collections::BTreeSet;

use serde_json::Value;

use crate::access::{at, entries_at, str_at};
use crate::field::{FieldErrors, Path};

/// The annotation of a mirror pod: one that a kubelet made for a static pod.
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";
/// What AppArmor profiles were said with before they had a field.
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Annotations that do not fit the pod.
pub(super) fn pod(object: &Value, errors: &mut FieldErrors) {
    if let Some(value) = at(object, &["metadata", "annotations"]).get(MIRROR)
        && str_at(object, &["spec", "nodeName"]).is_empty()
    {
        let words = "must set spec.nodeName if mirror pod annotation is set";
        errors.invalid(&Path::new("metadata").child("annotations").key(MIRROR), value, words);
    }
}

/// What an update of a pod, of its status or through its binding may not do to its annotations.
pub fn update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let path = ["metadata", "annotations"];
    let keys: BTreeSet<&String> = entries_at(old, &path).chain(entries_at(new, &path)).map(|(key, _)| key).collect();
    for key in keys {
        let (before, after) = (at(old, &path).get(key), at(new, &path).get(key));
        let what = match key.as_str() {
            MIRROR => "mirror pod annotation",
            key if key.starts_with(APP_ARMOR) => "AppArmor annotations",
            _ => continue,
        };
        let done = match (before, after) {
            _ if before == after => continue,
            (None, _) => "add",
            (Some(_), _) => "remove or update",
        };
        let metadata = Path::new("metadata");
        errors.forbidden(&metadata.child("annotations").key(key), format!("may not {done} {what}"));
    }
}

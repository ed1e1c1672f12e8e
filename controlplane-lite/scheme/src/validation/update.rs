//! What an update of a pod may change.

use std::collections::HashSet;

use serde_json::Value;

use super::annotations;
use crate::access::{at, ensure_map, int_at, list_at, list_at_mut, str_at};
use crate::field::{FieldErrors, Path};

/// An update of a Pod (new, old): images, deadlines, added tolerations, removed gates.
pub fn pod_update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    annotations::update(new, old, errors);
    let (new_spec, old_spec) = (at(new, &["spec"]), at(old, &["spec"]));
    if new_spec == old_spec {
        return;
    }
    let spec = Path::new("spec");
    for list in ["containers", "initContainers"] {
        if list_at(new_spec, &[list]).len() != list_at(old_spec, &[list]).len() {
            let words = if list == "containers" {
                "pod updates may not add or remove containers"
            } else {
                "pod updates may not add or remove initContainers"
            };
            errors.forbidden(&spec.child(list), words);
            return;
        }
    }
    deadline(new_spec, old_spec, errors);
    tolerations(new_spec, old_spec, errors);
    gates(new_spec, old_spec, errors);
    let mut munged = new_spec.clone();
    take_allowed(&mut munged, old_spec);
    if &munged != old_spec {
        let mut changed: Vec<&str> = munged
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(key, value)| at(old_spec, &[key]) != *value)
            .map(|(key, _)| key.as_str())
            .collect();
        changed.extend(
            old_spec.as_object().into_iter().flatten().map(|(k, _)| k.as_str()).filter(|k| munged.get(k).is_none()),
        );
        errors.forbidden(
            &spec,
            format!(
                "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n  changed: {}\n",
                changed.join(", ")
            ),
        );
    }
}

/// Puts the old values of everything an update may change into `munged`, so that the rest can be compared.
fn take_allowed(munged: &mut Value, old: &Value) {
    for list in ["containers", "initContainers"] {
        for (item, before) in list_at_mut(munged, &[list]).iter_mut().zip(list_at(old, &[list])) {
            crate::access::copy_field(item, before, "image");
        }
    }
    for key in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        crate::access::copy_field(munged, old, key);
    }
    if int_at(old, &["terminationGracePeriodSeconds"]).is_some_and(|s| s < 0)
        && int_at(munged, &["terminationGracePeriodSeconds"]) == Some(1)
    {
        crate::access::copy_field(munged, old, "terminationGracePeriodSeconds");
    }
    if !list_at(old, &["schedulingGates"]).is_empty() {
        // A gated pod may be confined further.
        let grown = at(old, &["nodeSelector"])
            .as_object()
            .is_none_or(|m| m.iter().all(|(k, v)| at(munged, &["nodeSelector", k]) == v));
        if grown {
            crate::access::copy_field(munged, old, "nodeSelector");
        }
        if at(old, &["affinity", "nodeAffinity"]).is_null() && !at(munged, &["affinity", "nodeAffinity"]).is_null() {
            ensure_map(munged, &["affinity"]).remove("nodeAffinity");
            if at(old, &["affinity"]).is_null() && at(munged, &["affinity"]).as_object().is_some_and(|m| m.is_empty()) {
                ensure_map(munged, &[]).remove("affinity");
            }
        }
    }
}

fn deadline(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let spec = Path::new("spec");
    let path = spec.child("activeDeadlineSeconds");
    match (int_at(new, &["activeDeadlineSeconds"]), int_at(old, &["activeDeadlineSeconds"])) {
        (Some(n), Some(o)) if n > o => errors.invalid(&path, n, "must be less than or equal to previous value"),
        (None, Some(_)) => errors.invalid(&path, Value::Null, "must not update from a positive integer to nil value"),
        _ => {}
    }
}

fn tolerations(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let spec = Path::new("spec");
    let facts = |t: &Value| ["key", "operator", "value", "effect"].map(|k| str_at(t, &[k]).to_owned());
    let now: HashSet<[String; 4]> = list_at(new, &["tolerations"]).iter().map(facts).collect();
    let kept = list_at(old, &["tolerations"]).iter().all(|before| now.contains(&facts(before)));
    if !kept {
        errors.forbidden(
            &spec.child("tolerations"),
            "existing toleration can not be modified except its tolerationSeconds",
        );
    }
}

fn gates(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let spec = Path::new("spec");
    let path = spec.child("schedulingGates");
    let had: HashSet<&str> = list_at(old, &["schedulingGates"]).iter().map(|gate| str_at(gate, &["name"])).collect();
    for (i, gate) in list_at(new, &["schedulingGates"]).iter().enumerate() {
        if !had.contains(str_at(gate, &["name"])) {
            errors.forbidden(
                &path.index(i),
                format!("only deletion is allowed, but found new scheduling gate '{}'", str_at(gate, &["name"])),
            );
        }
    }
}

//! RBAC, leases, classes, budgets.

use serde_json::Value;

use super::{immutable, int_or_percent};
use crate::access::{at, int_at, list_at, str_at};
use crate::field::{FieldErrors, Path};
use crate::selector;

const RBAC: &str = "rbac.authorization.k8s.io";

/// Role.
pub fn role(object: &Value, errors: &mut FieldErrors) {
    rules(object, true, errors);
}

/// ClusterRole: non-resource rules and aggregation too.
pub fn cluster_role(object: &Value, errors: &mut FieldErrors) {
    rules(object, false, errors);
    let aggregation = Path::new("aggregationRule");
    let selectors = aggregation.child("clusterRoleSelectors");
    let value = at(object, &["aggregationRule"]);
    if !value.is_null() && list_at(value, &["clusterRoleSelectors"]).is_empty() {
        errors.required(&selectors, "at least one clusterRoleSelector required if aggregationRule is non-nil");
    }
    for (i, item) in list_at(value, &["clusterRoleSelectors"]).iter().enumerate() {
        selector::validate_object(item, &selectors.index(i), errors);
    }
}

fn rules(object: &Value, namespaced: bool, errors: &mut FieldErrors) {
    let path = Path::new("rules");
    for (i, rule) in list_at(object, &["rules"]).iter().enumerate() {
        let path = path.index(i);
        let empty = |key: &str| list_at(rule, &[key]).is_empty();
        if empty("verbs") {
            errors.required(&path.child("verbs"), "verbs must contain at least one value");
        }
        if !empty("nonResourceURLs") {
            if namespaced {
                errors.invalid(
                    &path.child("nonResourceURLs"),
                    at(rule, &["nonResourceURLs"]),
                    "namespaced rules cannot apply to non-resource URLs",
                );
            }
            if !(empty("apiGroups") && empty("resources") && empty("resourceNames")) {
                errors.invalid(
                    &path.child("nonResourceURLs"),
                    at(rule, &["nonResourceURLs"]),
                    "rules cannot apply to both regular resources and non-resource URLs",
                );
            }
            continue;
        }
        if empty("apiGroups") {
            errors.required(&path.child("apiGroups"), "resource rules must supply at least one api group");
        }
        if empty("resources") {
            errors.required(&path.child("resources"), "resource rules must supply at least one resource");
        }
    }
}

/// RoleBinding and ClusterRoleBinding.
pub fn role_binding(object: &Value, errors: &mut FieldErrors) {
    let namespaced = str_at(object, &["kind"]) != "ClusterRoleBinding";
    let role = at(object, &["roleRef"]);
    let path = Path::new("roleRef");
    if str_at(role, &["apiGroup"]) != RBAC {
        errors.not_supported(&path.child("apiGroup"), str_at(role, &["apiGroup"]), &[RBAC]);
    }
    match (str_at(role, &["kind"]), namespaced) {
        ("ClusterRole", _) | ("Role", true) => {}
        (kind, true) => errors.not_supported(&path.child("kind"), kind, &["ClusterRole", "Role"]),
        (kind, false) => errors.not_supported(&path.child("kind"), kind, &["ClusterRole"]),
    }
    if str_at(role, &["name"]).is_empty() {
        errors.required(&path.child("name"), "");
    }
    let subjects = Path::new("subjects");
    for (i, subject) in list_at(object, &["subjects"]).iter().enumerate() {
        let path = subjects.index(i);
        if str_at(subject, &["name"]).is_empty() {
            errors.required(&path.child("name"), "");
        }
        let group = str_at(subject, &["apiGroup"]);
        match str_at(subject, &["kind"]) {
            "ServiceAccount" => {
                if !group.is_empty() {
                    errors.not_supported(&path.child("apiGroup"), group, &[""]);
                }
                if str_at(subject, &["namespace"]).is_empty() && !namespaced {
                    errors.required(&path.child("namespace"), "");
                }
            }
            "User" | "Group" => {
                if group != RBAC {
                    errors.not_supported(&path.child("apiGroup"), group, &[RBAC]);
                }
            }
            other => errors.not_supported(&path.child("kind"), other, &["Group", "ServiceAccount", "User"]),
        }
    }
}

/// The role of a binding never changes.
pub fn role_binding_update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let (after, before) = (at(new, &["roleRef"]), at(old, &["roleRef"]));
    if after != before {
        errors.invalid(&Path::new("roleRef"), after, "cannot change roleRef");
    }
}

/// Lease.
pub fn lease(object: &Value, errors: &mut FieldErrors) {
    let spec = at(object, &["spec"]);
    let path = Path::new("spec");
    if let Some(seconds) = int_at(spec, &["leaseDurationSeconds"])
        && seconds <= 0
    {
        errors.invalid(&path.child("leaseDurationSeconds"), seconds, "must be greater than 0");
    }
    if let Some(count) = int_at(spec, &["leaseTransitions"])
        && count < 0
    {
        errors.invalid(&path.child("leaseTransitions"), count, "must be greater than or equal to 0");
    }
}

/// PriorityClass: user classes stay below the system's.
pub fn priority_class(object: &Value, errors: &mut FieldErrors) {
    const HIGHEST: i64 = 1_000_000_000;
    let value = int_at(object, &["value"]).unwrap_or(0);
    let name = str_at(object, &["metadata", "name"]);
    let system = matches!(name, "system-cluster-critical" | "system-node-critical");
    if name.starts_with("system-") && !system {
        errors.forbidden(
            &Path::new("metadata").child("name"),
            "priority class names with 'system-' prefix are reserved for system use only. error: this is not a system priority class",
        );
    } else if value > HIGHEST && !system {
        errors.forbidden(&Path::new("value"), format!("maximum allowed value of a user defined priority is {HIGHEST}"));
    }
    super::one_of(object, "preemptionPolicy", &["Never", "PreemptLowerPriority"], false, &Path::ROOT, errors);
}

/// The value of a priority class never changes.
pub fn priority_class_update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    if at(new, &["value"]) != at(old, &["value"]) {
        errors.forbidden(&Path::new("value"), "may not be changed in an update.");
    }
    immutable(at(new, &["preemptionPolicy"]), at(old, &["preemptionPolicy"]), &Path::new("preemptionPolicy"), errors);
}

/// RuntimeClass.
pub fn runtime_class(object: &Value, errors: &mut FieldErrors) {
    let handler = str_at(object, &["handler"]);
    for problem in crate::meta::dns1123_label(handler) {
        errors.invalid(&Path::new("handler"), handler, problem);
    }
    let scheduling = Path::new("scheduling");
    super::placement::tolerations(
        list_at(object, &["scheduling", "tolerations"]),
        &scheduling.child("tolerations"),
        errors,
    );
}

/// The handler of a runtime class never changes.
pub fn runtime_class_update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    immutable(at(new, &["handler"]), at(old, &["handler"]), &Path::new("handler"), errors);
}

/// PodDisruptionBudget.
pub fn disruption_budget(object: &Value, errors: &mut FieldErrors) {
    let spec = at(object, &["spec"]);
    let path = Path::new("spec");
    let (min, max) = (at(spec, &["minAvailable"]), at(spec, &["maxUnavailable"]));
    if !min.is_null() && !max.is_null() {
        errors.invalid(&path, spec, "minAvailable and maxUnavailable cannot be both set");
    }
    int_or_percent(min, &path.child("minAvailable"), errors);
    int_or_percent(max, &path.child("maxUnavailable"), errors);
    selector::validate_object(at(spec, &["selector"]), &path.child("selector"), errors);
    super::one_of(spec, "unhealthyPodEvictionPolicy", &["AlwaysAllow", "IfHealthyBudget"], false, &path, errors);
}

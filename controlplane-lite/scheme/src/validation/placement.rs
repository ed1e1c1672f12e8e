//! Where a pod may run: node selectors, affinity, tolerations, spreading, gates.

use std::collections::HashSet;

use serde_json::Value;

use super::one_of;
use crate::access::{at, int_at, is_empty, list_at, str_at};
use crate::field::{FieldErrors, Path};
use crate::{meta, selector};

/// All placement fields of a PodSpec.
pub fn placement(spec: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    meta::validate_labels(at(spec, &["nodeSelector"]), &path.child("nodeSelector"), errors);
    tolerations(list_at(spec, &["tolerations"]), &path.child("tolerations"), errors);
    affinity(at(spec, &["affinity"]), &path.child("affinity"), errors);
    spread(spec, &path.child("topologySpreadConstraints"), errors);
    let gates = path.child("schedulingGates");
    let mut seen = HashSet::new();
    for (i, gate) in list_at(spec, &["schedulingGates"]).iter().enumerate() {
        let name = str_at(gate, &["name"]);
        for problem in meta::qualified_name(name) {
            errors.invalid(&gates.index(i), name, problem);
        }
        if !seen.insert(name) {
            errors.duplicate(&gates.index(i), name);
        }
    }
}

/// Tolerations, of pods and runtime classes.
pub fn tolerations(list: &[Value], path: &Path<'_>, errors: &mut FieldErrors) {
    for (i, toleration) in list.iter().enumerate() {
        let path = path.index(i);
        let (key, operator, value) =
            (str_at(toleration, &["key"]), str_at(toleration, &["operator"]), str_at(toleration, &["value"]));
        if !key.is_empty() {
            for problem in meta::qualified_name(key) {
                errors.invalid(&path.child("key"), key, problem);
            }
        } else if operator != "Exists" {
            errors.invalid(
                &path.child("operator"),
                operator,
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            );
        }
        match operator {
            "Exists" if !value.is_empty() => {
                errors.invalid(&path.child("operator"), Value::Null, "value must be empty when `operator` is 'Exists'")
            }
            "" | "Equal" => {
                if let Some(problem) = meta::label_value(value).into_iter().next() {
                    errors.invalid(&path.child("operator"), value, problem);
                }
            }
            "Exists" | "Lt" | "Gt" => {}
            other => errors.not_supported(&path.child("operator"), other, &["Equal", "Exists", "Gt", "Lt"]),
        }
        let effect = str_at(toleration, &["effect"]);
        if int_at(toleration, &["tolerationSeconds"]).is_some() && effect != "NoExecute" {
            errors.invalid(&path.child("effect"), effect, "effect must be 'NoExecute' when `tolerationSeconds` is set");
        }
        one_of(toleration, "effect", &["NoExecute", "NoSchedule", "PreferNoSchedule"], false, &path, errors);
    }
}

fn affinity(value: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let node = path.child("nodeAffinity");
    let required = node.child("requiredDuringSchedulingIgnoredDuringExecution");
    let hard = at(value, &["nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"]);
    if !hard.is_null() {
        node_selector(hard, &required, errors);
    }
    let preferred = node.child("preferredDuringSchedulingIgnoredDuringExecution");
    for (i, term) in
        list_at(value, &["nodeAffinity", "preferredDuringSchedulingIgnoredDuringExecution"]).iter().enumerate()
    {
        let path = preferred.index(i);
        weight(term, &path, errors);
        node_term(at(term, &["preference"]), &path.child("preference"), errors);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let pod = path.child(kind);
        let required = pod.child("requiredDuringSchedulingIgnoredDuringExecution");
        for (i, term) in list_at(value, &[kind, "requiredDuringSchedulingIgnoredDuringExecution"]).iter().enumerate() {
            pod_term(term, &required.index(i), errors);
        }
        let preferred = pod.child("preferredDuringSchedulingIgnoredDuringExecution");
        for (i, term) in list_at(value, &[kind, "preferredDuringSchedulingIgnoredDuringExecution"]).iter().enumerate() {
            let path = preferred.index(i);
            weight(term, &path, errors);
            pod_term(at(term, &["podAffinityTerm"]), &path.child("podAffinityTerm"), errors);
        }
    }
}

fn weight(term: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let weight = int_at(term, &["weight"]).unwrap_or(0);
    if !(1..=100).contains(&weight) {
        errors.invalid(&path.child("weight"), weight, "must be in the range 1-100");
    }
}

/// A NodeSelector: at least one term.
pub fn node_selector(value: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let terms = path.child("nodeSelectorTerms");
    let list = list_at(value, &["nodeSelectorTerms"]);
    if list.is_empty() {
        errors.required(&terms, "must have at least one node selector term");
    }
    for (i, term) in list.iter().enumerate() {
        node_term(term, &terms.index(i), errors);
    }
}

fn node_term(term: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    for list in ["matchExpressions", "matchFields"] {
        let path = path.child(list);
        for (i, requirement) in list_at(term, &[list]).iter().enumerate() {
            let path = path.index(i);
            let values = list_at(requirement, &["values"]);
            match str_at(requirement, &["operator"]) {
                "In" | "NotIn" if values.is_empty() => {
                    errors.required(&path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'")
                }
                "Exists" | "DoesNotExist" if !values.is_empty() => errors.forbidden(
                    &path.child("values"),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                ),
                "Gt" | "Lt" if values.len() != 1 => errors
                    .required(&path.child("values"), "must be specified single value when `operator` is 'Lt' or 'Gt'"),
                "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
                other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
            }
            let key = str_at(requirement, &["key"]);
            if list == "matchExpressions" {
                for problem in meta::qualified_name(key) {
                    errors.invalid(&path.child("key"), key, problem);
                }
            } else if key != "metadata.name" {
                errors.invalid(&path.child("key"), key, "not a valid field selector key");
            }
        }
    }
}

fn pod_term(term: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    for key in ["labelSelector", "namespaceSelector"] {
        selector::validate_object(at(term, &[key]), &path.child(key), errors);
    }
    let topology = str_at(term, &["topologyKey"]);
    if topology.is_empty() {
        errors.required(&path.child("topologyKey"), "can not be empty");
    }
    for problem in meta::qualified_name(topology) {
        errors.invalid(&path.child("topologyKey"), topology, problem);
    }
}

fn spread(spec: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    for (i, constraint) in list_at(spec, &["topologySpreadConstraints"]).iter().enumerate() {
        let path = path.index(i);
        let skew = int_at(constraint, &["maxSkew"]).unwrap_or(0);
        if skew <= 0 {
            errors.invalid(&path.child("maxSkew"), skew, "must be greater than zero");
        }
        let key = str_at(constraint, &["topologyKey"]);
        if key.is_empty() {
            errors.required(&path.child("topologyKey"), "can not be empty");
        }
        for problem in meta::qualified_name(key) {
            errors.invalid(&path.child("topologyKey"), key, problem);
        }
        one_of(constraint, "whenUnsatisfiable", &["DoNotSchedule", "ScheduleAnyway"], true, &path, errors);
        if let Some(domains) = int_at(constraint, &["minDomains"]) {
            if domains <= 0 {
                errors.invalid(&path.child("minDomains"), domains, "must be greater than zero");
            }
            let action = str_at(constraint, &["whenUnsatisfiable"]);
            if action == "ScheduleAnyway" {
                errors.invalid(
                    &path.child("minDomains"),
                    domains,
                    format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"),
                );
            }
        }
        if !is_empty(at(constraint, &["labelSelector"])) {
            selector::validate_object(at(constraint, &["labelSelector"]), &path.child("labelSelector"), errors);
        }
    }
}

//! Rules that say which requests a webhook or a policy is about.

use std::collections::HashSet;

use serde_json::Value;

use super::{MATCH_POLICIES, choice};
use crate::access::{at, list_at};
use crate::field::{FieldErrors, Path};
use crate::meta::NameRule;
use crate::selector;

const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
/// There is nothing to change in what is deleted.
const MUTATING_OPERATIONS: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];
const SCOPES: [&str; 3] = ["*", "Cluster", "Namespaced"];

/// `rules` of a webhook.
pub(super) fn list(rules: &[Value], path: &Path<'_>, errors: &mut FieldErrors) {
    for (place, rule) in rules.iter().enumerate() {
        with_operations(rule, &path.index(place), errors);
    }
}

/// What a policy or a binding matches.
pub(super) fn match_resources(resources: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    if at(resources, &["matchPolicy"]).is_null() {
        errors.required(&path.child("matchPolicy"), "");
    }
    choice(resources, "matchPolicy", &MATCH_POLICIES, path, errors);
    for field in ["namespaceSelector", "objectSelector"] {
        let value = at(resources, &[field]);
        if value.is_null() {
            errors.required(&path.child(field), "");
        } else {
            selector::validate_object(value, &path.child(field), errors);
        }
    }
    for field in ["resourceRules", "excludeResourceRules"] {
        let path = path.child(field);
        for (place, rule) in list_at(resources, &[field]).iter().enumerate() {
            let path = path.index(place);
            names(rule, &path.child("resourceNames"), errors);
            with_operations(rule, &path, errors);
        }
    }
}

/// Operations on which a policy can change something.
pub(super) fn mutating(resources: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let rules = path.child("resourceRules");
    // As upstream tells it: of all rules alike.
    let path = rules.child("operations");
    let operations = list_at(resources, &["resourceRules"]).iter().flat_map(|rule| list_at(rule, &["operations"]));
    for operation in operations {
        if !operation.as_str().is_some_and(|name| MUTATING_OPERATIONS.contains(&name)) {
            errors.not_supported(&path, operation, &MUTATING_OPERATIONS);
        }
    }
}

fn names(rule: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let mut seen = HashSet::new();
    for (place, name) in list_at(rule, &["resourceNames"]).iter().enumerate() {
        let name = name.as_str().unwrap_or("");
        for problem in NameRule::PathSegment.check(name, false) {
            errors.invalid(&path.index(place), name, problem);
        }
        if !seen.insert(name) {
            errors.duplicate(&path.index(place), name);
        }
    }
}

fn with_operations(rule: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let operations = several(rule, "operations", "operations", path, errors);
    let path_of = path.child("operations");
    for (place, operation) in operations.iter().enumerate() {
        if !operation.as_str().is_some_and(|name| OPERATIONS.contains(&name)) {
            errors.not_supported(&path_of.index(place), operation, &OPERATIONS);
        }
    }
    several(rule, "apiGroups", "API groups", path, errors);
    let versions = several(rule, "apiVersions", "API versions", path, errors);
    let path_of = path.child("apiVersions");
    for (place, _) in versions.iter().enumerate().filter(|(_, version)| *version == "") {
        errors.required(&path_of.index(place), "");
    }
    resources(list_at(rule, &["resources"]), &path.child("resources"), errors);
    choice(rule, "scope", &SCOPES, path, errors);
}

/// A list that has to be there, in which a wildcard stands alone.
fn several<'r>(rule: &'r Value, field: &str, noun: &str, path: &Path<'_>, errors: &mut FieldErrors) -> &'r [Value] {
    let items = list_at(rule, &[field]);
    if items.is_empty() {
        errors.required(&path.child(field), "");
    } else if items.len() > 1 && items.iter().any(|item| item == "*") {
        errors.invalid(&path.child(field), items, format!("if '*' is present, must not specify other {noun}"));
    }
    items
}

/// Resources with their subresources, none of which may be named twice by wildcards.
fn resources(resources: &[Value], path: &Path<'_>, errors: &mut FieldErrors) {
    if resources.is_empty() {
        errors.required(path, "");
    }
    let (mut all_of, mut of_all) = (HashSet::new(), HashSet::new());
    let mut plain = false;
    for (place, one) in resources.iter().enumerate() {
        let text = one.as_str().unwrap_or("");
        if text.is_empty() {
            errors.required(&path.index(place), "");
            continue;
        }
        let Some((resource, subresource)) = text.split_once('/') else {
            // As upstream: the last one counts.
            plain = text != "*";
            continue;
        };
        let mut covered = |by: &str| {
            errors.invalid(&path.index(place), text, format!("if '{by}' is present, must not specify {text}"));
        };
        if all_of.contains(resource) {
            covered(&format!("{resource}/*"));
        }
        if of_all.contains(subresource) {
            covered(&format!("*/{subresource}"));
        }
        if subresource == "*" {
            all_of.insert(resource);
        }
        if resource == "*" {
            of_all.insert(subresource);
        }
    }
    let has = |text: &str| resources.iter().any(|one| one == text);
    if resources.len() > 1 && has("*/*") {
        errors.invalid(path, resources, "if '*/*' is present, must not specify other resources");
    }
    if has("*") && plain {
        errors.invalid(path, resources, "if '*' is present, must not specify other resources without subresources");
    }
}

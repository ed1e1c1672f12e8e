//! FlowSchemas and PriorityLevelConfigurations (pkg/apis/flowcontrol/validation/validation.go).

use serde_json::Value;

use super::{dns_label, dns_subdomain};
use crate::access::{at, bool_at, int_at, list_at, str_at};
use crate::field::{FieldErrors, Path};
use crate::flowcontrol::{EXEMPT, mandatory_level, mandatory_schema};
use crate::meta;

mod level;

pub(crate) use level::priority_level;

const SPEC: Path<'static> = Path::new("spec");
const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
const LAST_PRECEDENCE: i64 = 10_000;

/// A FlowSchema.
pub(crate) fn flow_schema(object: &Value, errors: &mut FieldErrors) {
    let (name, spec) = (str_at(object, &["metadata", "name"]), at(object, &["spec"]));
    precedence(name, int_at(spec, &["matchingPrecedence"]).unwrap_or(0), errors);
    let method = at(spec, &["distinguisherMethod"]);
    if !method.is_null() && !matches!(str_at(method, &["type"]), "ByUser" | "ByNamespace") {
        errors.not_supported(&SPEC.child("distinguisherMethod").child("type"), method, &["ByNamespace", "ByUser"]);
    }
    let level = SPEC.child("priorityLevelConfiguration");
    match str_at(spec, &["priorityLevelConfiguration", "name"]) {
        "" => errors.required(&level.child("name"), "must reference a priority level"),
        name => dns_subdomain(name, &level.child("name"), errors),
    }
    let path = SPEC.child("rules");
    for (place, each) in list_at(spec, &["rules"]).iter().enumerate() {
        rule(each, &path.index(place), errors);
    }
    if mandatory_schema(name).is_some_and(|fixed| !crate::crd::same(at(&fixed, &["spec"]), spec)) {
        errors.invalid(&SPEC, spec, format!("spec of '{name}' must equal the fixed value"));
    }
}

fn precedence(name: &str, precedence: i64, errors: &mut FieldErrors) {
    let path = SPEC.child("matchingPrecedence");
    if precedence <= 0 {
        errors.invalid(&path, precedence, "must be a positive value");
    }
    if precedence > LAST_PRECEDENCE {
        errors.invalid(&path, precedence, format!("must not be greater than {LAST_PRECEDENCE}"));
    }
    if precedence == 1 && name != EXEMPT {
        errors.invalid(&path, precedence, "only the schema named 'exempt' may have matchingPrecedence 1");
    }
}

/// Some subjects and what they ask for.
fn rule(rule: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let subjects = list_at(rule, &["subjects"]);
    if subjects.is_empty() {
        errors.required(&path.child("subjects"), "subjects must contain at least one value");
    }
    for (place, each) in subjects.iter().enumerate() {
        subject(each, &path.child("subjects").index(place), errors);
    }
    let (resources, others) = (list_at(rule, &["resourceRules"]), list_at(rule, &["nonResourceRules"]));
    if resources.is_empty() && others.is_empty() {
        errors.required(path, "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    for (place, each) in resources.iter().enumerate() {
        resource_rule(each, &path.child("resourceRules").index(place), errors);
    }
    for (place, each) in others.iter().enumerate() {
        non_resource_rule(each, &path.child("nonResourceRules").index(place), errors);
    }
}

/// Kinds of subjects with the field of each, in the order in which upstream tells of those that have no place.
const SUBJECTS: [(&str, &str); 3] = [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];

fn subject(subject: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let kind = str_at(subject, &["kind"]);
    let Some((_, field)) = SUBJECTS.iter().find(|(known, _)| *known == kind) else {
        errors.not_supported(&path.child("kind"), kind, &["Group", "ServiceAccount", "User"]);
        return;
    };
    let (own, own_path) = (at(subject, &[field]), path.child(field));
    if own.is_null() {
        errors.required(&own_path, format!("{field} is required when subject kind is '{kind}'"));
    } else if kind == "ServiceAccount" {
        service_account(own, &own_path, errors);
    } else if str_at(own, &["name"]).is_empty() {
        errors.required(&own_path.child("name"), "");
    }
    for (other, field) in SUBJECTS.iter().filter(|(other, _)| *other != kind) {
        if !at(subject, &[field]).is_null() {
            let detail = format!("{field} is forbidden when subject kind is not '{other}'");
            errors.forbidden(&path.child(field), detail);
        }
    }
}

fn service_account(account: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    match str_at(account, &["name"]) {
        "" => errors.required(&path.child("name"), ""),
        "*" => {}
        name => dns_subdomain(name, &path.child("name"), errors),
    }
    match str_at(account, &["namespace"]) {
        "" => errors.required(&path.child("namespace"), "must specify namespace for service account"),
        namespace => dns_label(namespace, &path.child("namespace"), errors),
    }
}

fn has_wildcard(list: &[Value]) -> bool {
    list.iter().any(|item| item == "*")
}

/// A list with at least one value, in which the one for all values stands alone. Answers whether the others are to be
/// looked at.
fn choice(rule: &Value, field: &str, words: (&str, &str), path: &Path<'_>, errors: &mut FieldErrors) -> bool {
    let (missing, others) = words;
    let list = list_at(rule, &[field]);
    if list.is_empty() {
        errors.required(&path.child(field), missing);
    } else if has_wildcard(list) {
        if list.len() > 1 {
            errors.invalid(&path.child(field), list, format!("if '*' is present, must not specify other {others}"));
        }
    } else {
        return true;
    }
    false
}

fn verbs(rule: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let told = choice(rule, "verbs", ("verbs must contain at least one value", "verbs"), path, errors);
    let list = list_at(rule, &["verbs"]);
    if told && !list.iter().all(|verb| verb.as_str().is_some_and(|verb| VERBS.contains(&verb))) {
        errors.not_supported(&path.child("verbs"), list, VERBS);
    }
}

fn non_resource_rule(rule: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    verbs(rule, path, errors);
    let words = ("nonResourceURLs must contain at least one value", "non-resource URLs");
    if choice(rule, "nonResourceURLs", words, path, errors) {
        for (place, url) in list_at(rule, &["nonResourceURLs"]).iter().enumerate() {
            let url = url.as_str().unwrap_or("");
            if let Some(problem) = url_problem(url) {
                errors.invalid(&path.child("nonResourceURLs").index(place), url, problem);
            }
        }
    }
}

/// What is wrong with the path of something that is no resource; an asterisk ends it, after a slash.
fn url_problem(path: &str) -> Option<&'static str> {
    let stars = path.matches('*').count();
    match path {
        "" => Some("must not be empty"),
        "/" => None,
        _ if !path.starts_with('/') => Some("must start with slash"),
        _ if path.contains(' ') => Some("must not contain white-space"),
        _ if path.contains("//") => Some("must not contain double slash"),
        _ if stars > 1 || stars == 1 && !path.ends_with("/*") => Some("wildcard can only do suffix matching"),
        _ => None,
    }
}

fn resource_rule(rule: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    verbs(rule, path, errors);
    choice(rule, "apiGroups", ("resource rules must supply at least one api group", "api groups"), path, errors);
    choice(rule, "resources", ("resource rules must supply at least one resource", "resources"), path, errors);
    let (namespaces, path) = (list_at(rule, &["namespaces"]), path.child("namespaces"));
    if namespaces.is_empty() && !bool_at(rule, &["clusterScope"]) {
        let missing = "resource rules that are not cluster scoped must supply at least one namespace";
        errors.required(&path, missing);
    } else if has_wildcard(namespaces) {
        if namespaces.len() > 1 {
            errors.invalid(&path, namespaces, "if '*' is present, must not specify other namespaces");
        }
    } else {
        for (place, name) in namespaces.iter().enumerate() {
            let name = name.as_str().unwrap_or("");
            for problem in meta::dns1123_label(name) {
                let detail = format!("each member of this list must be '*' or a DNS-1123 label; {problem}");
                errors.invalid(&path.index(place), name, detail);
            }
        }
    }
}

/// A changed status of either kind.
pub(crate) fn status(object: &Value, errors: &mut FieldErrors) {
    let path = Path::new("status");
    let path = path.child("conditions");
    let mut seen = std::collections::HashSet::new();
    for (place, condition) in list_at(object, &["status", "conditions"]).iter().enumerate() {
        let (ty, path) = (str_at(condition, &["type"]), path.index(place));
        if !seen.insert(ty) {
            errors.duplicate(&path.child("type"), ty);
        }
        if ty.is_empty() {
            errors.required(&path.child("type"), "must not be empty");
        }
    }
}

#[cfg(test)]
mod tests;

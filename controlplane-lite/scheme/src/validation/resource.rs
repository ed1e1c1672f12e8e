//! ResourceClaims, their templates, DeviceClasses and ResourceSlices (pkg/apis/resource/validation/validation.go).
//! Expressions of selectors are bounded in length and not compiled.

use serde_json::Value;

use super::{dns_label, dns_subdomain};
use crate::access::{at, entries_at, is_empty, list_at, str_at};
use crate::field::{FieldErrors, Path};
use crate::meta;

mod claim;
mod slice;
mod status;

pub(crate) use claim::{claim, class, template};
pub(crate) use slice::{slice, slice_update};
pub(crate) use status::claim_status;

const SPEC: Path<'static> = Path::new("spec");
/// Requests of a claim, and devices allocated to it.
const MOST_REQUESTS: usize = 32;
const MOST_CONFIGS: usize = 32;
const LONGEST_DRIVER: usize = 63;
const LONGEST_ID: usize = 32;
/// Bytes of an expression, and of parameters for a driver.
const LONGEST_TEXT: usize = 10 * 1024;
const LABELS: &[&str] = &["NoExecute", "NoSchedule", "None"];

/// What checks one item of a list.
type Check<'c> = &'c mut dyn FnMut(&Value, &Path<'_>, &mut FieldErrors);

/// A list of at most so many items; one that is longer is not looked at.
fn items(list: &[Value], most: usize, path: &Path<'_>, errors: &mut FieldErrors, check: Check<'_>) {
    if list.len() > most {
        errors.too_many(path, list.len(), most);
        return;
    }
    for (place, item) in list.iter().enumerate() {
        check(item, &path.index(place), errors);
    }
}

/// The same, and no two items have one key.
fn set<'v>(
    list: &'v [Value],
    most: usize,
    key: impl Fn(&'v Value) -> String,
    path: &Path<'_>,
    errors: &mut FieldErrors,
    check: Check<'_>,
) {
    items(list, most, path, errors, check);
    if list.len() <= most {
        let mut seen = std::collections::HashSet::new();
        for (place, item) in list.iter().enumerate() {
            let key = key(item);
            if seen.contains(&key) {
                errors.duplicate(&path.index(place), key);
            } else {
                seen.insert(key);
            }
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

/// A driver's name: that of a CSI driver.
fn driver(name: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    if name.is_empty() {
        errors.required(path, "");
    }
    if name.len() > LONGEST_DRIVER {
        errors.too_long(path, LONGEST_DRIVER);
    }
    for problem in meta::dns1123_subdomain(&name.to_lowercase()) {
        errors.invalid(path, name, problem);
    }
}

/// The name of a pool: subdomains with slashes in between.
fn pool_name(name: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    if name.is_empty() {
        errors.required(path, "");
        return;
    }
    if name.len() > meta::SUBDOMAIN_MAX {
        errors.too_long(path, meta::SUBDOMAIN_MAX);
    }
    for part in name.split('/') {
        dns_subdomain(part, path, errors);
    }
}

/// A name with a driver's domain, or without one.
fn qualified_name(name: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    let parts: Vec<&str> = name.split('/').collect();
    match parts.as_slice() {
        [id] => identifier(id, path, errors),
        [domain, id] => {
            if domain.is_empty() {
                errors.invalid(path, "", "the domain must not be empty");
            } else {
                driver(domain, path, errors);
            }
            if id.is_empty() {
                errors.invalid(path, "", "the name must not be empty");
            } else {
                identifier(id, path, errors);
            }
        }
        _ => errors.invalid(path, name, "must not contain more than one slash"),
    }
}

fn fully_qualified_name(name: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    qualified_name(name, path, errors);
    if !name.contains('/') {
        let detail = "a fully qualified name must be a domain and a name separated by a slash";
        errors.invalid(path, name, detail);
    }
}

fn identifier(id: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    if id.len() > LONGEST_ID {
        errors.too_long(path, LONGEST_ID);
    }
    let first = id.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !first || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        let detail = "a valid C identifier must start with alphabetic character or '_', followed by a string of \
                      alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for \
                      validation is '[A-Za-z_][A-Za-z0-9_]*')";
        errors.invalid(path, id, detail);
    }
}

/// What only a driver understands: its name, and an object for it. What is stored may be longer.
fn configuration(config: &Value, stored: bool, path: &Path<'_>, errors: &mut FieldErrors) {
    let (opaque, path) = (at(config, &["opaque"]), path.child("opaque"));
    if opaque.is_null() {
        errors.required(&path, "");
        return;
    }
    driver(str_at(opaque, &["driver"]), &path.child("driver"), errors);
    raw_object(at(opaque, &["parameters"]), stored, &path.child("parameters"), errors);
}

fn raw_object(value: &Value, stored: bool, path: &Path<'_>, errors: &mut FieldErrors) {
    if value.is_null() {
        errors.required(path, "");
    } else if !stored && value.to_string().len() > LONGEST_TEXT {
        errors.too_long(path, LONGEST_TEXT);
    } else if !value.is_object() {
        errors.invalid(path, "<value omitted>", "must be a valid JSON object");
    }
}

fn label_name(name: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    for problem in meta::qualified_name(name) {
        errors.invalid(path, name, problem);
    }
}

fn label_value(value: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    for problem in meta::label_value(value) {
        errors.invalid(path, value, problem);
    }
}

fn toleration(toleration: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let field = |name: &str| str_at(toleration, &[name]);
    if !field("key").is_empty() {
        label_name(field("key"), &path.child("key"), errors);
    }
    match field("operator") {
        "Exists" if !field("value").is_empty() => {
            errors.invalid(&path.child("value"), field("value"), "must be empty for operator `Exists`");
        }
        "Exists" => {}
        "Equal" => label_value(field("value"), &path.child("value"), errors),
        "" => errors.required(&path.child("operator"), ""),
        other => errors.not_supported(&path.child("operator"), other, &["Equal", "Exists"]),
    }
    if !field("effect").is_empty() && !LABELS.contains(&field("effect")) {
        errors.not_supported(&path.child("effect"), field("effect"), LABELS);
    }
}

/// Conditions that a device waits for before its pod is bound, and those that end the wait.
fn binding_conditions(of: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    const MOST: usize = 4;
    let [wanted, failed] = ["bindingConditions", "bindingFailureConditions"];
    let (conditions, failures) = (list_at(of, &[wanted]), list_at(of, &[failed]));
    for (field, list) in [(wanted, conditions), (failed, failures)] {
        set(list, MOST, |c| text(c).to_owned(), &path.child(field), errors, &mut |condition, path, errors| {
            label_name(text(condition), path, errors);
        });
    }
    let common = |failure: &&Value| conditions.iter().take(MOST).any(|condition| condition == *failure);
    let both = failures.iter().enumerate().take(MOST).filter(|(_, failure)| common(failure));
    for (place, failure) in both {
        let detail = "bindingFailureConditions must not overlap with bindingConditions";
        errors.invalid(&path.child(failed).index(place), failure, detail);
    }
    if conditions.is_empty() && !failures.is_empty() {
        let detail = "bindingConditions are required to use bindingFailureConditions";
        errors.invalid(&path.child(wanted), conditions, detail);
    }
    if failures.is_empty() && !conditions.is_empty() {
        let detail = "bindingFailureConditions are required to use bindingConditions";
        errors.invalid(&path.child(failed), failures, detail);
    }
}

/// A map whose keys are qualified names; each is looked at by `check`.
fn by_name(map: &Value, path: &Path<'_>, errors: &mut FieldErrors, check: Check<'_>) {
    for (name, value) in entries_at(map, &[]) {
        qualified_name(name, path, errors);
        check(value, &path.key(name), errors);
    }
}

#[cfg(test)]
mod tests;

//! Validation, one file per family of kinds. Pure; collects everything wrong
//! with upstream's words.

use serde_json::Value;

use super::access::{at, int_at};
use super::field::{FieldErrors, Path};
use super::meta;

pub mod admission;
pub mod annotations;
pub mod apiregistration;
pub mod certificates;
pub mod cluster;
pub mod conditions;
pub mod container;
mod endpoint;
pub mod ephemeral;
pub mod extensions;
pub mod flowcontrol;
mod mounts;
pub mod network;
pub mod placement;
pub mod pod;
pub mod pod_status;
pub mod quota;
pub mod rbac;
pub mod resize;
pub mod resource;
mod security;
pub mod storage;
pub mod update;
pub mod volume;
pub mod workloads;

/// A number that may not be below zero.
pub(crate) fn non_negative(object: &Value, key: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    if let Some(number) = int_at(object, &[key])
        && number < 0
    {
        errors.invalid(&path.child(key), number, "must be greater than or equal to 0");
    }
}

/// A field that may not change.
pub(crate) fn immutable(new: &Value, old: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    if new != old {
        errors.invalid(path, new, "field is immutable");
    }
}

/// What is wrong with a port number.
pub(crate) fn port_number_detail(number: i64) -> Option<&'static str> {
    (!(1..=65535).contains(&number)).then_some("must be between 1 and 65535, inclusive")
}

/// Problems of a port number.
pub(crate) fn port_number(number: i64, path: &Path<'_>, errors: &mut FieldErrors) {
    if let Some(problem) = port_number_detail(number) {
        errors.invalid(path, number, problem);
    }
}

/// A port given as number or name.
pub(crate) fn port_or_name(value: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    match value {
        Value::String(name) => port_name(name, path, errors),
        other => port_number(other.as_i64().unwrap_or(0), path, errors),
    }
}

/// An IANA service name, as ports have.
pub(crate) fn port_name(name: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    if name.len() > 15 {
        errors.invalid(path, name, "must be no more than 15 characters");
    }
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        errors.invalid(path, name, "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
    }
    if !name.bytes().any(|b| b.is_ascii_lowercase()) {
        errors.invalid(path, name, "must contain at least one letter (a-z)");
    }
    if name.contains("--") {
        errors.invalid(path, name, "must not contain consecutive hyphens");
    }
    if name.starts_with('-') || name.ends_with('-') {
        errors.invalid(path, name, "must not begin or end with a hyphen");
    }
}

/// A string that must be one of a set; missing is `Required` when `required`.
pub(crate) fn one_of(
    object: &Value,
    key: &str,
    allowed: &[&str],
    required: bool,
    path: &Path<'_>,
    errors: &mut FieldErrors,
) {
    match at(object, &[key]) {
        Value::Null => {
            if required {
                errors.required(&path.child(key), "");
            }
        }
        Value::String(text) if text.is_empty() && required => errors.required(&path.child(key), ""),
        Value::String(text) if text.is_empty() || allowed.contains(&text.as_str()) => {}
        other => errors.not_supported(&path.child(key), other.clone(), allowed),
    }
}

/// A name that must be a DNS-1123 label.
pub(crate) fn dns_label(name: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    for problem in meta::dns1123_label(name) {
        errors.invalid(path, name, problem);
    }
}

/// A name that must be a DNS-1123 subdomain.
pub(crate) fn dns_subdomain(name: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    for problem in meta::dns1123_subdomain(name) {
        errors.invalid(path, name, problem);
    }
}

/// A number or percentage that may not be negative.
pub(crate) fn int_or_percent(value: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    match value {
        Value::String(text) => {
            let digits = text.strip_suffix('%').unwrap_or("");
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                errors.invalid(
                    path,
                    text.as_str(),
                    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
                );
            }
        }
        Value::Number(number) if number.as_i64().is_some_and(|n| n < 0) => {
            errors.invalid(path, value.clone(), "must be greater than or equal to 0");
        }
        _ => {}
    }
}

/// The number behind an int-or-percent, percentages as they stand; 0 when missing.
pub(crate) fn scaled(value: &Value) -> i64 {
    match value {
        Value::String(text) => text.trim_end_matches('%').parse().unwrap_or(0),
        other => other.as_i64().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests;

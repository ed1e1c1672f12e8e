//! One version of a definition, and what all have in common.

use serde_json::Value;

use super::{Options, SPEC, schema, selectable};
use crate::access::{at, bool_at, is_empty, list_at, str_at};
use crate::crd::{COLUMNS, SCHEMA, SELECTABLE, SUBRESOURCES, Spec};
use crate::field::{FieldErrors, Path, is_print};

/// What a column can be.
const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
/// How it can be written.
const FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];

/// What a version has for itself.
pub(super) fn check(
    spec: &Spec<'_>,
    version: &Value,
    path: &Path<'_>,
    options: &Options<'_>,
    errors: &mut FieldErrors,
) {
    deprecation(version, &path.child("deprecationWarning"), errors);
    let has_status = !at(version, &["subresources", "status"]).is_null();
    let (name, own) = (str_at(version, &["name"]), spec.own(version, SCHEMA));
    schema::check(own, name, has_status, &path.child("schema"), options, errors);
    subresources(spec.own(version, SUBRESOURCES), &path.child("subresources"), errors);
    columns(spec.own(version, COLUMNS), &path.child(COLUMNS), errors);
    let (fields, path) = (spec.own(version, SELECTABLE), path.child(SELECTABLE));
    if is_empty(fields) {
        return;
    }
    let schema = at(own, &["openAPIV3Schema"]);
    if schema.is_null() {
        errors.invalid(&path, "", "may only be set when `version.schema.openAPIV3Schema` is not included");
        return;
    }
    let before = options.old.as_ref().and_then(|old| Some(old.spec.own(old.by_name.get(name)?, SELECTABLE)));
    selectable::check(fields, schema, before.unwrap_or(&Value::Null), &path, options, errors);
}

/// What all versions have in common.
pub(super) fn common(spec: &Spec<'_>, options: &Options<'_>, errors: &mut FieldErrors) {
    let first = spec.versions.first().map_or("", |version| str_at(version, &["name"]));
    let has_status = spec.versions.iter().any(|version| !at(version, &["subresources", "status"]).is_null());
    let validation = spec.common(SCHEMA);
    schema::check(validation, first, has_status, &SPEC.child("validation"), options, errors);
    subresources(spec.common(SUBRESOURCES), &SPEC.child("subresources"), errors);
    columns(spec.common(COLUMNS), &SPEC.child(COLUMNS), errors);
    let (fields, path) = (spec.common(SELECTABLE), SPEC.child(SELECTABLE));
    if is_empty(fields) {
        return;
    }
    if validation.is_null() {
        errors.invalid(&path, "", "may only be set when validations.schema is included");
        return;
    }
    let before = options.old.as_ref().map_or(&Value::Null, |old| old.spec.common(SELECTABLE));
    selectable::check(fields, at(validation, &["openAPIV3Schema"]), before, &path, options, errors);
}

fn deprecation(version: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let warning = at(version, &["deprecationWarning"]);
    let Some(text) = warning.as_str() else { return };
    if !bool_at(version, &["deprecated"]) {
        return errors.invalid(path, text, "can only be set for deprecated versions");
    }
    if text.len() > 256 {
        errors.invalid(path, text, "must be <= 256 characters long");
    }
    if text.is_empty() {
        errors.invalid(path, text, "must not be an empty string");
    }
    if let Some((place, _)) = text.char_indices().find(|(_, c)| !is_print(*c)) {
        errors.invalid(
            path,
            text,
            format!("must only contain printable UTF-8 characters; non-printable character found at index {place}"),
        );
    }
}

fn subresources(subresources: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let scale = at(subresources, &["scale"]);
    if scale.is_null() {
        return;
    }
    let path = path.child("scale");
    for (field, below, detail) in [
        ("specReplicasPath", ".spec.", "should be a json path under .spec"),
        ("statusReplicasPath", ".status.", "should be a json path under .status"),
    ] {
        let (path, text) = (path.child(field), str_at(scale, &[field]));
        if text.is_empty() {
            errors.required(&path, "");
        } else if simple_path(text, &path, errors) && !text.starts_with(below) {
            errors.invalid(&path, text, detail);
        }
    }
    let (path, text) = (path.child("labelSelectorPath"), str_at(scale, &["labelSelectorPath"]));
    if !text.is_empty()
        && simple_path(text, &path, errors)
        && !text.starts_with(".spec.")
        && !text.starts_with(".status.")
    {
        errors.invalid(&path, text, "should be a json path under either .spec or .status");
    }
}

/// Whether a path begins as one.
fn simple_path(text: &str, path: &Path<'_>, errors: &mut FieldErrors) -> bool {
    let simple = text.starts_with('.');
    if !simple {
        errors.invalid(path, text, "must be a simple json path starting with .");
    }
    simple
}

fn columns(columns: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    for (place, column) in list_at(columns, &[]).iter().enumerate() {
        let path = path.index(place);
        let text = |field: &str| str_at(column, &[field]);
        if text("name").is_empty() {
            errors.required(&path.child("name"), "");
        }
        let one_of = |known: &[&str]| format!("must be one of {}", known.join(","));
        if text("type").is_empty() {
            errors.required(&path.child("type"), one_of(&TYPES));
        } else if !TYPES.contains(&text("type")) {
            errors.invalid(&path.child("type"), text("type"), one_of(&TYPES));
        }
        if !text("format").is_empty() && !FORMATS.contains(&text("format")) {
            errors.invalid(&path.child("format"), text("format"), one_of(&FORMATS));
        }
        // Upstream's internal version spells the field so.
        let path = path.child("JSONPath");
        if text("jsonPath").is_empty() {
            errors.required(&path, "");
        } else {
            simple_path(text("jsonPath"), &path, errors);
        }
    }
}

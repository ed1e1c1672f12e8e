//! What else a schema may not say (`ValidateCustomResourceDefinitionOpenAPISchema` of
//! `pkg/apis/apiextensions/validation/validation.go` upstream).

use scheme::{FieldErrors, Path};
use serde_json::Value;

use super::{lists, rules};
use crate::node::Kind;
use crate::prune::is_meta;
use crate::raw;

/// Types as upstream sorts them.
const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];

/// What holds for a schema by where it stands.
#[derive(Clone, Copy, Default)]
struct Place<'a> {
    root: bool,
    /// Whether the whole schema is one that structural schemas may be.
    structural: bool,
    /// Inside the `metadata`, `kind` or `apiVersion` of a resource.
    inside_meta: bool,
    /// Why there may be no default.
    no_default: Option<&'a str>,
}

/// Checks a whole schema; `structural` says whether it can be read as a structural one.
pub(super) fn validate(schema: &Value, structural: bool, path: &Path<'_>, errors: &mut FieldErrors) {
    node(schema, Place { root: true, structural, ..Place::default() }, path, errors);
}

fn node(schema: &Value, place: Place<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    keywords(schema, place, path, errors);
    if raw::flag(schema, "uniqueItems") {
        let words = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.forbidden(&path.child("uniqueItems"), words);
    }
    let inner = Place { root: false, ..place };
    additional(schema, inner, path, errors);
    properties(schema, place, path, errors);
    if let Some(not) = raw::get(schema, "not") {
        node(not, inner, &path.child("not"), errors);
    }
    for key in ["allOf", "oneOf", "anyOf"] {
        let path = path.child(key);
        for (index, schema) in raw::list(schema, key).iter().enumerate() {
            node(schema, inner, &path.index(index), errors);
        }
    }
    by_name(schema, "definitions", inner, path, errors);
    match raw::get(schema, "items") {
        Some(Value::Array(list)) => {
            let path = path.child("items");
            for (index, schema) in list.iter().enumerate() {
                node(schema, inner, &path.index(index), errors);
            }
        }
        Some(items) => node(items, inner, &path.child("items"), errors),
        None => {}
    }
    by_name(schema, "dependencies", inner, path, errors);
    if raw::get(schema, "x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        errors.invalid(&path.child("x-kubernetes-preserve-unknown-fields"), false, "must be true or undefined");
    }
    lists::validate(schema, path, errors);
    rules::validate(schema, place.structural, path, errors);
}

/// The schemas in a map that structural schemas do not have.
fn by_name(schema: &Value, key: &str, place: Place<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    let path = path.child(key);
    for (name, schema) in raw::map(schema, key).into_iter().flatten().filter(|(_, schema)| schema.is_object()) {
        node(schema, place, &path.key(name), errors);
    }
}

/// Fields by name and any fields exclude each other.
fn additional(schema: &Value, place: Place<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    let Some(additional) = raw::get(schema, "additionalProperties") else { return };
    let path = path.child("additionalProperties");
    let named = raw::map(schema, "properties").is_some_and(|map| !map.is_empty());
    if named && additional != &Value::Bool(true) {
        errors.forbidden(&path, "additionalProperties and properties are mutual exclusive");
    }
    if additional.is_object() {
        let reason = "inside additionalProperties applying to object metadata";
        let no_default = if place.inside_meta { Some(reason) } else { place.no_default };
        node(additional, Place { no_default, ..place }, &path, errors);
    }
}

fn properties(schema: &Value, place: Place<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    let resource = place.root || raw::flag(schema, "x-kubernetes-embedded-resource");
    let path = path.child("properties");
    for (name, inner) in raw::properties(schema) {
        let meta = resource && is_meta(name);
        let reason = format!("in top-level {name}");
        let no_default = if meta && place.root { Some(&*reason) } else { place.no_default };
        let place = Place { root: false, inside_meta: place.inside_meta || meta, no_default, ..place };
        node(inner, place, &path.key(name), errors);
    }
}

/// Keywords that structural schemas do not have.
fn keywords(schema: &Value, place: Place<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    let word = raw::text(schema, "type");
    if Kind::parse(word) == Kind::Unknown {
        errors.not_supported(&path.child("type"), word, TYPES);
    }
    if let Some(reason) = place.no_default
        && raw::get(schema, "default").is_some()
    {
        errors.forbidden(&path.child("default"), format!("must not be set {reason}"));
    }
    let full = |key: &str| raw::map(schema, key).is_some_and(|map| !map.is_empty());
    let said = [
        ("id", !raw::text(schema, "id").is_empty()),
        ("additionalItems", raw::get(schema, "additionalItems").is_some()),
        ("patternProperties", full("patternProperties")),
        ("definitions", full("definitions")),
        ("dependencies", raw::get(schema, "dependencies").is_some()),
        ("$ref", raw::get(schema, "$ref").is_some()),
    ];
    for (key, _) in said.iter().filter(|(_, said)| *said) {
        errors.forbidden(&path.child(key), format!("{key} is not supported"));
    }
    if word == "null" {
        errors.forbidden(&path.child("type"), "type cannot be set to null, use nullable as an alternative");
    }
    if matches!(raw::get(schema, "items"), Some(Value::Array(list)) if !list.is_empty()) {
        errors.forbidden(&path.child("items"), "items must be a schema object and not an array");
    }
    let embedded = "x-kubernetes-embedded-resource";
    if place.inside_meta && raw::flag(schema, embedded) {
        errors.forbidden(&path.child(embedded), "must not be used inside of resource meta");
    }
}

//! `x-kubernetes-list-type`, `x-kubernetes-list-map-keys` and `x-kubernetes-map-type`.

use std::collections::HashSet;

use scheme::{FieldErrorKind, FieldErrors, Path};
use serde_json::Value;

use crate::raw;

const LIST_TYPE: &str = "x-kubernetes-list-type";
const KEYS: &str = "x-kubernetes-list-map-keys";
const MAP_TYPE: &str = "x-kubernetes-map-type";

fn text<'a>(schema: &'a Value, key: &str) -> Option<&'a str> {
    raw::get(schema, key).and_then(Value::as_str)
}

/// Checks the extensions of one schema.
pub(super) fn validate(schema: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let list_type = text(schema, LIST_TYPE);
    if let Some(map_type) = text(schema, MAP_TYPE) {
        must_be("object", MAP_TYPE, schema, path, errors);
        if !matches!(map_type, "atomic" | "granular") {
            errors.not_supported(&path.child(MAP_TYPE), map_type, &["atomic", "granular"]);
        }
    }
    let items = raw::get(schema, "items").filter(|items| items.is_object());
    if let Some(list_type) = list_type {
        if must_be("array", LIST_TYPE, schema, path, errors)
            && list_type == "set"
            && let Some(items) = items
        {
            set_items(items, path, errors);
        }
        if !matches!(list_type, "atomic" | "set" | "map") {
            errors.not_supported(&path.child(LIST_TYPE), list_type, &["atomic", "set", "map"]);
        }
    }
    if !raw::list(schema, KEYS).is_empty() && list_type != Some("map") {
        let words = "must be map if x-kubernetes-list-map-keys is non-empty";
        match list_type {
            None => errors.required(&path.child(LIST_TYPE), words),
            Some(other) => errors.invalid(&path.child(LIST_TYPE), other, words),
        }
    }
    if list_type == Some("map") {
        map(schema, path, errors);
    }
    if let (Some(list_type @ ("set" | "map")), Some(items)) = (list_type, items) {
        never_null(list_type, schema, items, path, errors);
    }
}

/// Whether the schema is of the type that an extension needs.
fn must_be(must: &str, key: &str, schema: &Value, path: &Path<'_>, errors: &mut FieldErrors) -> bool {
    let word = raw::text(schema, "type");
    let words = format!("must be {must} if {key} is specified");
    let path = path.child("type");
    match word {
        word if word == must => return true,
        "" => errors.required(&path, words),
        word => errors.invalid(&path, word, words),
    }
    false
}

/// Items of sets are compared as a whole.
fn set_items(items: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let words = "must be atomic as item of a list with x-kubernetes-list-type=set";
    // Upstream shows the list type in either case.
    let shown = raw::get(items, LIST_TYPE).unwrap_or(&Value::Null);
    let path = path.child("items");
    match raw::text(items, "type") {
        "array" if text(items, LIST_TYPE).is_some_and(|word| word != "atomic") => {
            errors.invalid(&path.child(LIST_TYPE), shown, words);
        }
        "object" if text(items, MAP_TYPE) != Some("atomic") => errors.invalid(&path.child(MAP_TYPE), shown, words),
        _ => {}
    }
}

fn map(schema: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let keys: Vec<&str> = raw::texts(schema, KEYS).collect();
    if keys.is_empty() {
        errors.required(&path.child(KEYS), "must not be empty if x-kubernetes-list-type is map");
    }
    let items_path = path.child("items");
    let items = match raw::get(schema, "items") {
        None => return errors.required(&items_path, "must have a schema if x-kubernetes-list-type is map"),
        Some(items @ Value::Object(_)) => items,
        Some(list) => {
            let words = "must only have a single schema if x-kubernetes-list-type is map";
            return errors.invalid(&items_path, list, words);
        }
    };
    let word = raw::text(items, "type");
    if word != "object" {
        let words = "must be object if parent array's x-kubernetes-list-type is map";
        return errors.invalid(&items_path.child("type"), word, words);
    }
    let shown = &schema[KEYS];
    let mut seen = HashSet::new();
    for key in keys {
        let properties = items_path.child("properties");
        match raw::map(items, "properties").and_then(|properties| properties.get(key)) {
            Some(inner) if matches!(raw::text(inner, "type"), "array" | "object") => {
                let words = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                errors.invalid(&properties.key(key).child("type"), word, words);
            }
            Some(_) => {}
            None => errors.invalid(&path.child(KEYS), shown, "entries must all be names of item properties"),
        }
        if !seen.insert(key) {
            errors.invalid(&path.child(KEYS), shown, "must not contain duplicate entries");
        }
    }
}

/// What identifies an item is always there and never null.
fn never_null(list_type: &str, schema: &Value, items: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let path = path.child("items");
    if raw::flag(items, "nullable") {
        let words = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
        errors.push(&path.child("nullable"), FieldErrorKind::Forbidden, "", words);
    }
    if list_type != "map" {
        return;
    }
    let required: HashSet<&str> = raw::texts(items, "required").collect();
    let properties = path.child("properties");
    for key in raw::texts(schema, KEYS) {
        let Some(inner) = raw::map(items, "properties").and_then(|properties| properties.get(key)) else { continue };
        let path = properties.key(key);
        if !required.contains(key) && raw::get(inner, "default").is_none() {
            let words =
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.required(&path.child("default"), words);
        }
        if raw::flag(inner, "nullable") {
            let words = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            errors.forbidden(&path.child("nullable"), words);
        }
    }
}

//! What makes a schema structural (`pkg/apiserver/schema/validation.go` upstream): each value has one declared type,
//! and what is inside `allOf`, `anyOf`, `oneOf` and `not` only narrows it.

use scheme::{FieldErrors, Path};
use serde_json::Value;

use super::patterns::Patterns;
use crate::raw;

/// Where a schema stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Checks a whole schema.
pub(super) fn validate(schema: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    node(schema, Level::Root, path, &mut Patterns::new(), errors);
}

fn node<'s>(schema: &'s Value, level: Level, path: &Path<'_>, patterns: &mut Patterns<'s>, errors: &mut FieldErrors) {
    let word = raw::text(schema, "type");
    match raw::get(schema, "items").filter(|items| items.is_object()) {
        None if word == "array" => errors.required(&path.child("items"), "must be specified"),
        None => {}
        Some(items) => node(items, Level::Item, &path.child("items"), patterns, errors),
    }
    for (name, inner) in raw::properties(schema) {
        node(inner, Level::Field, &path.child("properties").key(name), patterns, errors);
    }
    let additional = raw::get(schema, "additionalProperties");
    if let Some(additional) = additional {
        let path = path.child("additionalProperties");
        if level == Level::Root {
            errors.forbidden(&path, "must not be used at the root");
        }
        if additional.is_object() {
            node(additional, Level::Field, &path, patterns, errors);
        }
    }
    extensions(schema, path, errors);
    let all_of = raw::list(schema, "allOf");
    let skip = Skip {
        any_of: is_int_or_string(raw::list(schema, "anyOf")),
        first_all_of: all_of.first().is_some_and(|first| is_int_or_string(raw::list(first, "anyOf"))),
    };
    values(schema, skip, path, patterns, errors);
    types(schema, level, path, errors);
    if additional.is_some() && raw::flag(schema, "x-kubernetes-embedded-resource") {
        let words = "must not be used if x-kubernetes-embedded-resource is set";
        errors.forbidden(&path.child("additionalProperties"), words);
    }
    metadata(schema, level, path, errors);
}

/// The pattern that says again what `x-kubernetes-int-or-string` means; it alone may name types.
fn is_int_or_string(any_of: &[Value]) -> bool {
    let only = |schema: &Value, word: &str| {
        raw::text(schema, "type") == word
            && schema
                .as_object()
                .is_some_and(|map| map.iter().all(|(key, value)| key == "type" || says_nothing(key, value, true)))
    };
    matches!(any_of, [integer, string] if only(integer, "integer") && only(string, "string"))
}

/// Whether Go has the same value without it.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// Whether upstream's structural form is the same without a keyword: empty lists, maps and pointers are told from
/// absent ones there (`pkg/apiserver/schema/convert.go`).
fn says_nothing(key: &str, value: &Value, nested: bool) -> bool {
    match key {
        "additionalProperties" => value.is_null() || nested && value == &Value::Bool(false),
        "properties" if nested => value.is_null(),
        "externalDocs"
        | "required"
        | "x-kubernetes-list-map-keys"
        | "x-kubernetes-list-type"
        | "x-kubernetes-map-type"
        | "x-kubernetes-validations" => value.is_null(),
        _ => is_zero(value),
    }
}

fn extensions(schema: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    if !raw::flag(schema, "x-kubernetes-int-or-string") {
        return;
    }
    for key in ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"] {
        if raw::flag(schema, key) {
            errors.invalid(&path.child(key), true, "must be false if x-kubernetes-int-or-string is true");
        }
    }
}

fn types(schema: &Value, level: Level, path: &Path<'_>, errors: &mut FieldErrors) {
    let word = raw::text(schema, "type");
    let path = path.child("type");
    if raw::flag(schema, "x-kubernetes-embedded-resource") && word != "object" {
        let words = "must be object if x-kubernetes-embedded-resource is true";
        if word.is_empty() { errors.required(&path, words) } else { errors.invalid(&path, word, words) }
    } else if word.is_empty()
        && !raw::flag(schema, "x-kubernetes-int-or-string")
        && !raw::flag(schema, "x-kubernetes-preserve-unknown-fields")
    {
        let words = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        errors.required(&path, words);
    }
    if level == Level::Root && !word.is_empty() && word != "object" {
        errors.invalid(&path, word, "must be object at the root");
    }
}

/// What a resource's own fields may be: at the root and in embedded resources.
fn metadata(schema: &Value, level: Level, path: &Path<'_>, errors: &mut FieldErrors) {
    let embedded = raw::flag(schema, "x-kubernetes-embedded-resource");
    let resource = level == Level::Root || embedded;
    let property = |name: &str| raw::map(schema, "properties").and_then(|map| map.get(name));
    let properties = path.child("properties");
    for (name, must) in [("kind", "string"), ("apiVersion", "string"), ("metadata", "object")] {
        let Some(inner) = property(name) else { continue };
        let word = raw::text(inner, "type");
        let path = properties.key(name);
        if resource && word != must {
            errors.invalid(&path.child("type"), word, format!("must be {must}"));
        }
        if name == "metadata" && level == Level::Root && !only_names(inner) {
            let words =
                "must not specify anything other than name and generateName, but metadata is implicitly specified";
            errors.forbidden(&path, words);
        }
    }
    let empty = raw::map(schema, "properties").is_none_or(serde_json::Map::is_empty);
    if embedded && empty && !raw::flag(schema, "x-kubernetes-preserve-unknown-fields") {
        let words = "must not be empty if x-kubernetes-embedded-resource is true without \
                     x-kubernetes-preserve-unknown-fields";
        errors.required(&properties, words);
    }
}

/// Whether the root's metadata is described by nothing but its names. A default is looked at elsewhere.
fn only_names(schema: &Value) -> bool {
    let names = |value: &Value| {
        value.as_object().is_some_and(|map| map.keys().all(|name| matches!(&**name, "name" | "generateName")))
    };
    schema.as_object().is_some_and(|map| {
        map.iter().all(|(key, value)| match &**key {
            "type" | "default" => true,
            "properties" => is_zero(value) || names(value),
            key => says_nothing(key, value, false),
        })
    })
}

/// Which of the alternatives are those of [`is_int_or_string`].
#[derive(Clone, Copy, Default)]
struct Skip {
    any_of: bool,
    first_all_of: bool,
}

fn values<'s>(schema: &'s Value, skip: Skip, path: &Path<'_>, patterns: &mut Patterns<'s>, errors: &mut FieldErrors) {
    let mut each = |key: &str| {
        let path = path.child(key);
        for (index, inner) in raw::list(schema, key).iter().enumerate() {
            let any_of = key == "allOf" && skip.first_all_of && index == 0;
            nested(inner, Skip { any_of, first_all_of: false }, &path.index(index), patterns, errors);
        }
    };
    if !skip.any_of {
        each("anyOf");
    }
    each("allOf");
    each("oneOf");
    if let Some(not) = raw::get(schema, "not") {
        nested(not, Skip::default(), &path.child("not"), patterns, errors);
    }
    let pattern = raw::text(schema, "pattern");
    if !pattern.is_empty()
        && let Some(problem) = patterns.problem(pattern)
    {
        let words = format!("must be a valid regular expression, but isn't: {problem}");
        errors.invalid(&path.child("pattern"), pattern, words);
    }
}

/// What no schema inside `allOf`, `anyOf`, `oneOf` and `not` may say.
const FORBIDDEN: &[(&str, &str)] = &[
    ("type", "must be empty to be structural"),
    ("additionalProperties", "must be undefined to be structural"),
    ("default", "must be undefined to be structural"),
    ("title", "must be empty to be structural"),
    ("description", "must be empty to be structural"),
    ("nullable", "must be false to be structural"),
    ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
    ("x-kubernetes-embedded-resource", "must be false to be structural"),
    ("x-kubernetes-int-or-string", "must be false to be structural"),
    ("x-kubernetes-list-map-keys", "must be empty to be structural"),
    ("x-kubernetes-list-type", "must be undefined to be structural"),
    ("x-kubernetes-map-type", "must be undefined to be structural"),
    ("x-kubernetes-validations", "must be empty to be structural"),
];

fn nested<'s>(schema: &'s Value, skip: Skip, path: &Path<'_>, patterns: &mut Patterns<'s>, errors: &mut FieldErrors) {
    values(schema, skip, path, patterns, errors);
    if let Some(items) = raw::get(schema, "items").filter(|items| items.is_object()) {
        nested(items, Skip::default(), &path.child("items"), patterns, errors);
    }
    for (name, inner) in raw::properties(schema) {
        let path = path.child("properties");
        let path = path.key(name);
        nested(inner, Skip::default(), &path, patterns, errors);
        if name == "metadata" {
            // It would restrict what every resource may have there.
            errors.forbidden(&path, "must not be specified in a nested context");
        }
    }
    for (key, words) in FORBIDDEN {
        let Some(value) = raw::get(schema, key) else { continue };
        let said = match *key {
            // `false` allows nothing, which no schema stands for.
            "additionalProperties" => value != &Value::Bool(false),
            "default" | "x-kubernetes-list-type" | "x-kubernetes-map-type" => true,
            _ => !is_zero(value),
        };
        if said {
            errors.forbidden(&path.child(key), *words);
        }
    }
}

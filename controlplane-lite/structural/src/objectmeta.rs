//! The metadata of resources inside resources (`pkg/apiserver/schema/objectmeta` upstream).

use scheme::decode::{go_json_type, time_problem};
use scheme::meta::{self, NameRule};
use scheme::{FieldErrors, Path};
use serde_json::{Map, Value, json};

use crate::node::Node;

/// Checks embedded resources. The object itself is one only if its schema says so.
pub(crate) fn validate(value: &Value, node: &Node, path: &Path<'_>, errors: &mut FieldErrors) {
    validate_as(value, node, node.embedded, path, errors);
}

/// The same, of a value that is a whole resource whatever its schema says.
pub(crate) fn validate_as(value: &Value, node: &Node, resource: bool, path: &Path<'_>, errors: &mut FieldErrors) {
    match value {
        Value::Object(map) => {
            if resource {
                embedded(map, path, errors);
            }
            for (key, value) in map {
                if let Some(inner) = node.property(key) {
                    validate(value, inner, &path.child(key), errors);
                } else if let Some(inner) = node.additional_schema() {
                    validate(value, inner, &path.key(key), errors);
                }
            }
        }
        Value::Array(list) => {
            if let Some(inner) = &node.items {
                for (index, value) in list.iter().enumerate() {
                    validate(value, inner, &path.index(index), errors);
                }
            }
        }
        _ => {}
    }
}

fn embedded(map: &Map<String, Value>, path: &Path<'_>, errors: &mut FieldErrors) {
    for name in ["apiVersion", "kind"] {
        let path = path.child(name);
        match map.get(name) {
            None => errors.required(&path, ""),
            Some(Value::String(text)) if text.is_empty() => errors.invalid(&path, text, "must not be empty"),
            Some(Value::String(text)) if name == "kind" => {
                let problems = meta::dns1035_label(&text.to_lowercase());
                if !problems.is_empty() {
                    let words = "may have mixed case, but should otherwise match: ";
                    errors.invalid(&path, text, format!("{words}{}", problems.join(",")));
                }
            }
            Some(Value::String(text)) => {
                if text.matches('/').count() > 1 {
                    errors.invalid(&path, text, format!("unexpected GroupVersion string: {text}"));
                }
            }
            Some(other) => errors.invalid(&path, other, "must be a string"),
        }
    }
    let Some(metadata) = map.get("metadata") else { return };
    let path = path.child("metadata");
    if let Some(problem) = malformed(metadata) {
        return errors.invalid(&path, metadata, problem);
    }
    let mut metadata = metadata.clone();
    if let Value::Object(map) = &mut metadata
        && map.get("name").is_none_or(|name| name.is_null() || name == "")
    {
        // A name is not asked for.
        map.insert("name".to_owned(), "fakename".into());
    }
    let namespaced = metadata.get("namespace").and_then(Value::as_str).is_some_and(|namespace| !namespace.is_empty());
    meta::validate(&json!({ "metadata": metadata }), namespaced, NameRule::PathSegment, &path, errors);
}

/// The type of a field of `metav1.ObjectMeta`.
#[derive(Clone, Copy)]
enum Shape {
    Text,
    Integer,
    Time,
    Texts,
    TextMap,
    Objects,
}

const FIELDS: &[(&str, Shape)] = &[
    ("annotations", Shape::TextMap),
    ("creationTimestamp", Shape::Time),
    ("deletionGracePeriodSeconds", Shape::Integer),
    ("deletionTimestamp", Shape::Time),
    ("finalizers", Shape::Texts),
    ("generateName", Shape::Text),
    ("generation", Shape::Integer),
    ("labels", Shape::TextMap),
    ("managedFields", Shape::Objects),
    ("name", Shape::Text),
    ("namespace", Shape::Text),
    ("ownerReferences", Shape::Objects),
    ("resourceVersion", Shape::Text),
    ("selfLink", Shape::Text),
    ("uid", Shape::Text),
];

/// Whether `metadata` has a field of this name.
pub(crate) fn is_field(name: &str) -> bool {
    FIELDS.binary_search_by_key(&name, |(field, _)| field).is_ok()
}

/// Why Go could not read `metadata`, in its decoder's words.
pub(crate) fn malformed(metadata: &Value) -> Option<String> {
    let refuse =
        |is: &str, at: &str, must: &str| Some(format!("json: cannot unmarshal {is} into Go {at} of type {must}"));
    let map = match metadata {
        Value::Null => return None,
        Value::Object(map) => map,
        other => return refuse(go_json_type(other), "value", "v1.ObjectMeta"),
    };
    for (name, shape) in FIELDS {
        let Some(value) = map.get(*name).filter(|value| !value.is_null()) else { continue };
        let texts = |value: &Value| (!value.is_string() && !value.is_null()).then(|| go_json_type(value));
        let (is, must) = match (shape, value) {
            (Shape::Text, Value::String(_)) => continue,
            (Shape::Time, Value::String(text)) => match time_problem(text) {
                Some(problem) => return Some(problem),
                None => continue,
            },
            (Shape::Integer, number) if number.is_i64() => continue,
            (Shape::Texts, Value::Array(list)) => match list.iter().find_map(texts) {
                Some(is) => (is, "string"),
                None => continue,
            },
            (Shape::TextMap, Value::Object(map)) => match map.values().find_map(texts) {
                Some(is) => (is, "string"),
                None => continue,
            },
            (Shape::Objects, Value::Array(list)) if list.iter().all(|v| v.is_object() || v.is_null()) => continue,
            (Shape::Text, value) => (go_json_type(value), "string"),
            (Shape::Integer, value) => (go_json_type(value), "int64"),
            (Shape::Time, value) => (go_json_type(value), "string"),
            (Shape::Texts, value) => (go_json_type(value), "[]string"),
            (Shape::TextMap, value) => (go_json_type(value), "map[string]string"),
            (Shape::Objects, value) => (go_json_type(value), "[]v1.OwnerReference"),
        };
        return refuse(is, &format!("struct field ObjectMeta.{name}"), must);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_sorted() {
        assert!(FIELDS.is_sorted_by_key(|(name, _)| name));
        assert!(is_field("labels") && !is_field("unspecified"));
    }
}

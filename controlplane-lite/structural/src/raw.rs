//! A schema as JSON: which keywords there are, of which types, and how they are read. Upstream has the types in
//! `pkg/apis/apiextensions/v1/types_jsonschema.go`, and Go's decoder refuses what is not of them.

use serde_json::{Map, Value};

use crate::MAX_DEPTH;

/// Schemas in one schema, those inside each other counted. A request has room for less.
const MAX_SCHEMAS: usize = 1_000_000;

/// What a keyword's value has to be. Null stands for an absent keyword everywhere.
#[derive(Clone, Copy)]
enum Shape {
    Text,
    Flag,
    Integer,
    Number,
    Texts,
    Any,
    List,
    Docs,
    Rules,
    Schema,
    Schemas,
    SchemaMap,
    SchemaOrFlag,
    SchemaOrList,
    Dependencies,
}

const KEYWORDS: &[(&str, Shape)] = &[
    ("$ref", Shape::Text),
    ("$schema", Shape::Text),
    ("additionalItems", Shape::SchemaOrFlag),
    ("additionalProperties", Shape::SchemaOrFlag),
    ("allOf", Shape::Schemas),
    ("anyOf", Shape::Schemas),
    ("default", Shape::Any),
    ("definitions", Shape::SchemaMap),
    ("dependencies", Shape::Dependencies),
    ("description", Shape::Text),
    ("enum", Shape::List),
    ("example", Shape::Any),
    ("exclusiveMaximum", Shape::Flag),
    ("exclusiveMinimum", Shape::Flag),
    ("externalDocs", Shape::Docs),
    ("format", Shape::Text),
    ("id", Shape::Text),
    ("items", Shape::SchemaOrList),
    ("maxItems", Shape::Integer),
    ("maxLength", Shape::Integer),
    ("maxProperties", Shape::Integer),
    ("maximum", Shape::Number),
    ("minItems", Shape::Integer),
    ("minLength", Shape::Integer),
    ("minProperties", Shape::Integer),
    ("minimum", Shape::Number),
    ("multipleOf", Shape::Number),
    ("not", Shape::Schema),
    ("nullable", Shape::Flag),
    ("oneOf", Shape::Schemas),
    ("pattern", Shape::Text),
    ("patternProperties", Shape::SchemaMap),
    ("properties", Shape::SchemaMap),
    ("required", Shape::Texts),
    ("title", Shape::Text),
    ("type", Shape::Text),
    ("uniqueItems", Shape::Flag),
    ("x-kubernetes-embedded-resource", Shape::Flag),
    ("x-kubernetes-int-or-string", Shape::Flag),
    ("x-kubernetes-list-map-keys", Shape::Texts),
    ("x-kubernetes-list-type", Shape::Text),
    ("x-kubernetes-map-type", Shape::Text),
    ("x-kubernetes-preserve-unknown-fields", Shape::Flag),
    ("x-kubernetes-validations", Shape::Rules),
];

/// Whether the keywords of a schema and of all inside it have values of their types, and the schemas are not too many
/// or too deep.
///
/// # Errors
/// The first that is not so.
pub(crate) fn check(schema: &Value) -> Result<(), String> {
    let mut waiting = vec![(schema, 1)];
    let mut seen = 0;
    while let Some((schema, depth)) = waiting.pop() {
        seen += 1;
        if depth > MAX_DEPTH || seen > MAX_SCHEMAS {
            return Err(format!("a schema may have at most {MAX_DEPTH} levels and {MAX_SCHEMAS} schemas"));
        }
        let Value::Object(map) = schema else {
            return Err(format!("a schema must be an object, but is {}", kind_of(schema)));
        };
        for (key, value) in map {
            let Ok(at) = KEYWORDS.binary_search_by_key(&key.as_str(), |(name, _)| name) else { continue };
            if !value.is_null() {
                check_keyword(key, KEYWORDS[at].1, value, &mut |inner| waiting.push((inner, depth + 1)))?;
            }
        }
    }
    Ok(())
}

fn check_keyword<'a>(
    key: &str,
    shape: Shape,
    value: &'a Value,
    inner: &mut impl FnMut(&'a Value),
) -> Result<(), String> {
    let fits = match (shape, value) {
        (Shape::Any, _)
        | (Shape::Text, Value::String(_))
        | (Shape::Flag | Shape::SchemaOrFlag, Value::Bool(_))
        | (Shape::List, Value::Array(_)) => true,
        (Shape::Number, Value::Number(_)) => true,
        (Shape::Integer, number) => number.is_i64(),
        (Shape::Texts, Value::Array(list)) => list.iter().all(Value::is_string),
        (Shape::Docs, Value::Object(map)) => map.values().all(|v| v.is_string() || v.is_null()),
        (Shape::Rules, Value::Array(rules)) => rules.iter().all(is_rule),
        (Shape::Schema | Shape::SchemaOrFlag | Shape::SchemaOrList, Value::Object(_)) => {
            inner(value);
            true
        }
        (Shape::Schemas | Shape::SchemaOrList, Value::Array(list)) => {
            list.iter().for_each(inner);
            true
        }
        (Shape::SchemaMap, Value::Object(map)) => {
            map.values().for_each(inner);
            true
        }
        (Shape::Dependencies, Value::Object(map)) => {
            map.values().filter(|v| v.is_object()).for_each(inner);
            map.values().all(|v| v.is_object() || v.is_array())
        }
        _ => false,
    };
    if fits { Ok(()) } else { Err(format!("a schema's {key} must not be {}", kind_of(value))) }
}

fn is_rule(rule: &Value) -> bool {
    let text = |key: &str| matches!(rule.get(key), None | Some(Value::Null | Value::String(_)));
    rule.is_object()
        && ["rule", "message", "messageExpression", "reason", "fieldPath"].into_iter().all(text)
        && matches!(rule.get("optionalOldSelf"), None | Some(Value::Null | Value::Bool(_)))
}

/// JSON's word for a value's type.
fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_i64() => "an integer",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A keyword's value; null is none.
pub(crate) fn get<'a>(schema: &'a Value, key: &str) -> Option<&'a Value> {
    schema.get(key).filter(|value| !value.is_null())
}

pub(crate) fn text<'a>(schema: &'a Value, key: &str) -> &'a str {
    get(schema, key).and_then(Value::as_str).unwrap_or("")
}

pub(crate) fn flag(schema: &Value, key: &str) -> bool {
    get(schema, key).and_then(Value::as_bool).unwrap_or(false)
}

pub(crate) fn integer(schema: &Value, key: &str) -> Option<i64> {
    get(schema, key).and_then(Value::as_i64)
}

pub(crate) fn number(schema: &Value, key: &str) -> Option<f64> {
    get(schema, key).and_then(Value::as_f64)
}

pub(crate) fn list<'a>(schema: &'a Value, key: &str) -> &'a [Value] {
    get(schema, key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub(crate) fn texts<'a>(schema: &'a Value, key: &str) -> impl Iterator<Item = &'a str> {
    list(schema, key).iter().filter_map(Value::as_str)
}

pub(crate) fn map<'a>(schema: &'a Value, key: &str) -> Option<&'a Map<String, Value>> {
    get(schema, key).and_then(Value::as_object)
}

/// `properties`, in the order of their names.
pub(crate) fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    map(schema, "properties").into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_sorted() {
        assert!(KEYWORDS.is_sorted_by_key(|(name, _)| name));
    }
}

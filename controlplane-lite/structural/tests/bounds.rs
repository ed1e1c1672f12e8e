//! What a schema of a few letters may ask of a server: memory and work are bounded whatever it says.

#![allow(clippy::unwrap_used)]

use scheme::FieldErrors;
use serde_json::{Value, json};
use structural::Structural;

const TOO_MUCH: &str = "<nil>: Internal error: the schema asks too much of this object to be checked";

/// What is wrong with a value of the field `f`.
fn problems(schema: Value, value: Value) -> Vec<String> {
    let schema = json!({"type": "object", "properties": {"f": schema}});
    let mut errors = FieldErrors::new();
    Structural::parse(&schema).unwrap().validate(&json!({ "f": value }), &mut errors);
    errors.0.iter().map(ToString::to_string).collect()
}

fn values(value: &Value) -> usize {
    1 + match value {
        Value::Array(list) => list.iter().map(values).sum(),
        Value::Object(map) => map.values().map(values).sum(),
        _ => 0,
    }
}

/// Each level of lists is some hundred times the one above; a few more and no machine could hold them.
#[test]
fn defaults_in_defaults_are_bounded() {
    let items = Value::Array(vec![json!({}); 200]);
    let mut schema = json!({"type": "object"});
    for _ in 0..3 {
        schema = json!({"type": "object", "properties": {
            "a": {"type": "array", "default": items, "items": schema},
        }});
    }
    let mut object = json!({});
    Structural::parse(&schema).unwrap().default(&mut object);
    assert!(values(&object) < 7_800_000, "{}", values(&object));
    // What is there is more than a store takes, so that nobody is given half of it.
    assert!(object.to_string().len() > 4 << 20);
    // Nothing more is filled in where there is no more room, and what is small is.
    let mut small = json!({"a": [{"a": []}]});
    Structural::parse(&schema).unwrap().default(&mut small);
    assert_eq!(small, json!({"a": [{"a": []}]}));
}

/// The words of a problem name the whole enum, key or text.
#[test]
fn long_words_are_not_written_again_and_again() {
    let long = "x".repeat(1 << 20);
    let list = json!({"type": "array", "items": {"type": "string", "enum": [long]}});
    assert_eq!(problems(list, json!(vec!["a"; 1000])), [TOO_MUCH]);
    let dates = vec![json!({"format": "date"}); 1000];
    assert_eq!(problems(json!({"type": "string", "anyOf": dates}), long.as_str().into()).last().unwrap(), TOO_MUCH);
    let numbers = json!({"type": "object", "additionalProperties": {"type": "array", "items": {"type": "integer"}}});
    assert_eq!(problems(numbers, json!({long: vec!["a"; 1000]})), [TOO_MUCH]);
}

/// Each alternative looks through the whole text.
#[test]
fn long_texts_are_not_looked_through_again_and_again() {
    let long = "x".repeat(1 << 20);
    for rule in [json!({"maxLength": 2_000_000}), json!({"pattern": "^x"}), json!({"format": "password"})] {
        let once = json!({"type": "string", "allOf": [rule]});
        assert_eq!(problems(once, long.as_str().into()), Vec::<String>::new(), "{rule}");
        let often = json!({"type": "string", "allOf": vec![rule.clone(); 500]});
        assert_eq!(problems(often, long.as_str().into()).last().unwrap(), TOO_MUCH, "{rule}");
    }
}

/// A pattern that takes much may have to hold each byte against all of itself.
#[test]
fn the_work_of_a_pattern_counts() {
    let long = "ab".repeat(200_000);
    let pattern = |count: usize| json!({"type": "string", "pattern": format!("^[ab]*a[ab]{{{count}}}$")});
    assert_eq!(problems(pattern(3), long.as_str().into()), Vec::<String>::new());
    let wide = json!({"type": "string", "pattern": r"^[ab]*a\pL{20}[ab]{900}c$"});
    assert_eq!(problems(wide, long.as_str().into()).last().unwrap(), TOO_MUCH);
}

/// The name of a map's entry is part of the path of each unknown field in it.
#[test]
fn paths_of_unknown_fields_are_bounded() {
    let long = "x".repeat(1 << 20);
    let schema = json!({"type": "object", "properties": {"f": {"type": "object",
        "additionalProperties": {"type": "object", "properties": {"a": {"type": "string"}}}}}});
    let fields: serde_json::Map<String, Value> = (0..1000).map(|n| (format!("n{n}"), json!(1))).collect();
    let structural = Structural::parse(&schema).unwrap();
    let mut object = json!({"f": {"a": fields.clone(), long: fields}, "unknown": 1});
    let told = structural.prune(&mut object);
    assert!(told.len() > 1000 && told.contains(&"f.a.n7".to_owned()), "{}", told.len());
    let bytes: usize = told.iter().map(String::len).sum();
    assert!(bytes < 3 << 20, "{bytes}");
    assert!(object["f"].as_object().unwrap().values().all(|value| value == &json!({})));
    // A path that is too long by itself is told in part.
    let mut object = json!({ "x".repeat(3 << 20): 1 });
    let told = structural.prune(&mut object);
    assert!(matches!(&*told, [path] if path.len() < 2 << 20), "{}", told.len());
}

/// A definition may name as many keys of a list as it has room for, and an object may have as many items that have
/// none.
#[test]
fn keys_that_items_do_not_have_cost_nothing() {
    let keys: Vec<String> = (0..20_000).map(|n| format!("k{n}")).collect();
    let list = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys,
        "items": {"type": "object", "properties": {"k7": {"type": "string"}}}});
    let mut items = vec![json!({}); 20_000];
    items.extend([json!({"k7": "a"}), json!({"k7": "a", "x": 1}), json!({"k7": "b"})]);
    assert_eq!(
        problems(list, items.into()),
        ["f[1]: Duplicate value: {}", "f[20001]: Duplicate value: {\"k7\":\"a\"}"]
    );
}

/// A list may have more items than its schema has properties.
#[test]
fn properties_without_defaults_cost_nothing() {
    let mut properties: serde_json::Map<String, Value> =
        (0..20_000).map(|n| (format!("p{n}"), json!({"type": "string"}))).collect();
    properties.insert("a".to_owned(), json!({"type": "integer", "default": 7}));
    let schema = json!({"type": "object", "properties": {"l": {"type": "array", "items":
        {"type": "object", "properties": properties}}}});
    let mut object = json!({"l": vec![json!({}); 100_000]});
    Structural::parse(&schema).unwrap().default(&mut object);
    assert!(object["l"].as_array().unwrap().iter().all(|item| item == &json!({"a": 7})));
}

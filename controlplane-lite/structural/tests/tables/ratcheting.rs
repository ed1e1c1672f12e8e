//! What an update may leave as it is.

use scheme::FieldErrors;
use serde_json::{Value, json};
use structural::Structural;

use crate::texts;

fn update(schema: &Value, new: &Value, old: &Value) -> Vec<String> {
    let mut errors = FieldErrors::new();
    Structural::parse(schema).unwrap().validate_update(new, old, &mut errors);
    texts(&errors)
}

fn sizes() -> Value {
    json!({"type": "object", "properties": {
        "zero": {"type": "number", "minimum": 0, "maximum": 0},
        "small": {"type": "number", "maximum": 50},
        "medium": {"type": "number", "minimum": 50, "maximum": 10000},
        "large": {"type": "number", "minimum": 10000},
    }})
}

/// `pkg/apiserver/validation/ratcheting_test.go`.
#[test]
fn unchanged_values_are_let_be() {
    let medium = json!({"type": "number", "minimum": 50, "maximum": 10000});
    assert!(update(&medium, &json!(1), &json!(1)).is_empty());
    assert!(!update(&medium, &json!(1), &json!(2)).is_empty());
    let nested = json!({"type": "object", "properties": {"nested": sizes()}});
    for (schema, wrap) in [(sizes(), false), (nested, true)] {
        let value = |value: Value| if wrap { json!({ "nested": value }) } else { value };
        let check = |new: Value, old: Value| update(&schema, &value(new), &value(old));
        assert!(check(json!({"small": 500}), json!({"small": 500})).is_empty());
        assert!(check(json!({"small": 501}), json!({"small": 501, "medium": 500})).is_empty());
        assert!(!check(json!({"small": 500}), json!({"small": 501})).is_empty());
    }
    let schema = json!({"type": "object", "properties": {
        "intThirtyTwo": {"type": "integer", "format": "int32"}, "unrelated": {"type": "string"},
    }});
    let past = 1_i64 << 31;
    let check = |new: Value, old: Value| update(&schema, &new, &old);
    assert!(check(json!({"intThirtyTwo": past}), json!({"intThirtyTwo": past})).is_empty());
    let (new, old) = (json!({"intThirtyTwo": past, "unrelated": "changed"}), json!({"intThirtyTwo": past}));
    assert!(check(new, old).is_empty());
    assert!(!check(json!({"intThirtyTwo": past + 1}), json!({"intThirtyTwo": past})).is_empty());
}

/// `k8s.io/apiserver/pkg/cel/common/equality_test.go`: items are found by their keys.
#[test]
fn items_are_found_by_their_keys() {
    let item = json!({"type": "object", "properties": {"key": {"type": "string"}, "value": {"maximum": 1}}});
    let map = json!({"type": "object", "properties": {"list":
        {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["key"], "items": item}}});
    let atomic = json!({"type": "object", "properties": {"list": {"type": "array", "items": item}}});
    let old = json!({"list": [{"key": "a", "value": 5}, {"key": "b", "value": 1}]});
    let turned = json!({"list": [{"key": "c"}, {"key": "b", "value": 1}, {"key": "a", "value": 5}]});
    assert!(update(&map, &turned, &old).is_empty());
    let told = "list[2].value: Invalid value: 5: list[2].value in body should be less than or equal to 1";
    assert_eq!(update(&atomic, &turned, &old), [told]);
    let changed = json!({"list": [{"key": "b", "value": 5}]});
    let told = "list[0].value: Invalid value: 5: list[0].value in body should be less than or equal to 1";
    assert_eq!(update(&map, &changed, &old), [told]);
    assert!(update(&atomic, &old, &old).is_empty());
}

/// `pkg/apiserver/validation/ratcheting.go`: what is between alternatives is compared as a whole, and the type is
/// always checked.
#[test]
fn alternatives_are_compared_as_a_whole() {
    let schema = json!({"type": "object", "properties": {"a": {
        "type": "object",
        "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}},
        "allOf": [{"properties": {"x": {"maximum": 1}}}],
    }}});
    let old = json!({"a": {"x": 5, "y": 1}});
    assert!(update(&schema, &old, &old).is_empty());
    assert_eq!(
        update(&schema, &json!({"a": {"x": 5, "y": 2}}), &old),
        [
            r#"<nil>: Invalid value: "": "a" must validate all the schemas (allOf). None validated"#,
            "a.x: Invalid value: 5: a.x in body should be less than or equal to 1",
        ]
    );
    let schema = json!({"type": "object", "properties": {"kind": {"enum": ["A"]}}});
    let object = json!({"kind": "B", "x": 1});
    assert_eq!(update(&schema, &object, &object).len(), 1);
}

/// `pkg/registry/customresource/strategy.go`, `ValidateUpdate`: lists that repeated something before may go on.
#[test]
fn sets_that_repeated_something_may() {
    let schema = json!({"type": "object", "properties": {"list":
        {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}}});
    let (twice, thrice) = (json!({"list": ["a", "a"]}), json!({"list": ["b", "a", "a", "c", "c"]}));
    assert!(update(&schema, &thrice, &twice).is_empty());
    assert_eq!(update(&schema, &twice, &json!({"list": ["a"]})), [r#"list[1]: Duplicate value: "a""#]);
}

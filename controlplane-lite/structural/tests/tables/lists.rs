//! Lists that are sets or maps.

use serde_json::{Value, json};

use crate::{assert_told, validate};

fn rows(rows: &[(Value, Value, &[&str])]) {
    for (schema, value, expected) in rows {
        let schema = json!({"type": "object", "properties": {"array": schema}});
        assert_told(&validate(&schema, &json!({ "array": value })), expected, &json!([schema, value]));
    }
}

/// `pkg/apiserver/schema/listtype/validation_test.go`, `TestValidateListSetsAndMaps`: the sets.
#[test]
fn sets_repeat_nothing() {
    let set = json!({"type": "array", "x-kubernetes-list-type": "set"});
    let set_of_sets = json!({"type": "array", "x-kubernetes-list-type": "set", "items": set_of_anything()});
    rows(&[
        (json!({"type": "array"}), json!(["a", "b", "a"]), &[]),
        (set.clone(), json!(["a"]), &[]),
        (set.clone(), json!(["a", "a"]), &[r#"array[1]: Duplicate value: "a""#]),
        (set.clone(), json!(["a", "b"]), &[]),
        (
            set.clone(),
            json!(["a", "a", "b", "c", "d", "c"]),
            &[r#"array[1]: Duplicate value: "a""#, r#"array[5]: Duplicate value: "c""#],
        ),
        (set.clone(), json!(["a", "a", "a"]), &[r#"array[1]: Duplicate value: "a""#]),
        (json!({"type": "array", "items": {"type": "string"}}), json!(["a", "b", "a"]), &[]),
        (
            json!({"type": "array", "items": set}),
            json!([["a", "b", "a"], ["b", "b", "a"]]),
            &[r#"array[0][2]: Duplicate value: "a""#, r#"array[1][1]: Duplicate value: "b""#],
        ),
        (
            set_of_sets,
            json!(["a", "b", "a", ["b", "b", "a"]]),
            &[r#"array[2]: Duplicate value: "a""#, r#"array[3][1]: Duplicate value: "b""#],
        ),
        (
            set,
            json!([{}, {"a": 1}, {"a": 1, "b": 2}, {}, {"b": 2, "a": 1}]),
            &["array[3]: Duplicate value: {}", r#"array[4]: Duplicate value: {"a":1,"b":2}"#],
        ),
    ]);
    let schema = json!({"type": "object", "additionalProperties":
        {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}});
    let told = [r#"[array][2]: Duplicate value: "a""#];
    assert_told(&validate(&schema, &json!({"array": ["a", "b", "a"]})), &told, &schema);
}

/// A set of anything: without a type, so that only the repetition is told.
fn set_of_anything() -> Value {
    json!({"x-kubernetes-list-type": "set"})
}

/// `pkg/apiserver/schema/listtype/validation_test.go`, `TestValidateListSetsAndMaps`: the maps.
#[test]
fn maps_repeat_no_keys() {
    let map = |keys: Value| json!({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys});
    let one = map(json!(["a"]));
    let two = map(json!(["a", "b"]));
    rows(&[
        (one.clone(), json!([{"a": "42"}]), &[]),
        (
            one.clone(),
            json!(["str"]),
            &[r#"array[0]: Invalid value: "str": must be an object for an array of list-type map"#],
        ),
        (one.clone(), json!([{"a": "1", "b": 1}, {"a": "1", "b": 2}]), &[r#"array[1]: Duplicate value: {"a":"1"}"#]),
        (one.clone(), json!([{"b": 1}, {"b": 2}]), &["array[1]: Duplicate value: {}"]),
        (one, json!([{"a": null}, {}, null]), &["array[2]: Duplicate value: {}"]),
        (two.clone(), json!([{"a": 1, "b": 1}, {"a": 1, "b": 2}]), &[]),
        (
            two.clone(),
            json!([{"a": 1, "b": 1}, {"a": 1, "b": 1, "c": 1}]),
            &[r#"array[1]: Duplicate value: {"a":1,"b":1}"#],
        ),
        (two, json!([{"a": 1}, {"b": 1}, {"a": 1}]), &[r#"array[2]: Duplicate value: {"a":1}"#]),
    ]);
}

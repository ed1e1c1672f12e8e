//! Defaults and nulls.

use serde_json::{Value, json};
use structural::Structural;

fn default(schema: &Value, mut object: Value) -> Value {
    Structural::parse(schema).unwrap().default(&mut object);
    object
}

/// `pkg/apiserver/schema/defaulting/algorithm_test.go`, `TestDefault`. Nulls that upstream's other function removes
/// first are in the next table.
#[test]
fn what_is_missing_is_filled_in() {
    let letters = json!({"properties": {"a": {"default": "A"}, "b": {"default": "B"}, "c": {"default": "C"}}});
    let two = |a: &str, b: &str| json!({"properties": {"a": {"default": a}, "b": {"default": b}}});
    let cases = [
        (json!({"default": "foo"}), json!(4), json!(4)),
        (json!({"items": {"default": "foo"}}), json!([1, 2]), json!([1, 2])),
        (
            json!({"items": letters}),
            json!([{"a": 1}, {"b": 1}, {"c": 1}]),
            json!([
                {"a": 1, "b": "B", "c": "C"}, {"a": "A", "b": 1, "c": "C"}, {"a": "A", "b": "B", "c": 1},
            ]),
        ),
        (
            json!({"properties": {
                "array": {"items": two("A", "B")},
                "object": two("N", "O"),
                "additionalProperties": {"additionalProperties": two("alpha", "beta")},
                "foo": {"default": "bar"},
            }}),
            json!({
                "array": [{"a": 1}, {"b": 2}],
                "object": {"a": 1},
                "additionalProperties": {"x": {"a": 1}, "y": {"b": 2}},
            }),
            json!({
                "array": [{"a": 1, "b": "B"}, {"a": "A", "b": 2}],
                "object": {"a": 1, "b": "O"},
                "additionalProperties": {"x": {"a": 1, "b": "beta"}, "y": {"a": "alpha", "b": 2}},
                "foo": "bar",
            }),
        ),
        (
            json!({"items": {"properties": {"a": {"default": "A"}}}}),
            json!([{}, {"a": 1}, {"a": 0}, {"a": 0.0}, {"a": ""}, {"a": null}, {"a": []}, {"a": {}}]),
            json!([{"a": "A"}, {"a": 1}, {"a": 0}, {"a": 0.0}, {"a": ""}, {"a": "A"}, {"a": []}, {"a": {}}]),
        ),
        (json!({"nullable": true, "items": {"properties": {"a": {"default": "A"}}}}), json!([null]), json!([null])),
        (json!({"items": {"default": "A"}}), json!([null]), json!(["A"])),
        (json!({"properties": {"a": {"nullable": true, "default": "A"}}}), json!({"a": null}), json!({"a": null})),
        (json!({"properties": {"a": {"default": "A"}}}), json!({"a": null}), json!({"a": "A"})),
        (json!({"additionalProperties": {"nullable": true, "default": "A"}}), json!({"a": null}), json!({"a": null})),
        (json!({"additionalProperties": {"default": "A"}}), json!({"a": null}), json!({"a": "A"})),
        (json!({"additionalProperties": true}), json!({"a": null}), json!({"a": null})),
    ];
    for (schema, object, expected) in cases {
        assert_eq!(default(&schema, object.clone()), expected, "{schema} {object}");
    }
}

/// `pkg/apiserver/schema/defaulting/prunenulls_test.go`, `TestPruneNonNullableNullsWithoutDefaults`, with the defaults
/// that come after.
#[test]
fn nulls_go_where_none_may_be() {
    let schema = json!({"items": {"properties": {
        "a": {"default": "A"}, "b": {"nullable": true}, "c": {"default": "C", "nullable": true}, "d": {},
    }}});
    let object = json!([{"a": null, "c": 1}, {"b": null}, {"c": null}, {"d": null}, {"e": null}]);
    let expected = json!([
        {"a": "A", "c": 1},
        {"a": "A", "b": null, "c": "C"},
        {"a": "A", "c": null},
        {"a": "A", "c": "C"},
        {"a": "A", "c": "C", "e": null},
    ]);
    assert_eq!(default(&schema, object), expected);
    assert_eq!(default(&json!({}), json!([1, null])), json!([1, null]));
    assert_eq!(default(&json!({"default": "foo"}), json!(4)), json!(4));
    assert_eq!(default(&json!({}), json!(null)), json!(null));
}

/// `pkg/apiserver/customresource_handler.go`: defaults come with decoding, and nulls go after it.
#[test]
fn nulls_of_defaults_go_as_well() {
    let schema = json!({"properties": {"f": {"default": {"a": null, "b": null}, "properties": {
        "a": {"type": "string"}, "b": {"type": "string", "default": "B"},
    }}}});
    assert_eq!(default(&schema, json!({})), json!({"f": {"b": "B"}}));
}

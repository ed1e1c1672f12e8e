//! Unknown fields.

use serde_json::{Value, json};
use structural::Structural;

/// Prunes an object with a schema, and compares what is left and what is told.
fn check(schema: &Value, object: &Value, left: &Value, told: &[&str]) {
    let mut object = object.clone();
    let paths = Structural::parse(schema).unwrap().prune(&mut object);
    assert_eq!((&object, &*paths), (left, &*told.iter().map(ToString::to_string).collect::<Vec<_>>()), "{schema}");
}

/// `pkg/apiserver/schema/pruning/algorithm_test.go`, `TestPrune`.
#[test]
fn unknown_fields_go() {
    let items = json!({"items": {"properties": {"a": {}, "c": {}}}});
    let rows = json!([{"a": 1}, {"b": 1}, {"a": 1, "b": 2, "c": 3}]);
    check(&json!({}), &json!(null), &json!(null), &[]);
    check(&json!({}), &json!(4), &json!(4), &[]);
    check(&json!({"items": {}}), &json!([1, 2]), &json!([1, 2]), &[]);
    check(&items, &rows, &json!([{"a": 1}, {}, {"a": 1, "c": 3}]), &["[1].b", "[2].b"]);
    check(&json!({}), &rows, &json!([{}, {}, {}]), &["[0].a", "[1].b", "[2].a", "[2].b", "[2].c"]);
    check(
        &json!({"properties": {"array": items, "specified": {"properties": {"a": {}, "c": {}}}}}),
        &json!({"array": rows, "unspecified": {"a": 1}, "specified": {"a": 1, "b": 2, "c": 3}}),
        &json!({"array": [{"a": 1}, {}, {"a": 1, "c": 3}], "specified": {"a": 1, "c": 3}}),
        &["array[1].b", "array[2].b", "specified.b", "unspecified"],
    );
    check(
        &json!({"properties": {"a": {}, "c": {"additionalProperties": {"type": "integer"}}}}),
        &json!({"a": 1, "b": 1, "c": {"a": 1, "b": 2, "c": {"a": 1}}}),
        &json!({"a": 1, "c": {"a": 1, "b": 2, "c": {}}}),
        &["b", "c.c.a"],
    );
    check(
        &json!({"properties": {"a": {}, "c": {"additionalProperties": false}}}),
        &json!({"a": 1, "b": 1, "c": {"a": 1, "b": 2, "c": {"a": 1, "apiVersion": "unknown"}}}),
        &json!({"a": 1, "c": {"a": 1, "b": 2, "c": {}}}),
        &["b", "c.c.a", "c.c.apiVersion"],
    );
}

/// `pkg/apiserver/schema/pruning/algorithm_test.go`, `TestPrune`: "nested x-kubernetes-preserve-unknown-fields".
#[test]
fn what_is_preserved_stays() {
    let object = json!({"type": "object"});
    let preserving = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let inner = json!({"type": "object", "properties": {"specified": object}});
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
        "alpha": {"type": "string"},
        "beta": {"type": "number"},
        "pruning": {"type": "object", "properties": {"preserving": preserving, "pruning": object}},
        "preserving": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
            "preserving": preserving,
            "preservingUnknownType": {"x-kubernetes-preserve-unknown-fields": true},
            "pruning": object,
        }},
        "notInheriting":
            {"x-kubernetes-preserve-unknown-fields": true, "type": "object", "additionalProperties": inner},
        "values": {"type": "object", "additionalProperties": inner},
    }});
    let unspecified = json!({"unspecified": "bar"});
    let foo = json!({"foo": {"specified": unspecified, "unspecified": "bar"}});
    check(
        &schema,
        &json!({
            "unspecified": "bar", "alpha": "abc", "beta": 42.0, "unspecifiedObject": unspecified,
            "pruning": {
                "unspecified": "bar", "unspecifiedObject": unspecified, "pruning": unspecified,
                "apiVersion": "unknown", "preserving": unspecified,
            },
            "preserving": {
                "unspecified": "bar", "unspecifiedObject": unspecified, "pruning": unspecified,
                "preserving": unspecified, "preservingUnknownType": [{"foo": true}, {"bar": true}],
            },
            "notInheriting": foo,
            "values": foo,
        }),
        &json!({
            "unspecified": "bar", "alpha": "abc", "beta": 42.0, "unspecifiedObject": unspecified,
            "pruning": {"pruning": {}, "preserving": unspecified},
            "preserving": {
                "unspecified": "bar", "unspecifiedObject": unspecified, "pruning": {},
                "preserving": unspecified, "preservingUnknownType": [{"foo": true}, {"bar": true}],
            },
            "notInheriting": {"foo": {"specified": {}}},
            "values": {"foo": {"specified": {}}},
        }),
        &[
            "notInheriting.foo.specified.unspecified",
            "notInheriting.foo.unspecified",
            "preserving.pruning.unspecified",
            "pruning.apiVersion",
            "pruning.pruning.unspecified",
            "pruning.unspecified",
            "pruning.unspecifiedObject",
            "values.foo.specified.unspecified",
            "values.foo.unspecified",
        ],
    );
}

/// `pkg/apiserver/schema/pruning/algorithm_test.go`, `TestPrune`: "x-kubernetes-embedded-resource, with root=true".
/// What is unknown inside metadata goes as well, as upstream's `objectmeta.Coerce` does it just before.
#[test]
fn metadata_stays() {
    let embedded = |extra: Value| {
        let mut schema = json!({"type": "object", "x-kubernetes-embedded-resource": true});
        schema.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        schema
    };
    let spec = json!({"spec": {"type": "object"}});
    let schema = json!({"type": "object", "properties": {
        "metadata": {"type": "object"},
        "pruned": embedded(json!({"properties": spec})),
        "preserving": embedded(json!({"x-kubernetes-preserve-unknown-fields": true})),
        "nested": embedded(json!({"properties": {
            "spec": {"type": "object", "properties": {"embedded": embedded(json!({"properties": spec}))}},
        }})),
    }});
    let resource = |metadata: &Value, spec: Value, unspecified: bool| {
        let mut value = json!({"apiVersion": "foo/v1", "kind": "Foo", "metadata": metadata, "spec": spec});
        if unspecified {
            value["unspecified"] = json!("bar");
        }
        value
    };
    let unspecified = json!({"unspecified": "bar"});
    let whole = json!({"name": "instance", "namespace": "myns", "labels": {"foo": "bar"}, "unspecified": "bar"});
    let clean = json!({"name": "instance", "namespace": "myns", "labels": {"foo": "bar"}});
    let whole_resource = resource(&whole, unspecified.clone(), true);
    let root = |rest: Value, metadata: &Value| {
        let mut value = json!({"apiVersion": "foo/v1", "kind": "Foo", "metadata": metadata});
        value.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        value
    };
    check(
        &schema,
        &root(
            json!({
                "unspecified": "bar",
                "pruned": whole_resource,
                "preserving": whole_resource,
                "nested": resource(&whole, json!({"unspecified": "bar", "embedded": whole_resource}), true),
            }),
            &whole,
        ),
        &root(
            json!({
                "pruned": resource(&clean, json!({}), false),
                "preserving": resource(&clean, unspecified, true),
                "nested": resource(&clean, json!({"embedded": resource(&clean, json!({}), false)}), false),
            }),
            &whole,
        ),
        &[
            "nested.metadata.unspecified",
            "nested.spec.embedded.metadata.unspecified",
            "nested.spec.embedded.spec.unspecified",
            "nested.spec.embedded.unspecified",
            "nested.spec.unspecified",
            "nested.unspecified",
            "preserving.metadata.unspecified",
            "pruned.metadata.unspecified",
            "pruned.spec.unspecified",
            "pruned.unspecified",
            "unspecified",
        ],
    );
}

//! The metadata of embedded resources.

use serde_json::{Value, json};

use crate::{assert_told, validate};

fn rows(rows: &[(Value, &[&str])]) {
    let embedded = json!({"x-kubernetes-embedded-resource": true});
    let nested = json!({"x-kubernetes-embedded-resource": true, "properties": {"embedded": embedded}});
    let schema = json!({"properties": {
        "embedded": embedded,
        "nested": nested,
        "items": {"items": embedded},
        "additionalProperties": {"additionalProperties": embedded},
    }});
    for (object, expected) in rows {
        assert_told(&validate(&schema, object), expected, object);
    }
}

/// `pkg/apiserver/schema/objectmeta/validation_test.go`, `TestValidate`.
#[test]
fn resources_are_found() {
    rows(&[
        (json!({}), &[]),
        (json!({"embedded": {}}), &["embedded.apiVersion: Required value", "embedded.kind: Required value"]),
        (
            json!({"nested": {"embedded": {}}}),
            &[
                "nested.apiVersion: Required value",
                "nested.embedded.apiVersion: Required value",
                "nested.embedded.kind: Required value",
                "nested.kind: Required value",
            ],
        ),
        (json!({"items": [{}]}), &["items[0].apiVersion: Required value", "items[0].kind: Required value"]),
        (
            json!({"additionalProperties": {"foo": {}}}),
            &["additionalProperties[foo].apiVersion: Required value", "additionalProperties[foo].kind: Required value"],
        ),
    ]);
}

/// `pkg/apiserver/schema/objectmeta/validation_test.go`, `TestValidateEmbeddedResource`.
#[test]
fn metadata_is_checked() {
    let resource = |rest: Value| {
        let mut object = json!({"apiVersion": "foo/v1", "kind": "Foo"});
        object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        json!({ "embedded": object })
    };
    rows(&[
        (json!({"embedded": {"kind": "Foo"}}), &["embedded.apiVersion: Required value"]),
        (resource(json!({})), &[]),
        (
            resource(json!({"apiVersion": "a/b/c"})),
            &[r#"embedded.apiVersion: Invalid value: "a/b/c": unexpected GroupVersion string: a/b/c"#],
        ),
        (
            resource(json!({"apiVersion": 1, "kind": ""})),
            &[
                "embedded.apiVersion: Invalid value: 1: must be a string",
                r#"embedded.kind: Invalid value: "": must not be empty"#,
            ],
        ),
        (
            resource(json!({"kind": "foo.bar-com"})),
            &["embedded.kind: Invalid value: \"foo.bar-com\": may have mixed case, but should otherwise match: a \
                DNS-1035 \
             label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, \
             and end \
             with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is \
             '[a-z]([-a-z0-9]*[a-z0-9])?')"],
        ),
        (resource(json!({"metadata": {"namespace": "kube-system"}})), &[]),
        (resource(json!({"metadata": {"name": "foo"}})), &[]),
        (
            resource(json!({"metadata": {"name": "..", "labels": {"a": 1}}})),
            &["embedded.metadata: Invalid value: {\"labels\":{\"a\":1},\"name\":\"..\"}: json: cannot unmarshal \
                number into \
             Go struct field ObjectMeta.labels of type string"],
        ),
        (resource(json!({"metadata": {"creationTimestamp": null, "deletionTimestamp": "2026-01-02T03:04:05Z"}})), &[]),
        (
            resource(json!({"metadata": {"creationTimestamp": "soon"}})),
            &["embedded.metadata: Invalid value: {\"creationTimestamp\":\"soon\"}: parsing time \"soon\" as \
             \"2006-01-02T15:04:05Z07:00\": cannot parse \"soon\" as \"2006\""],
        ),
        (
            resource(json!({"metadata": {"name": ".."}})),
            &[r#"embedded.metadata.name: Invalid value: "..": may not be '..'"#],
        ),
    ]);
}

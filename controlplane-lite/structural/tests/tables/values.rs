//! Types, bounds, formats and the like.

use serde_json::{Value, json};

use crate::{assert_told, validate, validate_field};

/// Checks rows of a field's schema, its value and what is told.
fn rows(rows: &[(Value, Value, &[&str])]) {
    for (schema, value, expected) in rows {
        assert_told(&validate_field(schema, value), expected, &json!([schema, value]));
    }
}

/// `pkg/apiserver/validation/validation_test.go`, `TestValidateCustomResource`.
#[test]
fn types() {
    let object = json!({"type": "object"});
    let nullable = json!({"type": "object", "nullable": true});
    let either = json!({"x-kubernetes-int-or-string": true});
    let either_or_null = json!({"x-kubernetes-int-or-string": true, "nullable": true});
    for schema in [&object, &nullable] {
        rows(&[
            (schema.clone(), json!({}), &[]),
            (
                schema.clone(),
                json!("foo"),
                &[r#"field: Invalid value: "string": field in body must be of type object: "string""#],
            ),
            (
                schema.clone(),
                json!(42),
                &[r#"field: Invalid value: "integer": field in body must be of type object: "integer""#],
            ),
            (
                schema.clone(),
                json!(true),
                &[r#"field: Invalid value: "boolean": field in body must be of type object: "boolean""#],
            ),
            (
                schema.clone(),
                json!(1.2),
                &[r#"field: Invalid value: "number": field in body must be of type object: "number""#],
            ),
            (
                schema.clone(),
                json!([]),
                &[r#"field: Invalid value: "array": field in body must be of type object: "array""#],
            ),
        ]);
    }
    rows(&[
        (object, json!(null), &[r#"field: Invalid value: "null": field in body must be of type object: "null""#]),
        (nullable, json!(null), &[]),
        (json!({"nullable": true}), json!(1.2), &[]),
        (json!({"nullable": true}), json!(null), &[]),
        (
            either.clone(),
            json!(null),
            &[r#"field: Invalid value: "null": field in body must be of type integer,string: "null""#],
        ),
        (either_or_null.clone(), json!(null), &[]),
    ]);
    for schema in [either, either_or_null] {
        rows(&[
            (schema.clone(), json!(42), &[]),
            (schema.clone(), json!("foo"), &[]),
            (
                schema.clone(),
                json!(true),
                &[r#"field: Invalid value: "boolean": field in body must be of type integer,string: "boolean""#],
            ),
            (
                schema.clone(),
                json!(1.2),
                &[r#"field: Invalid value: "number": field in body must be of type integer,string: "number""#],
            ),
            (
                schema.clone(),
                json!({}),
                &[r#"field: Invalid value: "object": field in body must be of type integer,string: "object""#],
            ),
            (
                schema.clone(),
                json!([]),
                &[r#"field: Invalid value: "array": field in body must be of type integer,string: "array""#],
            ),
        ]);
    }
}

/// `pkg/apiserver/validation/validation_test.go`, `TestValidateCustomResource`: "required field", "enum", "invalid
/// regex", "maxProperties", "maxItems", "maxLength".
#[test]
fn sizes_and_choices() {
    let nested = json!({"type": "object", "required": ["nested"], "properties": {"nested": {}}});
    let schema = json!({"type": "object", "required": ["field"], "properties": {"field": nested}});
    assert_told(&validate(&schema, &json!({"test": "a"})), &["field: Required value"], &schema);
    assert_told(&validate(&schema, &json!({"field": {}})), &["field.nested: Required value"], &schema);
    let schema = json!({"type": "object", "required": ["nestedint", "nestedstring"], "properties": {
        "nestedint": {"type": "integer", "enum": [1, 2]},
        "nestedstring": {"type": "string", "enum": ["a", "b"]},
    }});
    rows(&[
        (schema.clone(), json!({}), &["field.nestedint: Required value", "field.nestedstring: Required value"]),
        (
            schema,
            json!({"nestedint": "x", "nestedstring": true}),
            &[
                "field.nestedint: Invalid value: \"string\": field.nestedint in body must be of type integer: \
                 \"string\"",
                r#"field.nestedint: Unsupported value: "x": supported values: "1", "2""#,
                "field.nestedstring: Invalid value: \"boolean\": field.nestedstring in body must be of type string: \
                 \"boolean\"",
                r#"field.nestedstring: Unsupported value: true: supported values: "a", "b""#,
            ],
        ),
        (
            json!({"type": "string", "pattern": "+"}),
            json!("foo"),
            &["field: Invalid value: \"foo\": field in body should match '+, but pattern is invalid: error parsing \
                regexp: \
             missing argument to repetition operator: `+`'"],
        ),
        (
            json!({"type": "object", "maxProperties": 2}),
            json!({"a": true, "b": true, "c": true}),
            &["field: Too many: 3: must have at most 2 items"],
        ),
        (
            json!({"type": "array", "maxItems": 2}),
            json!(["a", "b", "c"]),
            &["field: Too many: 3: must have at most 2 items"],
        ),
        (json!({"type": "string", "maxLength": 2}), json!("abc"), &["field: Too long: may not be more than 2 bytes"]),
        (
            json!({"type": "string", "format": "k8s-long-name"}),
            json!("a.-"),
            &[r#"field: Invalid value: "a.-": field in body must be of type k8s-long-name: "a.-""#],
        ),
        (
            json!({"type": "string", "format": "k8s-short-name"}),
            json!("a-"),
            &[r#"field: Invalid value: "a-": field in body must be of type k8s-short-name: "a-""#],
        ),
    ]);
}

/// `pkg/apiserver/validation/validation_test.go`, `TestValidateCustomResource`: "numeric formats valid" and "invalid".
#[test]
fn numeric_formats() {
    let int32 = json!({"type": "integer", "format": "int32"});
    let int64 = json!({"type": "integer", "format": "int64"});
    let float = json!({"type": "number", "format": "float"});
    let double = json!({"type": "number", "format": "double"});
    let past_int32 =
        &[r#"<nil>: Invalid value: "": Checked value must be of type integer with format int32 in field"#][..];
    let past_int64 = &[
        r#"field: Invalid value: "float64": field in body must be of type int64: "float64""#,
        r#"<nil>: Invalid value: "": Checked value must be of type integer with format int64 in field"#,
    ][..];
    let past_float =
        &[r#"<nil>: Invalid value: "": Checked value must be of type number with format float in field"#][..];
    rows(&[
        (int32.clone(), json!(i32::MIN), &[]),
        (int32.clone(), json!(i32::MAX), &[]),
        (int64.clone(), json!(i64::MIN), &[]),
        (int64.clone(), json!(i64::MAX), &[]),
        (float.clone(), json!(-f64::from(f32::MAX)), &[]),
        (float.clone(), json!(f64::from(f32::MAX)), &[]),
        (double.clone(), json!(f64::MIN), &[]),
        (double, json!(f64::MAX), &[]),
        (int32.clone(), json!(i64::from(i32::MAX) + 1), past_int32),
        (int32, json!(i64::from(i32::MIN) - 1), past_int32),
        (int64.clone(), json!(9_223_372_036_854_775_807.0 * 1.1), past_int64),
        (int64, json!(-9_223_372_036_854_775_808.0 * 1.1), past_int64),
        (float.clone(), json!(f64::from(f32::MAX) * 1.1), past_float),
        (float, json!(-f64::from(f32::MAX) * 1.1), past_float),
    ]);
}

/// `k8s.io/kube-openapi/pkg/validation/validate/values_test.go`, with the words of `validation/errors/schema.go`.
#[test]
fn bounds() {
    let past = |schema: Value, value: Value, words: &str| {
        let told = format!("field: Invalid value: {value}: field in body {words}");
        rows(&[(schema, value, &[&told])]);
    };
    past(json!({"type": "integer", "maximum": 5}), json!(6), "should be less than or equal to 5");
    past(json!({"type": "integer", "maximum": 5, "exclusiveMaximum": true}), json!(5), "should be less than 5");
    past(json!({"type": "integer", "minimum": 5}), json!(4), "should be greater than or equal to 5");
    past(json!({"type": "integer", "minimum": 5, "exclusiveMinimum": true}), json!(5), "should be greater than 5");
    past(json!({"type": "number", "maximum": 1.5}), json!(1.6), "should be less than or equal to 1.5");
    past(json!({"type": "number", "minimum": 1e6}), json!(1.5), "should be greater than or equal to 1e+06");
    past(json!({"type": "integer", "multipleOf": 3}), json!(4), "should be a multiple of 3");
    past(json!({"type": "number", "multipleOf": 0.01}), json!(0.015), "should be a multiple of 0.01");
    past(json!({"type": "string", "minLength": 2}), json!("a"), "should be at least 2 chars long");
    past(json!({"type": "string", "pattern": "^b"}), json!("a"), "should match '^b'");
    rows(&[
        (json!({"type": "integer", "maximum": 5, "minimum": 5}), json!(5), &[]),
        (json!({"type": "number", "multipleOf": 0.01}), json!(9.34), &[]),
        (json!({"type": "integer"}), json!(3.0), &[]),
        (json!({"type": "number"}), json!(3), &[]),
        (
            json!({"type": "number", "multipleOf": 0.5}),
            json!(1),
            &["field: Invalid value: 0: factor MultipleOf declared for field must be positive: 0"],
        ),
        (
            json!({"type": "number", "multipleOf": -1}),
            json!(1.5),
            &["field: Invalid value: -1: factor MultipleOf declared for field must be positive: -1"],
        ),
        (
            json!({"type": "integer", "maximum": 1.5}),
            json!(1),
            &[r#"<nil>: Invalid value: "": Maximum boundary value must be of type integer (default format) in field"#],
        ),
        (
            json!({"type": "array", "minItems": 2}),
            json!([1]),
            &["field: Invalid value: 1: field in body should have at least 2 items"],
        ),
        (
            json!({"type": "object", "minProperties": 2}),
            json!({"a": 1}),
            &["field: Invalid value: 1: field in body should have at least 2 properties"],
        ),
        (
            json!({"type": "array", "uniqueItems": true}),
            json!([{"a": 1}, 1, {"a": 1}]),
            &[r#"field: Invalid value: "": field in body shouldn't contain duplicates"#],
        ),
        (json!({"type": "array", "maxItems": 1}), json!([1, 2]), &["field: Too many: 2: must have at most 1 item"]),
        (
            json!({"type": "object", "maxProperties": 0}),
            json!({"a": 1}),
            &["field: Too many: 1: must have at most 0 items"],
        ),
        // Lengths are of code points.
        (json!({"type": "string", "maxLength": 1}), json!("é"), &[]),
        (json!({"type": "string", "maxLength": 1}), json!("éé"), &["field: Too long: may not be more than 1 byte"]),
        (json!({"type": "string", "minLength": 2}), json!("éé"), &[]),
        (json!({"enum": [1.0, "a"]}), json!(1), &[]),
        (
            json!({"type": "string", "nullable": true, "enum": ["a"]}),
            json!(null),
            &[r#"field: Unsupported value: null: supported values: "a""#],
        ),
        (
            json!({"enum": ["b", "a", {"c": 1}]}),
            json!({"c": 2}),
            &[r#"field: Unsupported value: {"c":2}: supported values: "b", "a", "{\"c\":1}""#],
        ),
    ]);
}

/// Where a value is, as `k8s.io/kube-openapi/pkg/validation/validate/object_validator_test.go` and
/// `slice_validator_test.go` have it.
#[test]
fn places() {
    rows(&[
        (
            json!({"type": "array", "items": {"type": "integer"}}),
            json!([1, "a"]),
            &[r#"field[1]: Invalid value: "string": field[1] in body must be of type integer: "string""#],
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "integer"}}),
            json!({"a": "b"}),
            &[r#"field.a: Invalid value: "string": field.a in body must be of type integer: "string""#],
        ),
        (
            json!({"type": "object", "additionalProperties": false}),
            json!({"a": "b"}),
            &[r#"field: Invalid value: "a": field.a in body is a forbidden property"#],
        ),
        (json!({"type": "object", "additionalProperties": true}), json!({"a": "b"}), &[]),
    ]);
    let schema = json!({"additionalProperties": {"type": "integer"}});
    assert_told(
        &validate(&schema, &json!({"a": "b"})),
        &[r#"a: Invalid value: "string": .a in body must be of type integer: "string""#],
        &schema,
    );
    let schema = json!({"type": "object"});
    assert_told(
        &validate(&schema, &json!([])),
        &[r#"<nil>: Invalid value: "array":  in body must be of type object: "array""#],
        &schema,
    );
}

/// `pkg/apiserver/validation/formats_test.go`, `TestGetUnrecognizedFormats`: what a format is not of its type asks
/// nothing.
#[test]
fn formats_of_other_types_ask_nothing() {
    rows(&[
        (json!({"type": "string", "format": "unknown"}), json!("x"), &[]),
        (json!({"type": "string", "format": "int32"}), json!("x"), &[]),
        (json!({"type": "integer", "format": "ipv4"}), json!(1), &[]),
        (json!({"type": "object", "format": "date"}), json!({}), &[]),
        (json!({"type": "string", "format": "date-time"}), json!("2014-12-15T19:30:20.000Z"), &[]),
        (
            json!({"type": "string", "format": "date-time"}),
            json!("yesterday"),
            &[r#"field: Invalid value: "yesterday": field in body must be of type date-time: "yesterday""#],
        ),
        (
            json!({"type": "string", "format": "ipv4"}),
            json!(3),
            &[r#"field: Invalid value: "int64": field in body must be of type ipv4: "int64""#],
        ),
    ]);
}

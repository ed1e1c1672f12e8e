//! `allOf`, `anyOf`, `oneOf` and `not`.

use serde_json::{Value, json};

use crate::{assert_told, validate_field};

/// `pkg/apiserver/validation/validation_test.go`, `TestValidateCustomResource`: "nullable, x-kubernetes-int-or-string
/// and user-provided anyOf" and "allOf".
#[test]
fn integers_or_strings_said_twice() {
    let either = json!([{"type": "integer"}, {"type": "string"}]);
    let any_of = json!({"nullable": true, "x-kubernetes-int-or-string": true, "anyOf": either});
    let all_of = json!({"nullable": true, "x-kubernetes-int-or-string": true, "allOf": [{"anyOf": either}]});
    let any = r#"<nil>: Invalid value: "": "field" must validate at least one schema (anyOf)"#;
    let all = r#"<nil>: Invalid value: "": "field" must validate all the schemas (allOf). None validated"#;
    for value in [json!(null), json!(42), json!("foo")] {
        assert_told(&validate_field(&any_of, &value), &[], &any_of);
        assert_told(&validate_field(&all_of, &value), &[], &all_of);
    }
    for (value, word) in [(json!(true), "boolean"), (json!({}), "object"), (json!([]), "array"), (json!(1.2), "number")]
    {
        let told =
            |must: &str| format!(r#"field: Invalid value: "{word}": field in body must be of type {must}: "{word}""#);
        let (both, first) = (told("integer,string"), told("integer"));
        let mut expected = vec![any, &both, &first];
        if word == "number" {
            expected
                .push(r#"<nil>: Invalid value: "": Checked value must be of type integer (default format) in field"#);
        }
        assert_told(&validate_field(&any_of, &value), &expected, &any_of);
        expected.push(all);
        assert_told(&validate_field(&all_of, &value), &expected, &all_of);
    }
}

/// `k8s.io/kube-openapi/pkg/validation/validate/{schema_test,jsonschema_test}.go`, with the words of
/// `schema_messages.go`.
#[test]
fn one_all_and_none() {
    let short = json!({"maxLength": 1});
    let long = json!({"minLength": 3});
    let letters = json!({"pattern": "^[a-z]*$"});
    let told = |words: &str| format!(r#"<nil>: Invalid value: "": "field" {words}"#);
    let cases: &[(Value, Value, Vec<String>)] = &[
        (json!({"oneOf": [short, long]}), json!("a"), vec![]),
        (
            json!({"oneOf": [short, long]}),
            json!("ab"),
            vec![
                told("must validate one and only one schema (oneOf). Found none valid"),
                "field: Too long: may not be more than 1 byte".to_owned(),
            ],
        ),
        (
            json!({"oneOf": [short, letters]}),
            json!("a"),
            vec![told("must validate one and only one schema (oneOf). Found 2 valid alternatives")],
        ),
        (
            json!({"allOf": [long, letters]}),
            json!("ab"),
            vec![
                told("must validate all the schemas (allOf)"),
                "field: Invalid value: \"ab\": field in body should be at least 3 chars long".to_owned(),
            ],
        ),
        (json!({"not": letters}), json!("ab"), vec![told("must not validate the schema (not)")]),
        (json!({"not": letters}), json!("A"), vec![]),
        (json!({"anyOf": [short, long]}), json!("abc"), vec![]),
        // Of those that fail, the one with most that is right.
        (
            json!({"anyOf": [
                {"required": ["x"]},
                {"properties": {"a": {"maximum": 1}, "b": {"maximum": 1}}},
            ]}),
            json!({"a": 1, "b": 2}),
            vec![
                told("must validate at least one schema (anyOf)"),
                "field.b: Invalid value: 2: field.b in body should be less than or equal to 1".to_owned(),
            ],
        ),
    ];
    for (schema, value, expected) in cases {
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        assert_told(&validate_field(schema, value), &expected, &json!([schema, value]));
    }
}

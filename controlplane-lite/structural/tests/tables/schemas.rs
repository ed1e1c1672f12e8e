//! What may be a schema.

use serde_json::{Value, json};

use crate::{assert_told, check};

/// Checks rows of a schema and what is told.
fn rows(rows: &[(Value, &[&str])]) {
    for (schema, expected) in rows {
        assert_told(&check(schema), expected, schema);
    }
}

/// A root with one field.
fn field(schema: Value) -> Value {
    json!({"type": "object", "properties": {"f": schema}})
}

/// `pkg/apis/apiextensions/validation/validation_test.go`, `TestValidateCustomResourceDefinitionValidation`: types and
/// the root.
#[test]
fn types() {
    rows(&[
        (json!({"type": "object"}), &[]),
        (json!({}), &["schema.type: Required value: must not be empty at the root"]),
        (json!({"type": "string"}), &[r#"schema.type: Invalid value: "string": must be object at the root"#]),
        (
            json!({"type": "null"}),
            &[
                "schema.type: Forbidden: type cannot be set to null, use nullable as an alternative",
                r#"schema.type: Invalid value: "null": must be object at the root"#,
                "schema.type: Unsupported value: \"null\": supported values: \"array\", \"boolean\", \"integer\", \
                 \"number\", \"object\", \"string\"",
            ],
        ),
        (
            json!({"type": "bogus"}),
            &[
                r#"schema.type: Invalid value: "bogus": must be object at the root"#,
                "schema.type: Unsupported value: \"bogus\": supported values: \"array\", \"boolean\", \"integer\", \
                 \"number\", \"object\", \"string\"",
            ],
        ),
        (
            field(json!({})),
            &["schema.properties[f].type: Required value: must not be empty for specified object fields"],
        ),
        (field(json!({"type": "array"})), &["schema.properties[f].items: Required value: must be specified"]),
        (
            field(json!({"type": "array", "items": {}})),
            &["schema.properties[f].items.type: Required value: must not be empty for specified array items"],
        ),
        (field(json!({"x-kubernetes-int-or-string": true})), &[]),
        (field(json!({"x-kubernetes-preserve-unknown-fields": true})), &[]),
        (
            field(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": false})),
            &["schema.properties[f].x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or \
                 undefined"],
        ),
        (
            field(json!({"x-kubernetes-int-or-string": true, "x-kubernetes-preserve-unknown-fields": true})),
            &["schema.properties[f].x-kubernetes-preserve-unknown-fields: Invalid value: true: must be false if \
             x-kubernetes-int-or-string is true"],
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "string"}}),
            &["schema.additionalProperties: Forbidden: must not be used at the root"],
        ),
        (
            field(json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": false})),
            &["schema.properties[f].additionalProperties: Forbidden: additionalProperties and properties are \
                 mutual exclusive"],
        ),
        (field(json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": true})), &[]),
        (
            field(json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true})),
            &["schema.properties[f].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime \
                complexity \
             becomes quadratic"],
        ),
        (
            field(json!({"type": "string", "pattern": "("})),
            &["schema.properties[f].pattern: Invalid value: \"(\": must be a valid regular expression, but isn't: \
                error \
             parsing regexp: missing closing ): `(`"],
        ),
    ]);
}

/// `pkg/apis/apiextensions/validation/validation_test.go`: what structural schemas do not have.
#[test]
fn unsupported() {
    rows(&[
        (
            field(json!({"type": "object", "$ref": "x"})),
            &["schema.properties[f].$ref: Forbidden: $ref is not supported"],
        ),
        (field(json!({"type": "object", "id": "x"})), &["schema.properties[f].id: Forbidden: id is not supported"]),
        (
            field(json!({"type": "object", "definitions": {"a": {"type": "object"}}})),
            &["schema.properties[f].definitions: Forbidden: definitions is not supported"],
        ),
        (
            field(json!({"type": "object", "dependencies": {"a": ["b"]}})),
            &["schema.properties[f].dependencies: Forbidden: dependencies is not supported"],
        ),
        (
            field(json!({"type": "object", "patternProperties": {"a": {"type": "object"}}})),
            &["schema.properties[f].patternProperties: Forbidden: patternProperties is not supported"],
        ),
        (
            field(json!({"type": "array", "items": {"type": "string"}, "additionalItems": false})),
            &["schema.properties[f].additionalItems: Forbidden: additionalItems is not supported"],
        ),
        (
            field(json!({"type": "array", "items": [{"type": "string"}]})),
            &["schema.properties[f].items: Forbidden: items must be a schema object and not an array"],
        ),
        (
            field(json!({"type": "object", "$schema": "x"})),
            &[r#"schema: Invalid value: "": OpenAPIV3Schema 'schema' is not supported"#],
        ),
        (json!([]), &[r#"schema: Invalid value: "": a schema must be an object, but is a list"#]),
    ]);
}

/// `pkg/apis/apiextensions/validation/validation_test.go`: "structural complete", "invalid … in nested", and
/// `pkg/apiserver/schema/validation_test.go`, `TestValidateStructuralCompleteness`.
#[test]
fn alternatives_only_narrow() {
    let of = |nested: Value| {
        json!({"type": "object", "properties": {
            "f": {"type": "string"}, "l": {"type": "array", "items": {"type": "string"}},
        }, "allOf": [nested]})
    };
    let forbidden = |key: &str, value: Value, words: &str| {
        let schema = of(json!({"properties": {"f": {key: value}}}));
        let told = format!("schema.allOf[0].properties[f].{key}: Forbidden: {words} to be structural");
        assert_told(&check(&schema), &[&told], &schema);
    };
    forbidden("type", json!("string"), "must be empty");
    forbidden("default", json!("x"), "must be undefined");
    forbidden("title", json!("x"), "must be empty");
    forbidden("description", json!("x"), "must be empty");
    forbidden("nullable", json!(true), "must be false");
    forbidden("x-kubernetes-preserve-unknown-fields", json!(true), "must be false");
    forbidden("x-kubernetes-embedded-resource", json!(true), "must be false");
    forbidden("x-kubernetes-int-or-string", json!(true), "must be false");
    forbidden("additionalProperties", json!(true), "must be undefined");
    rows(&[
        (of(json!({"properties": {"f": {"minLength": 2}}, "required": ["f"]})), &[]),
        (of(json!({"properties": {"l": {"items": {"minLength": 2}}}})), &[]),
        (
            of(json!({"properties": {"g": {"minLength": 2}}})),
            &["schema.properties[g]: Required value: because it is defined in schema.allOf[0].properties[g]"],
        ),
        (
            of(json!({"items": {"minLength": 2}})),
            &["schema.items: Required value: because it is defined in schema.allOf[0].items"],
        ),
        (
            of(json!({"anyOf": [{"not": {"properties": {"g": {}}}}]})),
            &["schema.properties[g]: Required value: because it is defined in \
             schema.allOf[0].anyOf[0].not.properties[g]"],
        ),
        (
            json!({
                "type": "object",
                "properties": {"metadata": {"type": "object"}},
                "not": {"properties": {"metadata": {}}},
            }),
            &["schema.not.properties[metadata]: Forbidden: must not be specified in a nested context"],
        ),
        (field(json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]})), &[]),
        (
            field(json!({"x-kubernetes-int-or-string": true, "allOf": [
                {"anyOf": [{"type": "integer"}, {"type": "string"}]}, {"minLength": 1},
            ]})),
            &[],
        ),
        (
            field(json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "string"}, {"type": "integer"}]})),
            &[
                "schema.properties[f].anyOf[0].type: Forbidden: must be empty to be structural",
                "schema.properties[f].anyOf[1].type: Forbidden: must be empty to be structural",
            ],
        ),
    ]);
}

/// `pkg/apiserver/schema/validation_test.go`, `TestValidateStructuralMetadataInvariants`, and
/// `pkg/apis/apiextensions/validation/validation_test.go`: "metadata with name property" and its like.
#[test]
fn metadata() {
    let of = |metadata: Value| json!({"type": "object", "properties": {"metadata": metadata}});
    let implicit = "schema.properties[metadata]: Forbidden: must not specify anything other than name and \
    generateName, \
                    but metadata is implicitly specified";
    rows(&[
        (of(json!({"type": "object", "properties": {"name": {"type": "string", "pattern": "^x$"}}})), &[]),
        (
            of(json!({"type": "object", "properties":
            {"name": {"type": "string"}, "generateName": {"type": "string"}}})),
            &[],
        ),
        (of(json!({"type": "object", "properties": {"labels": {"type": "object"}}})), &[implicit]),
        (of(json!({"type": "object", "minProperties": 1})), &[implicit]),
        (
            of(json!({"type": "string"})),
            &[r#"schema.properties[metadata].type: Invalid value: "string": must be object"#],
        ),
        (
            json!({"type": "object", "properties": {"kind": {"type": "integer"}, "apiVersion": {"type": "object"}}}),
            &[
                r#"schema.properties[apiVersion].type: Invalid value: "object": must be string"#,
                r#"schema.properties[kind].type: Invalid value: "integer": must be string"#,
            ],
        ),
        (
            of(json!({"type": "object", "properties": {"name": {"type": "string", "default": "x"}}})),
            &["schema.properties[metadata].properties[name].default: Forbidden: must not be set in top-level metadata"],
        ),
        (
            field(json!({"type": "object", "x-kubernetes-embedded-resource": true})),
            &["schema.properties[f].properties: Required value: must not be empty if \
                x-kubernetes-embedded-resource is true \
             without x-kubernetes-preserve-unknown-fields"],
        ),
        (
            field(json!({"x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true})),
            &["schema.properties[f].type: Required value: must be object if x-kubernetes-embedded-resource is true"],
        ),
        (
            field(json!({
                "type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true,
                "additionalProperties": {"type": "string"},
            })),
            &["schema.properties[f].additionalProperties: Forbidden: must not be used if \
                 x-kubernetes-embedded-resource is set"],
        ),
    ]);
}

/// `pkg/apis/apiextensions/validation/validation_test.go`: the types of lists and maps.
#[test]
fn list_types() {
    let list = |extra: Value| {
        let mut schema =
            json!({"type": "array", "items": {"type": "object", "properties": {"key": {"type": "string"}}}});
        schema.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        field(schema)
    };
    let map = |items: Value| {
        list(json!({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["key"], "items": items}))
    };
    let at = "schema.properties[f]";
    let told = |texts: &[&str]| texts.iter().map(|text| format!("{at}.{text}")).collect::<Vec<_>>();
    let cases: &[(Value, &[&str])] = &[
        (list(json!({"x-kubernetes-list-type": "atomic"})), &[]),
        (
            list(json!({"x-kubernetes-list-type": "invalid"})),
            &[r#"x-kubernetes-list-type: Unsupported value: "invalid": supported values: "atomic", "map", "set""#],
        ),
        (
            list(json!({"x-kubernetes-list-map-keys": ["key"]})),
            &["x-kubernetes-list-type: Required value: must be map if x-kubernetes-list-map-keys is non-empty"],
        ),
        (
            list(json!({"x-kubernetes-list-type": "map"})),
            &["x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map"],
        ),
        (
            list(json!({"x-kubernetes-list-type": "set"})),
            &["items.x-kubernetes-map-type: Invalid value: null: must be atomic as item of a list with \
             x-kubernetes-list-type=set"],
        ),
        (
            list(json!({"x-kubernetes-list-type": "set", "items": {"type": "string", "nullable": true}})),
            &["items.nullable: Forbidden: cannot be nullable when x-kubernetes-list-type is set"],
        ),
        (map(json!({"type": "object", "required": ["key"], "properties": {"key": {"type": "string"}}})), &[]),
        (map(json!({"type": "object", "properties": {"key": {"type": "string", "default": "a"}}})), &[]),
        (
            map(json!({"type": "object", "properties": {"key": {"type": "string"}}})),
            &["items.properties[key].default: Required value: this property is in x-kubernetes-list-map-keys, so \
                it must have \
             a default or be a required property"],
        ),
        (
            map(json!({
                "type": "object",
                "required": ["key"],
                "properties": {"key": {"type": "string", "nullable": true}},
            })),
            &["items.properties[key].nullable: Forbidden: this property is in x-kubernetes-list-map-keys, so it \
                cannot be \
             nullable"],
        ),
        (
            map(json!({"type": "string"})),
            &[r#"items.type: Invalid value: "string": must be object if parent array's x-kubernetes-list-type is map"#],
        ),
        (
            map(json!({"type": "object"})),
            &[r#"x-kubernetes-list-map-keys: Invalid value: ["key"]: entries must all be names of item properties"#],
        ),
        (
            map(json!({"type": "object", "required": ["key"], "properties": {"key": {"type": "object"}}})),
            &["items.properties[key].type: Invalid value: \"object\": must be a scalar type if parent array's \
                 x-kubernetes-list-type is map"],
        ),
        (
            field(json!({"type": "object", "x-kubernetes-list-type": "set"})),
            &[r#"type: Invalid value: "object": must be array if x-kubernetes-list-type is specified"#],
        ),
        (
            field(json!({"type": "string", "x-kubernetes-map-type": "atomic"})),
            &[r#"type: Invalid value: "string": must be object if x-kubernetes-map-type is specified"#],
        ),
        (
            field(json!({"type": "object", "x-kubernetes-map-type": "badMapType"})),
            &[r#"x-kubernetes-map-type: Unsupported value: "badMapType": supported values: "atomic", "granular""#],
        ),
    ];
    for (schema, expected) in cases {
        let expected = told(expected);
        assert_told(&check(schema), &expected.iter().map(String::as_str).collect::<Vec<_>>(), schema);
    }
}

/// `pkg/apis/apiextensions/validation/validation_test.go`: "defaults with …", and
/// `pkg/apiserver/schema/defaulting/validation.go`.
#[test]
fn defaults() {
    let inner = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
    let with = |default: Value| {
        let mut schema = inner.clone();
        schema["default"] = default;
        field(schema)
    };
    let embedded = |metadata: Value| {
        field(json!({"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"metadata": metadata}}))
    };
    rows(&[
        (with(json!({"a": 1})), &[]),
        (
            with(json!({"a": 1, "b": 2})),
            &[r#"schema.properties[f].default: Invalid value: {"a":1,"b":2}: must not have unknown fields"#],
        ),
        (
            with(json!({"a": "x"})),
            &["schema.properties[f].default.a: Invalid value: \"string\": a in body must be of \
             type integer: \"string\""],
        ),
        (field(json!({"type": "string", "default": null})), &[]),
        (
            field(json!({"type": "string", "pattern": "^a", "default": "b"})),
            &["schema.properties[f].default: Invalid value: \"b\":  in body should match '^a'"],
        ),
        (embedded(json!({"type": "object", "properties": {"name": {"type": "string", "default": "a"}}})), &[]),
        (
            embedded(json!({"type": "object", "properties": {"name": {"type": "string", "default": ".."}}})),
            &["schema.properties[f].properties[metadata].properties[name].default: Invalid value: \"..\": must \
                result in valid \
             metadata: metadata.name: Invalid value: \"..\": may not be '..'"],
        ),
        (
            embedded(json!({"type": "object", "properties": {"labels": {
                "type": "object", "additionalProperties": {"type": "string", "default": "x"},
            }}})),
            &["schema.properties[f].properties[metadata].properties[labels].additionalProperties.default: \
                Forbidden: must \
               not be set inside additionalProperties applying to object metadata"],
        ),
    ]);
}

/// `pkg/apis/apiextensions/validation/validation_test.go`: "x-kubernetes-validations …".
#[test]
fn rules() {
    let with = |rule: Value| json!({"type": "object", "x-kubernetes-validations": [rule]});
    let at = |text: &str| format!("schema.x-kubernetes-validations[0].{text}");
    let cases = [
        (json!({"rule": "true"}), None),
        (json!({"rule": " "}), Some("rule: Required value: rule is not specified")),
        (
            json!({"rule": "true", "message": " "}),
            Some(r#"message: Invalid value: " ": must be non-empty if specified"#),
        ),
        (
            json!({"rule": "true", "message": "a\nb"}),
            Some(r#"message: Invalid value: "a\nb": must not contain line breaks"#),
        ),
        (
            json!({"rule": "a\nb"}),
            Some("message: Required value: message must be specified if rule contains line breaks"),
        ),
        (
            json!({"rule": "true", "messageExpression": " "}),
            Some("messageExpression: Required value: messageExpression must be non-empty if specified"),
        ),
        (
            json!({"rule": "true", "reason": "x"}),
            Some(
                "reason: Unsupported value: \"x\": supported values: \"FieldValueDuplicate\", \"FieldValueForbidden\", \
                 \"FieldValueInvalid\", \"FieldValueRequired\"",
            ),
        ),
    ];
    for (rule, expected) in cases {
        let expected: Vec<String> = expected.into_iter().map(at).collect();
        assert_eq!(check(&with(rule.clone())), expected, "{rule}");
    }
    let blank = json!({"rule": "true", "fieldPath": " "});
    let told = ["must be a valid path", "must be non-empty if specified"];
    assert_eq!(check(&with(blank)), told.map(|words| at(&format!("fieldPath: Invalid value: \" \": {words}"))));
    let schema = json!({"type": "object", "properties": {"l": {"type": "array", "items":
        {"type": "string", "x-kubernetes-validations": [{"rule": "self != ''"}]}}}});
    let parsed = structural::Structural::parse(&schema).unwrap();
    let rules: Vec<String> = parsed.rules().iter().map(|(path, rule)| format!("{path}: {}", rule.rule)).collect();
    assert_eq!(rules, ["l[*]: self != ''"]);
}

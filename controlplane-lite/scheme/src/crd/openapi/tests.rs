//! Cases of k8s.io/apiextensions-apiserver/pkg/controller/openapi/{builder/builder_test.go,v2/conversion_test.go}.

use serde_json::json;

use super::*;

fn of(schema: &Value, dialect: Dialect) -> Value {
    let crd = json!({"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema}}]}});
    definition(&crd, "v1", dialect)
}

fn inner(schema: &Value, dialect: Dialect) -> Value {
    of(&json!({"type": "object", "properties": {"x": schema}}), dialect)["properties"]["x"].take()
}

#[test]
fn definitions_as_readers_understand_them() {
    let either = json!([{"type": "integer"}, {"type": "string"}]);
    let string = json!({"type": "string", "description": "d", "minLength": 1, "pattern": "^a"});
    let preserving = json!({"type": "object", PRESERVE: true, "properties": {"a": {"type": "string"}}});
    for (schema, v2, v3) in [
        (string.clone(), string.clone(), string),
        (
            json!({"type": "string", "nullable": true, "default": "a", "uniqueItems": false}),
            json!({}),
            json!({"type": "string", "nullable": true, "default": "a"}),
        ),
        (preserving.clone(), json!({PRESERVE: true}), preserving),
        (json!({"type": "array"}), json!({}), json!({"type": "array"})),
        (
            json!({"type": "array", "items": {"type": "object", "nullable": true, "properties": {"a": {}}}}),
            json!({"type": "array", "items": {}}),
            json!({"type": "array", "items": {"type": "object", "nullable": true, "properties": {"a": {}}}}),
        ),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!({"x-kubernetes-int-or-string": true}),
            json!({"x-kubernetes-int-or-string": true, "anyOf": either}),
        ),
        (
            json!({"x-kubernetes-int-or-string": true, "anyOf": [{"minimum": 1}], "allOf": [{"maximum": 2}]}),
            json!({"x-kubernetes-int-or-string": true}),
            json!({"x-kubernetes-int-or-string": true, "anyOf": [{"minimum": 1}],
                "allOf": [{"anyOf": either}, {"maximum": 2}]}),
        ),
        (
            json!({"type": "object", "required": ["a", "b"], "not": {"required": ["c"]},
                "properties": {"a": {"type": "string", "nullable": true}, "b": {"type": "string"}}}),
            json!({"type": "object", "required": ["b"], "properties": {"a": {}, "b": {"type": "string"}}}),
            json!({"type": "object", "required": ["a", "b"], "not": {"required": ["c"]},
                "properties": {"a": {"type": "string", "nullable": true}, "b": {"type": "string"}}}),
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "string", "nullable": true}, "required": ["a"]}),
            json!({"type": "object", "additionalProperties": {}}),
            json!({"type": "object", "additionalProperties": {"type": "string", "nullable": true}, "required": ["a"]}),
        ),
    ] {
        assert_eq!(inner(&schema, Dialect::V2), v2, "{schema}");
        assert_eq!(inner(&schema, Dialect::V3), v3, "{schema}");
    }
}

#[test]
fn the_root_and_embedded_resources() {
    let open = json!({"type": "object", PRESERVE: true, "properties": {"a": {"type": "string"}}});
    assert_eq!(of(&open, Dialect::V2), json!({"type": "object"}));
    assert_eq!(of(&open, Dialect::V3), open);
    assert_eq!(of(&Value::Null, Dialect::V3), json!({"type": "object"}));
    assert_eq!(of(&json!({"type": "object"}), Dialect::V2), json!({"type": "object", "properties": {}}));
    let pod = json!({"type": "object", "x-kubernetes-embedded-resource": true, "required": ["kind"]});
    let said = inner(&pod, Dialect::V2);
    assert_eq!(said["required"], json!(["kind", "apiVersion"]));
    assert_eq!(said["properties"]["metadata"]["$ref"], OBJECT_META);
    let mut keeping = pod;
    keeping[PRESERVE] = true.into();
    assert!(inner(&keeping, Dialect::V2)["properties"].is_null());
    assert!(inner(&keeping, Dialect::V3)["properties"]["metadata"].is_object());
    let crd = json!({"spec": {"versions": [{"name": "v1", "selectableFields": [{"jsonPath": ".spec.a"}]}]}});
    let fields = definition(&crd, "v1", Dialect::V3)["x-kubernetes-selectable-fields"].take();
    assert_eq!(fields, json!([{"fieldPath": "spec.a"}]));
    assert_eq!(definition(&crd, "v2", Dialect::V3), json!({"type": "object"}));
}

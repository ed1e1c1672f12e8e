//! What upstream does in corners that its own tests do not look into.

use scheme::{FieldErrors, Path};
use serde_json::{Value, json};
use structural::{Structural, validate_schema};

use crate::check;

fn field(schema: Value) -> Value {
    json!({"type": "object", "properties": {"f": schema}})
}

/// `pkg/apiserver/schema/validation.go` compares Go's values, in which an empty list is not the same as none.
#[test]
fn what_is_empty_is_something() {
    let either = |extra: Value| {
        let mut integer = json!({"type": "integer"});
        integer.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        field(json!({"x-kubernetes-int-or-string": true, "anyOf": [integer, {"type": "string"}]}))
    };
    for same in [json!({}), json!({"allOf": []}), json!({"enum": []}), json!({"additionalProperties": false})] {
        assert_eq!(check(&either(same.clone())), Vec::<String>::new(), "{same}");
    }
    for other in [json!({"required": []}), json!({"properties": {}}), json!({"externalDocs": {}})] {
        assert_eq!(check(&either(other.clone())).len(), 2, "{other}");
    }
    let metadata = |extra: Value| {
        let mut metadata = json!({"type": "object"});
        metadata.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        json!({"type": "object", "properties": {"metadata": metadata}})
    };
    for same in [json!({}), json!({"properties": {}}), json!({"nullable": false})] {
        assert_eq!(check(&metadata(same.clone())), Vec::<String>::new(), "{same}");
    }
    for other in [json!({"additionalProperties": false}), json!({"required": []}), json!({"externalDocs": {}})] {
        assert_eq!(check(&metadata(other.clone())).len(), 1, "{other}");
    }
}

/// `k8s.io/kube-openapi/pkg/validation/validate/validator.go`: each constraint is followed by what it has against a
/// value.
#[test]
fn numbers_are_told_of_in_order() {
    let schema = json!({"type": "object", "properties": {"f": {
        "type": "integer", "format": "int32", "maximum": -4e9, "minimum": 4e9, "multipleOf": 5e9,
    }}});
    let mut errors = FieldErrors::new();
    Structural::parse(&schema).unwrap().validate(&json!({"f": 3}), &mut errors);
    let texts: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "<nil>: Invalid value: \"\": MultipleOf value must be of type integer with format int32 in f",
            "f: Invalid value: 3: f in body should be a multiple of 5e+09",
            "<nil>: Invalid value: \"\": Minimum boundary value must be of type integer with format int32 in f",
            "f: Invalid value: 3: f in body should be greater than or equal to 4e+09",
            "<nil>: Invalid value: \"\": Maximum boundary value must be of type integer with format int32 in f",
            "f: Invalid value: 3: f in body should be less than or equal to -4e+09",
        ]
    );
}

/// `pkg/apis/apiextensions/validation/validation.go`: what the parts of a schema say, in the order of its walk.
#[test]
fn schemas_are_told_of_in_order() {
    let wrong = json!({"id": "x"});
    let schema = json!({"type": "object", "definitions": {"a": wrong}, "dependencies": {"a": wrong}, "items": [wrong]});
    let mut errors = FieldErrors::new();
    validate_schema(&schema, &Path::new("s"), &mut errors);
    let inner: Vec<&str> = errors.0.iter().map(|e| &*e.path).filter(|path| path.ends_with(".id")).collect();
    assert_eq!(inner, ["s.definitions[a].id", "s.items[0].id", "s.dependencies[a].id"]);
}

/// The rows about `fieldPath` of `TestValidateCustomResourceDefinitionValidation`.
#[test]
fn rules_name_fields_that_there_are() {
    let rule = |path: &str| json!({"rule": "true", "fieldPath": path});
    let schema = |path: &str| {
        json!({"type": "object", "x-kubernetes-validations": [rule(path)], "properties": {
            "a": {"type": "object", "properties": {"b": {"type": "string"}}},
            "list": {"type": "array", "items": {"type": "object"}},
            "foo": {"type": "object", "additionalProperties": {"type": "object", "properties": {}}},
        }})
    };
    for path in [".a", ".a.b", "['a']['b']", ".list", ".foo.x", ".foo['x.y']"] {
        assert_eq!(check(&schema(path)), Vec::<String>::new(), "{path}");
    }
    for path in [".list[0].b", ".list[0.b", ".list0].b", ".a.c", ".a.b.d", "a", "."] {
        let told =
            format!("schema.x-kubernetes-validations[0].fieldPath: Invalid value: {path:?}: must be a valid path");
        assert_eq!(check(&schema(path)), [told], "{path}");
    }
    // Nobody can say what is in a schema that cannot be read.
    let mut unreadable = schema(".x");
    unreadable["properties"]["list"]["$schema"] = json!("x");
    assert_eq!(check(&unreadable), ["schema: Invalid value: \"\": OpenAPIV3Schema 'schema' is not supported"]);
}

/// Upstream prunes a default without looking into the metadata of what is embedded in it, and drops what is unknown
/// there.
#[test]
fn defaults_may_have_unknown_metadata() {
    let embedded = json!({"type": "object", "x-kubernetes-embedded-resource": true,
        "x-kubernetes-preserve-unknown-fields": true});
    let of = |default: Value| field(json!({"type": "object", "default": default, "properties": {"e": embedded}}));
    let resource = json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": "n", "unknown": 1}});
    assert_eq!(check(&of(json!({ "e": resource }))), Vec::<String>::new());
    let told = check(&of(json!({"e": resource, "unknown": 1})));
    assert_eq!(told.len(), 1);
    assert!(told[0].ends_with(": must not have unknown fields"), "{told:?}");
}

/// A definition is told once what its root may not be, and nothing of its form where something else is wrong.
#[test]
fn definitions_are_told_once() {
    let check: std::sync::Arc<scheme::crd::SchemaCheck> =
        std::sync::Arc::new(|of, path, errors| validate_schema(of.schema, path, errors));
    let scheme = scheme::builtin_with(&check);
    let kind = scheme.by_gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition").unwrap();
    let told = |extra: Value| {
        let mut schema = json!({"type": "object"});
        schema.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let mut crd = json!({"metadata": {"name": "as.b.c"}, "spec": {
            "group": "b.c", "scope": "Cluster", "names": {"plural": "as", "kind": "A"},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": schema}}],
        }});
        kind.default(&mut crd);
        let errors = kind.validate_create(&crd);
        errors.0.iter().map(|error| format!("{} {}", error.path, error.detail)).collect::<Vec<_>>()
    };
    let (place, root) = ("spec.validation.openAPIV3Schema", "fields are allowed at the root of the schema");
    let nullable = told(json!({"nullable": true}));
    assert_eq!(nullable.len(), 2, "{nullable:?}");
    assert!(nullable[0].starts_with(place) && nullable[0].contains(root), "{nullable:?}");
    assert_eq!(nullable[1], format!("{place}.nullable nullable cannot be true at the root"));
    let schema = told(json!({"$schema": "x"}));
    assert_eq!(schema.len(), 1, "{schema:?}");
    assert!(schema[0].contains(root), "{schema:?}");
}

/// `kubeOpenAPIResultToFieldErrors` prints what is no text as Go's JSON.
#[test]
fn choices_are_printed_as_go_does() {
    let schema = json!({"type": "object", "properties": {"f": {"enum": [1.0, 2.5e21, {"a<": 3.0}, [null, 1], "x"]}}});
    let mut errors = FieldErrors::new();
    Structural::parse(&schema).unwrap().validate(&json!({"f": "y"}), &mut errors);
    let supported = r#"supported values: "1", "2.5e+21", "{\"a\\u003c\":3}", "[null,1]", "x""#;
    assert_eq!(errors.0[0].detail, supported);
}

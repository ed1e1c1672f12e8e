//! The type behind a definition that a kind brought along: OpenAPI 3, as a structural schema writes it. Types only;
//! what else a definition demands is for whoever validates by it.

use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::{Absent, Field, Keys, ListType, ObjectType, Patch, Type};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The type of whole objects, which have metadata whatever their definition says.
pub(super) fn object(name: &str, definition: &Value) -> Arc<ObjectType> {
    whole(name, fields(name, definition), open(definition))
}

/// Objects of which nothing is known but that they are some.
pub(super) fn envelope() -> Arc<ObjectType> {
    whole("object", Vec::new(), true)
}

fn whole(name: &str, mut fields: Vec<Field>, open: bool) -> Arc<ObjectType> {
    fields.retain(|field| !matches!(&*field.name, "apiVersion" | "kind" | "metadata"));
    fields.push(field("apiVersion", Type::String, ListType::Default));
    fields.push(field("kind", Type::String, ListType::Default));
    fields.push(field("metadata", Type::Object(super::build(OBJECT_META)), ListType::Default));
    sealed(name, fields, false, open)
}

fn sealed(name: &str, mut fields: Vec<Field>, atomic: bool, open: bool) -> Arc<ObjectType> {
    fields.sort_by(|a, b| a.name.cmp(&b.name));
    Arc::new(ObjectType { name: name.into(), atomic, open, fields: OnceLock::from(fields.into_boxed_slice()) })
}

fn field(name: &str, ty: Type, list: ListType) -> Field {
    Field {
        name: name.into(),
        ty,
        list,
        patch: Patch::default(),
        required: false,
        // A value that somebody wrote stays written: only Go's structs drop theirs.
        drops_zero: false,
        absent: Absent::Nothing,
        default: None,
    }
}

fn fields(name: &str, definition: &Value) -> Vec<Field> {
    let required = definition["required"].as_array().map_or(&[][..], Vec::as_slice);
    let properties = definition["properties"].as_object();
    let described = properties.into_iter().flatten();
    described
        .map(|(key, schema)| Field {
            required: required.iter().any(|field| field == key),
            default: schema.get("default").cloned().map(Box::new),
            ..field(key, type_of(&format!("{name}.{key}"), schema), list_type(schema))
        })
        .collect()
}

/// Whether there may be fields that the schema does not name.
fn open(schema: &Value) -> bool {
    schema["x-kubernetes-preserve-unknown-fields"] == true
}

fn list_type(schema: &Value) -> ListType {
    let is = |key: &str, value: &str| schema[key] == value;
    if is("x-kubernetes-list-type", "map") {
        let keys = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
        ListType::Map(Keys::Own(keys.filter_map(Value::as_str).map(Box::from).collect()))
    } else if is("x-kubernetes-list-type", "set") {
        ListType::Set
    } else if is("x-kubernetes-map-type", "atomic") {
        ListType::AtomicMap
    } else {
        ListType::Default
    }
}

/// The type of a schema; anything goes where it says nothing. `name` is that of the type, should it be an object's.
fn type_of(name: &str, schema: &Value) -> Type {
    let text = |key: &str| schema[key].as_str().unwrap_or("");
    let reference = schema["$ref"].as_str().or_else(|| schema["allOf"][0]["$ref"].as_str());
    if let Some(builtin) = reference.and_then(|target| target.strip_prefix("#/components/schemas/")) {
        return super::named(builtin);
    }
    if schema["x-kubernetes-int-or-string"] == true {
        return Type::IntOrString;
    }
    let atomic = schema["x-kubernetes-map-type"] == "atomic";
    match (text("type"), text("format")) {
        _ if schema["x-kubernetes-embedded-resource"] == true => {
            Type::Object(whole(name, fields(name, schema), open(schema)))
        }
        ("string", _) => Type::String,
        ("integer", "int32") => Type::Int32,
        ("integer", _) => Type::Int64,
        ("number", _) => Type::Float,
        ("boolean", _) => Type::Bool,
        ("array", _) => Type::List(Box::new(type_of(name, &schema["items"]))),
        ("object", _) if schema["properties"].is_object() => {
            Type::Object(sealed(name, fields(name, schema), atomic, open(schema)))
        }
        ("object", _) if schema["additionalProperties"].is_object() => {
            Type::Map(Box::new(type_of(name, &schema["additionalProperties"])))
        }
        ("object", _) if !open(schema) && schema["additionalProperties"] != true => Type::Map(Box::new(Type::Any)),
        _ => Type::Any,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn a_definition_becomes_a_type() {
        let widget = object(
            "com.example.v1.Widget",
            &json!({"type": "object", "required": ["spec"], "properties": {
                "kind": {"type": "integer"},
                "spec": {"type": "object", "required": ["size"], "properties": {
                    "size": {"type": "integer", "format": "int32"},
                    "count": {"type": "integer"},
                    "ratio": {"type": "number"},
                    "on": {"type": "boolean"},
                    "port": {"x-kubernetes-int-or-string": true},
                    "notes": {"type": "array", "items": {"type": "string"}},
                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                    "raw": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    "template": {"$ref": "#/components/schemas/io.k8s.api.core.v1.PodTemplateSpec"},
                    "parts": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
                    "any": {},
                }},
            }}),
        );
        let names: Vec<&str> = widget.fields().iter().map(|f| &*f.name).collect();
        assert_eq!(names, ["apiVersion", "kind", "metadata", "spec"]);
        assert_eq!(widget.field("kind").unwrap().ty, Type::String);
        assert_eq!(widget.field("metadata").unwrap().ty.object().unwrap().short_name(), "ObjectMeta");
        let spec = widget.field("spec").unwrap();
        assert!(spec.required);
        let spec = spec.ty.object().unwrap();
        let words: Vec<String> = spec.fields().iter().map(|f| format!("{} {}", f.name, f.ty.go_name())).collect();
        assert_eq!(
            words,
            [
                "any interface {}",
                "count int64",
                "labels map[string]string",
                "notes []string",
                "on bool",
                "parts []spec.parts",
                "port intstr.IntOrString",
                "ratio float64",
                "raw interface {}",
                "size int32",
                "template v1.PodTemplateSpec",
            ]
        );
        assert!(spec.field("template").unwrap().ty.object().unwrap().field("spec").is_some());
        assert_eq!(spec.field("parts").unwrap().ty.object().unwrap().fields().len(), 1);
        assert!(spec.field("size").unwrap().required && !spec.field("count").unwrap().required);
        assert!(spec.fields().iter().all(|f| !f.drops_zero));
        assert_eq!(object("x", &Value::Null).fields().len(), 3);
    }

    /// What server-side apply has to know (`k8s.io/kube-openapi/pkg/schemaconv`).
    #[test]
    fn a_definition_says_how_it_merges() {
        let widget = object(
            "Widget",
            &json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"spec": {
                "type": "object",
                "properties": {
                    "ports": {"type": "array", "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["port", "protocol"],
                        "items": {"type": "object", "properties": {"protocol": {"type": "string", "default": "TCP"}}}},
                    "names": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                    "order": {"type": "array", "items": {"type": "string"}},
                    "selector": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
                    "part": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"a": {"type": "string"}}},
                    "pod": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"x": {"type": "integer"}}},
                    "raw": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                },
            }}}),
        );
        assert!(widget.open());
        let spec = widget.field("spec").unwrap().ty.object().unwrap();
        assert!(!spec.open());
        let list = |name: &str| spec.field(name).unwrap().list.clone();
        let ListType::Map(keys) = list("ports") else { panic!() };
        assert_eq!(keys.iter().collect::<Vec<_>>(), ["port", "protocol"]);
        let port = spec.field("ports").unwrap().ty.object().unwrap();
        assert_eq!(port.field("protocol").unwrap().default, Some(Box::new(json!("TCP"))));
        assert_eq!(
            (list("names"), list("order"), list("selector")),
            (ListType::Set, ListType::Default, ListType::AtomicMap)
        );
        assert!(spec.field("part").unwrap().ty.object().unwrap().atomic());
        let pod = spec.field("pod").unwrap().ty.object().unwrap();
        assert!(pod.field("metadata").is_some() && pod.field("x").is_some());
        assert_eq!(spec.field("raw").unwrap().ty, Type::Any);
    }
}

//! The type behind a definition that a kind brought along: OpenAPI 3, as a structural schema writes it. Types only;
//! what else a definition demands is for whoever validates by it.

use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::{Absent, Field, ListType, ObjectType, Patch, Type};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The type of whole objects, which have metadata whatever their definition says.
pub(super) fn object(name: &str, definition: &Value) -> Arc<ObjectType> {
    let mut fields = fields(name, definition);
    fields.retain(|field| !matches!(&*field.name, "apiVersion" | "kind" | "metadata"));
    fields.push(field("apiVersion", Type::String, false));
    fields.push(field("kind", Type::String, false));
    fields.push(field("metadata", Type::Object(super::build(OBJECT_META)), false));
    sealed(name, fields)
}

fn sealed(name: &str, mut fields: Vec<Field>) -> Arc<ObjectType> {
    fields.sort_by(|a, b| a.name.cmp(&b.name));
    Arc::new(ObjectType { name: name.into(), atomic: false, fields: OnceLock::from(fields.into_boxed_slice()) })
}

fn field(name: &str, ty: Type, required: bool) -> Field {
    Field {
        name: name.into(),
        ty,
        list: ListType::Default,
        patch: Patch::default(),
        required,
        // A value that somebody wrote stays written: only Go's structs drop theirs.
        drops_zero: false,
        absent: Absent::Nothing,
    }
}

fn fields(name: &str, definition: &Value) -> Vec<Field> {
    let required = definition["required"].as_array().map_or(&[][..], Vec::as_slice);
    let properties = definition["properties"].as_object();
    let described = properties.into_iter().flatten();
    described
        .map(|(key, schema)| {
            field(key, type_of(&format!("{name}.{key}"), schema), required.iter().any(|field| field == key))
        })
        .collect()
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
    if schema["x-kubernetes-embedded-resource"] == true || schema["x-kubernetes-preserve-unknown-fields"] == true {
        return Type::Any;
    }
    match (text("type"), text("format")) {
        ("string", _) => Type::String,
        ("integer", "int32") => Type::Int32,
        ("integer", _) => Type::Int64,
        ("number", _) => Type::Float,
        ("boolean", _) => Type::Bool,
        ("array", _) => Type::List(Box::new(type_of(name, &schema["items"]))),
        ("object", _) if schema["properties"].is_object() => Type::Object(sealed(name, fields(name, schema))),
        ("object", _) => Type::Map(Box::new(type_of(name, &schema["additionalProperties"]))),
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
}

//! The schema of a custom resource as the OpenAPI documents have it
//! (k8s.io/apiextensions-apiserver/pkg/controller/openapi/{builder/builder.go,v2/conversion.go} and
//! pkg/apiserver/schema/unfold.go). Pure.

use serde_json::{Map, Value, json};

use crate::access::{at, bool_at, list_at, str_at};
use crate::openapi::Dialect;

const OBJECT_META: &str = "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";

/// Keywords that schemas in the documents have beside those below.
const KEPT: [&str; 27] = [
    "type",
    "description",
    "title",
    "externalDocs",
    "example",
    "format",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "uniqueItems",
    "multipleOf",
    "enum",
    "maxProperties",
    "minProperties",
    "required",
    "nullable",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
];

/// The definition of the objects of a version. Its references are those of OpenAPI 3; metadata at the root is left to
/// whoever writes the document, and one that has no properties gets none.
#[must_use]
pub fn definition(crd: &Value, version: &str, dialect: Dialect) -> Value {
    let versions = list_at(crd, &["spec", "versions"]);
    let Some(version) = versions.iter().find(|known| str_at(known, &["name"]) == version) else { return open() };
    let schema = at(version, &["schema", "openAPIV3Schema"]);
    let preserves = bool_at(schema, &[PRESERVE]) || bool_at(crd, &["spec", "preserveUnknownFields"]);
    let mut definition = if schema.is_null() || (dialect == Dialect::V2 && preserves) {
        open()
    } else {
        let mut definition = published(schema, dialect);
        if let Some(map) = definition.as_object_mut() {
            map.entry("properties").or_insert_with(|| json!({}));
        }
        definition
    };
    let fields = list_at(version, &["selectableFields"]).iter().map(|field| str_at(field, &["jsonPath"]));
    let fields: Vec<Value> = fields.map(|path| json!({"fieldPath": path.strip_prefix('.').unwrap_or(path)})).collect();
    if !fields.is_empty() {
        definition["x-kubernetes-selectable-fields"] = fields.into();
    }
    definition
}

/// Says nothing of fields: readers would refuse all that are not named beside those that are.
fn open() -> Value {
    json!({"type": "object"})
}

/// What says nothing, for Go's encoder.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Number(_) | Value::Object(_) => false,
    }
}

fn published(schema: &Value, dialect: Dialect) -> Value {
    let Some(source) = schema.as_object() else { return schema.clone() };
    let mut out = Map::new();
    for key in KEPT {
        if let Some(value) = source.get(key).filter(|value| !is_zero(value)) {
            out.insert(key.to_owned(), value.clone());
        }
    }
    if dialect == Dialect::V3 {
        for key in ["default", "x-kubernetes-validations"] {
            if let Some(value) = source.get(key).filter(|value| !value.is_null()) {
                out.insert(key.to_owned(), value.clone());
            }
        }
        for key in ["allOf", "anyOf", "oneOf"] {
            let list: Vec<Value> = list_at(schema, &[key]).iter().map(|inner| published(inner, dialect)).collect();
            if !list.is_empty() {
                out.insert(key.to_owned(), list.into());
            }
        }
        if let Some(not) = source.get("not").filter(|not| not.is_object()) {
            out.insert("not".to_owned(), published(not, dialect));
        }
        unfold(schema, &mut out);
    } else if let Some(rules) = source.get("x-kubernetes-validations").filter(|rules| !is_zero(rules)) {
        out.insert("x-kubernetes-validations".to_owned(), rules.clone());
    }
    let preserves = bool_at(schema, &[PRESERVE]);
    if preserves {
        out.insert(PRESERVE.to_owned(), true.into());
    }
    let narrow = dialect == Dialect::V2 && (preserves || bool_at(schema, &["nullable"]));
    if !narrow {
        structure(source, &mut out, dialect);
    }
    if dialect == Dialect::V2 {
        weaken(schema, &mut out);
    }
    if bool_at(schema, &["x-kubernetes-embedded-resource"]) && !(preserves && dialect == Dialect::V2) {
        embed(&mut out);
    }
    out.into()
}

/// The schemas of fields, entries and items.
fn structure(source: &Map<String, Value>, out: &mut Map<String, Value>, dialect: Dialect) {
    if let Some(properties) = source.get("properties").and_then(Value::as_object) {
        let properties = properties.iter().map(|(name, inner)| (name.clone(), published(inner, dialect)));
        out.insert("properties".to_owned(), Value::Object(properties.collect()));
    }
    for key in ["items", "additionalProperties"] {
        match source.get(key) {
            Some(inner @ Value::Object(_)) => out.insert(key.to_owned(), published(inner, dialect)),
            Some(Value::Bool(allowed)) => out.insert(key.to_owned(), (*allowed).into()),
            _ => None,
        };
    }
}

/// Says in plain words that a value is an integer or a string, where the schema does not do so itself.
fn unfold(schema: &Value, out: &mut Map<String, Value>) {
    let either = json!([{"type": "integer"}, {"type": "string"}]);
    let said = schema["anyOf"] == either || schema["allOf"][0]["anyOf"] == either;
    if !bool_at(schema, &["x-kubernetes-int-or-string"]) || said {
        return;
    }
    if out.contains_key("anyOf") {
        let mut all = vec![json!({"anyOf": either})];
        all.extend(out.remove("allOf").and_then(|list| list.as_array().cloned()).unwrap_or_default());
        out.insert("allOf".to_owned(), all.into());
    } else {
        out.insert("anyOf".to_owned(), either);
    }
}

/// Takes out what kubectl does not understand in version 2.
fn weaken(schema: &Value, out: &mut Map<String, Value>) {
    let (preserves, nullable) = (bool_at(schema, &[PRESERVE]), bool_at(schema, &["nullable"]));
    let ty = str_at(schema, &["type"]);
    out.remove("nullable");
    if nullable || (ty == "array" && !out.contains_key("items")) || (preserves && ty == "object") {
        out.remove("type");
    }
    let Some(required) = out.get_mut("required").and_then(Value::as_array_mut) else { return };
    if bool_at(schema, &["additionalProperties", "nullable"]) {
        required.clear();
    } else if !preserves && !nullable {
        required.retain(|name| !bool_at(&schema["properties"][name.as_str().unwrap_or("")], &["nullable"]));
    }
    if required.is_empty() {
        out.remove("required");
    }
}

/// What the schema of a whole resource says, wherever it stands.
fn embed(out: &mut Map<String, Value>) {
    let more = "More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md";
    let fields = json!({
        "apiVersion": {"type": "string", "description": format!(
            "apiVersion defines the versioned schema of this representation of an object. {more}#resources")},
        "kind": {"type": "string", "description": format!(
            "kind is a string value representing the type of this object. In CamelCase. {more}#types-kinds")},
        "metadata": {"$ref": OBJECT_META, "description": format!("Standard object's metadata. {more}#metadata")},
    });
    let properties = out.entry("properties").or_insert_with(|| json!({}));
    if let (Some(properties), Value::Object(fields)) = (properties.as_object_mut(), fields) {
        properties.extend(fields);
    }
    let required = out.entry("required").or_insert_with(|| json!([]));
    let Some(required) = required.as_array_mut() else { return };
    for name in ["kind", "apiVersion"] {
        if !required.iter().any(|known| known == name) {
            required.push(name.into());
        }
    }
}

#[cfg(test)]
mod tests;

//! Schemas: the definitions of k8s-openapi in the dialect of the document, with list
//! kinds and Kubernetes' extensions added.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::{Dialect, definitions as source};
use crate::kind::Kind;
use crate::schema::{self, ListType};

/// Kind → name of its definition, by (group, version, kind).
pub(super) type Names<'k> = HashMap<(&'k str, &'k str, &'k str), &'k str>;

/// Definitions of a document.
pub(super) struct Schemas<'k> {
    /// Of which kinds they are.
    pub names: Names<'k>,
    /// Name → definition.
    pub definitions: Map<String, Value>,
}

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values.";
const KIND: &str = "Kind is a string value representing the REST resource this object represents.";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// What every document defines besides its kinds.
pub(super) const ALWAYS: [&str; 4] = [
    LIST_META,
    "io.k8s.apimachinery.pkg.apis.meta.v1.Status",
    "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
    "io.k8s.api.autoscaling.v1.Scale",
];

/// Everything these kinds need.
pub(super) fn definitions<'k>(kinds: &[&'k Kind], dialect: Dialect) -> Schemas<'k> {
    let own: Map<String, Value> = kinds.iter().filter_map(|kind| own_definition(kind, dialect)).collect();
    let mut roots = Vec::new();
    own.values().for_each(|definition| source::references(definition, &mut roots));
    let builtin = kinds.iter().map(|k| k.definition()).chain(ALWAYS).chain(roots.iter().map(String::as_str));
    let mut definitions = source::needed(builtin);
    for (name, definition) in &mut definitions {
        convert(name, definition, dialect);
    }
    for (name, mut definition) in own {
        rewrite(&mut definition, dialect);
        // A group can be chosen so that its names are those of built-in definitions, which stay what they are.
        definitions.entry(name).or_insert(definition);
    }
    let mut names = HashMap::new();
    for kind in kinds {
        let name = kind.definition();
        let gvk = json!({ "group": kind.group, "version": kind.version, "kind": kind.kind });
        if let Some(definition) = definitions.get_mut(name).and_then(Value::as_object_mut) {
            let list = definition.entry("x-kubernetes-group-version-kind").or_insert_with(|| json!([]));
            if let Value::Array(list) = list {
                list.push(gvk);
            }
        }
        names.insert((&*kind.group, &*kind.version, &*kind.kind), name);
        if kind.verbs.contains(&"list") {
            definitions.entry(list_name(kind)).or_insert_with(|| list_definition(kind, name, dialect));
        }
    }
    Schemas { names, definitions }
}

/// The definition that a kind brought along, with what all objects have. One that says nothing of its fields goes
/// without: readers take those that are named for all that there may be.
fn own_definition(kind: &Kind, dialect: Dialect) -> Option<(String, Value)> {
    let mut definition = kind.own_definition()?.value(dialect);
    let map = definition.as_object_mut()?;
    if !kind.custom || map.contains_key("properties") {
        let properties = map.entry("properties").or_insert_with(|| json!({})).as_object_mut()?;
        properties.insert("apiVersion".to_owned(), json!({ "type": "string", "description": API_VERSION }));
        properties.insert("kind".to_owned(), json!({ "type": "string", "description": KIND }));
        let metadata = format!("{}{OBJECT_META}", source::PREFIX);
        properties
            .insert("metadata".to_owned(), json!({ "$ref": metadata, "description": "Standard object's metadata." }));
    }
    Some((kind.definition().to_owned(), definition))
}

/// The name of the definition of lists.
pub(super) fn list_name(kind: &Kind) -> String {
    let name = kind.definition();
    match (&kind.list_kind, name.rsplit_once('.')) {
        (Some(list), Some((place, _))) => format!("{place}.{list}"),
        _ => format!("{name}List"),
    }
}

fn list_definition(kind: &Kind, item: &str, dialect: Dialect) -> Value {
    let reference =
        |name: &str, description: &str| reference(&format!("{}{name}", dialect.prefix()), description, dialect);
    json!({
        "description": format!("{} is a list of {}.", kind.list_kind(), kind.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": { "type": "string", "description": API_VERSION },
            "items": {
                "type": "array",
                "description": format!("Items is the list of {}.", kind.kind),
                "items": { "$ref": format!("{}{item}", dialect.prefix()) },
            },
            "kind": { "type": "string", "description": KIND },
            "metadata": reference(LIST_META, "Standard list metadata."),
        },
        "x-kubernetes-group-version-kind": [
            { "group": kind.group, "version": kind.version, "kind": kind.list_kind() },
        ],
    })
}

/// A described reference: OpenAPI 3 wraps it, because siblings of `$ref` do not count there.
fn reference(target: &str, description: &str, dialect: Dialect) -> Value {
    match dialect {
        Dialect::V2 => json!({ "$ref": target, "description": description }),
        Dialect::V3 => json!({ "allOf": [{ "$ref": target }], "default": {}, "description": description }),
    }
}

fn convert(name: &str, definition: &mut Value, dialect: Dialect) {
    let short = name.rsplit('.').next().unwrap_or("");
    let scalar = match (short, dialect) {
        ("IntOrString", Dialect::V2) => Some(json!({ "type": "string", "format": "int-or-string" })),
        ("IntOrString", Dialect::V3) => {
            Some(json!({ "format": "int-or-string", "oneOf": [{ "type": "integer" }, { "type": "string" }] }))
        }
        ("Quantity", Dialect::V2) => Some(json!({ "type": "string" })),
        ("Quantity", Dialect::V3) => Some(json!({ "oneOf": [{ "type": "string" }, { "type": "number" }] })),
        _ => None,
    };
    if let Some(mut scalar) = scalar {
        scalar["description"] = definition["description"].take();
        *definition = scalar;
        return;
    }
    if let Some(required) = definition.get_mut("required").and_then(Value::as_array_mut) {
        // Upstream does not require what the server itself would fill in.
        required.retain(|field| field != "metadata");
        if required.is_empty()
            && let Some(map) = definition.as_object_mut()
        {
            map.remove("required");
        }
    }
    let Some(properties) = definition.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for (field, property) in properties {
        rewrite(property, dialect);
        extend(name, field, property);
    }
}

/// Brings references of a property into the dialect, recursively through items and fields.
fn rewrite(value: &mut Value, dialect: Dialect) {
    let Some(map) = value.as_object_mut() else { return };
    if let Some(target) = map.get("$ref").and_then(Value::as_str) {
        let target = format!("{}{}", dialect.prefix(), source::name(target));
        let description = map.get("description").and_then(Value::as_str).map(str::to_owned);
        *value = match description {
            Some(description) => reference(&target, &description, dialect),
            None => json!({ "$ref": target }),
        };
        return;
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(key) {
            rewrite(inner, dialect);
        }
    }
    let fields = map.get_mut("properties").and_then(Value::as_object_mut);
    fields.into_iter().flatten().for_each(|(_, inner)| rewrite(inner, dialect));
}

/// Adds list and patch extensions.
fn extend(ty: &str, field: &str, property: &mut Value) {
    let (list, patch) = schema::facts_of(ty, field);
    let is_list = property.get("type").and_then(Value::as_str) == Some("array");
    let Some(map) = property.as_object_mut() else { return };
    let mut put = |key: &str, value: Value| {
        map.insert(format!("x-kubernetes-{key}"), value);
    };
    match list {
        ListType::Map(keys) => {
            put("list-type", "map".into());
            put("list-map-keys", keys.iter().collect());
        }
        ListType::Set => put("list-type", "set".into()),
        ListType::AtomicMap => put("map-type", "atomic".into()),
        ListType::Default if is_list && !patch.merge => put("list-type", "atomic".into()),
        ListType::Default => {}
    }
    let strategy = match (patch.merge, patch.retain_keys) {
        (true, true) => "merge,retainKeys",
        (true, false) => "merge",
        (false, true) => "retainKeys",
        (false, false) => return,
    };
    put("patch-strategy", strategy.into());
    if !patch.merge_key.is_empty() {
        put("patch-merge-key", patch.merge_key.into());
    }
}

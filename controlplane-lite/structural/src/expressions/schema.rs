//! A schema as expressions see it.

use cel::schema::{ListType, Schema, SchemaType};
use serde_json::Value;

use crate::node::{self, Kind, Node};

/// How expressions see values of a schema.
pub(super) fn of(node: &Node) -> Schema {
    let properties: Vec<(String, Schema)> =
        node.properties().map(|(name, inner)| (name.to_owned(), of(inner))).collect();
    let values = node.values.as_deref();
    let (list_type, list_map_keys) = match &node.list_type {
        node::ListType::Atomic => (ListType::Atomic, Vec::new()),
        node::ListType::Set => (ListType::Set, Vec::new()),
        node::ListType::Map(keys) => (ListType::Map, keys.iter().map(|key| key.to_string()).collect()),
    };
    Schema {
        of: match node.kind {
            Kind::Object => SchemaType::Object,
            Kind::Array => SchemaType::Array,
            Kind::Number => SchemaType::Number,
            Kind::Integer => SchemaType::Integer,
            Kind::Boolean => SchemaType::Boolean,
            Kind::String => SchemaType::String,
            Kind::Any | Kind::Unknown | Kind::IntOrString => SchemaType::None,
        },
        format: values.and_then(|values| values.format.as_ref()).map(|f| f.name().to_owned()).unwrap_or_default(),
        pattern: String::new(),
        items: node.items.as_deref().map(|inner| of(inner).into()),
        properties: (!properties.is_empty()).then(|| properties.into_iter().collect()),
        additional: node.additional_schema().map(|inner| of(inner).into()),
        required: values.iter().flat_map(|values| values.required.iter()).map(|name| name.to_string()).collect(),
        nullable: node.nullable,
        has_default: node.default.is_some(),
        int_or_string: node.kind == Kind::IntOrString,
        preserve_unknown: node.preserve_unknown,
        embedded: node.embedded,
        list_type,
        list_map_keys,
        max_length: values.and_then(|values| values.max_length),
        max_items: values.and_then(|values| values.max_items),
        max_properties: values.and_then(|values| values.max_properties),
        enumeration: values
            .iter()
            .flat_map(|values| values.choices.iter())
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
    }
}

//! Fills in defaults (`pkg/apiserver/schema/defaulting/{algorithm,prunenulls}.go` upstream).

use serde_json::Value;

use crate::node::Node;

/// Fills in what is missing, and what is null where the schema allows no null.
pub(crate) fn default(value: &mut Value, node: &Node) {
    match value {
        Value::Object(map) => {
            for (name, inner) in node.properties() {
                let Some(default) = &inner.default else { continue };
                if map.get(name).is_none_or(|value| value.is_null() && !inner.nullable) {
                    map.insert(name.to_owned(), (**default).clone());
                }
            }
            for (key, value) in map.iter_mut() {
                if let Some(inner) = node.property(key) {
                    default(value, inner);
                } else if let Some(inner) = node.additional_schema() {
                    replace_null(value, inner);
                    default(value, inner);
                }
            }
        }
        Value::Array(list) => {
            if let Some(inner) = &node.items {
                for value in list {
                    replace_null(value, inner);
                    default(value, inner);
                }
            }
        }
        _ => {}
    }
}

fn replace_null(value: &mut Value, node: &Node) {
    if value.is_null() && !node.nullable {
        *value = node.default.as_deref().cloned().unwrap_or(Value::Null);
    }
}

/// Removes fields that are null where the schema allows no null and has no default. Items stay.
pub(crate) fn prune_nulls(value: &mut Value, node: &Node) {
    match value {
        Value::Object(map) => map.retain(|key, value| {
            let Some(inner) = node.field(key) else { return true };
            if value.is_null() && !inner.nullable && inner.default.is_none() {
                return false;
            }
            prune_nulls(value, inner);
            true
        }),
        Value::Array(list) => {
            if let Some(inner) = &node.items {
                list.iter_mut().for_each(|value| prune_nulls(value, inner));
            }
        }
        _ => {}
    }
}

//! Fills in defaults (`pkg/apiserver/schema/defaulting/{algorithm,prunenulls}.go` upstream), up to a size: a list in a
//! default has items with defaults in turn, so that a schema of a few levels asks for more than any memory has. An
//! object that gets there is too large to be stored.

use serde_json::Value;

use crate::node::Node;

/// Bytes of the defaults that one object gets, as they lie in memory. In JSON that is some megabytes at least, and so
/// more than a store takes.
const ROOM: usize = 256 << 20;
/// Bytes of a value besides its texts and what is in it.
const OF_VALUE: usize = size_of::<Value>();
/// Bytes of a map that is not empty, which has room for some fields.
const OF_MAP: usize = 640;
/// Bytes of a field besides its value, with what maps leave free.
const OF_FIELD: usize = 100;

/// Fills in what is missing, and what is null where the schema allows no null.
pub(crate) fn default(value: &mut Value, node: &Node) {
    Filler { room: ROOM }.value(value, node);
}

struct Filler {
    room: usize,
}

impl Filler {
    fn value(&mut self, value: &mut Value, node: &Node) {
        match value {
            Value::Object(map) => {
                for (name, inner) in node.defaulted() {
                    if self.room == 0 {
                        break;
                    }
                    if map.get(name).is_none_or(|value| value.is_null() && !inner.nullable)
                        && let Some(default) = self.default_of(inner, if map.is_empty() { OF_MAP } else { OF_FIELD })
                    {
                        map.insert(name.to_owned(), default);
                    }
                }
                for (key, value) in map.iter_mut() {
                    if let Some(inner) = node.property(key) {
                        self.value(value, inner);
                    } else if let Some(inner) = node.additional_schema() {
                        self.replace_null(value, inner);
                        self.value(value, inner);
                    }
                }
            }
            Value::Array(list) => {
                if let Some(inner) = &node.items {
                    for value in list {
                        self.replace_null(value, inner);
                        self.value(value, inner);
                    }
                }
            }
            _ => {}
        }
    }

    fn replace_null(&mut self, value: &mut Value, node: &Node) {
        if value.is_null()
            && self.room > 0
            && !node.nullable
            && let Some(default) = self.default_of(node, 0)
        {
            *value = default;
        }
    }

    /// The default of a schema, as long as there is room for it and for what holds it.
    fn default_of(&mut self, node: &Node, holder: usize) -> Option<Value> {
        let default = node.default.as_deref()?;
        // When one finds no room, no other does: what is filled in is always the same.
        self.room = self.room.saturating_sub(size(default) + holder);
        (self.room > 0).then(|| default.clone())
    }
}

/// About the bytes that a value takes.
fn size(value: &Value) -> usize {
    OF_VALUE
        + match value {
            Value::String(text) => text.len(),
            Value::Array(list) => list.iter().map(size).sum(),
            Value::Object(map) if !map.is_empty() => {
                OF_MAP + map.iter().map(|(key, value)| OF_FIELD + key.len() + size(value)).sum::<usize>()
            }
            _ => 0,
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

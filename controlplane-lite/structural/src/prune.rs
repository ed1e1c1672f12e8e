//! Removes what the schema does not name (`pkg/apiserver/schema/pruning/algorithm.go` upstream).

use serde_json::Value;

use crate::MAX_DEPTH;
use crate::node::{Additional, Node};
use crate::objectmeta::is_field;

/// Paths of unknown fields that are told; all are removed.
const MAX_TOLD: usize = 10_000;
/// Bytes of them: the name of a map's entry is in each path below.
const MAX_BYTES: usize = 1 << 20;
/// Bytes of a path that is told though it is too long, since nothing else is.
const CUT: usize = 1024;

/// What the system reads of every resource.
pub(crate) fn is_meta(name: &str) -> bool {
    matches!(name, "apiVersion" | "kind" | "metadata")
}

/// Removes unknown fields and tells their paths, sorted.
pub(crate) fn prune(object: &mut Value, node: &Node, root: bool) -> Vec<String> {
    run(object, node, root, true)
}

/// Whether there are no unknown fields besides those in metadata.
pub(crate) fn knows(object: &Value, node: &Node, root: bool) -> bool {
    let mut pruned = object.clone();
    run(&mut pruned, node, root, false);
    pruned == *object
}

fn run(object: &mut Value, node: &Node, root: bool, metadata: bool) -> Vec<String> {
    let mut pruner = Pruner { metadata, path: String::new(), told: Vec::new(), room: MAX_BYTES, depth: 0 };
    pruner.value(object, Some(node), root);
    pruner.told.sort();
    pruner.told
}

struct Pruner {
    /// Whether metadata is looked into.
    metadata: bool,
    path: String,
    told: Vec<String>,
    room: usize,
    depth: usize,
}

impl Pruner {
    /// `resource` where metadata stays whatever the schema says.
    fn value(&mut self, value: &mut Value, node: Option<&Node>, resource: bool) {
        // Only lists inside lists lead deeper than the schema.
        if self.depth > 2 * MAX_DEPTH {
            return;
        }
        self.depth += 1;
        let preserve = node.is_some_and(|node| node.preserve_unknown);
        match value {
            Value::Object(map) => map.retain(|key, value| self.field(key, value, node, resource)),
            // A list that keeps what is unknown keeps what its items do not describe: they inherit it.
            Value::Array(list) if preserve => {
                let Some(items) = node.and_then(|node| node.items.as_deref()) else {
                    self.depth -= 1;
                    return;
                };
                for (index, value) in list.iter_mut().enumerate() {
                    self.kept_item(index, value, items);
                }
            }
            Value::Array(list) => {
                let inner = node.and_then(|node| node.items.as_deref());
                for (index, value) in list.iter_mut().enumerate() {
                    self.below(|path| path.push_str(&format!("[{index}]")), value, inner);
                }
            }
            _ => {}
        }
        self.depth -= 1;
    }

    /// Whether a field stays; what is in it is pruned.
    fn field(&mut self, key: &str, value: &mut Value, node: Option<&Node>, resource: bool) -> bool {
        let Some(node) = node else {
            self.tell(key);
            return false;
        };
        if (resource || node.embedded) && is_meta(key) {
            if !resource {
                self.metadata(key, value);
            }
            return true;
        }
        let inner = match (node.property(key), &node.additional) {
            (Some(inner), _) => Some(inner),
            (None, Additional::Absent) if node.preserve_unknown => return true,
            (None, Additional::Absent) => {
                if !is_meta(key) || !self.path.is_empty() {
                    self.tell(key);
                }
                return false;
            }
            (None, _) => node.additional_schema(),
        };
        self.below(|path| push_key(path, key), value, inner);
        true
    }

    /// An item of a list that keeps what is unknown: only the fields that the items' schema names are looked into.
    fn kept_item(&mut self, index: usize, value: &mut Value, node: &Node) {
        let length = self.path.len();
        self.path.push_str(&format!("[{index}]"));
        match value {
            Value::Object(map) => {
                for (key, value) in map.iter_mut() {
                    if node.embedded && is_meta(key) {
                        self.metadata(key, value);
                        continue;
                    }
                    let inner = match (node.property(key), &node.additional) {
                        (Some(inner), _) => Some(inner),
                        (None, Additional::Absent) => continue,
                        (None, additional) => {
                            if let Additional::Schema(inner) = additional {
                                Some(&**inner)
                            } else {
                                None
                            }
                        }
                    };
                    self.below(|path| push_key(path, key), value, inner);
                }
            }
            Value::Array(list) => {
                if let Some(items) = node.items.as_deref() {
                    for (index, value) in list.iter_mut().enumerate() {
                        self.kept_item(index, value, items);
                    }
                }
            }
            _ => {}
        }
        self.path.truncate(length);
    }

    /// The metadata of a resource inside another has the fields of every resource's. Upstream decodes it before it
    /// prunes (`pkg/apiserver/schema/objectmeta/algorithm.go`).
    fn metadata(&mut self, name: &str, value: &mut Value) {
        let Value::Object(map) = value else { return };
        if name != "metadata" || !self.metadata {
            return;
        }
        let length = self.path.len();
        push_key(&mut self.path, name);
        map.retain(|key, _| {
            let known = is_field(key);
            if !known {
                self.tell(key);
            }
            known
        });
        self.path.truncate(length);
    }

    fn below(&mut self, step: impl FnOnce(&mut String), value: &mut Value, node: Option<&Node>) {
        if !value.is_object() && !value.is_array() {
            return;
        }
        let length = self.path.len();
        step(&mut self.path);
        self.value(value, node, false);
        self.path.truncate(length);
    }

    fn tell(&mut self, key: &str) {
        if self.told.len() >= MAX_TOLD {
            return;
        }
        match self.room.checked_sub(self.path.len() + 1 + key.len()) {
            Some(room) => {
                self.room = room;
                let mut path = self.path.clone();
                push_key(&mut path, key);
                self.told.push(path);
            }
            // Something was unknown, and a client may want to hear of it.
            None if self.told.is_empty() => {
                let whole = self.path.chars().chain(key.chars());
                self.told.push(whole.take(CUT).chain(['…']).collect());
            }
            None => {}
        }
    }
}

fn push_key(path: &mut String, key: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key);
}

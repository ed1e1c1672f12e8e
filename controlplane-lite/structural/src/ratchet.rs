//! What a value replaces, and whether it stays as it was (`pkg/apiserver/validation/ratcheting.go` upstream, and
//! `CorrelatedObject` of `k8s.io/apiserver/pkg/cel/common`). Fields are found by their names, and items of lists that
//! are maps by their keys; other items replace nothing.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::node::{Kind, ListType, Node};

/// The value before, where there is one to compare with.
pub(crate) type Old<'a> = Option<&'a Value>;

/// The field before.
pub(crate) fn child<'a>(old: Old<'a>, name: &str) -> Old<'a> {
    old?.as_object()?.get(name)
}

/// The items before, by the keys of a list that is a map.
pub(crate) struct Items<'a> {
    keys: &'a [Box<str>],
    by_key: HashMap<Vec<&'a Value>, &'a Value>,
}

/// The items before of a list whose items can be found again.
pub(crate) fn items<'a>(node: &'a Node, old: Old<'a>) -> Option<Items<'a>> {
    let ListType::Map(keys) = &node.list_type else { return None };
    if node.kind != Kind::Array || keys.is_empty() {
        return None;
    }
    let mut by_key = HashMap::new();
    for item in old?.as_array()?.iter().filter(|item| item.is_object()) {
        if let Some(key) = key_of(item, keys) {
            // The first of equal keys, as upstream.
            by_key.entry(key).or_insert(item);
        }
    }
    Some(Items { keys, by_key })
}

impl<'a> Items<'a> {
    pub(crate) fn get(&self, item: &'a Value) -> Old<'a> {
        self.by_key.get(&key_of(item, self.keys)?).copied()
    }
}

/// The values of the keys; none if one is missing or no scalar.
fn key_of<'a>(item: &'a Value, keys: &[Box<str>]) -> Option<Vec<&'a Value>> {
    let item = item.as_object()?;
    let scalar = |value: &&Value| matches!(value, Value::Bool(_) | Value::Number(_) | Value::String(_));
    keys.iter().map(|key| item.get(&**key).filter(scalar)).collect()
}

/// Whether a value is as it was. Lists that are maps may be in another order; fields that no schema describes count as
/// changed. Each comparison takes a step.
pub(crate) fn equal(steps: &mut usize, node: &Node, new: &Value, old: &Value) -> bool {
    let Some(left) = steps.checked_sub(1) else { return false };
    *steps = left;
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => equal_maps(steps, node, new, old),
        (Value::Array(list), Value::Array(before)) => {
            if list.len() != before.len() {
                return false;
            }
            match (items(node, Some(old)), &node.items) {
                (Some(items), Some(inner)) => {
                    list.iter().all(|new| items.get(new).is_some_and(|old| equal(steps, inner, new, old)))
                }
                _ => {
                    *steps = steps.saturating_sub(list.len());
                    list == before
                }
            }
        }
        _ => new == old,
    }
}

fn equal_maps(steps: &mut usize, node: &Node, new: &Map<String, Value>, old: &Map<String, Value>) -> bool {
    new.len() == old.len()
        && new.iter().all(|(key, new)| match (node.field(key), old.get(key)) {
            (Some(inner), Some(old)) => equal(steps, inner, new, old),
            _ => false,
        })
}

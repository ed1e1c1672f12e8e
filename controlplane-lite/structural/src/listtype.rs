//! Lists that are sets or maps repeat nothing (`pkg/apiserver/schema/listtype/validation.go` upstream).

use std::collections::HashMap;

use scheme::{FieldErrors, Path};
use serde_json::{Map, Value};

use crate::node::{ListType, Node};

/// Checks the lists of an object.
pub(crate) fn validate(object: &Value, node: &Node, errors: &mut FieldErrors) {
    if let Value::Object(map) = object {
        fields(map, node, &Path::ROOT, errors);
    }
}

fn fields(map: &Map<String, Value>, node: &Node, path: &Path<'_>, errors: &mut FieldErrors) {
    for (key, value) in map {
        if let Some(inner) = node.property(key) {
            any(value, inner, &path.child(key), errors);
        }
        if let Some(inner) = node.additional_schema() {
            any(value, inner, &path.key(key), errors);
        }
    }
}

fn any(value: &Value, node: &Node, path: &Path<'_>, errors: &mut FieldErrors) {
    match value {
        Value::Object(map) => fields(map, node, path, errors),
        Value::Array(list) => {
            match &node.list_type {
                ListType::Atomic => {}
                ListType::Set => {
                    for at in repeated(list.iter()) {
                        errors.duplicate(&path.index(at), &list[at]);
                    }
                }
                ListType::Map(keys) => keyed(list, keys, path, errors),
            }
            if let Some(inner) = &node.items {
                for (index, value) in list.iter().enumerate() {
                    any(value, inner, &path.index(index), errors);
                }
            }
        }
        _ => {}
    }
}

/// Where a value comes for the second time; the third and later are not told.
fn repeated<T: Eq + std::hash::Hash>(list: impl Iterator<Item = T>) -> Vec<usize> {
    let mut times = HashMap::new();
    let second = |(index, value)| {
        let times = times.entry(value).or_insert(0_u32);
        *times = times.saturating_add(1);
        (*times == 2).then_some(index)
    };
    list.enumerate().filter_map(second).collect()
}

fn keyed(list: &[Value], keys: &[Box<str>], path: &Path<'_>, errors: &mut FieldErrors) {
    if let Some((index, item)) = list.iter().enumerate().find(|(_, item)| !item.is_object() && !item.is_null()) {
        return errors.invalid(&path.index(index), item, "must be an object for an array of list-type map");
    }
    // The fields of an item are looked at, not the keys: a definition may name as many as it likes.
    let is_key = |(field, _): &(&String, &Value)| keys.binary_search_by(|key| (**key).cmp(field)).is_ok();
    let fields = list.iter().map(|item| item.as_object().into_iter().flatten());
    let found: Vec<Vec<(&String, &Value)>> = fields.map(|fields| fields.filter(is_key).collect()).collect();
    for at in repeated(found.iter()) {
        let named = found[at].iter().map(|(key, value)| ((*key).clone(), (*value).clone()));
        errors.duplicate(&path.index(at), Value::Object(named.collect()));
    }
}

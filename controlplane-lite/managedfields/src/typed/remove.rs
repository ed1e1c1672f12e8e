//! A value without some of its fields (`typed/remove.go`).

use serde_json::{Map as JsonMap, Value};

use super::element_of;
use crate::path::PathElement;
use crate::schema::{Atom, By, Place};
use crate::set::Set;

/// The value without the fields and items of `fields`. A list or map of which nothing stays becomes null, and what is
/// replaced as a whole goes when anything in it does.
pub fn remove(value: &Value, fields: &Set, at: Place<'_>) -> Value {
    match (at.atom(Some(value)), value) {
        (Atom::Scalar(_), value) => value.clone(),
        (Atom::List(list), Value::Array(items)) if list.by != By::Atomic => {
            let mut kept = Vec::new();
            for item in items {
                let element = element_of(&list, item).ok();
                if element.as_ref().is_some_and(|element| fields.has_element(element)) {
                    continue;
                }
                let below = element.as_ref().and_then(|element| fields.below(element));
                kept.push(below.map_or_else(|| item.clone(), |below| remove(item, below, list.place())));
            }
            if kept.is_empty() { Value::Null } else { Value::Array(kept) }
        }
        (Atom::Map(map), Value::Object(object)) if !map.atomic => {
            let mut kept = JsonMap::new();
            for (name, value) in object {
                let element = PathElement::field(name);
                if fields.has_element(&element) {
                    continue;
                }
                let value = match (fields.below(&element), map.place(name)) {
                    (Some(below), Some(place)) => remove(value, below, place),
                    _ => value.clone(),
                };
                kept.insert(name.clone(), value);
            }
            if kept.is_empty() { Value::Null } else { Value::Object(kept) }
        }
        _ => Value::Null,
    }
}

//! The fields that a value has (`typed/tofieldset.go`).

use std::collections::BTreeMap;

use serde_json::Value;

use super::element_of;
use crate::path::PathElement;
use crate::schema::{Atom, By, List, Map, Place};
use crate::set::{Node, Set};

/// Every leaf of `value` and every item of its associative lists. An item that is there twice is one field.
pub fn field_set(value: &Value, at: Place<'_>) -> Set {
    fields_of(value, at).children
}

/// What a value says of the element it belongs to. Each level is made before it is put into the one above, so that no
/// path is walked twice.
fn fields_of(value: &Value, at: Place<'_>) -> Node {
    match at.atom(Some(value)) {
        Atom::Scalar(_) => Node::leaf(),
        Atom::List(list) => of_list(value, &list),
        Atom::Map(map) => of_map(value, &map),
    }
}

fn of_list(value: &Value, list: &List<'_>) -> Node {
    if list.by == By::Atomic {
        return Node::leaf();
    }
    let mut found: BTreeMap<PathElement, (usize, &Value)> = BTreeMap::new();
    for item in value.as_array().into_iter().flatten() {
        if let Ok(element) = element_of(list, item) {
            found.entry(element).or_insert((0, item)).0 += 1;
        }
    }
    let mut children = Set::default();
    for (element, (count, item)) in found {
        let below = if count == 1 { fields_of(item, list.place()).children } else { Set::default() };
        children.put(element, Node { member: true, children: below });
    }
    Node { member: false, children }
}

fn of_map(value: &Value, map: &Map<'_>) -> Node {
    if map.atomic {
        return Node::leaf();
    }
    let mut children = Set::default();
    for (name, value) in value.as_object().into_iter().flatten() {
        let Some(place) = map.place(name) else { continue };
        let mut node = fields_of(value, place);
        let empty = value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
        node.member |= empty || !map.declares(name);
        children.put(PathElement::field(name), node);
    }
    Node { member: false, children }
}

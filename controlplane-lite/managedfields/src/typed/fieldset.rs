//! The fields that a value has (`typed/tofieldset.go`).

use std::collections::BTreeMap;

use serde_json::Value;

use super::element_of;
use crate::path::PathElement;
use crate::schema::{Atom, By, List, Map, Place};
use crate::set::Set;

/// Every leaf of `value` and every item of its associative lists. An item that is there twice is one field.
pub fn field_set(value: &Value, at: Place<'_>) -> Set {
    let mut walk = Walk { path: Vec::new(), set: Set::default() };
    walk.value(value, at);
    walk.set
}

struct Walk {
    path: Vec<PathElement>,
    set: Set,
}

impl Walk {
    fn insert(&mut self) {
        self.set.insert(&self.path);
    }

    fn value(&mut self, value: &Value, at: Place<'_>) {
        match at.atom(Some(value)) {
            Atom::Scalar(_) => self.insert(),
            Atom::List(list) => self.list(value, &list),
            Atom::Map(map) => self.map(value, &map),
        }
    }

    fn list(&mut self, value: &Value, list: &List<'_>) {
        if list.by == By::Atomic {
            return self.insert();
        }
        let mut found: BTreeMap<PathElement, (usize, &Value)> = BTreeMap::new();
        for item in value.as_array().into_iter().flatten() {
            if let Ok(element) = element_of(list, item) {
                found.entry(element).or_insert((0, item)).0 += 1;
            }
        }
        for (element, (count, item)) in found {
            self.path.push(element);
            if count == 1 {
                self.value(item, list.place());
            }
            self.insert();
            self.path.pop();
        }
    }

    fn map(&mut self, value: &Value, map: &Map<'_>) {
        if map.atomic {
            return self.insert();
        }
        for (name, value) in value.as_object().into_iter().flatten() {
            let Some(place) = map.place(name) else { continue };
            self.path.push(PathElement::field(name));
            self.value(value, place);
            let empty = value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
            if empty || !map.declares(name) {
                self.insert();
            }
            self.path.pop();
        }
    }
}

//! What differs between two values (`typed/compare.go`).

use std::collections::BTreeMap;

use serde_json::{Map as JsonMap, Value};

use super::{element_of, fields, items};
use crate::path::PathElement;
use crate::schema::{Atom, By, List, Map, Place};
use crate::set::{Node, Ownable, Set};
use crate::value::same;

/// The fields that a change touches. None is in two of the sets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Those that only the old value has.
    pub removed: Set,
    /// Those that both have, with other content, and those that only the new value has.
    pub changed: Set,
}

impl Comparison {
    /// The comparison of those fields alone that can be owned.
    #[must_use]
    pub fn of(self, ownable: &Ownable) -> Self {
        Self { removed: ownable.of(self.removed), changed: ownable.of(self.changed) }
    }
}

/// Compares two objects of one type.
pub fn compare(old: &Value, new: &Value, at: Place<'_>) -> Comparison {
    let level = differences(Some(old), Some(new), at);
    Comparison { removed: level.removed.children, changed: level.changed.children }
}

/// What differs at one element and below it. Each level is made before it is put into the one above, so that no path is
/// walked twice.
#[derive(Default)]
struct Level {
    removed: Node,
    changed: Node,
    /// Whether the value was told as a whole.
    whole: bool,
}

impl Level {
    fn put(&mut self, element: PathElement, below: Self) {
        if below.removed.says_something() && below.changed.says_something() {
            self.removed.children.put(element.clone(), below.removed);
            self.changed.children.put(element, below.changed);
        } else if below.removed.says_something() {
            self.removed.children.put(element, below.removed);
        } else {
            self.changed.children.put(element, below.changed);
        }
    }

    fn extend(&mut self, other: Self) {
        self.removed.extend(other.removed);
        self.changed.extend(other.changed);
        self.whole = other.whole;
    }
}

fn differences(old: Option<&Value>, new: Option<&Value>, at: Place<'_>) -> Level {
    let mut level = match (old, new) {
        (None, None) => return Level::default(),
        (Some(_), Some(_)) if !at.alike(old, new) => {
            let mut level = of_atom(old, new, &at.atom(old));
            level.extend(of_atom(old, new, &at.atom(new)));
            level
        }
        _ => of_atom(old, new, &at.atom(new.or(old))),
    };
    match (level.whole, old, new) {
        (false, None, _) => level.changed.member = true,
        (false, _, None) => level.removed.member = true,
        _ => {}
    }
    level
}

fn of_atom(old: Option<&Value>, new: Option<&Value>, atom: &Atom<'_>) -> Level {
    match atom {
        Atom::Scalar(_) => of_leaf(old, new),
        Atom::List(list) => of_list(old, new, list),
        Atom::Map(map) => of_map(old, new, map),
    }
}

fn of_leaf(old: Option<&Value>, new: Option<&Value>) -> Level {
    let mut level = Level { whole: true, ..Level::default() };
    match (old, new) {
        (_, None) => level.removed.member = true,
        (Some(old), Some(new)) if same(old, new) => {}
        _ => level.changed.member = true,
    }
    level
}

fn of_list(old: Option<&Value>, new: Option<&Value>, list: &List<'_>) -> Level {
    let (before, after) = (items(old), items(new));
    if list.by == By::Atomic || (before.is_empty() && after.is_empty()) {
        return of_leaf(old, new);
    }
    let mut found: BTreeMap<PathElement, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
    for item in before {
        if let Ok(element) = element_of(list, item) {
            found.entry(element).or_default().0.push(item);
        }
    }
    for item in after {
        if let Ok(element) = element_of(list, item) {
            found.entry(element).or_default().1.push(item);
        }
    }
    let mut level = Level::default();
    for (element, (before, after)) in found {
        level.put(element, of_item(&before, &after, list.place()));
    }
    level
}

/// Compares what one element stands for; items that are there more than once are one value.
fn of_item(before: &[&Value], after: &[&Value], at: Place<'_>) -> Level {
    match (before, after) {
        ([] | [_], [] | [_]) => differences(before.first().copied(), after.first().copied(), at),
        ([_, _, ..], [_, _, ..]) => {
            let equal = before.len() == after.len() && before.iter().zip(after).all(|(a, b)| same(a, b));
            let mut level = Level::default();
            level.changed.member = !equal;
            level
        }
        ([_, _, ..], _) => {
            let mut level = differences(None, after.first().copied(), at);
            level.removed.member = true;
            level
        }
        (_, [_, _, ..]) => {
            let mut level = differences(before.first().copied(), None, at);
            level.changed.member = true;
            level
        }
    }
}

fn of_map(old: Option<&Value>, new: Option<&Value>, map: &Map<'_>) -> Level {
    let (before, after) = (fields(old), fields(new));
    let empty = |fields: Option<&JsonMap<String, Value>>| fields.is_none_or(JsonMap::is_empty);
    if map.atomic || (empty(before) && empty(after)) {
        return of_leaf(old, new);
    }
    let mut level = Level::default();
    let names = before.into_iter().flatten().map(|(name, _)| name);
    let new_names = after.into_iter().flatten().map(|(name, _)| name);
    let new_names = new_names.filter(|name| before.is_none_or(|before| !before.contains_key(*name)));
    for name in names.chain(new_names) {
        let Some(place) = map.place(name) else { continue };
        let before = before.and_then(|fields| map.get(fields, name));
        let after = after.and_then(|fields| map.get(fields, name));
        level.put(PathElement::field(name), differences(before, after, place));
    }
    level
}

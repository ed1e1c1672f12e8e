//! What differs between two values (`typed/compare.go`).

use std::collections::BTreeMap;

use serde_json::Value;

use super::{element_of, fields, items};
use crate::path::PathElement;
use crate::schema::{Atom, By, List, Map, Place};
use crate::set::{Ownable, Set};
use crate::value::same;

/// The fields that a change touches. None is in two of the sets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Those that only the old value has.
    pub removed: Set,
    /// Those that both have, with other content.
    pub modified: Set,
    /// Those that only the new value has.
    pub added: Set,
}

impl Comparison {
    /// The comparison of those fields alone that can be owned.
    #[must_use]
    pub fn of(self, ownable: &Ownable) -> Self {
        Self {
            removed: ownable.of(&self.removed),
            modified: ownable.of(&self.modified),
            added: ownable.of(&self.added),
        }
    }
}

/// Compares two objects of one type.
pub fn compare(old: &Value, new: &Value, at: Place<'_>) -> Comparison {
    let mut walk = Walk { path: Vec::new(), out: Comparison::default() };
    walk.value(Some(old), Some(new), at);
    walk.out
}

/// Whether a value was told as a whole, or its parts were.
#[derive(PartialEq, Eq)]
enum Told {
    Whole,
    Parts,
}

struct Walk {
    path: Vec<PathElement>,
    out: Comparison,
}

impl Walk {
    fn value(&mut self, old: Option<&Value>, new: Option<&Value>, at: Place<'_>) {
        let told = match (old, new) {
            (None, None) => return,
            (Some(_), Some(_)) if !at.alike(old, new) => {
                self.atom(old, new, &at.atom(old));
                self.atom(old, new, &at.atom(new))
            }
            _ => self.atom(old, new, &at.atom(new.or(old))),
        };
        match (told, old, new) {
            (Told::Parts, None, _) => self.out.added.insert(&self.path),
            (Told::Parts, _, None) => self.out.removed.insert(&self.path),
            _ => {}
        }
    }

    fn atom(&mut self, old: Option<&Value>, new: Option<&Value>, atom: &Atom<'_>) -> Told {
        match atom {
            Atom::Scalar(_) => self.leaf(old, new),
            Atom::List(list) => self.list(old, new, list),
            Atom::Map(map) => self.map(old, new, map),
        }
    }

    fn leaf(&mut self, old: Option<&Value>, new: Option<&Value>) -> Told {
        match (old, new) {
            (None, _) => self.out.added.insert(&self.path),
            (_, None) => self.out.removed.insert(&self.path),
            (Some(old), Some(new)) if !same(old, new) => self.out.modified.insert(&self.path),
            _ => {}
        }
        Told::Whole
    }

    fn list(&mut self, old: Option<&Value>, new: Option<&Value>, list: &List<'_>) -> Told {
        let (before, after) = (items(old), items(new));
        if list.by == By::Atomic || (before.is_empty() && after.is_empty()) {
            return self.leaf(old, new);
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
        for (element, (before, after)) in found {
            self.path.push(element);
            self.item(&before, &after, list.place());
            self.path.pop();
        }
        Told::Parts
    }

    /// Compares what one element stands for; items that are there more than once are one value.
    fn item(&mut self, before: &[&Value], after: &[&Value], at: Place<'_>) {
        match (before, after) {
            ([] | [_], [] | [_]) => self.value(before.first().copied(), after.first().copied(), at),
            ([_, _, ..], [_, _, ..]) => {
                if before.len() != after.len() || before.iter().zip(after).any(|(a, b)| !same(a, b)) {
                    self.out.modified.insert(&self.path);
                }
            }
            ([_, _, ..], _) => {
                self.value(None, after.first().copied(), at);
                self.out.removed.insert(&self.path);
            }
            (_, [_, _, ..]) => {
                self.value(before.first().copied(), None, at);
                self.out.added.insert(&self.path);
            }
        }
    }

    fn map(&mut self, old: Option<&Value>, new: Option<&Value>, map: &Map<'_>) -> Told {
        let (before, after) = (fields(old), fields(new));
        let empty = |fields: Option<&serde_json::Map<String, Value>>| fields.is_none_or(serde_json::Map::is_empty);
        if map.atomic || (empty(before) && empty(after)) {
            return self.leaf(old, new);
        }
        let names = before.into_iter().flatten().map(|(name, _)| name);
        let new_names = after.into_iter().flatten().map(|(name, _)| name);
        let new_names = new_names.filter(|name| before.is_none_or(|before| !before.contains_key(*name)));
        for name in names.chain(new_names) {
            let Some(place) = map.place(name) else { continue };
            let before = before.and_then(|fields| map.get(fields, name));
            let after = after.and_then(|fields| map.get(fields, name));
            self.path.push(PathElement::field(name));
            self.value(before, after, place);
            self.path.pop();
        }
        Told::Parts
    }
}

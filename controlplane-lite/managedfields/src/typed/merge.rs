//! What a configuration makes of an object (`typed/merge.go`): nothing is removed by it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Map as JsonMap, Value};

use super::{element_of, fields, items};
use crate::path::PathElement;
use crate::schema::{Atom, By, List, Map, Place};

/// Merges `new` into `old`: what both say of a leaf is as `new` says it. The items of lists are in the order of `old`
/// where `new` changes nothing about them, else in that of `new`.
pub fn merge(old: &Value, new: &Value, at: Place<'_>) -> Value {
    value(Some(old), Some(new), at).unwrap_or(Value::Null)
}

fn value(old: Option<&Value>, new: Option<&Value>, at: Place<'_>) -> Option<Value> {
    match at.atom(new.or(old)) {
        Atom::Scalar(_) => leaf(old, new),
        Atom::List(list) => self::list(old, new, &list),
        Atom::Map(map) => self::map(old, new, &map),
    }
}

fn leaf(old: Option<&Value>, new: Option<&Value>) -> Option<Value> {
    new.or(old).cloned()
}

fn map(old: Option<&Value>, new: Option<&Value>, map: &Map<'_>) -> Option<Value> {
    let (before, after) = (fields(old), fields(new));
    let empty = |fields: Option<&JsonMap<String, Value>>| fields.is_none_or(JsonMap::is_empty);
    if map.atomic || (empty(before) && empty(after)) {
        return leaf(old, new);
    }
    let mut out = JsonMap::new();
    let names: BTreeSet<&String> = before.into_iter().chain(after).flat_map(JsonMap::keys).collect();
    for name in names {
        let Some(place) = map.place(name) else { continue };
        let (before, after) = (get(before, name), get(after, name));
        // What nobody changes need not be walked through.
        let merged = if after.is_none() { before.cloned() } else { value(before, after, place) };
        out.extend(merged.map(|merged| (name.clone(), merged)));
    }
    (!out.is_empty()).then_some(Value::Object(out))
}

fn get<'v>(fields: Option<&'v JsonMap<String, Value>>, name: &str) -> Option<&'v Value> {
    fields.and_then(|fields| fields.get(name))
}

fn list(old: Option<&Value>, new: Option<&Value>, list: &List<'_>) -> Option<Value> {
    let (before, after) = (items(old), items(new));
    if list.by == By::Atomic || (before.is_empty() && after.is_empty()) {
        return leaf(old, new);
    }
    let out = Lists::new(list, before, after).merge();
    (!out.is_empty()).then_some(Value::Array(out))
}

/// Two associative lists that become one.
struct Lists<'l, 'v> {
    list: &'l List<'l>,
    /// The items of the old list, in order. An element that is there twice stays twice.
    before: Vec<(PathElement, &'v Value)>,
    after: Vec<(PathElement, &'v Value)>,
    /// How often an element is in the old list, and its item.
    old: BTreeMap<PathElement, (usize, &'v Value)>,
    new: BTreeMap<PathElement, &'v Value>,
    out: Vec<Value>,
}

impl<'l, 'v> Lists<'l, 'v> {
    fn new(list: &'l List<'l>, before: &'v [Value], after: &'v [Value]) -> Self {
        let index = |items: &'v [Value]| -> Vec<(PathElement, &'v Value)> {
            items.iter().filter_map(|item| element_of(list, item).ok().map(|element| (element, item))).collect()
        };
        let (before, after) = (index(before), index(after));
        let mut old: BTreeMap<PathElement, (usize, &Value)> = BTreeMap::new();
        for (element, item) in &before {
            old.entry(element.clone()).or_insert((0, item)).0 += 1;
        }
        let new = after.iter().cloned().collect();
        Self { list, before, after, old, new, out: Vec::new() }
    }

    /// Takes an item of the new list, merged into the old one. An item that was there twice is replaced.
    fn take_new(&mut self, element: &PathElement) {
        let old = self.old.get(element).filter(|(count, _)| *count == 1).map(|(_, item)| *item);
        self.take(old, self.new.get(element).copied());
    }

    fn take(&mut self, old: Option<&Value>, new: Option<&Value>) {
        self.out.extend(value(old, new, self.list.place()));
    }

    /// Walks both lists at once. Items that only one has come where they stand in it; those of both in the order of the
    /// new list, which is the reason why an old item may have to wait for those before it.
    fn merge(mut self) -> Vec<Value> {
        let before = std::mem::take(&mut self.before);
        let after = std::mem::take(&mut self.after);
        let shared = after.iter().map(|(element, _)| element).filter(|element| self.old.contains_key(*element));
        let mut shared: VecDeque<PathElement> = shared.cloned().collect();
        let mut next = shared.pop_front();
        let mut merged = BTreeSet::new();
        let (mut l, mut r) = (0, 0);
        while l < before.len() || r < after.len() {
            if let (Some((old, _)), Some((new, _))) = (before.get(l), after.get(r)) {
                if old == new {
                    merged.insert(new.clone());
                    self.take_new(new);
                    (l, r) = (l + 1, r + 1);
                    next = shared.pop_front();
                    continue;
                }
                if self.new.contains_key(old) && next.as_ref().is_some_and(|next| next != old) {
                    l += 1;
                    continue;
                }
            }
            if let Some((old, item)) = before.get(l) {
                if !self.new.contains_key(old) {
                    self.take(Some(item), None);
                    l += 1;
                    continue;
                }
                if merged.contains(old) {
                    l += 1;
                }
            }
            if let Some((new, _)) = after.get(r) {
                merged.insert(new.clone());
                self.take_new(new);
                r += 1;
                if next.as_ref() == Some(new) {
                    next = shared.pop_front();
                }
            }
        }
        self.out
    }
}

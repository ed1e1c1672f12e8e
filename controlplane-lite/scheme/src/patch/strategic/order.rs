//! The order of a merged list: that of `$setElementOrder`, or of the patch's own items.

use std::collections::HashMap;

use serde_json::Value;

/// What identifies an item, as a key of sets and maps: the value of its merge key, or the item itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Identity<'a> {
    /// A string, which nearly all are.
    Text(&'a str),
    /// Any other value, encoded.
    Encoded(String),
    /// An object without its merge key.
    Missing,
}

impl<'a> Identity<'a> {
    /// Of a value itself.
    pub(super) fn of_value(value: &'a Value) -> Self {
        match value {
            Value::String(text) => Self::Text(text),
            other => Self::Encoded(other.to_string()),
        }
    }

    /// Of an item of a list.
    pub(super) fn of(item: &'a Value, merge_key: &str) -> Self {
        if item.is_object() && !merge_key.is_empty() {
            item.get(merge_key).map_or(Self::Missing, Self::of_value)
        } else {
            Self::of_value(item)
        }
    }
}

/// The places of a list's items; of equal ones the first.
struct Places<'a> {
    merge_key: &'a str,
    at: HashMap<Identity<'a>, usize>,
}

impl<'a> Places<'a> {
    fn new(list: &'a [Value], merge_key: &'a str) -> Self {
        let mut at = HashMap::with_capacity(list.len());
        for (place, item) in list.iter().enumerate() {
            at.entry(Identity::of(item, merge_key)).or_insert(place);
        }
        Self { merge_key, at }
    }

    fn of(&self, item: &Value) -> Option<usize> {
        self.at.get(&Identity::of(item, self.merge_key)).copied()
    }
}

/// Sorts a merged list: items the client named stand in the client's order, items only the server
/// knows keep their place relative to their neighbours on the server.
pub(super) fn normalize(merged: Vec<Value>, order: &[Value], server: &[Value], merge_key: &str) -> Vec<Value> {
    let (order, server) = (Places::new(order, merge_key), Places::new(server, merge_key));
    let mut named = Vec::new();
    let mut rest = Vec::new();
    for item in merged {
        let on_server = server.of(&item);
        match order.of(&item) {
            Some(place) => named.push((place, on_server, item)),
            None => rest.push((on_server.unwrap_or(usize::MAX), on_server, item)),
        }
    }
    named.sort_by_key(|(place, ..)| *place);
    rest.sort_by_key(|(place, ..)| *place);
    interleave(named, rest)
}

type Placed = (usize, Option<usize>, Value);

/// Merges two lists: an item of `rest` comes before the first named item that stood after it on the server.
fn interleave(named: Vec<Placed>, rest: Vec<Placed>) -> Vec<Value> {
    let mut out = Vec::with_capacity(named.len() + rest.len());
    let mut named = named.into_iter().peekable();
    let mut rest = rest.into_iter().peekable();
    loop {
        let server_first = match (named.peek(), rest.peek()) {
            (None, None) => return out,
            (Some(_), None) => false,
            (None, Some(_)) => true,
            (Some((_, Some(named), _)), Some((_, Some(rest), _))) => rest < named,
            _ => false,
        };
        let next = if server_first { rest.next() } else { named.next() };
        out.extend(next.map(|(.., item)| item));
    }
}

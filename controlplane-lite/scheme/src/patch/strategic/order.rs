//! `$setElementOrder`: the order of a merged list.

use serde_json::Value;

/// What identifies an item: the value of its merge key, or the item itself.
pub(super) fn identity<'a>(item: &'a Value, merge_key: &str) -> Option<&'a Value> {
    if item.is_object() && !merge_key.is_empty() { item.get(merge_key) } else { Some(item) }
}

/// Sorts a merged list: items the client named stand in the client's order, items only the server
/// knows keep their place relative to their neighbours on the server.
pub(super) fn normalize(merged: Vec<Value>, order: &[Value], server: &[Value], merge_key: &str) -> Vec<Value> {
    let position = |list: &[Value], item: &Value| {
        let id = identity(item, merge_key);
        list.iter().position(|o| identity(o, merge_key) == id)
    };
    let (mut named, mut rest): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| position(order, item).is_some());
    named.sort_by_key(|item| position(order, item));
    rest.sort_by_key(|item| position(server, item).unwrap_or(usize::MAX));
    interleave(named, rest, |item| position(server, item))
}

/// Merges two lists: an item of `rest` comes before the first named item that stood after it on the server.
fn interleave(named: Vec<Value>, rest: Vec<Value>, place: impl Fn(&Value) -> Option<usize>) -> Vec<Value> {
    let mut out = Vec::with_capacity(named.len() + rest.len());
    let mut named = named.into_iter().peekable();
    let mut rest = rest.into_iter().peekable();
    loop {
        match (named.peek(), rest.peek()) {
            (None, None) => return out,
            (Some(_), None) => out.extend(named.by_ref()),
            (None, Some(_)) => out.extend(rest.by_ref()),
            (Some(n), Some(r)) => {
                let server_first = match (place(n), place(r)) {
                    (Some(n), Some(r)) => r < n,
                    _ => false,
                };
                out.extend(if server_first { rest.next() } else { named.next() });
            }
        }
    }
}

//! Pieces of cells that several kinds share.

use serde_json::Value;

use super::Column;
use crate::access::{at, entries_at, int_at, list_at, str_at};
use crate::selector::LabelSelector;

/// The wide columns of workloads.
pub(super) const CONTAINERS: [Column<'static>; 3] =
    [Column::wide("Containers"), Column::wide("Images"), Column::wide("Selector")];

/// The integer at a path, 0 when missing.
pub(super) fn int(object: &Value, path: &[&str]) -> i64 {
    int_at(object, path).unwrap_or(0)
}

/// `<none>` for nothing.
pub(super) fn none_if_empty(text: &str) -> String {
    if text.is_empty() { "<none>".to_owned() } else { text.to_owned() }
}

/// `a=b,c=d`, or `<none>`.
pub(super) fn labels(map: &Value) -> String {
    let parts: Vec<String> = entries_at(map, &[]).map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or(""))).collect();
    none_if_empty(&parts.join(","))
}

/// A label selector object as text, or `<none>`.
pub(super) fn selector(object: &Value) -> String {
    match LabelSelector::from_object(object) {
        Ok(selector) => none_if_empty(&selector.to_string()),
        Err(_) => "<error>".to_owned(),
    }
}

fn names(spec: &Value, key: &str) -> String {
    let parts: Vec<&str> = list_at(spec, &["containers"]).iter().map(|c| str_at(c, &[key])).collect();
    parts.join(",")
}

/// Container names of a pod spec.
pub(super) fn containers(spec: &Value) -> String {
    names(spec, "name")
}

/// Images of a pod spec.
pub(super) fn images(spec: &Value) -> String {
    names(spec, "image")
}

/// At most `max` items, then ` + N more...`.
pub(super) fn join_more(items: &[String], max: usize) -> String {
    if items.len() <= max {
        return items.join(",");
    }
    format!("{} + {} more...", items[..max].join(","), items.len() - max)
}

/// Whether the object is being deleted.
pub(super) fn deleting(object: &Value) -> bool {
    !at(object, &["metadata", "deletionTimestamp"]).is_null()
}

/// A quantity as stored.
pub(super) fn quantity(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}

/// `RWO,ROX,RWX,RWOP`, each once, in this order.
pub(super) fn access_modes(value: &Value) -> String {
    const SHORT: [(&str, &str); 4] =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let has = |mode: &str| list_at(value, &[]).iter().any(|m| m == mode);
    let parts: Vec<&str> = SHORT.iter().filter(|(mode, _)| has(mode)).map(|(_, short)| *short).collect();
    parts.join(",")
}

/// `True` or `False`.
pub(super) const fn bool_text(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

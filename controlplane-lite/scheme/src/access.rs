//! Short accessors for `serde_json::Value`, so that the rules in this module
//! read like the fields they are about. A missing or null field reads as the
//! type's zero value, as it does in Go.

use serde_json::{Map, Value};

static NULL: Value = Value::Null;

#[cfg(test)]
thread_local! {
    /// Looks at fields on this thread: the work of rules, for tests that count it.
    static LOOKS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Looks at fields so far.
#[cfg(test)]
pub(crate) fn looks() -> usize {
    LOOKS.get()
}

/// The value at a path of object keys; `Value::Null` when any step is missing.
#[must_use]
pub fn at<'a>(value: &'a Value, path: &[&str]) -> &'a Value {
    #[cfg(test)]
    LOOKS.set(LOOKS.get() + 1);
    path.iter().try_fold(value, |v, key| v.get(*key)).unwrap_or(&NULL)
}

/// The string at a path, empty when missing.
#[must_use]
pub fn str_at<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    at(value, path).as_str().unwrap_or("")
}

/// The integer at a path.
#[must_use]
pub fn int_at(value: &Value, path: &[&str]) -> Option<i64> {
    at(value, path).as_i64()
}

/// The boolean at a path, false when missing.
#[must_use]
pub fn bool_at(value: &Value, path: &[&str]) -> bool {
    at(value, path).as_bool().unwrap_or(false)
}

/// The list at a path, empty when missing.
#[must_use]
pub fn list_at<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    at(value, path).as_array().map_or(&[], Vec::as_slice)
}

/// The object at a path.
#[must_use]
pub fn map_at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Map<String, Value>> {
    at(value, path).as_object()
}

/// The entries of the object at a path, none when missing.
pub fn entries_at<'a>(value: &'a Value, path: &[&str]) -> impl Iterator<Item = (&'a String, &'a Value)> {
    map_at(value, path).into_iter().flatten()
}

/// The object at a path for writing, `None` when missing.
pub fn map_at_mut<'a>(value: &'a mut Value, path: &[&str]) -> Option<&'a mut Map<String, Value>> {
    at_mut(value, path)?.as_object_mut()
}

/// The value at a path for writing, `None` when missing.
pub fn at_mut<'a>(value: &'a mut Value, path: &[&str]) -> Option<&'a mut Value> {
    path.iter().try_fold(value, |v, key| v.get_mut(*key))
}

/// The list at a path for writing; an empty slice when missing.
pub fn list_at_mut<'a>(value: &'a mut Value, path: &[&str]) -> &'a mut [Value] {
    at_mut(value, path).and_then(Value::as_array_mut).map_or(&mut [], Vec::as_mut_slice)
}

/// The object at a path, created (with all steps) when missing or null.
/// A step that is something else than an object is replaced.
pub fn ensure_map<'a>(value: &'a mut Value, path: &[&str]) -> &'a mut Map<String, Value> {
    let mut current = as_map(value);
    for key in path {
        current = as_map(current.entry(*key).or_insert(Value::Null));
    }
    current
}

fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("made an object just above")
}

/// Sets `key` when it is missing or null.
pub fn set_default(map: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    if map.get(key).is_none_or(Value::is_null) {
        map.insert(key.to_owned(), value.into());
    }
}

/// Sets `key` when it is missing, null or the empty string (a Go string field without a pointer).
pub fn set_default_str(map: &mut Map<String, Value>, key: &str, value: &str) {
    if map.get(key).is_none_or(|v| v.is_null() || v.as_str() == Some("")) {
        map.insert(key.to_owned(), value.into());
    }
}

/// Whether a field is unset as Go's `omitempty` sees it: missing, null, or an empty string, list or map.
#[must_use]
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Copies `key` from one object to another, removing it where the source has none.
pub fn copy_field(to: &mut Value, from: &Value, key: &str) {
    let Some(map) = to.as_object_mut() else { return };
    match from.get(key) {
        Some(value) if !value.is_null() => {
            map.insert(key.to_owned(), value.clone());
        }
        _ => {
            map.remove(key);
        }
    }
}

//! JSON patch as upstream's library reads it, with its errors. It differs from RFC 6902: indices may be negative, an
//! absent field of an object can be replaced and equals null, and nothing can be done to the whole document.
//!
//! What a patch may cost is bounded: the bytes it copies, the items it moves, and how deep it nests one value in
//! another, beyond which nobody could read what it made.

use serde_json::{Map, Value};

use super::{MAX_JSON_PATCH_OPERATIONS, PatchError};
use crate::decode::{MAX_DEPTH, size};
use crate::field::go_quote;

/// Bytes that all `copy` operations of a patch may add, as upstream.
const MAX_COPY_BYTES: usize = 3 * 1024 * 1024;
/// Items that all operations of a patch may move within lists.
const MAX_STEPS: usize = 1 << 28;

/// The object after all operations.
///
/// # Errors
/// 400 for a malformed patch, 413 for too many operations, 422 for an operation that fails on this object.
pub fn apply(current: &Value, patch: &Value) -> Result<Value, PatchError> {
    let malformed = |found: &str, into: &str| {
        PatchError::BadRequest(format!(
            "error decoding patch: json: cannot unmarshal {found} into Go value of type {into}"
        ))
    };
    let Value::Array(operations) = patch else {
        return Err(malformed(crate::decode::go_json_type(patch), "jsonpatch.Patch"));
    };
    if operations.len() > MAX_JSON_PATCH_OPERATIONS {
        return Err(PatchError::TooManyOperations(operations.len()));
    }
    let mut document = Document { root: current.clone(), copied: 0, memory: 0, steps: MAX_STEPS };
    for operation in operations {
        match operation {
            Value::Object(operation) => {
                document.operate(&Operation(operation)).map_err(PatchError::Unprocessable)?;
            }
            // A nil map in Go, which names no operation.
            Value::Null => return Err(PatchError::Unprocessable("Unexpected kind: unknown".to_owned())),
            other => return Err(malformed(crate::decode::go_json_type(other), "jsonpatch.Operation")),
        }
    }
    Ok(document.root)
}

/// One operation.
struct Operation<'a>(&'a Map<String, Value>);

impl<'a> Operation<'a> {
    fn kind(&self) -> &'a str {
        self.0.get("op").and_then(Value::as_str).unwrap_or("unknown")
    }

    /// A pointer; `kind` and `field` are for the error.
    fn pointer(&self, kind: &str, field: &str) -> Result<&'a str, String> {
        self.0
            .get(field)
            .and_then(Value::as_str)
            .ok_or_else(|| format!("{kind} operation failed to decode {field}: missing value"))
    }

    /// The value; an absent one is null.
    fn value(&self) -> Value {
        self.0.get("value").cloned().unwrap_or_default()
    }
}

/// The document being patched, and what has been spent on it.
struct Document {
    root: Value,
    /// Bytes of JSON that were copied, and the memory they take.
    copied: usize,
    memory: usize,
    steps: usize,
}

impl Document {
    fn operate(&mut self, operation: &Operation<'_>) -> Result<(), String> {
        match operation.kind() {
            "add" => self.add(operation),
            "remove" => self.remove(operation),
            "replace" => self.replace(operation),
            "move" => self.relocate(operation),
            "copy" => self.copy(operation),
            "test" => self.test(operation),
            other => Err(format!("Unexpected kind: {other}")),
        }
    }

    fn add(&mut self, operation: &Operation<'_>) -> Result<(), String> {
        let path = operation.pointer("add", "path")?;
        let missing = || format!("add operation does not apply: doc is missing path: {}: {MISSING}", go_quote(path));
        let value = operation.value();
        fits(path, &value, &mut self.steps)?;
        let (container, key) = container(&mut self.root, path).ok_or_else(missing)?;
        insert(container, &key, value, &mut self.steps).map_err(|e| format!("error in add for path: '{path}': {e}"))
    }

    fn remove(&mut self, operation: &Operation<'_>) -> Result<(), String> {
        let path = operation.pointer("remove", "path")?;
        let missing = || format!("remove operation does not apply: doc is missing path: {}: {MISSING}", go_quote(path));
        let (container, key) = container(&mut self.root, path).ok_or_else(missing)?;
        take(container, &key, &mut self.steps).map(drop).map_err(|e| format!("error in remove for path: '{path}': {e}"))
    }

    fn replace(&mut self, operation: &Operation<'_>) -> Result<(), String> {
        let path = operation.pointer("replace", "path")?;
        let missing =
            |what: &str| format!("replace operation does not apply: doc is missing {what}: {path}: {MISSING}");
        let value = operation.value();
        fits(path, &value, &mut self.steps)?;
        let (container, key) = container(&mut self.root, path).ok_or_else(|| missing("path"))?;
        match container {
            Value::Array(items) => {
                let index = place(&key, items.len()).map_err(|_| missing("key"))?;
                items[index] = value;
            }
            Value::Object(map) => {
                map.insert(key, value);
            }
            _ => return Err(missing("path")),
        }
        Ok(())
    }

    fn relocate(&mut self, operation: &Operation<'_>) -> Result<(), String> {
        let from = operation.pointer("move", "from")?;
        let missing = || format!("move operation does not apply: doc is missing from path: {from}: {MISSING}");
        let (source, key) = container(&mut self.root, from).ok_or_else(missing)?;
        let value = take(source, &key, &mut self.steps).map_err(|e| format!("error in move for path: '{key}': {e}"))?;
        let path = operation.pointer("move", "path")?;
        fits(path, &value, &mut self.steps)?;
        let missing = || format!("move operation does not apply: doc is missing destination path: {path}: {MISSING}");
        let (target, key) = container(&mut self.root, path).ok_or_else(missing)?;
        insert(target, &key, value, &mut self.steps).map_err(|e| format!("error in move for path: '{path}': {e}"))
    }

    fn copy(&mut self, operation: &Operation<'_>) -> Result<(), String> {
        let from = operation.pointer("copy", "from")?;
        let missing = || format!("copy operation does not apply: doc is missing from path: {from}: {MISSING}");
        let (source, key) = container(&mut self.root, from).ok_or_else(missing)?;
        let value = get(source, &key).map_err(|e| format!("error in copy for from: '{from}': {e}"))?;
        let value = value.unwrap_or(&Value::Null);
        self.copied += size::encoded(value);
        if self.copied > MAX_COPY_BYTES {
            return Err(format!(
                "Unable to complete the copy, the accumulated size increase of copy is {}, exceeding the limit {MAX_COPY_BYTES}",
                self.copied
            ));
        }
        self.memory += size::memory(value);
        if self.memory > size::MAX_DECODED {
            return Err(format!("Unable to complete the copy: {}", size::TooLarge));
        }
        let value = value.clone();
        let path = operation.pointer("copy", "path")?;
        fits(path, &value, &mut self.steps)?;
        let missing = || format!("copy operation does not apply: doc is missing destination path: {path}: {MISSING}");
        let (target, key) = container(&mut self.root, path).ok_or_else(missing)?;
        insert(target, &key, value, &mut self.steps).map_err(|e| format!("error while adding value during copy: {e}"))
    }

    fn test(&mut self, operation: &Operation<'_>) -> Result<(), String> {
        let path = operation.pointer("test", "path")?;
        let wanted = operation.0.get("value").unwrap_or(&Value::Null);
        let missing = || format!("test operation does not apply: is missing path: {path}: {MISSING}");
        let (container, key) = container(&mut self.root, path).ok_or_else(missing)?;
        let found = get(container, &key).map_err(|e| format!("error in test for path: '{path}': {e}"))?;
        // An absent field equals null.
        if found.unwrap_or(&Value::Null) == wanted {
            return Ok(());
        }
        Err(format!("testing value {path} failed: test failed"))
    }
}

const MISSING: &str = "missing value";

/// Whether the document can still be read with a value put at a path. What is in it nests less deep than it may.
/// Looking costs a step for each value: one that is moved to and fro is looked at each time.
fn fits(path: &str, value: &Value, steps: &mut usize) -> Result<(), String> {
    if path.matches('/').count() + depth(value, steps)? < MAX_DEPTH {
        return Ok(());
    }
    Err(format!("the patched object would nest {MAX_DEPTH} levels deep or more"))
}

/// Objects and lists within each other.
fn depth(value: &Value, steps: &mut usize) -> Result<usize, String> {
    let mut deepest = 0;
    match value {
        Value::Array(items) => {
            spend(steps, items.len())?;
            for item in items {
                deepest = deepest.max(depth(item, steps)?);
            }
        }
        Value::Object(map) => {
            spend(steps, map.len())?;
            for value in map.values() {
                deepest = deepest.max(depth(value, steps)?);
            }
        }
        _ => return Ok(0),
    }
    Ok(1 + deepest)
}

/// The object or list that a pointer's last part names something in, and that part.
fn container<'v>(root: &'v mut Value, path: &str) -> Option<(&'v mut Value, String)> {
    let (parents, key) = path.rsplit_once('/')?;
    let mut at = root;
    // What stands before the first slash is not looked at, as upstream.
    for part in parents.split('/').skip(1) {
        let part = unescape(part);
        at = match at {
            Value::Object(map) => map.get_mut(&part)?,
            Value::Array(items) => {
                let index = place(&part, items.len()).ok()?;
                items.get_mut(index)?
            }
            _ => return None,
        };
    }
    matches!(at, Value::Object(_) | Value::Array(_)).then(|| (at, unescape(key)))
}

fn unescape(part: &str) -> String {
    if part.contains('~') { part.replace("~1", "/").replace("~0", "~") } else { part.to_owned() }
}

/// The index that a key names in a list of `length`; a negative one counts from the end.
fn place(key: &str, length: usize) -> Result<usize, String> {
    let digits = key.strip_prefix(['+', '-']).unwrap_or(key);
    let syntax = || format!("strconv.Atoi: parsing {}: invalid syntax", go_quote(key));
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(syntax());
    }
    let range = || format!("strconv.Atoi: parsing {}: value out of range", go_quote(key));
    let index: i64 = key.parse().map_err(|_| range())?;
    let invalid = || format!("Unable to access invalid index: {index}: invalid index referenced");
    let from_start = if index < 0 { index.checked_add_unsigned(length as u64) } else { Some(index) };
    let index = from_start.and_then(|i| usize::try_from(i).ok()).ok_or_else(invalid)?;
    if index < length { Ok(index) } else { Err(invalid()) }
}

fn get<'v>(container: &'v Value, key: &str) -> Result<Option<&'v Value>, String> {
    match container {
        Value::Array(items) => Ok(items.get(place(key, items.len())?)),
        other => Ok(other.get(key)),
    }
}

/// Counts what an operation takes beyond its own length: items of a list that move when one is put in or taken out, and
/// values whose depth is looked at.
fn spend(steps: &mut usize, taken: usize) -> Result<(), String> {
    *steps = steps.checked_sub(taken).ok_or("the patch moves or looks at too many values")?;
    Ok(())
}

fn insert(container: &mut Value, key: &str, value: Value, steps: &mut usize) -> Result<(), String> {
    match container {
        Value::Array(items) if key == "-" => items.push(value),
        Value::Array(items) => {
            // One more than there are: an item may go behind the last.
            let index = place(key, items.len() + 1).map_err(|e| {
                if e.starts_with("strconv") { format!("value was not a proper array index: '{key}': {e}") } else { e }
            })?;
            spend(steps, items.len() - index)?;
            items.insert(index, value);
        }
        Value::Object(map) => {
            map.insert(key.to_owned(), value);
        }
        _ => return Err(MISSING.to_owned()),
    }
    Ok(())
}

fn take(container: &mut Value, key: &str, steps: &mut usize) -> Result<Value, String> {
    match container {
        Value::Array(items) => {
            let index = place(key, items.len())?;
            spend(steps, items.len() - index)?;
            Ok(items.remove(index))
        }
        Value::Object(map) => {
            map.remove(key).ok_or_else(|| format!("Unable to remove nonexistent key: {key}: {MISSING}"))
        }
        _ => Err(MISSING.to_owned()),
    }
}

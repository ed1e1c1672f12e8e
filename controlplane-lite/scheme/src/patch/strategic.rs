//! Strategic merge patch: merges lists by key where the schema says so, and
//! obeys the directives `$patch`, `$retainKeys`, `$deleteFromPrimitiveList/x`
//! and `$setElementOrder/x`.

use serde_json::{Map, Value};

use super::PatchError;
use crate::schema::{Field, ObjectType, Patch, Type};

mod order;

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const DELETE_PREFIX: &str = "$deleteFromPrimitiveList/";
const ORDER_PREFIX: &str = "$setElementOrder/";

/// The object after the patch. Fields the schema does not know merge as JSON merge patch does.
///
/// # Errors
/// 400 for malformed directives or a patch of another shape than the object.
pub fn apply(schema: &ObjectType, current: &Value, patch: &Value) -> Result<Value, PatchError> {
    let Value::Object(patch) = patch else {
        return Err(bad(
            "error decoding patch: json: cannot unmarshal non-object into Go value of type map[string]interface {}",
        ));
    };
    let original = current.as_object().cloned().unwrap_or_default();
    Ok(Value::Object(merge_map(original, patch, Some(schema))?))
}

fn bad(text: impl Into<String>) -> PatchError {
    PatchError::BadRequest(text.into())
}

/// What is known about the value of a key: its type and how lists of it merge.
fn lookup<'a>(schema: Option<&'a ObjectType>, key: &str) -> Option<&'a Field> {
    schema.and_then(|s| s.field(key))
}

fn merge_map(
    mut original: Map<String, Value>,
    patch: &Map<String, Value>,
    schema: Option<&ObjectType>,
) -> Result<Map<String, Value>, PatchError> {
    match patch.get(DIRECTIVE) {
        None => {}
        Some(Value::String(text)) if text == "replace" => {
            let mut replaced = patch.clone();
            replaced.remove(DIRECTIVE);
            return Ok(strip(replaced, schema));
        }
        Some(Value::String(text)) if text == "delete" => return Ok(Map::new()),
        Some(Value::String(text)) if text == "merge" => {}
        Some(other) => return Err(bad(format!("unknown patch type found: {}", text_of(other)))),
    }
    retain_keys(&mut original, patch)?;
    delete_from_primitive_lists(&mut original, patch)?;
    for (key, value) in patch {
        if key == DIRECTIVE || key == RETAIN || key.starts_with(DELETE_PREFIX) || key.starts_with(ORDER_PREFIX) {
            continue;
        }
        let order = patch.get(&format!("{ORDER_PREFIX}{key}"));
        let field = lookup(schema, key);
        match value {
            Value::Null => {
                original.remove(key);
            }
            Value::Object(inner) => {
                let before = match original.remove(key) {
                    Some(Value::Object(map)) => map,
                    _ => Map::new(),
                };
                let deletes = inner.get(DIRECTIVE).and_then(Value::as_str) == Some("delete");
                if !deletes {
                    let merged = merge_map(before, inner, value_schema(field))?;
                    original.insert(key.clone(), Value::Object(merged));
                }
            }
            Value::Array(items) => {
                let before = match original.remove(key) {
                    Some(Value::Array(list)) => list,
                    _ => Vec::new(),
                };
                let merged = merge_list(before, items, field, order)?;
                original.insert(key.clone(), Value::Array(merged));
            }
            scalar => {
                original.insert(key.clone(), scalar.clone());
            }
        }
    }
    orders_without_items(&mut original, patch, schema)?;
    Ok(original)
}

/// The object type of a map-like value: an object's own fields. Values of plain maps have none.
fn value_schema(field: Option<&Field>) -> Option<&ObjectType> {
    match field.map(|f| &f.ty) {
        Some(Type::Object(object)) => Some(object),
        _ => None,
    }
}

/// Removes directives (and nulls) from content that is taken over as it is.
fn strip(map: Map<String, Value>, schema: Option<&ObjectType>) -> Map<String, Value> {
    map.into_iter()
        .filter(|(key, value)| {
            !value.is_null()
                && key != DIRECTIVE
                && key != RETAIN
                && !key.starts_with(DELETE_PREFIX)
                && !key.starts_with(ORDER_PREFIX)
        })
        .map(|(key, value)| {
            let field = lookup(schema, &key);
            let value = match value {
                Value::Object(inner) => Value::Object(strip(inner, value_schema(field))),
                Value::Array(items) => Value::Array(strip_items(items, field)),
                other => other,
            };
            (key, value)
        })
        .collect()
}

fn strip_items(items: Vec<Value>, field: Option<&Field>) -> Vec<Value> {
    let schema = field.and_then(|f| f.ty.object()).map(|o| &**o);
    items
        .into_iter()
        .filter(|item| !is_directive_item(item))
        .map(|item| match item {
            Value::Object(map) => Value::Object(strip(map, schema)),
            other => other,
        })
        .collect()
}

/// An item that only says what to do (`{$patch: replace}`) or deletes.
fn is_directive_item(item: &Value) -> bool {
    match item.get(DIRECTIVE).and_then(Value::as_str) {
        Some("delete") => true,
        Some(_) => item.as_object().is_some_and(|m| m.len() == 1),
        None => false,
    }
}

/// `$retainKeys`: of the fields of the object only those named stay (a union's discriminated member).
fn retain_keys(original: &mut Map<String, Value>, patch: &Map<String, Value>) -> Result<(), PatchError> {
    let Some(directive) = patch.get(RETAIN) else { return Ok(()) };
    let Some(keys) = directive.as_array() else {
        return Err(bad("invalid type for retainKeys directive: must be a list"));
    };
    for key in patch.keys() {
        let named = keys.iter().any(|k| k == key);
        let directive = key.starts_with('$');
        if !named && !directive && !patch[key].is_null() {
            return Err(bad(format!(
                "invalid retainKeys directive: all fields in the patch must be in the retainKeys list, found {key}"
            )));
        }
    }
    original.retain(|key, _| keys.iter().any(|k| k == key));
    Ok(())
}

fn delete_from_primitive_lists(
    original: &mut Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<(), PatchError> {
    for (directive, values) in patch {
        let Some(key) = directive.strip_prefix(DELETE_PREFIX) else { continue };
        let Some(values) = values.as_array() else {
            return Err(bad(format!("invalid type for {directive}: must be a list")));
        };
        if let Some(Value::Array(list)) = original.get_mut(key) {
            list.retain(|item| !values.contains(item));
        }
    }
    Ok(())
}

/// `$setElementOrder/x` without `x` in the patch only reorders.
fn orders_without_items(
    original: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    schema: Option<&ObjectType>,
) -> Result<(), PatchError> {
    for (directive, order) in patch {
        let Some(key) = directive.strip_prefix(ORDER_PREFIX) else { continue };
        if patch.contains_key(key) {
            continue;
        }
        let Some(order) = order.as_array() else {
            return Err(bad(format!("invalid type for {directive}: must be a list")));
        };
        let merge_key = lookup(schema, key).map_or("", |f| f.patch.merge_key);
        if let Some(Value::Array(list)) = original.get_mut(key) {
            let server = list.clone();
            *list = order::normalize(std::mem::take(list), order, &server, merge_key);
        }
    }
    Ok(())
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn merge_list(
    original: Vec<Value>,
    patch: &[Value],
    field: Option<&Field>,
    order: Option<&Value>,
) -> Result<Vec<Value>, PatchError> {
    let facts = field.map_or(Patch::default(), |f| f.patch);
    let objects = patch.iter().any(Value::is_object);
    if !facts.merge {
        return Ok(strip_items(patch.to_vec(), field));
    }
    let schema = field.and_then(|f| f.ty.object()).map(|o| &**o);
    let server = original.clone();
    let merged = if objects {
        merge_objects(original, patch, facts.merge_key, schema)?
    } else {
        merge_primitives(original, patch)
    };
    match order {
        Some(Value::Array(order)) => {
            check_order(order, patch, facts.merge_key)?;
            Ok(order::normalize(merged, order, &server, facts.merge_key))
        }
        Some(_) => Err(bad("invalid type for setElementOrder directive: must be a list")),
        None => Ok(merged),
    }
}

/// Every item of the patch must occur in the order list.
fn check_order(order: &[Value], patch: &[Value], merge_key: &str) -> Result<(), PatchError> {
    let identity = |item: &Value| order::identity(item, merge_key).cloned();
    for item in patch.iter().filter(|i| !is_directive_item(i)) {
        if !order.iter().any(|o| identity(o) == identity(item)) {
            return Err(bad("The order in patch list:\n doesn't match $setElementOrder list".to_owned()));
        }
    }
    Ok(())
}

fn merge_primitives(mut original: Vec<Value>, patch: &[Value]) -> Vec<Value> {
    for item in patch {
        if !original.contains(item) {
            original.push(item.clone());
        }
    }
    original
}

fn merge_objects(
    mut original: Vec<Value>,
    patch: &[Value],
    merge_key: &str,
    schema: Option<&ObjectType>,
) -> Result<Vec<Value>, PatchError> {
    let replace = patch.iter().any(|item| item.get(DIRECTIVE).and_then(Value::as_str) == Some("replace"));
    if replace {
        return Ok(patch
            .iter()
            .filter(|item| item.get(DIRECTIVE).is_none())
            .map(|item| match item {
                Value::Object(map) => Value::Object(strip(map.clone(), schema)),
                other => other.clone(),
            })
            .collect());
    }
    for item in patch {
        let Value::Object(map) = item else {
            return Err(bad("patch list has both objects and other values"));
        };
        let Some(key) = map.get(merge_key) else {
            if map.len() == 1 && map.contains_key(DIRECTIVE) {
                continue;
            }
            return Err(bad(format!("map: {item} does not contain declared merge key: {merge_key}")));
        };
        let same = |o: &Value| o.get(merge_key) == Some(key);
        match map.get(DIRECTIVE).and_then(Value::as_str) {
            Some("delete") => original.retain(|o| !same(o)),
            Some("merge") | None => {
                if let Some(slot) = original.iter_mut().find(|o| same(o)) {
                    let before = slot.as_object().cloned().unwrap_or_default();
                    *slot = Value::Object(merge_map(before, map, schema)?);
                } else {
                    original.push(Value::Object(merge_map(Map::new(), map, schema)?));
                }
            }
            Some(other) => return Err(bad(format!("unknown patch type found: {other}"))),
        }
    }
    Ok(original)
}

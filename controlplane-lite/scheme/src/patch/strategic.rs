//! Strategic merge patch: merges lists by key where the schema says so, and
//! follows the directives `$patch`, `$retainKeys`, `$deleteFromPrimitiveList/x`
//! and `$setElementOrder/x`.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use self::order::Identity;
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
    let keys: HashSet<&str> = keys.iter().filter_map(Value::as_str).collect();
    for key in patch.keys() {
        let directive = key.starts_with('$');
        if !keys.contains(key.as_str()) && !directive && !patch[key].is_null() {
            return Err(bad(format!(
                "invalid retainKeys directive: all fields in the patch must be in the retainKeys list, found {key}"
            )));
        }
    }
    original.retain(|key, _| keys.contains(key.as_str()));
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
        let values: HashSet<Identity<'_>> = values.iter().map(Identity::of_value).collect();
        if let Some(Value::Array(list)) = original.get_mut(key) {
            list.retain(|item| !values.contains(&Identity::of_value(item)));
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
    if objects && patch.iter().any(|item| directive(item) == Some("replace")) {
        return Ok(replacement(patch, schema));
    }
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
        // Then the patch's items stand in the patch's order.
        None => {
            let named: Vec<Value> = patch.iter().filter(|item| directive(item).is_none()).cloned().collect();
            Ok(order::normalize(merged, &named, &server, facts.merge_key))
        }
    }
}

/// Every item of the patch must occur in the order list.
fn check_order(order: &[Value], patch: &[Value], merge_key: &str) -> Result<(), PatchError> {
    let named: HashSet<Identity<'_>> = order.iter().map(|item| Identity::of(item, merge_key)).collect();
    let all = patch.iter().filter(|i| !is_directive_item(i)).all(|i| named.contains(&Identity::of(i, merge_key)));
    if all { Ok(()) } else { Err(bad("The order in patch list:\n doesn't match $setElementOrder list".to_owned())) }
}

fn merge_primitives(original: Vec<Value>, patch: &[Value]) -> Vec<Value> {
    let both: Vec<Value> = original.into_iter().chain(patch.iter().cloned()).collect();
    let mut seen = HashSet::with_capacity(both.len());
    both.iter().filter(|item| seen.insert(Identity::of_value(item))).cloned().collect()
}

/// The `$patch` of a list's item.
fn directive(item: &Value) -> Option<&str> {
    item.get(DIRECTIVE).and_then(Value::as_str)
}

/// The list that `{$patch: replace}` puts in the place of the server's.
fn replacement(patch: &[Value], schema: Option<&ObjectType>) -> Vec<Value> {
    patch
        .iter()
        .filter(|item| item.get(DIRECTIVE).is_none())
        .map(|item| match item {
            Value::Object(map) => Value::Object(strip(map.clone(), schema)),
            other => other.clone(),
        })
        .collect()
}

/// Items to delete go first, whatever their place in the patch; then the others are merged.
fn merge_objects(
    mut original: Vec<Value>,
    patch: &[Value],
    merge_key: &str,
    schema: Option<&ObjectType>,
) -> Result<Vec<Value>, PatchError> {
    let mut deleted = HashSet::new();
    let mut merged = Vec::with_capacity(patch.len());
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
        match map.get(DIRECTIVE).and_then(Value::as_str) {
            Some("delete") => {
                deleted.insert(Identity::of_value(key));
            }
            Some("merge") | None => merged.push(map),
            Some(other) => return Err(bad(format!("unknown patch type found: {other}"))),
        }
    }
    original.retain(|item| item.get(merge_key).is_none_or(|key| !deleted.contains(&Identity::of_value(key))));
    let mut places: HashMap<String, usize> = HashMap::with_capacity(original.len());
    for (place, item) in original.iter().enumerate() {
        if let Some(key) = item.get(merge_key) {
            places.entry(key.to_string()).or_insert(place);
        }
    }
    for map in merged {
        let key = map.get(merge_key).map(Value::to_string).unwrap_or_default();
        if let Some(slot) = places.get(&key).and_then(|place| original.get_mut(*place)) {
            let before = slot.as_object().cloned().unwrap_or_default();
            *slot = Value::Object(merge_map(before, map, schema)?);
        } else {
            places.insert(key, original.len());
            original.push(Value::Object(merge_map(Map::new(), map, schema)?));
        }
    }
    Ok(original)
}

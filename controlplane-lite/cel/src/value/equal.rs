//! Which values are equal, and which of two is less (cel-go's `common/types`).

use std::cmp::Ordering;
use std::collections::HashMap;

use super::{List, Map, Value};
use crate::budget::Budget;
use crate::error::EvalError;
use crate::number;
use crate::schema::ListType;

/// Whether two values are equal. Values of different types are not, but for numbers.
///
/// # Errors
/// If a library's value is compared with something else, or JSON is not what its schema says.
pub(crate) fn equal(a: &Value<'_>, b: &Value<'_>, budget: &Budget) -> Result<bool, EvalError> {
    budget.steps(1)?;
    Ok(match (a, b) {
        (Value::Null, other) | (other, Value::Null) => matches!((a, other), (Value::Null, Value::Null)),
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::String(a), Value::String(b)) => {
            budget.steps(a.len().min(b.len()) / 64)?;
            **a == **b
        }
        (Value::Bytes(a), Value::Bytes(b)) => a == b,
        (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
        (Value::Duration(a), Value::Duration(b)) => a == b,
        (Value::Type(a), Value::Type(b)) => a.runtime_name() == b.runtime_name(),
        (Value::List(a), Value::List(b)) => lists(a, b, budget)?,
        (Value::Map(a), Value::Map(b)) => maps(a, b, budget)?,
        (Value::Optional(a), Value::Optional(b)) => match (a, b) {
            (Some(a), Some(b)) => equal(a, b, budget)?,
            (a, b) => a.is_none() && b.is_none(),
        },
        (Value::Struct(a), Value::Struct(b)) => {
            if a.name != b.name || a.fields.len() != b.fields.len() {
                return Ok(false);
            }
            for (name, value) in &a.fields {
                match b.fields.get(name) {
                    Some(other) if equal(value, other, budget)? => {}
                    _ => return Ok(false),
                }
            }
            true
        }
        (Value::Object(a), Value::Object(b)) => a.equals(b).ok_or_else(EvalError::no_overload)?,
        (Value::Object(_), _) => return Err(EvalError::no_overload()),
        (Value::Unknown(a), Value::Unknown(b)) => a == b,
        (Value::Unknown(a), b) | (b, Value::Unknown(a)) => b.to_json().is_some_and(|b| b == **a),
        _ => number::compare(a, b) == Some(Some(Ordering::Equal)),
    })
}

fn lists(a: &List<'_>, b: &List<'_>, budget: &Budget) -> Result<bool, EvalError> {
    if a.len() != b.len() {
        return Ok(false);
    }
    match a {
        List::Json(_, Some(schema)) if schema.list_type == ListType::Set => return sets(a, b, budget),
        List::Json(_, Some(schema)) if schema.list_type == ListType::Map => {
            return keyed(a, b, &schema.list_map_keys, budget);
        }
        _ => {}
    }
    for (a, b) in a.iter().zip(b.iter()) {
        if !equal(&a?, &b?, budget)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A text by which equal elements are found; they are compared too.
pub(crate) fn digest(value: &Value<'_>) -> String {
    value.to_json().map(|json| json.to_string()).unwrap_or_default()
}

/// Whether lists have the same elements, in any order.
fn sets(a: &List<'_>, b: &List<'_>, budget: &Budget) -> Result<bool, EvalError> {
    budget.steps(a.len().saturating_mul(2))?;
    let mut missing: std::collections::HashSet<String> = std::collections::HashSet::new();
    for element in a.iter() {
        missing.insert(digest(&element?));
    }
    let known = missing.clone();
    for element in b.iter() {
        let element = digest(&element?);
        if !known.contains(&element) {
            return Ok(false);
        }
        missing.remove(&element);
    }
    Ok(missing.is_empty())
}

/// The keys of an element of a list that is a map.
pub(crate) fn list_map_key(element: &Value<'_>, keys: &[String]) -> String {
    let part = |key: &String| match element {
        Value::Map(map) => map.field(&crate::escape::escape(key).unwrap_or_default()).and_then(Result::ok),
        _ => None,
    };
    let parts: Vec<String> = keys.iter().map(|key| part(key).map(|part| digest(&part)).unwrap_or_default()).collect();
    parts.join(",")
}

/// Whether lists have the same elements by their keys.
fn keyed(a: &List<'_>, b: &List<'_>, keys: &[String], budget: &Budget) -> Result<bool, EvalError> {
    budget.steps(a.len().saturating_mul(4))?;
    let mut by_key = HashMap::new();
    for element in a.iter() {
        let element = element?;
        by_key.insert(list_map_key(&element, keys), element);
    }
    let mut seen = std::collections::HashSet::new();
    for other in b.iter() {
        let other = other?;
        let key = list_map_key(&other, keys);
        match by_key.get(&key) {
            Some(element) if equal(element, &other, budget)? => seen.insert(key),
            _ => return Ok(false),
        };
    }
    Ok(seen.len() == by_key.len())
}

fn maps(a: &Map<'_>, b: &Map<'_>, budget: &Budget) -> Result<bool, EvalError> {
    if a.len() != b.len() {
        return Ok(false);
    }
    for key in a.keys() {
        let (Some(a), Some(b)) = (a.get(&key), b.get(&key)) else { return Ok(false) };
        if !equal(&a?, &b?, budget)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Which of two values is less. The inner `None`: one is no number.
///
/// # Errors
/// If the values have no order.
pub(crate) fn compare(a: &Value<'_>, b: &Value<'_>) -> Result<Ordering, EvalError> {
    Ok(match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::String(a), Value::String(b)) => (**a).cmp(&**b),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
        (Value::Duration(a), Value::Duration(b)) => a.cmp(b),
        _ => match number::compare(a, b) {
            Some(Some(order)) => order,
            Some(None) => return Err(EvalError::new("NaN values cannot be ordered")),
            None => return Err(EvalError::no_overload()),
        },
    })
}

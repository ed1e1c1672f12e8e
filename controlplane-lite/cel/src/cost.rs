//! What calls cost when they are evaluated, to the unit (cel-go's `interpreter/runtimecost.go`, and `cost.go` of
//! Kubernetes' library).

use crate::budget::Budget;
use crate::error::EvalError;
use crate::value::{Object, Value};

/// Of a variable, and of each selection.
pub(crate) const SELECT: u64 = 1;
/// Of a list that is made.
pub(crate) const LIST: u64 = 10;
/// Of a map that is made.
pub(crate) const MAP: u64 = 30;
/// Of a struct that is made.
pub(crate) const STRUCT: u64 = 40;
/// Of a question to the authorizer.
pub(crate) const AUTHORIZATION: u64 = 350_000;

/// Of a code point that is looked at.
pub(crate) const STRING_FACTOR: f64 = 0.1;
/// Of a code point of a regular expression.
pub(crate) const REGEX_FACTOR: f64 = 0.25;

/// A size times a factor, rounded up.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
pub(crate) fn scaled(size: u64, factor: f64) -> u64 {
    (size as f64 * factor).ceil() as u64
}

/// The size of an argument. What failed or has no size counts as one; an optional as its value.
fn size(arg: Option<&Result<Value<'_>, EvalError>>, budget: &Budget) -> Result<u64, EvalError> {
    let Some(Ok(mut value)) = arg.map(Result::as_ref) else { return Ok(1) };
    while let Value::Optional(Some(inner)) = value {
        value = inner;
    }
    if let Value::String(text) = value {
        budget.steps(text.len() / 64)?;
    }
    Ok(value.size().map_or(1, |size| size as u64))
}

/// What a call costs.
///
/// # Errors
/// If telling it takes too long.
pub(crate) fn call(
    function: &str,
    overload: Option<&str>,
    args: &[Result<Value<'_>, EvalError>],
    result: &Result<Value<'_>, EvalError>,
    budget: &Budget,
) -> Result<u64, EvalError> {
    let first = || size(args.first(), budget);
    let second = || size(args.get(1), budget);
    let overload = overload.unwrap_or_default();
    if let Some(cost) = list_call(function, overload, args, result, budget)? {
        return Ok(cost);
    }
    Ok(match function {
        "check" => AUTHORIZATION,
        "fieldSelector" | "labelSelector" => selector(second()?),
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => match args.first() {
            Some(Ok(value)) => traversal(value, budget)?,
            _ => 1,
        },
        "url"
        | "lowerAscii"
        | "upperAscii"
        | "substring"
        | "trim"
        | "jsonpatch.escapeKey"
        | "cidr"
        | "isIP"
        | "isCIDR"
        | "quantity"
        | "isQuantity"
        | "semver"
        | "isSemver" => scaled(first()?, STRING_FACTOR),
        "ip" if overload != "cidr_ip" => scaled(first()?, STRING_FACTOR),
        "replace" | "split" | "ip.isCanonical" => scaled(first()?, 2.0 * STRING_FACTOR),
        "join" => scaled(size(Some(result), budget)?, 2.0 * STRING_FACTOR),
        "find" | "findAll" => regex(first()?, second()?),
        "containsIP" => {
            let own = scaled(first()? * 2, STRING_FACTOR);
            own + if overload == "cidr_contains_ip_string" { scaled(second()?, STRING_FACTOR) } else { 0 }
        }
        "containsCIDR" => {
            let network = first()?;
            let own = scaled(network * 2, STRING_FACTOR) + scaled(network, STRING_FACTOR) + 1;
            own + if overload == "cidr_contains_cidr_string" { scaled(second()?, STRING_FACTOR) } else { 0 }
        }
        "validate" => match args.first() {
            Some(Ok(Value::Object(Object::Format(format)))) => regex(second()?, format.pattern_size as u64),
            _ => 1,
        },
        _ => standard(overload, first()?, second()?),
    })
}

/// What a call of cel-go's own functions costs.
fn standard(overload: &str, first: u64, second: u64) -> u64 {
    match overload {
        "starts_with_string" | "ends_with_string" | "string_to_bytes" | "bytes_to_string" | "strings_quote"
        | "string_format" => scaled(first, STRING_FACTOR),
        "in_list" => second,
        "string" | "bytes" => scaled(first.min(second), STRING_FACTOR),
        "add_string" | "add_bytes" => scaled(first + second, STRING_FACTOR),
        "matches_string" => regex(first, second),
        "contains_string" => scaled(first, STRING_FACTOR) * scaled(second, STRING_FACTOR),
        _ => 1,
    }
}

/// What comparing two values costs.
///
/// # Errors
/// If telling it takes too long.
pub(crate) fn equality(
    a: &Result<Value<'_>, EvalError>,
    b: &Result<Value<'_>, EvalError>,
    budget: &Budget,
) -> Result<u64, EvalError> {
    let unit = |arg: &Result<Value<'_>, EvalError>| matches!(arg, Ok(Value::Object(_)));
    if unit(a) {
        return Ok(1);
    }
    Ok(scaled(size(Some(a), budget)?.min(size(Some(b), budget)?), STRING_FACTOR))
}

fn regex(text: u64, pattern: u64) -> u64 {
    scaled(text + 1, STRING_FACTOR).saturating_mul(scaled(pattern, REGEX_FACTOR))
}

/// A selector's cost, by its length: each two characters may be a requirement.
fn selector(length: u64) -> u64 {
    LIST + scaled(length, STRING_FACTOR) + scaled(length, 0.5).saturating_mul(LIST + STRUCT)
}

/// What the functions of cel-go's lists cost, whose sizes grow with what they make (`ext/lists.go`, `ext/sets.go`).
fn list_call(
    function: &str,
    overload: &str,
    args: &[Result<Value<'_>, EvalError>],
    result: &Result<Value<'_>, EvalError>,
    budget: &Budget,
) -> Result<Option<u64>, EvalError> {
    let arg = |index: usize| size(args.get(index), budget);
    let allocated = |size: u64| size.saturating_add(1 + LIST);
    Ok(Some(match function {
        "slice" | "lists.range" => allocated(size(Some(result), budget)?),
        "reverse" if overload == "list_reverse" => allocated(size(Some(result), budget)?),
        "flatten" => {
            let depth = match args.get(1) {
                Some(Ok(Value::Int(depth))) => u64::try_from(*depth).unwrap_or(0),
                _ => 1,
            };
            allocated(arg(0)?.saturating_mul(depth))
        }
        "distinct" | "sort" | "@sortByAssociatedKeys" => {
            let compared = args.get(usize::from(function.starts_with('@')));
            let count = size(compared, budget)?;
            let text = match compared {
                Some(Ok(Value::List(list))) => {
                    matches!(list.get(0), Some(Ok(Value::String(_) | Value::Bytes(_))))
                }
                _ => false,
            };
            let factor = if text { 2.0 + STRING_FACTOR } else { 2.0 };
            allocated(floor_scaled(count.saturating_mul(count), factor))
        }
        "sets.contains" | "sets.intersects" => arg(0)?.saturating_mul(arg(1)?).saturating_add(1),
        "sets.equivalent" => arg(0)?.saturating_mul(arg(1)?).saturating_mul(2).saturating_add(1),
        _ => return Ok(None),
    }))
}

/// A size times a factor, rounded down.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
fn floor_scaled(size: u64, factor: f64) -> u64 {
    (size as f64 * factor) as u64
}

/// The cost of looking at every part of a value.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
fn traversal(value: &Value<'_>, budget: &Budget) -> Result<u64, EvalError> {
    budget.steps(1)?;
    Ok(match value {
        Value::String(text) => floor_scaled(text.len() as u64, STRING_FACTOR),
        Value::Bytes(bytes) => floor_scaled(bytes.len() as u64, STRING_FACTOR),
        Value::List(list) => {
            let mut cost = 0_u64;
            for element in list.iter() {
                cost = cost.saturating_add(element.map_or(Ok(1), |element| traversal(&element, budget))?);
            }
            cost
        }
        Value::Map(map) => {
            let mut cost = 0_u64;
            for key in map.keys() {
                let value = map.get(&key);
                let value = value.map_or(Ok(0), |value| value.map_or(Ok(1), |value| traversal(&value, budget)))?;
                cost = cost.saturating_add(traversal(&key, budget)?).saturating_add(value);
            }
            cost
        }
        _ => 1,
    })
}

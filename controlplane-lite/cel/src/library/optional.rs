//! Values that may be absent (cel-go's `cel/library.go`, version 2). `or` and `orValue` evaluate their argument only if
//! there is no value, which the evaluator sees to.

use super::{Outcome, Scope, Table};
use crate::error::EvalError;
use crate::value::Value;

pub(super) const TABLE: Table = &[
    ("optional.of", "optional_of(V) -> optional(V)", of),
    ("optional.ofNonZeroValue", "optional_ofNonZeroValue(V) -> optional(V)", of_non_zero),
    ("optional.none", "optional_none() -> optional(V)", none),
    ("value", ".optional_value(optional(V)) -> V", value),
    ("hasValue", ".optional_hasValue(optional(V)) -> bool", has_value),
    ("or", ".optional_or_optional(optional(V), optional(V)) -> optional(V)", or),
    ("orValue", ".optional_orValue_value(optional(V), V) -> V", or_value),
    ("first", ".list_first(list(V)) -> optional(V)", first),
    ("last", ".list_last(list(V)) -> optional(V)", last),
    ("optional.unwrap", "optional_unwrap(list(optional(V))) -> list(V)", unwrap),
    ("unwrapOpt", ".optional_unwrapOpt(list(optional(V))) -> list(V)", unwrap),
];

fn of<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [value] => Ok(Value::some(value.clone())),
        _ => scope.refuse(args),
    }
}

fn of_non_zero<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [value] if value.is_zero() => Ok(Value::Optional(None)),
        [value] => Ok(Value::some(value.clone())),
        _ => scope.refuse(args),
    }
}

fn none<'a>(_: &Scope<'_>, _: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Optional(None))
}

fn value<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Optional(Some(value))] => Ok((**value).clone()),
        [Value::Optional(None)] => Err(EvalError::new("optional.none() dereference")),
        _ => scope.refuse(args),
    }
}

fn has_value<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Optional(value)] => Ok(Value::Bool(value.is_some())),
        _ => scope.refuse(args),
    }
}

fn or<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [first @ Value::Optional(Some(_)), _] => Ok(first.clone()),
        [Value::Optional(None), second @ Value::Optional(_)] => Ok(second.clone()),
        _ => scope.refuse(args),
    }
}

fn or_value<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Optional(Some(value)), _] => Ok((**value).clone()),
        [Value::Optional(None), second] => Ok(second.clone()),
        _ => scope.refuse(args),
    }
}

fn first<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::List(list)] => match list.get(0) {
            Some(value) => value.map(Value::some),
            None => Ok(Value::Optional(None)),
        },
        _ => scope.refuse(args),
    }
}

fn last<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::List(list)] => match list.len().checked_sub(1).and_then(|index| list.get(index)) {
            Some(value) => value.map(Value::some),
            None => Ok(Value::Optional(None)),
        },
        _ => scope.refuse(args),
    }
}

fn unwrap<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::List(list)] = args else { return scope.refuse(args) };
    scope.budget.steps(list.len())?;
    let mut out = Vec::new();
    for element in list.iter() {
        match element? {
            Value::Optional(Some(value)) => out.push((*value).clone()),
            Value::Optional(None) => {}
            other => return Err(EvalError::new(format!("value {other} is not optional"))),
        }
    }
    Ok(Value::list(out))
}

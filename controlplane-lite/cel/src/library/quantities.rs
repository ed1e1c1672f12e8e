//! Resource quantities (`quantity.go` of Kubernetes' library).

use std::cmp::Ordering;

use quantity::{Format, Quantity};

use super::{Outcome, Scope, Table, semver};
use crate::error::EvalError;
use crate::value::{Object, Value};

pub(super) const TABLE: Table = &[
    ("quantity", "string_to_quantity(string) -> kubernetes.Quantity", parse),
    ("isQuantity", "is_quantity_string(string) -> bool", is_quantity),
    // Upstream declares this one as function, although its documentation calls it as member.
    ("sign", "quantity_sign(kubernetes.Quantity) -> int", sign),
    (
        "isGreaterThan",
        ".quantity_is_greater_than(kubernetes.Quantity, kubernetes.Quantity) -> bool
        .semver_is_greater_than(kubernetes.Semver, kubernetes.Semver) -> bool",
        is_greater,
    ),
    (
        "isLessThan",
        ".quantity_is_less_than(kubernetes.Quantity, kubernetes.Quantity) -> bool
        .semver_is_less_than(kubernetes.Semver, kubernetes.Semver) -> bool",
        is_less,
    ),
    (
        "compareTo",
        ".quantity_compare_to(kubernetes.Quantity, kubernetes.Quantity) -> int
        .semver_compare_to(kubernetes.Semver, kubernetes.Semver) -> int",
        compare_to,
    ),
    ("asApproximateFloat", ".quantity_get_float(kubernetes.Quantity) -> double", approximate),
    ("asInteger", ".quantity_get_int(kubernetes.Quantity) -> int", as_integer),
    ("isInteger", ".quantity_is_integer(kubernetes.Quantity) -> bool", is_integer),
    (
        "add",
        ".quantity_add(kubernetes.Quantity, kubernetes.Quantity) -> kubernetes.Quantity
        .quantity_add_int(kubernetes.Quantity, int) -> kubernetes.Quantity",
        add,
    ),
    (
        "sub",
        ".quantity_sub(kubernetes.Quantity, kubernetes.Quantity) -> kubernetes.Quantity
        .quantity_sub_int(kubernetes.Quantity, int) -> kubernetes.Quantity",
        sub,
    ),
];

const BILLION: i128 = 1_000_000_000;

fn parse<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::String(text)] => match text.parse::<Quantity>() {
            Ok(quantity) => Ok(Value::Object(Object::Quantity(quantity))),
            Err(error) => Err(EvalError::new(error.to_string())),
        },
        _ => scope.refuse(args),
    }
}

fn is_quantity<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::String(text)] => Ok(Value::Bool(text.parse::<Quantity>().is_ok())),
        _ => scope.refuse(args),
    }
}

fn sign<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Object(Object::Quantity(quantity))] => {
            Ok(Value::Int(i64::try_from(quantity.nanos().signum()).unwrap_or_default()))
        }
        _ => scope.refuse(args),
    }
}

/// Which of two quantities or versions is less.
fn order(args: &[Value<'_>]) -> Option<Ordering> {
    match args {
        [Value::Object(Object::Quantity(a)), Value::Object(Object::Quantity(b))] => Some(a.cmp(b)),
        [Value::Object(Object::Semver(a)), Value::Object(Object::Semver(b))] => Some(semver::order(a, b)),
        _ => None,
    }
}

fn is_greater<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    order(args).map_or_else(|| scope.refuse(args), |order| Ok(Value::Bool(order.is_gt())))
}

fn is_less<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    order(args).map_or_else(|| scope.refuse(args), |order| Ok(Value::Bool(order.is_lt())))
}

fn compare_to<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    order(args).map_or_else(|| scope.refuse(args), |order| Ok(Value::Int(order as i64)))
}

#[allow(clippy::cast_precision_loss)]
fn approximate<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Object(Object::Quantity(quantity))] => Ok(Value::Double(quantity.nanos() as f64 / BILLION as f64)),
        _ => scope.refuse(args),
    }
}

/// The whole number that a quantity is.
fn whole(quantity: &Quantity) -> Option<i64> {
    (quantity.nanos() % BILLION == 0).then(|| i64::try_from(quantity.nanos() / BILLION).ok()).flatten()
}

fn as_integer<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Object(Object::Quantity(quantity))] => {
            whole(quantity).map(Value::Int).ok_or_else(|| EvalError::new("cannot convert value to integer"))
        }
        _ => scope.refuse(args),
    }
}

fn is_integer<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Object(Object::Quantity(quantity))] => Ok(Value::Bool(whole(quantity).is_some())),
        _ => scope.refuse(args),
    }
}

/// The two operands of a sum or difference.
fn operands(args: &[Value<'_>]) -> Option<(Quantity, Quantity)> {
    match args {
        [Value::Object(Object::Quantity(a)), Value::Object(Object::Quantity(b))] => Some((*a, *b)),
        [Value::Object(Object::Quantity(a)), Value::Int(b)] => Some((*a, Quantity::new(*b, Format::DecimalExponent))),
        _ => None,
    }
}

fn add<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match operands(args) {
        Some((a, b)) => Ok(Value::Object(Object::Quantity(a + b))),
        None => scope.refuse(args),
    }
}

fn sub<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match operands(args) {
        Some((a, b)) => Ok(Value::Object(Object::Quantity(a - b))),
        None => scope.refuse(args),
    }
}

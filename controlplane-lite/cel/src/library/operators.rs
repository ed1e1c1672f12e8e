//! Operators: arithmetic with overflow as an error, comparisons, membership (cel-go's `common/stdlib/standard.go`).
//! Those that do not evaluate all their operands, and indexing, are the evaluator's; only their types are here.

use std::cmp::Ordering;

use super::{Outcome, Scope, Table};
use crate::error::EvalError;
use crate::value::{Key, List, Value, compare, equal};

const ORDERED: &str = "bool(bool, bool) -> bool
    int64(int, int) -> bool
    int64_double(int, double) -> bool
    int64_uint64(int, uint) -> bool
    uint64(uint, uint) -> bool
    uint64_double(uint, double) -> bool
    uint64_int64(uint, int) -> bool
    double(double, double) -> bool
    double_int64(double, int) -> bool
    double_uint64(double, uint) -> bool
    string(string, string) -> bool
    bytes(bytes, bytes) -> bool
    timestamp(timestamp, timestamp) -> bool
    duration(duration, duration) -> bool";

pub(super) const TABLE: Table = &[
    ("_?_:_", "conditional(bool, A, A) -> A", unreachable),
    ("_&&_", "logical_and(bool, bool) -> bool", unreachable),
    ("_||_", "logical_or(bool, bool) -> bool", unreachable),
    ("!_", "logical_not(bool) -> bool", not),
    ("@not_strictly_false", "not_strictly_false(bool) -> bool", unreachable),
    ("_==_", "equals(A, A) -> bool", equals),
    ("_!=_", "not_equals(A, A) -> bool", differs),
    (
        "_[_]",
        "index_list(list(A), int) -> A
        index_map(map(A, B), A) -> B
        optional_list_index_int(optional(list(V)), int) -> optional(V)
        optional_map_index_value(optional(map(K, V)), K) -> optional(V)",
        unreachable,
    ),
    (
        "_[?_]",
        "list_optindex_optional_int(list(V), int) -> optional(V)
        optional_list_optindex_optional_int(optional(list(V)), int) -> optional(V)
        map_optindex_optional_value(map(K, V), K) -> optional(V)
        optional_map_optindex_optional_value(optional(map(K, V)), K) -> optional(V)",
        unreachable,
    ),
    ("@in", "in_list(A, list(A)) -> bool\nin_map(A, map(A, B)) -> bool", contains),
    ("_<_", ORDERED, less),
    ("_<=_", ORDERED, less_equals),
    ("_>_", ORDERED, greater),
    ("_>=_", ORDERED, greater_equals),
    (
        "_+_",
        "add_bytes(bytes, bytes) -> bytes
        add_double(double, double) -> double
        add_duration_duration(duration, duration) -> duration
        add_duration_timestamp(duration, timestamp) -> timestamp
        add_timestamp_duration(timestamp, duration) -> timestamp
        add_int64(int, int) -> int
        add_list(list(A), list(A)) -> list(A)
        add_string(string, string) -> string
        add_uint64(uint, uint) -> uint",
        add,
    ),
    (
        "_-_",
        "subtract_double(double, double) -> double
        subtract_duration_duration(duration, duration) -> duration
        subtract_int64(int, int) -> int
        subtract_timestamp_duration(timestamp, duration) -> timestamp
        subtract_timestamp_timestamp(timestamp, timestamp) -> duration
        subtract_uint64(uint, uint) -> uint",
        subtract,
    ),
    (
        "_*_",
        "multiply_double(double, double) -> double
        multiply_int64(int, int) -> int
        multiply_uint64(uint, uint) -> uint",
        multiply,
    ),
    (
        "_/_",
        "divide_double(double, double) -> double
        divide_int64(int, int) -> int
        divide_uint64(uint, uint) -> uint",
        divide,
    ),
    ("_%_", "modulo_int64(int, int) -> int\nmodulo_uint64(uint, uint) -> uint", modulo),
    ("-_", "negate_double(double) -> double\nnegate_int64(int) -> int", negate),
    (
        "cel.@mapInsert",
        "@mapInsert_key_value(map(K, V), K, V) -> map(K, V)\n@mapInsert_map_map(map(K, V), map(K, V)) -> map(K, V)",
        map_insert,
    ),
    (
        "size",
        "size_bytes(bytes) -> int
        .bytes_size(bytes) -> int
        size_list(list(A)) -> int
        .list_size(list(A)) -> int
        size_map(map(A, B)) -> int
        .map_size(map(A, B)) -> int
        size_string(string) -> int
        .string_size(string) -> int",
        size,
    ),
];

/// The evaluator does what it asks itself.
fn unreachable<'a>(_: &Scope<'_>, _: &[Value<'a>]) -> Outcome<'a> {
    Err(EvalError::no_overload())
}

fn not<'a>(_: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Bool(value)] => Ok(Value::Bool(!value)),
        _ => Err(EvalError::no_overload()),
    }
}

fn equals<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [a, b] => equal(a, b, scope.budget).map(Value::Bool),
        _ => Err(EvalError::no_overload()),
    }
}

fn differs<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        // What cannot be compared differs.
        [a, b] => match equal(a, b, scope.budget) {
            Err(error) if error.ends() => Err(error),
            outcome => Ok(Value::Bool(outcome != Ok(true))),
        },
        _ => Err(EvalError::no_overload()),
    }
}

fn contains<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [item, Value::List(list)] => {
            let mut failure = None;
            for element in list.iter() {
                match equal(&element?, item, scope.budget) {
                    Ok(true) => return Ok(Value::Bool(true)),
                    Ok(false) => {}
                    Err(error) if error.ends() => return Err(error),
                    Err(error) => failure = Some(error),
                }
            }
            failure.map_or(Ok(Value::Bool(false)), Err)
        }
        [key, Value::Map(map)] => map.get(key).transpose().map(|found| Value::Bool(found.is_some())),
        _ => Err(EvalError::no_overload()),
    }
}

fn ordered<'a>(args: &[Value<'a>], holds: fn(Ordering) -> bool) -> Outcome<'a> {
    match args {
        [a, b] => compare(a, b).map(|order| Value::Bool(holds(order))),
        _ => Err(EvalError::no_overload()),
    }
}

fn less<'a>(_: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    ordered(args, Ordering::is_lt)
}

fn less_equals<'a>(_: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    ordered(args, Ordering::is_le)
}

fn greater<'a>(_: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    ordered(args, Ordering::is_gt)
}

fn greater_equals<'a>(_: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    ordered(args, Ordering::is_ge)
}

fn int<'a>(result: Option<i64>) -> Outcome<'a> {
    result.map(Value::Int).ok_or_else(|| EvalError::new("integer overflow"))
}

fn uint<'a>(result: Option<u64>) -> Outcome<'a> {
    result.map(Value::Uint).ok_or_else(|| EvalError::new("unsigned integer overflow"))
}

fn span<'a>(result: Option<i64>) -> Outcome<'a> {
    result.map(Value::Duration).ok_or_else(|| EvalError::new("duration overflow"))
}

fn add<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [a, b] => add_values(scope, a.clone(), b),
        _ => Err(EvalError::no_overload()),
    }
}

/// The sum of two values. A list that nothing else has grows in its place.
pub(crate) fn add_values<'a>(scope: &Scope<'_>, a: Value<'a>, b: &Value<'a>) -> Outcome<'a> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => int(a.checked_add(*b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_add(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a + b)),
        (Value::String(a), Value::String(b)) => {
            scope.budget.steps((a.len() + b.len()) / 16)?;
            Ok(Value::text([&*a, &**b].concat()))
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            scope.budget.steps((a.len() + b.len()) / 16)?;
            Ok(Value::Bytes([&*a, &**b].concat().into()))
        }
        (Value::Duration(a), Value::Duration(b)) => span(a.checked_add(*b)),
        (Value::Duration(a), Value::Timestamp(b)) => b.plus(a.into()).map(Value::Timestamp),
        (Value::Timestamp(a), Value::Duration(b)) => a.plus((*b).into()).map(Value::Timestamp),
        (Value::List(a), Value::List(b)) => lists(scope, a, b),
        _ => Err(EvalError::no_overload()),
    }
}

fn lists<'a>(scope: &Scope<'_>, a: List<'a>, b: &List<'a>) -> Outcome<'a> {
    if let List::Json(_, Some(schema)) = &a
        && schema.list_type != crate::schema::ListType::Atomic
    {
        return super::lists::merge(scope, &a, b, schema);
    }
    let shared = match &a {
        List::Owned(items) => std::sync::Arc::strong_count(items) > 1,
        List::Json(..) => true,
    };
    scope.budget.steps(b.len() + if shared { a.len() } else { 0 })?;
    let mut items = a.into_vec()?;
    items.reserve(b.len());
    for item in b.iter() {
        items.push(item?);
    }
    Ok(Value::list(items))
}

fn subtract<'a>(_: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(a), Value::Int(b)] => int(a.checked_sub(*b)),
        [Value::Uint(a), Value::Uint(b)] => uint(a.checked_sub(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a - b)),
        [Value::Duration(a), Value::Duration(b)] => span(a.checked_sub(*b)),
        [Value::Timestamp(a), Value::Duration(b)] => a.plus(-i128::from(*b)).map(Value::Timestamp),
        [Value::Timestamp(a), Value::Timestamp(b)] => a.since(*b).map(Value::Duration),
        _ => Err(EvalError::no_overload()),
    }
}

fn multiply<'a>(_: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(a), Value::Int(b)] => int(a.checked_mul(*b)),
        [Value::Uint(a), Value::Uint(b)] => uint(a.checked_mul(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a * b)),
        _ => Err(EvalError::no_overload()),
    }
}

fn divide<'a>(_: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => Err(EvalError::new("division by zero")),
        [Value::Int(a), Value::Int(b)] => int(a.checked_div(*b)),
        [Value::Uint(a), Value::Uint(b)] => Ok(Value::Uint(a / b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a / b)),
        _ => Err(EvalError::no_overload()),
    }
}

fn modulo<'a>(_: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => Err(EvalError::new("modulus by zero")),
        [Value::Int(a), Value::Int(b)] => int(a.checked_rem(*b)),
        [Value::Uint(a), Value::Uint(b)] => Ok(Value::Uint(a % b)),
        _ => Err(EvalError::no_overload()),
    }
}

fn negate<'a>(_: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(a)] => int(a.checked_neg()),
        [Value::Double(a)] => Ok(Value::Double(-a)),
        _ => Err(EvalError::no_overload()),
    }
}

fn size<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Object(_)] | [] => scope.refuse(args),
        [value, ..] => match value.size() {
            Some(size) => Ok(Value::Int(i64::try_from(size).unwrap_or(i64::MAX))),
            None => scope.refuse(args),
        },
    }
}

fn map_insert<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [map, rest @ ..] => insert(scope, map.clone(), rest),
        [] => scope.refuse(args),
    }
}

/// A map with an entry more, or with the entries of another. A map that nothing else has grows in its place.
pub(crate) fn insert<'a>(scope: &Scope<'_>, map: Value<'a>, rest: &[Value<'a>]) -> Outcome<'a> {
    let Value::Map(map) = map else { return Err(EvalError::no_overload()) };
    let mut entries = map.into_entries()?;
    let added: Vec<(Value<'a>, Value<'a>)> = match rest {
        [key, value] => vec![(key.clone(), value.clone())],
        [Value::Map(other)] => {
            let mut added = Vec::new();
            for key in other.keys() {
                if let Some(value) = other.get(&key) {
                    added.push((key, value?));
                }
            }
            added
        }
        _ => return Err(EvalError::no_overload()),
    };
    scope.budget.steps(added.len())?;
    for (key, value) in added {
        let place = Key::of(&key).ok_or_else(|| EvalError::new(format!("unsupported key type: {}", key.type_of())))?;
        if entries.contains_key(&place) {
            return Err(EvalError::new(format!("insert failed: key {key} already exists")));
        }
        entries.insert(place, value);
    }
    Ok(Value::Map(crate::value::Map::Owned(entries.into())))
}

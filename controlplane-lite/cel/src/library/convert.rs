//! Conversions between types (`ConvertToType` of cel-go's `common/types`).

use super::{Outcome, Scope, Table};
use crate::error::EvalError;
use crate::number;
use crate::time::{self, TimeError, Timestamp};
use crate::types::Type;
use crate::value::{Object, Value};

pub(super) const TABLE: Table = &[
    ("type", "type(A) -> type(A)", type_of),
    ("bool", "bool_to_bool(bool) -> bool\nstring_to_bool(string) -> bool", bool),
    ("bytes", "bytes_to_bytes(bytes) -> bytes\nstring_to_bytes(string) -> bytes", bytes),
    (
        "double",
        "double_to_double(double) -> double
        int64_to_double(int) -> double
        string_to_double(string) -> double
        uint64_to_double(uint) -> double",
        double,
    ),
    ("duration", "duration_to_duration(duration) -> duration\nstring_to_duration(string) -> duration", duration),
    ("dyn", "to_dyn(A) -> dyn", dynamic),
    (
        "int",
        "int64_to_int64(int) -> int
        double_to_int64(double) -> int
        duration_to_int64(duration) -> int
        string_to_int64(string) -> int
        timestamp_to_int64(timestamp) -> int
        uint64_to_int64(uint) -> int",
        int,
    ),
    (
        "string",
        "string_to_string(string) -> string
        bool_to_string(bool) -> string
        bytes_to_string(bytes) -> string
        double_to_string(double) -> string
        duration_to_string(duration) -> string
        int64_to_string(int) -> string
        timestamp_to_string(timestamp) -> string
        uint64_to_string(uint) -> string
        ip_to_string(net.IP) -> string
        cidr_to_string(net.CIDR) -> string",
        string,
    ),
    (
        "timestamp",
        "timestamp_to_timestamp(timestamp) -> timestamp
        int64_to_timestamp(int) -> timestamp
        string_to_timestamp(string) -> timestamp",
        timestamp,
    ),
    (
        "uint",
        "uint64_to_uint64(uint) -> uint
        double_to_uint64(double) -> uint
        int64_to_uint64(int) -> uint
        string_to_uint64(string) -> uint",
        uint,
    ),
];

/// Whether a call of a constant is a constant.
pub(crate) fn is_conversion(name: &str) -> bool {
    TABLE.iter().any(|(known, ..)| *known == name && name != "type") || name == "type"
}

/// What a value cannot be made to.
fn impossible<'a>(from: &Value<'_>, to: &str) -> Outcome<'a> {
    let from = from.type_of();
    Err(EvalError::new(format!("type conversion error from '{}' to '{to}'", from.runtime_name())))
}

fn type_of<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [value] => Ok(Value::Type(value.type_of().into())),
        _ => scope.refuse(args),
    }
}

fn dynamic<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [value] => Ok(value.clone()),
        _ => scope.refuse(args),
    }
}

fn bool<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Bool(value)] => Ok(Value::Bool(*value)),
        [value @ Value::String(text)] => match &**text {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Value::Bool(false)),
            _ => impossible(value, "bool"),
        },
        _ => scope.refuse(args),
    }
}

fn bytes<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Bytes(value)] => Ok(Value::Bytes(value.clone())),
        [Value::String(text)] => {
            scope.budget.steps(text.len() / 16)?;
            Ok(Value::Bytes(text.as_bytes().into()))
        }
        _ => scope.refuse(args),
    }
}

#[allow(clippy::cast_precision_loss)]
fn double<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Double(match args {
        [Value::Double(value)] => *value,
        [Value::Int(value)] => *value as f64,
        [Value::Uint(value)] => *value as f64,
        [value @ Value::String(text)] => match parse_float(text) {
            Some(number) => number,
            None => return impossible(value, "double"),
        },
        _ => return scope.refuse(args),
    }))
}

/// A float as Go's `strconv.ParseFloat` reads it.
fn parse_float(text: &str) -> Option<f64> {
    let bare = text.strip_prefix(['+', '-']).unwrap_or(text);
    if bare.eq_ignore_ascii_case("nan") {
        return (bare.len() == text.len()).then_some(f64::NAN);
    }
    let number: f64 = text.parse().ok()?;
    let named = bare.starts_with(|c: char| c.is_ascii_alphabetic());
    (named || number.is_finite()).then_some(number)
}

fn duration<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Duration(value)] => Ok(Value::Duration(*value)),
        [value @ Value::String(text)] => match time::parse_duration(text) {
            Ok(nanos) => Ok(Value::Duration(nanos)),
            Err(_) => impossible(value, "google.protobuf.Duration"),
        },
        _ => scope.refuse(args),
    }
}

fn int<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let overflow = || EvalError::new("integer overflow");
    Ok(Value::Int(match args {
        [Value::Int(value)] => *value,
        [Value::Double(value)] => number::to_int(*value).ok_or_else(overflow)?,
        [Value::Uint(value)] => i64::try_from(*value).map_err(|_| overflow())?,
        [Value::Duration(nanos)] => *nanos,
        [Value::Timestamp(time)] => time.seconds,
        [value @ Value::String(text)] => match text.parse() {
            Ok(number) => number,
            Err(_) => return impossible(value, "int"),
        },
        _ => return scope.refuse(args),
    }))
}

fn uint<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let overflow = || EvalError::new("unsigned integer overflow");
    Ok(Value::Uint(match args {
        [Value::Uint(value)] => *value,
        [Value::Double(value)] => number::to_uint(*value).ok_or_else(overflow)?,
        [Value::Int(value)] => u64::try_from(*value).map_err(|_| overflow())?,
        [value @ Value::String(text)] => match text.parse() {
            Ok(number) if !text.starts_with('+') => number,
            _ => return impossible(value, "uint"),
        },
        _ => return scope.refuse(args),
    }))
}

fn timestamp<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let overflow = || EvalError::new("timestamp overflow");
    Ok(Value::Timestamp(match args {
        [Value::Timestamp(time)] => *time,
        [Value::Int(seconds)] => Timestamp::new(*seconds, 0).ok_or_else(overflow)?,
        [value @ Value::String(text)] => match time::parse_timestamp(text) {
            Ok(time) => time,
            Err(TimeError::Range) => return Err(overflow()),
            Err(TimeError::Form) => return impossible(value, "google.protobuf.Timestamp"),
        },
        _ => return scope.refuse(args),
    }))
}

fn string<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [value @ Value::String(_)] => Ok(value.clone()),
        [value] => match to_string(value) {
            Some(text) if !matches!(value, Value::Type(_)) => text.map(Value::text),
            _ => scope.refuse(args),
        },
        _ => scope.refuse(args),
    }
}

/// A value as text. `None` for what has no text.
pub(super) fn to_string(value: &Value<'_>) -> Option<Result<String, EvalError>> {
    match value {
        Value::Bytes(bytes) => Some(
            std::str::from_utf8(bytes)
                .map(str::to_owned)
                .map_err(|_| EvalError::new("invalid UTF-8 in bytes, cannot convert to string")),
        ),
        Value::Bool(_)
        | Value::Int(_)
        | Value::Uint(_)
        | Value::Double(_)
        | Value::String(_)
        | Value::Timestamp(_)
        | Value::Duration(_)
        | Value::Type(_)
        | Value::Object(Object::Ip(_) | Object::Cidr(..)) => Some(Ok(value.to_string())),
        _ => None,
    }
}

/// Whether a type is one of values that sets can be looked up by.
pub(crate) const fn is_primitive(of: &Type) -> bool {
    matches!(of, Type::Bool | Type::Int | Type::Uint | Type::Double | Type::String)
}

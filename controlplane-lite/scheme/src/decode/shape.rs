//! Brings a parsed object into the shape of its schema: checks types, drops
//! nulls and unknown fields, writes quantities and times in canonical form.

use quantity::Quantity;
use serde_json::{Map, Value};

use super::problems::{MAX_PROBLEMS, Problem};
use crate::field::{Path, go_quote};
use crate::schema::{Field, ObjectType, Type};

/// A value of the wrong type, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct ShapeError(String);

/// Walks an object; collects unknown fields.
pub(super) struct Shaper {
    /// Unknown fields, the first hundred.
    pub unknown: Vec<Problem>,
    /// Whether whole floats count as integers.
    pub lenient_numbers: bool,
}

/// Where a value is: the innermost struct and the field path, as Go's errors name them,
/// and the full path for unknown fields.
#[derive(Clone, Copy)]
struct At<'a> {
    object: &'a ObjectType,
    fields: Option<&'a Stack<'a>>,
    path: &'a Path<'a>,
}

struct Stack<'a> {
    parent: Option<&'a Stack<'a>>,
    name: &'a str,
}

impl Stack<'_> {
    fn text(&self) -> String {
        match self.parent {
            Some(parent) => format!("{}.{}", parent.text(), self.name),
            None => self.name.to_owned(),
        }
    }
}

impl At<'_> {
    fn mismatch(&self, found: &str, ty: &str) -> ShapeError {
        let fields = self.fields.map(Stack::text).unwrap_or_default();
        ShapeError(format!(
            "json: cannot unmarshal {found} into Go struct field {}.{fields} of type {ty}",
            self.object.short_name()
        ))
    }
}

/// Go's name for a JSON value's type.
pub fn go_json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

impl Shaper {
    /// Shapes a whole object.
    pub(super) fn object(&mut self, value: &mut Value, ty: &ObjectType) -> Result<(), ShapeError> {
        let at = At { object: ty, fields: None, path: &Path::ROOT };
        match value {
            Value::Object(map) => self.fields(map, ty, at),
            other => Err(ShapeError(format!(
                "json: cannot unmarshal {} into Go value of type {}",
                go_json_type(other),
                ty.go_name()
            ))),
        }
    }

    fn fields(&mut self, map: &mut Map<String, Value>, ty: &ObjectType, at: At<'_>) -> Result<(), ShapeError> {
        let mut dropped = Vec::new();
        for (key, value) in map.iter_mut() {
            let path = at.path.child(key);
            let Some(field) = ty.field(key) else {
                if ty.open() {
                    continue;
                }
                if self.unknown.len() < MAX_PROBLEMS {
                    self.unknown.push(Problem::unknown(&path));
                }
                dropped.push(key.clone());
                continue;
            };
            if value.is_null() {
                dropped.push(key.clone());
                continue;
            }
            let stack = Stack { parent: at.fields, name: key };
            self.value(value, &field.ty, At { object: ty, fields: Some(&stack), path: &path })?;
            if means_absent(value, field) {
                dropped.push(key.clone());
            }
        }
        for key in dropped {
            map.remove(&key);
        }
        Ok(())
    }

    fn value(&mut self, value: &mut Value, ty: &Type, at: At<'_>) -> Result<(), ShapeError> {
        match ty {
            Type::Any => Ok(()),
            Type::Object(object) => match value {
                Value::Object(map) => self.fields(map, object, at),
                other => Err(at.mismatch(go_json_type(other), &ty.go_name())),
            },
            Type::List(item) => match value {
                Value::Array(items) => {
                    for (i, value) in items.iter_mut().enumerate() {
                        let path = at.path.index(i);
                        if value.is_null() {
                            *value = zero(item);
                        }
                        self.value(value, item, At { path: &path, ..at })?;
                    }
                    Ok(())
                }
                other => Err(at.mismatch(go_json_type(other), &ty.go_name())),
            },
            Type::Map(item) => match value {
                Value::Object(map) => {
                    for (key, value) in map.iter_mut() {
                        let path = at.path.child(key);
                        if value.is_null() {
                            *value = zero(item);
                        }
                        self.value(value, item, At { path: &path, ..at })?;
                    }
                    Ok(())
                }
                other => Err(at.mismatch(go_json_type(other), &ty.go_name())),
            },
            scalar => self.scalar(value, scalar, at),
        }
    }

    fn scalar(&self, value: &mut Value, ty: &Type, at: At<'_>) -> Result<(), ShapeError> {
        match (ty, &mut *value) {
            (Type::String, Value::String(_)) | (Type::Bool, Value::Bool(_)) | (Type::Float, Value::Number(_)) => Ok(()),
            (Type::Bytes, Value::String(text)) => bytes(text),
            (Type::Int32, Value::Number(_)) => self.integer(value, i64::from(i32::MIN)..=i64::from(i32::MAX), ty, at),
            (Type::Int64, Value::Number(_)) => self.integer(value, i64::MIN..=i64::MAX, ty, at),
            (Type::IntOrString, Value::String(_)) => Ok(()),
            (Type::IntOrString, Value::Number(_)) => {
                self.integer(value, i64::from(i32::MIN)..=i64::from(i32::MAX), &Type::Int32, at)
            }
            (Type::Quantity, Value::String(_) | Value::Number(_)) => quantity(value),
            (Type::Time, Value::String(text)) => time(text, false),
            (Type::MicroTime, Value::String(text)) => time(text, true),
            (Type::IntOrString, other) => {
                Err(ShapeError(format!("json: cannot unmarshal {} into Go value of type int32", go_json_type(other))))
            }
            (Type::Time | Type::MicroTime, other) => {
                Err(ShapeError(format!("json: cannot unmarshal {} into Go value of type string", go_json_type(other))))
            }
            (Type::Quantity, _) => Err(ShapeError(quantity::FORMAT_ERROR.to_owned())),
            (ty, other) => Err(at.mismatch(go_json_type(other), &ty.go_name())),
        }
    }

    fn integer(
        &self,
        value: &mut Value,
        range: std::ops::RangeInclusive<i64>,
        ty: &Type,
        at: At<'_>,
    ) -> Result<(), ShapeError> {
        if let Some(number) = value.as_i64() {
            if range.contains(&number) {
                return Ok(());
            }
        } else if self.lenient_numbers
            && let Some(number) = value.as_f64()
            && number.fract() == 0.0
            && number.abs() < 9.0e15
        {
            #[allow(clippy::cast_possible_truncation)] // whole and below 2^53
            let whole = number as i64;
            if range.contains(&whole) {
                *value = whole.into();
                return Ok(());
            }
        }
        Err(at.mismatch(&format!("number {value}"), &ty.go_name()))
    }
}

/// Whether a field's value says no more than its absence: empty lists and maps, and the zero values
/// that Go leaves out. Upstream's round trip through Go types drops them too.
fn means_absent(value: &Value, field: &Field) -> bool {
    match (&field.ty, value) {
        (Type::List(_), Value::Array(items)) => items.is_empty() && !field.required,
        (Type::Map(_), Value::Object(map)) => map.is_empty() && !field.required,
        _ => field.is_zero(value),
    }
}

/// What a null item of a list or map reads as.
fn zero(ty: &Type) -> Value {
    match ty {
        Type::Any | Type::IntOrString => Value::Null,
        Type::String | Type::Bytes => "".into(),
        Type::Time | Type::MicroTime => "0001-01-01T00:00:00Z".into(),
        Type::Quantity => "0".into(),
        Type::Int32 | Type::Int64 | Type::Float => 0.into(),
        Type::Bool => false.into(),
        Type::List(_) => Value::Array(Vec::new()),
        Type::Map(_) | Type::Object(_) => Value::Object(Map::new()),
    }
}

fn quantity(value: &mut Value) -> Result<(), ShapeError> {
    let text = match &*value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    // An empty string or null reads as zero, as in Go.
    let canonical = if text.is_empty() {
        "0".to_owned()
    } else {
        text.parse::<Quantity>().map_err(|e| ShapeError(e.to_string()))?.to_string()
    };
    if value.as_str() != Some(&canonical) {
        *value = canonical.into();
    }
    Ok(())
}

fn bytes(text: &mut String) -> Result<(), ShapeError> {
    use base64::Engine as _;
    // Go's decoder skips line ends.
    if text.contains(['\r', '\n']) {
        text.retain(|c| c != '\r' && c != '\n');
    }
    match base64::engine::general_purpose::STANDARD.decode(text.as_bytes()) {
        Ok(_) => Ok(()),
        Err(base64::DecodeError::InvalidByte(at, _)) => {
            Err(ShapeError(format!("illegal base64 data at input byte {at}")))
        }
        Err(_) => Err(ShapeError(format!("illegal base64 data at input byte {}", text.len() / 4 * 4))),
    }
}

/// What Go says of a text that is no RFC 3339 time.
#[must_use]
pub fn time_problem(text: &str) -> Option<String> {
    time(&mut text.to_owned(), false).err().map(|problem| problem.0)
}

/// Checks an RFC 3339 time and writes it in UTC with upstream's precision.
fn time(text: &mut String, micro: bool) -> Result<(), ShapeError> {
    let canonical_len = if micro { 27 } else { 20 };
    let parsed: jiff::Timestamp = text.parse().map_err(|_| {
        let layout = if micro { "2006-01-02T15:04:05.000000Z07:00" } else { "2006-01-02T15:04:05Z07:00" };
        ShapeError(format!(
            "parsing time {} as {}: cannot parse {} as \"2006\"",
            go_quote(text),
            go_quote(layout),
            go_quote(text)
        ))
    })?;
    if text.len() == canonical_len && text.ends_with('Z') && text.as_bytes().get(10) == Some(&b'T') {
        return Ok(());
    }
    *text = if micro { format!("{parsed:.6}") } else { format!("{parsed:.0}") };
    Ok(())
}

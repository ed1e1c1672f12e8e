//! JSON as values, and values as JSON (`pkg/cel/common/valuesunstructured.go` of `k8s.io/apiserver`).

use base64::Engine;
use serde_json::Value as Json;

use super::{Key, List, Map, Text, Value};
use crate::error::EvalError;
use crate::schema::{Schema, SchemaType};
use crate::time;

impl<'a> Value<'a> {
    /// JSON as a value. Without a schema it is what it looks like.
    ///
    /// # Errors
    /// If it is not what its schema says.
    pub fn of_json(json: &'a Json, schema: Option<&'a Schema>) -> Result<Self, EvalError> {
        let Some(schema) = schema else { return Ok(untyped(json)) };
        if json.is_null() {
            if schema.nullable {
                return Ok(Self::Null);
            }
            return Err(EvalError::new("invalid data, got null for schema with nullable=false"));
        }
        if schema.int_or_string {
            return match json {
                Json::String(_) => Ok(untyped(json)),
                Json::Number(number) if number.is_i64() => Ok(untyped(json)),
                _ => Err(EvalError::new("invalid data, expected XIntOrString value to be either a string or integer")),
            };
        }
        match schema.of {
            SchemaType::Object => match json {
                Json::Object(object) => Ok(Self::Map(Map::Json(object, Some(schema)))),
                _ => Err(EvalError::new("invalid data, expected a map for the provided schema with type=object")),
            },
            SchemaType::Array => match json {
                Json::Array(items) => Ok(Self::List(List::Json(items, Some(schema)))),
                _ => Err(EvalError::new("invalid data, expected an array for the provided schema with type=array")),
            },
            SchemaType::String => match json {
                Json::String(text) => formatted(text, &schema.format),
                other => expected("string", other),
            },
            SchemaType::Number => match json.as_f64() {
                Some(number) => Ok(Self::Double(number)),
                None => expected("float", json),
            },
            SchemaType::Integer => match json.as_i64() {
                Some(number) => Ok(Self::Int(number)),
                None => expected("int", json),
            },
            SchemaType::Boolean => match json {
                Json::Bool(value) => Ok(Self::Bool(*value)),
                other => expected("bool", other),
            },
            SchemaType::None => Ok(Self::Unknown(json)),
        }
    }

    /// The value as JSON. `None` for what has no form in JSON.
    #[must_use]
    pub fn to_json(&self) -> Option<Json> {
        Some(match self {
            Self::Null => Json::Null,
            Self::Bool(value) => Json::Bool(*value),
            Self::Int(value) => (*value).into(),
            Self::Uint(value) => (*value).into(),
            Self::Double(value) => Json::Number(serde_json::Number::from_f64(*value)?),
            Self::String(text) => Json::String(text.to_string()),
            Self::Bytes(bytes) => Json::String(base64::engine::general_purpose::STANDARD.encode(bytes)),
            Self::Timestamp(time) => Json::String(time.to_string()),
            Self::Duration(nanos) => Json::String(time::format_duration(*nanos)),
            Self::List(List::Json(items, _)) => Json::Array(items.to_vec()),
            Self::List(List::Owned(items)) => Json::Array(items.iter().map(Self::to_json).collect::<Option<_>>()?),
            Self::Map(Map::Json(object, _)) => Json::Object((*object).clone()),
            Self::Map(Map::Owned(entries)) => {
                let entry = |(key, value): (&Key, &Self)| Some((key.to_value().to_string(), value.to_json()?));
                Json::Object(entries.iter().map(entry).collect::<Option<_>>()?)
            }
            Self::Struct(value) => {
                let field = |(name, value): (&std::sync::Arc<str>, &Self)| Some((name.to_string(), value.to_json()?));
                Json::Object(value.fields.iter().map(field).collect::<Option<_>>()?)
            }
            Self::Optional(Some(value)) => value.to_json()?,
            Self::Unknown(json) => (*json).clone(),
            Self::Object(object) => object.to_json()?,
            Self::Optional(None) | Self::Type(_) | Self::Lazy(_) => return None,
        })
    }
}

fn untyped(json: &Json) -> Value<'_> {
    match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match number.as_i64() {
            Some(value) => Value::Int(value),
            None => Value::Double(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::String(Text::Borrowed(text)),
        Json::Array(items) => Value::List(List::Json(items, None)),
        Json::Object(object) => Value::Map(Map::Json(object, None)),
    }
}

fn expected<'a>(what: &str, found: &Json) -> Result<Value<'a>, EvalError> {
    let found = match found {
        Json::Null => "<nil>",
        Json::Bool(_) => "bool",
        Json::Number(number) if number.is_i64() => "int64",
        Json::Number(_) => "float64",
        Json::String(_) => "string",
        Json::Array(_) => "[]interface {}",
        Json::Object(_) => "map[string]interface {}",
    };
    Err(EvalError::new(format!("invalid data, expected {what}, got {found}")))
}

/// Text by a schema's format.
fn formatted<'a>(text: &'a str, format: &str) -> Result<Value<'a>, EvalError> {
    Ok(match format {
        "duration" => match time::parse_duration(text) {
            Ok(nanos) => Value::Duration(nanos),
            Err(_) => {
                return Err(EvalError::new(format!("Invalid duration {text}: unable to parse {text} as duration")));
            }
        },
        "date" => match time::parse_timestamp(&format!("{text}T00:00:00Z")) {
            Ok(time) => Value::Timestamp(time),
            Err(_) => return Err(EvalError::new(format!("Invalid date formatted string {text}"))),
        },
        "date-time" => match time::parse_timestamp(text) {
            Ok(time) => Value::Timestamp(time),
            Err(_) => return Err(EvalError::new(format!("Invalid date-time formatted string {text}"))),
        },
        "byte" => match base64::engine::general_purpose::STANDARD.decode(text) {
            Ok(bytes) => Value::Bytes(bytes.into()),
            Err(error) => return Err(EvalError::new(format!("Invalid byte formatted string {text}: {error}"))),
        },
        _ => Value::String(Text::Borrowed(text)),
    })
}

//! Maps: objects of JSON, or what an expression made.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Text, Value};
use crate::error::EvalError;
use crate::escape::{escape, unescape};
use crate::schema::Schema;

/// A map, or an object of JSON.
#[derive(Debug, Clone)]
pub enum Map<'a> {
    /// An object of JSON, with its schema if it has one.
    Json(&'a serde_json::Map<String, serde_json::Value>, Option<&'a Schema>),
    /// Values by keys.
    Owned(Arc<BTreeMap<Key, Value<'a>>>),
}

/// A key of a map. Numbers of different types that are equal are one key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A boolean.
    Bool(bool),
    /// A number.
    Int(i64),
    /// A number that no signed one is.
    Uint(u64),
    /// Text.
    String(Arc<str>),
}

impl Key {
    /// The key that a value is. `None` for what cannot be one.
    pub(crate) fn of(value: &Value<'_>) -> Option<Self> {
        Some(match value {
            Value::Bool(value) => Self::Bool(*value),
            Value::Int(value) => Self::Int(*value),
            Value::Uint(value) => i64::try_from(*value).map_or(Self::Uint(*value), Self::Int),
            Value::Double(value) => Self::Int(crate::number::whole(*value)?),
            Value::String(Text::Shared(text)) => Self::String(Arc::clone(text)),
            Value::String(Text::Borrowed(text)) => Self::String((*text).into()),
            _ => return None,
        })
    }

    /// The value that a key is.
    pub(crate) fn to_value<'a>(&self) -> Value<'a> {
        match self {
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => Value::Int(*value),
            Self::Uint(value) => Value::Uint(*value),
            Self::String(text) => Value::String(Text::Shared(Arc::clone(text))),
        }
    }
}

/// The fields that a schema names, if it names any.
fn properties(schema: Option<&Schema>) -> Option<&BTreeMap<String, Schema>> {
    schema.and_then(|schema| schema.properties.as_ref())
}

impl<'a> Map<'a> {
    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Json(object, schema @ Some(_)) => {
                object.keys().filter(|key| Self::value_schema(*schema, key).is_some()).count()
            }
            Self::Json(object, _) => object.len(),
            Self::Owned(entries) => entries.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The schema of an entry's value, by its name in JSON. Outer `None`: there is no such entry.
    fn value_schema(schema: Option<&'a Schema>, key: &str) -> Option<Option<&'a Schema>> {
        let Some(schema) = schema else { return Some(None) };
        match (properties(Some(schema)), &schema.additional) {
            (Some(properties), _) => properties.get(key).map(Some),
            (None, Some(values)) => Some(Some(values)),
            (None, None) => None,
        }
    }

    /// An entry by the name that expressions use.
    ///
    /// # Errors
    /// If the JSON is not what its schema says.
    pub fn field(&self, name: &str) -> Option<Result<Value<'a>, EvalError>> {
        match self {
            Self::Json(object, schema) => {
                let name = if properties(*schema).is_some() { unescape(name)? } else { name.into() };
                let found = object.get(&*name).zip(Self::value_schema(*schema, &name));
                found.map(|(value, schema)| Value::of_json(value, schema))
            }
            Self::Owned(entries) => entries.get(&Key::String(name.into())).cloned().map(Ok),
        }
    }

    /// An entry by a key.
    ///
    /// # Errors
    /// If the JSON is not what its schema says.
    pub fn get(&self, key: &Value<'_>) -> Option<Result<Value<'a>, EvalError>> {
        match (self, key) {
            (Self::Json(..), Value::String(name)) => self.field(name),
            (Self::Json(..), _) => None,
            (Self::Owned(entries), key) => entries.get(&Key::of(key)?).cloned().map(Ok),
        }
    }

    /// Each key, as expressions see it.
    pub fn keys(&self) -> Vec<Value<'a>> {
        match self {
            Self::Json(object, schema) => {
                let escaped = properties(*schema).is_some();
                let known = object.keys().filter(|key| Self::value_schema(*schema, key).is_some());
                known
                    .filter_map(|key| if escaped { escape(key) } else { Some(key.into()) })
                    .map(|key| match key {
                        std::borrow::Cow::Borrowed(key) => Value::String(Text::Borrowed(key)),
                        std::borrow::Cow::Owned(key) => Value::text(key),
                    })
                    .collect()
            }
            Self::Owned(entries) => entries.keys().map(Key::to_value).collect(),
        }
    }

    /// All entries, without a copy if nothing else has them.
    ///
    /// # Errors
    /// If the JSON is not what its schema says.
    pub(crate) fn into_entries(self) -> Result<BTreeMap<Key, Value<'a>>, EvalError> {
        match self {
            Self::Owned(entries) => Ok(Arc::unwrap_or_clone(entries)),
            json @ Self::Json(..) => {
                let mut entries = BTreeMap::new();
                for key in json.keys() {
                    if let (Some(key), Some(value)) = (Key::of(&key), json.get(&key)) {
                        entries.insert(key, value?);
                    }
                }
                Ok(entries)
            }
        }
    }
}

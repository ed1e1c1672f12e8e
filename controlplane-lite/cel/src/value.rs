//! Values of expressions. What comes of JSON stays where it is: values refer to it, and read it as they are asked.

mod equal;
mod json;
mod list;
mod map;
mod object;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

pub use list::List;
pub use map::{Key, Map};
pub use object::{Authorizer, Check, Decision, Object, StructValue, Url};

pub(crate) use equal::{compare, digest, equal, list_map_key};

use crate::time::Timestamp;
use crate::types::Type;

/// A value.
#[derive(Debug, Clone)]
pub enum Value<'a> {
    /// Null.
    Null,
    /// A boolean.
    Bool(bool),
    /// A signed number.
    Int(i64),
    /// An unsigned number.
    Uint(u64),
    /// A floating point number.
    Double(f64),
    /// Text.
    String(Text<'a>),
    /// Bytes.
    Bytes(Arc<[u8]>),
    /// A time.
    Timestamp(Timestamp),
    /// A span of time, in nanoseconds.
    Duration(i64),
    /// A list.
    List(List<'a>),
    /// A map or an object of JSON.
    Map(Map<'a>),
    /// A type.
    Type(Arc<Type>),
    /// A value that may be absent.
    Optional(Option<Arc<Value<'a>>>),
    /// A value of one of Kubernetes' libraries.
    Object(Object<'a>),
    /// A value of a type that an expression made.
    Struct(Arc<StructValue<'a>>),
    /// Data that a schema says nothing of.
    Unknown(&'a serde_json::Value),
    /// A variable whose fields the activation evaluates when they are asked.
    Lazy(Arc<str>),
}

/// Text, borrowed or shared.
#[derive(Debug, Clone)]
pub enum Text<'a> {
    /// Of what the evaluation is given.
    Borrowed(&'a str),
    /// Of the expression, or made in the evaluation.
    Shared(Arc<str>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Self::Shared(text.into())
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl<'a> Value<'a> {
    /// Text that the value keeps.
    pub fn text(text: impl Into<String>) -> Self {
        Self::String(text.into().into())
    }

    /// A list of values.
    #[must_use]
    pub fn list(values: Vec<Self>) -> Self {
        Self::List(List::Owned(Arc::new(values)))
    }

    /// A value that is there, as optional.
    #[must_use]
    pub fn some(value: Self) -> Self {
        Self::Optional(Some(Arc::new(value)))
    }

    /// The boolean that it is.
    #[must_use]
    pub const fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The text that it is.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The type that it has.
    #[must_use]
    pub fn type_of(&self) -> Type {
        match self {
            Self::Null => Type::Null,
            Self::Bool(_) => Type::Bool,
            Self::Int(_) => Type::Int,
            Self::Uint(_) => Type::Uint,
            Self::Double(_) => Type::Double,
            Self::String(_) => Type::String,
            Self::Bytes(_) => Type::Bytes,
            Self::Timestamp(_) => Type::Timestamp,
            Self::Duration(_) => Type::Duration,
            Self::List(_) => Type::list(Type::Dyn),
            Self::Map(_) => Type::map(Type::Dyn, Type::Dyn),
            Self::Type(_) => Type::Type(None),
            Self::Optional(_) => Type::optional(Type::Dyn),
            Self::Object(object) => object.type_of(),
            Self::Struct(value) => Type::Struct(Arc::clone(&value.name)),
            Self::Unknown(_) => Type::named("unknown"),
            Self::Lazy(name) => Type::Struct(Arc::clone(name)),
        }
    }

    /// The size that costs are counted by: code points, bytes, elements or entries. `None` for what has none.
    pub(crate) fn size(&self) -> Option<usize> {
        match self {
            Self::String(text) => Some(text.chars().count()),
            Self::Bytes(bytes) => Some(bytes.len()),
            Self::List(list) => Some(list.len()),
            Self::Map(map) => Some(map.len()),
            Self::Object(object) => object.size(),
            _ => None,
        }
    }

    /// Whether it says nothing: empty, zero, false or null.
    pub(crate) fn is_zero(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Bool(value) => !value,
            Self::Int(value) => *value == 0,
            Self::Uint(value) => *value == 0,
            Self::Double(value) => *value == 0.0,
            Self::Duration(value) => *value == 0,
            Self::String(_) | Self::Bytes(_) | Self::List(_) | Self::Map(_) => self.size() == Some(0),
            Self::Struct(value) => value.fields.is_empty(),
            Self::Optional(value) => value.is_none(),
            _ => false,
        }
    }
}

/// How a value is named in errors.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => value.fmt(f),
            Self::Int(value) => value.fmt(f),
            Self::Uint(value) => value.fmt(f),
            Self::Double(value) => f.write_str(&crate::number::format_double(*value)),
            Self::String(text) => f.write_str(text),
            Self::Type(of) => f.write_str(of.runtime_name()),
            Self::Timestamp(time) => time.fmt(f),
            Self::Duration(nanos) => f.write_str(&crate::time::format_duration(*nanos)),
            Self::Object(object) => object.fmt(f),
            other => f.write_str(other.type_of().runtime_name()),
        }
    }
}

//! Paths of fields: how one finds the way from an object to a part of it (`structured-merge-diff/fieldpath`).

use std::cmp::Ordering;
use std::fmt::{self, Display};

use serde_json::{Map, Value};
use thiserror::Error;

use crate::value::{self, Printed};

/// One step of a path. Sorted as upstream sorts them: fields, keys, values, indexes.
#[derive(Debug, Clone)]
pub enum PathElement {
    /// A field of an object, or a key of a map.
    Field(Box<str>),
    /// The item of a list of objects that has these fields, sorted by name.
    Key(Box<[(Box<str>, Value)]>),
    /// The item of a set that is this scalar.
    Value(Value),
    /// The item at this place of a list.
    Index(i64),
}

/// Why a text is no path element.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PathError {
    /// Shorter than its prefix.
    #[error("key must be 2 characters long:")]
    Short,
    /// Without a colon after its first letter.
    #[error("missing colon: {0}")]
    Colon(String),
    /// What follows the prefix is not what the prefix demands.
    #[error("{0}")]
    Content(String),
}

impl PathElement {
    /// The element of a field.
    pub fn field(name: &str) -> Self {
        Self::Field(name.into())
    }

    /// Reads the form that `FieldsV1` has: `f:NAME`, `k:{…}`, `v:VALUE`, `i:INDEX`. None for a kind of element that a
    /// later version may know, which readers pass over.
    ///
    /// # Errors
    /// A prefix without a colon, or content that the prefix does not go with.
    pub fn parse(text: &str) -> Result<Option<Self>, PathError> {
        let [kind, colon, ..] = text.as_bytes() else { return Err(PathError::Short) };
        if *colon != b':' {
            return Err(PathError::Colon(text.to_owned()));
        }
        let content = text.get(2..).ok_or_else(|| PathError::Colon(text.to_owned()))?;
        let json = || serde_json::from_str::<Value>(content).map_err(|error| PathError::Content(error.to_string()));
        Ok(Some(match kind {
            b'f' => Self::field(content),
            b'v' => Self::Value(scalar(json()?)?),
            b'k' => match json()? {
                Value::Object(fields) => {
                    let fields = fields.into_iter().map(|(name, value)| Ok((name, scalar(value)?)));
                    Self::key(fields.collect::<Result<_, PathError>>()?)
                }
                other => return Err(PathError::Content(format!("expected an object, got {}", kind_of(&other)))),
            },
            b'i' => Self::Index(content.parse().map_err(|_| PathError::Content(format!("{content}: no number")))?),
            _ => return Ok(None),
        }))
    }

    /// The element of an item with these fields.
    pub fn key(fields: Map<String, Value>) -> Self {
        let mut fields: Vec<(Box<str>, Value)> = fields.into_iter().map(|(name, value)| (name.into(), value)).collect();
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        Self::Key(fields.into())
    }

    /// The form that `FieldsV1` has.
    pub fn text(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(fields) => {
                let fields: Map<String, Value> = fields.iter().map(|(k, v)| (k.to_string(), v.clone())).collect();
                format!("k:{}", Value::Object(fields))
            }
            Self::Value(value) => format!("v:{value}"),
            Self::Index(index) => format!("i:{index}"),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Field(_) => 0,
            Self::Key(_) => 1,
            Self::Value(_) => 2,
            Self::Index(_) => 3,
        }
    }
}

impl Ord for PathElement {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Field(a), Self::Field(b)) => a.cmp(b),
            (Self::Key(a), Self::Key(b)) => {
                let mut orders =
                    a.iter().zip(b.iter()).map(|(a, b)| a.0.cmp(&b.0).then_with(|| value::compare(&a.1, &b.1)));
                orders.find(|order| order.is_ne()).unwrap_or_else(|| a.len().cmp(&b.len()))
            }
            (Self::Value(a), Self::Value(b)) => value::compare(a, b),
            (Self::Index(a), Self::Index(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for PathElement {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for PathElement {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for PathElement {}

impl Display for PathElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(fields) => {
                f.write_str("[")?;
                for (at, (name, value)) in fields.iter().enumerate() {
                    write!(f, "{}{name}={}", if at == 0 { "" } else { "," }, Printed(value))?;
                }
                f.write_str("]")
            }
            Self::Value(value) => write!(f, "[={}]", Printed(value)),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// What may tell an item from others: no list and no object, which nobody accounted for when the text was read.
fn scalar(value: Value) -> Result<Value, PathError> {
    match value {
        Value::Array(_) | Value::Object(_) => {
            Err(PathError::Content(format!("expected a scalar, got {}", kind_of(&value))))
        }
        scalar => Ok(scalar),
    }
}

/// What a value is, for errors.
pub(crate) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A path as messages print it: `.spec.containers[name="web"].image`.
pub struct PrintedPath<'p>(pub &'p [&'p PathElement]);

impl Display for PrintedPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|element| element.fmt(f))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Cases of upstream's `fieldpath/serialize-pe_test.go`.
    #[test]
    fn elements_are_read_and_written() {
        for text in [
            "f:spec",
            "f:a:b",
            "f:",
            "i:0",
            "i:1234",
            "v:-1",
            "v:0.5",
            "v:\"some-string\"",
            "v:\"\"",
            "v:true",
            "v:null",
            r#"k:{"name":"my-container"}"#,
            r#"k:{"containerPort":8080,"protocol":"TCP"}"#,
        ] {
            let element = PathElement::parse(text).unwrap().unwrap();
            assert_eq!(element.text(), text);
        }
        for text in
            ["", "f", "no", "i:", "i:x", "k:[1]", "k:{", r#"k:{"a":[]}"#, "v:{}", "v:[1]", "v:", "v:1 2", "f\u{e9}x"]
        {
            assert!(PathElement::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(PathElement::parse("z:anything"), Ok(None));
    }

    #[test]
    fn paths_are_printed_as_in_conflicts() {
        let path = ["f:spec", "f:ports", r#"k:{"port":80,"protocol":"TCP"}"#, "f:name"];
        let path: Vec<_> = path.iter().map(|text| PathElement::parse(text).unwrap().unwrap()).collect();
        let path: Vec<_> = path.iter().collect();
        assert_eq!(PrintedPath(&path).to_string(), r#".spec.ports[port=80,protocol="TCP"].name"#);
        assert_eq!(PathElement::parse("v:\"a\"").unwrap().unwrap().to_string(), r#"[="a"]"#);
        assert_eq!(PathElement::Index(3).to_string(), "[3]");
    }
}

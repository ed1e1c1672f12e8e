//! Whether a value is of a type (`typed/validate.go`).

use std::collections::BTreeSet;

use serde_json::Value;

use super::{TypeErrors, element_of};
use crate::path::PathElement;
use crate::schema::{Atom, By, List, Map, Place, Scalar};

/// Says whether `value` fits the place, as a configuration must: no associative list may have an item twice.
///
/// # Errors
/// All that does not fit.
pub fn validate(value: &Value, at: Place<'_>) -> Result<(), TypeErrors> {
    let mut walk = Walk { errors: TypeErrors::default() };
    walk.value(value, at, "");
    if walk.errors.0.is_empty() { Ok(()) } else { Err(walk.errors) }
}

struct Walk {
    errors: TypeErrors,
}

impl Walk {
    fn error(&mut self, path: &str, message: impl Into<String>) {
        self.errors.0.push((path.to_owned(), message.into()));
    }

    fn value(&mut self, value: &Value, at: Place<'_>, path: &str) {
        match at.atom(Some(value)) {
            Atom::Scalar(scalar) => self.scalar(value, scalar, path),
            Atom::List(list) => self.list(value, &list, path),
            Atom::Map(map) => self.map(value, &map, path),
        }
    }

    fn scalar(&mut self, value: &Value, scalar: Scalar, path: &str) {
        let message = match (scalar, value) {
            (_, Value::Null)
            | (Scalar::Numeric, Value::Number(_))
            | (Scalar::String, Value::String(_))
            | (Scalar::Boolean, Value::Bool(_))
            | (Scalar::Untyped, Value::Number(_) | Value::String(_) | Value::Bool(_)) => return,
            (Scalar::Numeric, other) => format!("expected numeric (int or float), got {}", go_type(other)),
            (Scalar::String, other) => format!("expected string, got &value.valueUnstructured{{Value:{other}}}"),
            (Scalar::Boolean, other) => format!("expected boolean, got &{{{other}}}"),
            (Scalar::Untyped, other) => format!("expected any scalar, got &{{{other}}}"),
        };
        self.error(path, message);
    }

    fn list(&mut self, value: &Value, list: &List<'_>, path: &str) {
        let items = match value {
            Value::Null => return,
            Value::Array(items) => items,
            other => return self.error(path, format!("expected list, got &{{{other}}}")),
        };
        let mut seen = BTreeSet::new();
        for (at, item) in items.iter().enumerate() {
            let element = match list.by {
                By::Atomic => PathElement::Index(i64::try_from(at).unwrap_or(i64::MAX)),
                _ => match element_of(list, item) {
                    Ok(element) => element,
                    Err(message) => return self.error(path, format!("element {at}: {message}")),
                },
            };
            let place = format!("{path}{element}");
            if !seen.insert(element) {
                let element = &place[path.len()..];
                self.error(path, format!("duplicate entries for key {element}"));
            }
            self.value(item, list.place(), &place);
        }
    }

    fn map(&mut self, value: &Value, map: &Map<'_>, path: &str) {
        let fields = match value {
            Value::Null => return,
            Value::Object(fields) => fields,
            other => return self.error(path, format!("expected map, got &{{{other}}}")),
        };
        for (name, value) in fields {
            let place = format!("{path}.{name}");
            match map.place(name) {
                Some(at) => self.value(value, at, &place),
                None => return self.error(&place, "field not declared in schema"),
            }
        }
    }
}

/// The Go type that a decoded JSON value has.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

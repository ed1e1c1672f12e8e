//! Whether a value is of a type (`typed/validate.go`).

use std::collections::BTreeSet;
use std::fmt::{self, Display, Write as _};

use serde_json::Value;

use super::{TypeErrors, element_of};
use crate::path::PathElement;
use crate::schema::{Atom, By, List, Map, Place, Scalar};

/// Errors that are told of one value: each has a path that can be as long as the value.
const MAX_ERRORS: usize = 100;
/// Characters of a path or value that is told.
const LONGEST: usize = 1024;

/// Says whether `value` fits the place, as a configuration must: no associative list may have an item twice.
///
/// # Errors
/// What does not fit, the first hundred.
pub fn validate(value: &Value, at: Place<'_>) -> Result<(), TypeErrors> {
    let mut errors = TypeErrors::default();
    check(value, at, &At::Root, &mut errors);
    if errors.0.is_empty() { Ok(()) } else { Err(errors) }
}

/// Where a value is. Printed for errors only.
enum At<'p> {
    Root,
    Field(&'p Self, &'p str),
    Element(&'p Self, &'p PathElement),
}

impl Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(parent, name) => {
                parent.fmt(f)?;
                write!(f, ".{name}")
            }
            Self::Element(parent, element) => {
                parent.fmt(f)?;
                element.fmt(f)
            }
        }
    }
}

/// What stops printing at [`LONGEST`].
struct Short(String);

impl fmt::Write for Short {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = LONGEST.saturating_sub(self.0.len());
        let fits = text.char_indices().map(|(at, _)| at).take_while(|at| *at <= room).last().unwrap_or(0);
        if text.len() <= room {
            self.0.push_str(text);
            return Ok(());
        }
        self.0.push_str(&text[..fits]);
        Err(fmt::Error)
    }
}

fn short(shown: &impl Display) -> String {
    let mut text = Short(String::new());
    if write!(text, "{shown}").is_err() {
        text.0.push_str("...");
    }
    text.0
}

fn tell(errors: &mut TypeErrors, at: &At<'_>, message: impl Into<String>) {
    if errors.0.len() < MAX_ERRORS {
        errors.0.push((short(at), message.into()));
    }
}

fn check(value: &Value, place: Place<'_>, at: &At<'_>, errors: &mut TypeErrors) {
    match place.atom(Some(value)) {
        Atom::Scalar(scalar) => of_scalar(value, scalar, at, errors),
        Atom::List(list) => of_list(value, &list, at, errors),
        Atom::Map(map) => of_map(value, &map, at, errors),
    }
}

fn of_scalar(value: &Value, scalar: Scalar, at: &At<'_>, errors: &mut TypeErrors) {
    let message = match (scalar, value) {
        (_, Value::Null)
        | (Scalar::Numeric, Value::Number(_))
        | (Scalar::String, Value::String(_))
        | (Scalar::Boolean, Value::Bool(_))
        | (Scalar::Untyped, Value::Number(_) | Value::String(_) | Value::Bool(_)) => return,
        (Scalar::Numeric, other) => format!("expected numeric (int or float), got {}", go_type(other)),
        (Scalar::String, other) => format!("expected string, got &value.valueUnstructured{{Value:{}}}", short(other)),
        (Scalar::Boolean, other) => format!("expected boolean, got &{{{}}}", short(other)),
        (Scalar::Untyped, other) => format!("expected any scalar, got &{{{}}}", short(other)),
    };
    tell(errors, at, message);
}

fn of_list(value: &Value, list: &List<'_>, at: &At<'_>, errors: &mut TypeErrors) {
    let items = match value {
        Value::Null => return,
        Value::Array(items) => items,
        other => return tell(errors, at, format!("expected list, got &{{{}}}", short(other))),
    };
    let mut seen = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        let element = match list.by {
            By::Atomic => PathElement::Index(i64::try_from(index).unwrap_or(i64::MAX)),
            _ => match element_of(list, item) {
                Ok(element) => element,
                Err(message) => return tell(errors, at, format!("element {index}: {message}")),
            },
        };
        if seen.contains(&element) {
            tell(errors, at, format!("duplicate entries for key {}", short(&element)));
        }
        check(item, list.place(), &At::Element(at, &element), errors);
        seen.insert(element);
    }
}

fn of_map(value: &Value, map: &Map<'_>, at: &At<'_>, errors: &mut TypeErrors) {
    let fields = match value {
        Value::Null => return,
        Value::Object(fields) => fields,
        other => return tell(errors, at, format!("expected map, got &{{{}}}", short(other))),
    };
    for (name, value) in fields {
        let inner = At::Field(at, name);
        match map.place(name) {
            Some(place) => check(value, place, &inner, errors),
            None => return tell(errors, &inner, "field not declared in schema"),
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

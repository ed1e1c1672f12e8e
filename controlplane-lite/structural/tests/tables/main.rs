//! Tables of schemas and objects, with what upstream's own tests expect of them.

#![allow(clippy::unwrap_used)]

mod alternatives;
mod defaulting;
mod details;
mod embedded;
mod lists;
mod pruning;
mod ratcheting;
mod schemas;
mod values;

use scheme::{FieldErrors, Path};
use serde_json::{Value, json};
use structural::{Structural, validate_schema};

/// The texts of problems, sorted.
fn texts(errors: &FieldErrors) -> Vec<String> {
    let mut texts: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
    texts.sort();
    texts
}

/// What is wrong with an object.
fn validate(schema: &Value, object: &Value) -> Vec<String> {
    let mut errors = FieldErrors::new();
    Structural::parse(schema).unwrap().validate(object, &mut errors);
    texts(&errors)
}

/// What is wrong with the value of the field `field`, whose schema is given.
fn validate_field(schema: &Value, value: &Value) -> Vec<String> {
    validate(&json!({"type": "object", "properties": {"field": schema}}), &json!({ "field": value }))
}

/// What is wrong with a schema.
fn check(schema: &Value) -> Vec<String> {
    let mut errors = FieldErrors::new();
    validate_schema(schema, &Path::new("schema"), &mut errors);
    texts(&errors)
}

/// Asserts that the problems are the expected ones, in whatever order.
fn assert_told(actual: &[String], expected: &[&str], of: &Value) {
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(actual, expected, "{of}");
}

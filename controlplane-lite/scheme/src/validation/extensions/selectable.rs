//! Fields of objects that selectors may name: paths of names into the schema
//! (`ValidFieldPath` of k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/validation.go).

use std::collections::HashSet;

use serde_json::Value;

use super::{Options, same};
use crate::access::{at, list_at, str_at};
use crate::field::{FieldErrors, Path};

/// Upstream's `MaxSelectableFields`.
const MAX: usize = 8;

/// `before` is the list that an update changes.
pub(super) fn check(
    fields: &Value,
    schema: &Value,
    before: &Value,
    path: &Path<'_>,
    options: &Options<'_>,
    errors: &mut FieldErrors,
) {
    let mut seen = HashSet::new();
    for (place, field) in list_at(fields, &[]).iter().enumerate() {
        let item = path.index(place);
        let (path, text) = (item.child("jsonPath"), str_at(field, &["jsonPath"]));
        if text.is_empty() {
            errors.required(&path, "");
            continue;
        }
        let (steps, found) = match resolve(text, schema) {
            Ok(found) => found,
            Err(why) => {
                errors.invalid(&path, text, format!("is an invalid path: {why}"));
                continue;
            }
        };
        if steps.first().is_some_and(|first| *first == "metadata") {
            errors.invalid(&path, text, "must not point to fields in metadata");
        }
        if !matches!(str_at(found, &["type"]), "string" | "boolean" | "integer") {
            errors.invalid(
                &path,
                text,
                "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
            );
        }
        if !seen.insert(steps) {
            errors.duplicate(&path, text);
        }
    }
    let kept = options.old.is_some() && list_at(before, &[]).len() > MAX && same(before, fields);
    if seen.len() > MAX && !kept {
        errors.too_many(path, seen.len(), MAX);
    }
}

/// The steps of a path, and the schema of what is there.
fn resolve<'a>(text: &'a str, schema: &'a Value) -> Result<(Vec<&'a str>, &'a Value), String> {
    let (mut rest, mut schema, mut steps) = (text, schema, Vec::new());
    while !rest.is_empty() {
        let (step, after) = token(rest);
        match step {
            "." => {}
            "[" => return Err("array notation is not allowed".to_owned()),
            other => return Err(format!("expected [ or . but got: {other}")),
        }
        if after.is_empty() {
            return Err("unexpected end of JSON path".to_owned());
        }
        let (name, after) = token(after);
        let below = match (at(schema, &["properties"]), at(schema, &["additionalProperties"])) {
            (Value::Object(properties), _) => properties.get(name),
            (_, values @ Value::Object(_)) => Some(values),
            _ => None,
        };
        schema = below.ok_or("does not refer to a valid field")?;
        steps.push(name);
        rest = after;
    }
    Ok((steps, schema))
}

/// A delimiter, a text in single quotes, or what comes before the next delimiter.
fn token(text: &str) -> (&str, &str) {
    let bytes = text.as_bytes();
    let end = match bytes.first() {
        Some(b'.' | b'[' | b']') => 1,
        Some(b'\'') => {
            let closes = |at: &usize| bytes[*at] == b'\'' && bytes[*at - 1] != b'\\';
            (1..bytes.len()).find(closes).map_or(bytes.len(), |at| at + 1)
        }
        _ => text.find(['.', '[', ']']).unwrap_or(bytes.len()),
    };
    text.split_at(end)
}

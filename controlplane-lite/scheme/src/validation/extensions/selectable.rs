//! Fields of objects that selectors may name: paths of names into the schema
//! (`ValidateCustomResourceSelectableFields` of k8s.io/apiextensions-apiserver's validation.go).

use std::collections::HashSet;

use serde_json::Value;

use super::{Options, same};
use crate::access::{list_at, str_at};
use crate::crd::field_path;
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
        let (steps, found) = match field_path(text, schema, false) {
            Ok(found) => found,
            Err(why) => {
                errors.invalid(&path, text, format!("is an invalid path: {why}"));
                continue;
            }
        };
        if steps.first().is_some_and(|first| first == "metadata") {
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

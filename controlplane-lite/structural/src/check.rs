//! Whether a schema may be that of a custom resource: it has to be structural, its defaults have to fit, and more
//! (`validateCustomResourceDefinitionValidation` of `pkg/apis/apiextensions/validation/validation.go` upstream).

use scheme::{FieldErrors, Path};
use serde_json::Value;

use crate::expressions;
use crate::node::Node;
use crate::raw;

mod complete;
mod defaults;
mod lists;
mod openapi;
mod patterns;
mod rules;
mod structure;

/// Checks an `openAPIV3Schema` at a path. CEL rules are checked as far as that needs no evaluation. `errors` is what is
/// known of the schema: what upstream's structural form has no place for is told where nothing else is. That the root
/// is not nullable is checked before.
pub fn validate_schema(schema: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    if let Err(problem) = raw::check(schema) {
        return errors.invalid(path, "", problem);
    }
    let parsed = Node::parse(schema);
    if let Ok(node) = &parsed {
        let mut found = FieldErrors::new();
        structure::validate(schema, path, &mut found);
        complete::validate(schema, path, &mut found);
        if found.is_empty() {
            defaults::validate(node, path, &mut found);
        } else {
            found.0.sort_by_cached_key(ToString::to_string);
        }
        errors.extend(found);
    }
    openapi::validate(schema, parsed.is_ok(), path, errors);
    if let Ok(node) = &parsed
        && errors.is_empty()
        && expressions::has_rules(schema)
    {
        expressions::validate(node, true, path, errors);
    }
    if let Err(problem) = parsed
        && errors.is_empty()
    {
        errors.invalid(path, "", problem);
    }
}

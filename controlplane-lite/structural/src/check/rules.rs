//! CEL rules as far as they are text. Their expressions are not compiled here.

use scheme::crd::field_path;
use scheme::{FieldErrors, Path};
use serde_json::Value;

use crate::raw;

/// Reasons that a rule may give.
const REASONS: &[&str] = &["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// Checks the rules of one schema. Fields are looked up in structural schemas alone.
pub(super) fn validate(schema: &Value, structural: bool, path: &Path<'_>, errors: &mut FieldErrors) {
    let path = path.child("x-kubernetes-validations");
    for (index, rule) in raw::list(schema, "x-kubernetes-validations").iter().enumerate() {
        let path = path.index(index);
        validate_rule(rule, &path, errors);
        let field = raw::text(rule, "fieldPath");
        if structural && field_path(field, schema, true).is_err() {
            errors.invalid(&path.child("fieldPath"), field, "must be a valid path");
        }
    }
}

fn has_line_breaks(text: &str) -> bool {
    text.contains(['\n', '\r'])
}

fn validate_rule(rule: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let text = |key: &str| raw::text(rule, key);
    let (expression, message) = (text("rule").trim(), text("message"));
    let blank = |key: &str| !text(key).is_empty() && text(key).trim().is_empty();
    let message_path = path.child("message");
    if expression.is_empty() {
        errors.required(&path.child("rule"), "rule is not specified");
    } else if blank("message") {
        errors.invalid(&message_path, message, "must be non-empty if specified");
    } else if has_line_breaks(message.trim()) {
        errors.invalid(&message_path, message, "must not contain line breaks");
    } else if has_line_breaks(expression) && message.trim().is_empty() {
        errors.required(&message_path, "message must be specified if rule contains line breaks");
    }
    if blank("messageExpression") {
        errors.required(&path.child("messageExpression"), "messageExpression must be non-empty if specified");
    }
    if let Some(reason) = raw::get(rule, "reason").and_then(Value::as_str)
        && !REASONS.contains(&reason)
    {
        errors.not_supported(&path.child("reason"), reason, REASONS);
    }
    let field_path = path.child("fieldPath");
    if blank("fieldPath") {
        errors.invalid(&field_path, text("fieldPath"), "must be non-empty if specified");
    }
    if has_line_breaks(text("fieldPath")) {
        errors.invalid(&field_path, text("fieldPath"), "must not contain line breaks");
    }
}

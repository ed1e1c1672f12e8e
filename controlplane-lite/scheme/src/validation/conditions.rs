//! Conditions of a status, of all kinds whose conditions are `metav1.Condition`s
//! (k8s.io/apimachinery/pkg/apis/meta/v1/validation/validation.go).

use std::collections::HashSet;

use serde_json::Value;

use crate::access::{at, int_at, str_at};
use crate::field::{FieldErrors, Path};
use crate::meta;

/// Bytes of a reason.
const MAX_REASON: usize = 1024;
/// Bytes of a message.
const MAX_MESSAGE: usize = 32 * 1024;

/// Checks a list of conditions.
pub fn check(conditions: &[Value], path: &Path<'_>, errors: &mut FieldErrors) {
    let mut types = HashSet::new();
    for (place, condition) in conditions.iter().enumerate() {
        let path = path.index(place);
        let ty = str_at(condition, &["type"]);
        if !types.insert(ty) {
            errors.duplicate(&path, ty);
        }
        one(condition, &path, errors);
    }
}

fn one(condition: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let text = |field: &str| str_at(condition, &[field]);
    if text("type").is_empty() {
        errors.required(&path.child("type"), "is required");
    }
    for problem in if text("type").is_empty() { Vec::new() } else { meta::qualified_name(text("type")) } {
        errors.invalid(&path.child("type"), text("type"), problem);
    }
    match text("status") {
        "" => errors.required(&path.child("status"), ""),
        "True" | "False" | "Unknown" => {}
        other => errors.not_supported(&path.child("status"), other, &["False", "True", "Unknown"]),
    }
    if let Some(generation) = int_at(condition, &["observedGeneration"]).filter(|number| *number < 0) {
        errors.invalid(&path.child("observedGeneration"), generation, "must be greater than or equal to zero");
    }
    if at(condition, &["lastTransitionTime"]).is_null() {
        errors.required(&path.child("lastTransitionTime"), "");
    }
    let reason = text("reason");
    if reason.is_empty() {
        errors.required(&path.child("reason"), "");
    } else {
        if !is_reason(reason) {
            errors.invalid(&path.child("reason"), reason, reason_rule());
        }
        if reason.len() > MAX_REASON {
            errors.too_long(&path.child("reason"), MAX_REASON);
        }
    }
    if text("message").len() > MAX_MESSAGE {
        errors.too_long(&path.child("message"), MAX_MESSAGE);
    }
}

fn is_reason(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.bytes().next().is_some_and(|first| first.is_ascii_alphabetic())
        && text.bytes().next_back().is_some_and(word)
        && text.bytes().all(|byte| word(byte) || matches!(byte, b',' | b':'))
}

fn reason_rule() -> String {
    meta::regex_message(
        "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric \
         characters or '_,:', and must end with an alphanumeric character or '_'",
        "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?",
        &["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn conditions_are_complete() {
        let good = json!({"type": "Ready", "status": "True", "reason": "All_is:Fine", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1});
        let texts = |conditions: &[Value]| {
            let mut errors = FieldErrors::new();
            check(conditions, &Path::new("c"), &mut errors);
            errors.0.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert!(texts(std::slice::from_ref(&good)).is_empty());
        assert_eq!(texts(&[good.clone(), good.clone()]), ["c[1]: Duplicate value: \"Ready\""]);
        assert_eq!(
            texts(&[json!({"status": "Maybe", "observedGeneration": -1})]),
            [
                "c[0].type: Required value: is required",
                "c[0].status: Unsupported value: \"Maybe\": supported values: \"False\", \"True\", \"Unknown\"",
                "c[0].observedGeneration: Invalid value: -1: must be greater than or equal to zero",
                "c[0].lastTransitionTime: Required value",
                "c[0].reason: Required value",
            ]
        );
        for (field, value, expect) in [
            ("reason", "1a".to_owned(), "c[0].reason: Invalid value: \"1a\": a condition reason must start"),
            ("reason", "a,".to_owned(), "c[0].reason: Invalid value: \"a,\": a condition reason must start"),
            ("reason", "a".repeat(1025), "c[0].reason: Too long: may not be more than 1024 bytes"),
            ("message", "a".repeat(32 * 1024 + 1), "c[0].message: Too long: may not be more than 32768 bytes"),
            ("type", "a b".to_owned(), "c[0].type: Invalid value: \"a b\": name part must consist of"),
        ] {
            let mut bad = good.clone();
            bad[field] = value.into();
            let told = texts(&[bad]);
            assert!(told.len() == 1 && told[0].starts_with(expect), "{told:?}");
        }
    }
}

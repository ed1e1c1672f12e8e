//! PATCH bodies: JSON patch, JSON merge patch, strategic merge patch, applied to
//! an object and decoded again. Server-side apply is the `managedfields` crate.

use serde_json::Value;

use super::decode::{self, Decoded, FieldValidation, MediaType};
use super::field::{FieldError, FieldErrorKind};
use super::kind::Kind;

pub mod json;
pub mod merge;
pub mod strategic;

/// Most operations in one JSON patch, as upstream.
pub const MAX_JSON_PATCH_OPERATIONS: usize = 10_000;

/// How a patch is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchType {
    /// RFC 6902, `application/json-patch+json`.
    Json,
    /// RFC 7386, `application/merge-patch+json`.
    Merge,
    /// `application/strategic-merge-patch+json`.
    Strategic,
}

impl PatchType {
    /// The patch type of a content type, parameters ignored.
    #[must_use]
    pub fn from_content_type(text: &str) -> Option<Self> {
        match text.split(';').next().unwrap_or("").trim() {
            "application/json-patch+json" => Some(Self::Json),
            "application/merge-patch+json" => Some(Self::Merge),
            "application/strategic-merge-patch+json" => Some(Self::Strategic),
            _ => None,
        }
    }
}

/// Why a patch cannot be applied.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself is malformed: 400 BadRequest.
    #[error("{0}")]
    BadRequest(String),
    /// The patch is well-formed but does not fit the object: 422, reason Invalid without causes.
    #[error("{0}")]
    Unprocessable(String),
    /// The result is not an object of the kind: 422 Invalid with this cause (upstream names no kind:
    /// ` "" is invalid: patch: …`).
    #[error("{0}")]
    Invalid(Box<FieldError>),
    /// Too many operations: 413.
    #[error("The allowed maximum operations in a JSON patch is {MAX_JSON_PATCH_OPERATIONS}, got {0}")]
    TooManyOperations(usize),
}

/// Applies a patch to a stored object of `kind` and decodes the result: pruned to the schema,
/// not yet defaulted. Deterministic, so that the caller may retry on a newer object.
///
/// # Errors
/// See [`PatchError`].
pub fn apply(
    kind: &Kind,
    patch_type: PatchType,
    current: &Value,
    patch: &[u8],
    validation: FieldValidation,
) -> Result<Decoded, PatchError> {
    let parsed = decode::parse(MediaType::Json, patch).map_err(|e| match e {
        decode::ParseError::Json(text) | decode::ParseError::Yaml(text) => {
            PatchError::BadRequest(format!("error decoding patch: {text}"))
        }
    })?;
    let patched = match patch_type {
        PatchType::Json => json::apply(current, &parsed.value)?,
        PatchType::Merge => {
            if !parsed.value.is_object() {
                return Err(PatchError::BadRequest(
                    "error decoding patch: json: cannot unmarshal non-object into Go value of type map[string]interface {}"
                        .to_owned(),
                ));
            }
            merge::apply(current, &parsed.value)
        }
        PatchType::Strategic => strategic::apply(kind.schema(), current, &parsed.value)?,
    };
    let shown = || Value::String(String::from_utf8_lossy(patch).into_owned());
    decode::decode_value(kind, patched, parsed.duplicates, true, validation).map_err(|error| {
        let detail = match error {
            decode::DecodeError::Unhandled { problem, .. } => problem,
            other => other.to_string(),
        };
        PatchError::Invalid(Box::new(FieldError {
            path: "patch".to_owned(),
            kind: FieldErrorKind::Invalid,
            bad_value: shown(),
            detail,
        }))
    })
}

#[cfg(test)]
mod tests;

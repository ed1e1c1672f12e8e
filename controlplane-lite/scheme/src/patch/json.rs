//! RFC 6902 JSON patch, with upstream's errors.

use serde_json::Value;

use super::{MAX_JSON_PATCH_OPERATIONS, PatchError};
use crate::access::str_at;
use crate::field::go_quote;

/// The object after all operations.
///
/// # Errors
/// 400 for a malformed patch, 422 for an operation that fails on this object.
pub fn apply(current: &Value, patch: &Value) -> Result<Value, PatchError> {
    let Value::Array(operations) = patch else {
        return Err(PatchError::BadRequest(
            "error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch".to_owned(),
        ));
    };
    if operations.len() > MAX_JSON_PATCH_OPERATIONS {
        return Err(PatchError::TooManyOperations(operations.len()));
    }
    let patch: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|e| PatchError::BadRequest(format!("error decoding patch: {e}")))?;
    let mut result = current.clone();
    json_patch::patch(&mut result, &patch).map_err(|e| PatchError::Unprocessable(explain(&e, operations)))?;
    Ok(result)
}

/// Why an operation does not apply, in upstream's words.
fn explain(error: &json_patch::PatchError, operations: &[Value]) -> String {
    let op = operations.get(error.operation).map_or("", |o| str_at(o, &["op"]));
    let path = go_quote(error.path.as_str());
    match error.kind {
        json_patch::PatchErrorKind::TestFailed => format!("testing value {} failed: test failed", error.path),
        json_patch::PatchErrorKind::InvalidPointer if op == "test" => {
            format!("testing path {} failed: doc is missing path: {path}: missing value", error.path)
        }
        json_patch::PatchErrorKind::InvalidPointer => {
            format!("{op} operation does not apply: doc is missing path: {path}: missing value")
        }
        _ => format!("{op} operation does not apply: {}", error.kind),
    }
}

//! RFC 6902 JSON patch, with upstream's errors.

use serde_json::Value;

use super::{MAX_JSON_PATCH_OPERATIONS, PatchError};

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
    json_patch::patch(&mut result, &patch).map_err(|e| PatchError::Unprocessable(e.to_string()))?;
    Ok(result)
}

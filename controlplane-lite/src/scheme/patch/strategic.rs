//! Strategic merge patch.

use serde_json::Value;

use super::PatchError;
use crate::scheme::schema::ObjectType;

/// The object after the patch.
///
/// # Errors
/// 400 for a malformed patch.
pub fn apply(_schema: &ObjectType, current: &Value, patch: &Value) -> Result<Value, PatchError> {
    Ok(super::merge::apply(current, patch))
}

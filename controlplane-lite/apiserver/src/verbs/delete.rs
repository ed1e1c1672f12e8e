//! DELETE one object.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::Value;

use crate::body::Body;
use crate::call::{Call, decode_body};
use crate::options::{self, DeleteOptions, Propagation};
use crate::respond;
use crate::status::{self, ApiError};
use crate::write;
use scheme::{FieldValidation, Kind};

/// Deletes as the options say and answers the object or a Status, as upstream does for the kind.
///
/// # Errors
/// 404, 409 for preconditions, 400/422 for options.
pub async fn delete(call: &Call, body: Bytes) -> Result<Response<Body>, ApiError> {
    let options = delete_options(call, &body)?;
    let name = call.info.name.as_str();
    let written = write::delete(call, name, &options).await?;
    if written.removed && !call.resource.kind.facts.returns_deleted {
        let status = status::deleted(call.subject(), name, written.object.uid());
        return respond::document(call, StatusCode::OK, &status);
    }
    let waits = !written.removed && options.propagation == Some(Propagation::Foreground);
    let code = if waits { StatusCode::ACCEPTED } else { StatusCode::OK };
    respond::object(call, code, &written.object)
}

/// Reads DeleteOptions from body or query.
///
/// # Errors
/// 400 for malformed bodies, 422 for unsupported values.
pub fn delete_options(call: &Call, body: &Bytes) -> Result<DeleteOptions, ApiError> {
    if body.is_empty() {
        return options::delete(&call.query, None);
    }
    let value: Option<Value> = match delete_options_kind() {
        Some(kind) => Some(decode_body(kind, &call.headers, body, FieldValidation::Ignore)?.object),
        None => serde_json::from_slice(body).map(Some).map_err(|e| ApiError::bad_request(e.to_string()))?,
    };
    let mut value = value.unwrap_or_default();
    if let Some(map) = value.as_object_mut() {
        map.remove("kind");
        map.remove("apiVersion");
    }
    options::delete(&call.query, Some(&value))
}

fn delete_options_kind() -> Option<&'static Arc<Kind>> {
    scheme::builtin().by_gvk("", "v1", "DeleteOptions")
}

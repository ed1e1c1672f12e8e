//! PATCH: JSON patch, merge patch and strategic merge patch; server-side apply has a file of its own.

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::Value;

use crate::body::Body;
use crate::call::Call;
use crate::negotiate;
use crate::options;
use crate::owners::Owners;
use crate::respond;
use crate::status::{ApiError, Cause, Subject};
use crate::write::{self, Carried};
use scheme::access::str_at;
use scheme::patch::{self, PatchError, PatchType};

/// Applies a patch to the newest state, again when another writer was faster (until the deadline, as upstream), unless
/// the patch itself names a resourceVersion.
///
/// # Errors
/// Every failure upstream's patch has.
pub async fn patch(call: &Call, body: Bytes) -> Result<Response<Body>, ApiError> {
    if is_apply(call) {
        return super::apply::apply(call, &body).await;
    }
    let options = options::patch(&call.query, false)?;
    let patch_type = patch_type(call)?;
    let owners = Owners::of(call, &options);
    let mut warnings = Vec::new();
    let written = write::update(call, &options, Carried::Whole, |old| {
        let current = call.served_ref(old);
        let patched = patch::apply(&call.kind, patch_type, &current, &body, options.field_validation)
            .map_err(|error| refused(call, error))?;
        let mut object = patched.object;
        warnings = patched.warnings;
        warnings.extend(call.kind.warnings_on_update(&call.info.subresource, &object));
        check_identity(call, &object, &current)?;
        call.kind.default(&mut object);
        owners.changed(&current, &mut object);
        Ok(object)
    })
    .await?;
    let mut response = respond::object(call, StatusCode::OK, &written.object)?;
    respond::warn(&mut response, &warnings);
    Ok(response)
}

/// Whether the body is a configuration to apply.
pub fn is_apply(call: &Call) -> bool {
    let media = call.headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    media.split(';').next().unwrap_or("").trim() == negotiate::APPLY_TYPE
}

/// Whether a patched object still is the one that the path names.
///
/// # Errors
/// 400 for another name or namespace.
pub fn check_identity(call: &Call, object: &Value, current: &Value) -> Result<(), ApiError> {
    let (name, namespace) = (str_at(object, &["metadata", "name"]), str_at(object, &["metadata", "namespace"]));
    if name != call.info.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.info.name
        )));
    }
    if namespace != str_at(current, &["metadata", "namespace"]) {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

/// The patch type of a request.
///
/// # Errors
/// 415 for anything else.
pub fn patch_type(call: &Call) -> Result<PatchType, ApiError> {
    let media = call.headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    let known = if call.kind.custom { &negotiate::CUSTOM_PATCH_TYPES[..] } else { &negotiate::PATCH_TYPES[..] };
    let found = PatchType::from_content_type(media).filter(|ty| !(call.kind.custom && *ty == PatchType::Strategic));
    found.ok_or_else(|| ApiError::unsupported_media_type(known))
}

/// What a client reads of a patch that cannot be applied.
pub fn refused(call: &Call, error: PatchError) -> ApiError {
    match error {
        PatchError::BadRequest(text) => ApiError::bad_request(text),
        PatchError::Unprocessable(text) => ApiError::unprocessable(text),
        PatchError::TooManyOperations(_) => ApiError::upstream(413, error.to_string()),
        PatchError::Invalid(field) => {
            let cause = Cause { reason: field.kind.reason().into(), message: field.body(), field: field.path.clone() };
            // Upstream names neither kind nor name here.
            ApiError::invalid(Subject::new("", ""), &call.info.name, &field.to_string(), vec![cause])
        }
    }
}

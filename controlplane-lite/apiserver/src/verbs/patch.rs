//! PATCH: JSON patch, merge patch and strategic merge patch; server-side apply's media type is known and not served
//! yet.

use bytes::Bytes;
use http::{Response, StatusCode};

use crate::body::Body;
use crate::call::Call;
use crate::negotiate;
use crate::options;
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
    let options = options::write(&call.query, "PatchOptions")?;
    let patch_type = patch_type(call)?;
    let mut warnings = Vec::new();
    let written = write::update(call, &options, Carried::Whole, |old| {
        let current = call.served(old.clone());
        let patched = patch::apply(&call.kind, patch_type, &current, &body, options.field_validation)
            .map_err(|error| refused(call, error))?;
        let mut object = patched.object;
        warnings = patched.warnings;
        warnings.extend(call.kind.warnings_on_update(&call.info.subresource, &object));
        let (name, namespace) = (str_at(&object, &["metadata", "name"]), str_at(&object, &["metadata", "namespace"]));
        if name != call.info.name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                call.info.name
            )));
        }
        if namespace != str_at(&current, &["metadata", "namespace"]) {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        call.kind.default(&mut object);
        Ok(object)
    })
    .await?;
    let mut response = respond::object(call, StatusCode::OK, &written.object)?;
    respond::warn(&mut response, &warnings);
    Ok(response)
}

/// The patch type of a request.
///
/// # Errors
/// 415 for anything else.
pub fn patch_type(call: &Call) -> Result<PatchType, ApiError> {
    let media = call.headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    PatchType::from_content_type(media).ok_or_else(|| ApiError::unsupported_media_type(&negotiate::PATCH_TYPES))
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

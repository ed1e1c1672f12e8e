//! serviceaccounts/token: issues a token bound to what the request names.

use bytes::Bytes;
use http::{Response, StatusCode};

use crate::access;
use crate::body::Body;
use crate::call::{Call, decode_body};
use crate::options;
use crate::respond;
use crate::status::ApiError;
use crate::write;

/// Issues a token.
///
/// # Errors
/// 404 for the account or the bound object, 409 when that was replaced, 422 for the request.
pub async fn create(call: &Call, body: Bytes) -> Result<Response<Body>, ApiError> {
    let options = options::write(&call.query, "CreateOptions")?;
    let kind =
        scheme::builtin().by_gvk("authentication.k8s.io", "v1", "TokenRequest").ok_or_else(ApiError::no_such_path)?;
    let decoded = decode_body(kind, &call.headers, &body, options.field_validation)?;
    let mut request = decoded.object;
    let account = call.resource.read_value(&call.info.namespace, &call.info.name).await?;
    write::ask_admission(call, &call.resource.kind, kind, &mut request, options.dry_run).await?;
    let answer = access::issue(call, &account, request).await?;
    let mut response = respond::document(call, StatusCode::CREATED, &answer)?;
    respond::warn(&mut response, &decoded.warnings);
    Ok(response)
}

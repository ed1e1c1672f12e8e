//! GET one object.

use std::sync::Arc;

use http::{Response, StatusCode};

use crate::body::Body;
use crate::call::Call;
use crate::respond;
use crate::status::ApiError;

/// Answers the newest state. `resourceVersion` is a lower bound, which the newest state always meets.
///
/// # Errors
/// 404; 504 for a resourceVersion that does not exist yet.
pub async fn get(call: &Call) -> Result<Response<Body>, ApiError> {
    if let Some(wanted) = crate::options::list(&call.query, false)?.version()? {
        let current = call.server.registry.current_revision().await?;
        if wanted > current.0 {
            return Err(ApiError::version_too_large(wanted, current.0));
        }
    }
    let object = call.resource.read(&call.info.namespace, &call.info.name).await?;
    let object = call.converted_one(Arc::new(object)).await?;
    respond::object(call, StatusCode::OK, &object)
}

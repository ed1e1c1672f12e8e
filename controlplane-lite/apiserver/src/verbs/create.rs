//! POST: a new object.

use bytes::Bytes;
use http::{Response, StatusCode};

use crate::body::Body;
use crate::call::Call;
use crate::options;
use crate::owners::Owners;
use crate::respond;
use crate::status::ApiError;
use crate::write::{self, Told};

/// Decodes and creates.
///
/// # Errors
/// Every failure upstream's create has.
pub async fn create(call: &Call, body: Bytes) -> Result<Response<Body>, ApiError> {
    let options = options::write(&call.query, "CreateOptions")?;
    let decoded = call.decode(&call.kind, &body, options.field_validation)?;
    let mut warnings = decoded.warnings;
    warnings.extend(call.kind.strategy.warnings(&decoded.object));
    let owners = Owners::of(call, &options);
    let mut object = decoded.object;
    // Before it is said who owns them.
    write::dedup_owners(&mut object, "contains duplicate entries");
    let object = write::create(call, object, &options, Told::ByThis(&owners)).await?;
    let mut response = if options.dry_run {
        respond::unstored(call, StatusCode::CREATED, &object)?
    } else {
        respond::object(call, StatusCode::CREATED, &object)?
    };
    respond::warn(&mut response, &warnings);
    Ok(response)
}

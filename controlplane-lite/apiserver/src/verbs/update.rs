//! PUT: a whole object, to the main resource or to one of its subresources that carry the object itself.

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::body::Body;
use crate::call::Call;
use crate::options;
use crate::owners::Owners;
use crate::respond;
use crate::status::ApiError;
use crate::write::{self, Carried, Told};
use scheme::access::{ensure_map, str_at};

/// Replaces an object.
///
/// # Errors
/// Every failure upstream's update has.
pub async fn update(call: &Call, body: Bytes) -> Result<Response<Body>, ApiError> {
    let options = options::write(&call.query, "UpdateOptions")?;
    let decoded = call.decode(&call.kind, &body, options.field_validation)?;
    let mut object = decoded.object;
    let mut warnings = decoded.warnings;
    warnings.extend(call.kind.warnings_on_update(&call.info.subresource, &object));
    call.ensure_namespace(&mut object)?;
    match str_at(&object, &["metadata", "name"]) {
        "" => {
            ensure_map(&mut object, &["metadata"]).insert("name".into(), json!(call.info.name));
        }
        name if name != call.info.name => {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                call.info.name
            )));
        }
        _ => {}
    }
    call.kind.default(&mut object);
    let owners = Owners::of(call, &options);
    let wanted = |before: &Value| {
        let mut object = object.clone();
        owners.changed(&call.served_ref(before), &mut object);
        Ok(object)
    };
    let (code, object) = match write::update(call, &options, Carried::Whole, wanted).await {
        Ok(written) => (StatusCode::OK, written.object),
        Err(error) if error.is_not_found() && may_create(call, &object) => {
            crate::service::authorize_create(call)?;
            let created = write::create(call, object, &options, Told::ByThis(&owners)).await?;
            (StatusCode::CREATED, created)
        }
        Err(error) => return Err(error),
    };
    let mut response = if code == StatusCode::CREATED && options.dry_run {
        respond::unstored(call, code, &object)?
    } else {
        respond::object(call, code, &object)?
    };
    respond::warn(&mut response, &warnings);
    Ok(response)
}

fn may_create(call: &Call, object: &Value) -> bool {
    call.resource.kind.facts.create_on_update
        && call.info.subresource.is_empty()
        && str_at(object, &["metadata", "resourceVersion"]).is_empty()
        && str_at(object, &["metadata", "uid"]).is_empty()
}

//! DELETE a collection: every object a list would show.

use bytes::Bytes;
use http::Response;

use crate::body::Body;
use crate::call::Call;
use crate::options;
use crate::respond;
use crate::status::ApiError;

/// Deletes all that match, each on its own, and answers the list of what was there.
///
/// # Errors
/// The first delete that fails for another reason than the object being gone.
pub async fn deletecollection(call: &Call, body: Bytes) -> Result<Response<Body>, ApiError> {
    let list_options = options::list(&call.query, false)?;
    let options = super::delete::delete_options(call, &body)?;
    let page = super::list::page(call, &list_options).await?;
    for object in &page.items {
        let one = call.for_object(object.namespace(), object.name());
        match super::delete::delete_object(&one, object.name(), &options).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    respond::list(call, page)
}

//! DELETE a collection: every object a list would show.

use bytes::Bytes;
use futures::TryStreamExt as _;
use http::Response;

use crate::body::{Body, MAX_BODY};
use crate::call::Call;
use crate::options::{self, DeleteOptions};
use crate::snapshots::Payer;
use crate::status::ApiError;
use storage::Object;

/// Deletes all that match, each on its own, and answers the list of what was there.
///
/// # Errors
/// The first delete that fails for another reason than the object being gone.
pub async fn deletecollection(call: Call, body: Bytes, payer: Option<Payer>) -> Result<Response<Body>, ApiError> {
    let list_options = options::list(&call.query, false)?;
    let options = super::delete::delete_options(&call, &body)?;
    // What was deleted is nowhere but in the answer.
    let (page, loan) = super::list::held_page(&call, &list_options, payer.as_ref()).await?;
    // Several at once share a commit of the store; the first failure ends the rest. Each is decoded.
    let largest = page.items.iter().map(|object| object.json_bytes().len()).max().unwrap_or(0);
    let at_once = (MAX_BODY / largest.max(1)).clamp(1, AT_ONCE);
    futures::stream::iter(page.items.iter().map(Ok))
        .try_for_each_concurrent(at_once, |object| delete_one(&call, object, &options))
        .await?;
    super::list::answer(call, page, loan)
}

/// Deletes being carried out at once, at most.
const AT_ONCE: usize = 64;

async fn delete_one(call: &Call, object: &Object, options: &DeleteOptions) -> Result<(), ApiError> {
    let one = call.for_object(object.namespace(), object.name());
    match crate::write::delete(&one, object.name(), options).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

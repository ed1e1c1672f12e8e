//! Events by CRI's own `GetContainerEvents`.

use futures::{StreamExt, TryStreamExt, future, stream};
use k8s_cri::v1;

use crate::channel::Call;
use crate::client::CriClient;
use crate::convert::response;
use crate::error::Result;
use crate::service::ContainerEvents;

/// Opens the stream. Go's servers send their headers with the first event, so
/// this does not wait for them: a runtime without the method shows as
/// [`crate::CriError::Unimplemented`] in the stream.
pub(super) async fn subscribe(client: &CriClient) -> Result<ContainerEvents> {
    let call = Call { op: "GetContainerEvents", object: String::new(), deadline: None };
    let mut runtime = client.runtime();
    // A task of its own, so that the request leaves before the first poll.
    let opened = tokio::spawn(async move { runtime.get_container_events(v1::GetEventsRequest {}).await });
    let of_status = call.clone();
    let events = stream::once(opened)
        .map(|joined| joined.unwrap_or_else(|e| Err(tonic::Status::unavailable(e.to_string()))))
        .map_ok(tonic::Response::into_inner)
        .try_flatten()
        .map_err(move |status| of_status.status(&status))
        .and_then(move |event| future::ready(response::event(event).map_err(|e| call.malformed(e))));
    Ok(events.boxed())
}

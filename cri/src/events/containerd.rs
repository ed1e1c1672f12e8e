//! Events by containerd's own event service.

use std::sync::Arc;
use std::time::Duration;

use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::services::v1::{PublishRequest, SubscribeRequest};
use containerd_client::types::Envelope;
use futures::{TryStreamExt, future};
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use super::decode::{self, TOPICS};
use super::in_step::in_step;
use crate::channel::Call;
use crate::client::CriClient;
use crate::error::{CriError, Result};
use crate::namespace::{self, K8S_NAMESPACE};
use crate::service::ContainerEvents;

const OP: &str = "Subscribe";
/// Topic of the event by which we learn that the subscription stands.
const MARKER_TOPIC: &str = "/copepod/subscribed";
/// How often the marker is sent until it comes back.
const MARKER_PERIOD: Duration = Duration::from_millis(25);

/// Subscribes, and returns when containerd provably sends: a marker event that
/// we publish ourselves has come back. Whatever happens after is in the stream.
pub(super) async fn subscribe(client: &CriClient) -> Result<ContainerEvents> {
    let call = Call::new(OP, K8S_NAMESPACE, client.deadlines.request);
    let mut events = EventsClient::new(client.channel.clone());
    let filters = TOPICS
        .iter()
        .chain([&MARKER_TOPIC])
        .map(|topic| format!("topic==\"{topic}\",namespace==\"{K8S_NAMESPACE}\""))
        .collect();
    // containerd answers with its first event, which the marker provides.
    let opened = tokio::spawn(async move { events.subscribe(SubscribeRequest { filters }).await });
    let opened = async { opened.await.unwrap_or_else(|e| Err(Status::unavailable(e.to_string()))) };
    let stream = open(client, &call, opened).await?;
    Ok(decoded_in_step(client.clone(), stream, call))
}

/// Publishes markers until the stream answers, within the call's deadline.
async fn open(
    client: &CriClient,
    call: &Call,
    opened: impl Future<Output = std::result::Result<tonic::Response<Streaming<Envelope>>, Status>>,
) -> Result<Streaming<Envelope>> {
    tokio::pin!(opened);
    let wait = async {
        loop {
            mark(client, call).await?;
            match timeout(MARKER_PERIOD, &mut opened).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => return Err(call.status(&status)),
                Err(_) => continue,
            }
        }
    };
    let deadline = call.deadline.unwrap_or(Duration::MAX);
    timeout(deadline, wait).await.unwrap_or(Err(CriError::DeadlineExceeded {
        op: OP,
        object: call.object.clone(),
        deadline,
    }))
}

async fn mark(client: &CriClient, call: &Call) -> Result<()> {
    let mut events: EventsClient<Channel> = EventsClient::new(client.channel.clone());
    let event = containerd_client::events::NamespaceUpdate::default();
    let publish = PublishRequest { topic: MARKER_TOPIC.to_owned(), event: Some(containerd_client::to_any(&event)) };
    let request: Request<PublishRequest> = namespace::request(publish);
    call.send(events.publish(request)).await.map(drop)
}

/// Decodes, and holds ends back until CRI knows of them too.
fn decoded_in_step(client: CriClient, envelopes: Streaming<Envelope>, call: Call) -> ContainerEvents {
    let garbage = call.clone();
    let events = envelopes
        .map_err(move |status| call.status(&status))
        .and_then(move |envelope| future::ready(decode::envelope(&envelope).map_err(|e| garbage.malformed(e))))
        .try_filter_map(future::ok);
    in_step(events, Arc::new(client))
}

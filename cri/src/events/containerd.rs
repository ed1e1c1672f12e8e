//! Events by containerd's own event service.

use std::time::Duration;

use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::services::v1::{PublishRequest, SubscribeRequest};
use containerd_client::types::Envelope;
use futures::{StreamExt, TryStreamExt, future};
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use super::decode::{self, TOPICS};
use crate::channel::Call;
use crate::client::CriClient;
use crate::error::{CriError, Result};
use crate::id::{ContainerId, SandboxId};
use crate::namespace::{self, K8S_NAMESPACE};
use crate::service::{ContainerEvents, RuntimeService};
use crate::types::{ContainerEvent, ContainerEventKind, ContainerState, SandboxState};

const OP: &str = "Subscribe";
/// Topic of the event by which we learn that the subscription stands.
const MARKER_TOPIC: &str = "/copepod/subscribed";
/// How often the marker is sent until it comes back.
const MARKER_PERIOD: Duration = Duration::from_millis(25);
/// How long CRI may lag behind containerd's events.
const STOP_LAG_LIMIT: Duration = Duration::from_secs(2);

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

/// Decodes, and holds an exit back until CRI knows of it too: containerd's
/// event precedes CRI's own book-keeping by some milliseconds, and a caller who
/// looked in between would see a running container and no further event.
fn decoded_in_step(client: CriClient, envelopes: Streaming<Envelope>, call: Call) -> ContainerEvents {
    let garbage = call.clone();
    envelopes
        .map_err(move |status| call.status(&status))
        .and_then(move |envelope| future::ready(decode::envelope(&envelope).map_err(|e| garbage.malformed(e))))
        .try_filter_map(future::ok)
        .map(move |event| {
            let client = client.clone();
            async move {
                let event = event?;
                if event.kind == ContainerEventKind::Stopped {
                    wait_until_stopped(&client, &event).await;
                }
                Ok(event)
            }
        })
        // In order: a container's end must not follow its removal.
        .buffered(64)
        // What follows an error (the end of the runtime) is not worth hearing.
        .scan(false, |ended, event| {
            let over = std::mem::replace(ended, *ended || event.is_err());
            future::ready((!over).then_some(event))
        })
        .boxed()
}

/// Waits until CRI agrees that the container or sandbox does not run, or for
/// [`STOP_LAG_LIMIT`]. A failing CRI is no reason to keep the event back.
async fn wait_until_stopped(client: &CriClient, event: &ContainerEvent) {
    let end = Instant::now() + STOP_LAG_LIMIT;
    let mut pause = Duration::from_millis(1);
    while Instant::now() < end && runs(client, &event.id).await {
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

async fn runs(client: &CriClient, id: &str) -> bool {
    match client.container_status(&ContainerId::new(id)).await {
        Ok(status) => matches!(status.state, ContainerState::Running | ContainerState::Created),
        Err(e) if e.is_not_found() => match client.pod_sandbox_status(&SandboxId::new(id)).await {
            Ok(status) => status.summary.state == SandboxState::Ready,
            Err(_) => false,
        },
        Err(_) => false,
    }
}

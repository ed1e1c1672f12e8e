//! The task that writes events to the API server.

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::aggregate::{Aggregator, Write};
use super::{EventType, Happening};
use crate::clock::{Clock, to_seconds};

/// Tries per event; events are best effort.
const TRIES: u32 = 5;

fn object(happening: &Happening, write: &Write, node_name: &str) -> Event {
    let text = |s: &String| (!s.is_empty()).then(|| s.clone());
    let involved = &happening.involved;
    let namespace = if involved.namespace.is_empty() { "default" } else { &involved.namespace };
    Event {
        metadata: ObjectMeta {
            name: Some(write.name.clone()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some(involved.kind.to_owned()),
            name: text(&involved.name),
            namespace: text(&involved.namespace),
            uid: text(&involved.uid),
            resource_version: text(&involved.resource_version),
            field_path: text(&involved.field_path),
        },
        reason: Some(happening.reason.to_string()),
        message: Some(write.message.clone()),
        type_: Some(kind(happening.kind).to_owned()),
        count: Some(write.count),
        first_timestamp: Some(Time(to_seconds(write.first))),
        last_timestamp: Some(Time(to_seconds(write.last))),
        source: Some(EventSource { component: Some("kubelet".to_owned()), host: Some(node_name.to_owned()) }),
        reporting_component: Some("kubelet".to_owned()),
        reporting_instance: Some(node_name.to_owned()),
        ..Event::default()
    }
}

fn kind(kind: EventType) -> &'static str {
    match kind {
        EventType::Normal => "Normal",
        EventType::Warning => "Warning",
    }
}

/// Writes what comes through the queue until cancelled. Without a client the
/// events go to the log alone.
pub async fn run(
    client: Option<kube::Client>,
    mut queue: mpsc::Receiver<Happening>,
    node_name: String,
    clock: Clock,
    token: CancellationToken,
) {
    let mut aggregator = Aggregator::default();
    loop {
        let happening = tokio::select! {
            () = token.cancelled() => return,
            // Cancel-safe: a happening is lost only when it is received.
            happening = queue.recv() => match happening {
                Some(happening) => happening,
                None => return,
            },
        };
        tracing::debug!(
            object = %happening.involved.name,
            reason = %happening.reason,
            kind = kind(happening.kind),
            message = %happening.message,
            "event"
        );
        let Some(client) = &client else { continue };
        let write = aggregator.observe(&happening, clock.now());
        let sent = token.run_until_cancelled(send(client, &happening, &write, &node_name)).await;
        match sent {
            None => return,
            Some(true) => {}
            Some(false) => aggregator.forget(&write.name),
        }
    }
}

/// False: the event is not at the server.
async fn send(client: &kube::Client, happening: &Happening, write: &Write, node_name: &str) -> bool {
    let event = object(happening, write, node_name);
    let api: Api<Event> = Api::namespaced(client.clone(), event.metadata.namespace.as_deref().unwrap_or("default"));
    let mut create = write.count == 1;
    for attempt in 0..TRIES {
        let result = if create {
            let mut fresh = event.clone();
            fresh.count = Some(1);
            api.create(&PostParams::default(), &fresh).await.map(drop)
        } else {
            let patch = json!({
                "count": write.count,
                "message": write.message,
                "lastTimestamp": event.last_timestamp,
            });
            api.patch(&write.name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
        };
        match result {
            Ok(()) => return true,
            // It expired at the server: begin anew.
            Err(kube::Error::Api(status)) if status.code == 404 && !create => create = true,
            // The server understood and refused; its namespace is going away, say.
            Err(kube::Error::Api(status)) if status.code < 500 && status.code != 429 => return false,
            Err(error) => {
                tracing::debug!(%error, "event not written");
                tokio::time::sleep(std::time::Duration::from_millis(200 << attempt)).await;
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::events::Recorder;
    use k8s_openapi::api::core::v1::Pod;

    #[test]
    fn an_event_object() {
        let (recorder, mut queue) = Recorder::channel(1);
        let pod: Pod = serde_norway::from_str(
            "metadata: {name: p, namespace: ns, uid: u}\nspec: {containers: [{name: a}], initContainers: [{name: i}]}",
        )
        .unwrap();
        recorder.container(&pod, "i", EventType::Normal, "Started", "Started container i");
        recorder.pod(&pod, EventType::Normal, "Dropped", "the queue is full");
        let happening = queue.try_recv().unwrap();
        assert!(queue.try_recv().is_err());
        let write = Aggregator::default().observe(&happening, jiff::Timestamp::from_second(5).unwrap());
        let event = object(&happening, &write, "n1");
        assert_eq!(event.involved_object.field_path.as_deref(), Some("spec.initContainers{i}"));
        assert_eq!(event.source.unwrap().host.as_deref(), Some("n1"));
        assert_eq!((event.type_.as_deref(), event.count), (Some("Normal"), Some(1)));
        assert!(event.metadata.name.unwrap().starts_with("p."));
    }
}

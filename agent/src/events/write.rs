//! The task that writes events to the API server.

use k8s_openapi::api::core::v1::{self as api, EventSource};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::correlate::{EventCorrelator, Write};
use super::limit::{Limiter, Rate};
use super::{Event, EventType};
use crate::clock::{Clock, to_seconds};
use crate::ids::segment;

/// Tries per event; events are best effort.
const TRIES: u32 = 5;

fn object(event: &Event, write: &Write, node_name: &str) -> api::Event {
    let text = |s: &String| (!s.is_empty()).then(|| s.clone());
    let involved = &event.involved;
    let namespace = if involved.namespace.is_empty() { "default" } else { &involved.namespace };
    api::Event {
        metadata: ObjectMeta {
            name: Some(write.name.clone()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: api::ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some(involved.kind.to_owned()),
            name: text(&involved.name),
            namespace: text(&involved.namespace),
            uid: text(&involved.uid),
            resource_version: text(&involved.resource_version),
            field_path: text(&involved.field_path),
        },
        reason: Some(event.reason.to_string()),
        message: Some(write.message.clone()),
        type_: Some(kind(event.kind).to_owned()),
        count: Some(write.count),
        first_timestamp: Some(Time(to_seconds(write.first))),
        last_timestamp: Some(Time(to_seconds(write.last))),
        source: Some(EventSource { component: Some("kubelet".to_owned()), host: Some(node_name.to_owned()) }),
        reporting_component: Some("kubelet".to_owned()),
        reporting_instance: Some(node_name.to_owned()),
        ..api::Event::default()
    }
}

fn kind(kind: EventType) -> &'static str {
    match kind {
        EventType::Normal => "Normal",
        EventType::Warning => "Warning",
    }
}

/// Writes what comes through the queue until cancelled, no faster than `rate`.
/// Without a client the events go to the log alone.
pub async fn run(
    client: Option<kube::Client>,
    mut queue: mpsc::Receiver<Event>,
    rate: Option<Rate>,
    node_name: String,
    clock: Clock,
    token: CancellationToken,
) {
    let mut correlator = EventCorrelator::default();
    let mut limiter = rate.map(Limiter::new);
    loop {
        let event = tokio::select! {
            () = token.cancelled() => return,
            // Cancel-safe: an event is lost only when it is received.
            event = queue.recv() => match event {
                Some(event) => event,
                None => return,
            },
        };
        tracing::debug!(
            object = %event.involved.name,
            reason = %event.reason,
            kind = kind(event.kind),
            message = %event.message,
            "event"
        );
        let Some(client) = &client else { continue };
        let Some(write) = correlator.correlate(&event, clock.now()) else { continue };
        let sent = async {
            while let Some(Err(wait)) = limiter.as_mut().map(|limiter| limiter.take(clock.now())) {
                tokio::time::sleep(wait.unsigned_abs()).await;
            }
            send(client, &event, &write, &node_name).await
        };
        match token.run_until_cancelled(sent).await {
            None => return,
            Some(true) => {}
            Some(false) => correlator.forget(&write.name),
        }
    }
}

/// False: the event is not at the server.
async fn send(client: &kube::Client, event: &Event, write: &Write, node_name: &str) -> bool {
    let event = object(event, write, node_name);
    let api: Api<api::Event> =
        Api::namespaced(client.clone(), event.metadata.namespace.as_deref().unwrap_or("default"));
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
            api.patch(&segment(&write.name), &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
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
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;
    use crate::events::EventRecorder;
    use k8s_openapi::api::core::v1::Pod;

    #[test]
    fn an_event_object() {
        let (recorder, mut queue) = EventRecorder::channel(1);
        let pod: Pod = serde_norway::from_str(
            "metadata: {name: p, namespace: ns, uid: u}\nspec: {containers: [{name: a}], initContainers: [{name: i}]}",
        )
        .unwrap();
        recorder.container(&pod, "i", EventType::Normal, "Started", "Started container i");
        recorder.pod(&pod, EventType::Normal, "Dropped", "the queue is full");
        let recorded = queue.try_recv().unwrap();
        assert!(queue.try_recv().is_err());
        let write = EventCorrelator::default().correlate(&recorded, jiff::Timestamp::from_second(5).unwrap()).unwrap();
        let event = object(&recorded, &write, "n1");
        assert_eq!(event.involved_object.field_path.as_deref(), Some("spec.initContainers{i}"));
        assert_eq!(event.source.unwrap().host.as_deref(), Some("n1"));
        assert_eq!((event.type_.as_deref(), event.count), (Some("Normal"), Some(1)));
        assert!(event.metadata.name.unwrap().starts_with("p."));
    }

    /// A server that counts what it is asked for, by the name of the object.
    fn server() -> (kube::Client, Arc<Mutex<Vec<String>>>) {
        let written: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = written.clone();
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let seen = seen.clone();
            async move {
                let body = request.into_body().collect_bytes().await.unwrap();
                let object: serde_json::Value = serde_json::from_slice(&body).unwrap();
                seen.lock().unwrap().push(object["involvedObject"]["name"].as_str().unwrap_or("patch").to_owned());
                let answer = json!({"metadata": {"name": "e"}, "involvedObject": {}}).to_string();
                Ok::<_, std::convert::Infallible>(http::Response::new(kube::client::Body::from(answer.into_bytes())))
            }
        });
        (kube::Client::new(service, "default"), written)
    }

    /// A pod with a hundred containers that all fail their probes each second.
    #[tokio::test(start_paused = true)]
    async fn one_pod_does_not_crowd_out_the_others() {
        let (client, written) = server();
        let (recorder, queue) = EventRecorder::channel(1024);
        let (clock, token) = (Clock::tokio(jiff::Timestamp::now()), CancellationToken::new());
        let task = tokio::spawn(run(Some(client), queue, None, "n1".into(), clock, token.clone()));
        let names: Vec<String> = (0..100).map(|n| format!("c{n}")).collect();
        let containers: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
        let loud =
            json!({"metadata": {"name": "loud", "namespace": "ns", "uid": "l"}, "spec": {"containers": containers}});
        let loud: Pod = serde_json::from_value(loud).unwrap();
        let quiet: Pod = serde_norway::from_str("metadata: {name: quiet, namespace: ns, uid: q}").unwrap();
        for _ in 0..60 {
            for name in &names {
                recorder.container(&loud, name, EventType::Warning, "Unhealthy", "Readiness probe failed: ");
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        recorder.pod(&quiet, EventType::Normal, "Started", "once");
        tokio::time::sleep(Duration::from_secs(1)).await;
        let all = written.lock().unwrap().clone();
        assert_eq!(all.last().map(String::as_str), Some("quiet"));
        assert_eq!(all.len(), 26, "a burst of one, and what the other has to say");
        token.cancel();
        task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn all_events_together_have_a_rate() {
        let (client, written) = server();
        let (recorder, queue) = EventRecorder::channel(1024);
        let (clock, token) = (Clock::tokio(jiff::Timestamp::now()), CancellationToken::new());
        let rate = Rate { burst: 10, period: jiff::SignedDuration::from_millis(500) };
        let task = tokio::spawn(run(Some(client), queue, Some(rate), "n1".into(), clock, token.clone()));
        for n in 0..100 {
            let pod: Pod =
                serde_norway::from_str(&format!("metadata: {{name: p{n}, namespace: ns, uid: u{n}}}")).unwrap();
            recorder.pod(&pod, EventType::Normal, "Started", "once");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(written.lock().unwrap().len(), 10);
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(written.lock().unwrap().len(), 30);
        token.cancel();
        task.await.unwrap();
    }
}

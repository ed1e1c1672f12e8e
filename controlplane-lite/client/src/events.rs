//! Records what controllers do as core/v1 Events: counted when repeated,
//! combined when similar, dropped when an object floods. Recording never delays
//! or fails the caller.

pub mod correlate;

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, ObjectReference};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::workqueue::panic_text;
use super::{segment, text};
use correlate::{Correlator, Decision};

/// Drafts that may wait for the writer; more are dropped.
const QUEUE: usize = 4096;
/// Events written at once.
const BATCH: usize = 32;

/// Normal or Warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// Something went as it should.
    Normal,
    /// Something needs attention.
    Warning,
}

impl EventType {
    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// One thing that happened to an object.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Component, for example `deployment-controller`.
    pub component: &'static str,
    /// The object it happened to.
    pub object: ObjectReference,
    /// Kind of event.
    pub type_: EventType,
    /// Upstream's reason, CamelCase.
    pub reason: &'static str,
    /// One sentence.
    pub message: String,
}

impl Draft {
    /// With all texts cut to what the API allows: drafts wait, and the correlator remembers what they are about.
    fn new(
        component: &'static str,
        mut object: ObjectReference,
        (type_, reason): (EventType, &'static str),
        message: impl Into<String>,
    ) -> Self {
        let ObjectReference { api_version, field_path, kind, name, namespace, resource_version, uid } = &mut object;
        for word in [api_version, field_path, kind, name, namespace, resource_version, uid].into_iter().flatten() {
            text::truncate(word, text::NAME);
        }
        Self { component, object, type_, reason, message: text::cut(message, text::EVENT_MESSAGE) }
    }
}

/// Hands drafts to the writer task.
#[derive(Debug, Clone)]
pub struct Recorder {
    tx: mpsc::Sender<Draft>,
    component: &'static str,
}

impl Recorder {
    /// Starts the writer task and returns a recorder for `component`.
    pub fn start(client: Client, component: &'static str, tasks: &TaskTracker, token: CancellationToken) -> Self {
        let (tx, mut rx) = mpsc::channel(QUEUE);
        tasks.spawn(async move {
            // The events in hand are lost; those to come are not.
            while let Err(panic) = AssertUnwindSafe(write_events(&client, &mut rx, &token)).catch_unwind().await {
                tracing::error!(panic = panic_text(&*panic), "the writer of events panicked");
            }
        });
        Self { tx, component }
    }

    /// The same writer under another component name.
    pub fn named(&self, component: &'static str) -> Self {
        Self { tx: self.tx.clone(), component }
    }

    /// Records an event on a typed object.
    pub fn event<K>(&self, object: &K, type_: EventType, reason: &'static str, message: impl Into<String>)
    where
        K: Resource<DynamicType = ()>,
    {
        self.event_on(reference(object), type_, reason, message);
    }

    /// Records an event on a reference.
    pub fn event_on(
        &self,
        object: ObjectReference,
        type_: EventType,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        let draft = Draft::new(self.component, object, (type_, reason), message);
        if self.tx.try_send(draft).is_err() {
            tracing::debug!(reason, "event dropped: the writer is behind or gone");
        }
    }
}

/// A reference to a typed object, as events and targetRefs carry it.
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        ..ObjectReference::default()
    }
}

async fn write_events(client: &Client, rx: &mut mpsc::Receiver<Draft>, token: &CancellationToken) {
    let mut correlator = Correlator::default();
    let mut drafts = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            // Cancel-safe: `recv_many` takes drafts only when it returns them.
            () = token.cancelled() => return,
            taken = rx.recv_many(&mut drafts, BATCH) => if taken == 0 { return },
        }
        let now = Timestamp::now();
        let decisions = drafts.drain(..).map(|draft| correlator.observe(&draft, now));
        // A count may belong to an event of the same batch: new events go first.
        let (fresh, counts): (Vec<_>, Vec<_>) = decisions.partition(|d| matches!(d, Decision::Create(_)));
        let write = async {
            let created = fresh.into_iter().map(|d| perform(client, d));
            let mut refused = futures::future::join_all(created).await;
            for count in counts {
                refused.push(perform(client, count).await);
            }
            refused
        };
        let refused = tokio::select! {
            // Half-sent events are lost or written: both are harmless.
            () = token.cancelled() => return,
            refused = write => refused,
        };
        for name in refused.into_iter().flatten() {
            correlator.forget(&name);
        }
    }
}

/// Performs a decision; the name of an event that is not at the server after it.
async fn perform(client: &Client, decision: Decision) -> Option<String> {
    let created = match decision {
        Decision::Drop => return None,
        Decision::Create(event) => event,
        Decision::Count { namespace, name, patch, fresh } => {
            let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
            match api.patch(&segment(&name), &PatchParams::default(), &Patch::Merge(&patch)).await {
                // It has expired.
                Err(kube::Error::Api(status)) if status.code == 404 => fresh,
                Err(error) => {
                    tracing::debug!(%error, "event not counted");
                    return None;
                }
                Ok(_) => return None,
            }
        }
    };
    let error = create(client, &created).await.err()?;
    tracing::debug!(%error, "event not written");
    created.metadata.name
}

async fn create(client: &Client, event: &Event) -> Result<(), kube::Error> {
    let namespace = event.metadata.namespace.as_deref().unwrap_or("default");
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    api.create(&PostParams::default(), event).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draft_holds_no_long_texts() {
        let long = || Some("x".repeat(1_400_000));
        let object = ObjectReference {
            api_version: long(),
            field_path: long(),
            kind: long(),
            name: long(),
            namespace: long(),
            resource_version: long(),
            uid: long(),
        };
        let draft = Draft::new("c", object, (EventType::Normal, "Why"), "y".repeat(1_400_000));
        // Upstream's NoteLengthLimit, and what its truncateMessage makes of a longer text.
        assert_eq!((draft.message.len(), draft.message.ends_with("yyy ...")), (1024, true));
        let size = serde_json::to_string(&draft.object).map(|text| text.len());
        assert!(size.is_ok_and(|size| size < 7 * 300), "the reference too");
        assert!(draft.message.capacity() < 2048, "the rest is given back");
        let short = Draft::new("c", ObjectReference::default(), (EventType::Normal, "Why"), "a b");
        assert_eq!((short.message.as_str(), short.object), ("a b", ObjectReference::default()));
    }

    /// A server that answers with these codes, one after the other, and the requests it gets.
    fn server(codes: &'static [u16]) -> (Client, mpsc::UnboundedReceiver<String>) {
        let (seen, requests) = mpsc::unbounded_channel();
        let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let _ = seen.send(format!("{} {}", request.method(), request.uri().path()));
            let code = codes[count.fetch_add(1, std::sync::atomic::Ordering::Relaxed)];
            let body = serde_json::json!({"metadata": {}, "involvedObject": {}, "status": "Failure", "message": "",
                "reason": "", "code": code});
            let body = kube::client::Body::from(body.to_string().into_bytes());
            let answer = http::Response::builder().status(code).body(body);
            async move { answer }
        });
        (Client::new(service, "default"), requests)
    }

    #[tokio::test]
    async fn a_refused_event_is_written_anew_and_a_written_one_counted() {
        let (client, mut requests) = server(&[403, 201, 200]);
        let (tasks, token) = (TaskTracker::new(), CancellationToken::new());
        let recorder = Recorder::start(client, "c", &tasks, token.clone());
        let object = ObjectReference { name: Some("a?b".to_owned()), ..ObjectReference::default() };
        let mut seen = Vec::new();
        for _ in 0..3 {
            recorder.event_on(object.clone(), EventType::Warning, "Why", "m");
            seen.push(requests.recv().await.unwrap_or_default());
        }
        token.cancel();
        tasks.close();
        tasks.wait().await;
        let events = "/api/v1/namespaces/default/events";
        assert!(seen[..2].iter().all(|request| *request == format!("POST {events}")), "{seen:?}");
        let named = seen[2].strip_prefix(&format!("PATCH {events}/"));
        let plain = |c: char| c.is_ascii_hexdigit() || c == '.';
        assert!(named.is_some_and(|name| !name.is_empty() && name.chars().all(plain)), "{seen:?}");
    }
}

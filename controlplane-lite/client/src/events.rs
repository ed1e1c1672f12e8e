//! Records what controllers do as core/v1 Events: counted when repeated,
//! combined when similar, dropped when an object floods. Recording never delays
//! or fails the caller.

pub mod correlate;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, ObjectReference};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::text;
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
        let (tx, rx) = mpsc::channel(QUEUE);
        tasks.spawn(write_events(client, rx, token));
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

async fn write_events(client: Client, mut rx: mpsc::Receiver<Draft>, token: CancellationToken) {
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
            futures::future::join_all(fresh.into_iter().map(|d| perform(&client, d))).await;
            for count in counts {
                perform(&client, count).await;
            }
        };
        tokio::select! {
            // Half-sent events are lost or written: both are harmless.
            () = token.cancelled() => return,
            () = write => {}
        }
    }
}

async fn perform(client: &Client, decision: Decision) {
    let result = match decision {
        Decision::Drop => return,
        Decision::Create(event) => create(client, &event).await,
        Decision::Count { namespace, name, patch, fresh } => {
            let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
            match api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await {
                Err(kube::Error::Api(status)) if status.code == 404 => create(client, &fresh).await,
                other => other.map(drop),
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "event not written");
    }
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
}

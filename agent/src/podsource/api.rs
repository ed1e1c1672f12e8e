//! Pods bound to this node, from the API server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource as _};
use tokio_util::sync::CancellationToken;

use super::PodOrigin;
use super::merge::Merger;
use crate::events::{EventRecorder, EventType};
use crate::ids::PodUid;
use crate::watch::{Item, Skipped, Unreadable};

/// Watches until cancelled. A new list replaces the set only when it is whole. A
/// pod that cannot be read is told of and stays as it was.
pub async fn run(
    client: kube::Client,
    node_name: &str,
    merger: Merger,
    events: EventRecorder,
    token: CancellationToken,
) {
    let api: Api<Item<Pod>> = Api::all(client);
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node_name}"));
    let mut stream = watcher::watcher(api, config).default_backoff().boxed();
    let mut pods =
        Pods { merger, events, skipped: Skipped::new("pods"), list: BTreeMap::new(), unreadable: BTreeSet::new() };
    loop {
        let event = tokio::select! {
            () = token.cancelled() => return,
            // Cancel-safe: an event is lost only when it is received.
            event = stream.next() => event,
        };
        match event {
            Some(Ok(event)) => pods.handle(event),
            Some(Err(error)) => tracing::debug!(%error, "pods not watched"),
            None => return,
        }
    }
}

struct Pods {
    merger: Merger,
    events: EventRecorder,
    skipped: Skipped,
    /// What a list has so far, while it is not whole.
    list: BTreeMap<PodUid, Arc<Pod>>,
    unreadable: BTreeSet<PodUid>,
}

impl Pods {
    fn handle(&mut self, event: Event<Item<Pod>>) {
        match event {
            Event::Init => (self.list, self.unreadable) = Default::default(),
            Event::InitApply(item) => match slim(item) {
                Ok(pod) => _ = self.list.insert(PodUid::of(&pod), pod),
                Err(object) => {
                    let uid = self.skip(object);
                    self.unreadable.insert(uid);
                }
            },
            Event::InitDone => {
                self.merger.replace_listed(std::mem::take(&mut self.list), std::mem::take(&mut self.unreadable));
            }
            Event::Apply(item) => match slim(item) {
                Ok(pod) => self.merger.apply(PodOrigin::Api, pod),
                Err(object) => {
                    let uid = self.skip(object);
                    self.merger.unreadable(uid);
                }
            },
            Event::Delete(item) => {
                let uid = item.meta().uid.as_deref().unwrap_or_default();
                self.merger.remove(PodOrigin::Api, &PodUid::new(uid));
            }
        }
    }

    /// Says that a pod is passed by.
    fn skip(&mut self, object: Unreadable) -> PodUid {
        let told = self.skipped.say(&object);
        let error = object.to_string();
        let pod = Pod { metadata: *object.meta, ..Pod::default() };
        if told {
            self.events.pod(&pod, EventType::Warning, "UnreadableObject", error);
        }
        PodUid::of(&pod)
    }
}

/// The pod without what nobody here reads.
fn slim(item: Item<Pod>) -> Result<Arc<Pod>, Unreadable> {
    let mut pod = item.read()?;
    pod.metadata.managed_fields = None;
    Ok(Arc::new(pod))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bytes::Bytes;
    use futures::channel::mpsc;
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, version: u32, spec: &Value) -> Value {
        let meta = json!({"name": name, "namespace": "ns", "uid": name, "resourceVersion": version.to_string()});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    }

    type Lines = mpsc::UnboundedSender<Result<Frame<Bytes>, std::convert::Infallible>>;

    /// A server of this list; what is sent into the channel comes by its watch.
    fn server(items: &[Value]) -> (kube::Client, Lines) {
        let list =
            json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "10"}, "items": items});
        let (lines, watch) = mpsc::unbounded();
        let watch = Arc::new(std::sync::Mutex::new(Some(watch)));
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let (list, watch) = (list.clone(), watch.clone());
            let watches = request.uri().query().is_some_and(|query| query.contains("watch=true"));
            async move {
                let body = if watches {
                    watch.lock().unwrap().take().expect("one watch").left_stream()
                } else {
                    let frame = Frame::data(Bytes::from(list.to_string()));
                    futures::stream::iter([Ok::<_, std::convert::Infallible>(frame)]).right_stream()
                };
                Ok::<_, std::convert::Infallible>(http::Response::new(StreamBody::new(body)))
            }
        });
        (kube::Client::new(service, "default"), lines)
    }

    fn send(lines: &Lines, kind: &str, object: &Value) {
        let line = format!("{}\n", json!({"type": kind, "object": object}));
        lines.unbounded_send(Ok(Frame::data(Bytes::from(line)))).unwrap();
    }

    #[tokio::test]
    async fn a_pod_that_cannot_be_read_keeps_no_other_from_running() {
        let (fine, odd) = (json!({"containers": [{"name": "a"}]}), json!({"containers": "many"}));
        let (client, lines) = server(&[pod("a", 1, &fine), pod("odd", 2, &odd)]);
        let (merger, mut desired) = Merger::new(true, false, false);
        let (events, mut told) = EventRecorder::channel(8);
        let token = CancellationToken::new();
        let ended = token.clone();
        let task = tokio::spawn(async move { run(client, "n", merger, events, ended).await });
        let uid = |name: &str| PodUid::new(name);
        let mut until = async |what: &str, done: &dyn Fn(&crate::podsource::DesiredPods) -> bool| {
            harness::time::within(what, desired.wait_for(|d| done(d))).await.unwrap().unwrap();
        };
        until("the list", &|d| d.ready.api && d.pods.contains_key(&uid("a"))).await;
        until("the odd one is there", &|d| d.wants(&uid("odd")) && !d.pods.contains_key(&uid("odd"))).await;
        let event = told.recv().await.unwrap();
        assert_eq!((&*event.reason, event.involved.uid.as_str()), ("UnreadableObject", "odd"));

        // One that ran stays as it was; what comes behind it comes through.
        send(&lines, "MODIFIED", &pod("a", 11, &odd));
        send(&lines, "ADDED", &pod("b", 12, &fine));
        until("the next one", &|d| d.pods.contains_key(&uid("b"))).await;
        until("it runs on", &|d| d.pods[&uid("a")].pod.metadata.resource_version.as_deref() == Some("1")).await;
        send(&lines, "MODIFIED", &pod("odd", 13, &fine));
        until("it can be read", &|d| d.pods.contains_key(&uid("odd")) && d.unreadable.is_empty()).await;
        send(&lines, "DELETED", &pod("a", 14, &odd));
        until("it is gone", &|d| !d.wants(&uid("a"))).await;
        token.cancel();
        task.await.unwrap();
    }
}

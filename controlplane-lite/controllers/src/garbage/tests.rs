//! The collector against a server that serves a kind some of the time, in paused time.
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{StreamExt as _, stream};
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use kube::client::Body;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{Clients, ControllersConfig};
use client::Status;

/// Has one ConfigMap, whose owner is a Widget that is not there.
#[derive(Default)]
struct Server {
    /// In this version, if at all.
    serves_widgets: Mutex<Option<&'static str>>,
    /// The lists and watches of Widgets that it was asked for, and those of them that go on.
    asked_for_widgets: Mutex<Vec<String>>,
    open: Arc<Mutex<Vec<String>>>,
    /// How often it was asked for the ConfigMap.
    asked: AtomicUsize,
    deleted: Mutex<Vec<String>>,
}

fn resources(group_version: &str, plural: &str, kind: &str) -> Value {
    let verbs = ["get", "list", "watch", "delete"];
    let resource = json!({"name": plural, "singularName": "", "namespaced": true, "kind": kind, "verbs": verbs});
    json!({"groupVersion": group_version, "resources": [resource]})
}

fn config_map() -> Value {
    let owner = json!({"apiVersion": "example.com/v1", "kind": "Widget", "name": "w", "uid": "u-w"});
    json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": {"name": "c",
        "namespace": "default", "uid": "u-c", "resourceVersion": "7", "ownerReferences": [owner]}})
}

fn refused(code: u16, reason: &str) -> (u16, Value) {
    (code, json!({"kind": "Status", "status": "Failure", "message": "", "reason": reason, "code": code}))
}

impl Server {
    /// `None`: the answer does not end.
    fn answer(&self, request: &Request<Body>) -> Option<(u16, Value)> {
        let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
        let widgets = *self.serves_widgets.lock().unwrap();
        if path.ends_with("/widgets") {
            self.asked_for_widgets.lock().unwrap().push(path.to_owned());
        }
        if query.contains("watch=true") {
            return None;
        }
        let served = format!("example.com/{}", widgets.unwrap_or_default());
        let version = json!({"groupVersion": served, "version": widgets});
        let group = json!({"name": "example.com", "versions": [version], "preferredVersion": version});
        let list = |items: Value| json!({"metadata": {"resourceVersion": "9"}, "items": items});
        let answer = match (request.method(), path) {
            (&Method::GET, "/api") => json!({"versions": ["v1"]}),
            (&Method::GET, "/api/v1") => resources("v1", "configmaps", "ConfigMap"),
            (&Method::GET, "/apis") => json!({"groups": if widgets.is_some() { vec![group] } else { vec![] }}),
            (&Method::GET, path) if path == format!("/apis/{served}") => resources(&served, "widgets", "Widget"),
            (&Method::GET, "/api/v1/configmaps") if !query.contains("fieldSelector") => list(json!([config_map()])),
            (&Method::GET, "/api/v1/namespaces/default/configmaps/c") => {
                self.asked.fetch_add(1, Ordering::SeqCst);
                config_map()
            }
            (&Method::GET, path) if path == format!("/apis/{served}/widgets") => list(json!([])),
            (&Method::GET, path) if path.contains("/widgets") => return Some(refused(404, "NotFound")),
            (&Method::DELETE, path) => {
                self.deleted.lock().unwrap().push(path.to_owned());
                json!({"kind": "Status", "status": "Success"})
            }
            (&Method::GET, _) => list(json!([])),
            _ => return Some(refused(403, "Forbidden")),
        };
        Some((200, answer))
    }

    fn client(self: &Arc<Self>) -> kube::Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let answer = server.answer(&request);
            let path = request.uri().path().to_owned();
            let open = server.open.clone();
            async move {
                let (code, frames) = match answer {
                    Some((code, body)) => {
                        (code, stream::iter([Ok::<_, Infallible>(Frame::data(body.to_string().into()))]).boxed())
                    }
                    // A watch begins at once, and then there is nothing to tell.
                    None => {
                        let open = Open::new(&open, path);
                        let nothing = async move {
                            let _open = open;
                            std::future::pending().await
                        };
                        (200, stream::once(nothing).boxed())
                    }
                };
                Response::builder().status(code).body(StreamBody::new(frames))
            }
        });
        kube::Client::new(service, "default")
    }
}

/// A request whose answer does not end, until nobody waits for it.
struct Open(Arc<Mutex<Vec<String>>>, String);

impl Open {
    fn new(all: &Arc<Mutex<Vec<String>>>, path: String) -> Self {
        all.lock().unwrap().push(path.clone());
        Self(all.clone(), path)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut open = self.0.lock().unwrap();
        let at = open.iter().position(|path| *path == self.1).unwrap();
        open.remove(at);
    }
}

/// The collector, what it reports to, and what ends it.
fn collector(server: &Arc<Server>) -> (tokio::task::JoinHandle<()>, Status, CancellationToken) {
    let (client, token, status) = (server.client(), CancellationToken::new(), Status::default());
    let as_anybody = client.clone();
    let clients = Clients::new(client, move |_| as_anybody.clone());
    let controllers = vec!["garbage-collector-controller".to_owned()];
    let config = ControllersConfig { controllers, status: status.clone(), ..Default::default() };
    (tokio::spawn(crate::run(clients, config, token.clone())), status, token)
}

#[tokio::test(start_paused = true)]
async fn a_kind_is_followed_as_long_as_it_is_served() {
    let server = Arc::new(Server::default());
    let (running, status, token) = collector(&server);
    let open =
        || server.open.lock().unwrap().iter().filter(|path| path.ends_with("/widgets")).cloned().collect::<Vec<_>>();
    let known = || status.checks().iter().any(|check| check.name == "informer/metadata/widgets.example.com");
    for (serves, follows) in [
        (None, None),
        (Some("v1"), Some("/apis/example.com/v1/widgets")),
        (None, None),
        (Some("v2"), Some("/apis/example.com/v2/widgets")),
        (Some("v1"), Some("/apis/example.com/v1/widgets")),
    ] {
        *server.serves_widgets.lock().unwrap() = serves;
        tokio::time::sleep(Duration::from_secs(90)).await;
        assert_eq!(open(), follows.into_iter().collect::<Vec<_>>(), "{serves:?}");
        assert_eq!(known(), serves.is_some(), "{serves:?}");
        server.asked_for_widgets.lock().unwrap().clear();
        tokio::time::sleep(Duration::from_secs(90)).await;
        assert_eq!(*server.asked_for_widgets.lock().unwrap(), [""; 0], "{serves:?}");
    }
    token.cancel();
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_comes_to_be_served_is_noticed_soon() {
    let server = Arc::new(Server::default());
    let (running, _, token) = collector(&server);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(*server.deleted.lock().unwrap(), [""; 0], "the kind may be served one day");
    assert_eq!(server.asked.load(Ordering::SeqCst), 0, "what it has to be is known before");
    *server.serves_widgets.lock().unwrap() = Some("v1");
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(*server.deleted.lock().unwrap(), ["/api/v1/namespaces/default/configmaps/c"]);
    token.cancel();
    running.await.unwrap();
}

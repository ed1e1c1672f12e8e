//! The collector against a server that serves a kind from some time on, in paused time.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{Clients, ControllersConfig};

/// Has one ConfigMap, whose owner is a Widget that is not there.
#[derive(Default)]
struct Server {
    serves_widgets: AtomicBool,
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
        if query.contains("watch=true") {
            return None;
        }
        let widgets = self.serves_widgets.load(Ordering::SeqCst);
        let version = json!({"groupVersion": "example.com/v1", "version": "v1"});
        let group = json!({"name": "example.com", "versions": [version], "preferredVersion": version});
        let list = |items: Value| json!({"metadata": {"resourceVersion": "9"}, "items": items});
        let answer = match (request.method(), path) {
            (&Method::GET, "/api") => json!({"versions": ["v1"]}),
            (&Method::GET, "/api/v1") => resources("v1", "configmaps", "ConfigMap"),
            (&Method::GET, "/apis") => json!({"groups": if widgets { vec![group] } else { vec![] }}),
            (&Method::GET, "/apis/example.com/v1") if widgets => resources("example.com/v1", "widgets", "Widget"),
            (&Method::GET, "/api/v1/configmaps") if !query.contains("fieldSelector") => list(json!([config_map()])),
            (&Method::GET, "/api/v1/namespaces/default/configmaps/c") => {
                self.asked.fetch_add(1, Ordering::SeqCst);
                config_map()
            }
            (&Method::GET, "/apis/example.com/v1/namespaces/default/widgets/w") => {
                return Some(refused(404, "NotFound"));
            }
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
            async move {
                let Some((code, body)) = answer else { return std::future::pending().await };
                Response::builder().status(code).body(Body::from(body.to_string().into_bytes()))
            }
        });
        kube::Client::new(service, "default")
    }
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_comes_to_be_served_is_noticed_soon() {
    let server = Arc::new(Server::default());
    let (client, token) = (server.client(), CancellationToken::new());
    let as_anybody = client.clone();
    let clients = Clients::new(client, move |_| as_anybody.clone());
    let config =
        ControllersConfig { controllers: vec!["garbage-collector-controller".to_owned()], ..Default::default() };
    let running = tokio::spawn(crate::run(clients, config, token.clone()));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(*server.deleted.lock().unwrap(), [""; 0], "the kind may be served one day");
    assert_eq!(server.asked.load(Ordering::SeqCst), 0, "what it has to be is known before");
    server.serves_widgets.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(*server.deleted.lock().unwrap(), ["/api/v1/namespaces/default/configmaps/c"]);
    token.cancel();
    running.await.unwrap();
}

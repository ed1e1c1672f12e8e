//! The node object as an API server in memory sees it written.

#![allow(clippy::unwrap_used)]

use std::sync::Mutex;

use cri::fake::{FakeRuntime, Op};
use http::Method;
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_util::sync::DropGuard;

use super::*;

/// A node of which somebody else wrote a condition.
fn node() -> Value {
    json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n1", "uid": "u1", "resourceVersion": "5"},
        "status": {"conditions": [{"type": "NetworkUnavailable", "status": "True", "reason": "NoRouteCreated"}]}})
}

/// An API server that has that node and notes what is patched.
fn api(patches: Arc<Mutex<Vec<Value>>>) -> kube::Client {
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let patches = patches.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
            let answer = match (parts.method, parts.uri.path()) {
                (Method::PATCH, "/api/v1/nodes/n1/status") => {
                    patches.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
                    node()
                }
                (Method::PATCH | Method::GET, "/api/v1/nodes/n1") => node(),
                (Method::GET, "/api/v1/nodes") => {
                    json!({"kind": "NodeList", "apiVersion": "v1", "metadata": {"resourceVersion": "5"}, "items": [node()]})
                }
                _ => json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}),
            };
            let status = answer["code"].as_u64().map_or(200, |code| u16::try_from(code).unwrap());
            let body = kube::client::Body::from(answer.to_string().into_bytes());
            Ok::<_, std::convert::Infallible>(http::Response::builder().status(status).body(body).unwrap())
        }
    });
    kube::Client::new(service, "default")
}

fn node_sync(runtime: &Arc<FakeRuntime>, root: &std::path::Path) -> NodeStatusSync {
    let config = crate::config::AgentConfig::new("n1", root);
    NodeStatusSync {
        settings: config.node,
        eviction: config.eviction,
        pressures: watch::channel(Pressures::new()).1,
        root: root.to_owned(),
        runtime: runtime.clone(),
        pleg: RelistHealth::new(Duration::from_secs(60)),
        images: runtime.clone(),
        port: 10250,
        events: EventRecorder::channel(64).0,
        clock: Clock::tokio(Timestamp::now()),
    }
}

#[tokio::test(start_paused = true)]
async fn conditions_of_others_are_never_written() {
    let (dir, patches) = (tempfile::tempdir().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let (node_sync, client) = (node_sync(&FakeRuntime::new(), dir.path()), api(patches.clone()));
    let (view, token) = (watch::channel(Arc::default()).0, CancellationToken::new());
    let running = tokio::spawn({
        let token = token.clone();
        async move { node_sync.run(Some(client), view, token).await }
    });
    let written = async {
        while patches.lock().unwrap().len() < 3 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(3600), written).await.unwrap();
    token.cancel();
    running.await.unwrap();
    for patch in patches.lock().unwrap().iter() {
        let kinds: Vec<&str> =
            patch["status"]["conditions"].as_array().unwrap().iter().map(|c| c["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_is_stopped_makes_the_node_unready() {
    let (dir, runtime) = (tempfile::tempdir().unwrap(), FakeRuntime::new());
    let node_sync = node_sync(&runtime, dir.path());
    let ips = Vec::new();
    let machine = MachineInfo::default();
    let mut seen = Observed { machine, ips, version: None, images: Vec::new(), images_at: None, has_api: true };
    assert!(node_sync.observe(&mut seen).await.1.is_ok());
    for op in [Op::Status, Op::Version, Op::ListImages] {
        runtime.delay(op, 9, Duration::from_secs(600));
    }
    let began = Instant::now();
    let (_, view) = node_sync.observe(&mut seen).await;
    assert_eq!(view.unwrap_err(), "no answer within 30 s");
    assert_eq!(began.elapsed().as_secs(), RUNTIME_SILENT.as_secs(), "nothing else is waited for");
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_cannot_be_listed_makes_the_node_unready() {
    // Nobody lists; the runtime answers everything else.
    let (dir, patches) = (tempfile::tempdir().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let (node_sync, client) = (node_sync(&FakeRuntime::new(), dir.path()), api(patches.clone()));
    let (view, token) = (watch::channel(Arc::default()).0, CancellationToken::new());
    let running = tokio::spawn({
        let token = token.clone();
        async move { node_sync.run(Some(client), view, token).await }
    });
    let ready = || {
        let patches = patches.lock().unwrap();
        let conditions = patches.last()?["status"]["conditions"].as_array()?.clone();
        conditions.into_iter().find(|c| c["type"] == "Ready")
    };
    tokio::time::sleep(Duration::from_secs(150)).await;
    assert_eq!(ready().unwrap()["status"], "True");
    tokio::time::sleep(Duration::from_secs(60)).await;
    let unready = ready().unwrap();
    assert_eq!((&unready["status"], &unready["reason"]), (&json!("False"), &json!("KubeletNotReady")));
    assert!(unready["message"].as_str().unwrap().starts_with("PLEG is not healthy: "), "{unready}");
    token.cancel();
    running.await.unwrap();
}

type Asked = Arc<Mutex<Vec<(Method, String)>>>;

/// An API where the node is there when it is registered, and deleted as soon as it is watched, or, `unseen`, before the
/// watch is told to list again.
fn api_that_deletes(asked: Asked, unseen: bool) -> kube::Client {
    let watches = Arc::new(Mutex::new(0));
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (asked, watches) = (asked.clone(), watches.clone());
        async move {
            let (parts, _) = request.into_parts();
            let path = parts.uri.path().to_owned();
            let watch = parts.uri.query().is_some_and(|query| query.contains("watch=true"));
            asked.lock().unwrap().push((parts.method.clone(), path.clone()));
            let gone = *watches.lock().unwrap() > 0;
            let more = watch && std::mem::replace(&mut *watches.lock().unwrap(), 1) > 0;
            if more {
                std::future::pending::<()>().await;
            }
            let status = |code: u16, reason: &str| json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code});
            let answer = match (parts.method, path.as_str()) {
                (Method::GET | Method::PATCH, "/api/v1/nodes/n1") if !gone => node(),
                (Method::GET, "/api/v1/nodes") if watch && unseen => {
                    json!({"type": "ERROR", "object": status(410, "Expired")})
                }
                (Method::GET, "/api/v1/nodes") if watch => json!({"type": "DELETED", "object": node()}),
                (Method::GET, "/api/v1/nodes") => {
                    let items = if gone { json!([]) } else { json!([node()]) };
                    json!({"kind": "NodeList", "apiVersion": "v1", "metadata": {"resourceVersion": "5"}, "items": items})
                }
                _ => status(404, "NotFound"),
            };
            let status = answer["code"].as_u64().map_or(200, |code| u16::try_from(code).unwrap());
            let body = kube::client::Body::from(format!("{answer}\n").into_bytes());
            Ok::<_, std::convert::Infallible>(http::Response::builder().status(status).body(body).unwrap())
        }
    });
    kube::Client::new(service, "default")
}

/// As upstream: registered once a start (pkg/kubelet/kubelet_node_status.go, `registrationCompleted`).
#[tokio::test(start_paused = true)]
async fn a_node_that_is_deleted_is_not_made_again() {
    for unseen in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let asked = Asked::default();
        let client = api_that_deletes(asked.clone(), unseen);
        let node_sync = node_sync(&FakeRuntime::new(), dir.path());
        let (view, token) = (watch::channel(Arc::<NodeView>::default()).0, CancellationToken::new());
        let known = view.subscribe();
        let ended = token.clone();
        let running = tokio::spawn(async move { node_sync.run(Some(client), view, ended).await });
        tokio::time::sleep(Duration::from_secs(600)).await;
        token.cancel();
        running.await.unwrap();
        let asked = asked.lock().unwrap();
        let writes = asked.iter().filter(|(_, path)| path == "/api/v1/nodes/n1/status").count();
        assert!((1..20).contains(&writes), "written while it was there: {writes}");
        assert!(!asked.contains(&(Method::POST, "/api/v1/nodes".to_owned())), "it was made again");
        assert!(known.borrow().node.is_some(), "pods that run on know the node as it was");
    }
}

#[test]
fn the_newest_node_counts() {
    let node = |uid: &str, version: &str| {
        let text = format!("metadata: {{uid: {uid}, resourceVersion: '{version}'}}");
        Some(Arc::new(serde_norway::from_str::<Node>(&text).unwrap()))
    };
    let version = |node: Option<Arc<Node>>| node.unwrap().metadata.resource_version.clone().unwrap();
    assert_eq!(version(newest(node("a", "9"), node("a", "10"))), "10");
    assert_eq!(version(newest(node("a", "11"), node("a", "10"))), "11");
    assert_eq!(version(newest(node("b", "1"), node("a", "10"))), "1", "another node of that name");
    assert_eq!(version(newest(node("b", "1"), None)), "1");
}

/// An API where the node has labels as soon as it is watched; without it where there is `none`.
fn api_with_news(none: bool) -> kube::Client {
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| async move {
        let watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let listed = if none { json!([]) } else { json!([node()]) };
        let answer = match (request.method(), request.uri().path()) {
            (&Method::GET, "/api/v1/nodes") if watch => {
                let later = !request.uri().query().unwrap_or_default().contains("resourceVersion=5");
                if later || none {
                    std::future::pending::<()>().await;
                }
                let mut news = node();
                news["metadata"]["labels"] = json!({"disk": "ssd"});
                news["metadata"]["resourceVersion"] = json!("6");
                json!({"type": "MODIFIED", "object": news})
            }
            (&Method::GET, "/api/v1/nodes") => {
                json!({"kind": "NodeList", "apiVersion": "v1", "metadata": {"resourceVersion": "5"}, "items": listed})
            }
            (&Method::GET | &Method::PATCH, path) if path.starts_with("/api/v1/nodes/n1") && !none => node(),
            _ => json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}),
        };
        let status = answer["code"].as_u64().map_or(200, |code| u16::try_from(code).unwrap());
        let body = kube::client::Body::from(format!("{answer}\n").into_bytes());
        Ok::<_, std::convert::Infallible>(http::Response::builder().status(status).body(body).unwrap())
    });
    kube::Client::new(service, "default")
}

/// The view of a node whose runtime answers once and is silent from then on.
async fn view_without_runtime(client: kube::Client, register: bool) -> (watch::Receiver<Arc<NodeView>>, DropGuard) {
    let (dir, runtime) = (tempfile::tempdir().unwrap(), FakeRuntime::new());
    runtime.delay(Op::Status, 1, Duration::ZERO);
    runtime.delay(Op::Status, 9, Duration::from_secs(600));
    let mut node_sync = node_sync(&runtime, dir.path());
    node_sync.settings.register = register;
    let (view, token) = (watch::channel(Arc::<NodeView>::default()).0, CancellationToken::new());
    let (mut known, ended) = (view.subscribe(), token.clone());
    tokio::spawn(async move { node_sync.run(Some(client), view, ended).await });
    known.changed().await.unwrap();
    (known, token.drop_guard())
}

#[tokio::test(start_paused = true)]
async fn news_of_the_node_do_not_wait_for_the_runtime() {
    let (mut known, _running) = view_without_runtime(api_with_news(false), true).await;
    let news = known.wait_for(|view| view.node.as_ref().is_some_and(|node| node.metadata.labels.is_some()));
    let view = tokio::time::timeout(Duration::from_secs(1), news).await.unwrap().unwrap().clone();
    let labels = view.node.as_ref().unwrap().metadata.labels.clone().unwrap();
    assert_eq!((labels.get("disk").map(String::as_str), view.awaited), (Some("ssd"), false));
}

/// It is another one's to make, who may never do so.
#[tokio::test(start_paused = true)]
async fn a_node_that_nobody_made_is_not_awaited() {
    let (mut known, _running) = view_without_runtime(api_with_news(true), false).await;
    let judged = tokio::time::timeout(Duration::from_secs(60), known.wait_for(|view| !view.awaited)).await;
    assert!(judged.unwrap().unwrap().node.is_none());
}

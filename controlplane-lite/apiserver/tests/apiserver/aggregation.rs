//! APIs that another server serves, over TLS: a stand-in with moods, behind a Service of a real server.
//! The cases are those of test/e2e/apimachinery/aggregator.go and of kube-aggregator's tests of its handlers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use apiserver::serve::{PeerCertificate, ServingKey, serve as serve_tls, server_tls};
use apiserver::{body, body::Body};
use base64::Engine as _;
use bytes::Bytes;
use futures::StreamExt as _;
use harness::time;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use pki::{LEAF_LIFETIME, Subject};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use apiserver::testing::*;

mod documents;
mod local;
mod moods;
mod requests;

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const GROUP: &str = "wardle.example.com";
const API: &str = "/apis/wardle.example.com/v1alpha1";
const NAME: &str = "v1alpha1.wardle.example.com";

/// How the stand-in answers.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
enum Mood {
    Good,
    /// Also with one discovery document for all groups.
    Aggregated,
    /// 404 for everything.
    Empty,
    /// What is no JSON.
    Garbage,
    /// Bytes without end.
    Endless,
    /// Nothing at all.
    Silent,
}

const MOODS: [Mood; 6] = [Mood::Good, Mood::Aggregated, Mood::Empty, Mood::Garbage, Mood::Endless, Mood::Silent];

fn resources() -> Value {
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "wardle.example.com/v1alpha1", "resources": [
        {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder",
         "verbs": ["create", "get", "list", "watch"], "shortNames": ["fl"]},
        {"name": "flunders/status", "singularName": "", "namespaced": true, "kind": "Flunder", "verbs": ["get"]}]})
}

/// The same resources, and one that the other document does not have.
fn aggregated() -> Value {
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": [
        {"metadata": {"name": GROUP}, "versions": [{"version": "v1alpha1", "freshness": "Current", "resources": [
            {"resource": "fischers", "scope": "Cluster", "singularResource": "fischer", "verbs": ["list"]}]}]}]})
}

fn answer(value: &Value) -> Response<Body> {
    body::raw(StatusCode::OK, "application/json", value.to_string())
}

/// What the stand-in was asked, as the answer.
async fn told(request: Request<Body>) -> Response<Body> {
    let (parts, sent) = request.into_parts();
    let all = |name: &str| -> Vec<String> {
        parts.headers.get_all(name).iter().map(|v| v.to_str().unwrap().to_owned()).collect()
    };
    let peer = parts.extensions.get::<PeerCertificate>();
    let peer = peer.map(|peer| peer.0.user(jiff::Timestamp::now()).unwrap().username);
    let mut value = json!({
        "kind": "Flunder", "method": parts.method.as_str(), "path": parts.uri.to_string(),
        "user": all("x-remote-user"), "uid": all("x-remote-uid"), "groups": all("x-remote-group"),
        "extra": all("x-remote-extra-example.com%2fkey"), "other": all("x-remote-extra-mine"),
        "authorization": all("authorization"), "host": all("host"), "peer": peer,
    });
    value["body"] = String::from_utf8_lossy(&body::collect(sent).await.unwrap()).into();
    answer(&value)
}

/// Echoes upgraded connections in upper case.
fn echo(mut request: Request<Body>) -> Response<Body> {
    let protocol = request.headers()[header::UPGRADE].clone();
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut stream = TokioIo::new(upgrade.await.unwrap());
        let mut buffer = [0; 64];
        while let Ok(count) = stream.read(&mut buffer).await {
            if count == 0 || stream.write_all(&buffer[..count].to_ascii_uppercase()).await.is_err() {
                return;
            }
        }
    });
    let mut response = Response::new(body::full(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::UPGRADE, protocol);
    response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("Upgrade"));
    response
}

async fn extension(mood: Mood, request: Request<Body>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
    let asks_for_all =
        request.headers().get_all(header::ACCEPT).iter().any(|v| v.to_str().unwrap().contains("APIGroupDiscoveryList"));
    match mood {
        Mood::Good | Mood::Aggregated => {}
        Mood::Empty => return body::raw(StatusCode::NOT_FOUND, "text/plain", "nothing here"),
        Mood::Garbage => return body::raw(StatusCode::OK, "application/json", "}\u{0}{"),
        Mood::Endless => {
            return Response::new(body::stream(futures::stream::repeat(Bytes::from_static(&[b'['; 4096]))));
        }
        Mood::Silent => std::future::pending().await,
    }
    if request.headers().contains_key(header::UPGRADE) {
        return echo(request);
    }
    match path.as_str() {
        "/apis" if mood == Mood::Aggregated && asks_for_all => {
            let kind = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
            body::raw(StatusCode::OK, kind, aggregated().to_string())
        }
        API => answer(&resources()),
        "/openapi/v3" => answer(&json!({"paths": {
            "apis/wardle.example.com/v1alpha1": {"serverRelativeURL": "/openapi/v3/apis/wardle.example.com/v1alpha1?hash=AB"},
            "apis/apps/v1": {"serverRelativeURL": "/openapi/v3/apis/apps/v1?hash=EVIL"}}})),
        "/openapi/v3/apis/wardle.example.com/v1alpha1" => answer(&json!({"openapi": "3.0.0", "theirs": true})),
        "/openapi/v2" => answer(&json!({
            "swagger": "2.0", "paths": {"/apis/wardle.example.com/v1alpha1/flunders": {"get": {"schema": {"$ref": "#/definitions/Flunder"}}}},
            "definitions": {"Flunder": {"type": "object"}, "Unused": {}}})),
        _ if watch => {
            let first = futures::stream::iter([Bytes::from_static(
                b"{\"type\":\"ADDED\",\"object\":{\"kind\":\"Flunder\"}}\n",
            )]);
            Response::new(body::stream(first.chain(futures::stream::pending())))
        }
        _ => told(request).await,
    }
}

/// A cluster, and a stand-in that it may reach.
struct Extension {
    cluster: Served,
    address: SocketAddr,
    mood: Arc<AtomicUsize>,
    bundle: String,
    _stop: tokio_util::sync::DropGuard,
}

impl Extension {
    async fn start(mood: Mood) -> Self {
        let cluster = serve_locally().await;
        let now = jiff::Timestamp::now();
        let subject = Subject::server("ext", vec!["ext.default.svc".into()], Vec::new());
        let cert = cluster.ca.pki.ca().issue(&subject, LEAF_LIFETIME, now).unwrap();
        let serving = Arc::new(ServingKey::new(&cert.cert_pem, &cert.key_pem).unwrap());
        let tls = server_tls(serving, &[cluster.ca.pki.front_proxy_ca().cert_pem()]).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (token, mood) = (CancellationToken::new(), Arc::new(AtomicUsize::new(mood as usize)));
        let moods = mood.clone();
        let handler = move |request| extension(MOODS[moods.load(Ordering::Relaxed)], request);
        tokio::spawn(serve_tls(listener, tls, handler, token.clone()));
        let bundle = base64::engine::general_purpose::STANDARD.encode(cluster.ca.pem());
        Self { cluster, address, mood, bundle, _stop: token.drop_guard() }
    }

    /// The same, with a Service and an APIService, of which requests are served.
    async fn serving(mood: Mood) -> Self {
        let extension = Self::start(mood).await;
        extension.service(json!({"ports": [{"port": 443, "name": "https"}]})).await;
        extension.endpoints(true, "https").await;
        extension.register(json!({"caBundle": extension.bundle})).await;
        extension.says("True", "Passed").await;
        extension
    }

    fn client(&self) -> &kube::Client {
        &self.cluster.client
    }

    fn be(&self, mood: Mood) {
        self.mood.store(mood as usize, Ordering::Relaxed);
    }

    async fn service(&self, spec: Value) {
        let service = json!({"metadata": {"name": "ext"}, "spec": spec});
        expect(post(self.client(), "/api/v1/namespaces/default/services", &service).await, StatusCode::CREATED);
    }

    /// The slice that leads to the stand-in. It stands in the store as it is: no client may name a loopback address.
    async fn endpoints(&self, ready: bool, port: &str) {
        let registry = &self.cluster.server().server().registry;
        let slices = registry.get("discovery.k8s.io", "endpointslices").unwrap();
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "ext", "namespace": "default", "uid": "u", "labels": {"kubernetes.io/service-name": "ext"}},
            "endpoints": [{"addresses": [self.address.ip()], "conditions": {"ready": ready}}],
            "ports": [{"name": port, "port": self.address.port(), "protocol": "TCP"}],
        });
        slices.create("default", "ext", slice, false).await.unwrap();
    }

    /// Makes the APIService, with more in its spec.
    async fn register(&self, more: Value) {
        let mut service = json!({"metadata": {"name": NAME}, "spec": {
            "group": GROUP, "version": "v1alpha1", "groupPriorityMinimum": 2000, "versionPriority": 200,
            "service": {"namespace": "default", "name": "ext"}}});
        service["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        expect(post(self.client(), SERVICES, &service).await, StatusCode::CREATED);
    }

    /// Waits for the condition, and tells its message.
    async fn says(&self, status: &str, reason: &str) -> String {
        let what = format!("the APIService is {status} because of {reason}");
        time::eventually(&what, async || {
            let service = get(self.client(), &format!("{SERVICES}/{NAME}")).await.1;
            let condition = &service["status"]["conditions"][0];
            anyhow::ensure!(condition["status"] == status && condition["reason"] == reason, "{condition}");
            Ok(condition["message"].as_str().unwrap().to_owned())
        })
        .await
        .unwrap()
    }

    /// The version in the aggregated document of all groups.
    async fn discovered(&self) -> Value {
        let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        let request = Request::get("/apis").header("accept", accept).body(kube::client::Body::empty()).unwrap();
        let bytes = self.client().send(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
        let all: Value = serde_json::from_slice(&bytes).unwrap();
        let mut items = all["items"].as_array().unwrap().iter();
        items.find(|item| item["metadata"]["name"] == GROUP).map_or(json!(null), |item| item["versions"][0].clone())
    }
}

//! Admission webhooks that are real servers over TLS: what they are asked, what they may do, and what comes of those
//! that fail. The cases are those of upstream's e2e specs (`test/e2e/apimachinery/webhook.go`) and of
//! `test/integration/apiserver/admissionwebhook`.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use apiserver::body::{self, Body};
use apiserver::serve::{ServingKey, serve as serve_tls, server_tls};
use apiserver::testing::*;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use pki::{LEAF_LIFETIME, Subject};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

mod custom;
mod failing;
mod judging;
mod seen;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";

/// A webhook's server, which remembers what it was asked.
pub struct Hook {
    pub address: SocketAddr,
    pub ca: Ca,
    asked: Arc<Mutex<Vec<Value>>>,
    _stop: DropGuard,
}

impl Hook {
    /// One that answers a review with a response, to which the uid is added.
    async fn answering(answer: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Self {
        Self::with(move |review| {
            let mut response = answer(review);
            response["uid"] = review["request"]["uid"].clone();
            let review = json!({"kind": "AdmissionReview", "apiVersion": review["apiVersion"], "response": response});
            body::raw(StatusCode::OK, "application/json", review.to_string())
        })
        .await
    }

    /// One that answers what it likes.
    pub async fn with(answer: impl Fn(&Value) -> Response<Body> + Send + Sync + 'static) -> Self {
        let ca = Ca::default();
        let subject = Subject::server("webhook", vec!["localhost".into()], vec![Ipv4Addr::LOCALHOST.into()]);
        let issued = ca.pki.ca().issue(&subject, LEAF_LIFETIME, jiff::Timestamp::now()).unwrap();
        let key = Arc::new(ServingKey::new(&issued.cert_pem, &issued.key_pem).unwrap());
        let tls = server_tls(key, &[ca.pem()]).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, stop) = (Arc::<Mutex<Vec<Value>>>::default(), CancellationToken::new());
        let (answer, seen) = (Arc::new(answer), asked.clone());
        let handler = move |request: Request<Body>| {
            let (answer, seen) = (answer.clone(), seen.clone());
            async move {
                assert_eq!(request.method(), "POST");
                let query = request.uri().query().unwrap_or("").to_owned();
                let bytes = request.into_body().collect().await.unwrap().to_bytes();
                let mut review: Value = serde_json::from_slice(&bytes).unwrap();
                let response = answer(&review);
                review["query"] = query.into();
                seen.lock().unwrap().push(review);
                response
            }
        };
        tokio::spawn(serve_tls(listener, tls, handler, stop.clone()));
        Self { address, ca, asked, _stop: stop.drop_guard() }
    }

    /// A webhook of that server, changed.
    fn named(&self, name: &str, changes: &Value) -> Value {
        let hook = json!({
            "name": name, "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": format!("https://{}/ask", self.address), "caBundle": STANDARD.encode(self.ca.pem())},
            "rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["configmaps"]}],
        });
        scheme::patch::merge::apply(&hook, changes)
    }

    /// What it was asked since the last time.
    pub fn take(&self) -> Vec<Value> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

/// Configures webhooks; when this returns, they are asked.
async fn configure(client: &kube::Client, path: &str, name: &str, webhooks: &[Value]) {
    let kind = if path == MUTATING { "MutatingWebhookConfiguration" } else { "ValidatingWebhookConfiguration" };
    let config = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name},
        "webhooks": webhooks});
    expect(post(client, path, &config).await, StatusCode::CREATED);
    // A list that may not be old: what was written before it is seen.
    expect(get(client, path).await, StatusCode::OK);
}

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
}

/// What pods run as.
async fn account(client: &kube::Client) {
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    expect(post(client, "/api/v1/namespaces/default/serviceaccounts", &account).await, StatusCode::CREATED);
}

/// A response that patches.
fn patching(operations: &Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(operations.to_string())})
}

/// Appends a word to `data.words`.
fn saying(review: &Value, word: &str) -> Value {
    let object = &review["request"]["object"];
    let said = object["data"]["words"].as_str().unwrap_or("");
    let mut data = object["data"].clone();
    data["words"] = format!("{said}{word}").into();
    patching(&json!([{"op": "add", "path": "/data", "value": data}]))
}

#[tokio::test]
async fn objects_are_changed_in_order_and_defaulted() {
    let (_api, client) = start().await;
    let hook = Hook::answering(|review| {
        let object = &review["request"]["object"];
        let next = match object["data"]["words"].as_str() {
            None => "a",
            Some("a") => "b",
            Some(_) => "c",
        };
        saying(review, next)
    })
    .await;
    // By the names of configurations, then as they stand there.
    let never = json!({});
    configure(&client, MUTATING, "second", &[hook.named("c.example.com", &never)]).await;
    configure(&client, MUTATING, "first", &[hook.named("a.example.com", &never), hook.named("b.example.com", &never)])
        .await;
    let made = expect(post(&client, MAPS, &map("m")).await, StatusCode::CREATED);
    assert_eq!(made["data"]["words"], "abc");
    let asked = hook.take();
    assert_eq!(asked.len(), 3);
    assert_eq!(asked[2]["request"]["object"]["data"]["words"], "ab");
    // What the patch leaves out has its default.
    let pods = Hook::answering(|_| {
        patching(&json!([{"op": "add", "path": "/spec/containers/-", "value": {"name": "more", "image": "i"}}]))
    })
    .await;
    let rules =
        json!({"rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]});
    configure(&client, MUTATING, "pods", &[pods.named("pods.example.com", &rules)]).await;
    account(&client).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let made = expect(post(&client, "/api/v1/namespaces/default/pods", &pod).await, StatusCode::CREATED);
    assert_eq!(made["spec"]["containers"][1]["terminationMessagePath"], "/dev/termination-log");
    // Its mounts are those of ServiceAccount, which looked once more.
    assert!(made["spec"]["containers"][1]["volumeMounts"].is_array(), "{made}");
}

#[tokio::test]
async fn webhooks_are_asked_again_when_others_change_the_object_after_them() {
    for (policy, expect_words) in [("Never", "ab"), ("IfNeeded", "abab")] {
        let (_api, client) = start().await;
        let first = Hook::answering(|review| saying(review, "a")).await;
        let second = Hook::answering(|review| saying(review, "b")).await;
        let again = json!({"reinvocationPolicy": policy});
        configure(&client, MUTATING, "a", &[first.named("a.example.com", &again)]).await;
        configure(&client, MUTATING, "b", &[second.named("b.example.com", &again)]).await;
        let made = expect(post(&client, MAPS, &map("m")).await, StatusCode::CREATED);
        assert_eq!(made["data"]["words"], expect_words);
        let times = expect_words.len() / 2;
        assert_eq!((first.take().len(), second.take().len()), (times, times));
    }
}

#[tokio::test]
async fn an_object_that_a_patch_makes_invalid_is_refused_as_such() {
    let (_api, client) = start().await;
    let hook =
        Hook::answering(|_| patching(&json!([{"op": "add", "path": "/metadata/labels", "value": {"-": "-"}}]))).await;
    configure(&client, MUTATING, "a", &[hook.named("a.example.com", &json!({}))]).await;
    let refused = expect(post(&client, MAPS, &map("m")).await, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused["message"].as_str().unwrap().contains("metadata.labels"), "{refused}");
}

/// What admission changes belongs to nobody, as upstream.
#[tokio::test]
async fn fields_of_a_webhook_have_no_owner_and_owners_stay_readable() {
    let (_api, client) = start().await;
    let hook = Hook::answering(|_| {
        patching(&json!([
            {"op": "add", "path": "/data", "value": {"by": "hook"}},
            {"op": "add", "path": "/metadata/managedFields", "value": [{"manager": "x", "operation": "Nonsense"}]},
        ]))
    })
    .await;
    configure(&client, MUTATING, "a", &[hook.named("a.example.com", &json!({}))]).await;
    let mut object = map("m");
    object["immutable"] = json!(false);
    let made = expect(post(&client, MAPS, &object).await, StatusCode::CREATED);
    let entries = made["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0]["fieldsV1"], json!({"f:immutable": {}}));
}

#[tokio::test]
async fn metrics_are_counted_by_name() {
    let (_api, client) = start().await;
    let hook = Hook::answering(|_| json!({"allowed": false})).await;
    configure(&client, VALIDATING, "a", &[hook.named("a.example.com", &json!({}))]).await;
    expect(post(&client, MAPS, &map("m")).await, StatusCode::BAD_REQUEST);
    let (_, text) = get(&client, "/metrics").await;
    let text = text.as_str().unwrap();
    let labels = "name=\"a.example.com\",type=\"validating\",operation=\"CREATE\"";
    for line in [
        format!("apiserver_admission_webhook_request_total{{{labels},code=\"400\",rejected=\"true\"}} 1"),
        format!(
            "apiserver_admission_webhook_rejection_count{{{labels},error_type=\"no_error\",rejection_code=\"400\"}} 1"
        ),
    ] {
        assert!(text.contains(&line), "{line}\n{text}");
    }
}

/// One raw request, for its headers.
async fn warned(client: &kube::Client, path: &str, object: &Value) -> (u16, Vec<String>) {
    let request = Request::post(path).header("content-type", "application/json");
    let response = client.send(request.body(Bytes::from(object.to_string()).to_vec().into()).unwrap()).await.unwrap();
    let warnings = response.headers().get_all("warning").iter().map(|v| v.to_str().unwrap().to_owned()).collect();
    (response.status().as_u16(), warnings)
}

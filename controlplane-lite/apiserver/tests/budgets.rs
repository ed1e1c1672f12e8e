//! Requests made to exhaust the server, each sent by an ordinary user over a connection of their own: it stays within
//! its memory, and a node's requests go on being answered. A process of its own, since its memory is watched.

#![allow(clippy::unwrap_used)]

use std::rc::Rc;

use apiserver::testing::{Sender, Served, connect, expect, patch, post, serve};
use bytes::Bytes;
use harness::time;
use harness::token::{self, Token};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};

/// What the process may take beyond what it has before.
const MEMORY: u64 = 700 << 20;
const PODS: &str = "/api/v1/namespaces/default/pods";

/// Peak of the resident memory since the last reset, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

fn reset_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

struct World {
    served: Served,
    user: (String, String),
    node: (String, String),
    _token: Rc<Token>,
}

impl World {
    /// A server, an administrator of the namespace `default`, and a node.
    async fn new() -> Self {
        let token = token::take().unwrap();
        let served = serve().await;
        let binding = json!({
            "metadata": {"name": "jane"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}],
        });
        let path = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
        expect(post(&served.client, path, &binding).await, StatusCode::CREATED);
        let account = json!({"metadata": {"name": "default"}});
        let made = post(&served.client, "/api/v1/namespaces/default/serviceaccounts", &account).await;
        expect(made, StatusCode::CREATED);
        let user = served.ca.issue("jane", "");
        let node = served.ca.issue("system:node:a", "system:nodes");
        Self { served, user, node, _token: token }
    }

    async fn connect(&self, identity: &(String, String)) -> Sender {
        connect(self.served.address, self.served.ca.pem(), Some((&identity.0, &identity.1))).await
    }

    async fn send(&self, method: Method, path: &str, media: &str, body: impl Into<Bytes>) -> (u16, String) {
        let request = Request::builder().method(method).uri(path).header("host", "x").header("content-type", media);
        let request = request.body(Full::new(body.into())).unwrap();
        let answer = self.connect(&self.user).await.send_request(request).await.unwrap();
        let code = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8_lossy(&bytes[..bytes.len().min(4000)]).into_owned())
    }

    /// Carries out an attack while a node asks for something again and again; the answers' codes.
    async fn under(&self, attack: impl Future<Output = Vec<(u16, String)>>) -> Vec<(u16, String)> {
        // The memory is the process's: one attack at a time.
        static ATTACK: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let _alone = ATTACK.lock().await;
        reset_peak();
        let before = peak();
        let mut node = self.connect(&self.node).await;
        let bystander = async {
            loop {
                let request = Request::get("/api/v1/nodes/a").header("host", "x").body(Full::default()).unwrap();
                node.ready().await.unwrap();
                let asked = async { node.send_request(request).await.unwrap().into_body().collect().await.unwrap() };
                // The attacks took minutes; each of this node's requests has to end.
                time::within("the node's request", asked).await.unwrap();
            }
        };
        let answers = tokio::select! {
            answers = attack => answers,
            () = bystander => unreachable!("asks for ever"),
        };
        let grown = peak().saturating_sub(before);
        assert!(grown < MEMORY, "{} MiB more", grown >> 20);
        answers
    }

    /// The same body several times at once.
    async fn at_once(&self, count: usize, method: Method, path: &str, media: &str, body: String) -> Vec<(u16, String)> {
        let body = Bytes::from(body);
        let sends = (0..count).map(|_| self.send(method.clone(), path, media, body.clone()));
        self.under(futures::future::join_all(sends)).await
    }
}

#[track_caller]
fn all(answers: &[(u16, String)], allowed: &[u16]) {
    for (code, text) in answers {
        assert!(allowed.contains(code), "{code} {}", &text[..text.len().min(300)]);
    }
    assert!(answers.iter().any(|(code, _)| *code == allowed[0]), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_expand_are_refused() {
    let world = World::new().await;
    let mut bomb = "kind: Pod\na0: &a0 [xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx]\n".to_owned();
    for level in 1..12 {
        let below = vec![format!("*a{}", level - 1); 2_000].join(",");
        bomb.push_str(&format!("a{level}: &a{level} [{below}]\n"));
    }
    all(&world.at_once(2, Method::POST, PODS, "application/yaml", bomb).await, &[400]);

    // As many small ones as there are places.
    let mut small = "kind: Pod\na0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..6 {
        small.push_str(&format!("a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 8].join(",")));
    }
    all(&world.at_once(60, Method::POST, PODS, "application/yaml", small).await, &[400, 429]);

    let maps = format!("{{\"x\":[{}]}}", vec!["{\"a\":0}"; 390_000].join(","));
    all(&world.at_once(8, Method::POST, PODS, "application/json", maps).await, &[400, 429]);

    let keys: Vec<String> = (0..250_000).map(|n| format!("\"k{}\":0", n / 2)).collect();
    let keys = format!("{{{}}}", keys.join(","));
    all(&world.at_once(8, Method::POST, PODS, "application/json", keys).await, &[422, 429]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patches_that_explode_are_refused() {
    let world = World::new().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let map = json!({"metadata": {"name": "c", "annotations": {"a": "b"}}, "data": {"k": "v"}});
    expect(post(&world.served.client, maps, &map).await, StatusCode::CREATED);
    let copy = |n: usize| json!({"op": "copy", "from": "/metadata", "path": format!("/metadata/annotations/x{n}")});
    let copies: Value = (0..30).map(copy).collect();
    let map = format!("{maps}/c");
    let media = "application/json-patch+json";
    all(&world.at_once(4, Method::PATCH, &map, media, copies.to_string()).await, &[422]);

    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    expect(post(&world.served.client, PODS, &pod).await, StatusCode::CREATED);
    let named: Vec<Value> = (0..30_000).map(|n| json!({"name": format!("c{n}")})).collect();
    let order = json!({"spec": {"containers": named, "$setElementOrder/containers": named}}).to_string();
    let path = format!("{PODS}/p");
    let media = "application/strategic-merge-patch+json";
    all(&world.at_once(2, Method::PATCH, &path, media, order).await, &[422, 429]);
    // What it was before.
    expect(patch(&world.served.client, &map, "merge-patch+json", &json!({"data": {"k": "w"}})).await, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_lists_of_names_are_checked_at_once() {
    let world = World::new().await;
    let many = |prefix: &str| (0..400).map(|n| format!("{prefix}{n}")).collect::<Vec<_>>();
    let rule = json!({"verbs": many("v"), "apiGroups": many("g"), "resources": many("r")});
    let role = json!({"metadata": {"name": "r"}, "rules": [rule]}).to_string();
    let path = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
    all(&world.at_once(4, Method::POST, path, "application/json", role).await, &[403]);

    let usages: Vec<String> = (0..150_000).map(|n| format!("u{n}")).collect();
    let request = json!({"metadata": {"name": "r"}, "spec": {"signerName": "a.b/c", "usages": usages, "request": ""}});
    let bind = json!({
        "metadata": {"name": "jane"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:node-bootstrapper"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}],
    });
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    expect(post(&world.served.client, bindings, &bind).await, StatusCode::CREATED);
    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    all(&world.at_once(4, Method::POST, path, "application/json", request.to_string()).await, &[422, 429]);
}

/// Lists that rules, allocation and selectors go through, as long as they fit into a request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_lists_cost_no_more_than_their_length() {
    let world = World::new().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let json = "application/json";
    let owner = |n| json!({"apiVersion": "v1", "kind": "K", "name": "n", "uid": format!("u{n}"), "controller": true});
    let owned = |owners: Vec<Value>| json!({"metadata": {"name": "o", "ownerReferences": owners}}).to_string();
    let different = owned((0..30_000).map(owner).collect());
    all(&world.at_once(4, Method::POST, maps, json, different).await, &[422, 429]);
    // Equal ones are one.
    all(&world.at_once(4, Method::POST, maps, json, owned(vec![owner(0); 30_000])).await, &[201, 409, 429]);

    let labels: serde_json::Map<String, Value> = (0..180_000).map(|n| (format!("l{n}"), json!(""))).collect();
    let labelled = json!({"metadata": {"name": "l", "labels": labels}}).to_string();
    all(&world.at_once(1, Method::POST, maps, json, labelled).await, &[201]);
    let select = |terms: usize| format!("{maps}?labelSelector={}", vec!["!z"; terms].join(","));
    all(&world.at_once(8, Method::GET, &select(400), "", String::new()).await, &[200, 429]);
    all(&world.at_once(8, Method::GET, &select(21_800), "", String::new()).await, &[400, 429]);

    let ports: Vec<Value> = (1..45_000).map(|n| json!({"port": n, "name": format!("p{n}")})).collect();
    let spec = json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": ports});
    let service = json!({"metadata": {"name": "s"}, "spec": spec}).to_string();
    let services = "/api/v1/namespaces/default/services";
    all(&world.at_once(1, Method::POST, services, json, service.clone()).await, &[201]);
    all(&world.at_once(4, Method::PUT, &format!("{services}/s"), json, service).await, &[200, 409, 429]);
}

/// Connections whose bodies trickle in hold no place: others of the same kind are still served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_trickle_hold_no_place() {
    let world = World::new().await;
    let mut trickling = Vec::new();
    for _ in 0..260 {
        trickling.push(trickle(&world).await);
    }
    let map = json!({"metadata": {"name": "m"}}).to_string();
    let maps = "/api/v1/namespaces/default/configmaps";
    all(&world.at_once(1, Method::POST, maps, "application/json", map).await, &[201]);
    drop(trickling);
}

/// A connection that has sent the head of a request and a part of its body.
async fn trickle(world: &World) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    use tokio::io::AsyncWriteExt as _;
    let (cert, key) = &world.user;
    let mut stream = apiserver::testing::tls(world.served.address, world.served.ca.pem(), Some((cert, key))).await;
    let head = "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                content-length: 3000000\r\n\r\n{\"metadata\":";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    stream
}

/// A definition with this schema of a specification, in several versions.
fn definition(plural: &str, versions: usize, spec: &Value) -> String {
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}});
    let version =
        |n: usize| json!({"name": format!("v{}", n + 1), "served": true, "storage": n == 0, "schema": schema});
    let kind = format!("K{plural}");
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.example.com")},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": plural, "kind": kind},
            "versions": (0..versions).map(version).collect::<Vec<_>>()}})
    .to_string()
}

/// Definitions as large as a body may be are served, read and described, and go again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_cost_no_more_than_their_schemas() {
    const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let world = World::new().await;
    let rules = json!([{"apiGroups": ["apiextensions.k8s.io", "example.com"], "resources": ["*"], "verbs": ["*"]}]);
    let role = json!({"metadata": {"name": "definer"}, "rules": rules});
    let binding = json!({"metadata": {"name": "definer"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "definer"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}]});
    for (plural, object) in [("clusterroles", role), ("clusterrolebindings", binding)] {
        let path = format!("/apis/rbac.authorization.k8s.io/v1/{plural}");
        expect(post(&world.served.client, &path, &object).await, StatusCode::CREATED);
    }
    let fields: serde_json::Map<String, Value> = (0..20_000)
        .map(|n| (format!("field{n}"), json!({"type": "string", "enum": ["a", "b"], "default": "a"})))
        .collect();
    let words: Vec<String> = (0..150_000).map(|n| format!("word{n}")).collect();
    let deep = (0..50).fold(
        json!({"type": "string"}),
        |inner, _| json!({"type": "object", "properties": {"a": inner, "b": {"type": "string"}}}),
    );
    let bodies = [
        ("fields", definition("fields", 1, &json!({"type": "object", "properties": fields}))),
        (
            "words",
            definition("words", 1, &json!({"type": "object", "properties": {"w": {"type": "string", "enum": words}}})),
        ),
        ("deeps", definition("deeps", 40, &deep)),
    ];
    let attack = async {
        let mut answers = Vec::new();
        for (plural, body) in &bodies {
            answers.push(world.send(Method::POST, CRDS, "application/json", body.clone()).await);
            let path = format!("/apis/example.com/v1/namespaces/default/{plural}");
            let object = json!({"apiVersion": "example.com/v1", "kind": format!("K{plural}"), "metadata": {"name": "a"},
                "spec": {}});
            let served =
                async || world.send(Method::POST, &path, "application/json", object.to_string()).await.0 == 201;
            time::eventually_true("an object of it", served).await.unwrap();
            answers.push(world.send(Method::GET, &path, "application/json", "").await);
        }
        for path in ["/openapi/v2", "/openapi/v3", "/apis/example.com/v1"] {
            answers.push(world.send(Method::GET, path, "application/json", "").await);
        }
        for (plural, _) in &bodies {
            let path = format!("{CRDS}/{plural}.example.com");
            answers.push(world.send(Method::DELETE, &path, "application/json", "").await);
            let gone = async || world.send(Method::GET, &path, "application/json", "").await.0 == 404;
            time::eventually_true("its end", gone).await.unwrap();
        }
        answers
    };
    all(&world.under(attack).await, &[200, 201]);
}

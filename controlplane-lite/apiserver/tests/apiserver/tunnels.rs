//! Logs, exec and proxies through the server to a kubelet that is a stand-in: what it is asked, and bytes both ways.

use std::net::SocketAddr;
use std::sync::Arc;

use apiserver::serve::{PeerCertificate, ServingKey, serve as serve_tls, server_tls};
use apiserver::{body, body::Body};
use bytes::Bytes;
use harness::net::ClosedPort;
use harness::time;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use pki::{LEAF_LIFETIME, Subject};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use apiserver::testing::*;

/// Answers with what it was asked; refuses what says so; echoes upgraded connections in upper case.
async fn kubelet(mut request: Request<Body>) -> Response<Body> {
    let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    if path.contains("missing") {
        return body::raw(StatusCode::NOT_FOUND, "text/plain", "no such container");
    }
    let certificates = request.extensions().get::<PeerCertificate>().map_or(0, |_| 1);
    let credentials = request.headers().contains_key(header::AUTHORIZATION);
    let Some(protocol) = request.headers().get(header::UPGRADE).cloned() else {
        if path.contains("page") {
            return body::raw(StatusCode::OK, "text/html", "<a href=\"/rewriteme\">test</a>");
        }
        let text = format!("{} {path} certificates={certificates} credentials={credentials}", request.method());
        return body::raw(StatusCode::OK, "text/plain", text);
    };
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

struct Node {
    cluster: Served,
    _stop: tokio_util::sync::DropGuard,
}

/// A cluster with a node `n`, whose kubelet is the stand-in, and a pod `p` on it.
async fn node() -> Node {
    node_that_shows("system:node:n").await
}

/// The same with a kubelet whose certificate has this name.
async fn node_that_shows(name: &str) -> Node {
    let cluster = serve_locally().await;
    let now = jiff::Timestamp::now();
    let subject = Subject::server(name, vec!["localhost".into()], vec!["127.0.0.1".parse().unwrap()]);
    let cert = cluster.ca.pki.ca().issue(&subject, LEAF_LIFETIME, now).unwrap();
    let serving = ServingKey::new(&cert.cert_pem, &cert.key_pem).unwrap();
    let tls = server_tls(Arc::new(serving), &[cluster.ca.pem()]).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let token = CancellationToken::new();
    tokio::spawn(serve_tls(listener, tls, kubelet, token.clone()));
    let client = &cluster.client;
    expect(post(client, "/api/v1/nodes", &json!({"metadata": {"name": "n"}})).await, StatusCode::CREATED);
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": address.port()}}}});
    expect(patch(client, "/api/v1/nodes/n/status", "merge-patch+json", &status).await, StatusCode::OK);
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    expect(post(client, accounts, &json!({"metadata": {"name": "default"}})).await, StatusCode::CREATED);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [
        {"name": "a", "image": "i"}, {"name": "missing", "image": "i"}]}});
    expect(post(client, "/api/v1/namespaces/default/pods", &pod).await, StatusCode::CREATED);
    Node { cluster, _stop: token.drop_guard() }
}

const POD: &str = "/api/v1/namespaces/default/pods/p";

fn text(answer: (u16, Value), code: u16) -> String {
    assert_eq!(answer.0, code, "{}", answer.1);
    answer.1.as_str().map_or_else(|| answer.1.to_string(), str::to_owned)
}

#[tokio::test]
async fn logs_come_from_the_kubelet() {
    let node = node().await;
    let client = &node.cluster.client;
    let asked = text(get(client, &format!("{POD}/log?container=a&tailLines=3&timestamps=true")).await, 200);
    assert_eq!(asked, "GET /containerLogs/default/p/a?timestamps=true&tailLines=3 certificates=1 credentials=false");
    let several = text(get(client, &format!("{POD}/log")).await, 400);
    assert!(several.contains("a container name must be specified for pod p, choose one of: [a missing]"), "{several}");
    let gone = get(client, &format!("{POD}/log?container=missing")).await;
    assert_eq!((gone.0, gone.1["reason"].as_str()), (404, Some("NotFound")));
    assert_eq!(get(client, &format!("{POD}/log?container=a&tailLines=-1")).await.0, 422);
}

#[tokio::test]
async fn nodes_are_proxied() {
    let node = node().await;
    let client = &node.cluster.client;
    let asked = text(get(client, "/api/v1/nodes/n/proxy/stats/summary?a=b%20c").await, 200);
    assert_eq!(asked, "GET /stats/summary?a=b%20c certificates=1 credentials=false");
    let posted = send(client, "POST", "/api/v1/nodes/n/proxy/run", "text/plain", "x").await;
    assert!(text(posted, 200).starts_with("POST /run "));
    assert_eq!(get(client, "/api/v1/nodes/none/proxy/x").await.0, 404);
    // Neither loopback nor nothing is proxied to as a pod.
    assert_eq!(get(client, &format!("{POD}/proxy/x")).await.0, 400);
}

#[tokio::test]
async fn only_the_nodes_own_certificate_is_taken() {
    for name in ["system:node:other", "kube-apiserver", "n"] {
        let node = node_that_shows(name).await;
        let client = &node.cluster.client;
        let (code, answer) = get(client, &format!("{POD}/log?container=a")).await;
        let text = answer.to_string();
        assert!(code == 500 && text.contains("error dialing backend") && text.contains("certificate"), "{code} {text}");
    }
}

#[tokio::test]
async fn a_node_leads_nobody_back_to_the_api() {
    let node = node().await;
    let client = &node.cluster.client;
    for (address, port) in [("127.0.0.1", 6443), ("0.0.0.0", 10250), ("10.43.0.1", 443), ("169.254.169.254", 80)] {
        let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": address}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
        expect(patch(client, "/api/v1/nodes/n/status", "merge-patch+json", &status).await, StatusCode::OK);
        let refused = text(get(client, "/api/v1/nodes/n/proxy/api").await, 400);
        assert!(refused.contains("address not allowed"), "{refused}");
    }
}

/// Every method goes through, with a path and without one; a page that is asked for without a slash gets one first.
#[tokio::test]
async fn proxies_take_every_method() {
    let node = node().await;
    let client = &node.cluster.client;
    for method in ["DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT"] {
        let path = format!("/api/v1/nodes/n/proxy/some/path/with/{method}");
        let answer = text(send(client, method, &path, "text/plain", "x").await, 200);
        assert!(answer.starts_with(&format!("{method} /some/path/with/{method} ")), "{answer}");
    }
    for method in ["DELETE", "OPTIONS", "PATCH", "POST", "PUT"] {
        let path = format!("/api/v1/nodes/n/proxy?method={method}");
        let answer = text(send(client, method, &path, "text/plain", "x").await, 200);
        assert!(answer.starts_with(&format!("{method} /?method={method} ")), "{answer}");
    }
    for method in ["GET", "HEAD"] {
        let request = Request::builder().method(method).uri("/api/v1/nodes/n/proxy?method=GET");
        let request = request.body(kube::client::Body::empty()).unwrap();
        let response = client.send(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::MOVED_PERMANENTLY, "{method}");
        assert_eq!(response.headers()[header::LOCATION], "/api/v1/nodes/n/proxy/?method=GET");
    }
    let page = text(get(client, "/api/v1/nodes/n/proxy/page").await, 200);
    assert_eq!(page, "<a href=\"/api/v1/nodes/n/proxy/rewriteme\">test</a>");
}

/// The kubelet's port is the kubelet; another one is another server, and not one on the API server's own machine.
#[tokio::test]
async fn the_port_of_a_node_counts() {
    let node = node().await;
    let client = &node.cluster.client;
    let object = expect(get(client, "/api/v1/nodes/n").await, StatusCode::OK);
    let port = object["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64().unwrap();
    let asked = text(get(client, &format!("/api/v1/nodes/n:{port}/proxy/logs/")).await, 200);
    assert!(asked.starts_with("GET /logs/ "), "{asked}");
    assert_eq!(get(client, "/api/v1/nodes/n:1/proxy/logs/").await.0, 400);
    assert_eq!(get(client, "/api/v1/nodes/n:x/proxy/logs/").await.0, 400);
}

/// A log as messages of a WebSocket, in each of its subprotocols.
#[tokio::test]
async fn logs_come_over_websockets() {
    use base64::Engine as _;
    use futures::StreamExt as _;
    use tokio_tungstenite::tungstenite::protocol::{Message, Role};
    let node = node().await;
    let log = "GET /containerLogs/default/p/a certificates=1 credentials=false";
    for protocol in ["", "binary.k8s.io", "base64.binary.k8s.io"] {
        let mut headers = vec![("sec-websocket-version", "13"), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")];
        if !protocol.is_empty() {
            headers.push(("sec-websocket-protocol", protocol));
        }
        let (answer, upgraded) = upgraded(&node, &format!("{POD}/log?container=a"), "websocket", &headers).await;
        let spoken = answer.get("sec-websocket-protocol").map_or("", |v| v.to_str().unwrap());
        assert_eq!(spoken, protocol);
        assert_eq!(answer["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let mut socket =
            tokio_tungstenite::WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await;
        let mut text = String::new();
        while let Some(Ok(message)) = socket.next().await {
            match message {
                Message::Binary(bytes) => text.push_str(std::str::from_utf8(&bytes).unwrap()),
                Message::Text(part) => {
                    let bytes = base64::engine::general_purpose::STANDARD.decode(part.as_str()).unwrap();
                    text.push_str(std::str::from_utf8(&bytes).unwrap());
                }
                _ => {}
            }
        }
        assert_eq!(text, log, "{protocol}");
    }
}

/// Asks for an upgraded connection.
async fn ask_upgrade(
    node: &Node,
    path: &str,
    protocol: &str,
    headers: &[(&str, &str)],
) -> Response<hyper::body::Incoming> {
    let token = admin_token(node).await;
    let mut request = Request::get(path)
        .header("host", "localhost")
        .header("authorization", format!("Bearer {token}"))
        .header("connection", "Upgrade")
        .header("upgrade", protocol);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::<Bytes>::default()).unwrap();
    node.cluster.connect().await.send_request(request).await.unwrap()
}

/// Opens one; the answer's headers and the connection.
async fn upgraded(
    node: &Node,
    path: &str,
    protocol: &str,
    headers: &[(&str, &str)],
) -> (header::HeaderMap, hyper::upgrade::Upgraded) {
    let mut response = ask_upgrade(node, path, protocol, headers).await;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let upgraded = hyper::upgrade::on(&mut response).await.unwrap();
    (response.headers().clone(), upgraded)
}

/// Opens one and sends a word through it.
async fn echoed(node: &Node, path: &str, protocol: &str, headers: &[(&str, &str)]) -> String {
    let mut response = ask_upgrade(node, path, protocol, headers).await;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let code = response.status();
        return format!("{code} {:?}", response.into_body().collect().await.unwrap().to_bytes());
    }
    assert_eq!(response.headers()["upgrade"], protocol);
    let mut stream = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    stream.write_all(b"hello").await.unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// A token of an account that may do everything.
async fn admin_token(node: &Node) -> String {
    let client = &node.cluster.client;
    let binding = json!({"metadata": {"name": "test-admin"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "namespace": "default", "name": "default"}]});
    post(client, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding).await;
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let issued = expect(post(client, path, &json!({"spec": {}})).await, StatusCode::CREATED);
    let token = issued["status"]["token"].as_str().unwrap().to_owned();
    node.cluster.server().server().registry.fresh().await.unwrap();
    token
}

#[tokio::test]
async fn streams_are_carried_byte_for_byte() {
    let node = node().await;
    let exec = format!("{POD}/exec?container=a&command=sh&stdin=true&stdout=true");
    assert_eq!(echoed(&node, &exec, "SPDY/3.1", &[]).await, "HELLO");
    let key = [("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="), ("sec-websocket-version", "13")];
    assert_eq!(echoed(&node, &exec, "websocket", &key).await, "HELLO");
    assert_eq!(echoed(&node, &format!("{POD}/portforward?ports=80"), "SPDY/3.1", &[]).await, "HELLO");
    let refused = echoed(&node, &format!("{POD}/exec?container=missing&command=x&stdout=1"), "SPDY/3.1", &[]).await;
    assert!(refused.starts_with("404"), "{refused}");
    let bad = echoed(&node, &format!("{POD}/exec?container=nope&command=x&stdout=1"), "SPDY/3.1", &[]).await;
    assert!(bad.starts_with("400") && bad.contains("container nope is not valid for pod p"), "{bad}");
}

#[tokio::test]
async fn watches_go_over_websockets() {
    use futures::StreamExt;
    let node = node().await;
    let token = admin_token(&node).await;
    let request = Request::get("/api/v1/namespaces/default/pods?watch=true")
        .header("host", "localhost")
        .header("authorization", format!("Bearer {token}"))
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .body(Full::<Bytes>::default())
        .unwrap();
    let mut response = node.cluster.connect().await.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    let stream = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    let role = tokio_tungstenite::tungstenite::protocol::Role::Client;
    let mut socket = tokio_tungstenite::WebSocketStream::from_raw_socket(stream, role, None).await;
    let message = time::within("a message", socket.next()).await.unwrap().unwrap();
    let event: Value = serde_json::from_str(message.unwrap().to_text().unwrap()).unwrap();
    assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("p")));
}

#[tokio::test]
async fn an_unreachable_kubelet_is_named() {
    let node = node().await;
    let client = &node.cluster.client;
    let closed = ClosedPort::tcp().unwrap();
    let status = json!({"status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": closed.number()}}}});
    expect(patch(client, "/api/v1/nodes/n/status", "merge-patch+json", &status).await, StatusCode::OK);
    let (code, answer) = get(client, &format!("{POD}/log?container=a")).await;
    assert_eq!(code, 500);
    assert!(answer["message"].as_str().unwrap().contains("error dialing backend: dial tcp 127.0.0.1:"), "{answer}");
}

//! Authentication and authorization against a scripted API server.

#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use super::*;

fn settings(authorization: Authorization) -> ServerSettings {
    ServerSettings {
        enabled: true,
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port: 0,
        cert_file: None,
        key_file: None,
        client_ca_file: None,
        authorization,
        tls_bootstrap: false,
        tls_min_version: Default::default(),
        cipher_suites: Vec::new(),
        webhook_authentication: true,
        anonymous: false,
    }
}

fn lasting(identity: Identity) -> Peer {
    Peer { identity, valid: (i64::MIN, i64::MAX) }
}

/// An API server that knows the token `good` of user `tom` and allows `allowed`.
fn api(allowed: &'static [&'static str]) -> (kube::Client, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            let path = request.uri().path().to_owned();
            let body: Value = serde_json::from_slice(&request.into_body().collect().await.unwrap().to_bytes()).unwrap();
            let status = if path.ends_with("/tokenreviews") {
                if body["spec"]["token"] == "good" {
                    json!({"authenticated": true, "user": {"username": "tom", "groups": ["g"]}})
                } else {
                    json!({"authenticated": false})
                }
            } else {
                let attributes = &body["spec"]["resourceAttributes"];
                assert_eq!((&attributes["resource"], &attributes["name"]), (&json!("nodes"), &json!("n1")));
                let subresource = attributes["subresource"].as_str().unwrap();
                json!({"allowed": body["spec"]["user"] == "tom" && allowed.contains(&subresource), "reason": "by rule"})
            };
            let mut answer = body;
            answer["status"] = status;
            Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(answer.to_string()))))
        }
    });
    (kube::Client::new(service, "default"), asked)
}

fn request(path: &str, token: Option<&str>) -> Request<()> {
    let mut request = Request::get(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(()).unwrap()
}

#[tokio::test]
async fn tokens_and_permissions_are_asked_for_once() {
    let (client, asked) = api(&["metrics", "pods"]);
    let auth = Authenticator::new(&settings(Authorization::Webhook), Some(client), "n1");
    let user = auth.check(None, &request("/metrics/resource", Some("good"))).await.unwrap();
    assert_eq!((user.name.as_str(), asked.load(Ordering::SeqCst)), ("tom", 2));
    auth.check(None, &request("/metrics", Some("good"))).await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 2, "both answers are remembered");
    auth.check(None, &request("/pods", Some("good"))).await.unwrap();
    let refusal = auth.check(None, &request("/exec/a/b/c", Some("good"))).await.unwrap_err();
    assert_eq!(refusal.status, StatusCode::FORBIDDEN);
    let expect = "Forbidden (user=tom, verb=get, resource=nodes, subresource=proxy): by rule";
    assert_eq!(refusal.message, expect);
}

#[tokio::test]
async fn without_credentials_nobody_passes() {
    let (client, _) = api(&["proxy"]);
    let auth = Authenticator::new(&settings(Authorization::AlwaysAllow), Some(client), "n1");
    for token in [None, Some("bad"), Some("")] {
        let refusal = auth.check(None, &request("/healthz", token)).await.unwrap_err();
        assert_eq!(refusal.status, StatusCode::UNAUTHORIZED, "{token:?}");
    }
    auth.check(None, &request("/healthz", Some("good"))).await.unwrap();
    let open = ServerSettings { anonymous: true, ..settings(Authorization::AlwaysAllow) };
    let user = Authenticator::new(&open, None, "n1").check(None, &request("/healthz", None)).await.unwrap();
    assert_eq!(user.name, "system:anonymous");
}

#[tokio::test]
async fn masters_need_no_api_server_and_others_do() {
    let auth = Authenticator::new(&settings(Authorization::Webhook), None, "n1");
    let master = Identity { name: "kube-apiserver".into(), groups: vec![MASTERS.into()], ..Identity::default() };
    let mut peer = lasting(master);
    auth.check(Some(&peer), &request("/exec/a/b/c", None)).await.unwrap();
    peer.identity.groups.clear();
    let refusal = auth.check(Some(&peer), &request("/exec/a/b/c", None)).await.unwrap_err();
    assert_eq!(refusal.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn an_api_server_that_fails_lets_nobody_pass() {
    let broken = tower::service_fn(|_: Request<kube::client::Body>| async {
        let answer = Response::builder().status(500).body(Full::new(Bytes::from("garbage"))).unwrap();
        Ok::<_, std::convert::Infallible>(answer)
    });
    let client = kube::Client::new(broken, "default");
    let auth = Authenticator::new(&settings(Authorization::Webhook), Some(client), "n1");
    let refusal = auth.check(None, &request("/pods", Some("good"))).await.unwrap_err();
    assert_eq!(refusal.status, StatusCode::UNAUTHORIZED);
    let peer = lasting(Identity { name: "x".into(), ..Identity::default() });
    let refusal = auth.check(Some(&peer), &request("/pods", None)).await.unwrap_err();
    assert_eq!(refusal.status, StatusCode::INTERNAL_SERVER_ERROR);
}

#[test]
fn certificates_name_users() {
    let make = |names: &[(rcgen::DnType, &str)]| {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in names {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().clone()
    };
    let user = Peer::of(&make(&[
        (rcgen::DnType::CommonName, "system:node:a"),
        (rcgen::DnType::OrganizationName, "system:nodes"),
    ]))
    .unwrap()
    .identity;
    assert_eq!(
        (user.name.as_str(), user.groups),
        ("system:node:a", vec!["system:nodes".to_owned(), "system:authenticated".into()])
    );
    assert_eq!(Peer::of(&make(&[(rcgen::DnType::OrganizationName, "o")])), None);
    assert_eq!(Peer::of(&CertificateDer::from(vec![1, 2, 3])), None);
    assert_eq!(bearer("bearer  x "), Some("x"));
    assert_eq!(bearer("Basic x"), None);
}

#[tokio::test(start_paused = true)]
async fn caches_forget_and_stay_small() {
    let mut cache = Cache(HashMap::new());
    cache.put(1u32, "a", Duration::from_secs(10));
    assert_eq!(cache.get(&1), Some("a"));
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(cache.get(&1), None);
    for key in 0..2000 {
        cache.put(key, "b", Duration::from_secs(1000));
    }
    assert!(cache.0.len() <= CACHE_SIZE);
}

#[tokio::test]
async fn a_certificate_counts_while_it_holds_and_another_proof_may_take_its_place() {
    let (client, _) = api(&["proxy", "pods"]);
    let open = ServerSettings { anonymous: true, ..settings(Authorization::AlwaysAllow) };
    let auth = Authenticator::new(&open, Some(client), "n1");
    let now = Timestamp::now().as_second();
    let peer = |valid| Peer { identity: Identity { name: "x".into(), ..Identity::default() }, valid };
    let name = async |peer: &Peer, token| {
        let answer = auth.check(Some(peer), &request("/pods", token)).await;
        answer.map(|user| user.name).map_err(|refusal| refusal.status)
    };
    assert_eq!(name(&peer((now - 10, now + 1000)), None).await, Ok("x".to_owned()));
    for ended in [(now - 10, now - 5), (now + 1000, now + 2000)] {
        assert_eq!(name(&peer(ended), None).await, Err(StatusCode::UNAUTHORIZED), "not even as nobody");
        assert_eq!(name(&peer(ended), Some("good")).await, Ok("tom".to_owned()));
    }
}

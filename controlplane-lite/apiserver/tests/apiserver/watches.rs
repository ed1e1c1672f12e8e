//! Lists in pages and watches in all their beginnings.

use std::time::Duration;

use futures::StreamExt;
use harness::time;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use apiserver::testing::*;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// An open watch, event by event.
pub struct Watch(futures::stream::BoxStream<'static, Value>);

impl Watch {
    pub async fn open(client: &kube::Client, path: &str) -> Self {
        Self::with_accept(client, path, "application/json").await
    }

    pub async fn with_accept(client: &kube::Client, path: &str, accept: &str) -> Self {
        let request = Request::builder().uri(path).header("accept", accept).body(kube::client::Body::empty()).unwrap();
        let response = client.send(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let lines = futures::stream::unfold((response.into_body(), Vec::new()), |(mut body, mut rest)| async move {
            loop {
                if let Some(end) = rest.iter().position(|b| *b == b'\n') {
                    let line: Vec<u8> = rest.drain(..=end).collect();
                    return Some((serde_json::from_slice(&line).unwrap(), (body, rest)));
                }
                match body.frame().await {
                    Some(Ok(frame)) => rest.extend_from_slice(&frame.into_data().unwrap()),
                    _ => return None,
                }
            }
        });
        Self(lines.boxed())
    }

    pub async fn next(&mut self) -> Value {
        time::within("an event", self.0.next()).await.unwrap().expect("no end")
    }

    /// Reads an event; whether there was one.
    pub async fn more(&mut self) -> bool {
        time::within("an event or an end", self.0.next()).await.unwrap().is_some()
    }

    pub async fn end(&mut self) {
        let next = time::within("an end", self.0.next()).await.unwrap();
        assert_eq!(next, None);
    }

    #[track_caller]
    pub fn same(event: &Value, kind: &str, name: &str) {
        assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!(kind), &json!(name)), "{event}");
    }
}

async fn make(client: &kube::Client, name: &str, label: &str) -> Value {
    let body = json!({"metadata": {"name": name, "labels": {"l": label}}});
    expect(post(client, MAPS, &body).await, StatusCode::CREATED)
}

fn version(object: &Value) -> String {
    object["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn watches_begin_where_they_are_told() {
    let (_server, client) = start().await;
    let first = make(&client, "a", "x").await;
    let mut all = Watch::open(&client, &format!("{MAPS}?watch=1")).await;
    Watch::same(&all.next().await, "ADDED", "a");
    let mut zero = Watch::open(&client, &format!("{MAPS}?watch=1&resourceVersion=0")).await;
    Watch::same(&zero.next().await, "ADDED", "a");
    let mut after = Watch::open(&client, &format!("{MAPS}?watch=1&resourceVersion={}", version(&first))).await;
    let mut legacy = Watch::open(&client, "/api/v1/watch/namespaces/default/configmaps/b").await;
    let second = make(&client, "b", "y").await;
    for watch in [&mut all, &mut zero, &mut after, &mut legacy] {
        let event = watch.next().await;
        Watch::same(&event, "ADDED", "b");
        assert_eq!(event["object"], second);
    }
    delete(&client, &format!("{MAPS}/b")).await;
    let gone = all.next().await;
    Watch::same(&gone, "DELETED", "b");
    let deleted_at: u64 = version(&gone["object"]).parse().unwrap();
    assert!(deleted_at > version(&second).parse().unwrap());
}

#[tokio::test]
async fn selectors_see_objects_come_and_go() {
    let (_server, client) = start().await;
    let mut watch = Watch::open(&client, &format!("{MAPS}?watch=1&labelSelector=l%3Dx")).await;
    make(&client, "a", "y").await;
    let path = format!("{MAPS}/a");
    let label = |value: &str| json!({"metadata": {"labels": {"l": value}}});
    patch(&client, &path, "merge-patch+json", &label("x")).await;
    Watch::same(&watch.next().await, "ADDED", "a");
    patch(&client, &path, "merge-patch+json", &json!({"data": {"k": "v"}})).await;
    Watch::same(&watch.next().await, "MODIFIED", "a");
    patch(&client, &path, "merge-patch+json", &label("z")).await;
    Watch::same(&watch.next().await, "DELETED", "a");
    let pods = "/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dn1";
    let mut bound = Watch::open(&client, pods).await;
    make_pod(&client, "p").await;
    bind(&client, "p", "n1").await;
    Watch::same(&bound.next().await, "ADDED", "p");
}

async fn make_pod(client: &kube::Client, name: &str) -> Value {
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    post(client, accounts, &json!({"metadata": {"name": "default"}})).await;
    let pod = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    expect(post(client, "/api/v1/namespaces/default/pods", &pod).await, StatusCode::CREATED)
}

async fn bind(client: &kube::Client, name: &str, node: &str) {
    let binding = json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": node}});
    let path = format!("/api/v1/namespaces/default/pods/{name}/binding");
    expect(post(client, &path, &binding).await, StatusCode::CREATED);
}

#[tokio::test]
async fn streaming_lists_end_with_a_bookmark() {
    let (_server, client) = start().await;
    make(&client, "a", "x").await;
    let path =
        format!("{MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true");
    let mut watch = Watch::open(&client, &path).await;
    Watch::same(&watch.next().await, "ADDED", "a");
    let mark = watch.next().await;
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    make(&client, "b", "x").await;
    Watch::same(&watch.next().await, "ADDED", "b");
}

#[tokio::test]
async fn watches_end_and_old_versions_are_told() {
    let (_server, client) = start().await;
    let made = make(&client, "a", "x").await;
    let mut short =
        Watch::open(&client, &format!("{MAPS}?watch=1&resourceVersion={}&timeoutSeconds=1", version(&made))).await;
    short.end().await;
    let far = expect(get(&client, &format!("{MAPS}?resourceVersion=99999999")).await, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(far["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
}

#[tokio::test]
async fn tables_and_metadata_are_watched_too() {
    let (_server, client) = start().await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let mut watch = Watch::with_accept(&client, &format!("{MAPS}?watch=1"), table).await;
    make(&client, "a", "x").await;
    let event = watch.next().await;
    assert_eq!(event["object"]["kind"], "Table");
    assert_eq!(event["object"]["columnDefinitions"][0]["name"], "Name");
    assert_eq!(event["object"]["rows"][0]["cells"][0], "a");
    make(&client, "b", "x").await;
    assert_eq!(watch.next().await["object"]["columnDefinitions"], Value::Null);
    let partial = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let mut watch = Watch::with_accept(&client, &format!("{MAPS}?watch=1&resourceVersion=0"), partial).await;
    let event = watch.next().await;
    assert_eq!(event["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(event["object"].get("data"), None);
}

/// What is made of an object for one watch is what all are sent that want the same: the very same bytes.
#[tokio::test]
async fn watches_of_one_form_share_what_is_made() {
    let (_server, client) = start().await;
    let open = async || {
        let request = Request::get(format!("{MAPS}?watch=1&resourceVersion=0"));
        let request = request.header("accept", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io");
        client.send(request.body(kube::client::Body::empty()).unwrap()).await.unwrap().into_body()
    };
    let mut watches = [open().await, open().await];
    // One that is decoded at once, and one that is decoded apart.
    for (name, length) in [("small", 1), ("large", 100_000)] {
        let map = json!({"metadata": {"name": name}, "data": {"k": "x".repeat(length)}});
        expect(post(&client, MAPS, &map).await, StatusCode::CREATED);
        let [first, second] = &mut watches;
        let next = |watch| async move {
            let watch: &mut kube::client::Body = watch;
            time::within("an event", watch.frame()).await.unwrap().unwrap().unwrap().into_data().unwrap()
        };
        let (first, second) = tokio::join!(next(first), next(second));
        assert!(String::from_utf8_lossy(&first).contains(name));
        assert_eq!(first.as_ptr(), second.as_ptr(), "{name}");
    }
}

/// Informers that keep an object as it stands until they know what it is read it after its type, as Go writes it.
#[tokio::test]
async fn the_type_stands_before_the_object() {
    let (_server, client) = start().await;
    make(&client, "a", "x").await;
    for accept in ["application/json", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"] {
        let path = format!("{MAPS}?watch=1&resourceVersion=0&timeoutSeconds=1");
        let request = http::Request::get(path).header("accept", accept).body(kube::client::Body::empty()).unwrap();
        let answer = client.send(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
        assert!(answer.starts_with(b"{\"type\":\"ADDED\",\"object\":{"), "{accept}: {answer:?}");
    }
}

#[tokio::test]
async fn pages_are_consistent() {
    let (_server, client) = start().await;
    for n in 0..7 {
        make(&client, &format!("m{n}"), "x").await;
    }
    let first = expect(get(&client, &format!("{MAPS}?limit=3")).await, StatusCode::OK);
    assert_eq!(first["items"].as_array().unwrap().len(), 3);
    assert_eq!(first["metadata"]["remainingItemCount"], 4);
    // What happens between the pages is not seen by the later ones.
    delete(&client, &format!("{MAPS}/m5")).await;
    make(&client, "m9", "x").await;
    let mut names: Vec<String> = Vec::new();
    let mut page = first.clone();
    loop {
        names.extend(
            page["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap().to_owned()),
        );
        assert_eq!(version(&page), version(&first));
        let Some(token) = page["metadata"]["continue"].as_str() else { break };
        page = expect(get(&client, &format!("{MAPS}?limit=3&continue={token}")).await, StatusCode::OK);
    }
    assert_eq!(names, (0..7).map(|n| format!("m{n}")).collect::<Vec<_>>());
    let at = version(&first);
    let exact = format!("{MAPS}?resourceVersion={at}&resourceVersionMatch=Exact");
    assert_eq!(expect(get(&client, &exact).await, StatusCode::OK)["items"].as_array().unwrap().len(), 7);
    let bad = expect(get(&client, &format!("{MAPS}?limit=3&continue=garbage")).await, StatusCode::BAD_REQUEST);
    assert_eq!(bad["reason"], "BadRequest");
}

/// Time is paused: a watch that looked now and then would let it pass.
#[tokio::test(start_paused = true)]
async fn an_event_waits_for_no_timer() {
    let (_server, client) = start().await;
    let mut watch = Watch::open(&client, &format!("{MAPS}?watch=1&resourceVersion=0")).await;
    let mut shortest = Duration::MAX;
    for n in 0..20 {
        let name = format!("t{n}");
        let began = tokio::time::Instant::now();
        let (made, event) = tokio::join!(make(&client, &name, "x"), watch.next());
        shortest = shortest.min(began.elapsed());
        assert_eq!(event["object"], made);
    }
    assert_eq!(shortest, Duration::ZERO);
}

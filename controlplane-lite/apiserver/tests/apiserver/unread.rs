//! Clients that ask and take no answer, over real connections: what the server keeps for them, and for how long.

use bytes::Bytes;
use harness::time;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use serde_json::json;

use apiserver::flow::Level;
use apiserver::testing::*;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn get_request(path: &str) -> Request<Full<Bytes>> {
    Request::get(format!("https://localhost{path}")).header("host", "localhost").body(Full::default()).unwrap()
}

/// A server with an object of a megabyte.
async fn with_a_large_object() -> Served {
    let served = serve().await;
    let map = json!({"metadata": {"name": "large"}, "data": {"k": "x".repeat(1_000_000)}});
    expect(post(&served.client, MAPS, &map).await, StatusCode::CREATED);
    // What is asked for is weighed by what the caches show.
    served.server().server().registry.fresh().await.unwrap();
    served
}

async fn ask(client: &mut Sender2, path: &str) -> Response<Incoming> {
    client.ready().await.unwrap();
    let answer = time::within("the head of an answer", client.send_request(get_request(path))).await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    answer
}

/// HTTP/2 lets a client take nothing of its answers. What they keep, the same user has of their share, and it comes
/// back with the end of the connection, which other requests on it do not put off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_takes_end_their_connection() {
    let served = with_a_large_object().await;
    let path = format!("{MAPS}/large");
    let (cert, key) = served.ca.issue("jane", "system:masters");
    let identity = Some((cert.as_str(), key.as_str()));
    let (mut client, ended) = connect_taking_nothing(served.address, served.ca.pem(), identity).await;
    let mut unread = Vec::new();
    // As many as a share has room for.
    for _ in 0..6 {
        unread.push(ask(&mut client, &path).await);
    }
    let mut other = connect(served.address, served.ca.pem(), identity).await;
    let seventh = async {
        loop {
            other.ready().await.unwrap();
            let answer = other.send_request(get_request(&path)).await.unwrap();
            let (code, body) = (answer.status(), answer.into_body().collect().await.unwrap().to_bytes());
            // Whoever waits too long is told to come back.
            if code != StatusCode::TOO_MANY_REQUESTS {
                return (code, body.len());
            }
        }
    };
    let answers = &served.server().server().flow.answers;
    let sweeping = time::over_and_over(async || {
        answers.sweep();
        // After the end of the connection there is nobody to ask.
        if client.ready().await.is_ok()
            && let Ok(answer) = client.send_request(get_request("/version")).await
        {
            unread.push(answer);
        }
    });
    let (code, length) = tokio::select! {
        answer = time::within("an answer to who waits", seventh) => answer.unwrap(),
        _ = sweeping => unreachable!("sweeps for ever"),
    };
    assert_eq!(code, StatusCode::OK);
    assert!(length > 1_000_000);
    time::within("the end of the connection", ended).await.unwrap().unwrap();
}

/// A refusal holds none of the room that its request took.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_that_nobody_takes_hold_no_room() {
    let served = serve().await;
    let (cert, key) = served.ca.issue("jane", "system:masters");
    let identity = Some((cert.as_str(), key.as_str()));
    let (mut client, _ended) = connect_taking_nothing(served.address, served.ca.pem(), identity).await;
    let mut unread = Vec::new();
    // Each weighs as much as the largest body; two would be a user's share.
    for _ in 0..6 {
        let request = Request::post(format!("https://localhost{MAPS}")).header("content-type", "application/yaml");
        let request = request.body(Full::from("a: *b")).unwrap();
        client.ready().await.unwrap();
        let answer = time::within("a refusal", client.send_request(request)).await.unwrap().unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
        unread.push(answer);
    }
}

/// Upstream bounds watches by nothing; here a client that opens one after the other is refused some day, and a watch
/// that ends makes room for another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_are_counted() {
    let served = serve().await;
    let binding = json!({
        "metadata": {"name": "jane"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}],
    });
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    expect(post(&served.client, bindings, &binding).await, StatusCode::CREATED);
    served.server().server().registry.fresh().await.unwrap();
    let (cert, key) = served.ca.issue("jane", "");
    let (client, _ended) = connect_taking_nothing(served.address, served.ca.pem(), Some((&cert, &key))).await;
    let watch = async || {
        let mut client = client.clone();
        client.ready().await.unwrap();
        let asked = client.send_request(get_request(&format!("{MAPS}?watch=1")));
        time::within("the head of a watch", asked).await.unwrap().unwrap()
    };
    let pools = served.server().server().flow.pools(Level::Workloads);
    let mut others: Vec<_> = std::iter::from_fn(|| pools.watch("jane").ok()).collect();
    assert!(others.len() >= 10_000, "enough for any honest client: {}", others.len());
    assert_eq!(watch().await.status(), StatusCode::TOO_MANY_REQUESTS);
    others.pop();
    let open = watch().await;
    assert_eq!(open.status(), StatusCode::OK);
    assert_eq!(watch().await.status(), StatusCode::TOO_MANY_REQUESTS);
    drop(open);
    time::eventually_true("another watch", async || watch().await.status() == StatusCode::OK).await.unwrap();
}

//! What a request becomes on its way, and how its answer comes back.

use super::*;

#[tokio::test]
async fn requests_say_who_asks_and_nothing_else() {
    let extension = Extension::serving(Mood::Good).await;
    let path = format!("{API}/namespaces/default/flunders/a?b=c%20d");
    let asked = expect(get(extension.client(), &path).await, StatusCode::OK);
    assert_eq!(asked["path"], path);
    assert_eq!((&asked["user"], &asked["peer"]), (&json!(["copepod-admin"]), &json!("front-proxy-client")));
    assert_eq!(asked["groups"], json!(["system:masters", "system:authenticated"]));
    assert_eq!(asked["host"], json!([extension.address.to_string()]));
    let posted = expect(post(extension.client(), &format!("{API}/flunders"), &json!({"a": 1})).await, StatusCode::OK);
    assert_eq!((&posted["method"], &posted["body"]), (&json!("POST"), &json!("{\"a\":1}")));
    // Whatever a client says of itself is taken from it; whom it acts for is told.
    let request = Request::get(&path)
        .header("x-remote-user", "root")
        .header("x-remote-group", "theirs")
        .header("x-remote-extra-mine", "x")
        .header("authorization", "Bearer secret")
        .header("impersonate-user", "jane")
        .header("impersonate-uid", "u-1")
        .header("impersonate-group", "system:masters")
        .header("impersonate-extra-example.com%2fkey", "value")
        .body(kube::client::Body::empty())
        .unwrap();
    let bytes = extension.client().send(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    let asked: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!((&asked["user"], &asked["uid"]), (&json!(["jane"]), &json!(["u-1"])));
    assert_eq!(asked["groups"], json!(["system:masters", "system:authenticated"]));
    assert_eq!((&asked["extra"], &asked["other"]), (&json!(["value"]), &json!([])));
    assert_eq!(asked["authorization"], json!([]));
}

#[tokio::test]
async fn who_may_not_is_not_carried_there() {
    let extension = Extension::serving(Mood::Good).await;
    let request = Request::get(format!("{API}/flunders")).header("impersonate-user", "jane");
    let response = extension.client().send(request.body(kube::client::Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    // Nor is anybody to a path that another reads otherwise.
    let (code, _) = get(extension.client(), &format!("{API}/namespaces/a/../b/flunders")).await;
    assert_eq!(code, 404);
}

#[tokio::test]
async fn a_watch_comes_as_it_is_written() {
    let extension = Extension::serving(Mood::Good).await;
    let request = Request::get(format!("{API}/flunders?watch=true")).body(kube::client::Body::empty()).unwrap();
    let mut body = extension.client().send(request).await.unwrap().into_body();
    let frame = time::within("the first event, of a watch that does not end", body.frame()).await.unwrap();
    let event: Value = serde_json::from_slice(&frame.unwrap().unwrap().into_data().unwrap()).unwrap();
    assert_eq!(event["type"], "ADDED");
    // It ends with the server.
    extension.cluster.server().server().stopping.cancel();
    assert!(time::within("the end", body.frame()).await.unwrap().is_none());
}

#[tokio::test]
async fn connections_are_upgraded_there() {
    let extension = Extension::serving(Mood::Good).await;
    let (cert, key) = extension.cluster.ca.issue("admin", "system:masters");
    // A subresource that this server knows, and one of theirs.
    for name in ["exec", "console"] {
        let mut sender = connect(extension.cluster.address, extension.cluster.ca.pem(), Some((&cert, &key))).await;
        let request = Request::get(format!("{API}/namespaces/default/flunders/a/{name}"))
            .header("host", "localhost")
            .header("connection", "Upgrade")
            .header("upgrade", "SPDY/3.1");
        let mut response = sender.send_request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS, "{name}");
        let mut stream = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
        stream.write_all(b"hello").await.unwrap();
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HELLO", "{name}");
    }
}

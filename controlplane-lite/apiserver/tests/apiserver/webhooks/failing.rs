//! Webhooks that are not there, answer nonsense, or no end of it: the request fails or passes as its policy says, and
//! the server goes on.

use super::*;

async fn policies(client: &kube::Client, hook: &Value) -> String {
    let merge = |changes: &Value| scheme::patch::merge::apply(hook, changes);
    let ignore = merge(&json!({"failurePolicy": "Ignore"}));
    configure(client, VALIDATING, "ignored", &[ignore]).await;
    let made = expect(post(client, MAPS, &map("m")).await, StatusCode::CREATED);
    expect(delete(client, &format!("{VALIDATING}/ignored")).await, StatusCode::OK);
    expect(get(client, VALIDATING).await, StatusCode::OK);
    let name = made["metadata"]["name"].as_str().unwrap();
    expect(delete(client, &format!("{MAPS}/{name}")).await, StatusCode::OK);
    configure(client, MUTATING, "fails", std::slice::from_ref(hook)).await;
    let failed = expect(post(client, MAPS, &map("m")).await, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(failed["reason"], "InternalError");
    failed["message"].as_str().unwrap().to_owned()
}

/// What a webhook answers, and what is said of it.
#[tokio::test]
async fn nonsense_follows_the_failure_policy() {
    let calling = "Internal error occurred: failed calling webhook \"a.example.com\": ";
    let review =
        |response: Value| json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response});
    let rows: Vec<(StatusCode, String, &str)> = vec![
        (StatusCode::OK, "no JSON".into(), "failed to call webhook: couldn't get version/kind; json parse error: "),
        (
            StatusCode::OK,
            review(json!(null)).to_string(),
            "received invalid webhook response: webhook response was absent",
        ),
        (
            StatusCode::OK,
            review(json!({"uid": "x"})).to_string(),
            "received invalid webhook response: expected response.uid=",
        ),
        (
            StatusCode::OK,
            json!({"kind": "Pod", "apiVersion": "v1"}).to_string(),
            "failed to call webhook: no kind \"Pod\" is registered",
        ),
        (StatusCode::OK, "x".repeat(5 << 20), "failed to call webhook: Post \"https://127.0.0.1:"),
        (
            StatusCode::INTERNAL_SERVER_ERROR,
            "boom".into(),
            "failed to call webhook: an error on the server (\"boom\") has prevented",
        ),
        (
            StatusCode::NOT_FOUND,
            String::new(),
            "failed to call webhook: the server could not find the requested resource",
        ),
        (StatusCode::FOUND, String::new(), "failed to call webhook: the server responded with the status code 302"),
    ];
    for (code, text, why) in rows {
        let (_api, client) = start().await;
        let hook = Hook::with(move |_| body::raw(code, "text/plain", text.clone())).await;
        let message = policies(&client, &hook.named("a.example.com", &json!({}))).await;
        assert!(message.starts_with(&format!("{calling}{why}")), "{message}");
    }
}

/// Patches fail the request whatever the policy says, but for one that cannot be read.
#[tokio::test]
async fn patches_that_do_not_apply_fail_the_request() {
    for (operations, why) in [
        (json!([{"op": "replace", "path": "/nowhere/at/all", "value": 1}]), "Internal error occurred: "),
        (json!([{"op": "add", "path": "/data", "value": 7}]), "Internal error occurred: "),
    ] {
        let (_api, client) = start().await;
        let hook = Hook::answering(move |_| patching(&operations)).await;
        configure(&client, MUTATING, "a", &[hook.named("a.example.com", &json!({"failurePolicy": "Ignore"}))]).await;
        let failed = expect(post(&client, MAPS, &map("m")).await, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(failed["message"].as_str().unwrap().starts_with(why), "{failed}");
    }
    let (_api, client) = start().await;
    let hook = Hook::answering(|_| patching(&json!({"no": "list"}))).await;
    configure(&client, MUTATING, "a", &[hook.named("a.example.com", &json!({}))]).await;
    let failed = expect(post(&client, MAPS, &map("m")).await, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(failed["message"].as_str().unwrap().contains("received undecodable patch in webhook response"), "{failed}");
    // There is nothing to patch in what is deleted.
    let (_api, client) = start().await;
    let hook = Hook::answering(|_| patching(&json!([{"op": "add", "path": "/data", "value": {}}]))).await;
    let deletes = json!({"rules": [{"operations": ["DELETE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]});
    configure(&client, MUTATING, "a", &[hook.named("a.example.com", &deletes)]).await;
    expect(post(&client, MAPS, &map("m")).await, StatusCode::CREATED);
    let failed = expect(delete(&client, &format!("{MAPS}/m")).await, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(
        failed["message"]
            .as_str()
            .unwrap()
            .contains("attempted to modify the object, which is not supported for this operation")
    );
}

#[tokio::test]
async fn servers_that_are_none_follow_the_failure_policy() {
    let (_api, client) = start().await;
    let hook = Hook::answering(|_| json!({"allowed": true})).await;
    // Somebody else's certificate.
    let other = json!({"clientConfig": {"caBundle": STANDARD.encode(Ca::default().pem())}});
    let message = policies(&client, &hook.named("a.example.com", &other)).await;
    assert!(
        message.ends_with("tls: failed to verify certificate: x509: certificate signed by unknown authority"),
        "{message}"
    );
    // A bundle that is none.
    let (_api, client) = start().await;
    let garbage = json!({"clientConfig": {"caBundle": STANDARD.encode("garbage")}});
    let message = policies(&client, &hook.named("a.example.com", &garbage)).await;
    assert!(
        message.ends_with(
            "could not get REST client: unable to load root certificates: unable to parse bytes as PEM block"
        ),
        "{message}"
    );
    // Nobody listens.
    let (_api, client) = start().await;
    let closed = harness::net::ClosedPort::tcp().unwrap();
    let nobody = json!({"clientConfig": {"url": format!("https://127.0.0.1:{}/ask", closed.number())}});
    let message = policies(&client, &hook.named("a.example.com", &nobody)).await;
    assert!(message.ends_with("connect: connection refused"), "{message}");
    // Somebody who hangs up.
    let (_api, client) = start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let hangs_up = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(stream);
        }
    });
    let rude = json!({"clientConfig": {"url": format!("https://{address}/ask")}});
    let message = policies(&client, &hook.named("a.example.com", &rude)).await;
    assert!(message.contains(&format!("Post \"https://{address}/ask?timeout=10s\": ")), "{message}");
    hangs_up.abort();
    // A Service that is not there.
    let (_api, client) = start().await;
    let service =
        json!({"clientConfig": {"url": null, "service": {"name": "s", "namespace": "default", "path": "/a"}}});
    let message = policies(&client, &hook.named("a.example.com", &service)).await;
    assert!(
        message.ends_with("Post \"https://s.default.svc:443/a?timeout=10s\": service \"s\" not found"),
        "{message}"
    );
    assert!(hook.take().is_empty());
}

#[tokio::test]
async fn who_does_not_answer_in_time_has_failed() {
    // A listener that nobody accepts from: the handshake never ends.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (_api, client) = start().await;
    let hook = Hook::with(|_| {
        // The end never comes.
        let begun = futures::stream::iter([Bytes::from_static(b"{")]);
        Response::new(body::stream(futures::StreamExt::chain(begun, futures::stream::pending())))
    })
    .await;
    let short = json!({"timeoutSeconds": 1});
    let message = policies(&client, &hook.named("a.example.com", &short)).await;
    assert!(message.ends_with("?timeout=1s\": context deadline exceeded"), "{message}");
    let (_api, client) = start().await;
    let address = silent.local_addr().unwrap();
    let nobody = json!({"timeoutSeconds": 1, "clientConfig": {"url": format!("https://{address}/")}});
    let message = policies(&client, &hook.named("a.example.com", &nobody)).await;
    assert!(message.ends_with("context deadline exceeded"), "{message}");
}

/// The time of the request is over before that of the webhook.
#[tokio::test]
async fn a_request_does_not_outlive_its_own_time() {
    let (_api, client) = start().await;
    let hook = Hook::with(|_| Response::new(body::stream(futures::stream::pending()))).await;
    configure(&client, VALIDATING, "a", &[hook.named("a.example.com", &json!({"timeoutSeconds": 30}))]).await;
    expect(post(&client, &format!("{MAPS}?timeout=1s"), &map("m")).await, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(hook.take()[0]["query"], "timeout=1s");
}

/// A few bytes that would become gigabytes.
#[tokio::test]
async fn patches_and_answers_may_not_explode() {
    let (_api, client) = start().await;
    let hook = Hook::answering(|review| {
        let mut operations = vec![json!({"op": "add", "path": "/data", "value": {"a": "x".repeat(1000)}})];
        let copies = if review["request"]["object"]["metadata"]["name"] == "small" { 3 } else { 9000 };
        operations.extend((0..copies).map(|n| json!({"op": "copy", "from": "/data/a", "path": format!("/data/b{n}")})));
        patching(&operations.into())
    })
    .await;
    configure(&client, MUTATING, "a", &[hook.named("a.example.com", &json!({}))]).await;
    let made = expect(post(&client, MAPS, &map("small")).await, StatusCode::CREATED);
    assert_eq!(made["data"].as_object().unwrap().len(), 4);
    let (code, answer) = post(&client, MAPS, &map("large")).await;
    assert!(matches!(code, 413 | 422 | 500), "{code} {answer}");
    expect(get(&client, &format!("{MAPS}/large")).await, StatusCode::NOT_FOUND);
}

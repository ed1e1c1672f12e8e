//! Webhooks that refuse, warn, or are spared.

use super::*;

#[tokio::test]
async fn a_denial_is_the_webhooks_own() {
    let (_api, client) = start().await;
    let hook = Hook::answering(|review| match review["request"]["object"]["metadata"]["name"].as_str() {
        Some("plain") => json!({"allowed": false}),
        Some("reason") => json!({"allowed": false, "status": {"reason": "no reason"}}),
        Some("full") => json!({"allowed": false, "status": {
            "message": "this webhook denies", "reason": "Forbidden", "code": 403, "status": "Success",
            "details": {"name": "x", "kind": "y", "causes": [{"reason": "r", "message": "m", "field": "f"}],
                "retryAfterSeconds": 3}}}),
        _ => json!({"allowed": true}),
    })
    .await;
    configure(&client, VALIDATING, "a", &[hook.named("deny.example.com", &json!({}))]).await;
    let denied = "admission webhook \"deny.example.com\" denied the request";
    let plain = expect(post(&client, MAPS, &map("plain")).await, StatusCode::BAD_REQUEST);
    assert_eq!(plain["message"], format!("{denied} without explanation"));
    let reason = expect(post(&client, MAPS, &map("reason")).await, StatusCode::BAD_REQUEST);
    assert_eq!((&reason["message"], &reason["reason"]), (&json!(format!("{denied}: no reason")), &json!("no reason")));
    let full = expect(post(&client, MAPS, &map("full")).await, StatusCode::FORBIDDEN);
    assert_eq!(
        full,
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 403,
            "message": format!("{denied}: this webhook denies"), "reason": "Forbidden",
            "details": {"name": "x", "kind": "y", "retryAfterSeconds": 3,
                "causes": [{"reason": "r", "message": "m", "field": "f"}]}})
    );
    expect(post(&client, MAPS, &map("other")).await, StatusCode::CREATED);
}

#[tokio::test]
async fn warnings_come_with_the_answer_whatever_it_is() {
    let (_api, client) = start().await;
    let allowed = Hook::answering(|_| json!({"allowed": true, "warnings": ["mind this"]})).await;
    let denied = Hook::answering(|_| json!({"allowed": false, "warnings": ["mind that"]})).await;
    configure(&client, MUTATING, "a", &[allowed.named("a.example.com", &json!({}))]).await;
    let (code, warnings) = warned(&client, MAPS, &map("m")).await;
    assert_eq!((code, warnings), (201, vec!["299 - \"mind this\"".to_owned()]));
    configure(&client, VALIDATING, "b", &[denied.named("b.example.com", &json!({}))]).await;
    let (code, warnings) = warned(&client, MAPS, &map("n")).await;
    assert_eq!((code, warnings.len()), (400, 2));
}

#[tokio::test]
async fn a_dry_run_asks_only_those_without_side_effects() {
    let (_api, client) = start().await;
    let hook = Hook::answering(|review| json!({"allowed": review["request"]["dryRun"] == true})).await;
    configure(&client, VALIDATING, "a", &[hook.named("a.example.com", &json!({"sideEffects": "NoneOnDryRun"}))]).await;
    expect(post(&client, &format!("{MAPS}?dryRun=All"), &map("m")).await, StatusCode::CREATED);
    assert_eq!(hook.take()[0]["request"]["options"]["dryRun"], json!(["All"]));
    expect(post(&client, MAPS, &map("m")).await, StatusCode::BAD_REQUEST);
}

/// All that judge are asked, also when one refuses; none of those that change is asked after one that refuses.
#[tokio::test]
async fn who_is_asked_after_a_refusal() {
    let (_api, client) = start().await;
    let (no, yes) =
        (Hook::answering(|_| json!({"allowed": false})).await, Hook::answering(|_| json!({"allowed": true})).await);
    let pair = [no.named("a.example.com", &json!({})), yes.named("b.example.com", &json!({}))];
    configure(&client, VALIDATING, "a", &pair).await;
    expect(post(&client, MAPS, &map("m")).await, StatusCode::BAD_REQUEST);
    assert_eq!((no.take().len(), yes.take().len()), (1, 1));
    configure(&client, MUTATING, "a", &pair).await;
    expect(post(&client, MAPS, &map("m")).await, StatusCode::BAD_REQUEST);
    assert_eq!((no.take().len(), yes.take().len()), (1, 0));
}

/// Which objects a webhook is asked about is for its conditions to say.
#[tokio::test]
async fn conditions_choose_what_is_asked() {
    let (_api, client) = start().await;
    let hook = Hook::answering(|_| json!({"allowed": true})).await;
    let conditions = json!({"matchConditions": [
        {"name": "chosen", "expression": "object.metadata.name.startsWith('chosen')"},
        {"name": "mine", "expression": "authorizer.requestResource.check('get').allowed()"}]});
    configure(&client, VALIDATING, "a", &[hook.named("a.example.com", &conditions)]).await;
    expect(post(&client, MAPS, &map("chosen-a")).await, StatusCode::CREATED);
    expect(post(&client, MAPS, &map("other")).await, StatusCode::CREATED);
    assert_eq!(hook.take().len(), 1);
}

/// A webhook is not configured with what is no expression.
#[tokio::test]
async fn conditions_that_do_not_compile_are_refused() {
    let (_api, client) = start().await;
    let hook = Hook::answering(|_| json!({"allowed": true})).await;
    let webhook = hook.named("a.example.com", &json!({"matchConditions": [{"name": "c", "expression": "object.x >"}]}));
    let config = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "a"}, "webhooks": [webhook]});
    let refused = expect(post(&client, VALIDATING, &config).await, StatusCode::UNPROCESSABLE_ENTITY);
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("matchConditions[0].expression: Invalid value"), "{message}");
    assert!(message.contains("compilation failed: ERROR: <input>:1:11: Syntax error: "), "{message}");
}

#[tokio::test]
async fn conditions_that_cannot_be_judged_follow_the_failure_policy() {
    let (_api, client) = start().await;
    let hook = Hook::answering(|_| json!({"allowed": false})).await;
    let condition = json!([{"name": "c", "expression": "object.missing > 1"}]);
    let with = |policy: &str| json!({"failurePolicy": policy, "matchConditions": condition});
    configure(&client, VALIDATING, "a", &[hook.named("a.example.com", &with("Ignore"))]).await;
    expect(post(&client, MAPS, &map("m")).await, StatusCode::CREATED);
    configure(&client, VALIDATING, "b", &[hook.named("b.example.com", &with("Fail"))]).await;
    let refused = expect(post(&client, MAPS, &map("n")).await, StatusCode::FORBIDDEN);
    assert!(refused["message"].as_str().unwrap().starts_with("configmaps \"n\" is forbidden: "), "{refused}");
    assert!(hook.take().is_empty());
}

/// A webhook may use the API while it is asked.
#[tokio::test]
async fn a_webhook_may_write_while_it_is_asked() {
    let served = serve().await;
    let client = served.client.clone();
    let (handle, inner) = (tokio::runtime::Handle::current(), client.clone());
    let hook = Hook::answering(move |review| {
        if review["request"]["object"]["metadata"]["name"] == "outer" {
            let inner = inner.clone();
            handle.spawn(async move { post(&inner, MAPS, &map("inner")).await });
        }
        json!({"allowed": true})
    })
    .await;
    configure(&client, VALIDATING, "a", &[hook.named("a.example.com", &json!({}))]).await;
    expect(post(&client, MAPS, &map("outer")).await, StatusCode::CREATED);
    harness::time::eventually("the inner object", async || {
        let (code, _) = get(&client, &format!("{MAPS}/inner")).await;
        anyhow::ensure!(code == 200, "{code}");
        Ok(())
    })
    .await
    .unwrap();
}

/// What is done is not warned of as if it were not.
#[tokio::test]
async fn nothing_is_warned_of_conditions() {
    let (_api, client) = start().await;
    let hook = Hook::answering(|_| json!({"allowed": true})).await;
    let webhook = hook.named("a.example.com", &json!({"matchConditions": [{"name": "c", "expression": "true"}]}));
    let config = json!({"metadata": {"name": "a"}, "webhooks": [webhook]});
    assert_eq!(warned(&client, VALIDATING, &config).await, (201, Vec::new()));
}

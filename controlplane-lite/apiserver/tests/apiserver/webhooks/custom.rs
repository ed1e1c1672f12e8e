//! Webhooks of custom resources and of their definitions.

use super::*;
use crate::custom::{CRDS, define, path, widget, widgets};

fn rules(resources: &[&str], version: &str) -> Value {
    json!({"rules": [{"operations": ["*"], "apiGroups": ["example.com", "apiextensions.k8s.io"],
        "apiVersions": [version], "resources": resources}]})
}

/// "should mutate custom resource with pruning"
#[tokio::test]
async fn what_a_patch_adds_is_pruned_and_defaulted() {
    let (_api, client) = start().await;
    define(&client, &widgets(&json!({}))).await;
    let hook = Hook::answering(|_| {
        patching(&json!([{"op": "add", "path": "/spec", "value": {"color": "red", "unheard": 1}}]))
    })
    .await;
    configure(&client, MUTATING, "a", &[hook.named("a.example.com", &rules(&["widgets"], "v1"))]).await;
    let made = expect(post(&client, &path("v1"), &widget("a", &json!({}))).await, StatusCode::CREATED);
    assert_eq!(made["spec"], json!({"size": 1, "color": "red"}));
    let wrong = Hook::answering(|_| patching(&json!([{"op": "add", "path": "/spec/size", "value": "large"}]))).await;
    configure(&client, MUTATING, "b", &[wrong.named("b.example.com", &rules(&["widgets"], "v1"))]).await;
    let refused = expect(post(&client, &path("v1"), &widget("b", &json!({}))).await, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused["message"].as_str().unwrap().contains("spec.size: Invalid value: \"string\""), "{refused}");
}

/// "should mutate custom resource with different stored version"
#[tokio::test]
async fn a_webhook_of_one_version_sees_objects_of_another() {
    let (_api, client) = start().await;
    let first = widgets(&json!({}))["spec"]["versions"][0].clone();
    let mut second = first.clone();
    second["name"] = json!("v2");
    second["storage"] = json!(false);
    define(&client, &widgets(&json!({"spec": {"versions": [first, second]}}))).await;
    let hook = Hook::answering(|review| {
        let seen = review["request"]["object"]["apiVersion"].clone();
        patching(&json!([{"op": "add", "path": "/metadata/labels", "value": {"seen": seen.as_str().unwrap().replace('/', "_")}}]))
    })
    .await;
    configure(&client, MUTATING, "a", &[hook.named("a.example.com", &rules(&["widgets"], "v2"))]).await;
    for version in ["v1", "v2"] {
        let sent = widget(version, &json!({"apiVersion": format!("example.com/{version}")}));
        let made = expect(post(&client, &path(version), &sent).await, StatusCode::CREATED);
        assert_eq!(made["metadata"]["labels"]["seen"], "example.com_v2");
        assert_eq!(made["apiVersion"], format!("example.com/{version}"));
        let request = hook.take().remove(0)["request"].take();
        assert_eq!((&request["kind"]["version"], &request["requestKind"]["version"]), (&json!("v2"), &json!(version)));
    }
}

/// Whoever wants another version sees what the conversion webhook makes of an object, and what it changes comes back so.
#[tokio::test]
async fn objects_of_another_version_are_converted() {
    let (_api, client) = start().await;
    let converter = crate::custom_conversion::converter(Arc::default()).await;
    define(&client, &crate::custom_conversion::definition(&converter)).await;
    let hook = Hook::answering(|review| {
        assert_eq!(review["request"]["object"]["spec"], json!({"hostPort": "here:1"}));
        patching(&json!([{"op": "replace", "path": "/spec/hostPort", "value": "there:1"}]))
    })
    .await;
    configure(&client, MUTATING, "a", &[hook.named("a.example.com", &rules(&["widgets"], "v1"))]).await;
    let judge =
        Hook::answering(|review| json!({"allowed": review["request"]["object"]["spec"]["hostPort"] == "there:1"}));
    let judge = judge.await;
    configure(&client, VALIDATING, "b", &[judge.named("b.example.com", &rules(&["widgets"], "v1"))]).await;
    let sent = json!({"metadata": {"name": "a"}, "spec": {"host": "here", "port": "1"}});
    let made = expect(post(&client, &path("v2"), &sent).await, StatusCode::CREATED);
    assert_eq!(
        (&made["apiVersion"], &made["spec"]),
        (&json!("example.com/v2"), &json!({"host": "there", "port": "1"}))
    );
    let stored = expect(get(&client, &format!("{}/a", path("v1"))).await, StatusCode::OK);
    assert_eq!(stored["spec"], json!({"hostPort": "there:1"}));
}

/// "should deny crd creation", "should be able to deny custom resource creation, update and deletion"
#[tokio::test]
async fn definitions_and_their_objects_can_be_refused() {
    let (_api, client) = start().await;
    define(&client, &widgets(&json!({}))).await;
    let hook = Hook::answering(|_| json!({"allowed": false, "status": {"message": "no"}})).await;
    let both = rules(&["widgets", "customresourcedefinitions"], "v1");
    expect(post(&client, &path("v1"), &widget("a", &json!({}))).await, StatusCode::CREATED);
    configure(&client, VALIDATING, "a", &[hook.named("a.example.com", &both)]).await;
    expect(post(&client, &path("v1"), &widget("b", &json!({}))).await, StatusCode::BAD_REQUEST);
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    let one = format!("{}/a", path("v1"));
    expect(patch(&client, &one, "merge-patch+json", &label).await, StatusCode::BAD_REQUEST);
    expect(delete(&client, &one).await, StatusCode::BAD_REQUEST);
    let other = widgets(&json!({"metadata": {"name": "gadgets.example.com"}, "spec": {
        "names": {"plural": "gadgets", "singular": "gadget", "kind": "Gadget", "shortNames": []}}}));
    expect(post(&client, CRDS, &other).await, StatusCode::BAD_REQUEST);
    let old = hook.take().into_iter().find(|review| review["request"]["operation"] == "DELETE").unwrap();
    assert_eq!(old["request"]["oldObject"]["kind"], "Widget");
}

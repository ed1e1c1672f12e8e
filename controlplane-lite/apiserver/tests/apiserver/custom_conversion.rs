//! Custom resources whose versions a webhook turns into each other; the cases are those of
//! k8s.io/apiextensions-apiserver/test/integration/conversion and of upstream's
//! test/e2e/apimachinery/crd_conversion_webhook.go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use apiserver::body;
use apiserver::testing::*;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde_json::{Value, json};

use crate::custom::{CRDS, define, path, widgets};
use crate::policies::bind;
use crate::watches::Watch;
use crate::webhooks::Hook;

/// `hostPort` of version 1 are `host` and `port` of version 2.
fn turn(object: &Value, version: &str) -> Value {
    let mut out = object.clone();
    out["apiVersion"] = version.into();
    let spec = &object["spec"];
    out["spec"] = match version {
        "example.com/v1" => {
            json!({"hostPort": format!("{}:{}", spec["host"].as_str().unwrap(), spec["port"].as_str().unwrap())})
        }
        _ => {
            let (host, port) = spec["hostPort"].as_str().unwrap().split_once(':').unwrap();
            json!({"host": host, "port": port})
        }
    };
    out
}

/// A webhook that does so, as long as it may.
pub async fn converter(fails: Arc<AtomicBool>) -> Hook {
    Hook::with(move |review| {
        let request = &review["request"];
        let version = request["desiredAPIVersion"].as_str().unwrap();
        let objects: Vec<Value> = request["objects"].as_array().unwrap().iter().map(|one| turn(one, version)).collect();
        let result = if fails.load(Ordering::Relaxed) {
            json!({"status": "Failure", "message": "not today"})
        } else {
            json!({"status": "Success"})
        };
        let review = json!({"kind": "ConversionReview", "apiVersion": review["apiVersion"],
            "response": {"uid": request["uid"], "result": result, "convertedObjects": objects}});
        body::raw(StatusCode::OK, "application/json", review.to_string())
    })
    .await
}

pub fn definition(hook: &Hook) -> Value {
    let version = |name: &str, storage: bool, fields: Value| {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": fields}}});
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema},
            "subresources": {"status": {}}})
    };
    let string = json!({"type": "string"});
    let versions = json!([
        version("v1", true, json!({"hostPort": string})),
        version("v2", false, json!({"host": string, "port": string})),
    ]);
    let client =
        json!({"url": format!("https://{}/convert", hook.address), "caBundle": STANDARD.encode(hook.ca.pem())});
    let conversion = json!({"strategy": "Webhook",
        "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": client}});
    widgets(&json!({"spec": {"versions": versions, "conversion": conversion}}))
}

#[tokio::test]
async fn versions_are_what_the_webhook_says() {
    let (_api, client) = start().await;
    let fails = Arc::new(AtomicBool::new(false));
    let hook = converter(fails.clone()).await;
    define(&client, &definition(&hook)).await;
    let first = json!({"metadata": {"name": "a"}, "spec": {"hostPort": "here:1"}});
    let made = expect(post(&client, &path("v1"), &first).await, StatusCode::CREATED);
    assert_eq!((&made["spec"], hook.take().len()), (&first["spec"], 0));
    let one = format!("{}/a", path("v2"));
    let second = expect(get(&client, &one).await, StatusCode::OK);
    assert_eq!(
        (&second["apiVersion"], &second["spec"]),
        (&json!("example.com/v2"), &json!({"host": "here", "port": "1"}))
    );
    assert_eq!(second["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    let asked = hook.take();
    assert_eq!(asked[0]["request"]["desiredAPIVersion"], "example.com/v2");
    assert_eq!(asked[0]["request"]["objects"][0]["spec"], first["spec"]);

    let mut watch = Watch::open(&client, &format!("{}?watch=1", path("v2"))).await;
    assert_eq!(watch.next().await["object"]["spec"]["host"], "here");
    let other = json!({"metadata": {"name": "b"}, "spec": {"host": "there", "port": "2"}});
    let made = expect(post(&client, &path("v2"), &other).await, StatusCode::CREATED);
    assert_eq!(made["spec"], other["spec"]);
    assert_eq!(watch.next().await["object"]["spec"], other["spec"]);
    let stored = expect(get(&client, &format!("{}/b", path("v1"))).await, StatusCode::OK);
    assert_eq!(stored["spec"], json!({"hostPort": "there:2"}));
    let patched = patch(&client, &one, "merge-patch+json", &json!({"spec": {"port": "3"}})).await;
    assert_eq!(expect(patched, StatusCode::OK)["spec"], json!({"host": "here", "port": "3"}));
    let listed = expect(get(&client, &path("v1")).await, StatusCode::OK);
    assert_eq!(listed["items"][0]["spec"], json!({"hostPort": "here:3"}));
    hook.take();
    let listed = expect(get(&client, &path("v2")).await, StatusCode::OK);
    let hosts: Vec<&str> =
        listed["items"].as_array().unwrap().iter().map(|i| i["spec"]["host"].as_str().unwrap()).collect();
    assert_eq!((hosts, hook.take().len()), (vec!["here", "there"], 1));

    fails.store(true, Ordering::Relaxed);
    for path in [one.clone(), path("v2")] {
        let failed = expect(get(&client, &path).await, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(failed["message"], "conversion webhook for example.com/v1, Kind=Widget failed: not today");
    }
    let refused =
        post(&client, &path("v2"), &json!({"metadata": {"name": "c"}, "spec": {"host": "x", "port": "y"}})).await;
    expect(refused, StatusCode::INTERNAL_SERVER_ERROR);
    expect(get(&client, &format!("{}/c", path("v1"))).await, StatusCode::NOT_FOUND);
    expect(get(&client, &path("v1")).await, StatusCode::OK);
    // Nobody is asked when a definition goes.
    expect(delete(&client, &format!("{CRDS}/widgets.example.com")).await, StatusCode::OK);
    harness::time::eventually_true("its end", async || get(&client, &path("v1")).await.0 == 404).await.unwrap();
}

/// What a policy leaves alone is stored as the webhook turns it, and not as a schema that knows nothing of it.
#[tokio::test]
async fn what_a_policy_changes_is_converted_as_a_whole() {
    let (_api, client) = start().await;
    let hook = converter(Arc::default()).await;
    define(&client, &definition(&hook)).await;
    let rules = json!({"resourceRules": [{"apiGroups": ["example.com"], "apiVersions": ["v2"],
        "operations": ["CREATE", "UPDATE"], "resources": ["widgets"]}]});
    let mutation = json!({"patchType": "ApplyConfiguration", "applyConfiguration":
        {"expression": "Object{metadata: Object.metadata{labels: {'seen': 'yes'}}}"}});
    let spec = json!({"reinvocationPolicy": "Never", "matchConstraints": rules, "mutations": [mutation]});
    bind(&client, true, "labels", spec, json!({})).await;
    let sent = json!({"metadata": {"name": "a"}, "spec": {"host": "here", "port": "1"}});
    let made = expect(post(&client, &path("v2"), &sent).await, StatusCode::CREATED);
    assert_eq!((&made["apiVersion"], &made["spec"]), (&json!("example.com/v2"), &sent["spec"]));
    assert_eq!(made["metadata"]["labels"]["seen"], "yes");
    let stored = expect(get(&client, &format!("{}/a", path("v1"))).await, StatusCode::OK);
    assert_eq!(stored["spec"], json!({"hostPort": "here:1"}));
}

/// "MUST list and watch custom resources matching the field selector" of upstream's
/// test/e2e/apimachinery/crd_selectable_fields.go.
#[tokio::test]
async fn fields_are_selected_as_the_version_has_them() {
    let (_api, client) = start().await;
    let hook = converter(Arc::default()).await;
    let mut crd = definition(&hook);
    crd["spec"]["versions"][0]["selectableFields"] = json!([{"jsonPath": ".spec.hostPort"}]);
    crd["spec"]["versions"][1]["selectableFields"] = json!([{"jsonPath": ".spec.host"}, {"jsonPath": ".spec.port"}]);
    define(&client, &crd).await;
    let here = format!("{}?fieldSelector=spec.host%3Dhere", path("v2"));
    let mut watch = Watch::open(&client, &format!("{here}&watch=1")).await;
    for (name, host, port) in [("a", "here", "1"), ("b", "here", "2"), ("c", "there", "1")] {
        let sent = json!({"metadata": {"name": name}, "spec": {"host": host, "port": port}});
        expect(post(&client, &path("v2"), &sent).await, StatusCode::CREATED);
    }
    let names = async |path: &str| -> Vec<String> {
        let list = expect(get(&client, path).await, StatusCode::OK);
        let items = list["items"].as_array().unwrap().iter();
        items.map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let both = format!("{here},spec.port%3D1");
    assert_eq!(names(&here).await, ["a", "b"]);
    assert_eq!(names(&both).await, ["a"]);
    assert_eq!(names(&format!("{}?fieldSelector=spec.hostPort%3Dhere:2", path("v1"))).await, ["b"]);
    expect(delete(&client, &both).await, StatusCode::OK);
    assert_eq!(names(&path("v1")).await, ["b", "c"]);
    let moved = json!({"spec": {"host": "there"}});
    expect(patch(&client, &format!("{}/b", path("v2")), "merge-patch+json", &moved).await, StatusCode::OK);
    assert!(names(&here).await.is_empty());
    for (ty, name) in [("ADDED", "a"), ("ADDED", "b"), ("DELETED", "a"), ("DELETED", "b")] {
        let event = watch.next().await;
        assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!(ty), &json!(name)));
    }
}

/// A policy reads its parameters in the version that it names.
#[tokio::test]
async fn parameters_are_converted() {
    let (_api, client) = start().await;
    let hook = converter(Arc::default()).await;
    define(&client, &definition(&hook)).await;
    let sent = json!({"metadata": {"name": "a"}, "spec": {"hostPort": "here:1"}});
    expect(post(&client, &path("v1"), &sent).await, StatusCode::CREATED);
    let spec = json!({"paramKind": {"apiVersion": "example.com/v2", "kind": "Widget"},
        "validations": [{"expression": "params.spec.host == object.data.host"}]});
    bind(&client, false, "hosts", spec, json!({"paramRef": {"name": "a", "parameterNotFoundAction": "Deny"}})).await;
    for (host, code) in [("here", StatusCode::CREATED), ("there", StatusCode::UNPROCESSABLE_ENTITY)] {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": host}, "data": {"host": host}});
        expect(post(&client, "/api/v1/namespaces/default/configmaps", &map).await, code);
    }
}

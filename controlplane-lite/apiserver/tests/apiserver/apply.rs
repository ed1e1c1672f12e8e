//! Server-side apply, and who owns what after other writes, as clients meet it. What a set of fields is made of is
//! tested with the `managedfields` crate. Cases follow upstream's `test/integration/apiserver/apply` and
//! `test/e2e/apimachinery/server_side_apply`.

use apiserver::testing::*;
use http::{Request, StatusCode};
use kube::Client;
use serde_json::{Value, json};

use crate::Kubectl;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

async fn apply(client: &Client, path: &str, query: &str, config: &Value) -> (u16, Value) {
    patch(client, &format!("{path}?{query}"), "apply-patch+yaml", config).await
}

fn map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn deployment(replicas: Option<i64>) -> Value {
    let mut deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        },
    });
    if let Some(replicas) = replicas {
        deployment["spec"]["replicas"] = json!(replicas);
    }
    deployment
}

/// Each entry as `MANAGER OPERATION SUBRESOURCE`, with its fields.
fn owners(object: &Value) -> Vec<(String, Value)> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or("").to_owned();
    let entry = |entry: &Value| {
        let name = [text(entry, "manager"), text(entry, "operation"), text(entry, "subresource")].join(" ");
        (name.trim().to_owned(), entry["fieldsV1"].clone())
    };
    entries.iter().map(entry).collect()
}

#[tokio::test]
async fn an_object_is_created_and_changed_by_applying_it() {
    let (_server, client) = start().await;
    let path = format!("{MAPS}/a");
    let made =
        expect(apply(&client, &path, "fieldManager=one", &map("a", json!({"x": "1"}))).await, StatusCode::CREATED);
    assert_eq!(owners(&made), [("one Apply".to_owned(), json!({"f:data": {"f:x": {}}}))]);
    let again = expect(apply(&client, &path, "fieldManager=one", &map("a", json!({"x": "1"}))).await, StatusCode::OK);
    assert_eq!(again["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    let changed = expect(apply(&client, &path, "fieldManager=one", &map("a", json!({"y": "2"}))).await, StatusCode::OK);
    assert_eq!(changed["data"], json!({"y": "2"}));
    assert_ne!(changed["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    assert_eq!(expect(get(&client, &path).await, StatusCode::OK), changed);
    // What is tried stays a try.
    let tried = apply(&client, &path, "fieldManager=one&dryRun=All", &map("a", json!({"z": "3"}))).await;
    assert_eq!(expect(tried, StatusCode::OK)["data"], json!({"z": "3"}));
    assert_eq!(expect(get(&client, &path).await, StatusCode::OK), changed);
    let tried = apply(&client, &format!("{MAPS}/none"), "fieldManager=one&dryRun=All", &map("none", json!({}))).await;
    expect(tried, StatusCode::CREATED);
    expect(get(&client, &format!("{MAPS}/none")).await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn defaults_belong_to_nobody_who_applies() {
    let (_server, client) = start().await;
    let path = format!("{DEPLOYMENTS}/web");
    let made = expect(apply(&client, &path, "fieldManager=one", &deployment(None)).await, StatusCode::CREATED);
    assert_eq!(made["spec"]["replicas"], 1);
    assert_eq!(owners(&made)[0].1["f:spec"]["f:replicas"], Value::Null);
    // So that another sets them without a conflict.
    let scaled = expect(
        patch(
            &client,
            &format!("{path}/scale?fieldManager=scaler"),
            "merge-patch+json",
            &json!({"spec": {"replicas": 3}}),
        )
        .await,
        StatusCode::OK,
    );
    assert_eq!(scaled["spec"]["replicas"], 3);
    let stored = expect(get(&client, &path).await, StatusCode::OK);
    assert!(owners(&stored).contains(&("scaler Update scale".to_owned(), json!({"f:spec": {"f:replicas": {}}}))));
    let refused = expect(apply(&client, &path, "fieldManager=one", &deployment(Some(2))).await, StatusCode::CONFLICT);
    assert_eq!(
        refused["message"],
        "Apply failed with 1 conflict: conflict with \"scaler\" with subresource \"scale\" using apps/v1: .spec.replicas"
    );
    assert_eq!(refused["reason"], "Conflict");
    assert_eq!(
        refused["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "field": ".spec.replicas",
            "message": "conflict with \"scaler\" with subresource \"scale\" using apps/v1"}])
    );
    let forced = apply(&client, &path, "fieldManager=one&force=true", &deployment(Some(2))).await;
    let forced = expect(forced, StatusCode::OK);
    assert_eq!(forced["spec"]["replicas"], 2);
    assert_eq!(owners(&forced).len(), 1);
}

/// A Scale is applied like anything else, and its replicas are the object's.
#[tokio::test]
async fn a_scale_is_applied() {
    let (_server, client) = start().await;
    let path = format!("{DEPLOYMENTS}/web");
    expect(apply(&client, &path, "fieldManager=one", &deployment(Some(1))).await, StatusCode::CREATED);
    let scale =
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": 4}});
    let path = format!("{path}/scale");
    let refused = expect(apply(&client, &path, "fieldManager=two", &scale).await, StatusCode::CONFLICT);
    assert_eq!(refused["message"], "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas");
    let scaled = expect(apply(&client, &path, "fieldManager=two&force=true", &scale).await, StatusCode::OK);
    assert_eq!((&scaled["kind"], &scaled["spec"]["replicas"]), (&json!("Scale"), &json!(4)));
    let stored = expect(get(&client, &format!("{DEPLOYMENTS}/web")).await, StatusCode::OK);
    assert!(owners(&stored).contains(&("two Apply scale".to_owned(), json!({"f:spec": {"f:replicas": {}}}))));
    let scale = |rest: Value| {
        let mut scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}});
        for (key, value) in rest.as_object().unwrap() {
            scale[key] = value.clone();
        }
        scale
    };
    for (config, code) in [
        (deployment(Some(1)), StatusCode::BAD_REQUEST),
        (scale(json!({"metadata": {"name": "other"}})), StatusCode::BAD_REQUEST),
        (scale(json!({"metadata": {"name": "web", "namespace": "other"}})), StatusCode::BAD_REQUEST),
        (scale(json!({"metadata": {"name": "web", "managedFields": []}})), StatusCode::BAD_REQUEST),
        (scale(json!({"metadata": {"name": "web", "resourceVersion": "1"}})), StatusCode::CONFLICT),
        (scale(json!({"metadata": {"name": "web", "uid": "other"}})), StatusCode::CONFLICT),
        (scale(json!({"nonsense": 1})), StatusCode::INTERNAL_SERVER_ERROR),
        (scale(json!({"spec": {"replicas": "3"}})), StatusCode::INTERNAL_SERVER_ERROR),
        (scale(json!({"metadata": {}, "spec": {"replicas": 2}})), StatusCode::OK),
        // Three is three, however YAML writes it.
        (scale(json!({"spec": {"replicas": 3.0}})), StatusCode::OK),
    ] {
        expect(apply(&client, &path, "fieldManager=two", &config).await, code);
    }
    assert_eq!(expect(get(&client, &path).await, StatusCode::OK)["spec"]["replicas"], 3);
    let twice = "apiVersion: autoscaling/v1\nkind: Scale\nspec: {replicas: 4, replicas: 5}\n";
    let request = Request::patch(format!("{path}?fieldManager=two&fieldValidation=Warn"))
        .header("content-type", "application/apply-patch+yaml")
        .body(kube::client::Body::from(twice.as_bytes().to_vec()))
        .unwrap();
    let answer = client.send(request).await.unwrap();
    let warning = answer.headers().get("warning").map_or("", |warning| warning.to_str().unwrap());
    assert!(answer.status() == 200 && warning.contains("replicas"), "a key that stands there twice: {warning}");
}

/// Status is applied through its subresource, and only there.
#[tokio::test]
async fn status_has_owners_of_its_own() {
    let (_server, client) = start().await;
    let path = format!("{DEPLOYMENTS}/web");
    let mut config = deployment(None);
    config["status"] = json!({"replicas": 7});
    let made = expect(apply(&client, &path, "fieldManager=one", &config).await, StatusCode::CREATED);
    assert_eq!((&made["status"]["replicas"], &owners(&made)[0].1["f:status"]), (&Value::Null, &Value::Null));
    let status = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"x": "y"}},
        "status": {"replicas": 7}});
    let set = expect(apply(&client, &format!("{path}/status"), "fieldManager=two", &status).await, StatusCode::OK);
    assert_eq!(set["status"]["replicas"], 7);
    assert!(owners(&set).contains(&("two Apply status".to_owned(), json!({"f:status": {"f:replicas": {}}}))));
    let none = apply(&client, &format!("{DEPLOYMENTS}/none/status"), "fieldManager=two", &status).await;
    expect(none, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn writers_are_named_by_their_requests() {
    let (_server, client) = start().await;
    let made = expect(
        post(&client, &format!("{MAPS}?fieldManager=maker"), &map("a", json!({"x": "1"}))).await,
        StatusCode::CREATED,
    );
    assert_eq!(owners(&made), [("maker Update".to_owned(), json!({"f:data": {".": {}, "f:x": {}}}))]);
    let mut changed = made.clone();
    changed["data"]["x"] = json!("2");
    let put = expect(put(&client, &format!("{MAPS}/a?fieldManager=editor"), &changed).await, StatusCode::OK);
    assert_eq!(
        owners(&put),
        [
            ("editor Update".to_owned(), json!({"f:data": {"f:x": {}}})),
            ("maker Update".to_owned(), json!({"f:data": {}})),
        ]
    );
    // Go's structs are there from the start, and nobody's.
    let made = expect(post(&client, DEPLOYMENTS, &deployment(None)).await, StatusCode::CREATED);
    assert_eq!(owners(&made)[0].1["f:spec"]["."], Value::Null);
    assert_eq!(owners(&made)[0].1["f:spec"]["f:strategy"]["f:type"], json!({}));
    let patched = patch(&client, &format!("{MAPS}/a"), "merge-patch+json", &json!({"data": {"y": "1"}})).await;
    let by_agent = owners(&expect(patched, StatusCode::OK));
    assert!(
        by_agent
            .iter()
            .any(|(name, fields)| name == "kube-apiserver Update" && *fields == json!({"f:data": {"f:y": {}}}))
    );
}

#[tokio::test]
async fn what_is_no_configuration_is_refused() {
    let (_server, client) = start().await;
    let path = format!("{MAPS}/a");
    for (query, config, code, message) in [
        (
            "",
            map("a", json!({})),
            StatusCode::UNPROCESSABLE_ENTITY,
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ),
        (
            "fieldManager=one",
            json!("text"),
            StatusCode::BAD_REQUEST,
            "error decoding patch: json: cannot unmarshal non-object into Go value of type map[string]interface {}",
        ),
        ("fieldManager=one", json!({}), StatusCode::BAD_REQUEST, "invalid object type: /, Kind="),
        (
            "fieldManager=one",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "a-"}}),
            StatusCode::BAD_REQUEST,
            "the name of the object (a based on URL) was undeterminable: name must be provided",
        ),
        (
            "fieldManager=one",
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}),
            StatusCode::BAD_REQUEST,
            "invalid object type: /v1, Kind=Secret",
        ),
        (
            "fieldManager=one",
            map("b", json!({})),
            StatusCode::BAD_REQUEST,
            "the name of the object (b) does not match the name on the URL (a)",
        ),
        (
            "fieldManager=one",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"x": 1}}),
            StatusCode::INTERNAL_SERVER_ERROR,
            "failed to create typed patch object (/a; /v1, Kind=ConfigMap): .data.x: expected string, got &value.valueUnstructured{Value:1}",
        ),
        (
            "fieldManager=one",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "uid": "u"}}),
            StatusCode::CONFLICT,
            "Operation cannot be fulfilled on configmaps \"a\": uid mismatch: the provided object specified uid u, and no existing object was found",
        ),
    ] {
        let refused = expect(apply(&client, &path, query, &config).await, code);
        assert_eq!(refused["message"], message, "{config}");
    }
    expect(get(&client, &path).await, StatusCode::NOT_FOUND);
    let twice = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {x: '1', x: '2'}\n";
    let strict = format!("{path}?fieldManager=one&fieldValidation=Strict");
    let strict = send(&client, "PATCH", &strict, "application/apply-patch+yaml", twice);
    let refused = expect(strict.await, StatusCode::BAD_REQUEST);
    assert_eq!(refused["message"], "error strict decoding patch: duplicate field \"data.x\"");
    let forced = patch(&client, &format!("{path}?force=true"), "merge-patch+json", &json!({})).await;
    expect(forced, StatusCode::UNPROCESSABLE_ENTITY);
}

/// What is long is told short, and costs no more than its length: errors, conflicts and sets have paths in which a name
/// of a megabyte may stand a hundred thousand times.
#[tokio::test]
async fn long_paths_cost_no_more_than_their_length() {
    let (_server, client) = start().await;
    let long = "n".repeat(300_000);
    let path = format!("{DEPLOYMENTS}/web");
    let with = |env: Vec<Value>| {
        let mut deployment = deployment(None);
        deployment["spec"]["template"]["spec"]["containers"] = json!([{"name": long, "image": "i", "env": env}]);
        deployment
    };
    let twice = apply(&client, &path, "fieldManager=one", &with(vec![json!({"name": "a"}); 50_000])).await;
    let refused = expect(twice, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(refused["message"].as_str().unwrap().len() < 300_000, "a hundred errors at most, each cut");
    let distinct = (0..30_000).map(|n| json!({"name": format!("e{n}")})).collect();
    let refused = apply(&client, &path, "fieldManager=one", &with(distinct)).await;
    expect(refused, StatusCode::UNPROCESSABLE_ENTITY);

    let keys: serde_json::Map<String, Value> = (0..20_000).map(|n| (format!("k{n}"), json!("1"))).collect();
    expect(apply(&client, &format!("{MAPS}/a"), "fieldManager=one", &map("a", json!(keys))).await, StatusCode::CREATED);
    let keys: serde_json::Map<String, Value> = keys.into_iter().map(|(key, _)| (key, json!("2"))).collect();
    let conflict = apply(&client, &format!("{MAPS}/a"), "fieldManager=two", &map("a", json!(keys))).await;
    let conflict = expect(conflict, StatusCode::CONFLICT);
    let message = conflict["message"].as_str().unwrap();
    assert!(message.starts_with("Apply failed with 20000 conflicts: conflicts with \"one\":\n- .data.k0\n"));
    assert!(message.ends_with(" more)") && message.len() < 70_000, "{} bytes", message.len());
}

/// Two who apply at once both get what they want; nobody's fields are lost.
#[tokio::test]
async fn many_apply_to_one_object_at_once() {
    let (_server, client) = start().await;
    let path = format!("{MAPS}/a");
    let tasks = (0..20).map(|i| {
        let (client, path) = (client.clone(), path.clone());
        async move {
            let config = map("a", json!({format!("k{i}"): "1"}));
            apply(&client, &path, &format!("fieldManager=m{i}"), &config).await.0
        }
    });
    let codes = futures::future::join_all(tasks).await;
    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 1, "{codes:?}");
    assert!(codes.iter().all(|code| matches!(code, 200 | 201)), "{codes:?}");
    let stored = expect(get(&client, &path).await, StatusCode::OK);
    assert_eq!(stored["data"].as_object().unwrap().len(), 20);
    assert_eq!(owners(&stored).len(), 20);
}

/// What kubectl makes of it, with objects that it applied on its own side before.
#[tokio::test]
async fn kubectl_applies_on_the_servers_side() {
    let served = serve().await;
    let kubectl = Kubectl::of(&served);
    let manifest = |replicas: i64| deployment(Some(replicas)).to_string();
    kubectl.run(&["apply", "-f", "-"], &manifest(1)).await;
    let applied = kubectl.run(&["apply", "--server-side", "-f", "-"], &manifest(2)).await;
    assert_eq!(applied.trim(), "deployment.apps/web serverside-applied");
    kubectl.run(&["diff", "--server-side", "-f", "-"], &manifest(2)).await;
    kubectl.run(&["label", "deployment/web", "x=y"], "").await;
    let (ok, told) = kubectl.told(&["apply", "--server-side", "--field-manager=other", "-f", "-"], &manifest(3)).await;
    assert!(!ok && told.contains("conflict with \"kubectl\": .spec.replicas"), "{told}");
    kubectl
        .run(&["apply", "--server-side", "--force-conflicts", "--field-manager=other", "-f", "-"], &manifest(3))
        .await;
    let replicas = kubectl.run(&["get", "deployment/web", "-o=jsonpath={.spec.replicas}"], "").await;
    assert_eq!(replicas.trim(), "3");
}

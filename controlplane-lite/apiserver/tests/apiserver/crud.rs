//! Create, read, update, patch, delete.

use http::StatusCode;
use serde_json::json;

use apiserver::testing::*;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn a_config_map_lives_and_dies() {
    let (_server, client) = start().await;
    let made = expect(
        post(&client, MAPS, &json!({"metadata": {"name": "a", "labels": {"x": "1"}}, "data": {"k": "v"}})).await,
        StatusCode::CREATED,
    );
    assert_eq!(made["kind"], "ConfigMap");
    assert_eq!(made["apiVersion"], "v1");
    assert_eq!(made["metadata"]["namespace"], "default");
    for field in ["uid", "creationTimestamp", "resourceVersion"] {
        assert!(made["metadata"][field].is_string(), "{field} in {made}");
    }
    let again = post(&client, MAPS, &json!({"metadata": {"name": "a"}})).await;
    let error = expect(again, StatusCode::CONFLICT);
    assert_eq!(error["reason"], "AlreadyExists");
    assert_eq!(error["message"], "configmaps \"a\" already exists");

    let path = format!("{MAPS}/a");
    assert_eq!(expect(get(&client, &path).await, StatusCode::OK), made);
    let list = expect(get(&client, &format!("{MAPS}?labelSelector=x%3D1")).await, StatusCode::OK);
    assert_eq!(list["kind"], "ConfigMapList");
    assert_eq!(list["items"], json!([made]));
    assert_eq!(expect(get(&client, &format!("{MAPS}?labelSelector=x%3D2")).await, StatusCode::OK)["items"], json!([]));

    let mut changed = made.clone();
    changed["data"]["k"] = json!("w");
    let updated = expect(put(&client, &path, &changed).await, StatusCode::OK);
    assert_eq!(updated["data"]["k"], "w");
    let stale = expect(put(&client, &path, &changed).await, StatusCode::CONFLICT);
    assert_eq!(stale["reason"], "Conflict");
    // Nothing changes: nothing is written.
    let same = expect(put(&client, &path, &updated).await, StatusCode::OK);
    assert_eq!(same["metadata"]["resourceVersion"], updated["metadata"]["resourceVersion"]);

    let patched = expect(
        patch(&client, &path, "merge-patch+json", &json!({"data": {"k": null, "n": "1"}})).await,
        StatusCode::OK,
    );
    assert_eq!(patched["data"], json!({"n": "1"}));

    let gone = expect(delete(&client, &path).await, StatusCode::OK);
    assert_eq!(gone["status"], "Success");
    assert_eq!(gone["details"]["name"], "a");
    assert_eq!(expect(get(&client, &path).await, StatusCode::NOT_FOUND)["reason"], "NotFound");
}

#[tokio::test]
async fn the_first_objects_are_there() {
    let (_server, client) = start().await;
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        let namespace = expect(get(&client, &format!("/api/v1/namespaces/{name}")).await, StatusCode::OK);
        assert_eq!(namespace["status"]["phase"], "Active");
    }
    let service = expect(get(&client, "/api/v1/namespaces/default/services/kubernetes").await, StatusCode::OK);
    assert_eq!(service["spec"]["clusterIP"], "10.43.0.1");
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
    let slice = expect(get(&client, slices).await, StatusCode::OK);
    assert_eq!(slice["endpoints"][0]["addresses"][0], "192.0.2.1");
    let priority = "/apis/scheduling.k8s.io/v1/priorityclasses/system-node-critical";
    assert_eq!(expect(get(&client, priority).await, StatusCode::OK)["value"], 2_000_001_000);
}

//! Discovery and OpenAPI of what another server serves.

use super::*;

#[tokio::test]
async fn discovery_names_the_group() {
    let extension = Extension::serving(Mood::Good).await;
    let client = extension.client();
    let groups = expect(get(client, "/apis").await, StatusCode::OK);
    let group = groups["groups"].as_array().unwrap().iter().find(|g| g["name"] == GROUP).unwrap().clone();
    let version = json!({"groupVersion": "wardle.example.com/v1alpha1", "version": "v1alpha1"});
    assert_eq!(group, json!({"name": GROUP, "versions": [version], "preferredVersion": version}));
    let own = expect(get(client, &format!("/apis/{GROUP}")).await, StatusCode::OK);
    assert_eq!((&own["kind"], &own["name"]), (&json!("APIGroup"), &json!(GROUP)));
    assert_eq!(expect(get(client, API).await, StatusCode::OK), resources());
    let paths = expect(get(client, "/").await, StatusCode::OK);
    assert!(paths["paths"].as_array().unwrap().contains(&json!(API)));
    let current = async || extension.discovered().await["freshness"] == "Current";
    time::eventually_true("the server was asked", current).await.unwrap();
    let kind = json!({"group": GROUP, "version": "v1alpha1", "kind": "Flunder"});
    assert_eq!(
        extension.discovered().await["resources"],
        json!([{"resource": "flunders", "singularResource": "flunder", "scope": "Namespaced", "responseKind": kind,
            "verbs": ["create", "get", "list", "watch"], "shortNames": ["fl"],
            "subresources": [{"subresource": "status", "verbs": ["get"], "responseKind": kind}]}])
    );
}

#[tokio::test]
async fn one_document_for_all_groups_is_preferred() {
    let extension = Extension::serving(Mood::Aggregated).await;
    let current = async || extension.discovered().await["freshness"] == "Current";
    time::eventually_true("the server was asked", current).await.unwrap();
    assert_eq!(extension.discovered().await["resources"][0]["resource"], "fischers");
}

#[tokio::test]
async fn openapi_has_what_the_server_says() {
    let extension = Extension::serving(Mood::Good).await;
    let client = extension.client();
    let url = "/openapi/v3/apis/wardle.example.com/v1alpha1?hash=AB";
    let entry = async || get(client, "/openapi/v3").await.1["paths"]["apis/wardle.example.com/v1alpha1"].clone();
    let listed = async || entry().await["serverRelativeURL"] == url;
    time::eventually_true("the document is listed", listed).await.unwrap();
    let root = expect(get(client, "/openapi/v3").await, StatusCode::OK);
    let apps = root["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    assert!(!apps.contains("EVIL"), "another's document stays its own: {apps}");
    assert_eq!(expect(get(client, url).await, StatusCode::OK)["theirs"], true);
    let v2 = expect(get(client, "/openapi/v2").await, StatusCode::OK);
    assert!(v2["paths"]["/apis/wardle.example.com/v1alpha1/flunders"].is_object());
    assert!(v2["paths"]["/api/v1/namespaces"].is_object());
    assert!(v2["definitions"]["Flunder"].is_object() && v2["definitions"]["Unused"].is_null());
}

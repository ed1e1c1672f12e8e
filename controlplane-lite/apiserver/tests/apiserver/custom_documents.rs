//! What clients learn of custom resources beforehand: discovery, the OpenAPI documents, and what kubectl makes of them. The
//! cases are those of upstream's test/e2e/apimachinery/crd_publish_openapi.go.

use harness::time;
use http::StatusCode;
use serde_json::{Value, json};

use apiserver::testing::*;
use scheme::patch::merge;

use crate::Kubectl;
use crate::custom::{CRDS, define, path, widget, widgets};

async fn v2(client: &kube::Client) -> Value {
    expect(get(client, "/openapi/v2").await, StatusCode::OK)
}

async fn v3_address(client: &kube::Client, version: &str) -> Option<String> {
    let root = expect(get(client, "/openapi/v3").await, StatusCode::OK);
    let found = &root["paths"][format!("apis/example.com/{version}")]["serverRelativeURL"];
    found.as_str().map(str::to_owned)
}

/// A definition with this schema in its only version.
fn with_schema(schema: &Value) -> Value {
    let mut crd = widgets(&json!({}));
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = schema.clone();
    crd["spec"]["versions"][0].as_object_mut().unwrap().remove("selectableFields");
    crd
}

#[tokio::test]
async fn documents_follow_definitions() {
    let (_api, client) = start().await;
    let other = widgets(&json!({}))["spec"]["versions"][0].clone();
    let other = merge::apply(&other, &json!({"name": "v2", "storage": false}));
    let first = widgets(&json!({}))["spec"]["versions"][0].clone();
    define(&client, &widgets(&json!({"spec": {"versions": [first, other]}}))).await;
    let document = v2(&client).await;
    let widget = &document["definitions"]["com.example.v1.Widget"];
    assert_eq!(
        widget["x-kubernetes-group-version-kind"],
        json!([{"group": "example.com", "version": "v1", "kind": "Widget"}])
    );
    assert_eq!(widget["description"], "A widget.");
    assert_eq!(widget["x-kubernetes-selectable-fields"], json!([{"fieldPath": "spec.color"}]));
    let spec = &widget["properties"]["spec"]["properties"];
    assert_eq!(spec["size"], json!({"type": "integer", "maximum": 9, "description": "How large it is."}));
    assert_eq!(spec["raw"], json!({"x-kubernetes-preserve-unknown-fields": true}));
    assert_eq!(
        widget["properties"]["metadata"]["$ref"],
        "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    );
    assert!(document["definitions"]["com.example.v2.WidgetList"].is_object());
    let collection = &document["paths"]["/apis/example.com/v1/namespaces/{namespace}/widgets"];
    assert_eq!(collection["get"]["x-kubernetes-group-version-kind"]["kind"], "Widget");

    let address = v3_address(&client, "v1").await.unwrap();
    let document = expect(get(&client, &address).await, StatusCode::OK);
    let widget = &document["components"]["schemas"]["com.example.v1.Widget"];
    assert_eq!(widget["properties"]["spec"]["properties"]["size"]["default"], 1);
    assert!(document["components"]["schemas"]["com.example.v1.WidgetList"].is_object());

    // A version gets another name, and one is served no longer.
    let one = format!("{CRDS}/widgets.example.com");
    let renamed = json!([{"op": "replace", "path": "/spec/versions/1/name", "value": "v3"}]);
    expect(patch(&client, &one, "json-patch+json", &renamed).await, StatusCode::OK);
    time::eventually_true("the new version", async || v3_address(&client, "v3").await.is_some()).await.unwrap();
    assert_eq!(v3_address(&client, "v2").await, None);
    assert_eq!(v3_address(&client, "v1").await.as_deref(), Some(&*address));
    let unserved = json!([{"op": "replace", "path": "/spec/versions/1/served", "value": false}]);
    expect(patch(&client, &one, "json-patch+json", &unserved).await, StatusCode::OK);
    time::eventually_true("its end", async || v3_address(&client, "v3").await.is_none()).await.unwrap();
    let document = v2(&client).await;
    assert!(document["definitions"]["com.example.v3.Widget"].is_null());
    assert!(document["definitions"]["com.example.v1.Widget"].is_object());
    let described = [0, 1].map(|version| {
        let path = format!("/spec/versions/{version}/schema/openAPIV3Schema/description");
        json!({"op": "replace", "path": path, "value": "Another."})
    });
    let described = json!(described);
    expect(patch(&client, &one, "json-patch+json", &described).await, StatusCode::OK);
    let changed = async || v3_address(&client, "v1").await.is_some_and(|now| now != address);
    time::eventually_true("another document", changed).await.unwrap();
}

#[tokio::test]
async fn schemas_that_keep_everything_say_nothing_of_it() {
    let (_api, client) = start().await;
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true,
        "properties": {"spec": {"type": "object", "properties": {"a": {"type": "string"}}}}});
    define(&client, &with_schema(&open)).await;
    let mut definition = v2(&client).await["definitions"]["com.example.v1.Widget"].take();
    definition.as_object_mut().unwrap().remove("x-kubernetes-group-version-kind");
    assert_eq!(definition, json!({"type": "object"}));
    let kept = json!({"metadata": {"name": "a"}, "anything": {"at": ["all"]}});
    let made = expect(post(&client, &(path("v1") + "?fieldValidation=Strict"), &kept).await, StatusCode::CREATED);
    assert_eq!(made["anything"], kept["anything"]);
}

#[tokio::test]
async fn discovery_has_all_of_it() {
    let (_api, client) = start().await;
    define(&client, &widgets(&json!({}))).await;
    let list = expect(get(&client, "/apis/example.com/v1").await, StatusCode::OK);
    let names: Vec<&str> = list["resources"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["widgets", "widgets/scale", "widgets/status"]);
    let widgets = &list["resources"][0];
    assert_eq!(
        (&widgets["shortNames"], &widgets["categories"], &widgets["singularName"]),
        (&json!(["wd"]), &json!(["things"]), &json!("widget"))
    );
    assert_eq!(list["resources"][1]["group"], "autoscaling");
    let groups = expect(get(&client, "/apis").await, StatusCode::OK);
    let group = groups["groups"].as_array().unwrap().iter().find(|group| group["name"] == "example.com").unwrap();
    assert_eq!(group["preferredVersion"]["groupVersion"], "example.com/v1");
    assert!(groups["groups"].as_array().unwrap().iter().any(|group| group["name"] == "apiextensions.k8s.io"));
}

#[tokio::test]
async fn kubectl_works_with_custom_resources() {
    let served = serve().await;
    let kubectl = Kubectl::of(&served);
    let crd = widgets(&json!({}));
    kubectl.run(&["apply", "-f", "-"], &crd.to_string()).await;
    kubectl.run(&["wait", "--for=condition=Established", "crd/widgets.example.com", "--timeout=60s"], "").await;
    let listed = kubectl.run(&["get", "crds"], "").await;
    assert!(listed.contains("NAME") && listed.contains("widgets.example.com"), "{listed}");
    let one = widget("a", &json!({"spec": {"color": "red", "replicas": 1}}));
    assert!(kubectl.run(&["apply", "-f", "-"], &one.to_string()).await.contains("widget.example.com/a created"));
    assert!(kubectl.run(&["apply", "-f", "-"], &one.to_string()).await.contains("unchanged"));
    let table = kubectl.run(&["get", "wd"], "").await;
    assert_eq!(table.split_whitespace().collect::<Vec<_>>(), ["NAME", "SIZE", "a", "1"]);
    let wide = kubectl.run(&["get", "things", "-o", "wide"], "").await;
    assert_eq!(wide.split_whitespace().collect::<Vec<_>>(), ["NAME", "SIZE", "COLOR", "a", "1", "red"]);
    let scaled = kubectl.run(&["scale", "wd/a", "--replicas=4"], "").await;
    assert!(scaled.contains("widget.example.com/a scaled"), "{scaled}");
    assert_eq!(kubectl.run(&["get", "wd", "a", "-o", "jsonpath={.spec.replicas}"], "").await, "4");
    let explained = kubectl.run(&["explain", "widgets.spec.size"], "").await;
    assert!(explained.contains("FIELD: size <integer>") && explained.contains("How large it is."), "{explained}");
    let metadata = kubectl.run(&["explain", "widgets.metadata"], "").await;
    assert!(metadata.contains("<ObjectMeta>"), "{metadata}");
    let wrong = widget("b", &json!({"spec": {"unheard": 1}}));
    let (ok, refused) = kubectl.told(&["create", "-f", "-"], &wrong.to_string()).await;
    assert!(!ok && refused.contains("unknown field \"spec.unheard\""), "{refused}");
    let applied = kubectl.run(&["apply", "--server-side", "-f", "-"], &widget("c", &json!({})).to_string()).await;
    assert!(applied.contains("serverside-applied"), "{applied}");
    kubectl.run(&["delete", "crd", "widgets.example.com", "--timeout=60s"], "").await;
    let (ok, _) = kubectl.told(&["get", "widgets"], "").await;
    assert!(!ok);
}

/// A group whose name is that of a package of Go changes nothing of what is built in.
#[tokio::test]
async fn built_in_definitions_stay_what_they_are() {
    let (_api, client) = start().await;
    let before = v2(&client).await["definitions"]["io.k8s.api.apps.v1.Deployment"]["properties"].take();
    let names = json!({"plural": "deployments", "singular": "deployment", "kind": "Deployment", "shortNames": null,
        "categories": null});
    let metadata = json!({"name": "deployments.apps.api.k8s.io",
        "annotations": {"api-approved.kubernetes.io": "unapproved, a test"}});
    let crd = widgets(&json!({"metadata": metadata, "spec": {"group": "apps.api.k8s.io", "names": names}}));
    define(&client, &crd).await;
    let after = v2(&client).await["definitions"]["io.k8s.api.apps.v1.Deployment"]["properties"].take();
    assert_eq!(after, before);
    let sent = json!({"metadata": {"name": "a"}, "status": {"phase": "x"}});
    let path = "/apis/apps.api.k8s.io/v1/namespaces/default/deployments";
    let made = expect(post(&client, path, &sent).await, StatusCode::CREATED);
    assert_eq!(made["status"], Value::Null);
}

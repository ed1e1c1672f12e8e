//! Custom resources as clients see them; the cases are those of upstream's test/e2e/apimachinery/
//! {custom_resource_definition,crd_watch,crd_selectable_fields,field_validation}.go and of
//! k8s.io/apiextensions-apiserver/test/integration.

use std::sync::Arc;

use harness::time;
use http::StatusCode;
use serde_json::{Value, json};

use apiserver::testing::*;
use apiserver::{ApiServer, Config};
use scheme::patch::merge;
use storage::memory::MemoryStore;

use crate::watches::Watch;

pub const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// A definition of widgets in one version, with changes.
pub fn widgets(changes: &Value) -> Value {
    let schema = json!({"type": "object", "description": "A widget.", "properties": {
        "spec": {"type": "object", "properties": {
            "size": {"type": "integer", "default": 1, "maximum": 9, "description": "How large it is."},
            "color": {"type": "string"},
            "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {
                    "name": {"type": "string"}, "count": {"type": "integer"}}}},
            "raw": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "replicas": {"type": "integer"},
        }},
        "status": {"type": "object", "properties": {
            "replicas": {"type": "integer"}, "selector": {"type": "string"}, "phase": {"type": "string"}}},
    }});
    let version = json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
    "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}},
    "selectableFields": [{"jsonPath": ".spec.color"}],
    "additionalPrinterColumns": [
        {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
        {"name": "Color", "type": "string", "jsonPath": ".spec.color", "priority": 1},
    ]});
    let spec = json!({"group": "example.com", "scope": "Namespaced", "versions": [version],
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "shortNames": ["wd"],
            "categories": ["things"]}});
    let crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"}, "spec": spec});
    merge::apply(&crd, changes)
}

/// Creates a definition, and waits until it is established.
pub async fn define(client: &kube::Client, crd: &Value) -> Value {
    expect(post(client, CRDS, crd).await, StatusCode::CREATED);
    established(client, crd["metadata"]["name"].as_str().unwrap()).await
}

pub fn condition<'c>(crd: &'c Value, ty: &str) -> &'c Value {
    static NONE: Value = Value::Null;
    crd["status"]["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == ty).unwrap_or(&NONE)
}

pub async fn established(client: &kube::Client, name: &str) -> Value {
    wait_for(client, &format!("{CRDS}/{name}"), |crd| condition(crd, "Established")["status"] == "True").await
}

/// Reads an object until it is as it should be.
pub async fn wait_for(client: &kube::Client, path: &str, is: impl Fn(&Value) -> bool) -> Value {
    let read = async || {
        let (code, object) = get(client, path).await;
        anyhow::ensure!(code == 200 && is(&object), "{code} {object}");
        Ok(object)
    };
    time::eventually(path, read).await.unwrap()
}

async fn gone(client: &kube::Client, path: &str) {
    time::eventually_true(path, async || get(client, path).await.0 == 404).await.unwrap();
}

pub fn path(version: &str) -> String {
    format!("/apis/example.com/{version}/namespaces/default/widgets")
}

pub fn widget(name: &str, changes: &Value) -> Value {
    merge::apply(&json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}}), changes)
}

#[tokio::test]
async fn a_definition_is_established_and_its_objects_are_served() {
    let (_api, client) = start().await;
    expect(get(&client, &path("v1")).await, StatusCode::NOT_FOUND);
    let crd = define(&client, &widgets(&json!({}))).await;
    assert_eq!(condition(&crd, "NamesAccepted")["reason"], "NoConflicts");
    assert_eq!(crd["status"]["acceptedNames"]["listKind"], "WidgetList");
    assert_eq!(crd["status"]["storedVersions"], json!(["v1"]));

    let sent = widget("a", &json!({"spec": {"color": "red", "unheard": 1, "raw": {"x": 1}}, "status": {"phase": "x"}}));
    let made = expect(post(&client, &path("v1"), &sent).await, StatusCode::CREATED);
    assert_eq!(made["spec"], json!({"size": 1, "color": "red", "raw": {"x": 1}}));
    assert_eq!((&made["status"], &made["metadata"]["generation"]), (&Value::Null, &json!(1)));
    assert_eq!(expect(get(&client, &format!("{}/a", path("v1"))).await, StatusCode::OK), made);
    let listed = expect(get(&client, &format!("{}?limit=1", path("v1"))).await, StatusCode::OK);
    assert_eq!((&listed["kind"], &listed["items"][0]["spec"]), (&json!("WidgetList"), &made["spec"]));

    let bad = widget("b", &json!({"spec": {"size": 10}}));
    let refused = expect(post(&client, &path("v1"), &bad).await, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        refused["message"],
        "Widget.example.com \"b\" is invalid: spec.size: Invalid value: 10: spec.size in body should be less than or \
         equal to 9"
    );
    let tight = path("v1") + "?fieldValidation=Strict";
    let strict = expect(post(&client, &tight, &sent).await, StatusCode::BAD_REQUEST);
    assert_eq!(
        strict["message"],
        "Widget in version \"v1\" cannot be handled as a Widget: strict decoding error: unknown field \"spec.unheard\""
    );
    for ty in ["application/vnd.kubernetes.protobuf", "text/plain"] {
        let refused = send(&client, "POST", &path("v1"), ty, "k8s").await;
        expect(refused, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
}

#[tokio::test]
async fn objects_are_patched_selected_and_tried() {
    let (_api, client) = start().await;
    define(&client, &widgets(&json!({}))).await;
    let sent = widget("a", &json!({"spec": {"color": "red"}}));
    let made = expect(post(&client, &path("v1"), &sent).await, StatusCode::CREATED);
    let one = format!("{}/a", path("v1"));
    let strategic = patch(&client, &one, "strategic-merge-patch+json", &json!({})).await;
    expect(strategic, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let merged =
        expect(patch(&client, &one, "merge-patch+json", &json!({"spec": {"size": null}})).await, StatusCode::OK);
    assert_eq!(
        (&merged["spec"]["size"], &merged["metadata"]["resourceVersion"]),
        (&json!(1), &made["metadata"]["resourceVersion"])
    );
    let operations = json!([{"op": "replace", "path": "/spec/size", "value": 3}]);
    let patched = expect(patch(&client, &one, "json-patch+json", &operations).await, StatusCode::OK);
    assert_eq!((&patched["spec"]["size"], &patched["metadata"]["generation"]), (&json!(3), &json!(2)));
    let mut blind = patched.clone();
    blind["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let refused = expect(put(&client, &one, &blind).await, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused["message"].as_str().unwrap().contains("metadata.resourceVersion: Invalid value"), "{refused}");

    for (selector, count) in [("spec.color%3Dred", 1), ("spec.color%3Dblue", 0)] {
        let found = expect(get(&client, &format!("{}?fieldSelector={selector}", path("v1"))).await, StatusCode::OK);
        assert_eq!(found["items"].as_array().unwrap().len(), count);
    }
    let unknown =
        expect(get(&client, &format!("{}?fieldSelector=spec.size%3D1", path("v1"))).await, StatusCode::BAD_REQUEST);
    assert!(unknown["message"].as_str().unwrap().contains("field label not supported: spec.size"), "{unknown}");
    let dry = post(&client, &(path("v1") + "?dryRun=All"), &widget("dry", &json!({}))).await;
    expect(dry, StatusCode::CREATED);
    expect(get(&client, &format!("{}/dry", path("v1"))).await, StatusCode::NOT_FOUND);
    expect(delete(&client, &path("v1")).await, StatusCode::OK);
    expect(get(&client, &one).await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn status_and_scale_are_subresources() {
    let (_api, client) = start().await;
    define(&client, &widgets(&json!({}))).await;
    let one = format!("{}/a", path("v1"));
    expect(post(&client, &path("v1"), &widget("a", &json!({"spec": {"size": 2}}))).await, StatusCode::CREATED);
    let none = expect(get(&client, &format!("{one}/scale")).await, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(none["message"], "Internal error occurred: the spec replicas field \".spec.replicas\" does not exist");
    let empty = patch(&client, &format!("{one}/scale"), "merge-patch+json", &json!({"metadata": {}})).await;
    assert_eq!(
        expect(empty, StatusCode::BAD_REQUEST)["message"],
        "the spec replicas field \".spec.replicas\" cannot be empty"
    );
    let scaled = json!({"spec": {"replicas": 3}});
    let scale = expect(patch(&client, &format!("{one}/scale"), "merge-patch+json", &scaled).await, StatusCode::OK);
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(3)));
    let object = expect(get(&client, &one).await, StatusCode::OK);
    assert_eq!((&object["spec"]["replicas"], &object["metadata"]["generation"]), (&json!(3), &json!(2)));
    let negative = json!({"spec": {"replicas": -1}});
    let refused = patch(&client, &format!("{one}/scale"), "merge-patch+json", &negative).await;
    let refused = expect(refused, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused["message"].as_str().unwrap().contains(".spec.replicas: Invalid value: -1"), "{refused}");

    let mut changed = object.clone();
    changed["status"] = json!({"phase": "x"});
    changed["metadata"]["labels"] = json!({"a": "b"});
    let main = expect(put(&client, &one, &changed).await, StatusCode::OK);
    assert_eq!((&main["status"], &main["metadata"]["labels"]["a"]), (&Value::Null, &json!("b")));
    let mut told = main.clone();
    told["status"] = json!({"phase": "on", "replicas": 2, "selector": "a=b"});
    told["spec"]["size"] = json!(5);
    told["metadata"]["labels"] = json!({"c": "d"});
    let told = expect(put(&client, &format!("{one}/status"), &told).await, StatusCode::OK);
    assert_eq!((&told["spec"], &told["metadata"]["labels"]), (&main["spec"], &main["metadata"]["labels"]));
    assert_eq!(
        (&told["status"]["phase"], &told["metadata"]["generation"]),
        (&json!("on"), &main["metadata"]["generation"])
    );
    let owner =
        told["metadata"]["managedFields"].as_array().unwrap().iter().any(|entry| entry["subresource"] == "status");
    assert!(owner, "{told}");
    let scale = expect(get(&client, &format!("{one}/scale")).await, StatusCode::OK);
    assert_eq!(scale["status"], json!({"replicas": 2, "selector": "a=b"}));
    let mut wrong = told.clone();
    wrong["status"]["replicas"] = json!("x");
    let refused = expect(put(&client, &format!("{one}/status"), &wrong).await, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused["message"].as_str().unwrap().contains(": replicas in body must be of type integer"), "{refused}");
    expect(get(&client, &format!("{one}/nothing")).await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn applied_configurations_merge_as_the_schema_says() {
    let (_api, client) = start().await;
    define(&client, &widgets(&json!({}))).await;
    let one = |manager: &str| format!("{}/a?fieldManager={manager}", path("v1"));
    let parts = |parts: Value| widget("a", &json!({"spec": {"parts": parts}}));
    let apply = async |manager: &str, config: &Value| patch(&client, &one(manager), "apply-patch+yaml", config).await;
    expect(apply("one", &parts(json!([{"name": "x", "count": 1}]))).await, StatusCode::CREATED);
    let both = expect(apply("two", &parts(json!([{"name": "y", "count": 2}]))).await, StatusCode::OK);
    assert_eq!(both["spec"]["parts"], json!([{"name": "x", "count": 1}, {"name": "y", "count": 2}]));
    let conflict = expect(apply("two", &parts(json!([{"name": "x", "count": 3}]))).await, StatusCode::CONFLICT);
    assert!(conflict["message"].as_str().unwrap().contains(".spec.parts[name=\"x\"].count"), "{conflict}");
    let less = expect(apply("one", &parts(json!([]))).await, StatusCode::OK);
    assert_eq!(less["spec"]["parts"], json!([{"name": "y", "count": 2}]));
    let unknown = widget("a", &json!({"spec": {"unheard": 1}}));
    let refused = expect(apply("one", &unknown).await, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(refused["message"].as_str().unwrap().contains(".spec.unheard: field not declared in schema"), "{refused}");
}

/// A second version, in which size is called length.
fn second() -> Value {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "length": {"type": "integer", "default": 7}, "color": {"type": "string"}}}}});
    json!({"name": "v2", "served": true, "storage": false, "schema": {"openAPIV3Schema": schema}})
}

#[tokio::test]
async fn versions_have_schemas_of_their_own() {
    let (_api, client) = start().await;
    let first = widgets(&json!({}))["spec"]["versions"][0].clone();
    let deprecated = merge::apply(&first, &json!({"deprecated": true}));
    define(&client, &widgets(&json!({"spec": {"versions": [deprecated, second()]}}))).await;
    let sent = json!({"metadata": {"name": "a"}, "spec": {"length": 2, "color": "red"}});
    let made = expect(post(&client, &path("v2"), &sent).await, StatusCode::CREATED);
    // What the stored version does not know is not stored.
    assert_eq!((&made["apiVersion"], &made["spec"]), (&json!("example.com/v2"), &json!({"color": "red"})));
    let first = expect(get(&client, &format!("{}/a", path("v1"))).await, StatusCode::OK);
    assert_eq!((&first["apiVersion"], &first["spec"]), (&json!("example.com/v1"), &json!({"color": "red", "size": 1})));
    let request = http::Request::get(path("v1")).body(kube::client::Body::empty()).unwrap();
    let answer = client.send(request).await.unwrap();
    let warning = answer.headers()["warning"].to_str().unwrap();
    assert_eq!(warning, "299 - \"example.com/v1 Widget is deprecated; use example.com/v2 Widget\"");
    let group = expect(get(&client, "/apis/example.com").await, StatusCode::OK);
    assert_eq!(group["preferredVersion"]["version"], "v2");

    // A version that is served no longer is not found, and its objects stay.
    let mut crd = expect(get(&client, &format!("{CRDS}/widgets.example.com")).await, StatusCode::OK);
    crd["spec"]["versions"][0]["served"] = json!(false);
    expect(put(&client, &format!("{CRDS}/widgets.example.com"), &crd).await, StatusCode::OK);
    gone(&client, &format!("{}/a", path("v1"))).await;
    let second = expect(get(&client, &format!("{}/a", path("v2"))).await, StatusCode::OK);
    assert_eq!(second["spec"], json!({"color": "red"}));
    expect(get(&client, "/apis/example.com/v1").await, StatusCode::NOT_FOUND);
    // The stored version is needed, also where nobody is served it.
    expect(delete(&client, &format!("{CRDS}/widgets.example.com")).await, StatusCode::OK);
    gone(&client, &format!("{CRDS}/widgets.example.com")).await;
}

#[tokio::test]
async fn watches_go_on_unless_the_specification_changes() {
    let (_api, client) = start().await;
    define(&client, &widgets(&json!({}))).await;
    let mut watch = Watch::open(&client, &format!("{}?watch=1", path("v1"))).await;
    expect(post(&client, &path("v1"), &widget("a", &json!({}))).await, StatusCode::CREATED);
    let event = watch.next().await;
    Watch::same(&event, "ADDED", "a");
    assert_eq!(event["object"]["spec"], Value::Null);
    let one = format!("{CRDS}/widgets.example.com");
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    expect(patch(&client, &one, "merge-patch+json", &label).await, StatusCode::OK);
    expect(post(&client, &path("v1"), &widget("b", &json!({"spec": {}}))).await, StatusCode::CREATED);
    let event = watch.next().await;
    Watch::same(&event, "ADDED", "b");
    assert_eq!(event["object"]["spec"], json!({"size": 1}));
    let mut crd = expect(get(&client, &one).await, StatusCode::OK);
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["late"] =
        json!({"type": "string", "default": "here"});
    expect(put(&client, &one, &crd).await, StatusCode::OK);
    watch.end().await;
    let version = event["object"]["metadata"]["resourceVersion"].as_str().unwrap();
    let mut again = Watch::open(&client, &format!("{}?watch=1&resourceVersion={version}", path("v1"))).await;
    expect(post(&client, &path("v1"), &widget("c", &json!({"spec": {}}))).await, StatusCode::CREATED);
    let event = again.next().await;
    Watch::same(&event, "ADDED", "c");
    // What was stored before has the new default when it is read.
    let stored = expect(get(&client, &format!("{}/b", path("v1"))).await, StatusCode::OK);
    assert_eq!(stored["spec"]["late"], "here");
}

#[tokio::test]
async fn an_update_keeps_what_was_wrong_before() {
    let (_api, client) = start().await;
    define(&client, &widgets(&json!({}))).await;
    let one = format!("{}/a", path("v1"));
    let made = widget("a", &json!({"spec": {"size": 9, "color": "red"}}));
    expect(post(&client, &path("v1"), &made).await, StatusCode::CREATED);
    let crd = format!("{CRDS}/widgets.example.com");
    let tight = json!([{"op": "replace", "value": 5,
        "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/size/maximum"}]);
    expect(patch(&client, &crd, "json-patch+json", &tight).await, StatusCode::OK);
    let dry = path("v1") + "?dryRun=All";
    let large = widget("b", &json!({"spec": {"size": 9}}));
    time::eventually_true("the new schema", async || post(&client, &dry, &large).await.0 == 422).await.unwrap();
    let kept = patch(&client, &one, "merge-patch+json", &json!({"spec": {"color": "blue"}})).await;
    assert_eq!(expect(kept, StatusCode::OK)["spec"]["size"], 9);
    let changed = patch(&client, &one, "merge-patch+json", &json!({"spec": {"size": 8}})).await;
    expect(changed, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn names_are_given_once() {
    let (_api, client) = start().await;
    define(&client, &widgets(&json!({}))).await;
    let names = json!({"plural": "gadgets", "singular": "gadget", "kind": "Widget", "listKind": "GadgetList",
        "shortNames": ["gd"], "categories": null});
    let other = widgets(&json!({"metadata": {"name": "gadgets.example.com"}, "spec": {"names": names}}));
    expect(post(&client, CRDS, &other).await, StatusCode::CREATED);
    let path = format!("{CRDS}/gadgets.example.com");
    let crd = wait_for(&client, &path, |crd| condition(crd, "NamesAccepted")["status"] == "False").await;
    assert_eq!(
        (&condition(&crd, "NamesAccepted")["reason"], &condition(&crd, "Established")["status"]),
        (&json!("KindConflict"), &json!("False"))
    );
    expect(get(&client, "/apis/example.com/v1/gadgets").await, StatusCode::NOT_FOUND);
    expect(delete(&client, &format!("{CRDS}/widgets.example.com")).await, StatusCode::OK);
    established(&client, "gadgets.example.com").await;
    expect(get(&client, "/apis/example.com/v1/gadgets").await, StatusCode::OK);
}

#[tokio::test]
async fn a_definition_goes_after_its_objects() {
    let (_api, client) = start().await;
    define(&client, &widgets(&json!({}))).await;
    let held = widget("held", &json!({"metadata": {"finalizers": ["example.com/wait"]}}));
    expect(post(&client, &path("v1"), &held).await, StatusCode::CREATED);
    expect(post(&client, &path("v1"), &widget("free", &json!({}))).await, StatusCode::CREATED);
    let crd = format!("{CRDS}/widgets.example.com");
    let going = expect(delete(&client, &crd).await, StatusCode::OK);
    assert_eq!(going["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    assert_eq!(condition(&going, "Terminating")["reason"], "InstanceDeletionPending");
    gone(&client, &format!("{}/free", path("v1"))).await;
    let waits = wait_for(&client, &crd, |crd| condition(crd, "Terminating")["status"] == "True").await;
    assert_eq!(condition(&waits, "Terminating")["reason"], "InstanceDeletionInProgress");
    let refused = expect(post(&client, &path("v1"), &widget("new", &json!({}))).await, StatusCode::FORBIDDEN);
    assert_eq!(
        refused["message"],
        "widgets.example.com \"new\" is forbidden: create not allowed while custom resource definition is terminating"
    );
    let list = expect(get(&client, "/apis/example.com/v1").await, StatusCode::OK);
    assert_eq!(list["resources"][0]["verbs"], json!(["delete", "deletecollection", "get", "list", "watch"]));
    let free = json!({"metadata": {"finalizers": null}});
    let one = format!("{}/held", path("v1"));
    expect(patch(&client, &one, "merge-patch+json", &free).await, StatusCode::OK);
    gone(&client, &crd).await;
    gone(&client, &path("v1")).await;
    expect(get(&client, "/apis/example.com").await, StatusCode::NOT_FOUND);
    define(&client, &widgets(&json!({}))).await;
    let empty = expect(get(&client, &path("v1")).await, StatusCode::OK);
    assert_eq!(empty["items"], json!([]));
}

#[tokio::test]
async fn wrong_schemas_are_refused() {
    let (_api, client) = start().await;
    let with = |schema: Value| {
        let mut crd = widgets(&json!({}));
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = schema;
        crd
    };
    for (schema, code, text) in [
        (json!({"properties": {}}), 422, "type: Required value: must not be empty at the root"),
        (json!({"type": "object", "properties": {"a": {}}}), 422, "properties[a].type: Required value"),
        (json!({"type": "object", "additionalProperties": "x"}), 422, "additionalProperties must not be a string"),
        (
            json!({"type": "object", "properties": {"a": {"type": "array", "items": 3}}}),
            422,
            "items must not be an integer",
        ),
        (json!({"type": "object", "properties": 3}), 400, "cannot unmarshal number"),
    ] {
        let refused = post(&client, CRDS, &with(schema.clone())).await;
        assert_eq!(refused.0, code, "{schema} {}", refused.1);
        assert!(refused.1["message"].as_str().unwrap().contains(text), "{schema} {}", refused.1);
    }
    let version = widgets(&json!({}))["spec"]["versions"][0].clone();
    let many: Vec<Value> =
        (0..101).map(|n| merge::apply(&version, &json!({"name": format!("v{}", n + 1), "storage": n == 0}))).collect();
    let refused = post(&client, CRDS, &widgets(&json!({"spec": {"versions": many}}))).await;
    let refused = expect(refused, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused["message"].as_str().unwrap().contains("spec.versions: Too many: 101"), "{refused}");
}

/// A server that comes up serves what is defined before it says anything, and goes on with what was going.
#[tokio::test]
async fn a_restart_finds_all_definitions_served() {
    let ca = Ca::default();
    let store = Arc::new(MemoryStore::default());
    let begin = async || {
        let api = ApiServer::new(Config { store: store.clone(), ..config(&ca) }).await.unwrap();
        let client = api.client(admin());
        (api, client)
    };
    let (api, client) = begin().await;
    define(&client, &widgets(&json!({}))).await;
    let held = widget("held", &json!({"metadata": {"finalizers": ["example.com/wait"]}}));
    expect(post(&client, &path("v1"), &held).await, StatusCode::CREATED);
    drop((api, client));

    let (api, client) = begin().await;
    let kept = expect(get(&client, &format!("{}/held", path("v1"))).await, StatusCode::OK);
    assert_eq!(kept["metadata"]["finalizers"], held["metadata"]["finalizers"]);
    expect(delete(&client, &format!("{CRDS}/widgets.example.com")).await, StatusCode::OK);
    drop((api, client));

    let (_api, client) = begin().await;
    let refused = post(&client, &path("v1"), &widget("new", &json!({}))).await;
    expect(refused, StatusCode::FORBIDDEN);
    let free = json!({"metadata": {"finalizers": null}});
    expect(patch(&client, &format!("{}/held", path("v1")), "merge-patch+json", &free).await, StatusCode::OK);
    gone(&client, &format!("{CRDS}/widgets.example.com")).await;
}

/// What is said twice in YAML is told by its lines, as upstream's decoder does.
#[tokio::test]
async fn what_yaml_says_twice_is_told() {
    let (_api, client) = start().await;
    define(&client, &widgets(&json!({}))).await;
    let text = "\napiVersion: example.com/v1\nkind: Widget\nmetadata:\n  name: a\nspec:\n  color: red\n  color: blue\n";
    let strict = "fieldManager=one&fieldValidation=Strict";
    let apply =
        send(&client, "PATCH", &format!("{}/a?{strict}", path("v1")), "application/apply-patch+yaml", text).await;
    assert_eq!(
        expect(apply, StatusCode::BAD_REQUEST)["message"],
        "error strict decoding patch: error converting YAML to JSON: yaml: unmarshal errors:\n  line 8: key \"color\" \
         already set in map"
    );
    let create = send(&client, "POST", &format!("{}?{strict}", path("v1")), "application/yaml", text).await;
    let create = expect(create, StatusCode::BAD_REQUEST);
    assert!(create["message"].as_str().unwrap().contains("line 8: key \"color\" already set in map"), "{create}");
    let json = "{\"spec\": {\"color\": \"a\", \"color\": \"b\", \"x\": 1}, \"metadata\": {\"name\": \"a\"}}";
    let twice = send(&client, "POST", &format!("{}?{strict}", path("v1")), "application/json", json).await;
    let twice = expect(twice, StatusCode::BAD_REQUEST);
    let said = "strict decoding error: duplicate field \"spec.color\", unknown field \"spec.x\"";
    assert!(twice["message"].as_str().unwrap().ends_with(said), "{twice}");
}

/// A body of another version or kind is told what it is not.
#[tokio::test]
async fn bodies_are_of_the_kind_of_their_path() {
    let (_api, client) = start().await;
    define(&client, &widgets(&json!({}))).await;
    let version = json!({"apiVersion": "example.com/v2", "kind": "Widget", "metadata": {"name": "a"}});
    let refused = expect(post(&client, &path("v1"), &version).await, StatusCode::BAD_REQUEST);
    assert_eq!(
        refused["message"],
        "the API version in the data (example.com/v2) does not match the expected API version (example.com/v1)"
    );
    let kind = json!({"apiVersion": "example.com/v1", "kind": "Other", "metadata": {"name": "a"}});
    let refused = expect(post(&client, &path("v1"), &kind).await, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        refused["message"],
        "Widget.example.com \"a\" is invalid: kind: Invalid value: \"Other\": must be Widget"
    );
}

/// "getting/updating/patching custom resource definition status sub-resource works" of upstream's
/// test/e2e/apimachinery/custom_resource_definition.go.
#[tokio::test]
async fn the_status_of_a_definition_is_anybodys_to_write() {
    let (_api, client) = start().await;
    define(&client, &widgets(&json!({}))).await;
    let status = format!("{CRDS}/widgets.example.com/status");
    let said = |crd: &Value, message: &str| {
        let conditions = crd["status"]["conditions"].as_array().unwrap();
        conditions.iter().any(|condition| condition["message"] == message)
    };
    let mut crd = expect(get(&client, &status).await, StatusCode::OK);
    let own = json!({"type": "", "status": "", "lastTransitionTime": null, "message": "updated"});
    crd["status"]["conditions"].as_array_mut().unwrap().push(own);
    let updated = expect(put(&client, &status, &crd).await, StatusCode::OK);
    assert!(said(&updated, "updated"), "{updated}");
    let operations = json!([{"op": "add", "path": "/status/conditions", "value": [{"message": "patched"}]}]);
    let patched = expect(patch(&client, &status, "json-patch+json", &operations).await, StatusCode::OK);
    assert!(said(&patched, "patched"), "{patched}");
    expect(delete(&client, &format!("{CRDS}/widgets.example.com")).await, StatusCode::OK);
    gone(&client, &format!("{CRDS}/widgets.example.com")).await;
}

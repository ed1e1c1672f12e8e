//! Custom resources are collected, and go with their namespace, as objects of any kind.

#![allow(clippy::unwrap_used)]

use apiserver::testing::{get, post};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::cluster::{Cluster, config};

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

fn path(namespace: &str) -> String {
    format!("/apis/example.com/v1/namespaces/{namespace}/widgets")
}

async fn define(c: &Cluster) {
    let crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
                {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
    assert_eq!(post(&c.client, CRDS, &crd).await.0, 201);
    c.wait_for("widgets", || async { get(&c.client, &path("default")).await.0 == 200 }).await;
}

/// Makes a widget, which perhaps has an owner, and returns its uid.
async fn widget(c: &Cluster, namespace: &str, name: &str, owner: Option<&ConfigMap>) -> String {
    let owners: Vec<Value> = owner
        .iter()
        .map(|o| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": o.name_any(), "uid": o.uid()}))
        .collect();
    let body = json!({"apiVersion": "example.com/v1", "kind": "Widget",
        "metadata": {"name": name, "ownerReferences": owners}});
    let (code, made) = post(&c.client, &path(namespace), &body).await;
    assert_eq!(code, 201, "{made}");
    made["metadata"]["uid"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_collector_follows_kinds_that_come() {
    let c = Cluster::start(config()).await;
    define(&c).await;
    let uid = widget(&c, "default", "owner", None).await;
    // Whoever is owned by a kind that nobody knew leads the collector to it.
    let owners = json!([{"apiVersion": "example.com/v1", "kind": "Widget", "name": "owner", "uid": uid}]);
    c.create::<ConfigMap>(json!({"metadata": {"name": "owned", "ownerReferences": owners}})).await;
    let gone = json!([{"apiVersion": "example.com/v1", "kind": "Widget", "name": "gone", "uid": "gone"}]);
    c.create::<ConfigMap>(json!({"metadata": {"name": "orphan", "ownerReferences": gone}})).await;
    c.wait_for("the orphan's end", || async { !c.exists::<ConfigMap>("orphan").await }).await;
    let (code, _) = apiserver::testing::delete(&c.client, &format!("{}/owner", path("default"))).await;
    assert_eq!(code, 200);
    c.wait_for("its end", || async { !c.exists::<ConfigMap>("owned").await }).await;
    let owner = c.create::<ConfigMap>(json!({"metadata": {"name": "owner"}})).await;
    widget(&c, "default", "owned", Some(&owner)).await;
    c.api::<ConfigMap>().delete("owner", &DeleteParams::background()).await.unwrap();
    c.wait_for("the widget's end", || async { get(&c.client, &format!("{}/owned", path("default"))).await.0 == 404 })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_goes_with_its_custom_resources() {
    let c = Cluster::start(config()).await;
    define(&c).await;
    let namespaces: Api<Namespace> = Api::all(c.client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": "brief"}})).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    widget(&c, "brief", "inside", None).await;
    namespaces.delete("brief", &DeleteParams::default()).await.unwrap();
    c.wait_for("its end", || async { namespaces.get_opt("brief").await.unwrap().is_none() }).await;
    let (code, left) = get(&c.client, "/apis/example.com/v1/widgets").await;
    assert_eq!((code, &left["items"]), (200, &json!([])));
}

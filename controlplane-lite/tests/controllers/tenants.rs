//! What somebody may write in one namespace changes nothing in another one, whatever uid it names.
//!
//! The garbage collector stays out: it deletes objects with such owners sooner or later, and the controllers must not
//! depend on who is first.

#![allow(clippy::unwrap_used)]

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{Api, PostParams};
use serde_json::{Value, from_value, json};

use crate::cluster::{Cluster, config, deployment};
use controlplane_lite::controllers::ControllersConfig;

const OTHER: &str = "other";

/// A cluster with a second namespace in which pods can be made.
async fn two_namespaces() -> Cluster {
    let controllers = vec!["*".to_owned(), "-garbage-collector-controller".to_owned()];
    let c = Cluster::start(ControllersConfig { controllers, ..config() }).await;
    c.kubelets();
    c.node("n1").await;
    let namespaces: Api<Namespace> = Api::all(c.client.clone());
    let made: Namespace = from_value(json!({"metadata": {"name": OTHER}})).unwrap();
    namespaces.create(&PostParams::default(), &made).await.unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(c.client.clone(), OTHER);
    c.wait_for("default account", || async { accounts.get_opt("default").await.unwrap().is_some() }).await;
    c
}

fn controlled_by(kind: &str, name: &str, uid: &str) -> Value {
    json!([{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": true}])
}

async fn foreign_pod(c: &Cluster, name: &str, owner_uid: &str) -> Pod {
    let api: Api<Pod> = Api::namespaced(c.client.clone(), OTHER);
    let pod = json!({
        "metadata": {
            "name": name, "labels": {"app": "a"}, "ownerReferences": controlled_by("ReplicaSet", "rs", owner_uid),
            "annotations": {"controller.kubernetes.io/pod-deletion-cost": "2147483647"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    api.create(&PostParams::default(), &from_value(pod).unwrap()).await.unwrap()
}

/// Slices are made from the same cache of pods: what shows in one is what a ReplicaSet would count.
async fn cached(c: &Cluster, pods: &[Pod]) {
    let services: Api<Service> = Api::namespaced(c.client.clone(), OTHER);
    let service = json!({"metadata": {"name": "a"}, "spec": {"selector": {"app": "a"}, "ports": [{"port": 80}]}});
    services.create(&PostParams::default(), &from_value(service).unwrap()).await.unwrap();
    let slices: Api<EndpointSlice> = Api::namespaced(c.client.clone(), OTHER);
    c.wait_for("the foreign pods' endpoints", || async {
        let slices = slices.list(&Default::default()).await.unwrap().items;
        let targets: Vec<_> =
            slices.iter().flat_map(|s| s.endpoints.iter().flatten()).filter_map(|e| e.target_ref.clone()).collect();
        pods.iter().all(|pod| targets.iter().any(|target| target.uid == pod.uid()))
    })
    .await;
}

async fn ready(c: &Cluster, replicas: i32) -> bool {
    let rs: ReplicaSet = c.api().get("rs").await.unwrap();
    let status = rs.status.unwrap_or_default();
    status.observed_generation == rs.metadata.generation
        && (status.replicas, status.ready_replicas) == (replicas, Some(replicas))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_elsewhere_are_not_a_replica_sets() {
    let c = two_namespaces().await;
    let template = json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let set = json!({"metadata": {"name": "rs"}, "spec": {
        "replicas": 2, "selector": {"matchLabels": {"app": "a"}}, "template": template}});
    let rs: ReplicaSet = c.create(set).await;
    c.wait_for("two ready", || ready(&c, 2)).await;
    let own: Vec<_> = c.list::<Pod>().await.iter().map(ResourceExt::uid).collect();

    let uid = rs.uid().unwrap();
    let mut foreign = Vec::new();
    for (name, uid) in [("f1", uid.as_str()), ("f2", &uid), ("f3", &uid), ("f4", "orphans/default")] {
        foreign.push(foreign_pod(&c, name, uid).await);
    }
    cached(&c, &foreign).await;
    c.patch::<ReplicaSet>("rs", json!({"spec": {"replicas": 3}})).await;
    c.wait_for("three ready", || ready(&c, 3)).await;

    let after: Vec<_> = c.list::<Pod>().await.iter().map(ResourceExt::uid).collect();
    assert!(after.len() == 3 && own.iter().all(|uid| after.contains(uid)), "{own:?} {after:?}");
    // Nothing was done to the others either.
    let api: Api<Pod> = Api::namespaced(c.client.clone(), OTHER);
    for pod in foreign {
        let now = api.get(&pod.name_any()).await.unwrap();
        assert_eq!(now.owner_references(), pod.owner_references());
        assert!(now.metadata.deletion_timestamp.is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sets_elsewhere_are_not_a_deployments() {
    let c = two_namespaces().await;
    let d: Deployment = c.create(deployment("web", 2, "v1")).await;
    let status = || async { c.api::<Deployment>().get("web").await.unwrap().status.unwrap_or_default() };
    c.wait_for("two available", || async { status().await.available_replicas == Some(2) }).await;

    let sets: Api<ReplicaSet> = Api::namespaced(c.client.clone(), OTHER);
    let foreign = json!({
        "metadata": {"name": "web", "labels": {"app": "web"},
            "ownerReferences": controlled_by("Deployment", "web", &d.uid().unwrap())},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "old"}]}}}});
    sets.create(&PostParams::default(), &from_value(foreign).unwrap()).await.unwrap();
    // Its pods are made out of the cache of sets that Deployments are seen by.
    let foreign = || async { sets.get("web").await.unwrap() };
    c.wait_for("the foreign set is cached", || async {
        foreign().await.status.and_then(|s| s.ready_replicas) == Some(3)
    })
    .await;
    c.patch::<Deployment>("web", json!({"spec": {"replicas": 4}})).await;
    c.wait_for("four available", || async {
        let status = status().await;
        (status.replicas, status.available_replicas) == (Some(4), Some(4))
    })
    .await;
    let foreign = foreign().await;
    assert_eq!(foreign.spec.unwrap().replicas, Some(3), "nobody scales it");
    assert!(!foreign.metadata.annotations.unwrap_or_default().contains_key("deployment.kubernetes.io/revision"));
}

//! Garbage collection by the three propagation policies.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use controlplane_lite::controllers;
use http::Request;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::DeleteParams;
use kube::client::Body;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, config, deployment};

fn owned(name: &str, owners: &[&ConfigMap], blocks: bool) -> Value {
    let owner = |o: &&ConfigMap| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": o.name_any(), "uid": o.uid(), "blockOwnerDeletion": blocks});
    json!({"metadata": {"name": name, "ownerReferences": owners.iter().map(owner).collect::<Vec<_>>()}})
}

async fn running(c: &Cluster) {
    c.kubelets();
    c.node("n1").await;
    c.create::<Deployment>(deployment("web", 3, "v1")).await;
    c.wait_for("three pods", || async {
        let pods = c.list::<Pod>().await;
        pods.len() == 3 && pods.iter().all(|p| p.status.as_ref().unwrap().pod_ip.is_some())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_background_everything_below_goes() {
    let c = Cluster::start(config()).await;
    running(&c).await;
    c.create::<Service>(
        json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}),
    )
    .await;
    let ours = |s: &EndpointSlice| s.labels().get("kubernetes.io/service-name").map(String::as_str) == Some("web");
    c.wait_for("slice", || async { c.list::<EndpointSlice>().await.iter().any(ours) }).await;
    c.api::<Deployment>().delete("web", &DeleteParams::background()).await.unwrap();
    c.api::<Service>().delete("web", &DeleteParams::background()).await.unwrap();
    c.wait_for("nothing left", || async {
        c.list::<ReplicaSet>().await.is_empty()
            && c.list::<Pod>().await.is_empty()
            && !c.list::<EndpointSlice>().await.iter().any(ours)
            && !c.exists::<k8s_openapi::api::core::v1::Endpoints>("web").await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_foreground_the_owner_goes_last() {
    let c = Cluster::start(config()).await;
    running(&c).await;
    // A pod that takes its time keeps all its owners.
    let pod = c.list::<Pod>().await[0].name_any();
    c.patch::<Pod>(&pod, json!({"metadata": {"finalizers": ["example.com/hold"]}})).await;
    c.api::<Deployment>().delete("web", &DeleteParams::foreground()).await.unwrap();
    c.wait_for("one pod left", || async { c.list::<Pod>().await.len() == 1 }).await;
    assert!(c.exists::<Deployment>("web").await && c.list::<ReplicaSet>().await.len() == 1);
    c.patch::<Pod>(&pod, json!({"metadata": {"finalizers": null}})).await;
    c.wait_for("nothing left", || async {
        !c.exists::<Deployment>("web").await
            && c.list::<ReplicaSet>().await.is_empty()
            && c.list::<Pod>().await.is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphans_stay_and_are_adopted_again() {
    let c = Cluster::start(config()).await;
    running(&c).await;
    let before: Vec<_> = c.list::<Pod>().await.iter().map(ResourceExt::uid).collect();
    c.api::<Deployment>().delete("web", &DeleteParams::orphan()).await.unwrap();
    c.wait_for("deployment gone", || async { !c.exists::<Deployment>("web").await }).await;
    let sets = c.list::<ReplicaSet>().await;
    assert!(sets.len() == 1 && sets[0].owner_references().is_empty());
    c.create::<Deployment>(deployment("web", 3, "v1")).await;
    c.wait_for("adopted", || async {
        let sets = c.list::<ReplicaSet>().await;
        sets.len() == 1 && sets[0].owner_references().len() == 1
    })
    .await;
    let after: Vec<_> = c.list::<Pod>().await.iter().map(ResourceExt::uid).collect();
    assert_eq!(after, before, "no pod was restarted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_living_owner_is_enough_and_none_is_too_few() {
    let c = Cluster::start(config()).await;
    let a: ConfigMap = c.create(json!({"metadata": {"name": "a"}})).await;
    let b: ConfigMap = c.create(json!({"metadata": {"name": "b"}})).await;
    c.create::<ConfigMap>(owned("both", &[&a, &b], false)).await;
    let mut ghost = a.clone();
    ghost.metadata.uid = Some("00000000-0000-0000-0000-000000000000".into());
    c.create::<ConfigMap>(owned("of-ghost", &[&ghost], false)).await;
    c.wait_for("a wrong uid owns nothing", || async { !c.exists::<ConfigMap>("of-ghost").await }).await;
    c.api::<ConfigMap>().delete("a", &DeleteParams::default()).await.unwrap();
    c.wait_for("the dead owner is dropped", || async {
        c.api::<ConfigMap>().get("both").await.unwrap().owner_references().len() == 1
    })
    .await;
    c.api::<ConfigMap>().delete("b", &DeleteParams::default()).await.unwrap();
    c.wait_for("gone", || async { !c.exists::<ConfigMap>("both").await }).await;
}

/// How often each path was asked for.
type Seen = Arc<Mutex<BTreeMap<String, usize>>>;

fn counting(inner: Client, seen: Seen) -> Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        *seen.lock().unwrap().entry(request.uri().path().to_owned()).or_default() += 1;
        let inner = inner.clone();
        async move { inner.send(request).await }
    });
    Client::new(service, "default")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_of_unknown_kinds_do_not_make_it_ask_for_all_kinds_each_time() {
    let c = Cluster::start(config()).await;
    c.stop_controllers().await;
    let names: Vec<String> = (0..40).map(|n| format!("of-a-widget-{n}")).collect();
    for name in &names {
        let owner = json!([{"apiVersion": "example.com/v1", "kind": format!("Kind{name}"), "name": "w", "uid": name}]);
        c.create::<ConfigMap>(json!({"metadata": {"name": name, "ownerReferences": owner}})).await;
    }
    let (seen, token) = (Seen::default(), CancellationToken::new());
    let counted = seen.clone();
    let manager = c.manager.map(move |client| counting(client, counted.clone()));
    let config = config();
    let status = config.status.clone();
    let running = tokio::spawn(controllers::run(manager, config, token.clone()));
    let times = |path: &str| seen.lock().unwrap().get(path).copied().unwrap_or(0);
    let metric = |name: &str| -> usize {
        let mut text = String::new();
        status.write_metrics(&mut text);
        let value = text.lines().find_map(|l| l.strip_prefix(&format!("{name}{{name=\"garbage-collector\"}} ")));
        value.map_or(0, |value| value.parse().unwrap())
    };
    c.wait_for("every object was looked at", || async {
        let done = metric("workqueue_work_duration_seconds_count");
        done >= names.len() && done == metric("workqueue_adds_total")
    })
    .await;
    assert_eq!(times("/apis"), 1, "the discovery at the start stands for a while");
    for name in &names {
        assert_eq!(times(&format!("/api/v1/namespaces/default/configmaps/{name}")), 0, "what it is changes nothing");
        assert!(c.exists::<ConfigMap>(name).await, "the kind may be served one day");
    }
    token.cancel();
    running.await.unwrap();
}

/// More of them than there are workers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_owners_that_read_like_queries_hold_nobody_up() {
    let c = Cluster::start(config()).await;
    for n in 0..20 {
        let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "?watch=true&timeoutSeconds=31622400", "uid": format!("u{n}")});
        c.create::<ConfigMap>(json!({"metadata": {"name": format!("c{n}"), "ownerReferences": [owner]}})).await;
    }
    let gone = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "nobody", "uid": "u"});
    c.create::<ConfigMap>(json!({"metadata": {"name": "orphan", "ownerReferences": [gone]}})).await;
    c.wait_for("all are collected", || async {
        let left = c.list::<ConfigMap>().await;
        !left.iter().any(|map| map.metadata.owner_references.is_some())
    })
    .await;
}

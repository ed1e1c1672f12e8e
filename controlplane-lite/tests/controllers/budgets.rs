//! Disruption budgets: what the controller writes is what evictions ask.

#![allow(clippy::unwrap_used)]

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, EvictParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::cluster::{Cluster, config, deployment};

fn budget(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": spec})
}

async fn status(c: &Cluster, name: &str) -> PodDisruptionBudgetStatus {
    c.api::<PodDisruptionBudget>().get(name).await.unwrap().status.unwrap_or_default()
}

async fn allows(c: &Cluster, name: &str, allowed: i32, healthy: i32) {
    c.wait_for(&format!("{name} allows {allowed} of {healthy}"), || async {
        let status = status(c, name).await;
        status.disruptions_allowed == Some(allowed) && status.current_healthy == Some(healthy)
    })
    .await;
}

/// Pods of a Deployment that are ready.
async fn pods(c: &Cluster, replicas: i32) -> Vec<String> {
    c.create::<Deployment>(deployment("web", replicas, "v1")).await;
    let ready = usize::try_from(replicas).unwrap();
    c.wait_for("ready pods", || async {
        let up = c.list::<Pod>().await;
        up.iter().filter(|p| client::objects::ready(p)).count() == ready
    })
    .await;
    c.list::<Pod>().await.iter().map(ResourceExt::name_any).collect()
}

async fn cluster() -> Cluster {
    let c = Cluster::start(config()).await;
    c.kubelets();
    c.node("n1").await;
    c
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evictions_ask_the_budget() {
    let c = cluster().await;
    for name in ["a", "b"] {
        // Held, so that an evicted pod stays and can be looked at; without a controller that makes another.
        let metadata = json!({"name": name, "labels": {"app": "web"}, "annotations": {"test/hold": ""}});
        c.create::<Pod>(json!({"metadata": metadata, "spec": {"containers": [{"name": "c", "image": "i"}]}})).await;
    }
    let web = json!({"matchLabels": {"app": "web"}});
    c.create::<PodDisruptionBudget>(budget("b", json!({"minAvailable": 2, "selector": web}))).await;
    allows(&c, "b", 0, 2).await;
    let api: Api<Pod> = c.api();
    let refused = api.evict("a", &EvictParams::default()).await.unwrap_err();
    let kube::Error::Api(refused) = refused else { panic!("{refused}") };
    let causes = refused.details.unwrap().causes;
    assert_eq!((refused.code, causes[0].reason.as_str()), (429, "DisruptionBudget"));

    c.patch::<PodDisruptionBudget>("b", json!({"spec": {"minAvailable": 1}})).await;
    allows(&c, "b", 1, 2).await;
    // Another pod is meant: that takes nothing.
    let other = json!({"metadata": {"name": "a", "namespace": "default"},
        "deleteOptions": {"preconditions": {"uid": "00000000-0000-0000-0000-000000000000"}}});
    let request =
        http::Request::post("/api/v1/namespaces/default/pods/a/eviction").header("content-type", "application/json");
    let request = request.body(serde_json::to_vec(&other).unwrap()).unwrap();
    let conflict = c.client.request::<Value>(request).await.unwrap_err();
    assert!(matches!(&conflict, kube::Error::Api(status) if status.code == 409), "{conflict}");
    assert_eq!(status(&c, "b").await.disruptions_allowed, Some(1));

    api.evict("a", &EvictParams::default()).await.unwrap();
    let again = api.evict("b", &EvictParams::default()).await.unwrap_err();
    assert!(matches!(&again, kube::Error::Api(status) if status.code == 429), "{again}");
    let evicted = api.get("a").await.unwrap();
    assert!(evicted.metadata.deletion_timestamp.is_some());
    let mark = client::objects::pod_condition(&evicted, "DisruptionTarget").unwrap();
    assert_eq!((mark.status.as_str(), mark.reason.as_deref()), ("True", Some("EvictionByEvictionAPI")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_eviction_that_died_gives_back_what_it_took() {
    let c = cluster().await;
    let names = pods(&c, 2).await;
    let web = json!({"matchLabels": {"app": "web"}});
    c.create::<PodDisruptionBudget>(budget("b", json!({"minAvailable": 1, "selector": web}))).await;
    allows(&c, "b", 1, 2).await;
    // What the eviction wrote before it died: the budget first, the pod's mark second, the deletion never.
    let ago = |seconds| (Timestamp::now() - SignedDuration::from_secs(seconds)).to_string();
    let taken = json!({"status": {"disruptionsAllowed": 0, "disruptedPods": {names[0].clone(): ago(118)}}});
    let budgets: Api<PodDisruptionBudget> = c.api();
    budgets.patch_status("b", &PatchParams::default(), &Patch::Merge(&taken)).await.unwrap();
    let mark = json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastTransitionTime": ago(118)});
    let marked = json!({"status": {"conditions": [mark]}});
    let api: Api<Pod> = c.api();
    api.patch_status(&names[0], &PatchParams::default(), &Patch::Strategic(&marked)).await.unwrap();
    allows(&c, "b", 1, 2).await;
    assert_eq!(status(&c, "b").await.disrupted_pods.unwrap_or_default().len(), 0);
    c.wait_for("NotDeleted", || async { !c.events("NotDeleted").await.is_empty() }).await;
    c.wait_for("the mark is taken back", || async {
        let pod = api.get(&names[0]).await.unwrap();
        client::objects::pod_condition(&pod, "DisruptionTarget").is_some_and(|m| m.status == "False")
    })
    .await;
    api.evict(&names[1], &EvictParams::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn budgets_say_what_they_cannot_protect() {
    let c = cluster().await;
    pods(&c, 2).await;
    // An empty selector selects every pod.
    c.create::<PodDisruptionBudget>(budget("all", json!({"minAvailable": 1, "selector": {}}))).await;
    allows(&c, "all", 1, 2).await;
    c.create::<PodDisruptionBudget>(budget(
        "none",
        json!({"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}),
    ))
    .await;
    c.wait_for("NoPods", || async { !c.events("NoPods").await.is_empty() }).await;
    c.create::<PodDisruptionBudget>(budget(
        "share",
        json!({"maxUnavailable": 1, "selector": {"matchLabels": {"by": "hand"}}}),
    ))
    .await;
    let pod = json!({"metadata": {"name": "bare", "labels": {"by": "hand"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    c.create::<Pod>(pod).await;
    c.wait_for("UnmanagedPods", || async { !c.events("UnmanagedPods").await.is_empty() }).await;
    c.wait_for("two budgets for one pod", || async { !c.events("MultiplePodDisruptionBudgets").await.is_empty() })
        .await;
}

/// What upstream's conformance tests do with them (test/e2e/apps/disruption.go).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn budgets_are_processed_whether_or_not_there_are_pods() {
    let c = cluster().await;
    let labelled = |name: &str, min: Value| {
        json!({"metadata": {"name": name, "labels": {"by": "test"}},
            "spec": {"minAvailable": min, "selector": {"matchLabels": {"foo": "bar"}}}})
    };
    let processed = async |name: &str| {
        c.wait_for("the budget is processed", || async {
            let budget = c.api::<PodDisruptionBudget>().get(name).await.unwrap();
            budget.status.and_then(|status| status.observed_generation) == budget.metadata.generation
        })
        .await;
    };
    for (name, min) in [("foo", json!(1)), ("foo2", json!("1%"))] {
        c.create::<PodDisruptionBudget>(labelled(name, min)).await;
        processed(name).await;
    }
    c.patch::<PodDisruptionBudget>("foo2", json!({"spec": {"minAvailable": "3%"}})).await;
    processed("foo2").await;
    let pod = json!({"metadata": {"name": "p", "labels": {"foo": "bar"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    c.create::<Pod>(pod).await;
    allows(&c, "foo", 0, 1).await;
    // Both who writes it and the controller keep a pod that is there in the status.
    let budgets: Api<PodDisruptionBudget> = c.api();
    let disrupted = json!({"status": {"disruptedPods": {"p": Timestamp::now().to_string()}}});
    budgets.patch_status("foo", &PatchParams::default(), &Patch::Merge(&disrupted)).await.unwrap();
    allows(&c, "foo", 0, 0).await;
    assert!(status(&c, "foo").await.disrupted_pods.unwrap().contains_key("p"));
    let none = json!({"status": {"disruptedPods": {"p": null}}});
    let patched = budgets.patch_status("foo", &PatchParams::default(), &Patch::Merge(&none)).await.unwrap();
    assert_eq!(patched.status.unwrap().disrupted_pods.unwrap_or_default().len(), 0);
    let by_test = ListParams::default().labels("by=test");
    let everywhere: Api<PodDisruptionBudget> = Api::all(c.client.clone());
    assert_eq!(everywhere.list(&by_test).await.unwrap().items.len(), 2);
    budgets.delete_collection(&DeleteParams::default(), &by_test).await.unwrap();
    c.wait_for("no budgets", || async { budgets.list(&ListParams::default()).await.unwrap().items.is_empty() }).await;
}

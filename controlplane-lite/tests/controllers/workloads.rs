//! Deployments, ReplicaSets, Services: from the object to bound pods and endpoints.

#![allow(clippy::unwrap_used)]

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::{from_value, json};

use crate::cluster::{Cluster, config, deployment};

async fn rolled_out(c: &Cluster, name: &str) -> bool {
    let d: Deployment = c.api().get(name).await.unwrap();
    let (spec, status) = (d.spec.unwrap(), d.status.unwrap_or_default());
    let n = spec.replicas;
    status.observed_generation == d.metadata.generation
        && status.replicas == n
        && status.updated_replicas == n
        && status.available_replicas == n
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_becomes_bound_pods_with_endpoints() {
    let c = Cluster::start(config()).await;
    c.kubelets();
    for n in ["n1", "n2", "n3"] {
        c.node(n).await;
    }
    c.create::<Service>(json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}})).await;
    c.create::<Deployment>(deployment("web", 3, "v1")).await;
    c.wait_for("rollout", || rolled_out(&c, "web")).await;
    let pods = c.list::<Pod>().await;
    let mut nodes: Vec<String> = pods.iter().filter_map(|p| p.spec.as_ref().unwrap().node_name.clone()).collect();
    nodes.sort();
    assert_eq!(nodes, ["n1", "n2", "n3"], "spread");
    c.wait_for("three endpoints", || async {
        let slices = c.list::<EndpointSlice>().await;
        let ready: usize = slices
            .iter()
            .filter(|s| s.labels().get("kubernetes.io/service-name").map(String::as_str) == Some("web"))
            .flat_map(|s| s.endpoints.iter().flatten())
            .filter(|e| e.conditions.as_ref().unwrap().ready == Some(true))
            .count();
        let old = c.api::<Endpoints>().get_opt("web").await.unwrap().and_then(|e| e.subsets).unwrap_or_default();
        ready == 3 && old.iter().flat_map(|s| s.addresses.iter().flatten()).count() == 3
    })
    .await;
    for (reason, want) in [("ScalingReplicaSet", 1), ("SuccessfulCreate", 3), ("Scheduled", 3)] {
        c.wait_for(reason, || async { c.events(reason).await.len() == want }).await;
    }
    c.wait_for("root CA", || c.exists::<ConfigMap>("kube-root-ca.crt")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_roll_scale_and_roll_back() {
    let c = Cluster::start(config()).await;
    c.kubelets();
    c.node("n1").await;
    c.create::<Deployment>(deployment("web", 4, "v1")).await;
    c.wait_for("rollout of v1", || rolled_out(&c, "web")).await;
    let image = |v: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": v}]}}}});
    c.patch::<Deployment>("web", image("v2")).await;
    c.wait_for("rollout of v2", || rolled_out(&c, "web")).await;
    c.wait_for("only v2 pods", || async {
        c.list::<Pod>().await.iter().all(|p| p.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("v2"))
    })
    .await;
    c.patch::<Deployment>("web", json!({"spec": {"replicas": 7}})).await;
    c.wait_for("scaled", || async { rolled_out(&c, "web").await && c.list::<Pod>().await.len() == 7 }).await;
    c.patch::<Deployment>("web", image("v1")).await;
    c.wait_for("rolled back", || rolled_out(&c, "web")).await;
    let sets = c.list::<ReplicaSet>().await;
    assert_eq!(sets.len(), 2, "the old set is used again");
    let d: Deployment = c.api().get("web").await.unwrap();
    assert_eq!(d.annotations()["deployment.kubernetes.io/revision"], "3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_pod_is_replaced_and_a_foreign_one_adopted() {
    let c = Cluster::start(config()).await;
    c.kubelets();
    c.node("n1").await;
    let template = json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let orphan: Pod = c
        .create(json!({"metadata": {"name": "orphan", "labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}))
        .await;
    // Slices are made from the same cache of pods: what the set may count was seen.
    c.create::<Service>(
        json!({"metadata": {"name": "a"}, "spec": {"selector": {"app": "a"}, "ports": [{"port": 80}]}}),
    )
    .await;
    c.wait_for("the orphan's endpoint", || async {
        let slices = c.list::<EndpointSlice>().await;
        let mut targets =
            slices.iter().flat_map(|s| s.endpoints.iter().flatten()).filter_map(|e| e.target_ref.as_ref());
        targets.any(|target| target.uid == orphan.uid())
    })
    .await;
    c.create::<ReplicaSet>(json!({"metadata": {"name": "rs"}, "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "a"}}, "template": template}}))
        .await;
    let ready = || async {
        let rs: ReplicaSet = c.api().get("rs").await.unwrap();
        rs.status.and_then(|s| s.ready_replicas) == Some(3)
    };
    c.wait_for("three ready", ready).await;
    let pods = c.list::<Pod>().await;
    assert_eq!(pods.len(), 3, "the orphan counts");
    assert!(pods.iter().any(|p| p.uid() == orphan.uid() && p.owner_references().len() == 1));
    c.api::<Pod>().delete("orphan", &DeleteParams::default()).await.unwrap();
    c.wait_for("replaced", || async {
        !c.exists::<Pod>("orphan").await && ready().await && c.list::<Pod>().await.len() == 3
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unschedulable_pod_says_why_and_goes_when_a_node_comes() {
    let c = Cluster::start(config()).await;
    c.node("small").await;
    c.create::<Pod>(json!({"metadata": {"name": "big"}, "spec": {
        "nodeSelector": {"size": "big"}, "containers": [{"name": "c", "image": "i"}]}}))
        .await;
    let condition = || async {
        let pod: Pod = c.api().get("big").await.unwrap();
        pod.status.and_then(|s| s.conditions)?.into_iter().find(|c| c.type_ == "PodScheduled")
    };
    let want = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. preemption: 0/1 nodes are \
                available: 1 Preemption is not helpful for scheduling.";
    c.wait_for("condition", || async { condition().await.is_some_and(|c| c.message.as_deref() == Some(want)) }).await;
    let told = condition().await.unwrap();
    assert_eq!((told.status.as_str(), told.reason.as_deref()), ("False", Some("Unschedulable")));
    c.wait_for("event", || async { c.events("FailedScheduling").await.iter().any(|e| e == want) }).await;
    let api: Api<k8s_openapi::api::core::v1::Node> = Api::all(c.client.clone());
    let patch = json!({"metadata": {"labels": {"size": "big"}}});
    api.patch("small", &Default::default(), &kube::api::Patch::Merge(&patch)).await.unwrap();
    c.wait_for("bound", || async {
        c.api::<Pod>().get("big").await.unwrap().spec.unwrap().node_name.as_deref() == Some("small")
    })
    .await;
    assert_eq!(condition().await.unwrap().status, "True");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_namespace_takes_everything_with_it() {
    let c = Cluster::start(config()).await;
    let namespaces: Api<Namespace> = Api::all(c.client.clone());
    let made: Namespace = from_value(json!({"metadata": {"name": "gone"}})).unwrap();
    namespaces.create(&PostParams::default(), &made).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(c.client.clone(), "gone");
    c.wait_for("root CA", || async { maps.get_opt("kube-root-ca.crt").await.unwrap().is_some() }).await;
    let held: ConfigMap = from_value(json!({"metadata": {"name": "held", "finalizers": ["example.com/x"]}})).unwrap();
    maps.create(&PostParams::default(), &held).await.unwrap();
    namespaces.delete("gone", &DeleteParams::default()).await.unwrap();
    c.wait_for("it says what holds it", || async {
        let status = namespaces.get("gone").await.unwrap().status.unwrap_or_default();
        status.conditions.iter().flatten().any(|c| c.type_ == "NamespaceFinalizersRemaining" && c.status == "True")
    })
    .await;
    let patch = json!({"metadata": {"finalizers": null}});
    maps.patch("held", &Default::default(), &kube::api::Patch::Merge(&patch)).await.unwrap();
    c.wait_for("gone", || async { namespaces.get_opt("gone").await.unwrap().is_none() }).await;
    assert!(maps.list(&Default::default()).await.unwrap().items.is_empty());
}

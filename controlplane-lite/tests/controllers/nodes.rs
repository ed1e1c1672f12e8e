//! Nodes: pod networks, silence, taints and eviction.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use harness::time;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams};
use serde_json::json;

use crate::cluster::{Cluster, config, deployment};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_gets_its_own_pod_network() {
    let c = Cluster::start(config()).await;
    let api: Api<Node> = Api::all(c.client.clone());
    for i in 0..5 {
        c.node(&format!("n{i}")).await;
    }
    c.wait_for("networks", || async {
        let nodes = api.list(&Default::default()).await.unwrap().items;
        let cidrs: BTreeSet<String> = nodes.into_iter().filter_map(|n| n.spec.unwrap().pod_cidr).collect();
        cidrs.len() == 5 && cidrs.iter().all(|c| c.starts_with("10.42.") && c.ends_with("/24"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_nodes_pods_are_replaced_elsewhere() {
    let mut config = config();
    // Long enough for who speaks to be heard on any machine.
    config.node_monitor_grace_period = time::attempt() / 2;
    let c = Cluster::start(config).await;
    c.kubelets();
    c.node("dead").await;
    let mut value = deployment("web", 2, "v1");
    value["spec"]["template"]["metadata"]["annotations"] = json!({"test/hold": "1"});
    value["spec"]["template"]["spec"]["tolerations"] = json!([
        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1},
        {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}]);
    c.create::<Deployment>(value).await;
    let speaking = async |node: &str| time::over_and_over(async || c.set_ready(node, "True").await).await;
    let placed = c.wait_for("pods on the node", || async {
        let pods = c.list::<Pod>().await;
        pods.len() == 2 && pods.iter().all(|p| p.status.as_ref().unwrap().pod_ip.is_some())
    });
    tokio::select! { _ = speaking("dead") => {}, () = placed => {} }
    c.node("live").await;
    // From now on only one node speaks.
    let done = c.wait_for("pods on the living node", || async {
        let pods = c.list::<Pod>().await;
        let on = |p: &Pod| p.spec.as_ref().unwrap().node_name.clone().unwrap_or_default();
        let live = pods.iter().filter(|p| on(p) == "live" && p.metadata.deletion_timestamp.is_none()).count();
        let dying = pods.iter().filter(|p| on(p) == "dead" && p.metadata.deletion_timestamp.is_some()).count();
        live == 2 && dying == 2
    });
    tokio::select! { _ = speaking("live") => {}, () = done => {} }
    let node: Node = Api::all(c.client.clone()).get("dead").await.unwrap();
    let ready = node.status.unwrap().conditions.unwrap().into_iter().find(|c| c.type_ == "Ready").unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("Unknown", Some("NodeStatusUnknown")));
    assert!(c.events("TaintManagerEviction").await.len() >= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_gone_dark_evicts_nobody() {
    let mut config = config();
    config.node_monitor_grace_period = time::attempt() / 6;
    let c = Cluster::start(config).await;
    let api: Api<Node> = Api::all(c.client.clone());
    c.node("only").await;
    c.wait_for("unreachable", || async {
        let taints = api.get("only").await.unwrap().spec.unwrap().taints.unwrap_or_default();
        taints.iter().any(|t| t.key == "node.kubernetes.io/unreachable" && t.effect == "NoSchedule")
    })
    .await;
    let taints = api.get("only").await.unwrap().spec.unwrap().taints.unwrap();
    assert!(taints.iter().all(|t| t.effect != "NoExecute"), "{taints:?}");
    c.set_ready("only", "True").await;
    c.wait_for("clean", || async {
        api.get("only").await.unwrap().spec.unwrap().taints.unwrap_or_default().is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_deleted_before_it_was_bound_goes() {
    let c = Cluster::start(config()).await;
    c.create::<Pod>(json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}})).await;
    c.api::<Pod>().delete("p", &DeleteParams::default()).await.unwrap();
    c.wait_for("gone", || async { !c.exists::<Pod>("p").await }).await;
}

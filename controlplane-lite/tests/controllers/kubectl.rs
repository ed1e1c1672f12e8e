//! The controllers as kubectl sees them.

#![allow(clippy::unwrap_used)]

use harness::time;

use crate::cluster::{Cluster, config};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollouts_with_kubectl() {
    let (c, _served, kubectl) = Cluster::serve(config()).await;
    c.kubelets();
    c.node("n1").await;
    let run = async |args: &[&str]| {
        let (ok, told) = kubectl.told(args, "").await.unwrap();
        assert!(ok, "{args:?}: {told}");
        told
    };
    let limit = time::kubectl_timeout();
    run(&["create", "deployment", "web", "--image=demo:v1", "--replicas=3", "--port=8080"]).await;
    run(&["expose", "deployment", "web", "--port=80"]).await;
    let text = run(&["rollout", "status", "deployment/web", &limit]).await;
    assert!(text.contains("successfully rolled out"), "{text}");
    run(&["wait", "--for=condition=Available", "deployment/web", &limit]).await;
    run(&["set", "image", "deployment/web", "demo=demo:v2"]).await;
    run(&["rollout", "status", "deployment/web", &limit]).await;
    let history = run(&["rollout", "history", "deployment/web"]).await;
    assert!(history.contains("\n1 ") && history.contains("\n2 "), "{history}");
    run(&["rollout", "undo", "deployment/web"]).await;
    run(&["rollout", "status", "deployment/web", &limit]).await;
    let image = run(&["get", "deployment", "web", "-o", "jsonpath={.spec.template.spec.containers[0].image}"]).await;
    assert_eq!(image, "demo:v1");
    let history = run(&["rollout", "history", "deployment/web"]).await;
    let sets = run(&["get", "rs", "-o", "yaml"]).await;
    assert!(history.contains("\n3 ") && !history.contains("\n1 "), "{history}{sets}");
    run(&["scale", "deployment/web", "--replicas=5"]).await;
    run(&["rollout", "status", "deployment/web", &limit]).await;
    let table = run(&["get", "deployment", "web", "--no-headers"]).await;
    assert!(table.split_whitespace().take(4).eq(["web", "5/5", "5", "5"]), "{table}");
    run(&["rollout", "pause", "deployment/web"]).await;
    run(&["set", "image", "deployment/web", "demo=demo:v3"]).await;
    run(&["rollout", "resume", "deployment/web"]).await;
    run(&["rollout", "restart", "deployment/web"]).await;
    run(&["rollout", "status", "deployment/web", &limit]).await;
    let described = run(&["describe", "deployment", "web"]).await;
    for want in ["NewReplicaSet:", "Scaled up replica set", "Progressing    True    NewReplicaSetAvailable"] {
        assert!(described.contains(want), "{want} in {described}");
    }
    let described = run(&["describe", "service", "web"]).await;
    assert!(described.contains("10.42."), "{described}");
    let described = run(&["describe", "pods"]).await;
    assert!(described.contains("Successfully assigned default/web-"), "{described}");
    run(&["delete", "deployment", "web", "--cascade=foreground", &limit]).await;
    let left = run(&["get", "rs,pods", "-o", "name"]).await;
    assert_eq!(left.trim(), "");
    run(&["create", "namespace", "short"]).await;
    run(&["create", "configmap", "x", "-n", "short"]).await;
    run(&["delete", "namespace", "short", &limit]).await;
    run(&["cordon", "n1"]).await;
    c.wait_for("cordon taint", || async {
        run(&["describe", "node", "n1"]).await.contains("unschedulable:NoSchedule")
    })
    .await;
}

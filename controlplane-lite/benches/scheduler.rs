//! Scheduling throughput: the algorithm alone at 5,000 nodes, and end to end at
//! 1,000 nodes through the API server over a memory store. The floor beside the
//! latter is the same number of pods created and bound by hand.
//!
//! `cargo bench -p controlplane-lite --bench scheduler`; sizes by `PODS` and `NODES`.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss)]

use std::time::{Duration, Instant};

use controlplane_lite::scheduler::engine::{Action, Engine, Input};
use controlplane_lite::scheduler::pod::PodInfo;
use controlplane_lite::scheduler::{SchedulerConfig, cycle::XorShift};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding, Node, Pod};
use kube::api::{Api, PostParams, WatchEvent, WatchParams};
use serde_json::{from_value, json};
use tokio_util::sync::CancellationToken;

fn node(i: usize) -> Node {
    let offer = json!({"cpu": "64", "memory": "256Gi", "pods": "500"});
    from_value(json!({
        "metadata": {"name": format!("node-{i}"), "labels": {
            "kubernetes.io/hostname": format!("node-{i}"), "topology.kubernetes.io/zone": format!("z{}", i % 3)}},
        "status": {"allocatable": offer, "capacity": offer, "conditions": [{"type": "Ready", "status": "True"}]}
    }))
    .unwrap()
}

fn pod(i: usize) -> Pod {
    from_value(json!({
        "metadata": {"name": format!("pod-{i}"), "namespace": "default", "uid": format!("uid-{i}"), "labels": {"app": "bench"}},
        "spec": {"containers": [{"name": "c", "image": "copepod.local/pause:1",
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}]}
    }))
    .unwrap()
}

fn size(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn report(what: &str, pods: usize, took: Duration) {
    println!("{what:<48} {:>10.0} pods/s  ({pods} in {took:.2?})", pods as f64 / took.as_secs_f64());
}

/// The engine alone, without any transport.
fn algorithm(nodes: usize, pods: usize) {
    let mut engine = Engine::new(SchedulerConfig::default().profiles(), Box::new(XorShift::new(7)));
    let now = Timestamp::now();
    engine.take(Input::Nodes((0..nodes).map(node).collect(), vec![]), now);
    engine.take(Input::Pods((0..pods).map(|i| PodInfo::new(pod(i))).collect(), vec![]), now);
    let start = Instant::now();
    let mut bound = 0;
    while let Some(action) = engine.next(now) {
        assert!(matches!(action, Action::Bind { .. }));
        bound += 1;
    }
    assert_eq!(bound, pods);
    report(&format!("algorithm, {nodes} nodes"), pods, start.elapsed());
}

/// Waits until a watch has shown `pods` bound pods.
async fn all_bound(api: Api<Pod>, pods: usize) {
    let mut stream = api.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    let mut bound = std::collections::HashSet::new();
    while bound.len() < pods {
        if let Some(Ok(WatchEvent::Added(p) | WatchEvent::Modified(p))) = stream.next().await
            && p.spec.as_ref().and_then(|s| s.node_name.as_ref()).is_some()
        {
            bound.insert(p.metadata.name.unwrap_or_default());
        }
    }
}

async fn create_all(api: &Api<Pod>, pods: usize) {
    let params = PostParams::default();
    let creations = futures::stream::iter(0..pods).map(|i| {
        let (api, params) = (api.clone(), params.clone());
        async move {
            let mut pod = pod(i);
            pod.metadata.uid = None;
            api.create(&params, &pod).await.unwrap();
        }
    });
    creations.buffer_unordered(64).collect::<Vec<()>>().await;
}

async fn server(nodes: usize) -> (controlplane_lite::apiserver::ApiServer, kube::Client) {
    let (server, client) = apiserver::testing::start().await;
    let api: Api<Node> = Api::all(client.clone());
    for i in 0..nodes {
        let mut node = node(i);
        let status = node.status.take();
        let mut made = api.create(&PostParams::default(), &node).await.unwrap();
        made.status = status;
        if let Some(spec) = &mut made.spec {
            spec.taints = None;
        }
        let mut made = api.replace(&format!("node-{i}"), &PostParams::default(), &made).await.unwrap();
        made.status = self::node(i).status;
        api.replace_status(&format!("node-{i}"), &PostParams::default(), &made).await.unwrap();
    }
    let account = from_value(json!({"metadata": {"name": "default"}})).unwrap();
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = Api::namespaced(client.clone(), "default");
    // The server may have made it.
    let _ = accounts.create(&PostParams::default(), &account).await;
    (server, client)
}

async fn end_to_end(nodes: usize, pods: usize) {
    let (_server, client) = server(nodes).await;
    let token = CancellationToken::new();
    let scheduler =
        tokio::spawn(controlplane_lite::scheduler::run(client.clone(), SchedulerConfig::default(), token.clone()));
    let api: Api<Pod> = Api::namespaced(client, "default");
    let watching = tokio::spawn(all_bound(api.clone(), pods));
    let start = Instant::now();
    create_all(&api, pods).await;
    let created = start.elapsed();
    watching.await.unwrap();
    report(&format!("end to end, {nodes} nodes, creation included"), pods, start.elapsed());
    println!("{:<48} {:>10.0} pods/s", "  creation alone", pods as f64 / created.as_secs_f64());
    token.cancel();
    scheduler.await.unwrap();
}

/// The floor: the same requests without a scheduler.
async fn by_hand(nodes: usize, pods: usize) {
    let (_server, client) = server(nodes).await;
    let api: Api<Pod> = Api::namespaced(client, "default");
    let watching = tokio::spawn(all_bound(api.clone(), pods));
    let start = Instant::now();
    create_all(&api, pods).await;
    let bindings = futures::stream::iter(0..pods).map(|i| {
        let api = api.clone();
        async move {
            let name = format!("pod-{i}");
            let target = json!({"kind": "Node", "name": format!("node-{}", i % nodes)});
            let binding: Binding = from_value(json!({"metadata": {"name": name}, "target": target})).unwrap();
            let _: kube::core::Status =
                api.create_subresource("binding", &name, &PostParams::default(), &binding).await.unwrap();
        }
    });
    bindings.buffer_unordered(64).collect::<Vec<()>>().await;
    watching.await.unwrap();
    report(&format!("floor: created and bound by hand, {nodes} nodes"), pods, start.elapsed());
}

fn main() {
    let (nodes, pods) = (size("NODES", 1000), size("PODS", 5000));
    algorithm(size("ALGORITHM_NODES", 5000), pods.max(1));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        end_to_end(nodes, pods).await;
        by_hand(nodes, pods).await;
    });
}

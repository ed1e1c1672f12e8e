//! What pods leave waits for its turn to be removed, and everything else goes on. That it is removed on threads that
//! may block is shown beside `removal.rs`.

use futures::FutureExt as _;
use tokio::sync::OwnedSemaphorePermit;

use super::harness::{Node, deleted, pod};
use crate::podworker::housekeeping;

/// Takes every place where something could be removed.
fn occupied(node: &Node) -> Vec<OwnedSemaphorePermit> {
    std::iter::from_fn(|| node.deps.removals.place().now_or_never().flatten()).collect()
}

/// Another pod than the one that goes.
fn other() -> k8s_openapi::api::core::v1::Pod {
    let mut other = pod("  containers: [{name: a}]");
    (other.metadata.name, other.metadata.uid) = (Some("other".into()), Some("other".into()));
    other
}

#[tokio::test]
async fn a_pod_whose_logs_are_being_removed_holds_nobody_up() {
    let node = Node::start().await;
    let p = pod("  containers: [{name: a}]");
    node.want(std::slice::from_ref(&p));
    node.until("ready", |n| n.is_ready(&p)).await;
    let logs = node.deps.settings.paths.pod_logs.join("ns_p_u");
    std::fs::create_dir_all(logs.join("a")).unwrap();
    node.want(&[deleted(&p, 1)]);
    node.until("ended", |n| !n.volumes.torn_down.lock().unwrap().is_empty()).await;
    let places = occupied(&node);
    node.want(&[other()]);
    node.until("another one is ready", |n| n.is_ready(&other())).await;
    assert!(logs.exists(), "they wait for their turn");
    drop(places);
    node.until("gone", |_| !logs.exists()).await;
}

#[tokio::test]
async fn what_a_dead_agent_left_holds_nobody_up() {
    let node = Node::start().await;
    let paths = &node.deps.settings.paths;
    let (logs, files) = (paths.pod_logs.join("ns_p_dead"), paths.root.join("pods/dead"));
    for left in [logs.join("a"), files.join("containers/a")] {
        std::fs::create_dir_all(left).unwrap();
    }
    let places = occupied(&node);
    node.want(&[other()]);
    let token = tokio_util::sync::CancellationToken::new();
    let cleaning = housekeeping::run(node.deps.clone(), node.workers.clone(), node.desired(), token.clone());
    let cleaning = tokio::spawn(cleaning);
    node.until("its volumes are gone", |n| !n.volumes.torn_down.lock().unwrap().is_empty()).await;
    node.until("another one is ready", |n| n.is_ready(&other())).await;
    assert!(logs.exists() && files.exists(), "they wait for their turn");
    drop(places);
    node.until("gone", |_| !logs.exists() && !files.exists()).await;
    token.cancel();
    cleaning.await.unwrap();
}

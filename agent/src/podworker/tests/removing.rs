//! What pods leave waits for its turn to be removed, and everything else goes on. That it is removed on threads that
//! may block is shown beside
//! `retention/removals.rs`.

use std::path::PathBuf;
use std::time::Duration;

use cri::fake::{Op, runtime_error};
use futures::FutureExt as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

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

/// Housekeeping of a node, until this is dropped.
struct Housekeeping(CancellationToken);

impl Housekeeping {
    fn of(node: &Node) -> Self {
        let token = CancellationToken::new();
        tokio::spawn(housekeeping::run(node.deps.clone(), node.workers.clone(), node.desired(), token.clone()));
        Self(token)
    }
}

impl Drop for Housekeeping {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// What a dead agent left of the pod with that UID: logs and files.
fn left_by(node: &Node, uid: &str) -> (PathBuf, PathBuf) {
    let paths = &node.deps.settings.paths;
    let (logs, files) = (paths.pod_logs.join(format!("ns_p_{uid}")), paths.root.join("pods").join(uid));
    std::fs::create_dir_all(logs.join("a")).unwrap();
    std::fs::create_dir_all(files.join("containers/a")).unwrap();
    (logs, files)
}

#[tokio::test]
async fn what_a_dead_agent_left_holds_nobody_up() {
    let node = Node::start().await;
    let (logs, files) = left_by(&node, "dead");
    let places = occupied(&node);
    node.want(&[other()]);
    let _cleaning = Housekeeping::of(&node);
    node.until("its volumes are gone", |n| !n.volumes.torn_down.lock().unwrap().is_empty()).await;
    node.until("another one is ready", |n| n.is_ready(&other())).await;
    assert!(logs.exists() && files.exists(), "they wait for their turn");
    drop(places);
    node.until("gone", |_| !logs.exists() && !files.exists()).await;
}

/// A static pod has the UID again that it had.
#[tokio::test]
async fn a_pod_that_is_wanted_again_is_made_when_the_old_one_is_gone() {
    let node = Node::start().await;
    let p = pod("  containers: [{name: a}]");
    let (logs, files) = left_by(&node, "u");
    std::fs::write(logs.join("a/0.log"), "old").unwrap();
    let places = occupied(&node);
    node.want(&[]);
    let _cleaning = Housekeeping::of(&node);
    node.until("its volumes are gone", |n| !n.volumes.torn_down.lock().unwrap().is_empty()).await;
    node.want(&[p.clone(), other()]);
    node.until("another one is ready", |n| n.is_ready(&other())).await;
    assert_eq!(node.runtime.sandboxes().len(), 1, "the other one's");
    drop(places);
    node.until("ready", |n| n.is_ready(&p)).await;
    assert!(files.exists() && logs.join("a").exists());
    assert!(!logs.join("a/0.log").exists());
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_a_pod_is_tried_again_and_no_event_is_about_nobody() {
    let node = Node::start().await;
    let (logs, files) = left_by(&node, "dead");
    *node.volumes.fail_tear_down.lock().unwrap() = 2;
    node.want(&[]);
    let _cleaning = Housekeeping::of(&node);
    node.until("gone", |n| !logs.exists() && !files.exists() && n.workers.is_empty()).await;
    assert_eq!(node.reasons(), Vec::<&str>::new());
}

#[tokio::test(start_paused = true)]
async fn a_dead_container_that_could_not_be_removed_is_tried_again() {
    let node = Node::start().await;
    let p = pod("  containers: [{name: a}]");
    node.want(std::slice::from_ref(&p));
    node.until("ready", |n| n.is_ready(&p)).await;
    let _cleaning = Housekeeping::of(&node);
    node.runtime.fail_next(Op::RemoveContainer, 1000, runtime_error(Op::RemoveContainer, "busy"));
    for count in 1..=2 {
        node.runtime.exit_container(&node.runtime.container_named("a").unwrap().id, 1);
        node.until("restarted", |n| n.container(&p, "a").restart_count == count && n.is_ready(&p)).await;
    }
    // Whatever its restarts made anybody look at is over.
    node.settle(Duration::from_secs(600)).await;
    assert_eq!(node.runtime.containers().len(), 3);
    node.runtime.clear_faults();
    node.until("removed", |n| n.runtime.containers().len() == 2).await;
}

/// A runtime that lost a sandbox has its containers still.
#[tokio::test(start_paused = true)]
async fn containers_without_a_sandbox_go_with_their_pod() {
    let node = Node::start().await;
    let p = pod("  containers: [{name: a}]");
    node.want(std::slice::from_ref(&p));
    node.until("ready", |n| n.is_ready(&p)).await;
    node.runtime.lose_sandbox(&node.runtime.sandboxes()[0].summary.id);
    node.want(&[]);
    node.until("gone", |n| n.workers.is_empty() && n.runtime.containers().is_empty()).await;
}

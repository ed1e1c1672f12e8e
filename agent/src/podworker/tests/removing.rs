//! Large trees go while everything else goes on: on one thread, others see a tree
//! half gone only while somebody else removes it.

use std::path::Path;
use std::time::Duration;

use super::harness::{Node, deleted, pod};
use crate::podworker::housekeeping;

/// Enough to be looked at before all are gone.
const FILES: usize = 20_000;

fn fill(dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    (0..FILES).for_each(|n| _ = std::fs::File::create(dir.join(n.to_string())).unwrap());
}

/// Whether the directory is seen half gone before it is gone.
async fn is_seen_half_gone(dir: &Path) -> bool {
    let look = async {
        loop {
            match std::fs::read_dir(dir).map(Iterator::count) {
                Ok(left) if left == FILES => tokio::time::sleep(Duration::from_millis(1)).await,
                Ok(_) => return true,
                Err(_) => return false,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(120), look).await.expect("it goes")
}

#[tokio::test]
async fn a_pod_with_large_logs_holds_nobody_up() {
    let node = Node::start().await;
    let p = pod("  containers: [{name: a}]");
    node.want(std::slice::from_ref(&p));
    node.until("ready", |n| n.is_ready(&p)).await;
    let logs = node.deps.settings.paths.pod_logs.join("ns_p_u/large");
    fill(&logs);
    node.want(&[deleted(&p, 1)]);
    node.until("ended", |n| !n.volumes.torn_down.lock().unwrap().is_empty()).await;
    node.want(&[]);
    assert!(is_seen_half_gone(&logs).await);
    node.until("gone", |n| n.workers.is_empty()).await;
    assert!(!logs.exists());
}

#[tokio::test]
async fn what_a_dead_agent_left_holds_nobody_up() {
    let node = Node::start().await;
    let paths = &node.deps.settings.paths;
    let (logs, files) = (paths.pod_logs.join("ns_p_dead/large"), paths.root.join("pods/dead/containers/large"));
    for large in [&logs, &files] {
        fill(large);
    }
    node.want(&[]);
    let token = tokio_util::sync::CancellationToken::new();
    let cleaning = housekeeping::run(node.deps.clone(), node.workers.clone(), node.desired(), token.clone());
    let cleaning = tokio::spawn(cleaning);
    assert!(is_seen_half_gone(&logs).await, "its logs");
    assert!(is_seen_half_gone(&files).await, "its files");
    node.until("gone", |_| !paths.root.join("pods/dead").exists()).await;
    token.cancel();
    cleaning.await.unwrap();
}

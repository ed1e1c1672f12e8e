//! What a pod gets to end only ever shrinks, whoever asks for its end and however
//! often (pkg/kubelet/pod_workers.go: `calculateEffectiveGracePeriod`).

use std::time::Duration;

use cri::fake::Behavior;
use k8s_openapi::api::core::v1::Pod;

use super::harness::{Node, deleted, pod};
use crate::ids::PodUid;
use crate::podworker::Eviction;

/// What ends a pod before somebody deletes it.
#[derive(Clone, Copy, Debug)]
enum First {
    /// Its main container is done, and a sidecar takes its time.
    Itself,
    Deadline,
    Eviction,
    Deletion,
}

const ALL: [First; 4] = [First::Itself, First::Deadline, First::Eviction, First::Deletion];

/// A pod that is given a minute, of which one container ignores the stop signal.
fn stubborn(first: First) -> Pod {
    let deadline = if matches!(first, First::Deadline) { "  activeDeadlineSeconds: 60\n" } else { "" };
    pod(&format!(
        "{deadline}  restartPolicy: Never
  terminationGracePeriodSeconds: 60
  initContainers: [{{name: s, restartPolicy: Always}}]
  containers: [{{name: a}}]"
    ))
}

/// The pod ends, and how long it is given.
async fn strike(node: &Node, first: First, p: &Pod) {
    match first {
        First::Itself => node.runtime.exit_container(&node.runtime.container_named("a").unwrap().id, 0),
        First::Deadline => {}
        First::Eviction => {
            let eviction = Eviction { message: "short".into(), grace: Duration::from_secs(60) };
            assert_eq!(node.workers.evict(&PodUid::of(p), eviction), Some(true));
        }
        First::Deletion => node.want(&[deleted(p, 60)]),
    }
    node.until("ending", |n| n.said("Killing", "Stopping container s")).await;
}

/// How long a pod takes to end that is deleted with `grace` seconds half-way.
async fn ending(first: First, grace: i64) -> Duration {
    let node = Node::start().await;
    node.runtime.set_behavior("s", Behavior::IgnoresStopSignal);
    let p = stubborn(first);
    node.want(std::slice::from_ref(&p));
    node.until("ready", |n| n.is_ready(&p)).await;
    strike(&node, first, &p).await;
    let began = tokio::time::Instant::now();
    node.settle(Duration::from_secs(30)).await;
    assert_eq!(node.runtime.running(), ["s"], "{first:?}");
    assert_eq!(node.status(&p).phase.as_deref(), Some("Running"), "{first:?}: something of it runs");
    assert!(!node.is_ready(&p) || matches!(first, First::Deletion), "{first:?}");
    node.want(&[deleted(&p, grace)]);
    node.until("ended", |n| n.runtime.running().is_empty()).await;
    let took = began.elapsed();
    node.until("torn down", |n| !n.volumes.torn_down.lock().unwrap().is_empty()).await;
    took
}

#[tokio::test(start_paused = true)]
async fn a_deletion_gives_an_ending_pod_nothing_anew() {
    for first in ALL {
        for grace in [60, 3600] {
            let took = ending(first, grace).await.as_secs();
            assert!((58..=62).contains(&took), "{first:?} and a deletion within {grace} s: {took} s");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_shorter_deletion_counts_from_when_it_comes() {
    for first in ALL {
        let took = ending(first, 10).await.as_secs();
        assert!((38..=42).contains(&took), "{first:?}: {took} s");
    }
}

#[tokio::test(start_paused = true)]
async fn an_eviction_shortens_what_a_deletion_gave() {
    let node = Node::start().await;
    node.runtime.set_behavior("s", Behavior::IgnoresStopSignal);
    let p = stubborn(First::Deletion);
    node.want(std::slice::from_ref(&p));
    node.until("ready", |n| n.is_ready(&p)).await;
    strike(&node, First::Deletion, &p).await;
    let evict = |grace| {
        let eviction = Eviction { message: "short".into(), grace: Duration::from_secs(grace) };
        node.workers.evict(&PodUid::of(&p), eviction) == Some(true)
    };
    assert!(!evict(60), "it makes no difference");
    let began = tokio::time::Instant::now();
    assert!(evict(0));
    assert!(!evict(0), "it makes no difference any more");
    node.until("ended", |n| n.runtime.running().is_empty()).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    node.until("told", |n| n.status(&p).reason.as_deref() == Some("Evicted")).await;
    assert!(!evict(0), "nothing of it runs");
}

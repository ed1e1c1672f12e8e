//! Pods that run are looked after, also when nothing is to be started, and
//! whatever their worker is busy with.

use std::time::Duration;

use cri::fake::{Behavior, Op, runtime_error};

use super::harness::{Node, deleted, pod};
use crate::contract::{ContainerProbes, ProbeOutcome};
use crate::ids::PodUid;

const ONE: &str = "  containers: [{name: a}]";

fn readiness(outcome: ProbeOutcome) -> ContainerProbes {
    ContainerProbes { readiness: outcome, ..ContainerProbes::default() }
}

#[tokio::test(start_paused = true)]
async fn volumes_of_a_running_pod_are_kept() {
    let node = Node::start().await;
    let mut p = pod(ONE);
    node.want(std::slice::from_ref(&p));
    node.until("ready", |n| n.is_ready(&p)).await;
    // A label for a downward API file, and nothing to start.
    p.metadata.labels = Some([("tier".to_owned(), "new".to_owned())].into());
    node.want(std::slice::from_ref(&p));
    let newest = |n: &Node| n.volumes.set_up.lock().unwrap().last().and_then(|pod| pod.metadata.labels.clone());
    node.until("the new label is seen", |n| newest(n) == p.metadata.labels).await;
    // A new agent takes them over.
    let node = node.restart().await;
    node.runtime.clear_calls();
    node.want(std::slice::from_ref(&p));
    node.until("adopted", |n| newest(n) == p.metadata.labels).await;
    assert_eq!(node.runtime.count(Op::StartContainer), 0);
    // Also while its only container waits to be started.
    node.runtime.set_behavior("a", Behavior::ExitsWith(1));
    node.runtime.exit_container(&node.runtime.container_named("a").unwrap().id, 1);
    node.until("waits", |n| n.waiting_reason(&p, "a").as_deref() == Some("CrashLoopBackOff")).await;
    p.metadata.labels = Some([("tier".to_owned(), "newer".to_owned())].into());
    node.want(std::slice::from_ref(&p));
    node.until("the newer label is seen", |n| newest(n) == p.metadata.labels).await;
    // And no more once it ends.
    node.want(&[deleted(&p, 1)]);
    node.until("ended", |n| !n.volumes.torn_down.lock().unwrap().is_empty()).await;
    let calls = node.volumes.set_up.lock().unwrap().len();
    node.workers.wake(&PodUid::of(&p));
    node.settle(Duration::from_secs(60)).await;
    assert_eq!(node.volumes.set_up.lock().unwrap().len(), calls);
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_cannot_be_kept_is_told_and_tried_again() {
    let node = Node::start().await;
    let p = pod(ONE);
    node.want(std::slice::from_ref(&p));
    node.until("ready", |n| n.is_ready(&p)).await;
    *node.volumes.fail_set_up.lock().unwrap() = 2;
    node.workers.wake(&PodUid::of(&p));
    node.until("tried again", |n| *n.volumes.fail_set_up.lock().unwrap() == 0).await;
    node.settle(Duration::from_secs(30)).await;
    assert_eq!(node.reasons().iter().filter(|r| **r == "FailedMount").count(), 2);
    assert!(node.is_ready(&p));
}

/// A volume that cannot be kept is tried again with growing pauses of its own: they hold no restart up.
#[tokio::test(start_paused = true)]
async fn a_volume_that_cannot_be_kept_holds_no_restart_up() {
    let node = Node::start().await;
    node.runtime.set_behavior("a", Behavior::ExitsWith(1));
    let p = pod(ONE);
    node.want(std::slice::from_ref(&p));
    node.until("waits", |n| n.waiting_reason(&p, "a").as_deref() == Some("CrashLoopBackOff")).await;
    let (began, starts) = (tokio::time::Instant::now(), node.runtime.count(Op::StartContainer));
    // After the fifth failure in a row the next try is eight seconds away.
    *node.volumes.fail_set_up.lock().unwrap() = 5;
    node.workers.wake(&PodUid::of(&p));
    node.until("started again", |n| n.runtime.count(Op::StartContainer) > starts).await;
    assert!(began.elapsed() < Duration::from_secs(11), "{:?}", began.elapsed());
    assert_eq!(*node.volumes.fail_set_up.lock().unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn readiness_is_reported_while_the_worker_pulls() {
    let node = Node::start().await;
    let mut p = pod("  containers: [{name: a, readinessProbe: {}}, {name: b}]");
    p.spec.as_mut().unwrap().containers[1].image_pull_policy = Some("Always".into());
    node.runtime.add_remote_image("img:1");
    node.want(std::slice::from_ref(&p));
    node.until("running", |n| n.runtime.running() == ["a", "b"]).await;
    let id = node.runtime.container_named("a").unwrap().id;
    node.probed(&p, &id, readiness(ProbeOutcome::Success));
    node.until("ready", |n| n.is_ready(&p)).await;
    // `b` ends and its image takes an hour.
    node.runtime.delay(Op::PullImage, 1, Duration::from_secs(3600));
    let pulls = node.runtime.count(Op::PullImage);
    node.runtime.exit_container(&node.runtime.container_named("b").unwrap().id, 1);
    node.until("pulling", |n| n.runtime.count(Op::PullImage) > pulls).await;
    node.settle(Duration::from_secs(5)).await;
    assert!(node.container(&p, "a").ready);
    node.probed(&p, &id, readiness(ProbeOutcome::Failure));
    assert!(!node.container(&p, "a").ready, "at once");
    node.probed(&p, &id, readiness(ProbeOutcome::Success));
    assert!(node.container(&p, "a").ready);
}

#[tokio::test(start_paused = true)]
async fn readiness_is_reported_while_the_pod_ends() {
    let node = Node::start().await;
    node.runtime.set_behavior("a", Behavior::IgnoresStopSignal);
    let p = pod("  containers: [{name: a, readinessProbe: {}}]");
    node.want(std::slice::from_ref(&p));
    node.until("running", |n| n.runtime.running() == ["a"]).await;
    let id = node.runtime.container_named("a").unwrap().id;
    node.probed(&p, &id, readiness(ProbeOutcome::Success));
    node.until("ready", |n| n.is_ready(&p)).await;
    node.want(&[deleted(&p, 600)]);
    node.until("ending", |n| n.reasons().contains(&"Killing")).await;
    assert!(node.container(&p, "a").ready);
    node.probed(&p, &id, readiness(ProbeOutcome::Failure));
    assert!(!node.is_ready(&p) && !node.container(&p, "a").ready);
    assert_eq!(node.runtime.running(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_could_not_be_read_is_not_taken_for_a_new_one() {
    let node = Node::start().await;
    // There is room for one of them.
    let p = pod("  containers: [{name: a, resources: {requests: {cpu: '2'}}}]");
    node.want(std::slice::from_ref(&p));
    node.until("ready", |n| n.is_ready(&p)).await;
    node.runtime.fail_next(Op::ContainerStatus, 3, runtime_error(Op::ContainerStatus, "not now"));
    let node = node.restart().await;
    // Both lists at the start are over: nobody tells the worker to look again.
    node.settle(Duration::from_secs(1)).await;
    node.runtime.clear_calls();
    node.want(std::slice::from_ref(&p));
    node.until("ready again", |n| n.is_ready(&p)).await;
    for op in [Op::RunPodSandbox, Op::CreateContainer, Op::StopContainer, Op::StopPodSandbox] {
        assert_eq!(node.runtime.count(op), 0, "{op:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_runs_has_its_room_before_anybody_new() {
    let node = Node::start().await;
    let p = pod("  containers: [{name: a, resources: {requests: {cpu: '2'}}}]");
    node.want(std::slice::from_ref(&p));
    node.until("ready", |n| n.is_ready(&p)).await;
    let node = node.restart().await;
    // Its turn comes first.
    let mut new = pod("  containers: [{name: b, resources: {requests: {cpu: '2'}}}]");
    (new.metadata.uid, new.metadata.name) = (Some("0".into()), Some("q".into()));
    node.want(&[new.clone(), p.clone()]);
    node.until("refused", |n| n.status(&new).reason.as_deref() == Some("OutOfcpu")).await;
    node.until("ready again", |n| n.is_ready(&p)).await;
    assert_eq!(node.runtime.running(), ["a"]);
}

/// A pod that is gone from the API may take its time to end: whoever bound the next one here did not count it
/// (pkg/kubelet/kubelet.go: `GetActivePods` knows only pods of the sources).
#[tokio::test(start_paused = true)]
async fn who_is_gone_from_the_api_takes_nobodys_room() {
    let node = Node::start().await;
    let old = pod("  terminationGracePeriodSeconds: 60\n  containers: [{name: a, resources: {requests: {cpu: '2'}}}]");
    node.runtime.set_behavior("a", Behavior::IgnoresStopSignal);
    node.want(std::slice::from_ref(&old));
    node.until("ready", |n| n.is_ready(&old)).await;
    let mut new = pod("  containers: [{name: b, resources: {requests: {cpu: '2'}}}]");
    (new.metadata.uid, new.metadata.name) = (Some("0".into()), Some("q".into()));
    node.want(std::slice::from_ref(&new));
    node.until("ready", |n| n.is_ready(&new)).await;
    assert_eq!(node.runtime.running(), ["a", "b"]);
    // The new one is counted against the next.
    let mut next = pod("  containers: [{name: c, resources: {requests: {cpu: '1'}}}]");
    (next.metadata.uid, next.metadata.name) = (Some("1".into()), Some("r".into()));
    node.want(&[new.clone(), next.clone()]);
    node.until("refused", |n| n.status(&next).reason.as_deref() == Some("OutOfcpu")).await;
    node.until("the old one ends", |n| n.runtime.running() == ["b"]).await;
}

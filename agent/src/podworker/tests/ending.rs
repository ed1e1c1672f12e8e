//! What has to end ends, whatever the pod's own program or a registry holds up.

use std::collections::BTreeMap;
use std::time::Duration;

use cri::fake::{Behavior, Op};
use cri::types::ExecOutput;
use k8s_openapi::api::core::v1::{Pod, PodStatus};

use super::harness::{Node, deleted, pod};
use crate::contract::{ContainerProbes, ProbeOutcome};
use crate::ids::PodUid;
use crate::podsource::PodOrigin;
use crate::podworker::Eviction;

const HOUR: Duration = Duration::from_secs(3600);
const POST_START: &str =
    "  terminationGracePeriodSeconds: 5\n  containers: [{name: a, lifecycle: {postStart: {exec: {command: [wait]}}}}]";
const PRE_STOP: &str = "  terminationGracePeriodSeconds: 7200\n  containers: [{name: a, livenessProbe: {}, lifecycle: {preStop: {exec: {command: [bye]}}}}]";

fn of_file(spec: &str) -> Pod {
    let mut pod = pod(spec);
    pod.metadata.annotations = Some(BTreeMap::from([("kubernetes.io/config.source".into(), "file".into())]));
    pod
}

/// A way to end a pod.
#[derive(Clone, Copy, Debug)]
enum End {
    Deletion,
    Eviction,
    /// Of a static pod's manifest.
    Removal,
    Deadline,
    /// By somebody who says through the API that it has failed.
    Word,
}

const ENDS: [End; 5] = [End::Deletion, End::Eviction, End::Removal, End::Deadline, End::Word];

fn spec_for(end: End, spec: &str) -> Pod {
    match end {
        End::Removal => of_file(spec),
        End::Deadline => pod(&format!("  activeDeadlineSeconds: 60\n{spec}")),
        _ => pod(spec),
    }
}

fn want(node: &Node, end: End, pod: &Pod) {
    let origin = if matches!(end, End::Removal) { PodOrigin::File } else { PodOrigin::Api };
    node.want_from(origin, std::slice::from_ref(pod));
}

fn strike(node: &Node, end: End, pod: &Pod) {
    match end {
        End::Deletion => node.want(&[deleted(pod, 5)]),
        End::Removal => node.want(&[]),
        End::Eviction => {
            let eviction = Eviction { message: "The node was low on resource: memory. ".into(), grace: Duration::ZERO };
            assert_eq!(node.workers.evict(&PodUid::of(pod), eviction), Some(true));
        }
        End::Deadline => {}
        End::Word => node.want(&[failed(pod)]),
    }
}

/// The pod as somebody else has it fail.
fn failed(pod: &Pod) -> Pod {
    let status = PodStatus { phase: Some("Failed".into()), reason: Some("Lost".into()), ..PodStatus::default() };
    Pod { status: Some(status), ..pod.clone() }
}

/// Ends the pod by `end` once `stuck` holds, and expects that to take no hour.
async fn ends(node: &Node, end: End, pod: &Pod, stuck: impl Fn(&Node) -> bool) {
    want(node, end, pod);
    node.until("stuck", stuck).await;
    let began = tokio::time::Instant::now();
    strike(node, end, pod);
    node.until("ended", |n| n.volumes.torn_down.lock().unwrap().contains(&PodUid::of(pod))).await;
    assert!(began.elapsed() < Duration::from_secs(120), "{end:?}: {:?}", began.elapsed());
    assert!(node.runtime.running().is_empty(), "{end:?}");
}

#[tokio::test(start_paused = true)]
async fn a_post_start_hook_that_does_not_end_is_interrupted() {
    for end in ENDS {
        let node = Node::start().await;
        node.runtime.delay(Op::ExecSync, 1, HOUR);
        let p = spec_for(end, POST_START);
        ends(&node, end, &p, |n| n.runtime.count(Op::ExecSync) == 1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_somebody_has_fail_stays_failed() {
    let node = Node::start().await;
    let p = pod("  terminationGracePeriodSeconds: 5\n  containers: [{name: a}]");
    ends(&node, End::Word, &p, |n| n.runtime.running() == ["a"] && n.status(&p).phase.as_deref() == Some("Running"))
        .await;
    let status = node.status(&p);
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("Lost")));
    node.settle(HOUR).await;
    assert!(node.runtime.running().is_empty(), "it is not started again");
}

#[tokio::test(start_paused = true)]
async fn a_pull_that_does_not_end_is_interrupted() {
    for end in ENDS {
        let node = Node::start().await;
        node.runtime.add_remote_image("far:1");
        node.runtime.delay(Op::PullImage, 1, HOUR);
        let mut p = spec_for(end, "  containers: [{name: a}]");
        p.spec.as_mut().unwrap().containers[0].image = Some("far:1".into());
        ends(&node, end, &p, |n| n.runtime.count(Op::PullImage) == 1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_kill_in_a_sync_is_interrupted() {
    // Its preStop hook or its stop signal would take hours.
    for (end, hook) in ENDS.into_iter().flat_map(|end| [(end, true), (end, false)]) {
        if matches!(end, End::Removal | End::Deadline | End::Word) {
            // These leave the pod the grace period it asks for.
            continue;
        }
        let node = Node::start().await;
        let p = spec_for(end, PRE_STOP);
        want(&node, end, &p);
        node.until("running", |n| n.runtime.running() == ["a"]).await;
        if hook {
            node.runtime.delay(Op::ExecSync, 1, HOUR);
        } else {
            node.runtime.delay(Op::StopContainer, 1, HOUR);
        }
        let id = node.runtime.container_named("a").unwrap().id;
        node.probed(&p, &id, ContainerProbes { liveness: ProbeOutcome::Failure, ..Default::default() });
        let op = if hook { Op::ExecSync } else { Op::StopContainer };
        ends(&node, end, &p, |n| n.runtime.count(op) == 1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_shorter_grace_period_interrupts_a_pre_stop_hook() {
    let node = Node::start().await;
    let p = pod(PRE_STOP);
    node.want(std::slice::from_ref(&p));
    node.until("running", |n| n.runtime.running() == ["a"]).await;
    node.runtime.delay(Op::ExecSync, 2, HOUR);
    node.want(&[deleted(&p, 7200)]);
    node.until("in its hook", |n| n.runtime.count(Op::ExecSync) == 1).await;
    let began = tokio::time::Instant::now();
    node.want(&[deleted(&p, 1)]);
    node.until("ended", |n| !n.volumes.torn_down.lock().unwrap().is_empty()).await;
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_ended_does_not_run_again_when_the_kill_is_repeated() {
    let node = Node::start().await;
    let p = pod(PRE_STOP);
    node.want(std::slice::from_ref(&p));
    node.until("running", |n| n.runtime.running() == ["a"]).await;
    node.runtime.fail_next(Op::StopContainer, 2, cri::fake::runtime_error(Op::StopContainer, "no"));
    node.want(&[deleted(&p, 30)]);
    node.until("ended", |n| !n.volumes.torn_down.lock().unwrap().is_empty()).await;
    assert_eq!((node.runtime.count(Op::StopContainer), node.runtime.count(Op::ExecSync)), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn all_pre_stop_hooks_run_at_once_and_signals_keep_their_order() {
    let node = Node::start().await;
    let hook = |name: &str| format!("lifecycle: {{preStop: {{exec: {{command: [bye-{name}]}}}}}}");
    let p = pod(&format!(
        "  terminationGracePeriodSeconds: 60
  initContainers: [{{name: s1, restartPolicy: Always, {}}}, {{name: s2, restartPolicy: Always, {}}}]
  containers: [{{name: a, {}}}]",
        hook("s1"),
        hook("s2"),
        hook("a")
    ));
    node.want(std::slice::from_ref(&p));
    node.until("ready", |n| n.is_ready(&p)).await;
    node.runtime.delay(Op::ExecSync, 3, Duration::from_secs(10));
    node.runtime.clear_calls();
    let began = tokio::time::Instant::now();
    node.want(&[deleted(&p, 60)]);
    node.until("all hooks run", |n| n.runtime.count(Op::ExecSync) == 3).await;
    assert_eq!(node.runtime.count(Op::StopContainer), 0, "no signal before the hooks are done");
    node.runtime.delay(Op::StopContainer, 1, Duration::from_secs(3));
    node.until("the first signal", |n| n.runtime.count(Op::StopContainer) > 0).await;
    node.settle(Duration::from_secs(2)).await;
    assert_eq!(node.runtime.count(Op::StopContainer), 1, "sidecars wait for the main container");
    node.until("ended", |n| !n.volumes.torn_down.lock().unwrap().is_empty()).await;
    assert!(began.elapsed() < Duration::from_secs(15), "one after the other: {:?}", began.elapsed());
    let stops = node.runtime.calls().into_iter().filter(|c| c.op == Op::StopContainer).map(|c| c.object);
    let expect = ["a", "s2", "s1"].map(|name| node.runtime.container_named(name).unwrap().id.to_string());
    assert_eq!(stops.collect::<Vec<_>>(), expect);
}

#[tokio::test(start_paused = true)]
async fn a_deletion_shortens_what_an_evicted_pod_was_given() {
    let node = Node::start().await;
    node.runtime.set_behavior("a", Behavior::IgnoresStopSignal);
    let p = pod("  containers: [{name: a}]");
    node.want(std::slice::from_ref(&p));
    node.until("ready", |n| n.is_ready(&p)).await;
    let eviction = Eviction { message: "short".into(), grace: Duration::from_secs(3600) };
    assert_eq!(node.workers.evict(&PodUid::of(&p), eviction), Some(true));
    node.settle(Duration::from_secs(60)).await;
    assert_eq!(node.runtime.running(), ["a"]);
    let began = tokio::time::Instant::now();
    node.want(&[deleted(&p, 1)]);
    node.until("ended", |n| n.runtime.running().is_empty()).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_is_signalled_when_the_grace_period_ends_before_its_turn() {
    let node = Node::start().await;
    node.runtime.set_behavior("a", Behavior::IgnoresStopSignal);
    let p = pod("  initContainers: [{name: s, restartPolicy: Always}]\n  containers: [{name: a}]");
    node.want(std::slice::from_ref(&p));
    node.until("ready", |n| n.is_ready(&p)).await;
    let began = tokio::time::Instant::now();
    node.want(&[deleted(&p, 10)]);
    node.until("ended", |n| !n.volumes.torn_down.lock().unwrap().is_empty()).await;
    assert!(began.elapsed() < Duration::from_secs(14), "{:?}", began.elapsed());
    let ended = node.container(&p, "s").state.unwrap().terminated.unwrap();
    assert_eq!(ended.exit_code, 0, "it was given the least time there is");
}

#[tokio::test(start_paused = true)]
async fn what_a_hook_prints_stays_out_of_events() {
    let node = Node::start().await;
    node.runtime.on_exec(|_, command| {
        let exit_code = i32::from(command != ["fine"]);
        Ok(ExecOutput { exit_code, stdout: b"password=hunter2".to_vec(), ..ExecOutput::default() })
    });
    let p = pod(
        "  containers: [{name: a, lifecycle: {postStart: {exec: {command: [secret]}}, preStop: {exec: {command: [secret]}}}}]",
    );
    node.want(std::slice::from_ref(&p));
    node.until("killed", |n| n.reasons().contains(&"Killing")).await;
    // The container is killed as any other is: with its preStop hook.
    node.until("both", |n| n.reasons().contains(&"FailedPreStopHook")).await;
    assert!(node.said("FailedPostStartHook", "PostStartHook failed"));
    assert!(node.said("FailedPreStopHook", "PreStopHook failed"));
    assert!(node.said("Killing", "FailedPostStartHook"));
    node.until("waits", |n| n.waiting_reason(&p, "a").is_some()).await;
    let leaks = |text: &str| text.contains("hunter2") || text.contains("secret");
    assert!(!node.messages().iter().any(|m| leaks(m)), "{:?}", node.messages());
}

#[tokio::test(start_paused = true)]
async fn an_orphan_ends_with_its_hooks() {
    let node = Node::start().await;
    let p = pod(PRE_STOP);
    node.want(std::slice::from_ref(&p));
    node.until("running", |n| n.runtime.running() == ["a"]).await;
    let node = node.restart().await;
    node.want(&[]);
    node.until("ended", |n| n.runtime.sandboxes().is_empty() && n.workers.is_empty()).await;
    let hooks = node.runtime.calls().into_iter().filter(|c| c.op == Op::ExecSync && c.object.ends_with(": bye"));
    assert_eq!(hooks.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_panics_is_started_again() {
    let node = Node::start().await;
    let struck = std::sync::atomic::AtomicBool::new(false);
    node.runtime.on_exec(move |_, _| {
        assert!(struck.swap(true, std::sync::atomic::Ordering::Relaxed), "the first hook panics");
        Ok(ExecOutput::default())
    });
    let p = pod(POST_START);
    node.want(std::slice::from_ref(&p));
    node.until("panicked", |n| n.workers.panics() == 1).await;
    node.until("ready all the same", |n| n.is_ready(&p)).await;
    node.want(&[deleted(&p, 1)]);
    node.until("ended", |n| !n.volumes.torn_down.lock().unwrap().is_empty()).await;
    node.want(&[]);
    node.until("gone", |n| n.workers.is_empty() && n.runtime.sandboxes().is_empty()).await;
    assert_eq!(node.workers.panics(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_deletion_during_the_pause_after_a_panic_counts() {
    let node = Node::start().await;
    node.runtime.on_exec(|_, _| panic!("every hook panics"));
    let p = pod(POST_START);
    node.want(std::slice::from_ref(&p));
    node.until("panicked", |n| n.workers.panics() == 1).await;
    node.want(&[]);
    node.until("gone", |n| n.workers.is_empty() && n.runtime.sandboxes().is_empty()).await;
    assert_eq!(node.workers.panics(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_never_runs_anything_twice_fails_with_its_sandbox() {
    let node = Node::start().await;
    node.runtime.add_remote_image("far:1");
    node.runtime.delay(Op::PullImage, 1, Duration::from_secs(30));
    node.runtime.set_behavior("i", Behavior::ExitsWith(0));
    let mut p = pod("  restartPolicy: Never\n  initContainers: [{name: i}]\n  containers: [{name: a}, {name: b}]");
    p.spec.as_mut().unwrap().containers[1].image = Some("far:1".into());
    node.want(std::slice::from_ref(&p));
    node.until("pulling", |n| n.runtime.count(Op::PullImage) == 1).await;
    node.runtime.exit_sandbox(&node.runtime.sandboxes()[0].summary.id);
    node.until("failed", |n| n.status(&p).phase.as_deref() == Some("Failed")).await;
    node.until("freed", |n| !n.volumes.torn_down.lock().unwrap().is_empty()).await;
    node.settle(Duration::from_secs(60)).await;
    node.runtime.clear_calls();
    node.settle(Duration::from_secs(600)).await;
    let busy = node.runtime.calls().into_iter().filter(|c| c.op == Op::StopPodSandbox || c.op == Op::RunPodSandbox);
    assert_eq!(busy.count(), 0, "it rests");
}

//! Pods whose runtime, volumes or images misbehave.

use std::time::Duration;

use cri::CriError;
use cri::fake::{Behavior, Op, runtime_error, unavailable};
use cri::types::{RuntimeHandler, RuntimeStatus};

use super::harness::{Node, deleted, pod};
use crate::contract::{ContainerProbes, ProbeOutcome};
use crate::ids::PodUid;

const ONE: &str = "  containers: [{name: a}]";

fn deadline(op: Op) -> CriError {
    CriError::DeadlineExceeded { op: op.as_str(), object: String::new(), deadline: Duration::from_secs(120) }
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_of_run_pod_sandbox_is_adopted() {
    let node = Node::start().await;
    node.runtime.lose_answer(Op::RunPodSandbox, 1, deadline(Op::RunPodSandbox));
    let p = pod(ONE);
    node.want(std::slice::from_ref(&p));
    node.until("ready", |n| n.is_ready(&p)).await;
    assert_eq!((node.runtime.sandboxes().len(), node.runtime.count(Op::RunPodSandbox)), (1, 1));
    assert!(node.reasons().contains(&"FailedCreatePodSandBox"));
}

#[tokio::test(start_paused = true)]
async fn lost_answers_of_create_and_start_leave_one_container() {
    for op in [Op::CreateContainer, Op::StartContainer, Op::ContainerStatus] {
        let node = Node::start().await;
        node.runtime.lose_answer(op, 1, deadline(op));
        let p = pod(ONE);
        node.want(std::slice::from_ref(&p));
        node.until("ready", |n| n.is_ready(&p)).await;
        node.settle(Duration::from_secs(60)).await;
        assert_eq!(node.runtime.containers().len(), 1, "{op:?}");
        assert_eq!(node.container(&p, "a").restart_count, 0, "{op:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reserved_name_is_passed_by() {
    for op in [Op::CreateContainer, Op::RunPodSandbox] {
        let node = Node::start().await;
        let taken = CriError::AlreadyExists { op: op.as_str(), object: "a".into(), message: "name is reserved".into() };
        node.runtime.fail_next(op, 2, taken);
        let p = pod(ONE);
        node.want(std::slice::from_ref(&p));
        node.until("ready", |n| n.is_ready(&p)).await;
        assert_eq!(node.runtime.count(op), 3);
        let c = node.runtime.container_named("a").unwrap();
        let s = node.runtime.sandboxes()[0].summary.metadata.attempt;
        assert!(if op == Op::CreateContainer { c.metadata.attempt > 0 } else { s > 0 });
        assert_eq!(node.container(&p, "a").restart_count, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn failures_are_told_and_tried_again() {
    let cases = [
        (Op::CreateContainer, "CreateContainerError", "Failed"),
        (Op::StartContainer, "RunContainerError", "Failed"),
        (Op::PullImage, "ErrImagePull", "Failed"),
    ];
    for (op, reason, event) in cases {
        let node = Node::start().await;
        let mut p = pod(ONE);
        if op == Op::PullImage {
            node.runtime.add_remote_image("far:1");
            p.spec.as_mut().unwrap().containers[0].image = Some("far:1".into());
        }
        node.runtime.fail_next(op, 3, runtime_error(op, "no such thing"));
        node.want(std::slice::from_ref(&p));
        node.until(reason, |n| n.waiting_reason(&p, "a").as_deref() == Some(reason)).await;
        node.until("ready in the end", |n| n.is_ready(&p)).await;
        assert!(node.reasons().contains(&event), "{op:?}: {:?}", node.reasons());
    }
}

#[tokio::test(start_paused = true)]
async fn an_image_that_must_not_be_pulled_or_has_no_name() {
    let node = Node::start().await;
    let mut p = pod("  containers: [{name: a, imagePullPolicy: Never}, {name: b}]");
    let containers = &mut p.spec.as_mut().unwrap().containers;
    containers[0].image = Some("absent:1".into());
    containers[1].image = Some("Not A Name".into());
    node.want(std::slice::from_ref(&p));
    node.until("told", |n| n.waiting_reason(&p, "a").as_deref() == Some("ErrImageNeverPull")).await;
    assert_eq!(node.waiting_reason(&p, "b").as_deref(), Some("InvalidImageName"));
    assert_eq!(node.status(&p).phase.as_deref(), Some("Pending"));
    assert_eq!(node.runtime.count(Op::PullImage), 0);
}

#[tokio::test(start_paused = true)]
async fn a_class_names_the_handler_and_must_exist() {
    let node = Node::with_class("fast", "crun").await;
    node.runtime.add_handler("crun");
    let p = pod("  runtimeClassName: fast\n  containers: [{name: a}]");
    node.want(std::slice::from_ref(&p));
    node.until("ready", |n| n.is_ready(&p)).await;
    assert_eq!(node.runtime.sandboxes()[0].summary.runtime_handler, "crun");

    let mut lost = pod("  runtimeClassName: none\n  containers: [{name: a}]");
    lost.metadata.uid = Some("lost".into());
    node.want(std::slice::from_ref(&lost));
    let text = "Failed to create pod sandbox: runtimeclass.node.k8s.io \"none\" not found";
    node.until("told", |n| n.said("FailedCreatePodSandBox", text)).await;
    assert_eq!(node.status(&lost).phase.as_deref(), Some("Pending"));

    let node = Node::with_class("odd", "not-configured").await;
    let p = pod("  runtimeClassName: odd\n  containers: [{name: a}]");
    node.want(std::slice::from_ref(&p));
    let text = "Failed to create pod sandbox: failed to create sandbox: ";
    node.until("told", |n| n.said("FailedCreatePodSandBox", text)).await;
    assert!(node.runtime.sandboxes().is_empty());
}

#[tokio::test(start_paused = true)]
async fn image_pulls_back_off() {
    let node = Node::start().await;
    let mut p = pod(ONE);
    p.spec.as_mut().unwrap().containers[0].image = Some("absent:1".into());
    node.want(std::slice::from_ref(&p));
    node.until("waits", |n| n.waiting_reason(&p, "a").as_deref() == Some("ImagePullBackOff")).await;
    node.settle(Duration::from_secs(600)).await;
    let pulls = node.runtime.count(Op::PullImage);
    assert!((4..=8).contains(&pulls), "{pulls} pulls in ten minutes");
}

/// Somebody else may bring an image that is not pulled now.
#[tokio::test(start_paused = true)]
async fn an_image_that_comes_meanwhile_ends_the_wait() {
    let node = Node::start().await;
    let mut p = pod(ONE);
    p.spec.as_mut().unwrap().containers[0].image = Some("absent:1".into());
    node.want(std::slice::from_ref(&p));
    node.settle(Duration::from_secs(200)).await;
    assert_eq!(node.waiting_reason(&p, "a").as_deref(), Some("ImagePullBackOff"));
    let text = "Back-off pulling image \"absent:1\": ErrImagePull: failed to pull image \"absent:1\": ";
    let waiting = node.container(&p, "a").state.unwrap().waiting.unwrap();
    assert!(waiting.message.as_deref().unwrap().starts_with(text), "{waiting:?}");
    node.runtime.add_image("absent:1");
    let (began, pulls) = (tokio::time::Instant::now(), node.runtime.count(Op::PullImage));
    node.until("ready", |n| n.is_ready(&p)).await;
    assert!(began.elapsed() <= Duration::from_secs(11), "{:?}", began.elapsed());
    assert_eq!(node.runtime.count(Op::PullImage), pulls);
}

/// Upstream's order (pkg/kubelet/kubelet.go: `SyncPod`): volumes, sandbox, images.
#[tokio::test(start_paused = true)]
async fn a_pod_that_lacks_a_volume_or_a_sandbox_pulls_nothing() {
    let failed =
        |n: &Node| n.reasons().iter().filter(|r| matches!(**r, "FailedMount" | "FailedCreatePodSandBox")).count();
    for volume in [true, false] {
        let node = Node::start().await;
        node.runtime.add_remote_image("far:1");
        let mut p = pod("  containers: [{name: a}, {name: b}]");
        p.spec.as_mut().unwrap().containers[0].image = Some("far:1".into());
        if volume {
            *node.volumes.fail_set_up.lock().unwrap() = 3;
        } else {
            node.runtime.fail_next(Op::RunPodSandbox, 3, runtime_error(Op::RunPodSandbox, "no network"));
        }
        node.want(std::slice::from_ref(&p));
        node.until("failed twice", |n| failed(n) == 2).await;
        assert_eq!((node.runtime.count(Op::PullImage), node.runtime.count(Op::ImageStatus)), (0, 0), "{volume}");
        node.until("ready", |n| n.is_ready(&p)).await;
        assert_eq!((failed(&node), node.reasons().iter().filter(|r| **r == "Pulled").count()), (3, 2), "{volume}");
    }
}

#[tokio::test(start_paused = true)]
async fn volumes_that_fail_hold_the_pod_up() {
    let node = Node::start().await;
    *node.volumes.fail_set_up.lock().unwrap() = 2;
    let p = pod(ONE);
    node.want(std::slice::from_ref(&p));
    node.until("ready", |n| n.is_ready(&p)).await;
    assert_eq!(node.reasons().iter().filter(|r| **r == "FailedMount").count(), 2);
    assert_eq!(node.runtime.sandboxes().len(), 1);
    *node.volumes.fail_tear_down.lock().unwrap() = 2;
    node.want(&[deleted(&p, 1)]);
    node.until("freed", |n| n.volumes.torn_down.lock().unwrap().contains(&PodUid::new("u"))).await;
}

#[tokio::test(start_paused = true)]
async fn stops_that_time_out_are_repeated() {
    for op in [Op::StopContainer, Op::StopPodSandbox] {
        let node = Node::start().await;
        let p = pod(ONE);
        node.want(std::slice::from_ref(&p));
        node.until("ready", |n| n.is_ready(&p)).await;
        node.runtime.fail_next(op, 2, deadline(op));
        node.want(&[deleted(&p, 1)]);
        node.until("ended", |n| n.volumes.torn_down.lock().unwrap().len() == 1).await;
        assert!(node.runtime.running().is_empty());
        assert!(node.reasons().contains(&"FailedKillPod"), "{op:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_sandbox_is_made_anew() {
    let node = Node::start().await;
    let p = pod(ONE);
    node.want(std::slice::from_ref(&p));
    node.until("ready", |n| n.is_ready(&p)).await;
    node.runtime.exit_sandbox(&node.runtime.sandboxes()[0].summary.id);
    node.until("a new sandbox", |n| {
        n.is_ready(&p) && n.runtime.sandboxes().iter().any(|s| s.summary.metadata.attempt == 1)
    })
    .await;
    assert!(node.reasons().contains(&"SandboxChanged"));
    assert_eq!(node.container(&p, "a").restart_count, 1);
}

#[tokio::test(start_paused = true)]
async fn a_new_sandbox_begins_with_the_first_init_container_whoever_dies_meanwhile() {
    let node = Node::start().await;
    for name in ["i1", "i2"] {
        node.runtime.set_behavior(name, Behavior::ExitsWith(0));
    }
    let p = pod("  initContainers: [{name: i1}, {name: i2}]\n  containers: [{name: a}]");
    node.want(std::slice::from_ref(&p));
    node.until("ready", |n| n.is_ready(&p)).await;
    let old = node.runtime.sandboxes()[0].summary.id.clone();
    node.runtime.exit_sandbox(&old);
    // The agent dies when the new sandbox is there and nothing in it yet.
    node.runtime.delay(Op::CreateContainer, 1, Duration::from_secs(3600));
    let creations = node.runtime.count(Op::CreateContainer);
    node.until("a new sandbox", |n| n.runtime.count(Op::CreateContainer) > creations).await;
    let node = node.restart().await;
    node.want(std::slice::from_ref(&p));
    node.until("ready again", |n| n.is_ready(&p)).await;
    let order: Vec<String> = node.runtime.containers().iter().map(|c| c.metadata.name.clone()).collect();
    assert!(order.ends_with(&["i1", "i2", "a"].map(str::to_owned)), "{order:?}");
    assert_eq!(node.container(&p, "i2").restart_count, 1);
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_goes_away_changes_nothing() {
    let node = Node::start().await;
    let p = pod(ONE);
    node.want(std::slice::from_ref(&p));
    node.until("ready", |n| n.is_ready(&p)).await;
    for op in [Op::ListContainers, Op::ListPodSandbox, Op::ContainerStatus] {
        node.runtime.fail_next(op, 20, unavailable(op));
    }
    node.runtime.disconnect_events();
    node.settle(Duration::from_secs(300)).await;
    assert!(node.is_ready(&p));
    node.runtime.clear_faults();
    // What happened meanwhile is seen once it is back.
    node.runtime.exit_container(&node.runtime.container_named("a").unwrap().id, 1);
    node.until("restarted", |n| n.container(&p, "a").restart_count == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_protection_that_the_node_lacks_is_never_left_out_in_silence() {
    // A pod that wants users of its own, or a device, does not run without them.
    let cases = [
        (
            "  hostUsers: false\n  containers: [{name: a}]",
            "FailedCreatePodSandBox",
            "Failed to create pod sandbox: hostUsers",
        ),
        (
            "  resourceClaims: [{name: gpu, resourceClaimName: c}]\n  containers: [{name: a}]",
            "FailedPrepareDynamicResources",
            "Failed to prepare dynamic resources: ",
        ),
    ];
    for (spec, reason, start) in cases {
        let node = Node::start().await;
        let p = pod(spec);
        node.want(std::slice::from_ref(&p));
        node.until(reason, |n| n.said(reason, start)).await;
        node.settle(Duration::from_secs(60)).await;
        assert_eq!(node.status(&p).phase.as_deref(), Some("Pending"));
        assert_eq!(node.runtime.count(Op::RunPodSandbox), 0);
    }
    // Groups and mounts depend on the runtime.
    let strict = "  securityContext: {supplementalGroupsPolicy: Strict}\n  containers: [{name: a}]";
    let mount = "  containers: [{name: a, volumeMounts: [{name: v, mountPath: /v, readOnly: true, recursiveReadOnly: Enabled}]}]";
    let node = Node::start().await;
    let p = pod(strict);
    node.want(std::slice::from_ref(&p));
    node.until("refused", |n| n.status(&p).phase.as_deref() == Some("Failed")).await;
    let status = node.status(&p);
    assert_eq!(status.reason.as_deref(), Some("SupplementalGroupsPolicyNotSupported"));
    assert!(status.message.unwrap().contains("SupplementalGroupsPolicy=Strict is not supported in this node"));
    let node = Node::start().await;
    let p = pod(mount);
    node.want(std::slice::from_ref(&p));
    node.until("told", |n| n.waiting_reason(&p, "a").as_deref() == Some("CreateContainerConfigError")).await;
    assert_eq!(node.runtime.count(Op::CreateContainer), 0);
    // A runtime that can is asked to.
    for spec in [strict, mount] {
        let node = Node::start().await;
        let handler = RuntimeHandler { recursive_read_only_mounts: true, ..RuntimeHandler::default() };
        let features =
            RuntimeStatus { handlers: vec![handler], supplemental_groups_policy: true, ..RuntimeStatus::default() };
        node.runtime.set_features(features);
        let p = pod(spec);
        node.want(std::slice::from_ref(&p));
        node.until("ready", |n| n.is_ready(&p)).await;
        let config = node.runtime.container_config(&node.runtime.container_named("a").unwrap().id).unwrap();
        assert_eq!(config.security.strict_supplemental_groups, spec == strict);
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_that_cannot_be_stopped_is_not_started_beside_itself() {
    let node = Node::start().await;
    let p = pod("  containers: [{name: a, livenessProbe: {}}]");
    node.want(std::slice::from_ref(&p));
    node.until("running", |n| n.runtime.running() == ["a"]).await;
    let first = node.runtime.container_named("a").unwrap().id;
    node.runtime.fail_next(Op::StopContainer, 3, runtime_error(Op::StopContainer, "busy"));
    node.probed(&p, &first, ContainerProbes { liveness: ProbeOutcome::Failure, ..Default::default() });
    node.until("tried", |n| n.runtime.count(Op::StopContainer) == 3).await;
    assert_eq!(node.runtime.running(), ["a"], "one instance at a time");
    assert_eq!(node.runtime.count(Op::CreateContainer), 1);
    node.until("restarted", |n| n.container(&p, "a").restart_count == 1).await;
    assert_eq!((node.runtime.running(), node.runtime.count(Op::StopContainer)), (vec!["a".to_owned()], 4));
}

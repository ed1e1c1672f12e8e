//! Pods that live as they should.

use std::sync::Arc;
use std::time::Duration;

use cri::fake::{Behavior, Op};
use cri::types::ContainerState;
use k8s_openapi::api::core::v1::EphemeralContainer;

use super::harness::{Node, deleted, pod};
use crate::contract::{ContainerProbes, ProbeOutcome};
use crate::ids::PodUid;
use crate::podsource::PodOrigin;

const ONE: &str = "  containers: [{name: a}]";

#[tokio::test(start_paused = true)]
async fn a_pod_starts_with_no_needless_call() {
    let node = Node::start().await;
    node.runtime.clear_calls();
    let p = pod(ONE);
    node.want(std::slice::from_ref(&p));
    node.until("ready", |n| n.is_ready(&p)).await;
    let ops: Vec<Op> = node.runtime.calls().iter().map(|c| c.op).filter(|op| *op != Op::GetContainerEvents).collect();
    let once = [
        Op::RunPodSandbox,
        Op::PodSandboxStatus,
        Op::ImageStatus,
        Op::CreateContainer,
        Op::StartContainer,
        Op::ContainerStatus,
    ];
    for op in once {
        assert_eq!(ops.iter().filter(|o| **o == op).count(), 1, "{op:?} in {ops:?}");
    }
    let status = node.status(&p);
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert!(status.pod_ip.is_some() && status.start_time.is_some());
    assert_eq!(node.reasons(), ["Pulled", "Created", "Started"]);
    let config = node.runtime.container_config(&node.runtime.container_named("a").unwrap().id).unwrap();
    let paths: Vec<&str> = config.mounts.iter().map(|m| m.container_path.as_str()).collect();
    assert_eq!(paths, ["/etc/hosts", "/dev/termination-log"]);
}

/// What does not fit into its resolver configuration is left out, and told.
#[tokio::test(start_paused = true)]
async fn a_pod_is_told_what_its_resolver_lacks() {
    let node = Node::start().await;
    let p = pod("  dnsPolicy: None\n  dnsConfig: {nameservers: [a, b, c, d]}\n  containers: [{name: a}]");
    node.want(std::slice::from_ref(&p));
    node.until("ready", |n| n.is_ready(&p)).await;
    assert!(node.said("DNSConfigForming", "Nameserver limits exceeded"), "{:?}", node.messages());
    let config = node.runtime.sandbox_config(&node.runtime.sandboxes()[0].summary.id).unwrap();
    assert_eq!(config.dns.unwrap().servers, ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn init_containers_run_one_after_the_other() {
    let node = Node::start().await;
    for name in ["i1", "i2"] {
        node.runtime.set_behavior(name, Behavior::ExitsWith(0));
    }
    let p = pod("  initContainers: [{name: i1}, {name: i2}]\n  containers: [{name: a}]");
    node.want(std::slice::from_ref(&p));
    node.until("ready", |n| n.is_ready(&p)).await;
    let order: Vec<String> = node.runtime.containers().iter().map(|c| c.metadata.name.clone()).collect();
    assert_eq!(order, ["i1", "i2", "a"]);
    assert!(node.container(&p, "i2").ready);
}

#[tokio::test(start_paused = true)]
async fn a_crashing_container_backs_off() {
    let node = Node::start().await;
    let p = pod(ONE);
    node.want(std::slice::from_ref(&p));
    node.until("ready", |n| n.is_ready(&p)).await;
    node.runtime.exit_container(&node.runtime.container_named("a").unwrap().id, 3);
    node.until("restarted at once", |n| n.container(&p, "a").restart_count == 1 && n.is_ready(&p)).await;
    let last = node.container(&p, "a").last_state.unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (3, Some("Error")));
    node.runtime.exit_container(&node.runtime.container_named("a").unwrap().id, 4);
    node.until("waits", |n| n.waiting_reason(&p, "a").as_deref() == Some("CrashLoopBackOff")).await;
    assert_eq!(node.status(&p).phase.as_deref(), Some("Running"));
    let message = node.container(&p, "a").state.unwrap().waiting.unwrap().message.unwrap();
    assert!(message.starts_with("back-off 10s restarting failed container=a pod=p_ns(u)"), "{message}");
    node.until("restarted", |n| n.container(&p, "a").restart_count == 2 && n.is_ready(&p)).await;
    let dead = node.runtime.containers().iter().filter(|c| c.state == ContainerState::Exited).count();
    assert_eq!(dead, 1, "one dead instance stays for its logs");
    assert!(node.reasons().contains(&"BackOff"));
}

/// What was made before the clock was set back seems to be made after what was made since.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_starts_nothing_twice() {
    let node = Node::start().await;
    let p = pod(ONE);
    node.want(std::slice::from_ref(&p));
    node.until("ready", |n| n.is_ready(&p)).await;
    node.runtime.set_clock_back(Duration::from_secs(3600));
    node.runtime.exit_container(&node.runtime.container_named("a").unwrap().id, 3);
    node.until("restarted", |n| n.container(&p, "a").restart_count == 1 && n.is_ready(&p)).await;
    // Also for an agent that sees both at once, and at each further look.
    let mut node = node.restart().await;
    for sandboxes in 1..=2 {
        node.want(std::slice::from_ref(&p));
        node.until("ready again", |n| n.is_ready(&p)).await;
        node.settle(Duration::from_secs(300)).await;
        let containers = node.runtime.containers();
        node.workers.wake(&PodUid::of(&p));
        node.settle(Duration::from_secs(300)).await;
        assert_eq!((node.runtime.containers(), node.runtime.running()), (containers, vec!["a".to_owned()]));
        assert_eq!(node.runtime.count(Op::RunPodSandbox), sandboxes);
        let last = node.container(&p, "a").last_state.unwrap().terminated.unwrap();
        let dead = node.runtime.containers().into_iter().filter(|c| c.state == ContainerState::Exited);
        let dead: Vec<_> = dead.map(|c| format!("fake://{}", c.id)).collect();
        assert_eq!(dead, [last.container_id.unwrap()], "the last one's log stays");
        node.runtime.exit_sandbox(&node.runtime.sandboxes().last().unwrap().summary.id);
        node.until("in a new sandbox", |n| n.runtime.count(Op::RunPodSandbox) > sandboxes).await;
        node = node.restart().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_done_ends() {
    let node = Node::start().await;
    node.runtime.set_behavior("a", Behavior::ExitsWith(0));
    let p = pod("  restartPolicy: Never\n  containers: [{name: a}]");
    node.want(std::slice::from_ref(&p));
    node.until("done", |n| n.status(&p).phase.as_deref() == Some("Succeeded")).await;
    node.until("freed", |n| n.volumes.torn_down.lock().unwrap().contains(&PodUid::new("u"))).await;
    assert!(node.runtime.sandboxes().iter().all(|s| s.summary.state == cri::types::SandboxState::NotReady));
    assert_eq!(node.runtime.containers().len(), 1, "its logs stay readable");
    // Deleting it later removes what is left.
    node.want(&[]);
    node.until("gone", |n| n.workers.is_empty()).await;
    assert!(node.runtime.sandboxes().is_empty() && node.runtime.containers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn deletion_stops_in_order_and_leaves_nothing() {
    let node = Node::start().await;
    let p = pod("  initContainers: [{name: s, restartPolicy: Always}]\n  containers: [{name: a}, {name: b}]");
    node.want(std::slice::from_ref(&p));
    node.until("ready", |n| n.is_ready(&p)).await;
    node.want(&[deleted(&p, 30)]);
    node.until("ended", |n| n.volumes.torn_down.lock().unwrap().len() == 1).await;
    let stops: Vec<String> =
        node.runtime.calls().iter().filter(|c| c.op == Op::StopContainer).map(|c| c.object.clone()).collect();
    let sidecar = node.runtime.container_named("s").unwrap().id.to_string();
    assert_eq!((stops.len(), stops.last()), (3, Some(&sidecar)));
    let ended = node.container(&p, "a").state.unwrap().terminated.unwrap();
    assert_eq!(ended.exit_code, 0);
    assert!(!node.is_ready(&p));
    node.want(&[]);
    node.until("gone", |n| n.workers.is_empty()).await;
    assert!(node.runtime.sandboxes().is_empty());
    assert!(!node.deps.settings.paths.root.join("pods/u").exists());
    assert!(node.probes.removed.lock().unwrap().contains(&PodUid::new("u")));
}

#[tokio::test(start_paused = true)]
async fn a_debugger_is_put_among_its_targets_processes() {
    let node = Node::start().await;
    let mut p = pod(ONE);
    node.want(std::slice::from_ref(&p));
    node.until("ready", |n| n.is_ready(&p)).await;
    let debugger = |name: &str, target: &str| EphemeralContainer {
        name: name.into(),
        image: Some("img:1".into()),
        target_container_name: Some(target.into()),
        ..EphemeralContainer::default()
    };
    p.spec.as_mut().unwrap().ephemeral_containers = Some(vec![debugger("d", "a"), debugger("lost", "none")]);
    node.want(std::slice::from_ref(&p));
    node.until("both tried", |n| n.runtime.container_named("d").is_some() && n.said("Failed", "Error: unable")).await;
    let target = node.runtime.container_named("a").unwrap().id;
    let config = node.runtime.container_config(&node.runtime.container_named("d").unwrap().id).unwrap();
    assert_eq!(config.security.pid_target, Some(target));
    assert!(node.said("Failed", "Error: unable to find target container none"));
}

#[tokio::test(start_paused = true)]
async fn a_shorter_grace_period_counts_at_once() {
    let node = Node::start().await;
    node.runtime.set_behavior("a", Behavior::IgnoresStopSignal);
    let p = pod(ONE);
    node.want(std::slice::from_ref(&p));
    node.until("ready", |n| n.is_ready(&p)).await;
    let began = tokio::time::Instant::now();
    node.want(&[deleted(&p, 600)]);
    node.settle(Duration::from_secs(5)).await;
    node.want(&[deleted(&p, 1)]);
    node.until("ended", |n| !n.volumes.torn_down.lock().unwrap().is_empty()).await;
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_failed_liveness_probe_restarts() {
    let node = Node::start().await;
    let p = pod("  containers: [{name: a, livenessProbe: {}}]");
    node.want(std::slice::from_ref(&p));
    node.until("running", |n| n.runtime.running() == ["a"]).await;
    let first = node.runtime.container_named("a").unwrap().id;
    node.probed(&p, &first, ContainerProbes { liveness: ProbeOutcome::Failure, ..Default::default() });
    node.until("restarted", |n| n.container(&p, "a").restart_count == 1).await;
    assert_ne!(node.runtime.container_named("a").unwrap().id, first);
    assert!(node.reasons().contains(&"Killing"));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_fails_the_pod() {
    let node = Node::start().await;
    let p = pod("  activeDeadlineSeconds: 30\n  containers: [{name: a}]");
    node.want(std::slice::from_ref(&p));
    node.until("ready", |n| n.is_ready(&p)).await;
    node.until("failed", |n| n.status(&p).phase.as_deref() == Some("Failed")).await;
    assert_eq!(node.status(&p).reason.as_deref(), Some("DeadlineExceeded"));
    node.until("stopped", |n| n.runtime.running().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_full_refuses() {
    let node = Node::start().await;
    let p = pod("  containers: [{name: a, resources: {requests: {cpu: '3'}}}]");
    node.want(std::slice::from_ref(&p));
    node.until("refused", |n| n.status(&p).phase.as_deref() == Some("Failed")).await;
    let message = "Node didn't have enough resource: cpu, requested: 3000, used: 0, capacity: 2000";
    let status = node.status(&p);
    assert_eq!(status.reason.as_deref(), Some("OutOfcpu"));
    assert_eq!(status.message, Some(format!("Pod was rejected: {message}")));
    assert!(node.said("OutOfcpu", message));
    assert_eq!(node.runtime.count(Op::RunPodSandbox), 0);
}

#[tokio::test(start_paused = true)]
async fn a_new_agent_adopts_what_runs() {
    let node = Node::start().await;
    let p = pod(ONE);
    node.want(std::slice::from_ref(&p));
    node.until("ready", |n| n.is_ready(&p)).await;
    let id = node.runtime.container_named("a").unwrap().id;
    let node = node.restart().await;
    node.runtime.clear_calls();
    node.want(std::slice::from_ref(&p));
    node.until("ready again", |n| n.is_ready(&p)).await;
    node.settle(Duration::from_secs(120)).await;
    assert_eq!(node.runtime.container_named("a").unwrap().id, id);
    for op in [Op::RunPodSandbox, Op::CreateContainer, Op::StartContainer, Op::StopContainer, Op::StopPodSandbox] {
        assert_eq!(node.runtime.count(op), 0, "{op:?}");
    }
    assert_eq!(node.container(&p, "a").restart_count, 0);
}

#[tokio::test(start_paused = true)]
async fn pods_nobody_wants_end_once_that_is_known() {
    let node = Node::start().await;
    let p = pod(ONE);
    node.want(std::slice::from_ref(&p));
    node.until("ready", |n| n.is_ready(&p)).await;
    let node = node.restart().await;
    node.settle(Duration::from_secs(120)).await;
    assert_eq!(node.runtime.running(), ["a"], "nothing is known yet");
    node.want(&[]);
    node.until("ended", |n| n.runtime.sandboxes().is_empty() && n.workers.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_static_successor_of_the_same_name_waits() {
    let node = Node::start().await;
    node.runtime.set_behavior("a", Behavior::IgnoresStopSignal);
    let annotate = |uid: &str| {
        let mut p = pod("  terminationGracePeriodSeconds: 20\n  containers: [{name: a}]");
        p.metadata.uid = Some(uid.into());
        p.metadata.annotations = Some([("kubernetes.io/config.source".to_owned(), "file".to_owned())].into());
        p
    };
    let (old, new) = (annotate("old"), annotate("new"));
    node.want_from(PodOrigin::File, std::slice::from_ref(&old));
    node.until("ready", |n| n.is_ready(&old)).await;
    node.want_from(PodOrigin::File, std::slice::from_ref(&new));
    node.settle(Duration::from_secs(10)).await;
    assert_eq!(node.workers.len(), 1);
    assert_eq!(node.runtime.sandboxes().len(), 1);
    node.until("successor ready", |n| n.is_ready(&new)).await;
}

#[tokio::test(start_paused = true)]
async fn a_container_does_not_wait_for_its_neighbours_image() {
    let node = Node::start().await;
    node.runtime.add_remote_image("far:1");
    node.runtime.delay(Op::PullImage, 1, Duration::from_secs(600));
    let mut p = pod("  containers: [{name: a}, {name: b}]");
    p.spec.as_mut().unwrap().containers[1].image = Some("far:1".into());
    node.want(std::slice::from_ref(&p));
    let began = tokio::time::Instant::now();
    node.until("a runs and says so", |n| n.container(&p, "a").ready).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(node.runtime.running(), ["a"]);
    node.until("ready", |n| n.is_ready(&p)).await;
    assert_eq!(node.runtime.count(Op::RunPodSandbox), 1);
}

/// The scheduler sees new labels of a node before the node itself does.
#[tokio::test(start_paused = true)]
async fn an_old_view_of_the_node_refuses_nobody() {
    let (path, name) = ("/api/v1/nodes/n1".to_owned(), "n1");
    for (disk, taken) in [("ssd", true), ("hdd", false)] {
        let object = serde_json::json!({"kind": "Node", "apiVersion": "v1",
            "metadata": {"name": name, "labels": {"disk": disk}}});
        let node = Node::with_object(path.clone(), object).await;
        node.view.send_modify(|view| Arc::make_mut(view).node = Some(Arc::default()));
        let p = pod("  nodeSelector: {disk: ssd}\n  containers: [{name: a}]");
        node.want(std::slice::from_ref(&p));
        node.until("judged", |n| n.is_ready(&p) || n.status(&p).reason.is_some()).await;
        assert_eq!(node.is_ready(&p), taken);
        assert_eq!(node.status(&p).reason.as_deref(), (!taken).then_some("NodeAffinity"));
    }
    // Where nobody can be asked, the view decides.
    let node = Node::start().await;
    node.view.send_modify(|view| Arc::make_mut(view).node = Some(Arc::default()));
    let p = pod("  nodeSelector: {disk: ssd}\n  containers: [{name: a}]");
    node.want(std::slice::from_ref(&p));
    node.until("refused", |n| n.status(&p).reason.as_deref() == Some("NodeAffinity")).await;
}

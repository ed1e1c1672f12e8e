//! The manager against a scripted runtime.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};

use cri::SandboxId;
use cri::fake::FakeRuntime;
use cri::types::{ContainerMetadata, ContainerState, ContainerStatus as RuntimeStatus};
use harness::net::ClosedPort;
use harness::time;
use serde_json::json;
use tokio::sync::mpsc;

use super::*;
use crate::events::Event;
use crate::ids::ObjectName;

struct Setting {
    manager: Arc<ProbeManager>,
    wakes: Arc<AtomicUsize>,
    events: mpsc::Receiver<Event>,
    port: u16,
    _listener: tokio::net::TcpListener,
}

/// A manager whose "node" listens on a real port, so that TCP probes succeed.
async fn setting() -> Setting {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (recorder, events) = EventRecorder::channel(100);
    let wakes = Arc::new(AtomicUsize::new(0));
    let counter = wakes.clone();
    let sink: ProbeSink = Arc::new(move |_, _| {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let runtime: Arc<dyn RuntimeService> = FakeRuntime::new();
    let manager = ProbeManager::new(runtime, recorder, sink, "127.0.0.1", CancellationToken::new());
    Setting { manager, wakes, events, port, _listener: listener }
}

fn pod(container: serde_json::Value, status: serde_json::Value) -> Arc<Pod> {
    Arc::new(
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"hostNetwork": true, "containers": [container]}, "status": status}))
        .unwrap(),
    )
}

fn runtime(id: &str, state: ContainerState) -> Arc<RuntimePod> {
    let status = RuntimeStatus {
        id: ContainerId::new(id),
        metadata: ContainerMetadata { name: "c".into(), attempt: 0 },
        state,
        created_at: None,
        started_at: Some(Timestamp::now()),
        finished_at: None,
        exit_code: 0,
        image: String::new(),
        image_ref: String::new(),
        reason: String::new(),
        message: String::new(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        log_path: String::new(),
        mounts: Vec::new(),
        pid: None,
    };
    let (uid, name) = (PodUid::new("u"), ObjectName::new("ns", "p"));
    Arc::new(RuntimePod::assemble(uid, name, Vec::new(), vec![(SandboxId::new("s"), status)]))
}

async fn until(manager: &ProbeManager, id: &str, check: impl Fn(ContainerProbes) -> bool) {
    let said = async || check(manager.view(&PodUid::new("u")).get(&ContainerId::new(id)));
    time::eventually_true("what the probes say", said).await.unwrap();
}

#[tokio::test]
async fn startup_gates_the_others() {
    let s = setting().await;
    let tcp = json!({"tcpSocket": {"port": s.port}, "periodSeconds": 1, "timeoutSeconds": 3600});
    let pod = pod(json!({"name": "c", "startupProbe": tcp, "readinessProbe": tcp, "livenessProbe": tcp}), json!({}));
    let running = runtime("a", ContainerState::Running);
    s.manager.update_pod(&pod, &running);
    let key = |kind| ("c".to_owned(), kind);
    {
        let pods = s.manager.shared.lock();
        let workers = &pods[&PodUid::new("u")].workers;
        assert!(workers.contains_key(&key(ProbeKind::Startup)) && workers.len() == 1);
    }
    until(&s.manager, "a", |p| {
        p.startup == ProbeOutcome::Success
            && p.readiness == ProbeOutcome::Success
            && p.liveness == ProbeOutcome::Success
    })
    .await;
    assert!(s.wakes.load(Ordering::SeqCst) >= 3);
    let counts = s.manager.counts();
    assert_eq!(counts.len(), 3);
    let of = |kind| counts.iter().find(|(_, _, k, _)| *k == kind).map(|(_, _, _, c)| c.clone()).unwrap();
    // A startup probe ends with its first success; the others had one by then and go on.
    assert_eq!(of(ProbeKind::Startup), ProbeCounts { successful: 1, ..ProbeCounts::default() });
    for kind in [ProbeKind::Readiness, ProbeKind::Liveness] {
        let c = of(kind);
        assert!(c.successful >= 1 && (c.failed, c.unknown) == (0, 0), "{kind:?}: {c:?}");
    }

    // Another container starts from nothing.
    s.manager.update_pod(&pod, &runtime("b", ContainerState::Running));
    assert_eq!(s.manager.view(&PodUid::new("u")).get(&ContainerId::new("a")), ContainerProbes::default());
    until(&s.manager, "b", |p| p.readiness == ProbeOutcome::Success).await;

    s.manager.stop_liveness_and_startup(&PodUid::new("u"));
    assert_eq!(s.manager.shared.lock()[&PodUid::new("u")].workers.len(), 1);
    s.manager.update_pod(&pod, &runtime("b", ContainerState::Exited));
    assert!(s.manager.shared.lock()[&PodUid::new("u")].workers.is_empty());
    s.manager.remove_pod(&PodUid::new("u"));
    assert_eq!(s.manager.view(&PodUid::new("u")), ProbeView::default());
}

#[tokio::test]
async fn a_liveness_failure_stands_until_the_container_is_replaced() {
    let mut s = setting().await;
    let closed = ClosedPort::tcp().unwrap();
    let dead = closed.number();
    let pod = pod(
        json!({"name": "c", "livenessProbe": {"tcpSocket": {"port": dead}, "periodSeconds": 1, "failureThreshold": 1}}),
        json!({}),
    );
    let running = runtime("a", ContainerState::Running);
    s.manager.update_pod(&pod, &running);
    until(&s.manager, "a", |p| p.liveness == ProbeOutcome::Failure).await;
    let event = s.events.recv().await.unwrap();
    assert_eq!((event.reason.as_ref(), event.involved.field_path.as_str()), ("Unhealthy", "spec.containers{c}"));
    let refused = format!("Liveness probe failed: dial tcp 127.0.0.1:{dead}: connect: connection refused");
    assert_eq!(event.message, refused);
    // The same container is not probed again.
    s.manager.update_pod(&pod, &running);
    let failed = s.manager.counts()[0].3.failed;
    s.manager.update_pod(&pod, &runtime("b", ContainerState::Running));
    until(&s.manager, "b", |p| p.liveness == ProbeOutcome::Failure).await;
    assert_eq!(s.manager.counts()[0].3.failed, failed + 1);
}

#[tokio::test]
async fn a_restarted_agent_keeps_ready_containers_ready() {
    let s = setting().await;
    let tcp = json!({"tcpSocket": {"port": s.port}, "periodSeconds": 100});
    let container = json!({"name": "c", "startupProbe": tcp, "readinessProbe": tcp});
    let status = json!({"containerStatuses": [{"name": "c", "image": "i", "imageID": "", "restartCount": 0,
        "containerID": "containerd://a", "ready": true, "started": true}]});
    let pod = pod(container, status);
    s.manager.update_pod(&pod, &runtime("a", ContainerState::Running));
    let view = s.manager.view(&PodUid::new("u"));
    let probes = view.get(&ContainerId::new("a"));
    assert_eq!((probes.startup, probes.readiness), (ProbeOutcome::Success, ProbeOutcome::Success));
    // A container under another id is not believed.
    s.manager.update_pod(&pod, &runtime("b", ContainerState::Running));
    let view = s.manager.view(&PodUid::new("u"));
    assert_eq!(view.get(&ContainerId::new("b")).startup, ProbeOutcome::Unknown);
}

#[tokio::test]
async fn a_probe_that_cannot_run_counts_neither_way() {
    let mut s = setting().await;
    let pod = pod(
        json!({"name": "c", "readinessProbe": {"tcpSocket": {"port": "nameless"}, "failureThreshold": 1}}),
        json!({}),
    );
    s.manager.update_pod(&pod, &runtime("a", ContainerState::Running));
    let event = s.events.recv().await.unwrap();
    assert!(event.message.contains("unknown state: couldn't find port"), "{}", event.message);
    let view = s.manager.view(&PodUid::new("u"));
    assert_eq!(view.get(&ContainerId::new("a")).readiness, ProbeOutcome::Unknown);
    assert_eq!(s.manager.counts()[0].3, ProbeCounts { unknown: 1, ..ProbeCounts::default() });
}

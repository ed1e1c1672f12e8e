//! What reaches the API server, and what need not.

use serde_json::json;
use tokio::sync::watch;

use super::*;
use crate::podsource::DesiredPods;
use crate::testutil::pod;

/// Keeps what it was sent; refuses as often as told.
#[derive(Debug, Default)]
struct Server {
    patches: Mutex<Vec<Value>>,
    failures: Mutex<u32>,
    /// The UIDs that the patches were for.
    targets: Mutex<Vec<String>>,
}

#[async_trait]
impl StatusWriter for Server {
    async fn patch(&self, _: &ObjectName, patch: &Value) -> WriteOutcome {
        let mut failures = self.failures.lock().unwrap();
        self.patches.lock().unwrap().push(patch["status"].clone());
        self.targets.lock().unwrap().push(patch["metadata"]["uid"].as_str().unwrap().to_owned());
        if *failures > 0 {
            *failures -= 1;
            return WriteOutcome::Failed("scripted".to_owned());
        }
        WriteOutcome::Written
    }

    async fn delete(&self, _: &ObjectName, _: &str) -> WriteOutcome {
        WriteOutcome::Gone
    }
}

/// A manager at work for one server.
struct Scene {
    manager: StatusManager,
    server: Arc<Server>,
    token: CancellationToken,
    desired: watch::Sender<Arc<DesiredPods>>,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

impl Scene {
    fn start() -> Self {
        let (manager, server, token) = (StatusManager::new(), Arc::new(Server::default()), CancellationToken::new());
        let (sender, desired) = watch::channel(Arc::new(DesiredPods::default()));
        let (writer, running, stop) = (server.clone(), manager.clone(), token.clone());
        tokio::spawn(async move { running.run(writer, desired, stop).await });
        Self { manager, server, token, desired: sender }
    }

    /// What `report` keeps of a status once it is made.
    fn set(&self, pod: &Arc<Pod>, status: &PodStatus) {
        store(&mut self.manager.shared.lock(), facts(pod), status.clone());
        self.manager.shared.wake.notify_one();
    }

    /// What was sent until nothing is left to do: only then the paused time goes on.
    async fn sent(&self) -> Vec<Value> {
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert!(self.manager.pending().is_empty());
        std::mem::take(&mut *self.server.patches.lock().unwrap())
    }
}

fn facts(pod: &Arc<Pod>) -> StatusFacts {
    StatusFacts {
        pod: pod.clone(),
        runtime: Arc::new(crate::testutil::runtime(vec![], vec![])),
        waiting: BTreeMap::new(),
        messages: Arc::default(),
        stage: Stage::Syncing,
        failure: None,
        host_ips: vec!["192.0.2.1".to_owned()],
        runtime_name: "fake".to_owned(),
    }
}

fn status(phase: &str, message: Option<&str>) -> PodStatus {
    PodStatus { phase: Some(phase.to_owned()), message: message.map(str::to_owned), ..PodStatus::default() }
}

/// The pod as the server shows it.
fn shown(version: &str, status: Option<PodStatus>) -> Arc<Pod> {
    let mut pod = pod("  containers: [{name: a}]");
    (pod.metadata.resource_version, pod.status) = (Some(version.to_owned()), status);
    Arc::new(pod)
}

const NOTHING: [Value; 0] = [];

#[tokio::test(start_paused = true)]
async fn a_status_is_sent_when_it_changed_and_not_again() {
    let scene = Scene::start();
    let pod = shown("1", None);
    scene.set(&pod, &status("Pending", None));
    assert_eq!(scene.sent().await, [json!({"phase": "Pending"})]);
    for _ in 0..3 {
        scene.set(&pod, &status("Pending", None));
    }
    assert_eq!(scene.sent().await, NOTHING, "nothing changed");
    scene.set(&pod, &status("Running", None));
    assert_eq!(scene.sent().await, [json!({"phase": "Running"})]);
    // The watch brings back what we wrote: that is no news.
    scene.set(&shown("2", Some(status("Running", None))), &status("Running", None));
    assert_eq!(scene.sent().await, NOTHING);
    // Somebody wrote something else over it.
    scene.set(&shown("3", Some(status("Pending", None))), &status("Running", None));
    assert_eq!(scene.sent().await, [json!({"phase": "Running"})]);
}

#[tokio::test(start_paused = true)]
async fn what_the_server_shows_already_is_not_sent_after_a_restart() {
    let scene = Scene::start();
    let pod = shown("7", Some(status("Running", Some("fine"))));
    scene.set(&pod, &status("Running", Some("fine")));
    assert_eq!(scene.sent().await, NOTHING);
    scene.set(&pod, &status("Running", None));
    assert_eq!(scene.sent().await, [json!({"message": null})]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_status_is_sent_until_it_is_taken() {
    let scene = Scene::start();
    *scene.server.failures.lock().unwrap() = 3;
    let pod = shown("1", None);
    scene.set(&pod, &status("Running", None));
    assert_eq!(scene.sent().await.len(), 4);
    // Of what came while nothing could be sent only the latest counts.
    *scene.server.failures.lock().unwrap() = 1;
    scene.set(&pod, &status("Failed", None));
    scene.set(&pod, &status("Succeeded", None));
    assert_eq!(scene.sent().await, [json!({"phase": "Succeeded"}), json!({"phase": "Succeeded"})]);
}

#[tokio::test(start_paused = true)]
async fn a_static_pod_is_shown_by_its_own_mirror_only() {
    let scene = Scene::start();
    let with = |pairs: &[(&str, &str)], uid: &str| {
        let mut pod = pod("  containers: [{name: a}]");
        pod.metadata.uid = Some(uid.to_owned());
        pod.metadata.annotations = Some(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect());
        Arc::new(pod)
    };
    let source = ("kubernetes.io/config.source", "file");
    let old = with(&[source, (CONFIG_HASH, "old")], "static-old");
    let new = with(&[source, (CONFIG_HASH, "new")], "static-new");
    let show = |hash: &str, uid: &str| {
        let mirror = with(&[source, (CONFIG_HASH, hash), (CONFIG_MIRROR, hash)], uid);
        let mirrors = [(ObjectName::of_pod(&mirror), mirror)].into();
        scene.desired.send_replace(Arc::new(DesiredPods { mirrors, ..DesiredPods::default() }));
    };
    let targets = || std::mem::take(&mut *scene.server.targets.lock().unwrap());
    show("old", "mirror-old");
    scene.set(&old, &status("Running", None));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(targets(), ["mirror-old"]);
    // The successor's mirror is there; the old pod still says something.
    show("new", "mirror-new");
    scene.set(&old, &status("Failed", None));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(targets(), [""; 0]);
    scene.set(&new, &status("Pending", None));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(targets(), ["mirror-new"]);
}

/// What `ApiWriter` makes of a patch refused with `code` when the object has this
/// UID now, or is gone.
async fn refused(code: u16, uid: Option<&'static str>) -> WriteOutcome {
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (status, body) = match (request.method() == http::Method::PATCH, uid) {
            (true, _) => (code, json!({"kind": "Status", "status": "Failure", "reason": "Conflict", "code": code})),
            (_, Some(uid)) => (200, json!({"metadata": {"name": "p", "namespace": "ns", "uid": uid}})),
            (_, None) => (404, json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404})),
        };
        let body = kube::client::Body::from(body.to_string().into_bytes());
        async move { http::Response::builder().status(status).body(body) }
    });
    let writer = ApiWriter::new(kube::Client::new(service, "default"));
    writer.patch(&ObjectName::new("ns", "p"), &json!({"metadata": {"uid": "u"}, "status": {}})).await
}

#[tokio::test]
async fn a_conflict_is_another_pods_only_when_the_object_says_so() {
    for code in [409, 422] {
        assert!(matches!(refused(code, Some("u")).await, WriteOutcome::Failed(_)), "{code}: worth another try");
        assert!(matches!(refused(code, Some("other")).await, WriteOutcome::Gone), "{code}");
        assert!(matches!(refused(code, None).await, WriteOutcome::Gone), "{code}");
    }
    assert!(matches!(refused(404, Some("u")).await, WriteOutcome::Gone));
    assert!(matches!(refused(500, Some("u")).await, WriteOutcome::Failed(_)));
}

/// Probes of which one container's readiness can be set.
#[derive(Debug, Default)]
struct Readiness(Mutex<ProbeView>);

impl PodProbes for Readiness {
    fn update_pod(&self, _: &Arc<Pod>, _: &Arc<RuntimePod>) {}
    fn stop_liveness_and_startup(&self, _: &PodUid) {}
    fn remove_pod(&self, _: &PodUid) {}
    fn view(&self, _: &PodUid) -> ProbeView {
        self.0.lock().unwrap().clone()
    }
}

#[test]
fn a_probe_result_is_joined_with_the_facts_that_are_known() {
    use crate::contract::{ContainerProbes, ProbeOutcome};
    use crate::testutil::{at, instance, runtime, sandbox};
    let pod = Arc::new(pod("  containers: [{name: a, readinessProbe: {}}, {name: b}]"));
    let both = ["a", "b"].map(|name| instance(&pod, name, 0, cri::types::ContainerState::Running, 0));
    let (manager, probes) = (StatusManager::new(), Readiness::default());
    let is = |outcome| {
        let results = ContainerProbes { readiness: outcome, ..ContainerProbes::default() };
        probes.0.lock().unwrap().containers = [(cri::ContainerId::new("a-0"), results)].into();
    };
    let uid = PodUid::of(&pod);
    let ready = || {
        let status = manager.get(&uid).unwrap();
        let of = |kind: &str| status.conditions.iter().flatten().find(|c| c.type_ == kind).unwrap().status == "True";
        let containers: Vec<bool> = status.container_statuses.iter().flatten().map(|c| c.ready).collect();
        (containers, of("Ready"), of("ContainersReady"))
    };
    manager.probes_changed(&uid, &probes, at(0));
    assert!(manager.get(&uid).is_none(), "nothing is known of it yet");
    is(ProbeOutcome::Success);
    let view = Arc::new(runtime(vec![sandbox(0, true, false)], both.to_vec()));
    manager.report(StatusFacts { runtime: view.clone(), ..facts(&pod) }, &probes, at(0));
    assert_eq!(ready(), (vec![true, true], true, true));
    is(ProbeOutcome::Failure);
    manager.probes_changed(&uid, &probes, at(1));
    assert_eq!(ready(), (vec![false, true], false, false));
    // Once it is over no result counts.
    manager.report(StatusFacts { runtime: view, stage: Stage::Terminated, ..facts(&pod) }, &probes, at(2));
    is(ProbeOutcome::Success);
    manager.probes_changed(&uid, &probes, at(3));
    assert_eq!(ready(), (vec![false, false], false, false));
}

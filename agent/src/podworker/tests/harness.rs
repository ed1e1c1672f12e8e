//! A node without a machine: fake runtime, fake volumes and probes, no API.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use cri::fake::FakeRuntime;
use cri::types::Mount;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodStatus};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::contract::{ContainerProbes, MountedVolumes, PodProbes, PodVolumes, ProbeView, VolumeError};
use crate::convert::quantity::units;
use crate::events::{Event, EventRecorder};
use crate::ids::PodUid;
use crate::image::ImagePuller;
use crate::objectcache::store::NoObjects;
use crate::pleg::{Pleg, RelistHealth};
use crate::podcache::{PodCache, RuntimePod};
use crate::podsource::{DesiredPod, DesiredPods, DesiredRx, PodOrigin, SourcesReady};
use crate::podworker::admission::Admission;
use crate::podworker::{Deps, Dispatcher, NodeView, PodWorkers};
use crate::retention::Removals;
use crate::runtimeclass::RuntimeClasses;
use crate::status::StatusManager;

#[derive(Debug, Default)]
pub(super) struct FakeVolumes {
    pub fail_set_up: Mutex<usize>,
    pub fail_tear_down: Mutex<usize>,
    pub torn_down: Mutex<Vec<PodUid>>,
    /// The pods handed to `set_up`, in order.
    pub set_up: Mutex<Vec<Arc<Pod>>>,
    /// Who does it really, if anybody.
    pub real: Mutex<Option<Arc<dyn PodVolumes>>>,
}

impl FakeVolumes {
    fn real(&self) -> Option<Arc<dyn PodVolumes>> {
        self.real.lock().unwrap().clone()
    }
}

fn take(counter: &Mutex<usize>) -> bool {
    let mut left = counter.lock().unwrap();
    let fails = *left > 0;
    *left = left.saturating_sub(1);
    fails
}

#[async_trait]
impl PodVolumes for FakeVolumes {
    async fn set_up(&self, pod: &Arc<Pod>) -> Result<Arc<MountedVolumes>, VolumeError> {
        self.set_up.lock().unwrap().push(pod.clone());
        if take(&self.fail_set_up) {
            return Err(VolumeError::SetUp { volume: "v".into(), message: "configmap \"m\" not found".into() });
        }
        match self.real() {
            Some(real) => real.set_up(pod).await,
            None => Ok(Arc::default()),
        }
    }

    async fn container_mounts(
        &self,
        _pod: &Arc<Pod>,
        _container: &Container,
        _env: &[(String, String)],
        _volumes: &MountedVolumes,
    ) -> Result<Vec<Mount>, VolumeError> {
        Ok(Vec::new())
    }

    async fn tear_down(&self, uid: &PodUid) -> Result<(), VolumeError> {
        if take(&self.fail_tear_down) {
            return Err(VolumeError::TearDown { volume: "v".into(), message: "device busy".into() });
        }
        if let Some(real) = self.real() {
            real.tear_down(uid).await?;
        }
        self.torn_down.lock().unwrap().push(uid.clone());
        Ok(())
    }
}

#[derive(Debug, Default)]
pub(super) struct FakeProbes {
    pub view: Mutex<ProbeView>,
    pub removed: Mutex<Vec<PodUid>>,
}

impl FakeProbes {
    pub(super) fn set(&self, id: &cri::ContainerId, results: ContainerProbes) {
        self.view.lock().unwrap().containers.insert(id.clone(), results);
    }
}

impl PodProbes for FakeProbes {
    fn update_pod(&self, _pod: &Arc<Pod>, _runtime: &Arc<RuntimePod>) {}
    fn stop_liveness_and_startup(&self, _uid: &PodUid) {}
    fn remove_pod(&self, uid: &PodUid) {
        self.removed.lock().unwrap().push(uid.clone());
    }
    fn view(&self, _uid: &PodUid) -> ProbeView {
        self.view.lock().unwrap().clone()
    }
}

/// One life of the agent on a runtime that may outlive it.
pub(super) struct Node {
    pub runtime: Arc<FakeRuntime>,
    pub volumes: Arc<FakeVolumes>,
    pub probes: Arc<FakeProbes>,
    pub deps: Arc<Deps>,
    pub workers: PodWorkers,
    pub view: watch::Sender<Arc<NodeView>>,
    desired: watch::Sender<Arc<DesiredPods>>,
    events: Arc<Mutex<Vec<Event>>>,
    token: CancellationToken,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    dir: Arc<tempfile::TempDir>,
}

impl Node {
    pub(super) async fn start() -> Self {
        let runtime = FakeRuntime::new();
        runtime.add_image("img:1");
        Self::boot(runtime, Arc::new(tempfile::tempdir().unwrap()), None).await
    }

    /// A node whose API server serves RuntimeClasses: `handler` by `class`.
    pub(super) async fn with_class(class: &'static str, handler: &'static str) -> Self {
        let object = serde_json::json!({"metadata": {"name": class}, "handler": handler});
        Self::with_object(format!("/runtimeclasses/{class}"), object).await
    }

    /// A node whose API server serves one object, at the path that ends so.
    pub(super) async fn with_object(end: String, object: serde_json::Value) -> Self {
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let (status, body) = match request.uri().path().ends_with(&end) {
                true => (200, object.clone()),
                false => {
                    (404, serde_json::json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}))
                }
            };
            let body = kube::client::Body::from(body.to_string().into_bytes());
            async move { http::Response::builder().status(status).body(body) }
        });
        let runtime = FakeRuntime::new();
        runtime.add_image("img:1");
        let client = kube::Client::new(service, "default");
        Self::boot(runtime, Arc::new(tempfile::tempdir().unwrap()), Some(client)).await
    }

    /// The agent dies without a word and a new one starts on the same runtime.
    pub(super) async fn restart(mut self) -> Self {
        for task in self.tasks.drain(..) {
            task.abort();
        }
        self.token.cancel();
        Self::boot(self.runtime.clone(), self.dir.clone(), None).await
    }

    async fn boot(runtime: Arc<FakeRuntime>, dir: Arc<tempfile::TempDir>, client: Option<kube::Client>) -> Self {
        let (recorder, mut queue) = EventRecorder::channel(1024);
        let clock = Clock::tokio(Timestamp::now());
        let (volumes, probes) = (Arc::new(FakeVolumes::default()), Arc::new(FakeProbes::default()));
        let cache = Arc::new(PodCache::new());
        let objects = Arc::new(NoObjects::default());
        let view = NodeView {
            host_ips: vec!["192.0.2.1".into()],
            allocatable: [("cpu".to_owned(), units(2)), ("pods".to_owned(), units(10))].into(),
            memory_capacity: 1 << 30,
            ..NodeView::default()
        };
        let view = watch::channel(Arc::new(view)).0;
        let workers = PodWorkers::new();
        let deps = Arc::new(Deps {
            settings: crate::testutil::worker_settings(dir.path()),
            runtime: runtime.clone(),
            images: Arc::new(ImagePuller::new(runtime.clone(), objects.clone(), recorder.clone(), None)),
            cache: cache.clone(),
            status: StatusManager::new(),
            volumes: volumes.clone(),
            probes: probes.clone(),
            objects: objects.clone(),
            registry: objects,
            services: watch::channel(Some(Arc::default())).1,
            runtime_classes: RuntimeClasses::new(client.clone()),
            node: view.subscribe(),
            nodes: client.map(kube::Api::all),
            cgroups: None,
            admission: Admission::default(),
            workers: workers.clone(),
            kernel_log: Arc::default(),
            removals: Removals::default(),
            events: recorder,
            clock,
        });
        let (relisted_tx, relisted) = mpsc::channel(1);
        let token = CancellationToken::new();
        let period = Duration::from_secs(60);
        let health = RelistHealth::new(period);
        let pleg = Pleg::new(runtime.clone(), cache, workers.clone(), period, health, relisted_tx);
        pleg.relist().await.unwrap();
        let (desired, desired_rx) = watch::channel(Arc::new(DesiredPods::default()));
        let dispatcher = Dispatcher::new(deps.clone(), workers.clone(), token.clone());
        let events: Arc<Mutex<Vec<Event>>> = Arc::default();
        let sink = events.clone();
        let pleg_token = token.clone();
        let tasks = vec![
            tokio::spawn(dispatcher.run(desired_rx, relisted)),
            tokio::spawn(async move { pleg.run(pleg_token).await }),
            tokio::spawn(async move {
                while let Some(event) = queue.recv().await {
                    sink.lock().unwrap().push(event);
                }
            }),
        ];
        Self { runtime, volumes, probes, deps, workers, view, desired, events, token, tasks, dir }
    }

    /// Makes these pods, from the API server, the ones wanted.
    pub(super) fn want(&self, pods: &[Pod]) {
        self.want_from(PodOrigin::Api, pods);
    }

    pub(super) fn want_from(&self, origin: PodOrigin, pods: &[Pod]) {
        let one = |pod: &Pod| (PodUid::of(pod), DesiredPod { pod: Arc::new(pod.clone()), origin });
        let pods = pods.iter().map(one).collect();
        self.desire(DesiredPods { ready: SourcesReady::ALL, pods, ..DesiredPods::default() });
    }

    /// What is wanted, as others see it.
    pub(super) fn desired(&self) -> DesiredRx {
        self.desired.subscribe()
    }

    pub(super) fn desire(&self, desired: DesiredPods) {
        self.desired.send_replace(Arc::new(desired));
    }

    /// A probe of a container has these results now.
    pub(super) fn probed(&self, pod: &Pod, id: &cri::ContainerId, results: ContainerProbes) {
        self.probes.set(id, results);
        let uid = PodUid::of(pod);
        self.deps.status.probes_changed(&uid, self.probes.as_ref(), self.deps.clock.now());
        self.workers.wake(&uid);
    }

    pub(super) fn status(&self, pod: &Pod) -> PodStatus {
        self.deps.status.get(&PodUid::of(pod)).map(|s| PodStatus::clone(&s)).unwrap_or_default()
    }

    pub(super) fn container(&self, pod: &Pod, name: &str) -> ContainerStatus {
        let status = self.status(pod);
        let lists = [status.container_statuses, status.init_container_statuses];
        let found = lists.into_iter().flatten().flatten().find(|c| c.name == name);
        found.unwrap_or_default()
    }

    pub(super) fn waiting_reason(&self, pod: &Pod, name: &str) -> Option<String> {
        self.container(pod, name).state?.waiting?.reason
    }

    pub(super) fn is_ready(&self, pod: &Pod) -> bool {
        let conditions = self.status(pod).conditions.unwrap_or_default();
        conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
    }

    pub(super) fn reasons(&self) -> Vec<&'static str> {
        // Tests are short and compare with literals.
        self.events.lock().unwrap().iter().map(|h| &*h.reason.to_string().leak()).collect()
    }

    pub(super) fn messages(&self) -> Vec<String> {
        self.events.lock().unwrap().iter().map(|h| h.message.clone()).collect()
    }

    /// Whether there was an event of that reason whose message begins so.
    pub(super) fn said(&self, reason: &str, start: &str) -> bool {
        self.events.lock().unwrap().iter().any(|h| h.reason == reason && h.message.starts_with(start))
    }

    /// Waits, in virtual time, until `done` holds.
    pub(super) async fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let wait = async {
            while !done(self) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(900), wait).await.is_err() {
            let calls = self.runtime.calls();
            panic!("{what}: not in time\nevents {:?}\ncalls {calls:?}", self.events.lock().unwrap());
        }
    }

    /// Lets everything that is going to happen within `time` happen.
    pub(super) async fn settle(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

/// A pod `p` with that spec; `uid` and a deletion can be added.
pub(super) fn pod(spec: &str) -> Pod {
    let mut pod = crate::testutil::pod(spec);
    for c in pod.spec.iter_mut().flat_map(|s| s.containers.iter_mut().chain(s.init_containers.iter_mut().flatten())) {
        c.image = Some("img:1".into());
    }
    pod
}

pub(super) fn deleted(pod: &Pod, grace: i64) -> Pod {
    let mut pod = pod.clone();
    pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::now()));
    pod.metadata.deletion_grace_period_seconds = Some(grace);
    pod
}

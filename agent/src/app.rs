//! The composition root: builds every task of the agent, starts them in order
//! and drains them in order. Running pods are left alone at exit.
//!
//! Order of start: the runtime answers; cgroups stand; the port of the server
//! is taken; what the runtime has is listed; only then pods are read and
//! workers start. Order of exit: workers let go, statuses and events go out,
//! the rest ends.

mod configz;
mod directory;
mod readiness;
mod root;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use cri::{ImageService, RuntimeService};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::answers;
use crate::bootstrap::{Credentials, rotate};
use crate::cgroup::CgroupTree;
use crate::clock::Clock;
use crate::config::AgentConfig;
use crate::contract::{ChangeSink, PodVolumes, ProbeSink};
use crate::convert::fields::FieldContext;
use crate::convert::resources::PodCgroupLimits;
use crate::events::limit::Rate;
use crate::events::{self, EventRecorder, EventType};
use crate::eviction::EvictionManager;
use crate::eviction::signals::MachineSignals;
use crate::image::ImagePuller;
use crate::image::records::PullRecords;
use crate::node::facts::MachineInfo;
use crate::node::{NodeStatusSync, NodeView, allocatable, capacity};
use crate::objectcache::store::NoObjects;
use crate::objectcache::{ObjectCache, ObjectReader, ObjectRegistry};
use crate::plan::eviction::Pressures;
use crate::pleg::{Pleg, RelistHealth};
use crate::podcache::PodCache;
use crate::podsource::file::FileSource;
use crate::podsource::merge::Merger;
use crate::podsource::{self, DesiredRx};
use crate::podworker::admission::Admission;
use crate::podworker::deps::ServicesRx;
use crate::podworker::kernel_log::KernelLog;
use crate::podworker::{Deps, Dispatcher, PodWorkers, WorkerSettings, housekeeping};
use crate::probe::ProbeManager;
use crate::resolver;
use crate::retention::Removals;
use crate::retention::images::{ImageCollector, UnusedImages};
use crate::retention::logs::{LogRotator, RotationPolicy};
use crate::runtimeclass::RuntimeClasses;
use crate::server::{self, BoundServer, ServerState};
use crate::services;
use crate::status::StatusManager;
use crate::status::manager::ApiWriter;
use crate::tasks::{TaskRestarts, Tasks};
use crate::volume::{VolumeConfig, VolumeManager};
use readiness::{announce, first_look, wait_for_runtime};

/// What the agent is given by the process it lives in.
#[derive(Clone)]
pub struct Inputs {
    pub config: AgentConfig,
    /// `None`: standalone, static pods only.
    pub client: Option<kube::Client>,
    pub runtime: Arc<dyn RuntimeService>,
    pub images: Arc<dyn ImageService>,
}

impl std::fmt::Debug for Inputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inputs").field("node", &self.config.node.name).finish_non_exhaustive()
    }
}

/// Longest drain at exit.
const DRAIN: Duration = Duration::from_secs(5);
/// Events that may wait to be written.
const EVENT_QUEUE: usize = 1024;

/// Runs the agent until `token` is cancelled or it cannot go on. `ready` turns
/// true once pods are served: the runtime answered, the node is registered and
/// the pod sources have synced.
pub async fn run(inputs: Inputs, ready: watch::Sender<bool>, token: CancellationToken) -> anyhow::Result<()> {
    let inputs = Inputs { client: inputs.client.map(answers::bounded), ..inputs };
    let Some(runtime_name) = wait_for_runtime(inputs.runtime.as_ref(), &token).await else { return Ok(()) };
    let app = App::build(inputs, runtime_name).await?;
    app.serve(ready, token).await
}

/// Ends tasks, one generation after the other.
async fn drain(generations: [Tasks; 3]) {
    for group in generations {
        if !group.drain(DRAIN).await {
            tracing::warn!("tasks did not end in time");
        }
    }
}

/// What all pods together are held to.
fn all_pods(config: &AgentConfig) -> PodCgroupLimits {
    let nothing = std::collections::BTreeMap::new();
    let reserved = if config.cgroups.enforce_node_allocatable { &config.node.reserved } else { &nothing };
    capacity::kubepods_limits(&MachineInfo::read(), reserved)
}

/// Everything built, nothing running.
struct App {
    config: AgentConfig,
    client: Option<kube::Client>,
    runtime: Arc<dyn RuntimeService>,
    images: Arc<dyn ImageService>,
    pulls: Arc<PullRecords>,
    clock: Clock,
    runtime_name: String,
    relist_health: RelistHealth,
    cgroups: Option<Arc<CgroupTree>>,
    server: Option<BoundServer>,
    /// Where the serving certificate is kept that is asked for.
    serving: Option<Credentials>,
}

impl App {
    async fn build(inputs: Inputs, runtime_name: String) -> anyhow::Result<Self> {
        let Inputs { mut config, client, runtime, images } = inputs;
        root::make(&config.paths.root)
            .with_context(|| format!("create the kubelet's root {}", config.paths.root.display()))?;
        let pulls = PullRecords::load(config.image_verification.clone(), config.paths.root.join("image_manager"))
            .context("read what is remembered of image pulls")?;
        let cgroups = if config.cgroups.per_qos {
            let tree = CgroupTree::detect(&config.cgroups).context("find cgroups")?;
            tree.set_up(all_pods(&config).cpu_shares).await.context("make the cgroup tree of pods")?;
            Some(Arc::new(tree))
        } else {
            None
        };
        let asks = config.server.tls_bootstrap && config.server.cert_file.is_none() && client.is_some();
        let serving = asks.then(|| Credentials::serving(config.paths.root.join("pki")));
        // Given files win, as upstream.
        config.server.tls_bootstrap = asks;
        if let Some(serving) = &serving {
            config.server.cert_file = Some(serving.current());
            config.server.key_file = Some(serving.current());
        }
        let server = if config.server.enabled {
            let mut names: Vec<String> = vec![config.node.hostname.clone()];
            names.extend(crate::node::address::node_ips(&config.node.ips).iter().map(ToString::to_string));
            Some(server::bind(&config.server, &names).await.context("start the kubelet server")?)
        } else {
            None
        };
        let relist_health = RelistHealth::new(config.relist);
        Ok(Self {
            config,
            client,
            runtime,
            images,
            pulls,
            clock: Clock::System,
            runtime_name,
            relist_health,
            cgroups,
            server,
            serving,
        })
    }

    fn worker_settings(&self) -> WorkerSettings {
        let config = &self.config;
        WorkerSettings {
            node_name: config.node.name.clone(),
            paths: config.paths.clone(),
            dns: config.dns.clone(),
            cfs_quota: config.cgroups.cfs_quota,
            cfs_period: i64::try_from(config.cgroups.cfs_period.as_micros()).unwrap_or(100_000),
            pod_pids_limit: config.cgroups.pod_pids_limit,
            memory: self.cgroups.as_ref().map(|tree| tree.memory_control(&config.cgroups)).unwrap_or_default(),
            seccomp_default: config.seccomp_default,
            max_crash_backoff: config.max_crash_backoff,
            allowed_unsafe_sysctls: config.allowed_unsafe_sysctls.clone(),
            runtime_name: self.runtime_name.clone(),
        }
    }

    async fn serve(mut self, ready: watch::Sender<bool>, token: CancellationToken) -> anyhow::Result<()> {
        // Three generations, so that the drain has an order.
        let (panics, mut panicked) = mpsc::unbounded_channel();
        let restarts = TaskRestarts::default();
        let [worker_tasks, writer_tasks, tasks] = [(); 3].map(|()| Tasks::new(panics.clone(), restarts.clone()));
        let (workers_token, writers_token, rest) = (worker_tasks.token(), writer_tasks.token(), tasks.token());
        let (recorder, queue) = EventRecorder::channel(EVENT_QUEUE);
        let node_name = self.config.node.name.clone();
        let rate = Rate::per_second(self.config.events.record_qps, self.config.events.burst);
        let (client, name, token_of_events) = (self.client.clone(), node_name.clone(), writers_token.clone());
        writer_tasks.spawn("events", events::write::run(client, queue, rate, name, self.clock, token_of_events));
        if let Some(tree) = self.cgroups.clone() {
            let (limits, token) = (all_pods(&self.config), rest.clone());
            tasks.spawn(
                "node allocatable",
                allocatable::enforce(tree, limits, recorder.clone(), node_name.clone(), token),
            );
        }
        let (pressures_tx, pressures) = watch::channel(Pressures::new());
        let node = self.start_node(&recorder, pressures, &tasks, &rest);
        if !first_look(node.clone(), &token).await {
            return Ok(());
        }
        if let Some(problem) = resolver::problem(&self.config.paths.resolv_conf, &self.config.dns.domain) {
            recorder.node(&node_name, EventType::Warning, "CheckLimitsForResolvConf", problem);
        }
        let server = self.server.take();
        let pods = self.build_pod_components(&recorder, node.clone(), &tasks, &rest);
        if !pods.pleg.first_list(&token).await {
            return Ok(());
        }
        let eviction = self.eviction_manager(&pods, pressures_tx);
        tasks.spawn("eviction", eviction.run(rest.clone()));
        let desired = self.start_sources(&recorder, node.clone(), &tasks, &rest, &pods).await;
        let pleg = pods.pleg.clone();
        tasks.spawn("pleg", {
            let rest = rest.clone();
            async move { pleg.run(rest).await }
        });
        if let Some(client) = &self.client {
            let (status, writer) = (pods.deps.status.clone(), Arc::new(ApiWriter::new(client.clone())));
            let (desired, token) = (desired.clone(), writers_token.clone());
            writer_tasks.spawn("pod status", async move { status.run(writer, desired, token).await });
        }
        let dispatcher = Dispatcher::new(pods.deps.clone(), pods.workers.clone(), workers_token.clone());
        worker_tasks.spawn("pod workers", dispatcher.run(desired.clone(), pods.relisted));
        tasks.keep("housekeeping", {
            let (deps, workers, desired, rest) =
                (pods.deps.clone(), pods.workers.clone(), desired.clone(), rest.clone());
            move || housekeeping::run(deps.clone(), workers.clone(), desired.clone(), rest.clone())
        });
        if let (Some(serving), Some(client)) = (self.serving.take(), self.client.clone()) {
            let (name, node, rest) = (self.config.node.name.clone(), node.clone(), rest.clone());
            tasks.spawn("serving certificate", rotate::serving(serving, name, client, node, rest));
        }
        if let Some(server) = server {
            let state = self.server_state(&pods.deps, pods.probes.clone(), desired.clone(), restarts);
            let rest = rest.clone();
            tasks.spawn("server", async move { server.serve(state, rest).await });
        }
        tasks.spawn("readiness", announce(self.client.is_some(), desired, node, ready, rest.clone()));
        let panic = tokio::select! {
            () = token.cancelled() => None,
            // Cancel-safe: nothing is waited for afterwards.
            panic = panicked.recv() => panic,
        };
        drain([worker_tasks, writer_tasks, tasks]).await;
        panic.map_or(Ok(()), |panic| Err(panic.into()))
    }

    fn start_node(
        &self,
        recorder: &EventRecorder,
        pressures: watch::Receiver<Pressures>,
        tasks: &Tasks,
        token: &CancellationToken,
    ) -> watch::Receiver<Arc<NodeView>> {
        let (tx, rx) = watch::channel(Arc::new(NodeView::default()));
        let node_sync = NodeStatusSync {
            settings: self.config.node.clone(),
            eviction: self.config.eviction.clone(),
            pressures,
            root: self.config.paths.root.clone(),
            runtime: self.runtime.clone(),
            pleg: self.relist_health.clone(),
            images: self.images.clone(),
            port: self.server.as_ref().map_or(0, BoundServer::port),
            events: recorder.clone(),
            clock: self.clock,
        };
        let (client, token) = (self.client.clone(), token.clone());
        tasks.spawn("node", async move { node_sync.run(client, tx, token).await });
        rx
    }

    fn build_pod_components(
        &self,
        recorder: &EventRecorder,
        node: watch::Receiver<Arc<NodeView>>,
        tasks: &Tasks,
        token: &CancellationToken,
    ) -> PodComponents {
        let cache = Arc::new(PodCache::new());
        let workers = PodWorkers::new();
        let (objects, registry): (Arc<dyn ObjectReader>, Arc<dyn ObjectRegistry>) = match &self.client {
            Some(client) => {
                let cache = Arc::new(ObjectCache::new(client.clone(), tasks.clone()));
                (cache.clone(), cache)
            }
            None => (Arc::new(NoObjects::default()), Arc::new(NoObjects::default())),
        };
        let view = node.borrow().clone();
        let host_ip = view.host_ips.first().cloned().unwrap_or_else(|| "127.0.0.1".to_owned());
        let sink: ChangeSink = {
            let workers = workers.clone();
            Arc::new(move |uid| workers.wake(uid))
        };
        let status = StatusManager::new();
        let probed: ProbeSink = {
            let (workers, status, clock) = (workers.clone(), status.clone(), self.clock);
            Arc::new(move |uid, probes| {
                // At once: the pod's worker may be busy for long.
                status.probes_changed(uid, probes, clock.now());
                workers.wake(uid);
            })
        };
        let probes = ProbeManager::new(self.runtime.clone(), recorder.clone(), probed, host_ip, token.clone());
        let fields = FieldContext {
            pod_ips: Vec::new(),
            host_ips: view.host_ips.clone(),
            allocatable: view.allocatable.clone(),
        };
        let removals = Removals::default();
        let pods_root = self.config.paths.root.join("pods");
        let volume_config = VolumeConfig { pods_root, fields };
        let volumes = VolumeManager::new(volume_config, objects.clone(), recorder.clone(), sink);
        tasks.spawn("volumes", {
            let (volumes, token) = (volumes.clone(), token.clone());
            async move { volumes.run(token).await }
        });
        let services = self.start_services(tasks, token);
        let parallel = self.config.images.max_parallel_pulls;
        let images = ImagePuller::new(self.images.clone(), objects.clone(), recorder.clone(), parallel)
            .with_records(self.pulls.clone());
        let deps = Arc::new(Deps {
            settings: self.worker_settings(),
            runtime: self.runtime.clone(),
            images: Arc::new(images),
            cache: cache.clone(),
            status,
            volumes: volumes as Arc<dyn PodVolumes>,
            probes: probes.clone(),
            objects,
            registry,
            services,
            runtime_classes: RuntimeClasses::new(self.client.clone()),
            node,
            nodes: self.client.clone().map(kube::Api::all),
            cgroups: self.cgroups.clone(),
            admission: Admission::default(),
            workers: workers.clone(),
            kernel_log: Arc::new(KernelLog::open(std::path::Path::new("/dev/kmsg"))),
            removals,
            events: recorder.clone(),
            clock: self.clock,
        });
        let unused_images = self.start_collectors(&cache, recorder, tasks, token);
        let (relisted_tx, relisted) = mpsc::channel(1);
        let (period, health) = (self.config.relist, self.relist_health.clone());
        let pleg = Pleg::new(self.runtime.clone(), cache, workers.clone(), period, health, relisted_tx);
        let pleg = Arc::new(pleg);
        PodComponents { deps, workers, pleg, relisted, probes, unused_images }
    }

    fn start_services(&self, tasks: &Tasks, token: &CancellationToken) -> ServicesRx {
        let known = self.client.is_none().then(Arc::default);
        let (tx, rx) = watch::channel(known);
        if let Some(client) = &self.client {
            tasks.spawn("services", services::run(client.clone(), tx, token.clone()));
        }
        rx
    }

    fn start_collectors(
        &self,
        cache: &Arc<PodCache>,
        recorder: &EventRecorder,
        tasks: &Tasks,
        token: &CancellationToken,
    ) -> UnusedImages {
        let name = self.config.node.name.clone();
        let settings = &self.config.images;
        let collector = ImageCollector::new(
            self.images.clone(),
            self.runtime.clone(),
            recorder.clone(),
            self.clock,
            name,
            settings,
        )
        .with_records(self.pulls.clone());
        let (unused_images, requests) = UnusedImages::channel();
        tasks.spawn("image collector", collector.run(requests, token.clone()));
        let policy = RotationPolicy {
            max_size: self.config.logs.max_size,
            max_files: usize::try_from(self.config.logs.max_files).unwrap_or(5).max(2),
            ..RotationPolicy::default()
        };
        let rotator = LogRotator::new(self.runtime.clone(), cache.clone(), policy);
        let (rotator, token) = (Arc::new(rotator), token.clone());
        tasks.keep("log rotation", move || {
            let (rotator, token) = (rotator.clone(), token.clone());
            async move { rotator.run(token).await }
        });
        unused_images
    }

    fn eviction_manager(&self, pods: &PodComponents, pressures: watch::Sender<Pressures>) -> EvictionManager {
        let signals = Arc::new(MachineSignals::new(
            self.config.paths.clone(),
            self.runtime.clone(),
            self.images.clone(),
            pods.deps.cache.clone(),
            self.cgroups.clone(),
            pods.unused_images.clone(),
        ));
        EvictionManager::new(pods.deps.clone(), pods.workers.clone(), signals, &self.config.eviction, pressures)
    }

    /// Reads pods.
    async fn start_sources(
        &self,
        recorder: &EventRecorder,
        node: watch::Receiver<Arc<NodeView>>,
        tasks: &Tasks,
        token: &CancellationToken,
        pods: &PodComponents,
    ) -> DesiredRx {
        let config = &self.config;
        let files = &config.static_pods;
        let (merger, desired) = Merger::new(self.client.is_some(), files.directory.is_some(), files.url.is_some());
        if let Some(path) = &files.directory {
            let name = config.node.name.clone();
            let source = FileSource::new(path.clone(), name, merger.clone(), recorder.clone(), self.clock);
            tasks.spawn("static pods", source.every(files.file_interval).run(token.clone()));
        }
        if files.url.is_some() {
            let (settings, name) = (files.clone(), config.node.name.clone());
            tasks.spawn(
                "static pods of a URL",
                podsource::url::run(settings, name, merger.clone(), recorder.clone(), self.clock, token.clone()),
            );
        }
        if let Some(client) = &self.client {
            let (client, name, token) = (client.clone(), config.node.name.clone(), token.clone());
            let workers = pods.workers.clone();
            let mirrors = podsource::mirror::run(client.clone(), desired.clone(), node, workers, token.clone());
            tasks.spawn("mirror pods", mirrors);
            let events = recorder.clone();
            tasks.spawn("pods", async move { podsource::api::run(client, &name, merger, events, token).await });
        }
        desired
    }

    fn server_state(
        &self,
        deps: &Arc<Deps>,
        probes: Arc<ProbeManager>,
        desired: DesiredRx,
        restarts: TaskRestarts,
    ) -> ServerState {
        ServerState {
            workers: deps.workers.clone(),
            node_name: self.config.node.name.clone(),
            view: Arc::new(directory::PodDirectory::new(desired, deps.status.clone())),
            cache: deps.cache.clone(),
            runtime: self.runtime.clone(),
            client: self.client.clone(),
            probes,
            log_dir: std::path::PathBuf::from("/var/log"),
            root_dir: self.config.paths.root.clone(),
            configz: Arc::new(configz::configz(&self.config)),
            restarts,
        }
    }
}

/// What the pod workers are made of.
struct PodComponents {
    deps: Arc<Deps>,
    workers: PodWorkers,
    pleg: Arc<Pleg>,
    relisted: mpsc::Receiver<()>,
    probes: Arc<ProbeManager>,
    unused_images: UnusedImages,
}

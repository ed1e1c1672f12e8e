//! Startup, readiness and liveness probes of this node's containers.
//!
//! [`ProbeManager`] implements [`PodProbes`]: a light task per probe, results by
//! container id, a call of the [`ProbeSink`] on each change. Deciding what a
//! result means is [`threshold`]'s and [`target`]'s (both pure). Restarting a
//! container or writing a status is others' work.

pub mod grpc;
pub mod http;
pub mod target;
pub mod threshold;
pub mod url;
pub mod worker;

use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use cri::{ContainerId, RuntimeService};
use futures::FutureExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, Probe};
use tokio_util::sync::CancellationToken;

use crate::contract::{ContainerProbes, PodProbes, ProbeOutcome, ProbeSink, ProbeView};
use crate::events::{EventRecorder, EventType};
use crate::ids::PodUid;
use crate::podcache::{RuntimeContainer, RuntimePod};
use threshold::{ProbeKind, Timing, first_delay};
use worker::{ProbeResult, ProbeWorker, Report};

/// How often each result of a probe was seen, for `/metrics/probes`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeCounts {
    pub successful: u64,
    pub failed: u64,
    pub unknown: u64,
}

/// Runs all probes of the node.
#[derive(Debug)]
pub struct ProbeManager {
    shared: Arc<Shared>,
}

struct Shared {
    runtime: Arc<dyn RuntimeService>,
    events: EventRecorder,
    sink: ProbeSink,
    /// Address of pods on the node's network.
    host_ip: String,
    token: CancellationToken,
    started_at: Timestamp,
    pods: Mutex<HashMap<PodUid, PodEntry>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("host_ip", &self.host_ip).finish_non_exhaustive()
    }
}

struct PodEntry {
    pod: Arc<Pod>,
    runtime: Arc<RuntimePod>,
    /// Running probes by container name and kind.
    workers: HashMap<(String, ProbeKind), Running>,
    view: ProbeView,
    counts: BTreeMap<(String, ProbeKind), ProbeCounts>,
    terminating: bool,
}

struct Running {
    id: ContainerId,
    token: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

impl ProbeManager {
    /// A manager that probes nothing yet. `host_ip` is the node's address;
    /// cancelling `token` ends every probe.
    pub fn new(
        runtime: Arc<dyn RuntimeService>,
        events: EventRecorder,
        sink: ProbeSink,
        host_ip: impl Into<String>,
        token: CancellationToken,
    ) -> Arc<Self> {
        let shared = Shared {
            runtime,
            events,
            sink,
            host_ip: host_ip.into(),
            token,
            started_at: Timestamp::now(),
            pods: Mutex::default(),
        };
        Arc::new(Self { shared: Arc::new(shared) })
    }

    /// Counters of every probe that exists: (pod, container, kind, counts).
    pub fn counts(&self) -> Vec<(Arc<Pod>, String, ProbeKind, ProbeCounts)> {
        let pods = self.shared.lock();
        let entries = pods.values().flat_map(|entry| {
            entry.counts.iter().map(|((name, kind), counts)| (entry.pod.clone(), name.clone(), *kind, counts.clone()))
        });
        entries.collect()
    }
}

impl PodProbes for ProbeManager {
    fn update_pod(&self, pod: &Arc<Pod>, runtime: &Arc<RuntimePod>) {
        if !has_probes(pod) {
            return;
        }
        let uid = PodUid::of(pod);
        let mut pods = self.shared.lock();
        let entry = pods.entry(uid.clone()).or_insert_with(|| PodEntry {
            pod: pod.clone(),
            runtime: runtime.clone(),
            workers: HashMap::new(),
            view: ProbeView::default(),
            counts: BTreeMap::new(),
            terminating: false,
        });
        entry.pod = pod.clone();
        entry.runtime = runtime.clone();
        self.shared.fit(&uid, entry);
    }

    fn stop_liveness_and_startup(&self, uid: &PodUid) {
        if let Some(entry) = self.shared.lock().get_mut(uid) {
            entry.terminating = true;
            entry.workers.retain(|(_, kind), _| !kind.is_fatal());
        }
    }

    fn remove_pod(&self, uid: &PodUid) {
        self.shared.lock().remove(uid);
    }

    fn view(&self, uid: &PodUid) -> ProbeView {
        self.shared.lock().get(uid).map(|entry| entry.view.clone()).unwrap_or_default()
    }
}

/// Containers that may have probes: all but ordinary init containers.
fn probed_containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.as_ref();
    let sidecars = spec.and_then(|s| s.init_containers.as_deref()).unwrap_or_default().iter();
    let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    sidecars.chain(spec.map(|s| s.containers.as_slice()).unwrap_or_default())
}

fn probe_of(container: &Container, kind: ProbeKind) -> Option<&Probe> {
    match kind {
        ProbeKind::Startup => container.startup_probe.as_ref(),
        ProbeKind::Readiness => container.readiness_probe.as_ref(),
        ProbeKind::Liveness => container.liveness_probe.as_ref(),
    }
}

fn has_probes(pod: &Pod) -> bool {
    probed_containers(pod).any(|c| ProbeKind::ALL.iter().any(|kind| probe_of(c, *kind).is_some()))
}

fn outcome_of(probes: &mut ContainerProbes, kind: ProbeKind) -> &mut ProbeOutcome {
    match kind {
        ProbeKind::Startup => &mut probes.startup,
        ProbeKind::Readiness => &mut probes.readiness,
        ProbeKind::Liveness => &mut probes.liveness,
    }
}

/// What the API knows of a container, if it is this very one.
fn api_status<'a>(pod: &'a Pod, id: &ContainerId) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let mut all = status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
    all.find(|s| s.container_id.as_deref().is_some_and(|full| full.rsplit("//").next() == Some(id.as_str())))
}

/// Where a container's results stand when it is first seen: what the status
/// says survives a restart of the agent.
fn adopted(pod: &Pod, container: &Container, id: &ContainerId) -> ContainerProbes {
    let status = api_status(pod, id);
    let known = |present: bool, yes: bool| {
        if present && yes { ProbeOutcome::Success } else { ProbeOutcome::Unknown }
    };
    ContainerProbes {
        startup: known(container.startup_probe.is_some(), status.is_some_and(|s| s.started == Some(true))),
        readiness: known(container.readiness_probe.is_some(), status.is_some_and(|s| s.ready)),
        liveness: ProbeOutcome::Unknown,
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<PodUid, PodEntry>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes workers and results fit the running containers. Idempotent.
    fn fit(self: &Arc<Self>, uid: &PodUid, entry: &mut PodEntry) {
        let (pod, runtime) = (entry.pod.clone(), entry.runtime.clone());
        let known: Vec<&ContainerId> = runtime.containers.iter().map(RuntimeContainer::id).collect();
        entry.view.containers.retain(|id, _| known.contains(&id));
        entry.workers.retain(|(name, _), worker| {
            runtime.container(name).is_some_and(|c| c.is_running() && *c.id() == worker.id)
        });
        for container in probed_containers(&pod) {
            let running = runtime.container(&container.name).filter(|c| c.is_running());
            if let Some(running) = running {
                self.fit_container(uid, entry, container, running);
            }
        }
    }

    fn fit_container(
        self: &Arc<Self>,
        uid: &PodUid,
        entry: &mut PodEntry,
        container: &Container,
        running: &RuntimeContainer,
    ) {
        let id = running.id();
        let pod = entry.pod.clone();
        let mut probes = *entry.view.containers.entry(id.clone()).or_insert_with(|| adopted(&pod, container, id));
        let has_started = container.startup_probe.is_none() || probes.startup == ProbeOutcome::Success;
        for kind in ProbeKind::ALL {
            let Some(probe) = probe_of(container, kind) else { continue };
            let outcome = *outcome_of(&mut probes, kind);
            let due = match kind {
                ProbeKind::Startup => outcome == ProbeOutcome::Unknown && !entry.terminating,
                ProbeKind::Liveness => has_started && outcome != ProbeOutcome::Failure && !entry.terminating,
                ProbeKind::Readiness => has_started,
            };
            let key = (container.name.clone(), kind);
            if !due || entry.workers.contains_key(&key) {
                continue;
            }
            let token = self.token.child_token();
            let worker = self.worker(uid, entry, container, running, kind, probe, outcome);
            tokio::spawn(watched(worker, token.clone()));
            entry.counts.entry(key.clone()).or_default();
            entry.workers.insert(key, Running { id: id.clone(), token });
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn worker(
        self: &Arc<Self>,
        uid: &PodUid,
        entry: &PodEntry,
        container: &Container,
        running: &RuntimeContainer,
        kind: ProbeKind,
        probe: &Probe,
        outcome: ProbeOutcome,
    ) -> ProbeWorker<Reporter> {
        let started_at = running.status.started_at.unwrap_or_else(Timestamp::now);
        let since_start = Duration::try_from(Timestamp::now().duration_since(started_at)).unwrap_or_default();
        // Containers found at the agent's start are not all probed at once.
        let jitter = (started_at < self.started_at).then(rand::random::<f64>);
        let host = entry.runtime.ips().first().cloned().unwrap_or_else(|| self.host_ip.clone());
        ProbeWorker {
            kind,
            probe: probe.clone(),
            container: container.clone(),
            id: running.id().clone(),
            host,
            runtime: self.runtime.clone(),
            report: Reporter {
                shared: Arc::downgrade(self),
                uid: uid.clone(),
                id: running.id().clone(),
                name: container.name.clone(),
                kind,
            },
            outcome,
            first_delay: first_delay(&Timing::of(probe), since_start, jitter),
        }
    }
}

/// Runs a probe and starts it again when it panics: its container would be probed
/// no more, and nobody would know.
async fn watched(worker: ProbeWorker<Reporter>, token: CancellationToken) {
    while AssertUnwindSafe(worker.run(token.clone())).catch_unwind().await.is_err() {
        tracing::error!(container = %worker.id, "BUG: a probe panicked; it is started again");
        let pause = tokio::time::sleep(Duration::from_secs(10));
        if token.run_until_cancelled(pause).await.is_none() {
            return;
        }
    }
}

/// Brings a worker's results into the shared state.
struct Reporter {
    shared: Weak<Shared>,
    uid: PodUid,
    id: ContainerId,
    name: String,
    kind: ProbeKind,
}

impl Report for Reporter {
    fn ran(&self, result: &ProbeResult) {
        let Some(shared) = self.shared.upgrade() else { return };
        let mut pods = shared.lock();
        let Some(entry) = pods.get_mut(&self.uid) else { return };
        let counts = entry.counts.entry((self.name.clone(), self.kind)).or_default();
        let title = self.kind.title();
        let (reason, message) = match result {
            ProbeResult::Success => {
                counts.successful += 1;
                return;
            }
            ProbeResult::Warning(output) => {
                counts.successful += 1;
                ("ProbeWarning", format!("{title} probe warning: {output}"))
            }
            ProbeResult::Failure(output) => {
                counts.failed += 1;
                ("Unhealthy", format!("{title} probe failed: {output}"))
            }
            ProbeResult::Error(error) => {
                counts.unknown += 1;
                ("Unhealthy", format!("{title} probe errored and resulted in unknown state: {error}"))
            }
        };
        let pod = entry.pod.clone();
        drop(pods);
        shared.events.container(&pod, &self.name, EventType::Warning, reason, message);
    }

    fn changed(&self, outcome: ProbeOutcome) {
        let Some(shared) = self.shared.upgrade() else { return };
        {
            let mut pods = shared.lock();
            let Some(entry) = pods.get_mut(&self.uid) else { return };
            let Some(probes) = entry.view.containers.get_mut(&self.id) else { return };
            *outcome_of(probes, self.kind) = outcome;
            if self.kind == ProbeKind::Startup && outcome == ProbeOutcome::Success {
                shared.fit(&self.uid, entry);
            }
        }
        (shared.sink)(&self.uid, &ProbeManager { shared: shared.clone() });
    }
}

#[cfg(test)]
mod tests;

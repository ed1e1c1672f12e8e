//! Keeps the node from running out of something: looks at its signals, announces
//! its pressures, and ends pods one at a time until it has enough again. Pods
//! that take more of the disk than they are limited to end all at once.
//!
//! What to do is decided in [`crate::plan::eviction`]; ending a pod is its
//! worker's business.

mod disk;
pub mod signals;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{EvictionSettings, Signal};
use crate::convert::spec;
use crate::events::EventType;
use crate::ids::PodUid;
use crate::plan::eviction::limits::{excess, is_limited};
use crate::plan::eviction::rank::{Candidate, PodUsage, message, rank, resource};
use crate::plan::eviction::{Assessment, Assessor, Observations, Pressure, Pressures, Shortage};
use crate::podworker::{Deps, Eviction, PodWorkers};
use crate::retention::containers;

/// How often the node is looked at, as upstream.
const PERIOD: Duration = Duration::from_secs(10);
/// How long an evicted pod may take to end before another one goes.
const CLEANUP: Duration = Duration::from_secs(30);
/// How often that is looked at.
const CLEANUP_LOOK: Duration = Duration::from_secs(1);
/// What a pod gets to end when a hard threshold or its own limit is passed.
const HARD_GRACE: Duration = Duration::from_secs(1);

/// How long a shortage of disk waits for what is not measured now: memory may run short meanwhile.
const MEASURE: Duration = Duration::from_secs(10);

/// The node as the manager sees it.
#[async_trait]
pub trait NodeSignals: Send + Sync + fmt::Debug {
    /// What every signal that can be read reads now.
    async fn observe(&self) -> Observations;

    /// What pods use of that which the signal is about, as far as it is known; pods nothing is known
    /// of are absent. `None` when nothing could be measured.
    async fn usage(&self, pods: &[Arc<Pod>], signal: Signal) -> Option<HashMap<PodUid, PodUsage>>;

    /// Waits, so long at most, until it is known what each of these pods has on the disk now. Returns those that are
    /// too large to be measured in a reasonable time; `None` while nobody can say which these are.
    async fn measure_disk(&self, pods: &[Arc<Pod>], limit: Duration) -> Option<HashSet<PodUid>>;

    /// Removes images that no pod needs.
    async fn reclaim(&self);

    /// Whether images have a file system of their own.
    fn own_imagefs(&self) -> bool;
}

/// The task that evicts.
#[derive(Debug)]
pub struct EvictionManager {
    deps: Arc<Deps>,
    workers: PodWorkers,
    signals: Arc<dyn NodeSignals>,
    assessor: Assessor,
    /// Grace of pods that a soft threshold evicts, at most.
    max_pod_grace: Duration,
    /// Pods that were waited for and still hold what they are to give back.
    stuck: HashSet<PodUid>,
    pressures: watch::Sender<Pressures>,
}

impl EvictionManager {
    /// A manager that has seen nothing; it keeps `pressures` true.
    pub fn new(
        deps: Arc<Deps>,
        workers: PodWorkers,
        signals: Arc<dyn NodeSignals>,
        settings: &EvictionSettings,
        pressures: watch::Sender<Pressures>,
    ) -> Self {
        let (assessor, max_pod_grace) = (Assessor::new(settings), settings.max_pod_grace);
        Self { deps, workers, signals, assessor, max_pod_grace, stuck: HashSet::new(), pressures }
    }

    /// Runs until cancelled.
    pub async fn run(mut self, token: CancellationToken) {
        token.run_until_cancelled(self.keep()).await;
    }

    async fn keep(&mut self) {
        loop {
            let evicted = self.look().await;
            if evicted.is_empty() {
                tokio::time::sleep(PERIOD).await;
            } else {
                self.wait_for_end_of(&evicted).await;
            }
        }
    }

    async fn assess(&mut self) -> Assessment {
        let seen = self.signals.observe().await;
        let found = self.assessor.assess(&seen, self.deps.clock.steady());
        self.pressures.send_if_modified(|known| {
            let changed = *known != found.pressures;
            known.clone_from(&found.pressures);
            changed
        });
        found
    }

    /// One look; the pods that had to go because of it.
    async fn look(&mut self) -> Vec<PodUid> {
        let found = if self.assessor.is_idle() { Assessment::default() } else { self.assess().await };
        // What these hold may be all that is short.
        let beyond = self.evict_beyond_limits().await;
        match found.shortages.first() {
            Some(shortage) if beyond.is_empty() => self.relieve(*shortage).await.into_iter().collect(),
            _ => beyond,
        }
    }

    /// Ends every pod that is over a limit of its own. Only those that have one
    /// are measured.
    async fn evict_beyond_limits(&self) -> Vec<PodUid> {
        let pods: Vec<Arc<Pod>> =
            self.deps.admission.pods().into_iter().filter(|pod| is_limited(pod) && !spec::is_critical(pod)).collect();
        if pods.is_empty() {
            return Vec::new();
        }
        // Every figure of the disk is one for any signal of it.
        let Some(usage) = self.signals.usage(&pods, Signal::NodefsAvailable).await else { return Vec::new() };
        let own_imagefs = self.signals.own_imagefs();
        let over = pods.iter().filter_map(|pod| {
            let message = excess(pod, usage.get(&PodUid::of(pod))?, own_imagefs)?;
            self.evict(pod, message, HARD_GRACE)
        });
        over.collect()
    }

    /// Makes room, by ending a pod if nothing else helps.
    async fn relieve(&mut self, mut shortage: Shortage) -> Option<PodUid> {
        let name = resource(shortage.signal);
        tracing::warn!(signal = shortage.signal.name(), shortage.available, shortage.wanted, "node runs short");
        let text = format!("Attempting to reclaim {name}");
        self.deps.events.node(&self.deps.settings.node_name, EventType::Warning, "EvictionThresholdMet", text);
        if Pressure::of(shortage.signal) == Pressure::Disk {
            containers::reclaim(&self.deps).await;
            shortage = self.still_short(&shortage).await?;
            self.signals.reclaim().await;
            shortage = self.still_short(&shortage).await?;
        }
        self.evict_one(&shortage).await
    }

    async fn still_short(&mut self, shortage: &Shortage) -> Option<Shortage> {
        let left = self.assess().await.shortages;
        left.into_iter().find(|s| s.signal == shortage.signal)
    }

    async fn evict_one(&self, shortage: &Shortage) -> Option<PodUid> {
        let pods: Vec<_> = self.deps.admission.pods().into_iter().filter(|pod| !spec::is_critical(pod)).collect();
        let mut unmeasured = HashSet::new();
        if Pressure::of(shortage.signal) == Pressure::Disk {
            let Some(large) = self.signals.measure_disk(&pods, MEASURE).await else {
                tracing::warn!("pods not measured yet; nobody is evicted");
                return None;
            };
            unmeasured = large;
        }
        // Without figures anybody could be ended for what somebody else uses.
        let usage = self.signals.usage(&pods, shortage.signal).await?;
        let mut candidates: Vec<Candidate<'_>> = pods
            .iter()
            .map(|pod| (pod, PodUid::of(pod)))
            .map(|(pod, uid)| Candidate { pod, usage: usage.get(&uid).filter(|_| !unmeasured.contains(&uid)) })
            .collect();
        rank(shortage.signal, &mut candidates, self.signals.own_imagefs());
        for candidate in candidates {
            let pod = candidate.pod;
            let own = Duration::from_secs(u64::try_from(spec::grace_seconds(pod)).unwrap_or(0));
            let grace = if shortage.soft { own.min(self.max_pod_grace) } else { HARD_GRACE };
            if let Some(uid) = self.evict(pod, message(shortage, &candidate), grace) {
                return Some(uid);
            }
        }
        tracing::warn!(signal = shortage.signal.name(), "no pod can be evicted");
        None
    }

    /// Ends a pod, if there is anybody to do it. One that ends already and cannot be made faster is as good as evicted,
    /// as upstream has it (pkg/kubelet/eviction/eviction_manager.go: `evictPod`), unless it was waited for before.
    fn evict(&self, pod: &Pod, message: String, grace: Duration) -> Option<PodUid> {
        let uid = PodUid::of(pod);
        if !self.workers.evict(&uid, Eviction { message: message.clone(), grace })? {
            return (!self.stuck.contains(&uid)).then_some(uid);
        }
        tracing::warn!(pod.uid = %uid, message, "pod evicted");
        self.deps.events.pod(pod, EventType::Warning, "Evicted", message);
        Some(uid)
    }

    /// Before the next one goes, what these held has to be free again.
    async fn wait_for_end_of(&mut self, uids: &[PodUid]) {
        self.stuck.retain(|uid| self.deps.admission.has(uid));
        let ended = async {
            while uids.iter().any(|uid| self.deps.admission.has(uid)) {
                tokio::time::sleep(CLEANUP_LOOK).await;
            }
        };
        if tokio::time::timeout(CLEANUP, ended).await.is_err() {
            tracing::warn!(pods = ?uids, "evicted pods have not ended yet");
            self.stuck.extend(uids.iter().filter(|uid| self.deps.admission.has(uid)).cloned());
        }
    }
}

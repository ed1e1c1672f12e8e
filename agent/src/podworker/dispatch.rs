//! The set of workers: one per pod UID, never two at once for one name of a
//! static pod.

use std::collections::{BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::FutureExt as _;
use k8s_openapi::api::core::v1::{Container, Lifecycle, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::deps::Deps;
use super::inbox::{Eviction, Inbox};
use super::worker::Worker;
use crate::convert::{labels, spec};
use crate::ids::{ObjectName, PodUid};
use crate::podcache::{RuntimeContainer, RuntimePod};
use crate::podsource::{DesiredPod, DesiredPods, DesiredRx, PodOrigin};

/// How a worker's task ended by itself.
#[derive(Debug)]
enum WorkerEnd {
    /// Nothing of the pod is left.
    Done,
    Panicked,
}

/// How long a pod whose worker panicked is left alone.
const RESTART_PAUSE: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Handle {
    inbox: Arc<Inbox>,
    name: ObjectName,
    origin: PodOrigin,
}

impl Handle {
    fn is_static(&self) -> bool {
        self.origin != PodOrigin::Api
    }
}

/// A handle to all workers, for waking them. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct PodWorkers {
    workers: Arc<RwLock<HashMap<PodUid, Handle>>>,
    panics: Arc<AtomicU64>,
    /// Changes whenever a worker has ended.
    ends: watch::Sender<u64>,
    /// Pods that left directories and that nobody seemed to want when they were found.
    left: watch::Sender<BTreeSet<PodUid>>,
}

impl PodWorkers {
    /// No workers yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn with<T>(&self, uid: &PodUid, f: impl FnOnce(&Inbox) -> T) -> Option<T> {
        let workers = self.workers.read().unwrap_or_else(PoisonError::into_inner);
        workers.get(uid).map(|h| f(&h.inbox))
    }

    /// The runtime's view of the pod changed. False: nobody works on that pod.
    pub fn runtime_changed(&self, uid: &PodUid) -> bool {
        self.with(uid, Inbox::runtime_changed).is_some()
    }

    /// Something else of the pod changed.
    pub fn wake(&self, uid: &PodUid) {
        self.with(uid, Inbox::wake);
    }

    /// Ends a pod for the node's sake. False: it ends already, and this makes no difference. `None`: nobody works on
    /// that pod.
    pub fn evict(&self, uid: &PodUid, eviction: Eviction) -> Option<bool> {
        self.with(uid, |inbox| inbox.evict(eviction))
    }

    /// Ends a pod to make room for a critical one. False: nobody works on that pod.
    pub fn preempt(&self, uid: &PodUid, eviction: Eviction) -> bool {
        self.with(uid, |inbox| inbox.preempt(eviction)).is_some()
    }

    /// Whether a worker exists for the pod.
    pub fn contains(&self, uid: &PodUid) -> bool {
        self.with(uid, |_| ()).is_some()
    }

    /// The static pods that are worked on, those that end included, by name.
    pub fn static_pods(&self) -> HashMap<ObjectName, PodUid> {
        let workers = self.workers.read().unwrap_or_else(PoisonError::into_inner);
        workers.iter().filter(|(_, h)| h.is_static()).map(|(uid, h)| (h.name.clone(), uid.clone())).collect()
    }

    /// Changes whenever a worker has ended.
    pub fn ends(&self) -> watch::Receiver<u64> {
        self.ends.subscribe()
    }

    /// These pods have left directories here: what nobody wants of them ends.
    pub fn found_left(&self, pods: BTreeSet<PodUid>) {
        self.left.send_replace(pods);
    }

    /// How often a worker panicked and was started again.
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    fn remove(&self, uid: &PodUid) {
        self.workers.write().unwrap_or_else(PoisonError::into_inner).remove(uid);
        self.ends.send_modify(|n| *n += 1);
    }

    /// How many workers there are.
    pub fn len(&self) -> usize {
        self.workers.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Starts and feeds workers.
#[derive(Debug)]
pub struct Dispatcher {
    deps: Arc<Deps>,
    workers: PodWorkers,
    tasks: TaskTracker,
    token: CancellationToken,
    ended_tx: mpsc::UnboundedSender<(PodUid, WorkerEnd)>,
    ended: mpsc::UnboundedReceiver<(PodUid, WorkerEnd)>,
    last: Arc<DesiredPods>,
}

impl Dispatcher {
    /// A dispatcher without workers. Cancelling `token` ends the workers and
    /// leaves their pods running.
    pub fn new(deps: Arc<Deps>, workers: PodWorkers, token: CancellationToken) -> Self {
        let (ended_tx, ended) = mpsc::unbounded_channel();
        let last = Arc::new(DesiredPods::default());
        Self { deps, workers, tasks: TaskTracker::new(), token, ended_tx, ended, last }
    }

    /// Follows the desired set and `relisted` (pods the runtime has) until the
    /// token is cancelled, then waits for the workers to let go.
    pub async fn run(mut self, mut desired: DesiredRx, mut relisted: mpsc::Receiver<()>) {
        let token = self.token.clone();
        let mut left = self.workers.left.subscribe();
        left.mark_changed();
        loop {
            tokio::select! {
                () = token.cancelled() => break,
                // Cancel-safe: the latest value stays in the channel.
                changed = desired.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let before = std::mem::replace(&mut self.last, desired.borrow_and_update().clone());
                    self.reconcile(&before);
                }
                // Cancel-safe: a message is lost only when it is received.
                Some((uid, end)) = self.ended.recv() => {
                    if matches!(end, WorkerEnd::Panicked) {
                        // Whatever it was about to note is lost.
                        self.deps.cache.mark_unread(&uid);
                    }
                    self.workers.remove(&uid);
                    let before = self.last.clone();
                    self.reconcile(&before);
                }
                Some(()) = relisted.recv() => self.end_orphans(),
                // Cancel-safe: the latest value stays in the channel.
                Ok(()) = left.changed() => {
                    let pods = left.borrow_and_update().clone();
                    self.end_left(pods);
                }
            }
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Makes workers fit the desired set; `before` is what they know.
    fn reconcile(&mut self, before: &DesiredPods) {
        let desired = self.last.clone();
        let mut new: Vec<(&PodUid, &DesiredPod)> = Vec::new();
        for (uid, wanted) in &desired.pods {
            let same = before.pods.get(uid).is_some_and(|b| Arc::ptr_eq(&b.pod, &wanted.pod));
            let known = self.workers.with(uid, |inbox| {
                if !same {
                    inbox.update(wanted.clone())
                }
            });
            if known.is_none() {
                new.push((uid, wanted));
            }
        }
        // First: those that come count no longer whom nobody wants.
        self.end_unwanted(&desired);
        self.start_all(new);
        self.end_orphans();
    }

    /// Ends pods whose source has them no more.
    fn end_unwanted(&self, desired: &DesiredPods) {
        let workers = self.workers.workers.read().unwrap_or_else(PoisonError::into_inner);
        for (uid, handle) in workers.iter().filter(|(uid, _)| !desired.wants(uid)) {
            // Before its source was read in full, absence means nothing.
            if desired.ready.has(handle.origin) {
                tracing::debug!(pod.uid = %uid, "pod not wanted any more");
                handle.inbox.remove();
                self.deps.admission.forget(uid);
            }
        }
    }

    /// Starts workers, of older pods first (pkg/kubelet/kubelet.go: `HandlePodAdditions`).
    fn start_all(&self, mut new: Vec<(&PodUid, &DesiredPod)>) {
        let runs = |uid: &PodUid| self.deps.cache.knows(uid);
        for (_, wanted) in new.iter().filter(|(uid, wanted)| runs(uid) && !spec::is_over(&wanted.pod)) {
            self.deps.admission.adopt(&wanted.pod);
        }
        new.sort_by(|(_, a), (_, b)| {
            let created = |wanted: &DesiredPod| wanted.pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
            created(a).cmp(&created(b))
        });
        for (uid, wanted) in new {
            if !self.name_is_taken(wanted) {
                self.start(uid.clone(), wanted);
            }
        }
    }

    /// A static pod waits until its predecessor of the same name is gone.
    fn name_is_taken(&self, wanted: &DesiredPod) -> bool {
        if !wanted.is_static() {
            return false;
        }
        let name = ObjectName::of_pod(&wanted.pod);
        let workers = self.workers.workers.read().unwrap_or_else(PoisonError::into_inner);
        workers.values().any(|h| h.is_static() && h.name == name)
    }

    fn start(&self, uid: PodUid, wanted: &DesiredPod) {
        let inbox = Arc::new(Inbox::default());
        let worker = Worker::new(self.deps.clone(), inbox.clone(), wanted);
        if wanted.pod.metadata.deletion_timestamp.is_some() {
            inbox.update(wanted.clone());
        }
        self.spawn(uid, worker, Handle { inbox, name: ObjectName::of_pod(&wanted.pod), origin: wanted.origin });
    }

    fn spawn(&self, uid: PodUid, worker: Worker, handle: Handle) {
        self.workers.workers.write().unwrap_or_else(PoisonError::into_inner).insert(uid.clone(), handle);
        let (token, ended, panics) = (self.token.clone(), self.ended_tx.clone(), self.workers.panics.clone());
        self.tasks.spawn(async move {
            let end = match AssertUnwindSafe(worker.run(token.clone())).catch_unwind().await {
                Ok(false) => return,
                Ok(true) => WorkerEnd::Done,
                Err(_) => {
                    panics.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(pod.uid = %uid, "BUG: the pod's worker panicked; it is started again");
                    if token.run_until_cancelled(tokio::time::sleep(RESTART_PAUSE)).await.is_none() {
                        return;
                    }
                    WorkerEnd::Panicked
                }
            };
            // The dispatcher is gone only when everything ends.
            let _ = ended.send((uid, end));
        });
    }

    /// Ends pods only the runtime has, once it is known that nobody wants them.
    fn end_orphans(&self) {
        if !self.last.ready.all() {
            return;
        }
        for runtime in self.deps.cache.all() {
            if self.is_known(&runtime.uid) || !runtime.exists() {
                continue;
            }
            tracing::info!(pod.uid = %runtime.uid, pod.name = %runtime.name, "ending a pod nobody wants");
            let source = runtime.sandboxes.first().and_then(|s| s.summary.annotations.get(spec::CONFIG_SOURCE));
            let origin = source.and_then(|source| PodOrigin::parse(source)).unwrap_or(PodOrigin::Api);
            self.end(pod_of(&runtime), origin);
        }
    }

    /// The same of pods that not even the runtime has. What was found may be wanted again, or worked on, by now:
    /// nobody but this task makes workers.
    fn end_left(&self, pods: BTreeSet<PodUid>) {
        if !self.last.ready.all() {
            return;
        }
        for uid in pods.into_iter().filter(|uid| !self.is_known(uid) && !self.deps.cache.knows(uid)) {
            tracing::info!(pod.uid = %uid, "removing what is left of a pod");
            let metadata = ObjectMeta { uid: Some(uid.to_string()), ..ObjectMeta::default() };
            self.end(Pod { metadata, ..Pod::default() }, PodOrigin::Api);
        }
    }

    /// Whether somebody wants the pod or works on it.
    fn is_known(&self, uid: &PodUid) -> bool {
        self.workers.contains(uid) || self.last.wants(uid)
    }

    fn end(&self, pod: Pod, origin: PodOrigin) {
        let (inbox, name) = (Arc::new(Inbox::default()), ObjectName::of_pod(&pod));
        let worker = Worker::orphan(self.deps.clone(), inbox.clone(), Arc::new(pod));
        self.spawn(worker.uid().clone(), worker, Handle { inbox, name, origin });
    }
}

/// What is known of a pod whose object is gone: its name and grace period, and
/// its running containers with their preStop hooks.
fn pod_of(runtime: &RuntimePod) -> Pod {
    let grace = runtime.containers.iter().find_map(|c| {
        let a = &c.status.annotations;
        a.get(labels::POD_DELETION_GRACE).or_else(|| a.get(labels::POD_GRACE))?.parse().ok()
    });
    Pod {
        metadata: ObjectMeta {
            name: Some(runtime.name.name.to_string()),
            namespace: Some(runtime.name.namespace.to_string()),
            uid: Some(runtime.uid.to_string()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            termination_grace_period_seconds: grace,
            containers: runtime.containers.iter().filter(|c| c.is_running()).map(container_of).collect(),
            ..PodSpec::default()
        }),
        status: None,
    }
}

/// What its annotations say of a container: enough to run its preStop hook.
fn container_of(running: &RuntimeContainer) -> Container {
    let annotations = &running.status.annotations;
    Container {
        name: running.name().to_owned(),
        image: Some(running.status.image.clone()),
        lifecycle: labels::pre_stop(annotations).map(|hook| Lifecycle { pre_stop: Some(hook), ..Lifecycle::default() }),
        ports: labels::ports(annotations),
        ..Container::default()
    }
}

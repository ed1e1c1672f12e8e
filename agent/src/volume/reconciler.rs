//! Keeps the volumes of every admitted pod up and current; upstream's reconciler
//! (pkg/kubelet/volumemanager/reconciler).
//!
//! What is desired is told with each sync of an admitted pod; what there is stands on the node, where
//! a set-up finds and adopts what an earlier agent made. A sync that finds all volumes up costs a lock
//! and a comparison, and waits for nothing: like upstream's `WaitForAttachAndMount`, it is about volumes
//! that are not up. What the pod, objects and tokens change later is followed by [`VolumeManager::run`].

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};
use futures::stream::{FuturesUnordered, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::OwnedMutexGuard;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::jobs::Jobs;
use super::plugins::{self, Change, MounterArgs, SetUp, SetUpError, Volume};
use super::{ENDED, VolumeManager};
use crate::contract::{MountedVolumes, VolumeError};
use crate::events::EventType;
use crate::ids::PodUid;
use crate::objectcache::ObjectRef;

/// First pause before another try at content that could not be made current.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(120);
/// Longest wait for a deadline: tokio's timers like an end.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// One pod's volumes, and who works on them.
#[derive(Debug, Default)]
pub(super) struct PodEntry {
    told: Mutex<Told>,
    /// Locked while something is done to the volumes.
    pub state: Arc<tokio::sync::Mutex<PodState>>,
    pub jobs: Jobs,
    /// Cancelled when the volumes are to go; nothing is set up any more.
    pub ended: CancellationToken,
    /// Objects changed while the pod was busy, and somebody waits to look.
    missed: AtomicBool,
}

/// What needs no waiting for who works on the volumes.
#[derive(Debug, Default)]
struct Told {
    /// The pod, as its worker last showed it.
    pod: Option<Arc<Pod>>,
    /// All volumes are up, whatever they show.
    mounted: Option<Arc<MountedVolumes>>,
}

/// What is desired for one pod, and how far it is.
#[derive(Debug, Default)]
pub(super) struct PodState {
    /// The pod that volumes show.
    pod: Option<Arc<Pod>>,
    volumes: Vec<Box<dyn Volume>>,
    /// All of them are up.
    mounted: Option<Arc<MountedVolumes>>,
    /// Volumes that are up and could not be made current.
    retries: BTreeMap<String, Retry>,
}

/// When to try again, and how long to wait after that.
#[derive(Clone, Copy, Debug)]
struct Retry {
    at: Instant,
    pause: Duration,
}

impl Retry {
    /// A first try, at once.
    fn now() -> Self {
        Self { at: Instant::now(), pause: FIRST_RETRY / 2 }
    }

    /// The next try after one that failed.
    fn after(previous: Option<&Self>) -> Self {
        let pause = previous.map_or(FIRST_RETRY, |r| (r.pause * 2).min(LONGEST_RETRY));
        Self { at: Instant::now() + pause, pause }
    }
}

impl PodEntry {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is up, if all is and none of it is to go; from now on it is to show this pod. And whether some of it may
    /// have to be set up again for that.
    pub fn up(&self, pod: &Arc<Pod>) -> Option<(Arc<MountedVolumes>, bool)> {
        let mut told = self.told();
        let changed = told.pod.replace(pod.clone()).is_none_or(|before| !same_metadata(&before, pod));
        let mounted = told.mounted.clone().filter(|_| !self.ended.is_cancelled());
        mounted.map(|mounted| (mounted, changed))
    }

    /// Has due what shows labels or annotations that changed.
    fn catch_up(&self, state: &mut PodState) {
        let (Some(shown), Some(pod)) = (&state.pod, self.told().pod.clone()) else { return };
        if state.mounted.is_some() && !same_metadata(shown, &pod) {
            let names = state.names(|volume| volume.requires_remount(&Change::Metadata));
            state.retries.extend(names.into_iter().map(|name| (name, Retry::now())));
            state.pod = Some(pod);
        }
    }
}

impl PodState {
    /// When a volume is to be set up again. One that waits for another try is due then and not before, whatever its
    /// content would have it.
    fn due_at(&self, volume: &dyn Volume) -> Option<Instant> {
        self.retries.get(volume.name()).map(|retry| retry.at).or_else(|| volume.remount_at())
    }

    /// When something of the pod is due, if ever. While not all is up, the pod's worker tries.
    pub fn deadline(&self) -> Option<Instant> {
        self.mounted.as_ref()?;
        self.volumes.iter().filter_map(|volume| self.due_at(&**volume)).min()
    }

    fn names(&self, wanted: impl Fn(&dyn Volume) -> bool) -> Vec<String> {
        self.volumes.iter().filter(|volume| wanted(&***volume)).map(|volume| volume.name().to_owned()).collect()
    }

    /// Volumes that are due.
    fn due(&self, now: Instant) -> Vec<String> {
        if self.mounted.is_none() {
            return Vec::new();
        }
        self.names(|volume| self.due_at(volume).is_some_and(|at| at <= now))
    }

    /// Volumes that show an object; `None` means any could have changed.
    fn showing(&self, object: Option<&ObjectRef>) -> Vec<String> {
        let namespace = self.pod.as_ref().and_then(|pod| pod.metadata.namespace.as_deref()).unwrap_or("default");
        if object.is_some_and(|object| &*object.name.namespace != namespace) {
            return Vec::new();
        }
        self.names(|volume| volume.requires_remount(&Change::Object(object)))
    }
}

/// Whether content that shows the pod itself could differ between two versions of it.
fn same_metadata(a: &Pod, b: &Pod) -> bool {
    a.metadata.labels == b.metadata.labels && a.metadata.annotations == b.metadata.annotations
}

fn not_set_up(volume: &str, message: impl ToString) -> VolumeError {
    VolumeError::SetUp { volume: volume.to_owned(), message: message.to_string() }
}

impl VolumeManager {
    fn args<'a>(&'a self, entry: &'a PodEntry, pod: &'a Pod) -> MounterArgs<'a> {
        let (reader, fields) = (&*self.reader, &self.config.fields);
        MounterArgs { pod, reader, fields, jobs: &entry.jobs, ended: &entry.ended }
    }

    /// Sets up the volumes of an admitted pod that are not up.
    pub(super) async fn reconcile(
        &self,
        entry: &PodEntry,
        state: &mut PodState,
        pod: &Arc<Pod>,
        pod_dir: &Path,
    ) -> Result<Arc<MountedVolumes>, VolumeError> {
        if entry.ended.is_cancelled() {
            return Err(not_set_up("all", ENDED));
        }
        state.pod = Some(pod.clone());
        if state.volumes.is_empty() {
            state.volumes = plugins::volumes(pod, pod_dir).map_err(|error| not_set_up(&error.volume, &error))?;
        }
        // An earlier call may have been dropped in the middle.
        entry.jobs.wait_idle().await;
        let args = self.args(entry, pod);
        let results = join_all(state.volumes.iter().map(|volume| volume.set_up(&args))).await;
        let (mut mounted, mut first_error) = (MountedVolumes::default(), None);
        for (volume, result) in state.volumes.iter().zip(results) {
            match result {
                Ok(up) => {
                    mounted.host_paths.insert(volume.name().to_owned(), volume.path().to_owned());
                    if let SetUp::Stale(error) = up {
                        state.retries.insert(volume.name().to_owned(), Retry::after(None));
                        self.report_missing(pod, volume.name(), &error);
                    }
                }
                Err(error) => {
                    first_error.get_or_insert(not_set_up(volume.name(), error));
                }
            }
        }
        if let Some(error) = first_error {
            return Err(error);
        }
        let mounted = Arc::new(mounted);
        entry.told().mounted = Some(mounted.clone());
        Ok(state.mounted.insert(mounted).clone())
    }

    /// Sets the named volumes up again. What fails keeps its old content and is tried again later.
    async fn remount(&self, entry: &PodEntry, state: &mut PodState, names: &[String]) {
        let up = state.mounted.is_some() && !entry.ended.is_cancelled() && !names.is_empty();
        let Some(pod) = state.pod.clone().filter(|_| up) else { return };
        // An earlier call may have been dropped in the middle.
        entry.jobs.wait_idle().await;
        let args = self.args(entry, &pod);
        for volume in state.volumes.iter().filter(|volume| names.iter().any(|name| name == volume.name())) {
            match volume.set_up(&args).await {
                Ok(SetUp::Current) => {
                    state.retries.remove(volume.name());
                }
                Ok(SetUp::Stale(_)) | Err(_) if entry.ended.is_cancelled() => return,
                Ok(SetUp::Stale(error)) | Err(error) => {
                    let retry = Retry::after(state.retries.get(volume.name()));
                    state.retries.insert(volume.name().to_owned(), retry);
                    self.report(&pod, volume.name(), &error);
                }
            }
        }
    }

    fn report(&self, pod: &Pod, volume: &str, error: &SetUpError) {
        self.events.pod(pod, EventType::Warning, "FailedMount", not_set_up(volume, error).to_string());
    }

    /// An API server that is away is told elsewhere, and comes back by itself.
    fn report_missing(&self, pod: &Pod, volume: &str, error: &SetUpError) {
        if let SetUpError::Missing(_) = error {
            self.report(pod, volume, error);
        }
    }

    /// Follows objects, the lives of tokens, and tries again what failed, until cancelled. Idle, it waits and does
    /// nothing.
    pub async fn run(&self, token: CancellationToken) {
        let taken = self.changes.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut changes = Some(taken.unwrap_or_else(|| self.reader.changes()));
        // What is done to the pods' volumes, one at a time for each: what hangs there holds no other pod up.
        let mut works = FuturesUnordered::new();
        loop {
            let deadline = self.next_deadline();
            let change = async {
                match &mut changes {
                    Some(changes) => changes.recv().await,
                    // No cache, no changes: only deadlines are left.
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = token.cancelled() => return,
                // Receiving is cancel-safe: an unread change stays queued.
                change = change => match change {
                    Ok(object) => works.extend(self.remount_users_of(Some(&object))),
                    Err(RecvError::Lagged(_)) => works.extend(self.remount_users_of(None)),
                    Err(RecvError::Closed) => changes = None,
                },
                // Those that are not done stay.
                Some(()) = works.next(), if !works.is_empty() => {}
                // Both only wait.
                () = tokio::time::sleep_until(deadline) => works.extend(self.remount_due()),
                () = self.deadlines.notified() => {}
            }
        }
    }

    /// Pods that are busy are passed over: they announce their deadlines at the end.
    fn next_deadline(&self) -> Instant {
        let deadlines = self.known().into_iter().filter_map(|entry| {
            let mut state = entry.state.try_lock().ok()?;
            entry.catch_up(&mut state);
            state.deadline()
        });
        deadlines.min().unwrap_or_else(|| Instant::now() + FOREVER)
    }

    /// What makes current what is due. Each holds its pod's state already.
    fn remount_due(&self) -> Vec<BoxFuture<'_, ()>> {
        let work = |entry: Arc<PodEntry>| {
            let mut state = entry.state.clone().try_lock_owned().ok()?;
            entry.catch_up(&mut state);
            let due = state.due(Instant::now());
            (!due.is_empty()).then(|| self.work(entry, state, due).boxed())
        };
        self.known().into_iter().filter_map(work).collect()
    }

    /// What makes current what shows the object, later where somebody works on the pod.
    fn remount_users_of(&self, object: Option<&ObjectRef>) -> Vec<BoxFuture<'_, ()>> {
        let work = |entry: Arc<PodEntry>| match entry.state.clone().try_lock_owned() {
            Ok(state) => {
                let names = state.showing(object);
                (!names.is_empty()).then(|| self.work(entry, state, names).boxed())
            }
            Err(_) => (!entry.missed.swap(true, Ordering::AcqRel)).then(|| self.look_later(entry).boxed()),
        };
        self.known().into_iter().filter_map(work).collect()
    }

    async fn look_later(&self, entry: Arc<PodEntry>) {
        let state = entry.state.clone().lock_owned().await;
        // What changes from now on is told anew.
        entry.missed.store(false, Ordering::Release);
        let names = state.showing(None);
        self.work(entry, state, names).await;
    }

    /// Sets the named volumes up again, or wakes a pod that waits for what they show.
    async fn work(&self, entry: Arc<PodEntry>, mut state: OwnedMutexGuard<PodState>, names: Vec<String>) {
        match &state.pod {
            _ if names.is_empty() => {}
            // It waits for another try; what it lacked may be there now.
            Some(pod) if state.mounted.is_none() => (self.sink)(&PodUid::of(pod)),
            _ => self.remount(&entry, &mut state, &names).await,
        }
    }
}

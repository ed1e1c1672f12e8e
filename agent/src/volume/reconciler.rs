//! Keeps the volumes of every admitted pod up and current; upstream's reconciler
//! (pkg/kubelet/volumemanager/reconciler).
//!
//! What is desired is told with each sync of an admitted pod; what there is stands on the node, where
//! a set-up finds and adopts what an earlier agent made. A sync that finds all volumes up costs a lock
//! and a comparison. What objects and tokens change later is followed by [`VolumeManager::run`].

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use futures::stream::{FuturesUnordered, StreamExt};
use k8s_openapi::api::core::v1::Pod;
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
    /// Locked while something is done to the volumes.
    pub state: tokio::sync::Mutex<PodState>,
    pub jobs: Jobs,
    /// Cancelled when the volumes are to go; nothing is set up any more.
    pub ended: CancellationToken,
    /// Objects changed while the pod was busy, and somebody waits to look.
    missed: AtomicBool,
}

/// What is desired for one pod, and how far it is.
#[derive(Debug, Default)]
pub(super) struct PodState {
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

    /// Makes an admitted pod's volumes what they should be: sets up what is not up, and again what shows labels or
    /// annotations that changed.
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
        let previous = state.pod.replace(pod.clone());
        if let Some(mounted) = state.mounted.clone() {
            if previous.is_some_and(|previous| !same_metadata(&previous, pod)) {
                let names = state.names(|volume| volume.requires_remount(&Change::Metadata));
                // Should this call be dropped, they are due all the same.
                state.retries.extend(names.iter().map(|name| (name.clone(), Retry::now())));
                self.deadlines.notify_one();
                self.remount(entry, state, &names).await;
            }
            return Ok(mounted);
        }
        if state.volumes.is_empty() {
            state.volumes = plugins::volumes(pod, pod_dir).map_err(|error| not_set_up(&error.volume, &error))?;
        }
        // An earlier call may have been dropped in the middle.
        entry.jobs.settled().await;
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
        Ok(state.mounted.insert(Arc::new(mounted)).clone())
    }

    /// Sets the named volumes up again. What fails keeps its old content and is tried again later.
    async fn remount(&self, entry: &PodEntry, state: &mut PodState, names: &[String]) {
        let up = state.mounted.is_some() && !entry.ended.is_cancelled() && !names.is_empty();
        let Some(pod) = state.pod.clone().filter(|_| up) else { return };
        // An earlier call may have been dropped in the middle.
        entry.jobs.settled().await;
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
        // Looks at pods that were busy, one for each: what hangs there holds no other pod up.
        let mut late = FuturesUnordered::new();
        let later = |entry| self.look_later(entry);
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
                    Ok(object) => late.extend(self.remount_users_of(Some(&object)).await.into_iter().map(later)),
                    Err(RecvError::Lagged(_)) => late.extend(self.remount_users_of(None).await.into_iter().map(later)),
                    Err(RecvError::Closed) => changes = None,
                },
                // Those that are not done stay.
                Some(()) = late.next(), if !late.is_empty() => {}
                // Both only wait.
                () = tokio::time::sleep_until(deadline) => self.remount_due().await,
                () = self.deadlines.notified() => {}
            }
        }
    }

    /// Pods that are busy are passed over: they announce their deadlines at the end.
    fn next_deadline(&self) -> Instant {
        let pods = self.known();
        let deadlines = pods.iter().filter_map(|entry| entry.state.try_lock().ok()?.deadline());
        deadlines.min().unwrap_or_else(|| Instant::now() + FOREVER)
    }

    async fn remount_due(&self) {
        let pods = self.known();
        join_all(pods.iter().map(async |entry| {
            let Ok(mut state) = entry.state.try_lock() else { return };
            let due = state.due(Instant::now());
            self.remount(entry, &mut state, &due).await;
        }))
        .await;
    }

    /// Makes what shows the object current, and returns those pods that are busy and that nobody waits for.
    async fn remount_users_of(&self, object: Option<&ObjectRef>) -> Vec<Arc<PodEntry>> {
        let looks = self.known().into_iter().map(async |entry| match entry.state.try_lock() {
            Ok(mut state) => {
                self.look(&entry, &mut state, object).await;
                None
            }
            Err(_) => (!entry.missed.swap(true, Ordering::AcqRel)).then(|| entry.clone()),
        });
        join_all(looks).await.into_iter().flatten().collect()
    }

    async fn look_later(&self, entry: Arc<PodEntry>) {
        let mut state = entry.state.lock().await;
        // What changes from now on is told anew.
        entry.missed.store(false, Ordering::Release);
        self.look(&entry, &mut state, None).await;
        drop(state);
        self.deadlines.notify_one();
    }

    async fn look(&self, entry: &PodEntry, state: &mut PodState, object: Option<&ObjectRef>) {
        let names = state.showing(object);
        match &state.pod {
            _ if names.is_empty() => {}
            // It waits for another try; what it lacked may be there now.
            Some(pod) if state.mounted.is_none() => (self.sink)(&PodUid::of(pod)),
            _ => self.remount(entry, state, &names).await,
        }
    }
}

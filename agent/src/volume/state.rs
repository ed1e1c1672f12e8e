//! What is known of one pod's volumes, and bringing them up.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::jobs::Jobs;
use super::plan::{self, EmptyDir, Medium, Projected, Source, VolumePlan};
use super::projected::{self, Gather, GatherError, Tokens};
use super::{VolumeSet, empty_dir, host_path, ownership, volume_dir};
use crate::contract::{MountedVolumes, VolumeError};

/// First pause before another try at files that could not be made.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(120);

/// One pod of the set.
#[derive(Debug, Default)]
pub(super) struct PodEntry {
    /// Locked while something is done to the volumes.
    pub state: tokio::sync::Mutex<PodState>,
    pub jobs: Jobs,
    /// Cancelled when the volumes are to go; nothing is brought up any more.
    pub ended: CancellationToken,
}

/// One pod's volumes.
#[derive(Debug, Default)]
pub(super) struct PodState {
    pub pod: Option<Arc<Pod>>,
    pub plans: Vec<VolumePlan>,
    pub mounted: Option<Arc<MountedVolumes>>,
    /// Issued tokens by volume name.
    pub tokens: HashMap<String, Tokens>,
    /// Volumes whose files could not be made current.
    pub retries: BTreeMap<String, Retry>,
}

/// When to try again, and how long to wait after that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    pub at: Instant,
    pub pause: Duration,
}

impl Retry {
    /// A first try, at once.
    fn now() -> Self {
        Self { at: Instant::now(), pause: FIRST_RETRY / 2 }
    }

    /// The next try after one that failed.
    pub fn after(previous: Option<&Self>) -> Self {
        let pause = previous.map_or(FIRST_RETRY, |r| (r.pause * 2).min(LONGEST_RETRY));
        Self { at: Instant::now() + pause, pause }
    }
}

impl PodState {
    /// When something of the pod is due, if ever.
    pub fn deadline(&self) -> Option<Instant> {
        let tokens = self.tokens.values().flat_map(HashMap::values).map(|token| token.refresh_at);
        tokens.chain(self.retries.values().map(|retry| retry.at)).min()
    }

    /// Names of volumes with a token or a retry due.
    pub fn due(&self, now: Instant) -> Vec<String> {
        let retries = self.retries.iter().filter(|(_, r)| r.at <= now).map(|(name, _)| name.clone());
        let stale = |tokens: &Tokens| tokens.values().any(|token| token.refresh_at <= now);
        let tokens = self.tokens.iter().filter(|(_, tokens)| stale(tokens)).map(|(name, _)| name.clone());
        let mut due: Vec<String> = retries.chain(tokens).collect();
        due.sort();
        due.dedup();
        due
    }
}

/// Whether downward files could differ between two versions of a pod.
fn same_metadata(a: &Pod, b: &Pod) -> bool {
    a.metadata.labels == b.metadata.labels && a.metadata.annotations == b.metadata.annotations
}

impl VolumeSet {
    /// Brings up what is not up; refreshes downward files when labels changed.
    pub(super) async fn bring_up(
        &self,
        entry: &PodEntry,
        state: &mut PodState,
        pod: &Arc<Pod>,
        pod_dir: &Path,
    ) -> Result<Arc<MountedVolumes>, VolumeError> {
        if entry.ended.is_cancelled() {
            return Err(ended());
        }
        let previous = state.pod.replace(pod.clone());
        if let Some(mounted) = state.mounted.clone() {
            if previous.is_some_and(|previous| !same_metadata(&previous, pod)) {
                let names: Vec<String> =
                    state.plans.iter().filter(|p| has_downward(p)).map(|p| p.name.clone()).collect();
                // Should this call be dropped, they are due all the same.
                state.retries.extend(names.iter().map(|name| (name.clone(), Retry::now())));
                self.deadlines.notify_one();
                self.refresh(entry, state, &names).await;
            }
            return Ok(mounted);
        }
        state.plans = plan::plan(pod).map_err(|e| VolumeError::SetUp { volume: e.volume, message: e.message })?;
        let plans = std::mem::take(&mut state.plans);
        // An earlier call may have been dropped in the middle.
        entry.jobs.settled().await;
        let set_ups = plans.iter().map(|plan| {
            let tokens = state.tokens.remove(&plan.name).unwrap_or_default();
            self.set_up_one(entry, pod, pod_dir, plan, tokens)
        });
        let results = futures::future::join_all(set_ups).await;
        let mut mounted = MountedVolumes::default();
        let mut first_error = None;
        for (plan, result) in plans.iter().zip(results) {
            match result {
                Ok(up) => {
                    mounted.host_paths.insert(plan.name.clone(), volume_dir(pod_dir, plan));
                    if !up.tokens.is_empty() {
                        state.tokens.insert(plan.name.clone(), up.tokens);
                    }
                    if up.stale {
                        state.retries.insert(plan.name.clone(), Retry::after(None));
                    }
                }
                Err(message) => {
                    first_error.get_or_insert(VolumeError::SetUp { volume: plan.name.clone(), message });
                }
            }
        }
        state.plans = plans;
        if let Some(error) = first_error {
            return Err(error);
        }
        let mounted = Arc::new(mounted);
        state.mounted = Some(mounted.clone());
        Ok(mounted)
    }

    async fn set_up_one(
        &self,
        entry: &PodEntry,
        pod: &Pod,
        pod_dir: &Path,
        plan: &VolumePlan,
        mut tokens: Tokens,
    ) -> Result<Up, String> {
        let dir = volume_dir(pod_dir, plan);
        let mut stale = false;
        match &plan.source {
            Source::HostPath { path, kind } => {
                let (path, kind) = (path.clone(), *kind);
                entry.jobs.run(move || host_path::prepare(&path, kind)).await?;
            }
            Source::EmptyDir(volume) => {
                let volume = volume.clone();
                let size = self.memory_size(pod, &volume);
                let group = plan::fs_group(pod);
                let work = move || {
                    empty_dir::set_up(&dir, &volume, size)?;
                    group.map_or(Ok(()), |group| ownership::set_group(&dir, group))
                };
                entry.jobs.run(move || work().map_err(|error| error.to_string())).await?;
            }
            Source::Projected(volume) => match self.show(entry, pod, &dir, volume, &mut tokens).await {
                Ok(_) => {}
                // An earlier agent left the files: a pod that runs must not suffer
                // from an API server that is away, nor its other volumes from an
                // object that is gone.
                Err(error) if projected::is_adoptable(&dir, volume.memory) => {
                    stale = true;
                    if let GatherError::Missing(_) = error {
                        self.report_failure(pod, &plan.name, &error);
                    }
                }
                Err(error) => return Err(error.to_string()),
            },
        }
        Ok(Up { tokens, stale })
    }

    fn memory_size(&self, pod: &Pod, volume: &EmptyDir) -> Option<u64> {
        let allocatable = self.config.fields.allocatable.get("memory").and_then(|q| plan::bytes(&q.0));
        (volume.medium == Medium::Memory).then(|| empty_dir::memory_size(pod, volume.size_limit, allocatable)).flatten()
    }

    /// Gathers and writes one projected volume; whether files changed.
    async fn show(
        &self,
        entry: &PodEntry,
        pod: &Pod,
        dir: &Path,
        volume: &Projected,
        tokens: &mut Tokens,
    ) -> Result<bool, GatherError> {
        let gather = Gather { reader: &*self.reader, pod, fields: &self.config.fields };
        let payload = entry.ended.run_until_cancelled(gather.payload(volume, tokens)).await;
        let payload = payload.unwrap_or_else(|| Err(GatherError::Unavailable(ENDED.to_owned())))?;
        let (dir, memory, group) = (dir.to_owned(), volume.memory, plan::fs_group(pod));
        let written = entry.jobs.run(move || projected::write(&dir, memory, &payload, group)).await;
        written.map_err(GatherError::Unavailable)
    }

    /// Makes the named volumes' files current. What fails keeps its old files
    /// and is tried again later.
    pub(super) async fn refresh(&self, entry: &PodEntry, state: &mut PodState, names: &[String]) {
        let up = state.mounted.is_some() && !entry.ended.is_cancelled() && !names.is_empty();
        let Some(pod) = state.pod.clone().filter(|_| up) else { return };
        let Some(pod_dir) = self.pod_dir(&crate::ids::PodUid::of(&pod)) else { return };
        let plans: Vec<VolumePlan> = state.plans.iter().filter(|p| names.contains(&p.name)).cloned().collect();
        // An earlier call may have been dropped in the middle.
        entry.jobs.settled().await;
        for plan in plans {
            let Source::Projected(volume) = &plan.source else { continue };
            let tokens = state.tokens.entry(plan.name.clone()).or_default();
            let shown = self.show(entry, &pod, &volume_dir(&pod_dir, &plan), volume, tokens).await;
            match shown {
                Ok(_) => {
                    state.retries.remove(&plan.name);
                }
                Err(_) if entry.ended.is_cancelled() => return,
                Err(error) => {
                    let retry = Retry::after(state.retries.get(&plan.name));
                    state.retries.insert(plan.name.clone(), retry);
                    self.report_failure(&pod, &plan.name, &error);
                }
            }
            state.tokens.retain(|_, tokens| !tokens.is_empty());
        }
    }

    fn report_failure(&self, pod: &Pod, volume: &str, error: &GatherError) {
        let error = VolumeError::SetUp { volume: volume.to_owned(), message: error.to_string() };
        self.events.pod(pod, crate::events::EventType::Warning, "FailedMount", error.to_string());
    }
}

const ENDED: &str = "the pod's volumes are being removed";

fn ended() -> VolumeError {
    VolumeError::SetUp { volume: "all".to_owned(), message: ENDED.to_owned() }
}

/// One volume that is up.
struct Up {
    tokens: Tokens,
    /// The files are an earlier life's and may be out of date.
    stale: bool,
}

fn has_downward(plan: &VolumePlan) -> bool {
    match &plan.source {
        Source::Projected(volume) => volume.parts.iter().any(|part| matches!(part, plan::Part::Downward(_))),
        _ => false,
    }
}

//! What the pod workers ask of volumes and probes, as narrow traits.
//!
//! [`crate::volume`] and [`crate::probe`] implement them; worker tests script
//! fakes. Results are plain data so that planning stays pure.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use cri::ContainerId;
use cri::types::Mount;
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::ids::PodUid;
use crate::podcache::RuntimePod;

/// Why a volume is not ready or does not go away. `Display` is the text of the
/// `FailedMount` event.
#[derive(Clone, Debug, thiserror::Error)]
pub enum VolumeError {
    /// Something the volume needs is not there (yet); worth another try.
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {message}")]
    SetUp { volume: String, message: String },
    /// A subPath or mount of one container cannot be prepared.
    #[error("failed to prepare subPath for volumeMount \"{volume}\" of container \"{container}\": {message}")]
    ContainerMount { container: String, volume: String, message: String },
    /// Unmounting or removing failed; worth another try.
    #[error("UnmountVolume.TearDown failed for volume \"{volume}\" : {message}")]
    TearDown { volume: String, message: String },
}

/// Volumes of one pod that are set up: volume name → directory (or file) on the
/// node to bind from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountedVolumes {
    pub host_paths: BTreeMap<String, PathBuf>,
}

/// Volumes of pods. All calls are idempotent.
#[async_trait]
pub trait PodVolumes: Send + Sync + Debug {
    /// Brings every volume of the pod up, adopting what an earlier agent
    /// mounted, and keeps projected ones current until
    /// [`PodVolumes::tear_down`]. To be called in each sync of an admitted pod:
    /// it returns at once when all are up, whatever they show. May be dropped
    /// before it ends.
    async fn set_up(&self, pod: &Arc<Pod>) -> Result<Arc<MountedVolumes>, VolumeError>;

    /// The bind mounts of one container (also an init or ephemeral one seen as
    /// a [`Container`]), subPath and subPathExpr resolved with `env`.
    async fn container_mounts(
        &self,
        pod: &Arc<Pod>,
        container: &Container,
        env: &[(String, String)],
        volumes: &MountedVolumes,
    ) -> Result<Vec<Mount>, VolumeError>;

    /// Unmounts and removes everything of the pod below its volume directories.
    async fn tear_down(&self, uid: &PodUid) -> Result<(), VolumeError>;
}

/// What a probe last decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ProbeOutcome {
    /// No result yet.
    #[default]
    Unknown,
    Success,
    Failure,
}

/// Results of one container's probes; a probe the spec lacks stays `Unknown`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContainerProbes {
    pub startup: ProbeOutcome,
    pub readiness: ProbeOutcome,
    pub liveness: ProbeOutcome,
}

/// Probe results of one pod by runtime container id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeView {
    pub containers: HashMap<ContainerId, ContainerProbes>,
}

impl ProbeView {
    /// The results for a container; all `Unknown` when there are none.
    pub fn get(&self, id: &ContainerId) -> ContainerProbes {
        self.containers.get(id).copied().unwrap_or_default()
    }
}

/// Runs the probes of pods. A changed result is announced through the
/// [`ProbeSink`] given at construction.
pub trait PodProbes: Send + Sync + Debug {
    /// Makes the set of probe workers fit the pod's running containers: called
    /// after each look at the runtime; cheap when nothing changed. The first
    /// call for a container that `pod.status` shows ready under the same
    /// container id starts it as ready.
    fn update_pod(&self, pod: &Arc<Pod>, runtime: &Arc<RuntimePod>);
    /// Ends readiness-independent probing of a pod that terminates: liveness and
    /// startup stop, readiness goes on until [`PodProbes::remove_pod`].
    fn stop_liveness_and_startup(&self, uid: &PodUid);
    /// Ends all probing of the pod and forgets its results.
    fn remove_pod(&self, uid: &PodUid);
    /// The latest results.
    fn view(&self, uid: &PodUid) -> ProbeView;
}

/// Where "a probe of this pod has another result" goes, with those who know it.
pub type ProbeSink = Arc<dyn Fn(&PodUid, &dyn PodProbes) + Send + Sync>;

/// Where "something changed for this pod" goes: wakes the pod's worker.
pub type ChangeSink = Arc<dyn Fn(&PodUid) + Send + Sync>;

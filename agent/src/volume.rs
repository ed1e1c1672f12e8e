//! Volumes of pods: scratch space, host paths, and files made from API objects.
//!
//! [`VolumeManager`] implements [`PodVolumes`]. A kind of volume is one file and one line in the table
//! of [`plugins`]; [`reconciler`] keeps those of every admitted pod as they should be. Writing files
//! all at once, mounts, subpaths and `fsGroup` are [`atomic_writer`]'s, [`mounts`]', [`subpath`]'s and
//! [`ownership`]'s. A pod's own directory, /etc/hosts and termination logs are not made here, and no
//! disks are attached.
//!
//! On the node a volume is `<pods root>/<uid>/volumes/<plugin>/<name>`, a bound
//! subPath `<pods root>/<uid>/volume-subpaths/<volume>/<container>/<index>`.

mod atomic_volume;
mod atomic_writer;
mod config_map;
mod downward_api;
mod empty_dir;
mod host_path;
mod jobs;
pub mod mounts;
mod ownership;
mod payload;
mod plugins;
mod projected;
mod reconciler;
mod secret;
mod service_account_token;
mod spec;
mod subpath;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use cri::types::{Mount, MountPropagation};
use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};
use std::time::Duration;
use tokio::sync::{Notify, broadcast};

use crate::contract::{ChangeSink, MountedVolumes, PodVolumes, VolumeError};
use crate::convert::fields::FieldContext;
use crate::events::EventRecorder;
use crate::ids::PodUid;
use crate::objectcache::{ObjectReader, ObjectRef};
use reconciler::{PodEntry, PodState};

/// Why nothing is set up any more.
const ENDED: &str = "the pod's volumes are being removed";

/// What the volumes of a node need to know.
#[derive(Clone, Debug)]
pub struct VolumeConfig {
    /// Directory with one directory per pod UID, `<kubelet root>/pods`.
    pub pods_root: PathBuf,
    /// What downward API files show beside the pod itself: the node's
    /// allocatable resources stand in for limits containers lack.
    pub fields: FieldContext,
}

/// How long somebody waits for a pod's volumes (pkg/kubelet/volumemanager/volume_manager.go:
/// `podAttachAndMountTimeout`): a file system that does not answer is no reason to say nothing.
const LONGEST_WAIT: Duration = Duration::from_secs(2 * 60 + 3);

/// All volumes of all pods of this node.
pub struct VolumeManager {
    config: VolumeConfig,
    reader: Arc<dyn ObjectReader>,
    events: EventRecorder,
    sink: ChangeSink,
    pods: Mutex<HashMap<PodUid, Arc<PodEntry>>>,
    /// Changes since construction, until [`VolumeManager::run`] takes them over.
    changes: Mutex<Option<broadcast::Receiver<ObjectRef>>>,
    /// Tells [`VolumeManager::run`] that a deadline may have moved.
    deadlines: Notify,
}

impl std::fmt::Debug for VolumeManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VolumeManager").field("config", &self.config).finish_non_exhaustive()
    }
}

impl VolumeManager {
    /// A manager that knows no pod yet; what stands on disk is adopted by
    /// [`PodVolumes::set_up`] or removed by [`PodVolumes::tear_down`]. `sink`
    /// hears of pods whose set-up failed and may succeed now.
    pub fn new(
        config: VolumeConfig,
        reader: Arc<dyn ObjectReader>,
        events: EventRecorder,
        sink: ChangeSink,
    ) -> Arc<Self> {
        let changes = Mutex::new(Some(reader.changes()));
        Arc::new(Self { config, reader, events, sink, pods: Mutex::default(), changes, deadlines: Notify::new() })
    }

    /// UIDs that have a directory on this node, known or not.
    pub fn pods_on_disk(&self) -> Vec<PodUid> {
        let entries = std::fs::read_dir(&self.config.pods_root).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.map(PodUid::new).filter(|uid| uid.file_name().is_some()).collect()
    }

    fn pod_dir(&self, uid: &PodUid) -> Option<PathBuf> {
        uid.file_name().map(|name| self.config.pods_root.join(name))
    }

    fn known(&self) -> Vec<Arc<PodEntry>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn entry(&self, uid: &PodUid) -> Arc<PodEntry> {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.entry(uid.clone()).or_default().clone()
    }
}

#[async_trait]
impl PodVolumes for VolumeManager {
    async fn set_up(&self, pod: &Arc<Pod>) -> Result<Arc<MountedVolumes>, VolumeError> {
        let uid = PodUid::of(pod);
        let Some(pod_dir) = self.pod_dir(&uid) else {
            return Err(VolumeError::SetUp { volume: String::new(), message: format!("invalid pod UID {uid:?}") });
        };
        let entry = self.entry(&uid);
        if let Some((mounted, changed)) = entry.up(pod) {
            if changed {
                // What it shows from now on is not waited for.
                self.deadlines.notify_one();
            }
            return Ok(mounted);
        }
        let set_up = async {
            let mut state = entry.state.lock().await;
            let result = self.reconcile(&entry, &mut state, pod, &pod_dir).await;
            (result, state.deadline().is_some())
        };
        let late = |message| (Err(VolumeError::SetUp { volume: "all".into(), message }), false);
        // Who looks for the next deadline passes over pods that are busy: this one no longer is.
        let (result, waits) = within(set_up).await.unwrap_or_else(late);
        if waits {
            self.deadlines.notify_one();
        }
        result
    }

    async fn container_mounts(
        &self,
        pod: &Arc<Pod>,
        container: &Container,
        env: &[(String, String)],
        volumes: &MountedVolumes,
    ) -> Result<Vec<Mount>, VolumeError> {
        let uid = PodUid::of(pod);
        let pod_dir = self.pod_dir(&uid).unwrap_or_default();
        let known = plugins::volumes(pod, &pod_dir);
        let known = known.map_err(|e| VolumeError::SetUp { volume: e.volume, message: e.message })?;
        let jobs = &self.entry(&uid).jobs;
        let mut mounts = Vec::new();
        for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
            let fail = |message: String| VolumeError::ContainerMount {
                container: container.name.clone(),
                volume: mount.name.clone(),
                message,
            };
            let source = volumes.host_paths.get(&mount.name).ok_or_else(|| {
                fail(format!("cannot find volume {:?} to mount into container {:?}", mount.name, container.name))
            })?;
            let host_path = match sub_path(mount, env).map_err(fail)? {
                None => source.clone(),
                Some(sub_path) => {
                    let target = self.sub_path_target(pod, container, mount, index).map_err(fail)?;
                    let source = source.clone();
                    let bound = async {
                        // One that hangs is not tried again beside itself.
                        jobs.wait_idle().await;
                        jobs.run(move || subpath::bind(&source, &sub_path, &target)).await
                    };
                    within(bound).await.and_then(|bound| bound).map_err(fail)?
                }
            };
            let managed = known.iter().any(|volume| volume.name() == mount.name && volume.is_managed());
            mounts.push(cri_mount(mount, &host_path, managed).map_err(fail)?);
        }
        Ok(mounts)
    }

    async fn tear_down(&self, uid: &PodUid) -> Result<(), VolumeError> {
        let Some(pod_dir) = self.pod_dir(uid) else { return Ok(()) };
        let entry = self.entry(uid);
        // Who waits for the API server waits no longer, and who comes later sees
        // that all is over.
        entry.ended.cancel();
        let removed = within(async {
            let mut state = entry.state.lock().await;
            // Nothing of it is due any more, should what follows fail.
            *state = PodState::default();
            // Mounting that somebody began and dropped has to end before.
            entry.jobs.wait_idle().await;
            // Each pod's by itself: nobody's end waits for the trees of others.
            entry.jobs.run(move || plugins::tear_down_all(&pod_dir)).await
        });
        let failed = |message| VolumeError::TearDown { volume: "all".into(), message };
        removed.await.and_then(|removed| removed).map_err(failed)?;
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
        Ok(())
    }
}

impl VolumeManager {
    fn sub_path_target(
        &self,
        pod: &Pod,
        container: &Container,
        mount: &VolumeMount,
        index: usize,
    ) -> Result<PathBuf, String> {
        let uid = PodUid::of(pod);
        let dir = self.pod_dir(&uid).ok_or_else(|| format!("invalid pod UID {uid:?}"))?;
        if !spec::is_plain_name(&container.name) || !spec::is_plain_name(&mount.name) {
            return Err("container and volume names must be DNS labels".into());
        }
        Ok(dir.join("volume-subpaths").join(&mount.name).join(&container.name).join(index.to_string()))
    }
}

/// The work, or that it takes too long: who waits can say so, and try again. What of it blocks goes on.
async fn within<T>(work: impl Future<Output = T>) -> Result<T, String> {
    tokio::time::timeout(LONGEST_WAIT, work).await.map_err(|_| format!("not done within {LONGEST_WAIT:?}"))
}

fn sub_path(mount: &VolumeMount, env: &[(String, String)]) -> Result<Option<String>, String> {
    let expression = mount.sub_path_expr.as_deref().filter(|e| !e.is_empty());
    let plain = mount.sub_path.as_deref().filter(|p| !p.is_empty());
    let path = match (expression, plain) {
        (Some(expression), _) => subpath::expand(expression, env)?,
        (None, Some(path)) => path.to_owned(),
        (None, None) => return Ok(None),
    };
    subpath::check(&path)?;
    Ok(Some(path).filter(|path| !path.is_empty()))
}

fn cri_mount(mount: &VolumeMount, host_path: &Path, managed: bool) -> Result<Mount, String> {
    let propagation = match mount.mount_propagation.as_deref().unwrap_or("None") {
        "None" | "" => MountPropagation::Private,
        "HostToContainer" => MountPropagation::HostToContainer,
        "Bidirectional" => MountPropagation::Bidirectional,
        other => return Err(format!("invalid MountPropagation mode: {other:?}")),
    };
    let absolute = mount.mount_path.starts_with('/');
    let container_path = if absolute { mount.mount_path.clone() } else { format!("/{}", mount.mount_path) };
    let host_path = host_path.to_str().ok_or_else(|| format!("{} is not UTF-8", host_path.display()))?;
    Ok(Mount {
        container_path,
        host_path: host_path.to_owned(),
        // What the agent itself writes is never the container's to change.
        readonly: mount.read_only.unwrap_or(false) || managed,
        recursive_read_only: false,
        selinux_relabel: false,
        propagation,
    })
}

#[cfg(test)]
pub(crate) mod tests;

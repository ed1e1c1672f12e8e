//! Kinds of volumes, and what each can do: upstream's plugins (pkg/volume/plugins.go, volume.go).
//!
//! A kind is one file and one line in [`PLUGINS`]. It makes a [`Volume`] of what a pod's spec asks
//! for, and takes a directory down of which it may know nothing but where it is: after a restart no
//! pod may be left that asked for it.

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Pod, Volume as VolumeSource};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::jobs::Jobs;
use super::{config_map, downward_api, empty_dir, host_path, mounts, projected, secret, spec};
use crate::convert::fields::FieldContext;
use crate::objectcache::{ObjectReader, ObjectRef};

/// A volume of one pod: upstream's `Volume` and `Mounter`. Every call may be repeated; a set-up that
/// was cut short anywhere is completed by the next one, also by that of another process.
#[async_trait]
pub(super) trait Volume: Debug + Send + Sync {
    /// Its name in the pod.
    fn name(&self) -> &str;

    /// What containers bind; upstream's `GetPath`.
    fn path(&self) -> &Path;

    /// Whether the agent alone writes to it: no container may. Upstream's `Attributes.Managed`.
    fn is_managed(&self) -> bool {
        false
    }

    /// Makes it, adopts what an earlier agent made, or makes its content current.
    async fn set_up(&self, args: &MounterArgs<'_>) -> Result<SetUp, SetUpError>;

    /// Whether it is to be set up again after this, though it is up; upstream's `RequiresRemount`.
    fn requires_remount(&self, _: &Change<'_>) -> bool {
        false
    }

    /// When it is to be set up again whatever happens, if ever.
    fn remount_at(&self) -> Option<Instant> {
        None
    }
}

/// Something that content may follow.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change<'a> {
    /// Labels or annotations of the pod.
    Metadata,
    /// An object of the pod's namespace; `None` when any could have changed.
    Object(Option<&'a ObjectRef>),
}

/// What a set-up works with; upstream's `MounterArgs`.
#[derive(Clone, Copy, Debug)]
pub(super) struct MounterArgs<'a> {
    pub pod: &'a Pod,
    pub reader: &'a dyn ObjectReader,
    /// What downward API files show beside the pod.
    pub fields: &'a FieldContext,
    pub jobs: &'a Jobs,
    /// Cancelled when the pod's volumes are to go.
    pub ended: &'a CancellationToken,
}

/// A volume that is up.
#[derive(Debug)]
pub(super) enum SetUp {
    Current,
    /// It is as an earlier agent left it, and could not be made current.
    Stale(SetUpError),
}

/// Why a volume is not up.
#[derive(Debug, thiserror::Error)]
pub(super) enum SetUpError {
    /// An object is known not to exist, or lacks what is asked of it.
    #[error("{0}")]
    Missing(String),
    /// It cannot be told or done at present.
    #[error("{0}")]
    Unavailable(String),
}

/// A volume as a pod asks for it; upstream's `volume.Spec`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spec<'a> {
    pub volume: &'a VolumeSource,
    /// The pod's own directory.
    pub pod_dir: &'a Path,
}

impl Spec<'_> {
    /// The directory of this volume below the pod's.
    pub fn directory(&self, plugin: &str) -> PathBuf {
        self.pod_dir.join("volumes").join(escape(plugin)).join(&self.volume.name)
    }
}

/// The volume that a spec asks for, or what is wrong with the spec; `None` when it is of another kind.
type NewVolume = fn(&Spec<'_>) -> Option<Result<Box<dyn Volume>, String>>;

/// A kind of volumes; upstream's `VolumePlugin`.
#[derive(Debug)]
pub(super) struct Plugin {
    /// As upstream names it, `kubernetes.io/empty-dir`.
    pub name: &'static str,
    /// The volume that a spec asks for; `None` when it is of another kind.
    pub new_volume: NewVolume,
    /// Takes the volume of this name below a pod's directory down. Blocking.
    pub tear_down: fn(pod_dir: &Path, name: &str) -> io::Result<()>,
}

/// All kinds.
const PLUGINS: [&Plugin; 6] = [
    &empty_dir::PLUGIN,
    &host_path::PLUGIN,
    &config_map::PLUGIN,
    &secret::PLUGIN,
    &downward_api::PLUGIN,
    &projected::PLUGIN,
];

/// A plugin's name as a directory; upstream's `EscapeQualifiedName`.
pub(super) fn escape(plugin: &str) -> String {
    plugin.replace('/', "~")
}

/// The directory of a plugin's own below a pod's.
pub(super) fn meta_dir(pod_dir: &Path, plugin: &str) -> PathBuf {
    pod_dir.join("plugins").join(escape(plugin))
}

/// A volume that cannot be set up as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct SpecError {
    pub volume: String,
    pub message: String,
}

/// Every volume of a pod, in the order of its spec.
pub(super) fn volumes(pod: &Pod, pod_dir: &Path) -> Result<Vec<Box<dyn Volume>>, SpecError> {
    let asked = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
    let volume = |volume: &VolumeSource| {
        let fail = |message: String| SpecError { volume: volume.name.clone(), message };
        if !spec::is_plain_name(&volume.name) {
            return Err(fail("the volume's name is not a DNS label".into()));
        }
        let found = PLUGINS.iter().find_map(|plugin| (plugin.new_volume)(&Spec { volume, pod_dir }));
        let unsupported = || Err(format!("{} volumes are not supported by this node", spec::other_kind(volume)));
        found.unwrap_or_else(unsupported).map_err(fail)
    };
    asked.iter().map(volume).collect()
}

/// Takes down what there is below a pod's directory, whoever made it: subpaths, then each volume by
/// its kind. What is of no kind is unmounted and removed. Blocking; may be repeated.
pub(super) fn tear_down_all(pod_dir: &Path) -> Result<(), String> {
    let fail = |dir: &Path, error: &io::Error| format!("remove {}: {error}", dir.display());
    let subpaths = pod_dir.join("volume-subpaths");
    mounts::unmount_and_remove(&subpaths).map_err(|error| fail(&subpaths, &error))?;
    let volumes = pod_dir.join("volumes");
    for plugin in PLUGINS {
        for name in names(&volumes.join(escape(plugin.name))) {
            let torn_down = (plugin.tear_down)(pod_dir, &name);
            torn_down.map_err(|error| format!("{} volume {name}: {error}", plugin.name))?;
        }
    }
    mounts::unmount_and_remove(&volumes).map_err(|error| fail(&volumes, &error))
}

/// The way down for a volume that is its directory, with what is mounted there.
pub(super) fn remove_volume(pod_dir: &Path, plugin: &str, name: &str) -> io::Result<()> {
    mounts::unmount_and_remove(&pod_dir.join("volumes").join(escape(plugin)).join(name))
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn one(volume: serde_json::Value) -> Result<(PathBuf, bool), String> {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [], "volumes": [volume]}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let volumes = volumes(&pod, Path::new("/pods/u")).map_err(|error| error.message)?;
        Ok((volumes[0].path().to_owned(), volumes[0].is_managed()))
    }

    #[test]
    fn each_kind_has_its_place() {
        for (volume, path, managed) in [
            (json!({"name": "v", "emptyDir": {}}), "/pods/u/volumes/kubernetes.io~empty-dir/v", false),
            (json!({"name": "v", "hostPath": {"path": "/x"}}), "/x", false),
            (json!({"name": "v", "configMap": {"name": "c"}}), "/pods/u/volumes/kubernetes.io~configmap/v", true),
            (json!({"name": "v", "secret": {"secretName": "s"}}), "/pods/u/volumes/kubernetes.io~secret/v", true),
            (json!({"name": "v", "downwardAPI": {}}), "/pods/u/volumes/kubernetes.io~downward-api/v", true),
            (json!({"name": "v", "projected": {}}), "/pods/u/volumes/kubernetes.io~projected/v", true),
        ] {
            assert_eq!(one(volume.clone()), Ok((PathBuf::from(path), managed)), "{volume}");
        }
    }

    #[test]
    fn what_cannot_be_set_up_is_said() {
        for (volume, expect) in [
            (json!({"name": "../x", "emptyDir": {}}), "DNS label"),
            (
                json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}}),
                "persistentVolumeClaim volumes are not",
            ),
            (json!({"name": "v", "csi": {"driver": "d"}}), "csi volumes are not"),
            (json!({"name": "v"}), "such volumes are not"),
        ] {
            let error = one(volume.clone()).unwrap_err();
            assert!(error.contains(expect), "{volume}: {error}");
        }
    }

    /// What an earlier version, or a kind that went, left behind.
    #[test]
    fn directories_of_no_kind_go_too() {
        let dir = tempfile::tempdir().unwrap();
        for below in ["volumes/kubernetes.io~empty-dir/v", "volumes/example.com~odd/w", "volume-subpaths/v/c"] {
            std::fs::create_dir_all(dir.path().join(below)).unwrap();
            std::fs::write(dir.path().join(below).join("file"), "x").unwrap();
        }
        for _ in 0..2 {
            tear_down_all(dir.path()).unwrap();
            assert!(!dir.path().join("volumes").exists() && !dir.path().join("volume-subpaths").exists());
        }
    }
}

//! emptyDir: scratch space on disk, tmpfs or huge pages; upstream's pkg/volume/emptydir.
//!
//! A mark beside the volume says that it was made ready once. From then on it is the containers': its
//! mode, owner and content stay as they made them, over restarts of the agent.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Container, EmptyDirVolumeSource, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::plugins::{self, MounterArgs, Plugin, SetUp, SetUpError, Spec, Volume};
use super::{mounts, ownership, spec};
use crate::convert::quantity;

const NAME: &str = "kubernetes.io/empty-dir";

pub(super) const PLUGIN: Plugin = Plugin { name: NAME, new_volume, tear_down };

/// A scratch directory.
#[derive(Clone, Debug)]
struct EmptyDir {
    name: String,
    directory: PathBuf,
    /// Says that it was made ready.
    mark: PathBuf,
    medium: Medium,
    /// Bytes.
    size_limit: Option<u64>,
}

/// What holds a scratch directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Medium {
    Disk,
    Memory,
    /// Page size in bytes, or the kernel's default.
    HugePages(Option<u64>),
}

fn new_volume(spec: &Spec<'_>) -> Option<Result<Box<dyn Volume>, String>> {
    let asked = spec.volume.empty_dir.as_ref()?;
    let volume = read(asked).map(|(medium, size_limit)| EmptyDir {
        name: spec.volume.name.clone(),
        directory: spec.directory(NAME),
        mark: mark(spec.pod_dir, &spec.volume.name),
        medium,
        size_limit,
    });
    Some(volume.map(|volume| Box::new(volume) as Box<dyn Volume>))
}

/// Upstream's place and name (`SetReady` of pkg/volume/util).
fn mark(pod_dir: &Path, name: &str) -> PathBuf {
    plugins::meta_dir(pod_dir, NAME).join(name).join("ready")
}

fn read(asked: &EmptyDirVolumeSource) -> Result<(Medium, Option<u64>), String> {
    let medium = match asked.medium.as_deref().unwrap_or_default() {
        "" => Medium::Disk,
        "Memory" => Medium::Memory,
        "HugePages" => Medium::HugePages(None),
        other => match other.strip_prefix("HugePages-").and_then(bytes) {
            Some(size) => Medium::HugePages(Some(size)),
            None => return Err(format!("unknown storage medium {other:?}")),
        },
    };
    let size_limit = match &asked.size_limit {
        Some(limit) => Some(bytes(&limit.0).ok_or_else(|| format!("sizeLimit {:?} is no quantity", limit.0))?),
        None => None,
    };
    Ok((medium, size_limit.filter(|limit| *limit > 0)))
}

/// A quantity of bytes; text that is none, or negative, is `None`.
fn bytes(text: &str) -> Option<u64> {
    quantity::nanos(text)?;
    u64::try_from(quantity::value(&Quantity(text.to_owned()))).ok()
}

/// The size of a memory-backed directory in bytes: the smallest of its own
/// limit, the pod's memory limit (when every container has one) and what the
/// node can allocate. Pure.
fn memory_size(pod: &Pod, limit: Option<u64>, allocatable: Option<u64>) -> Option<u64> {
    let containers = pod.spec.as_ref().map(|s| s.containers.as_slice()).unwrap_or_default();
    let limit_of = |c: &Container| bytes(&c.resources.as_ref()?.limits.as_ref()?.get("memory")?.0);
    let pod_limit: Option<u64> =
        containers.iter().map(limit_of).try_fold(0u64, |sum, limit| sum.checked_add(limit?)).filter(|sum| *sum > 0);
    [limit, pod_limit, allocatable].into_iter().flatten().min()
}

#[async_trait]
impl Volume for EmptyDir {
    fn name(&self) -> &str {
        &self.name
    }

    fn path(&self) -> &Path {
        &self.directory
    }

    async fn set_up(&self, args: &MounterArgs<'_>) -> Result<SetUp, SetUpError> {
        let allocatable = args.fields.allocatable.get("memory").and_then(|quantity| bytes(&quantity.0));
        let size = memory_size(args.pod, self.size_limit, allocatable);
        let (volume, group) = (self.clone(), spec::fs_group(args.pod));
        let done = args.jobs.run(move || volume.make(size, group).map_err(|error| error.to_string())).await;
        done.map(|()| SetUp::Current).map_err(SetUpError::Unavailable)
    }
}

impl EmptyDir {
    /// Makes the directory and mounts what holds it, unless it is ready. The mark comes last: dying before it
    /// repeats everything, when no container has seen the volume yet. Blocking.
    fn make(&self, memory_size: Option<u64>, group: Option<u32>) -> io::Result<()> {
        if self.is_ready()? {
            return Ok(());
        }
        fs::create_dir_all(&self.directory)?;
        match self.medium {
            Medium::Disk => {}
            Medium::Memory => mounts::mount_tmpfs(&self.directory, memory_size, false)?,
            Medium::HugePages(page_size) => mounts::mount_hugetlbfs(&self.directory, page_size)?,
        }
        // Explicitly, since the umask took its part.
        fs::set_permissions(&self.directory, Permissions::from_mode(0o777))?;
        if let Some(group) = group {
            ownership::set_group(&self.directory, group)?;
        }
        fs::create_dir_all(self.mark.parent().unwrap_or(&self.directory))?;
        fs::write(&self.mark, "")
    }

    /// Whether it was made ready and still is: a machine that started anew has lost what was in memory.
    fn is_ready(&self) -> io::Result<bool> {
        let there = self.mark.exists() && self.directory.is_dir();
        Ok(there && (self.medium == Medium::Disk || mounts::is_other_filesystem(&self.directory)?))
    }
}

/// The mark goes first: what is half gone is not ready.
fn tear_down(pod_dir: &Path, name: &str) -> io::Result<()> {
    let meta = plugins::meta_dir(pod_dir, NAME);
    cri::dirtree::remove(&meta.join(name))?;
    plugins::remove_volume(pod_dir, NAME, name)?;
    match fs::remove_dir(&meta) {
        // Others' marks are there still, or there never were any.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn media_and_limits() {
        let asked = |value: serde_json::Value| read(&serde_json::from_value(value).unwrap());
        assert_eq!(asked(json!({})), Ok((Medium::Disk, None)));
        assert_eq!(asked(json!({"medium": "Memory", "sizeLimit": "1Mi"})), Ok((Medium::Memory, Some(1 << 20))));
        assert_eq!(asked(json!({"medium": "HugePages-2Mi"})), Ok((Medium::HugePages(Some(2 << 20)), None)));
        assert_eq!(asked(json!({"sizeLimit": "0"})), Ok((Medium::Disk, None)));
        for (bad, complaint) in
            [(json!({"medium": "Paper"}), "unknown storage medium"), (json!({"sizeLimit": "many"}), "no quantity")]
        {
            assert!(asked(bad).unwrap_err().contains(complaint));
        }
    }

    #[test]
    fn the_smallest_bound_counts() {
        let pod = |limits: &[Option<&str>]| -> Pod {
            let container = |limit: &Option<&str>| match limit {
                Some(limit) => json!({"name": "c", "resources": {"limits": {"memory": limit}}}),
                None => json!({"name": "c"}),
            };
            let containers: Vec<_> = limits.iter().map(container).collect();
            serde_json::from_value(json!({"metadata": {}, "spec": {"containers": containers}})).unwrap()
        };
        assert_eq!(memory_size(&pod(&[None]), None, None), None);
        assert_eq!(memory_size(&pod(&[None]), Some(5), Some(9)), Some(5));
        assert_eq!(memory_size(&pod(&[Some("1"), Some("2")]), Some(5), None), Some(3));
        assert_eq!(memory_size(&pod(&[Some("1"), None]), None, Some(7)), Some(7));
    }

    /// Whatever line the maker died after.
    #[test]
    fn what_was_cut_short_is_completed() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().join("volumes/kubernetes.io~empty-dir/v");
        let volume = EmptyDir {
            name: "v".into(),
            directory: directory.clone(),
            mark: mark(dir.path(), "v"),
            medium: Medium::Disk,
            size_limit: None,
        };
        let bits = || fs::metadata(&directory).unwrap().permissions().mode() & 0o7777;
        fs::create_dir_all(&directory).unwrap();
        fs::set_permissions(&directory, Permissions::from_mode(0o700)).unwrap();
        volume.make(None, Some(1234)).unwrap();
        assert_eq!(bits(), 0o2777);
        // From now on it is the containers', unless the directory is lost.
        fs::set_permissions(&directory, Permissions::from_mode(0o700)).unwrap();
        volume.make(None, Some(1234)).unwrap();
        assert_eq!(bits(), 0o700);
        fs::remove_dir(&directory).unwrap();
        volume.make(None, None).unwrap();
        assert_eq!(bits(), 0o777);
        for _ in 0..2 {
            tear_down(dir.path(), "v").unwrap();
            assert!(!directory.exists() && !plugins::meta_dir(dir.path(), NAME).exists());
        }
    }
}

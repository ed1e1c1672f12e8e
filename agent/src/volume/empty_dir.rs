//! emptyDir volumes on disk, tmpfs and huge pages.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;

use super::plan::{EmptyDir, Medium};
use super::{mounts, plan};

/// Creates and, for memory, mounts the directory. Content that is there stays.
pub fn set_up(dir: &Path, volume: &EmptyDir, memory_size: Option<u64>) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    match volume.medium {
        Medium::Disk => {}
        Medium::Memory => mounts::mount_tmpfs(dir, memory_size, false)?,
        Medium::HugePages(page_size) => mounts::mount_hugetlbfs(dir, page_size)?,
    }
    let mode = fs::metadata(dir)?.permissions().mode();
    if mode & 0o777 != 0o777 {
        fs::set_permissions(dir, Permissions::from_mode(0o777))?;
    }
    Ok(())
}

/// The size of a memory-backed directory in bytes: the smallest of its own
/// limit, the pod's memory limit (when every container has one) and what the
/// node can allocate. Pure.
pub fn memory_size(pod: &Pod, limit: Option<u64>, allocatable: Option<u64>) -> Option<u64> {
    let containers = pod.spec.as_ref().map(|s| s.containers.as_slice()).unwrap_or_default();
    let limit_of = |c: &k8s_openapi::api::core::v1::Container| {
        let limits = c.resources.as_ref()?.limits.as_ref()?;
        plan::bytes(&limits.get("memory")?.0)
    };
    let pod_limit: Option<u64> =
        containers.iter().map(limit_of).try_fold(0u64, |sum, limit| sum.checked_add(limit?)).filter(|sum| *sum > 0);
    [limit, pod_limit, allocatable].into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn the_smallest_bound_counts() {
        let pod = |limits: &[Option<&str>]| -> Pod {
            let containers: Vec<_> = limits
                .iter()
                .map(|l| match l {
                    Some(l) => json!({"name": "c", "resources": {"limits": {"memory": l}}}),
                    None => json!({"name": "c"}),
                })
                .collect();
            serde_json::from_value(json!({"metadata": {}, "spec": {"containers": containers}})).unwrap()
        };
        assert_eq!(memory_size(&pod(&[None]), None, None), None);
        assert_eq!(memory_size(&pod(&[None]), Some(5), Some(9)), Some(5));
        assert_eq!(memory_size(&pod(&[Some("1"), Some("2")]), Some(5), None), Some(3));
        assert_eq!(memory_size(&pod(&[Some("1"), None]), None, Some(7)), Some(7));
    }

    #[test]
    fn content_and_sticky_bits_survive_a_second_set_up() {
        let dir = tempfile::tempdir().unwrap();
        let volume = EmptyDir { medium: Medium::Disk, size_limit: None };
        let path = dir.path().join("a/v");
        set_up(&path, &volume, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o777);
        fs::write(path.join("file"), "x").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o2777)).unwrap();
        set_up(&path, &volume, None).unwrap();
        assert!(path.join("file").exists());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o2777);
    }
}

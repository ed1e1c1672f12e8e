//! Removal of cgroups: a node's or a pod tree's directories in every hierarchy
//! of the machine, v1, hybrid or v2.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The mount points of all cgroup hierarchies in a mountinfo text.
fn hierarchies(mountinfo: &str) -> Vec<PathBuf> {
    let mount_point = |line: &str| {
        let (fields, kind) = line.split_once(" - ")?;
        let kind = kind.split(' ').next()?;
        (kind == "cgroup" || kind == "cgroup2").then(|| fields.split(' ').nth(4).map(PathBuf::from))?
    };
    mountinfo.lines().filter_map(mount_point).collect()
}

/// Removes the cgroup `path` and everything below it from every hierarchy.
/// Its processes must be gone.
///
/// # Errors
/// Names the first directory that the kernel would not remove.
pub fn remove(path: &str) -> Result<()> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").context("read the mounts")?;
    for hierarchy in hierarchies(&mountinfo) {
        let directory = hierarchy.join(path);
        remove_tree(&directory).with_context(|| format!("remove the cgroup {}", directory.display()))?;
    }
    Ok(())
}

/// Removes the cgroup `path` where nothing is in it; a busy one stays.
pub fn remove_if_empty(path: &str) {
    let Ok(mountinfo) = fs::read_to_string("/proc/self/mountinfo") else { return };
    for hierarchy in hierarchies(&mountinfo) {
        // Busy or missing: both are as they should be.
        let _ = fs::remove_dir(hierarchy.join(path));
    }
}

/// A cgroup's files go with its directory, so only directories are removed.
fn remove_tree(directory: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_generations_are_found() {
        let text = "30 25 0:26 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
                    31 25 0:27 / /sys/fs/cgroup/unified rw shared:3 - cgroup2 cgroup2 rw\n\
                    32 25 0:28 / /tmp rw - tmpfs tmpfs rw\n\
                    garbage\n";
        let expected = ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified"].map(PathBuf::from);
        assert_eq!(hierarchies(text), expected);
    }
}

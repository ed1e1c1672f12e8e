//! Removal of cgroups, in every hierarchy of the machine, v1, hybrid or v2, and
//! the note that tells whoever ends a node which cgroups are its own.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use agent::cgroup::{Hierarchies, Layout, is_occupied, remove_tree, systemd};
use agent::config::CgroupDriver;
use agent::convert::qos::QosClass;
use agent::ids::PodUid;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::files;

/// A tree of pods' cgroups, as noted before its first directory is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tree {
    /// Parent of the node's cgroups.
    pub root: String,
    /// Whether systemd makes them.
    pub systemd: bool,
    /// Directories of all pods' cgroup and above that there were not yet, the
    /// innermost first: ours to remove.
    pub made: Vec<PathBuf>,
}

impl Tree {
    fn layout(&self) -> Layout {
        let driver = if self.systemd { CgroupDriver::Systemd } else { CgroupDriver::Cgroupfs };
        Layout::new(driver, &self.root)
    }
}

/// Notes in `file` that pods' cgroups will be below `root`. Of a tree that is
/// noted already nothing changes: it is an earlier start's, and adopted.
///
/// # Errors
/// When the file or the mounts cannot be read, or the file not be written.
pub fn note(file: &Path, root: &str, systemd: bool) -> Result<()> {
    let mut trees = noted(file).unwrap_or_else(|error| {
        // A node must not stay down for a note; cgroups it spoke of may stay behind.
        tracing::warn!(error = format!("{error:#}"), "the note of cgroups is damaged and begun anew");
        Vec::new()
    });
    if trees.iter().any(|tree| tree.root == root && tree.systemd == systemd) {
        return Ok(());
    }
    let mut tree = Tree { root: root.to_owned(), systemd, made: Vec::new() };
    let layout = tree.layout();
    let classes = [QosClass::Burstable, QosClass::BestEffort].map(|class| layout.path(Some(class), None));
    let pods = layout.path(None, None);
    let classes = classes.iter().filter_map(|path| path.to_str());
    for path in classes.chain(with_ancestors(&pods.to_string_lossy())) {
        tree.made.extend(directories(Path::new(path))?.into_iter().filter(|directory| !directory.exists()));
    }
    trees.push(tree);
    files::replace(file, &serde_json::to_vec(&trees)?, 0o600).with_context(|| format!("write {}", file.display()))
}

/// The trees noted in `file`, none when it is missing.
///
/// # Errors
/// When the file cannot be read or is not a note.
pub fn noted(file: &Path) -> Result<Vec<Tree>> {
    match fs::read(file) {
        Ok(text) => serde_json::from_slice(&text).with_context(|| format!("{} is malformed", file.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("read {}", file.display())),
    }
}

/// `path` and the cgroups above it but the root of all, the innermost first.
fn with_ancestors(path: &str) -> impl Iterator<Item = &str> {
    let all = std::iter::successors(Some(path.trim_matches('/')), |path| Some(path.rsplit_once('/')?.0));
    all.filter(|path| !path.is_empty())
}

/// The directories of the cgroup `path` in all hierarchies, there or not.
fn directories(path: &Path) -> Result<Vec<PathBuf>> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").context("read the mounts")?;
    Ok(Hierarchies::parse(&mountinfo).all().map(|hierarchy| hierarchy.join(path)).collect())
}

/// Removes the cgroups of `pods`, whose processes must be gone, and whatever else of the tree the node
/// made and nobody uses. Another kubelet's pods may be in the same tree.
///
/// # Errors
/// Names a cgroup of the pods that could not be removed.
pub async fn remove_pods(tree: &Tree, pods: &BTreeSet<PodUid>) -> Result<()> {
    let layout = tree.layout();
    let classes = [QosClass::Guaranteed, QosClass::Burstable, QosClass::BestEffort];
    for (class, pod) in classes.into_iter().flat_map(|class| pods.iter().map(move |pod| (class, pod))) {
        let path = layout.path(Some(class), Some(pod));
        let there = directories(&path)?.iter().any(|directory| directory.exists());
        if there && tree.systemd {
            let slice = layout.parent(class, pod);
            systemd::stop_slice(&slice).await.with_context(|| format!("stop {slice}"))?;
        }
        remove(&path)?;
    }
    let all = layout.path(None, None);
    let made = directories(&all)?.into_iter().filter(|directory| tree.made.contains(directory));
    let made: Vec<_> = made.filter(|directory| directory.exists()).collect();
    if !made.is_empty() && tree.systemd && !made.iter().any(|directory| is_occupied(directory)) {
        let slice = all.file_name().unwrap_or_default().to_string_lossy();
        systemd::stop_slice(&slice).await.with_context(|| format!("stop {slice}"))?;
    }
    for directory in made.iter().chain(&tree.made) {
        remove_unoccupied(directory);
    }
    Ok(())
}

/// Removes what nobody uses of a cgroup and those below it.
fn remove_unoccupied(directory: &Path) {
    for below in subdirectories(directory) {
        remove_unoccupied(&below);
    }
    // Busy or missing: both are as they should be.
    let _ = fs::remove_dir(directory);
}

fn subdirectories(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

/// Removes the cgroup `path` and everything below it from every hierarchy.
/// Its processes must be gone.
///
/// # Errors
/// Names the first directory that the kernel would not remove.
pub fn remove(path: impl AsRef<Path>) -> Result<()> {
    for directory in directories(path.as_ref())? {
        remove_tree(&directory)?;
    }
    Ok(())
}

/// Removes the cgroup `path` where nothing is in it; a busy one stays.
pub fn remove_if_empty(path: impl AsRef<Path>) {
    for directory in directories(path.as_ref()).unwrap_or_default() {
        // Busy or missing: both are as they should be.
        let _ = fs::remove_dir(directory);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ancestors_come_innermost_first() {
        let all = |path| with_ancestors(path).collect::<Vec<_>>();
        assert_eq!(all("/a/b/c/"), ["a/b/c", "a/b", "a"]);
        assert_eq!(all("a"), ["a"]);
        assert_eq!((all("/").len(), all("").len()), (0, 0));
    }

    #[test]
    fn what_nobody_uses_is_removed_and_what_somebody_uses_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (used, empty) = (dir.path().join("kubepods/podx"), dir.path().join("kubepods/burstable/pody"));
        for cgroup in [&used, &empty] {
            fs::create_dir_all(cgroup).unwrap();
        }
        // A file keeps a plain directory as a process keeps a cgroup.
        fs::write(used.join("cgroup.procs"), "7\n").unwrap();
        assert!(is_occupied(dir.path()));
        remove_unoccupied(dir.path());
        assert!(used.exists() && !dir.path().join("kubepods/burstable").exists());
        fs::write(used.join("cgroup.procs"), "\n").unwrap();
        assert!(!is_occupied(dir.path()));
    }

    #[test]
    fn a_note_is_written_once_per_tree() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("note");
        assert_eq!(noted(&file).unwrap(), []);
        note(&file, "/no-such-cgroup/x", false).unwrap();
        note(&file, "/no-such-cgroup/x", false).unwrap();
        note(&file, "/", true).unwrap();
        let trees = noted(&file).unwrap();
        assert_eq!(trees.len(), 2, "{trees:?}");
        let made = |end: &str| trees[0].made.iter().position(|made| made.ends_with(end)).unwrap();
        assert!(made("x/kubepods/burstable") < made("x/kubepods") && made("x/kubepods") < made("x"), "{trees:?}");
        assert!(trees[0].made.iter().any(|made| made.ends_with("no-such-cgroup")), "{trees:?}");
        assert!(
            trees[1].systemd && trees[1].made.iter().all(|made| made.to_string_lossy().contains("/kubepods.slice")),
            "{trees:?}"
        );
        fs::write(&file, "[{").unwrap();
        assert!(noted(&file).unwrap_err().to_string().contains("malformed"));
    }
}

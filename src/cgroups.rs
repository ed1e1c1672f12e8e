//! Removal of cgroups, in every hierarchy of the machine, v1, hybrid or v2, and
//! the note that tells whoever ends a node which cgroups are its own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use agent::cgroup::{Hierarchies, remove_tree};
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
    /// Directories of `root` and above that there were not yet, the innermost
    /// first: ours to remove.
    pub made: Vec<PathBuf>,
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
    let mut made = Vec::new();
    for path in with_ancestors(root) {
        made.extend(directories(Path::new(path))?.into_iter().filter(|directory| !directory.exists()));
    }
    trees.push(Tree { root: root.to_owned(), systemd, made });
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
    fn a_note_is_written_once_per_tree() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("note");
        assert_eq!(noted(&file).unwrap(), []);
        note(&file, "/no-such-cgroup/x", false).unwrap();
        note(&file, "/no-such-cgroup/x", false).unwrap();
        note(&file, "/", true).unwrap();
        let trees = noted(&file).unwrap();
        assert_eq!(trees.len(), 2, "{trees:?}");
        assert!(trees[0].made[0].ends_with("no-such-cgroup/x"), "{trees:?}");
        assert!(trees[0].made.iter().any(|made| made.ends_with("no-such-cgroup")), "{trees:?}");
        assert!(trees[1].systemd && trees[1].made.is_empty());
        fs::write(&file, "[{").unwrap();
        assert!(noted(&file).unwrap_err().to_string().contains("malformed"));
    }
}

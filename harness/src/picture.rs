//! A picture of a machine: a line for each thing that is there. Two of them are compared both ways:
//! nothing may be left, and nothing that was somebody else's may be gone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// A line for each thing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture(BTreeSet<String>);

impl Picture {
    /// Adds things of one kind.
    pub fn add(&mut self, kind: &str, things: impl IntoIterator<Item = impl std::fmt::Display>) {
        self.0.extend(things.into_iter().map(|thing| format!("{kind} {thing}")));
    }

    /// What there is now and was not before.
    #[must_use]
    pub fn left_since(&self, before: &Self) -> Vec<String> {
        self.0.difference(&before.0).cloned().collect()
    }

    /// Fails unless both show the same.
    ///
    /// # Errors
    /// Lists what is left, or what is gone.
    pub fn expect_same(&self, before: &Self) -> Result<()> {
        let (left, gone) = (self.left_since(before), before.left_since(self));
        ensure!(left.is_empty(), "left:\n{}", left.join("\n"));
        ensure!(gone.is_empty(), "taken from others:\n{}", gone.join("\n"));
        Ok(())
    }
}

/// The mount points of the machine's cgroup hierarchies.
///
/// # Errors
/// When the mounts cannot be read.
pub fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("read the mounts")?;
    let cgroups = mounts.lines().filter(|line| line.contains(" - cgroup"));
    Ok(cgroups.filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from).collect())
}

/// Shows `path` and everything below it, parents first; links are not followed.
pub fn files_below(path: &Path, show: &mut impl FnMut(&Path)) {
    if path.symlink_metadata().is_err() {
        return;
    }
    show(path);
    if path.is_symlink() {
        return;
    }
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        files_below(&entry.path(), show);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn differences_count_both_ways() {
        let picture = |things: &[&str]| {
            let mut picture = Picture::default();
            picture.add("file", things);
            picture
        };
        let before = picture(&["/a", "/theirs"]);
        before.expect_same(&before.clone()).unwrap();
        let left = picture(&["/a", "/theirs", "/b"]).expect_same(&before).unwrap_err().to_string();
        assert_eq!(left, "left:\nfile /b");
        let gone = picture(&["/a"]).expect_same(&before).unwrap_err().to_string();
        assert_eq!(gone, "taken from others:\nfile /theirs");
    }

    #[test]
    fn links_are_shown_and_not_followed() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink("/", root.path().join("link")).unwrap();
        let mut seen = Vec::new();
        files_below(root.path(), &mut |path| seen.push(path.file_name().unwrap().to_owned()));
        seen.remove(0);
        seen.sort();
        assert_eq!(seen, ["file", "link"]);
    }
}

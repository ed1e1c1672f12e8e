//! cgroups v2: one tree for all controllers, each handed down from level to level.

use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::hierarchy::{Hierarchy, remove_directories};
use super::{CgroupError, WANTED, kill, limits, write};
use crate::convert::resources::{PodCgroupLimits, SwapControl};
use crate::read;

/// Controllers handed down to containers where the kernel has them.
const DELEGATED: &[&str] = &["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc"];

/// The unified tree of a machine.
#[derive(Clone, Debug)]
pub(super) struct V2 {
    root: PathBuf,
}

impl V2 {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    fn number<T: std::str::FromStr>(&self, cgroup: &Path, name: &str) -> Option<T> {
        read::text(self.root.join(cgroup).join(name), read::MUCH).ok()?.trim().parse().ok()
    }

    fn controllers(&self) -> String {
        read::text(self.root.join("cgroup.controllers"), read::MUCH).unwrap_or_default()
    }

    /// Makes the directories from the top, each with the controllers of the one above.
    fn create(&self, cgroup: &Path) -> Result<(), CgroupError> {
        let available = self.controllers();
        let available: Vec<&str> = available.split_whitespace().collect();
        let mut directory = self.root.clone();
        for part in cgroup.components() {
            let file = directory.join("cgroup.subtree_control");
            let enabled = read::text(&file, read::MUCH).unwrap_or_default();
            let missing = |c: &&&str| available.contains(*c) && !enabled.split_whitespace().any(|e| e == **c);
            for controller in DELEGATED.iter().filter(missing) {
                // One at a time: the kernel takes all of a line or nothing.
                let handed_down = write(&file, &format!("+{controller}"));
                if WANTED.contains(controller) {
                    handed_down?;
                }
            }
            directory.push(part);
            let made = std::fs::create_dir_all(&directory);
            made.map_err(|source| CgroupError::Create { path: directory.clone(), source })?;
        }
        Ok(())
    }
}

#[async_trait]
impl Hierarchy for V2 {
    async fn apply(&self, cgroup: &Path, limits: &PodCgroupLimits) -> Result<(), CgroupError> {
        self.create(cgroup)?;
        let directory = self.root.join(cgroup);
        limits::v2(limits).into_iter().try_for_each(|(name, value)| write(&directory.join(name), &value))
    }

    fn directories(&self, cgroup: &Path) -> Vec<PathBuf> {
        vec![self.root.join(cgroup)]
    }

    fn has(&self, controller: &str) -> bool {
        self.controllers().split_whitespace().any(|c| c == controller)
    }

    fn weight(&self, cgroup: &Path) -> Option<i64> {
        self.number(cgroup, "cpu.weight")
    }

    fn weight_of(&self, shares: i64) -> i64 {
        limits::weight(shares)
    }

    fn pids(&self, cgroup: &Path) -> Option<u64> {
        self.number(cgroup, "pids.current")
    }

    /// The top has no such file, so one that exists is looked at.
    fn swap_control(&self, cgroup: &Path) -> SwapControl {
        let counts = self.root.join(cgroup).join("memory.swap.max").exists();
        if counts { SwapControl::Alone } else { SwapControl::Absent }
    }

    /// Since Linux 5.14 the kernel does it at once; before, `cgroup.freeze` holds what would fork.
    fn kill(&self, cgroup: &Path) {
        let directory = self.root.join(cgroup);
        if kill::by_kernel(&directory) {
            return;
        }
        kill::by_signals(std::slice::from_ref(&directory), Some(&directory.join("cgroup.freeze")));
    }

    async fn remove(&self, cgroup: &Path) -> Result<(), CgroupError> {
        remove_directories(self.directories(cgroup)).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::kill::tests::Real;
    use super::super::mounts::Hierarchies;
    use super::*;

    /// The kernel's own, by either way of killing.
    #[tokio::test]
    async fn a_pod_that_forks_is_killed_and_removed() {
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let root = Hierarchies::parse(&text).unified.expect("this kernel mounts cgroup2 somewhere");
        let v2 = V2::new(root.clone());
        for by_signals in [false, true] {
            let real = Real::new(std::slice::from_ref(&root));
            real.fork_bomb("podx/container");
            let pod = real.cgroup.join("podx");
            assert!(v2.is_occupied(&pod));
            if by_signals {
                let directory = root.join(&pod);
                kill::by_signals(std::slice::from_ref(&directory), Some(&directory.join("cgroup.freeze")));
            } else {
                v2.kill(&pod);
            }
            assert!(!v2.is_occupied(&pod), "by signals: {by_signals}");
            v2.remove(&pod).await.unwrap();
            assert!(!root.join(&pod).exists());
        }
    }
}

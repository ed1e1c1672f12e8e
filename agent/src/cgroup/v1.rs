//! cgroups v1: a tree for each controller, each mounted apart.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::hierarchy::{Hierarchy, remove_directories};
use super::mounts::Hierarchies;
use super::{CgroupError, WANTED, kill, limits, write};
use crate::convert::resources::{PodCgroupLimits, SwapControl};
use crate::read;

/// The v1 trees of a machine.
#[derive(Clone, Debug)]
pub(super) struct V1 {
    mounts: Hierarchies,
}

impl V1 {
    pub(super) fn new(mounts: Hierarchies) -> Self {
        Self { mounts }
    }

    fn file(&self, controller: &str, cgroup: &Path, name: &str) -> Option<PathBuf> {
        Some(self.mounts.v1.get(controller)?.join(cgroup).join(name))
    }

    fn number<T: std::str::FromStr>(&self, controller: &str, cgroup: &Path, name: &str) -> Option<T> {
        read::text(self.file(controller, cgroup, name)?, read::MUCH).ok()?.trim().parse().ok()
    }
}

#[async_trait]
impl Hierarchy for V1 {
    async fn apply(&self, cgroup: &Path, limits: &PodCgroupLimits) -> Result<(), CgroupError> {
        // Two controllers may share a mount.
        let roots: BTreeSet<&PathBuf> = WANTED.iter().filter_map(|c| self.mounts.v1.get(*c)).collect();
        for root in roots {
            let full = root.join(cgroup);
            std::fs::create_dir_all(&full).map_err(|source| CgroupError::Create { path: full, source })?;
        }
        for (controller, name, value) in limits::v1(limits) {
            if let Some(file) = self.file(controller, cgroup, name) {
                write(&file, &value)?;
            }
        }
        Ok(())
    }

    fn directories(&self, cgroup: &Path) -> Vec<PathBuf> {
        self.mounts.all().map(|mount| mount.join(cgroup)).collect()
    }

    fn has(&self, controller: &str) -> bool {
        self.mounts.v1.contains_key(controller)
    }

    fn weight(&self, cgroup: &Path) -> Option<i64> {
        self.number("cpu", cgroup, "cpu.shares")
    }

    fn weight_of(&self, shares: i64) -> i64 {
        shares
    }

    fn pids(&self, cgroup: &Path) -> Option<u64> {
        self.number("pids", cgroup, "pids.current")
    }

    fn swap_control(&self, _: &Path) -> SwapControl {
        let counts = self.file("memory", Path::new(""), "memory.memsw.limit_in_bytes").is_some_and(|f| f.exists());
        if counts { SwapControl::Together } else { SwapControl::Absent }
    }

    /// Processes that are frozen cannot fork away from the signal, and die when they are thawed.
    fn kill(&self, cgroup: &Path) {
        let freezer = self.file("freezer", cgroup, "freezer.state");
        let directories: Vec<PathBuf> = self.directories(cgroup).into_iter().filter(|dir| dir.is_dir()).collect();
        kill::by_signals(&directories, freezer.as_deref());
    }

    async fn remove(&self, cgroup: &Path) -> Result<(), CgroupError> {
        remove_directories(self.directories(cgroup)).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::kill::tests::Real;
    use super::*;

    /// The kernel's own, with a process that forks as fast as it can.
    #[tokio::test]
    async fn a_pod_that_forks_is_killed_and_removed() {
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let v1 = V1::new(Hierarchies::parse(&text));
        let Some(pids) = v1.mounts.v1.get("pids").cloned() else { return assert!(!v1.has("cpu"), "v1 without pids") };
        let freezer = v1.mounts.v1.get("freezer").cloned();
        let mounts: Vec<PathBuf> = [Some(pids), freezer].into_iter().flatten().collect();
        let real = Real::new(&mounts);
        real.fork_bomb("podx/container");
        let pod = real.cgroup.join("podx");
        assert!(v1.is_occupied(&pod) && v1.pids(&pod).is_some_and(|pids| pids > 0));
        v1.kill(&pod);
        assert!(!v1.is_occupied(&pod));
        v1.remove(&pod).await.unwrap();
        v1.remove(&pod).await.unwrap();
        assert!(v1.directories(&pod).iter().all(|dir| !dir.exists()));
    }
}

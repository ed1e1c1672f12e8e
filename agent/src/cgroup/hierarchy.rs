//! What every way of keeping cgroups can do: make, limit, read, kill, remove. Who is in which
//! cgroup, and why, is [`super::tree`]'s.
//!
//! [`super::v1`] and [`super::v2`] work with files; [`super::systemd`] asks systemd for what would
//! not last otherwise, and leaves the rest to one of them.

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::CgroupError;
use super::kill;
use crate::convert::resources::{PodCgroupLimits, SwapControl};

/// One way of keeping cgroups, as upstream's `CgroupManager` (pkg/kubelet/cm/types.go). A cgroup is
/// named by its path below the mount points. Every call may be repeated.
#[async_trait]
pub(super) trait Hierarchy: Debug + Send + Sync {
    /// Makes a cgroup with all above it, and sets what `limits` speak of; the rest stays. Dying in
    /// between leaves one that lacks limits: nothing starts in it before the next call.
    async fn apply(&self, cgroup: &Path, limits: &PodCgroupLimits) -> Result<(), CgroupError>;

    /// The directories a cgroup has or would have, one for each mount.
    fn directories(&self, cgroup: &Path) -> Vec<PathBuf>;

    /// Whether the kernel has a controller here.
    fn has(&self, controller: &str) -> bool;

    /// The CPU weight of a cgroup that exists, in this hierarchy's unit.
    fn weight(&self, cgroup: &Path) -> Option<i64>;

    /// What [`Hierarchy::weight`] says of a cgroup with so many of v1's shares.
    fn weight_of(&self, shares: i64) -> i64;

    /// How many processes and threads there are; `None` when it cannot be read.
    fn pids(&self, cgroup: &Path) -> Option<u64>;

    /// How containers below `cgroup`, which exists, can be kept from swapping.
    fn swap_control(&self, cgroup: &Path) -> SwapControl;

    /// Kills every process in a cgroup and below it, whatever they fork meanwhile. Blocking. What
    /// refuses shows when the cgroup is removed.
    fn kill(&self, cgroup: &Path);

    /// Removes a cgroup and those below it, in which no process is left. Absent is success.
    async fn remove(&self, cgroup: &Path) -> Result<(), CgroupError>;

    /// Whether there is a process in a cgroup or below it.
    fn is_occupied(&self, cgroup: &Path) -> bool {
        self.directories(cgroup).iter().any(|directory| kill::is_occupied(directory))
    }
}

/// Removes directories of cgroups where removing may block: that of memory takes milliseconds.
pub(super) async fn remove_directories(directories: Vec<PathBuf>) -> Result<(), CgroupError> {
    let removed = tokio::task::spawn_blocking(move || directories.iter().try_for_each(|dir| kill::remove_tree(dir)));
    removed.await.unwrap_or(Ok(()))
}

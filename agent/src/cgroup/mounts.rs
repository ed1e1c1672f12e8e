//! Which cgroup hierarchies are mounted where. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use cri::mountinfo::unescape;

/// The hierarchies of this machine as one process sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hierarchies {
    /// v1 controllers by name → mount point.
    pub v1: BTreeMap<String, PathBuf>,
    /// Every v1 mount, also named ones without a controller.
    pub v1_mounts: BTreeSet<PathBuf>,
    /// The unified hierarchy.
    pub unified: Option<PathBuf>,
}

const CONTROLLERS: &[&str] = &[
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "net_cls",
    "blkio",
    "perf_event",
    "net_prio",
    "hugetlb",
    "pids",
    "rdma",
    "misc",
];

impl Hierarchies {
    /// Reads the text of /proc/self/mountinfo; lines it cannot read are skipped.
    pub fn parse(mountinfo: &str) -> Self {
        let mut out = Self::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let Some(point) = left.split(' ').nth(4).map(|point| unescape(point.as_bytes())) else { continue };
            let mut fields = right.split(' ');
            match (fields.next(), fields.nth(1)) {
                (Some("cgroup2"), _) => {
                    out.unified.get_or_insert(point);
                }
                (Some("cgroup"), Some(options)) => {
                    for name in options.split(',').filter(|o| CONTROLLERS.contains(o)) {
                        out.v1.entry(name.to_owned()).or_insert_with(|| point.clone());
                    }
                    out.v1_mounts.insert(point);
                }
                _ => {}
            }
        }
        out
    }

    /// Whether controllers live in the unified hierarchy alone.
    pub fn is_v2(&self) -> bool {
        self.v1.is_empty() && self.unified.is_some()
    }

    /// Every mount there is.
    pub fn all(&self) -> impl Iterator<Item = &PathBuf> {
        self.v1_mounts.iter().chain(self.unified.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_machines() {
        let v1 = "30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:5 - cgroup cgroup rw,cpu,cpuacct
31 25 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
32 25 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
33 25 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
        let h = Hierarchies::parse(v1);
        assert!(!h.is_v2());
        assert_eq!(h.v1["cpu"], PathBuf::from("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!((h.v1.len(), h.all().count()), (3, 4));
        let h = Hierarchies::parse("30 25 0:26 / /sys/fs/cgroup rw - cgroup2 none rw\ngarbage\n- x\n1 2 - cgroup");
        assert!(h.is_v2());
        assert_eq!(h.unified, Some(PathBuf::from("/sys/fs/cgroup")));
        assert_eq!(Hierarchies::parse(""), Hierarchies::default());
        assert_eq!(Hierarchies::parse("1 2 3 / /a\\040b rw - cgroup2 x rw").unified, Some(PathBuf::from("/a b")));
    }
}

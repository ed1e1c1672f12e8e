//! Makes, limits and removes the cgroups of pods.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::layout::Layout;
use super::mounts::Hierarchies;
use super::{kill, systemd};
use crate::config::{CgroupDriver, CgroupSettings};
use crate::convert::qos::QosClass;
use crate::convert::resources::{MIN_SHARES, MemoryControl, PodCgroupLimits, SwapControl};
use crate::ids::PodUid;

/// Why a cgroup cannot be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("no cgroup hierarchy is mounted: mount cgroup2 at /sys/fs/cgroup")]
    NotMounted,
    #[error("cgroup controllers missing: {0}; enable them on the kernel command line")]
    MissingControllers(String),
    #[error("create cgroup {path}")]
    Create {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("write {value} to {path}")]
    Write {
        path: PathBuf,
        value: String,
        #[source]
        source: io::Error,
    },
    #[error("remove cgroup {path}")]
    Remove {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("this machine has cgroups v1, which failCgroupV1 refuses")]
    V1,
    #[error("singleProcessOOMKill must not be false: cgroup v1 cannot kill a container as a whole")]
    NoGroupKill,
    #[error("systemd slice {slice}: {message}")]
    Systemd { slice: String, message: String },
}

/// Controllers whose files we write.
const WANTED: &[&str] = &["cpu", "memory", "pids"];
/// Controllers handed down to containers where the kernel has them (v2).
const DELEGATED: &[&str] = &["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc"];

/// How a class of pods is to be weighed, in v1's shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weighing {
    Exactly(i64),
    /// More stays: who asks may not know of all pods yet.
    AtLeast(i64),
}

/// What is to become of processes that are left in a pod's cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leftovers {
    Kill,
    Keep,
}

/// v2's `cpu.weight` for v1's `cpu.shares`.
pub fn weight(shares: i64) -> i64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// The tree of one node.
#[derive(Clone, Debug)]
pub struct CgroupTree {
    hierarchies: Hierarchies,
    layout: Layout,
}

impl CgroupTree {
    /// A tree on what is mounted; checks that the controllers are there.
    pub fn new(settings: &CgroupSettings, hierarchies: Hierarchies) -> Result<Self, CgroupError> {
        let v2 = hierarchies.is_v2();
        if hierarchies.v1.is_empty() && !v2 {
            return Err(CgroupError::NotMounted);
        }
        if !v2 && settings.fail_v1 {
            return Err(CgroupError::V1);
        }
        if !v2 && settings.single_process_oom_kill == Some(false) {
            return Err(CgroupError::NoGroupKill);
        }
        let default = if v2 && systemd::is_running() { CgroupDriver::Systemd } else { CgroupDriver::Cgroupfs };
        let tree = Self { layout: Layout::new(settings.driver.unwrap_or(default), &settings.root), hierarchies };
        let missing: Vec<&str> = WANTED.iter().filter(|c| !tree.has(c)).copied().collect();
        if missing.contains(&"cpu") || missing.contains(&"memory") {
            return Err(CgroupError::MissingControllers(missing.join(", ")));
        }
        Ok(tree)
    }

    /// A tree on this machine's mounts.
    pub fn detect(settings: &CgroupSettings) -> Result<Self, CgroupError> {
        let text = std::fs::read_to_string("/proc/self/mountinfo").map_err(|_| CgroupError::NotMounted)?;
        Self::new(settings, Hierarchies::parse(&text))
    }

    /// The driver in use; the runtime must use the same.
    pub fn driver(&self) -> CgroupDriver {
        self.layout.driver()
    }

    /// Whether cgroups are v2 alone.
    pub fn is_v2(&self) -> bool {
        self.hierarchies.is_v2()
    }

    /// What containers can be told about memory here. The tree must have been
    /// set up: v2's top has no file to look for.
    pub fn memory_control(&self, settings: &CgroupSettings) -> MemoryControl {
        let unified = self.hierarchies.unified.as_ref().filter(|_| self.is_v2());
        let (file, swap) = match unified {
            Some(root) => (Some(root.join(self.layout.path(None, None)).join("memory.swap.max")), SwapControl::Alone),
            None => {
                let memory = self.hierarchies.v1.get("memory");
                (memory.map(|root| root.join("memory.memsw.limit_in_bytes")), SwapControl::Together)
            }
        };
        MemoryControl {
            oom_group: self.is_v2() && settings.single_process_oom_kill != Some(true),
            swap: if file.is_some_and(|file| file.exists()) { swap } else { SwapControl::Absent },
        }
    }

    /// What the runtime is told as cgroup parent of a pod.
    pub fn parent(&self, class: QosClass, pod: &PodUid) -> String {
        self.layout.parent(class, pod)
    }

    fn has(&self, controller: &str) -> bool {
        match &self.hierarchies.unified {
            Some(root) if self.hierarchies.is_v2() => {
                let list = std::fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
                list.split_whitespace().any(|c| c == controller)
            }
            _ => self.hierarchies.v1.contains_key(controller),
        }
    }

    /// Makes `kubepods` and the two classes below it. `kubepods_shares` weighs
    /// all pods against the rest of the machine.
    pub async fn set_up(&self, kubepods_shares: i64) -> Result<(), CgroupError> {
        for class in [None, Some(QosClass::Burstable), Some(QosClass::BestEffort)] {
            let path = self.layout.path(class, None);
            // Pods of an earlier agent may run in it by the weight it has.
            if class == Some(QosClass::Burstable) && self.weight_of(&path).is_some() {
                continue;
            }
            let shares = if class.is_none() { kubepods_shares } else { MIN_SHARES };
            let limits = PodCgroupLimits { cpu_shares: shares, ..PodCgroupLimits::default() };
            self.make(&path, &limits).await?;
        }
        Ok(())
    }

    /// Limits all pods together; what `limits` does not speak of stays.
    pub async fn limit_all(&self, limits: &PodCgroupLimits) -> Result<(), CgroupError> {
        self.make(&self.layout.path(None, None), limits).await
    }

    /// The cgroup of all pods, below the hierarchies' mount points.
    pub fn root(&self) -> PathBuf {
        self.layout.path(None, None)
    }

    /// Weighs all burstable pods together.
    pub async fn weigh_burstable(&self, weighing: Weighing) -> Result<(), CgroupError> {
        let path = self.layout.path(Some(QosClass::Burstable), None);
        let (Weighing::Exactly(shares) | Weighing::AtLeast(shares)) = weighing;
        let shares = shares.max(MIN_SHARES);
        let wanted = if self.is_v2() { weight(shares) } else { shares };
        let fits = self.weight_of(&path).is_some_and(|now| match weighing {
            Weighing::Exactly(_) => now == wanted,
            Weighing::AtLeast(_) => now >= wanted,
        });
        if fits {
            return Ok(());
        }
        let limits = PodCgroupLimits { cpu_shares: shares, ..PodCgroupLimits::default() };
        self.make(&path, &limits).await
    }

    /// The weight of a cgroup that exists, in its hierarchy's unit.
    fn weight_of(&self, path: &Path) -> Option<i64> {
        let file = match self.hierarchies.unified.as_ref().filter(|_| self.is_v2()) {
            Some(root) => root.join(path).join("cpu.weight"),
            None => self.hierarchies.v1.get("cpu")?.join(path).join("cpu.shares"),
        };
        std::fs::read_to_string(file).ok()?.trim().parse().ok()
    }

    /// Makes a pod's cgroup or changes its limits.
    pub async fn ensure_pod(&self, pod: &PodUid, class: QosClass, limits: &PodCgroupLimits) -> Result<(), CgroupError> {
        self.make(&self.layout.path(Some(class), Some(pod)), limits).await
    }

    async fn make(&self, path: &Path, limits: &PodCgroupLimits) -> Result<(), CgroupError> {
        if self.driver() == CgroupDriver::Systemd {
            let slice = path.file_name().unwrap_or_default().to_string_lossy();
            return systemd::start_slice(&slice, limits, self.is_v2()).await;
        }
        self.create(path)?;
        self.write_limits(path, limits)
    }

    fn create(&self, path: &Path) -> Result<(), CgroupError> {
        if let Some(root) = self.hierarchies.unified.as_ref().filter(|_| self.is_v2()) {
            return create_v2(root, path);
        }
        let roots: BTreeSet<&PathBuf> = WANTED.iter().filter_map(|c| self.hierarchies.v1.get(*c)).collect();
        for root in roots {
            let full = root.join(path);
            std::fs::create_dir_all(&full).map_err(|source| CgroupError::Create { path: full, source })?;
        }
        Ok(())
    }

    fn write_limits(&self, path: &Path, limits: &PodCgroupLimits) -> Result<(), CgroupError> {
        let or_max = |v: Option<i64>| v.map_or_else(|| "max".to_owned(), |v| v.to_string());
        if let Some(root) = self.hierarchies.unified.as_ref().filter(|_| self.is_v2()) {
            let dir = root.join(path);
            write(&dir.join("cpu.weight"), &weight(limits.cpu_shares).to_string())?;
            if limits.cpu_period > 0 {
                write(&dir.join("cpu.max"), &format!("{} {}", or_max(limits.cpu_quota), limits.cpu_period))?;
            }
            if limits.cpu_period > 0 || limits.memory.is_some() {
                write(&dir.join("memory.max"), &or_max(limits.memory))?;
            }
            if limits.pids.is_some() {
                write(&dir.join("pids.max"), &or_max(limits.pids))?;
            }
            return Ok(());
        }
        let file = |controller: &str, name: &str| Some(self.hierarchies.v1.get(controller)?.join(path).join(name));
        let put =
            |controller: &str, name: &str, value: String| file(controller, name).map_or(Ok(()), |f| write(&f, &value));
        put("cpu", "cpu.shares", limits.cpu_shares.to_string())?;
        if let Some(quota) = limits.cpu_quota {
            put("cpu", "cpu.cfs_period_us", limits.cpu_period.to_string())?;
            put("cpu", "cpu.cfs_quota_us", quota.to_string())?;
        }
        if let Some(memory) = limits.memory {
            put("memory", "memory.limit_in_bytes", memory.to_string())?;
        }
        if limits.pids.is_some() {
            put("pids", "pids.max", or_max(limits.pids))?;
        }
        Ok(())
    }

    /// Removes the cgroups, of any class, of a pod whose containers have ended;
    /// processes that are left in them are killed.
    pub async fn remove_pod(&self, pod: &PodUid) -> Result<(), CgroupError> {
        self.remove(pod, Leftovers::Kill).await
    }

    /// Removes the cgroups of a pod nobody knows, unless there are processes: it
    /// may be another kubelet's.
    pub async fn remove_idle_pod(&self, pod: &PodUid) -> Result<(), CgroupError> {
        self.remove(pod, Leftovers::Keep).await
    }

    async fn remove(&self, pod: &PodUid, leftovers: Leftovers) -> Result<(), CgroupError> {
        let classes = [QosClass::Guaranteed, QosClass::Burstable, QosClass::BestEffort];
        let paths: Vec<PathBuf> = classes.iter().map(|c| self.layout.path(Some(*c), Some(pod))).collect();
        let dirs: Vec<PathBuf> = self
            .hierarchies
            .all()
            .flat_map(|root| paths.iter().map(move |p| root.join(p)))
            .filter(|dir| dir.is_dir())
            .collect();
        // Stopping a slice ends what is in it: of a pod that is not ours, nothing may end.
        if leftovers == Leftovers::Keep && dirs.iter().any(|dir| kill::is_occupied(dir)) {
            return Ok(());
        }
        if self.driver() == CgroupDriver::Systemd {
            for path in paths.iter().filter(|p| dirs.iter().any(|d| d.ends_with(p))) {
                systemd::stop_slice(&path.file_name().unwrap_or_default().to_string_lossy()).await?;
            }
        }
        if dirs.is_empty() {
            return Ok(());
        }
        // Removing a memory cgroup can take milliseconds.
        let removed = tokio::task::spawn_blocking(move || {
            if leftovers == Leftovers::Kill {
                dirs.iter().for_each(|dir| kill::kill_all(dir));
            }
            dirs.iter().try_for_each(|dir| remove_tree(dir))
        });
        removed.await.unwrap_or(Ok(()))
    }

    /// How many processes and threads a pod has; `None` when it cannot be read.
    pub fn processes(&self, pod: &PodUid, class: QosClass) -> Option<u64> {
        let root = match &self.hierarchies.unified {
            Some(root) if self.is_v2() => root,
            _ => self.hierarchies.v1.get("pids")?,
        };
        let file = root.join(self.layout.path(Some(class), Some(pod))).join("pids.current");
        std::fs::read_to_string(file).ok()?.trim().parse().ok()
    }

    /// Pods that have a cgroup.
    pub fn pods(&self) -> BTreeSet<PodUid> {
        let classes = [None, Some(QosClass::Burstable), Some(QosClass::BestEffort)];
        let mut out = BTreeSet::new();
        for root in self.hierarchies.all() {
            for class in classes {
                let entries = std::fs::read_dir(root.join(self.layout.path(class, None)));
                let names = entries.into_iter().flatten().flatten().filter_map(|e| e.file_name().into_string().ok());
                out.extend(names.filter_map(|n| self.layout.pod_of(&n)));
            }
        }
        out
    }
}

fn create_v2(root: &Path, path: &Path) -> Result<(), CgroupError> {
    let available = std::fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    let controllers: Vec<&str> =
        DELEGATED.iter().filter(|c| available.split_whitespace().any(|a| a == **c)).copied().collect();
    let mut dir = root.to_path_buf();
    for part in path.components() {
        // A controller is usable below only when its parent hands it down.
        let enabled = std::fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap_or_default();
        for c in controllers.iter().filter(|c| !enabled.split_whitespace().any(|e| e == **c)) {
            let file = dir.join("cgroup.subtree_control");
            let result = write(&file, &format!("+{c}"));
            if WANTED.contains(c) {
                result?;
            }
        }
        dir.push(part);
        std::fs::create_dir_all(&dir).map_err(|source| CgroupError::Create { path: dir.clone(), source })?;
    }
    Ok(())
}

fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    std::fs::write(path, value).map_err(|source| CgroupError::Write {
        path: path.to_owned(),
        value: value.to_owned(),
        source,
    })
}

/// Removes a cgroup and those below it. Directories only, deepest first: files
/// of a cgroup go by themselves. Absent is success.
pub fn remove_tree(dir: &Path) -> Result<(), CgroupError> {
    for dir in kill::with_descendants(dir).into_iter().rev() {
        match std::fs::remove_dir(&dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(CgroupError::Remove { path: dir, source: e }),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn settings() -> CgroupSettings {
        CgroupSettings {
            root: "/node1".into(),
            driver: Some(CgroupDriver::Cgroupfs),
            per_qos: true,
            cfs_quota: true,
            cfs_period: std::time::Duration::from_millis(100),
            pod_pids_limit: None,
            single_process_oom_kill: None,
            enforce_node_allocatable: true,
            fail_v1: false,
        }
    }

    fn v1(dir: &Path) -> Hierarchies {
        let mut h = Hierarchies::default();
        for c in ["cpu", "memory", "pids", "devices"] {
            let mount = dir.join(c);
            std::fs::create_dir_all(&mount).unwrap();
            h.v1.insert(c.to_owned(), mount.clone());
            h.v1_mounts.insert(mount);
        }
        h
    }

    const LIMITS: PodCgroupLimits = PodCgroupLimits {
        cpu_shares: 512,
        cpu_quota: Some(50_000),
        cpu_period: 100_000,
        memory: Some(1 << 20),
        pids: Some(64),
    };

    const ALL: PodCgroupLimits =
        PodCgroupLimits { cpu_shares: 1024, cpu_quota: None, cpu_period: 0, memory: Some(4096), pids: Some(77) };

    #[tokio::test]
    async fn v1_files_and_removal() {
        let dir = tempfile::tempdir().unwrap();
        let tree = CgroupTree::new(&settings(), v1(dir.path())).unwrap();
        tree.set_up(2048).await.unwrap();
        let uid = PodUid::new("u-1");
        tree.ensure_pod(&uid, QosClass::Burstable, &LIMITS).await.unwrap();
        let read = |p: &str| std::fs::read_to_string(dir.path().join(p)).unwrap();
        let pod = "node1/kubepods/burstable/podu-1";
        assert_eq!(read("cpu/node1/kubepods/cpu.shares"), "2048");
        assert!(!dir.path().join("memory/node1/kubepods/memory.limit_in_bytes").exists(), "limited unasked");
        tree.limit_all(&ALL).await.unwrap();
        let all = [
            "cpu/node1/kubepods/cpu.shares",
            "memory/node1/kubepods/memory.limit_in_bytes",
            "pids/node1/kubepods/pids.max",
        ];
        assert_eq!(all.map(read), ["1024", "4096", "77"]);
        assert!(!dir.path().join("cpu/node1/kubepods/cpu.cfs_quota_us").exists(), "all pods have no quota");
        assert_eq!(read(&format!("cpu/{pod}/cpu.shares")), "512");
        assert_eq!(read(&format!("cpu/{pod}/cpu.cfs_quota_us")), "50000");
        assert_eq!(read(&format!("memory/{pod}/memory.limit_in_bytes")), "1048576");
        assert_eq!(read(&format!("pids/{pod}/pids.max")), "64");
        assert_eq!(tree.parent(QosClass::Burstable, &uid), format!("/{pod}"));
        assert_eq!(tree.pods(), [uid.clone()].into());
        assert_eq!(tree.processes(&uid, QosClass::Burstable), None);
        std::fs::write(dir.path().join("pids").join(pod).join("pids.current"), "12\n").unwrap();
        assert_eq!(tree.processes(&uid, QosClass::Burstable), Some(12));
        assert_eq!(tree.memory_control(&settings()), MemoryControl::default());
        std::fs::write(dir.path().join("memory/memory.memsw.limit_in_bytes"), "0").unwrap();
        let memory = MemoryControl { oom_group: false, swap: SwapControl::Together };
        assert_eq!(tree.memory_control(&settings()), memory);
        let group = CgroupSettings { single_process_oom_kill: Some(false), ..settings() };
        assert!(matches!(CgroupTree::new(&group, v1(dir.path())), Err(CgroupError::NoGroupKill)));
        // What the runtime left elsewhere goes too. (Plain directories keep files.)
        for c in ["cpu", "memory", "pids"] {
            for file in std::fs::read_dir(dir.path().join(c).join(pod)).unwrap() {
                std::fs::remove_file(file.unwrap().path()).unwrap();
            }
        }
        std::fs::create_dir_all(dir.path().join("devices").join(pod).join("c1")).unwrap();
        tree.remove_pod(&uid).await.unwrap();
        assert!(tree.pods().is_empty());
        tree.remove_pod(&uid).await.unwrap();
    }

    #[tokio::test]
    async fn v2_files() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cgroup.controllers"), "cpuset cpu io memory pids").unwrap();
        let h = Hierarchies { unified: Some(dir.path().to_owned()), ..Hierarchies::default() };
        let tree = CgroupTree::new(&settings(), h).unwrap();
        let uid = PodUid::new("u");
        tree.ensure_pod(&uid, QosClass::Guaranteed, &LIMITS).await.unwrap();
        let read = |p: &str| std::fs::read_to_string(dir.path().join("node1/kubepods/podu").join(p)).unwrap();
        assert_eq!((read("cpu.max").as_str(), read("cpu.weight").as_str()), ("50000 100000", "20"));
        assert_eq!((read("memory.max").as_str(), read("pids.max").as_str()), ("1048576", "64"));
        assert!(dir.path().join("node1/cgroup.subtree_control").exists());
        tree.limit_all(&ALL).await.unwrap();
        let all = |name: &str| std::fs::read_to_string(dir.path().join("node1/kubepods").join(name)).unwrap();
        assert_eq!(["cpu.weight", "memory.max", "pids.max"].map(all), ["39", "4096", "77"]);
        assert!(!dir.path().join("node1/kubepods/cpu.max").exists(), "all pods have no quota");
        std::fs::write(dir.path().join("node1/kubepods/podu/pids.current"), "3\n").unwrap();
        assert_eq!(tree.processes(&uid, QosClass::Guaranteed), Some(3));
        // Whether swap is counted shows below the top only.
        let memory = tree.memory_control(&settings());
        assert_eq!(memory, MemoryControl { oom_group: true, swap: SwapControl::Absent });
        std::fs::write(dir.path().join("node1/kubepods/memory.swap.max"), "max").unwrap();
        let single = CgroupSettings { single_process_oom_kill: Some(true), ..settings() };
        assert_eq!(tree.memory_control(&single), MemoryControl { oom_group: false, swap: SwapControl::Alone });
    }

    #[tokio::test]
    async fn burstable_pods_keep_their_weight_over_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let read = || std::fs::read_to_string(dir.path().join("cpu/node1/kubepods/burstable/cpu.shares")).unwrap();
        let tree = CgroupTree::new(&settings(), v1(dir.path())).unwrap();
        tree.set_up(1024).await.unwrap();
        assert_eq!(read(), "2");
        tree.weigh_burstable(Weighing::AtLeast(512)).await.unwrap();
        assert_eq!(read(), "512");
        let tree = CgroupTree::new(&settings(), v1(dir.path())).unwrap();
        tree.set_up(1024).await.unwrap();
        assert_eq!(read(), "512", "pods of the earlier agent run in it");
        tree.weigh_burstable(Weighing::AtLeast(256)).await.unwrap();
        assert_eq!(read(), "512", "not all pods may be known yet");
        tree.weigh_burstable(Weighing::Exactly(256)).await.unwrap();
        assert_eq!(read(), "256");
        tree.weigh_burstable(Weighing::Exactly(0)).await.unwrap();
        assert_eq!(read(), "2");
    }

    #[test]
    fn machines_without_cgroups_are_told() {
        assert!(matches!(CgroupTree::new(&settings(), Hierarchies::default()), Err(CgroupError::NotMounted)));
        let dir = tempfile::tempdir().unwrap();
        let h = Hierarchies { unified: Some(dir.path().to_owned()), ..Hierarchies::default() };
        let strict = CgroupSettings { fail_v1: true, ..settings() };
        assert!(matches!(CgroupTree::new(&strict, v1(dir.path())), Err(CgroupError::V1)));
        let error = CgroupTree::new(&settings(), h).unwrap_err();
        assert!(error.to_string().contains("cpu, memory"), "{error}");
        assert_eq!([weight(2), weight(1024), weight(262_144)], [1, 39, 10_000]);
    }
}

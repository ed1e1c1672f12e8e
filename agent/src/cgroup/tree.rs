//! Which cgroups pods have, and what each is held to; upstream's QOSContainerManager and
//! PodContainerManager (pkg/kubelet/cm).

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use super::CgroupError;
use super::hierarchy::Hierarchy;
use super::layout::Layout;
use super::mounts::Hierarchies;
use super::systemd::{self, Systemd};
use super::v1::V1;
use super::v2::V2;
use super::{WANTED, kill};
use crate::config::{CgroupDriver, CgroupSettings};
use crate::convert::qos::QosClass;
use crate::convert::resources::{MIN_SHARES, MemoryControl, PodCgroupLimits};
use crate::ids::PodUid;
use crate::read;

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

/// The classes in which pods' cgroups are.
const CLASSES: [QosClass; 3] = [QosClass::Guaranteed, QosClass::Burstable, QosClass::BestEffort];

/// The tree of one node.
#[derive(Clone, Debug)]
pub struct CgroupTree {
    hierarchy: Arc<dyn Hierarchy>,
    layout: Layout,
    v2: bool,
}

impl CgroupTree {
    /// A tree on what is mounted; checks that the controllers are there.
    pub fn new(settings: &CgroupSettings, mounts: Hierarchies) -> Result<Self, CgroupError> {
        let v2 = mounts.is_v2();
        if mounts.v1.is_empty() && !v2 {
            return Err(CgroupError::NotMounted);
        }
        if !v2 && settings.fail_v1 {
            return Err(CgroupError::V1);
        }
        if !v2 && settings.single_process_oom_kill == Some(false) {
            return Err(CgroupError::NoGroupKill);
        }
        let default = if v2 && systemd::is_running() { CgroupDriver::Systemd } else { CgroupDriver::Cgroupfs };
        let layout = Layout::new(settings.driver.unwrap_or(default), &settings.root);
        let files: Box<dyn Hierarchy> = match mounts.unified.clone().filter(|_| v2) {
            Some(root) => Box::new(V2::new(root)),
            None => Box::new(V1::new(mounts)),
        };
        let missing: Vec<&str> = WANTED.iter().filter(|c| !files.has(c)).copied().collect();
        if missing.contains(&"cpu") || missing.contains(&"memory") {
            return Err(CgroupError::MissingControllers(missing.join(", ")));
        }
        let hierarchy: Arc<dyn Hierarchy> = match layout.driver() {
            CgroupDriver::Cgroupfs => Arc::from(files),
            CgroupDriver::Systemd => Arc::new(Systemd { files, v2 }),
        };
        Ok(Self { hierarchy, layout, v2 })
    }

    /// A tree on this machine's mounts.
    pub fn detect(settings: &CgroupSettings) -> Result<Self, CgroupError> {
        let text = read::text("/proc/self/mountinfo", read::MUCH).map_err(|_| CgroupError::NotMounted)?;
        Self::new(settings, Hierarchies::parse(&text))
    }

    /// The driver in use; the runtime must use the same.
    pub fn driver(&self) -> CgroupDriver {
        self.layout.driver()
    }

    /// What containers can be told about memory here. The tree must have been
    /// set up: v2's top has no file to look for.
    pub fn memory_control(&self, settings: &CgroupSettings) -> MemoryControl {
        MemoryControl {
            oom_group: self.v2 && settings.single_process_oom_kill != Some(true),
            swap: self.hierarchy.swap_control(&self.root()),
        }
    }

    /// What the runtime is told as cgroup parent of a pod.
    pub fn parent(&self, class: QosClass, pod: &PodUid) -> String {
        self.layout.parent(class, pod)
    }

    /// Makes `kubepods` and the two classes below it. `kubepods_shares` weighs
    /// all pods against the rest of the machine.
    pub async fn set_up(&self, kubepods_shares: i64) -> Result<(), CgroupError> {
        for class in [None, Some(QosClass::Burstable), Some(QosClass::BestEffort)] {
            let path = self.layout.path(class, None);
            // Pods of an earlier agent may run in it by the weight it has.
            if class == Some(QosClass::Burstable) && self.hierarchy.weight(&path).is_some() {
                continue;
            }
            let shares = if class.is_none() { kubepods_shares } else { MIN_SHARES };
            let limits = PodCgroupLimits { cpu_shares: shares, ..PodCgroupLimits::default() };
            self.hierarchy.apply(&path, &limits).await?;
        }
        Ok(())
    }

    /// Limits all pods together; what `limits` does not speak of stays.
    pub async fn limit_all(&self, limits: &PodCgroupLimits) -> Result<(), CgroupError> {
        self.hierarchy.apply(&self.root(), limits).await
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
        let wanted = self.hierarchy.weight_of(shares);
        let fits = self.hierarchy.weight(&path).is_some_and(|now| match weighing {
            Weighing::Exactly(_) => now == wanted,
            Weighing::AtLeast(_) => now >= wanted,
        });
        if fits {
            return Ok(());
        }
        let limits = PodCgroupLimits { cpu_shares: shares, ..PodCgroupLimits::default() };
        self.hierarchy.apply(&path, &limits).await
    }

    /// Makes a pod's cgroup or changes its limits.
    pub async fn ensure_pod(&self, pod: &PodUid, class: QosClass, limits: &PodCgroupLimits) -> Result<(), CgroupError> {
        self.hierarchy.apply(&self.layout.path(Some(class), Some(pod)), limits).await
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

    /// Dying in between leaves less of them, and the next call does the rest.
    async fn remove(&self, pod: &PodUid, leftovers: Leftovers) -> Result<(), CgroupError> {
        let there = |path: &PathBuf| self.hierarchy.directories(path).iter().any(|dir| dir.is_dir());
        let paths: Vec<PathBuf> = CLASSES.iter().map(|c| self.layout.path(Some(*c), Some(pod))).filter(there).collect();
        // Stopping a slice ends what is in it: of a pod that is not ours, nothing may end.
        if leftovers == Leftovers::Keep && paths.iter().any(|path| self.hierarchy.is_occupied(path)) {
            return Ok(());
        }
        for path in paths {
            if leftovers == Leftovers::Kill {
                let (hierarchy, path) = (self.hierarchy.clone(), path.clone());
                // A panic there shows as a cgroup that cannot be removed.
                let _ = tokio::task::spawn_blocking(move || hierarchy.kill(&path)).await;
            }
            self.hierarchy.remove(&path).await?;
        }
        Ok(())
    }

    /// How many processes and threads a pod has; `None` when it cannot be read.
    pub fn processes(&self, pod: &PodUid, class: QosClass) -> Option<u64> {
        self.hierarchy.pids(&self.layout.path(Some(class), Some(pod)))
    }

    /// Pods that have a cgroup.
    pub fn pods(&self) -> BTreeSet<PodUid> {
        let classes = [None, Some(QosClass::Burstable), Some(QosClass::BestEffort)];
        let directories = classes.iter().flat_map(|class| self.hierarchy.directories(&self.layout.path(*class, None)));
        let names = directories.flat_map(|directory| kill::names(&directory));
        names.filter_map(|name| self.layout.pod_of(&name)).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use super::*;
    use crate::convert::resources::SwapControl;

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
    }

    /// A directory of the tree that is nobody's we know, as another kubelet on the machine makes it.
    #[tokio::test]
    async fn a_pod_of_others_keeps_its_cgroup_while_it_has_processes() {
        let dir = tempfile::tempdir().unwrap();
        let tree = CgroupTree::new(&settings(), v1(dir.path())).unwrap();
        let pod = dir.path().join("pids/node1/kubepods/besteffort/podx");
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        // Deep below: in the cgroup of a container that has cgroups of its own.
        std::fs::create_dir_all(pod.join("c/init")).unwrap();
        let procs = pod.join("c/init/cgroup.procs");
        // Processes of another PID namespace show as 0, and are processes all the same.
        for list in [format!("{}\n", child.id()), "0\n".to_owned()] {
            std::fs::write(&procs, list).unwrap();
            tree.remove_idle_pod(&PodUid::new("x")).await.unwrap();
            assert!(pod.exists() && child.try_wait().unwrap().is_none());
        }
        std::fs::remove_file(&procs).unwrap();
        tree.remove_idle_pod(&PodUid::new("x")).await.unwrap();
        assert!(!pod.exists() && tree.pods().is_empty());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

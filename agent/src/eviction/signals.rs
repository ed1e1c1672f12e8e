//! The signals of this machine: /proc, file systems, cgroups and the runtime's
//! own figures. Of pods only what is limited is measured before something is short.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cri::types::{ContainerFilter, ContainerStats};
use cri::{ImageService, RuntimeService};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::OnceCell;

use super::NodeSignals;
use super::disk::{DiskUsage, Files};
use crate::cgroup::CgroupTree;
use crate::config::{Paths, Signal};
use crate::convert::qos::qos_class;
use crate::ids::PodUid;
use crate::node::facts::{MachineInfo, MachineUsage};
use crate::plan::eviction::rank::{ContainerUsage, PodUsage, Space};
use crate::plan::eviction::{Observation, Observations, Pressure};
use crate::podcache::{PodCache, RuntimePod};
use crate::retention::images::UnusedImages;

/// This machine.
#[derive(Debug)]
pub struct MachineSignals {
    pub paths: Paths,
    pub runtime: Arc<dyn RuntimeService>,
    pub images: Arc<dyn ImageService>,
    pub cache: Arc<PodCache>,
    pub cgroups: Option<Arc<CgroupTree>>,
    pub unused_images: UnusedImages,
    machine: MachineInfo,
    disk: DiskUsage,
    /// Where images are, once the runtime has said it.
    imagefs: OnceCell<PathBuf>,
}

impl MachineSignals {
    /// The machine as it is seen from these places.
    pub fn new(
        paths: Paths,
        runtime: Arc<dyn RuntimeService>,
        images: Arc<dyn ImageService>,
        cache: Arc<PodCache>,
        cgroups: Option<Arc<CgroupTree>>,
        unused_images: UnusedImages,
    ) -> Self {
        let (machine, disk, imagefs) = (MachineInfo::read(), DiskUsage::new(paths.clone()), OnceCell::new());
        Self { paths, runtime, images, cache, cgroups, unused_images, machine, disk, imagefs }
    }

    async fn imagefs(&self) -> Option<&Path> {
        let ask = async || {
            let usage = self.images.image_fs_info().await.ok();
            usage.and_then(|all| all.first().map(|fs| PathBuf::from(&fs.mountpoint))).ok_or(())
        };
        self.imagefs.get_or_try_init(ask).await.ok().map(PathBuf::as_path)
    }

    fn usage_of(&self, pod: &Arc<Pod>, stats: &[ContainerStats], signal: Signal) -> Option<PodUsage> {
        let uid = PodUid::of(pod);
        let runtime = self.cache.get(&uid)?;
        let files = match Pressure::of(signal) {
            Pressure::Memory | Pressure::Pid => Arc::default(),
            // What it has beside its layers counts once it is known.
            Pressure::Disk => self.disk.latest(pod).unwrap_or_default(),
        };
        let pids = self.cgroups.as_ref().and_then(|tree| tree.processes(&uid, qos_class(pod)));
        usage(&runtime, stats, &files, pids.unwrap_or(0))
    }
}

/// Puts figures together; `None` of a pod that the runtime measures nothing of. Pure.
fn usage(pod: &RuntimePod, stats: &[ContainerStats], files: &Files, pids: u64) -> Option<PodUsage> {
    let logs = &files.logs;
    let mut out = PodUsage { files: files.all, volumes: files.volumes.clone(), pids, ..PodUsage::default() };
    for container in &pod.containers {
        let Some(stats) = stats.iter().find(|s| s.id == *container.id()) else { continue };
        let layer = Space { bytes: stats.rootfs_used.unwrap_or(0), inodes: stats.rootfs_inodes.unwrap_or(0) };
        out.layers += layer;
        let log = logs.get(container.name()).copied().unwrap_or(0);
        out.containers.push(ContainerUsage {
            name: container.name().to_owned(),
            memory: stats.memory_working_set.unwrap_or(0),
            disk: layer.bytes.saturating_add(log),
            log,
        });
    }
    (!out.containers.is_empty()).then_some(out)
}

#[async_trait]
impl NodeSignals for MachineSignals {
    async fn observe(&self) -> Observations {
        let usage = MachineUsage::read(&self.paths.root);
        let mut out = observations(&self.machine, &usage);
        if let Some(imagefs) = self.imagefs().await {
            let images = MachineUsage::read(imagefs);
            add(&mut out, Signal::ImagefsAvailable, images.disk_available, images.disk_capacity);
            add(&mut out, Signal::ImagefsInodesFree, images.inodes_free, images.inodes);
        }
        out
    }

    async fn usage(&self, pods: &[Arc<Pod>], signal: Signal) -> Option<HashMap<PodUid, PodUsage>> {
        let stats = match self.runtime.list_container_stats(&ContainerFilter::default()).await {
            Ok(stats) => stats,
            Err(error) => {
                tracing::warn!(%error, "containers not measured; nobody is evicted");
                return None;
            }
        };
        let mut out = HashMap::new();
        for pod in pods {
            if let Some(usage) = self.usage_of(pod, &stats, signal) {
                out.insert(PodUid::of(pod), usage);
            }
        }
        Some(out)
    }

    async fn measure_disk(&self, pods: &[Arc<Pod>], limit: Duration) -> Option<HashSet<PodUid>> {
        self.disk.settled(pods, limit).await
    }

    async fn reclaim(&self) {
        self.unused_images.remove().await;
    }

    fn own_imagefs(&self) -> bool {
        let device = |path: &Path| fs::metadata(path).map(|m| m.dev()).ok();
        self.imagefs.get().is_some_and(|imagefs| device(imagefs) != device(&self.paths.root))
    }
}

/// What can be read of the machine itself. Pure.
fn observations(machine: &MachineInfo, usage: &MachineUsage) -> Observations {
    let mut out = Observations::new();
    if let Some(available) = usage.memory_available {
        add(&mut out, Signal::MemoryAvailable, available, machine.memory);
    }
    add(&mut out, Signal::NodefsAvailable, usage.disk_available, usage.disk_capacity);
    add(&mut out, Signal::NodefsInodesFree, usage.inodes_free, usage.inodes);
    if let Some(pids) = usage.pids {
        add(&mut out, Signal::PidAvailable, machine.pid_max.saturating_sub(pids), machine.pid_max);
    }
    out
}

/// File systems may have no inodes to count; what has no capacity was not read.
fn add(out: &mut Observations, signal: Signal, available: u64, capacity: u64) {
    if capacity > 0 {
        out.insert(signal, Observation { available, capacity });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use cri::types::ContainerState;

    use super::*;
    use crate::testutil::{instance, pod, runtime};

    #[test]
    fn only_what_was_read_is_observed() {
        let machine = MachineInfo { memory: 100, pid_max: 1000, ..MachineInfo::default() };
        assert_eq!(observations(&machine, &MachineUsage::default()), Observations::new());
        let usage =
            MachineUsage { memory_available: Some(7), disk_capacity: 9, pids: Some(30), ..MachineUsage::default() };
        let seen = observations(&machine, &usage);
        assert_eq!(seen[&Signal::MemoryAvailable], Observation { available: 7, capacity: 100 });
        assert_eq!(seen[&Signal::NodefsAvailable], Observation { available: 0, capacity: 9 });
        assert_eq!(seen[&Signal::PidAvailable], Observation { available: 970, capacity: 1000 });
        assert_eq!(seen.len(), 3);
        // Nothing at all is a reading, too, and the most urgent one.
        let none = MachineUsage { memory_available: Some(0), ..usage };
        assert_eq!(
            observations(&machine, &none)[&Signal::MemoryAvailable],
            Observation { available: 0, capacity: 100 }
        );
    }

    #[test]
    fn containers_are_measured_by_their_ids() {
        let p = pod("  containers: [{name: a}, {name: b}]");
        let (sandbox, status) = instance(&p, "a", 0, ContainerState::Running, 0);
        let stats = ContainerStats {
            id: status.id.clone(),
            metadata: status.metadata.clone(),
            labels: Default::default(),
            at: None,
            cpu_usage_nanos: None,
            memory_working_set: Some(5),
            memory_rss: None,
            rootfs_used: Some(100),
            rootfs_inodes: Some(2),
        };
        let view = runtime(vec![], vec![(sandbox, status)]);
        let all = Space { bytes: 30, inodes: 3 };
        let files = Files { all, logs: [("a".to_owned(), 20)].into(), volumes: [("v".to_owned(), 10)].into() };
        let found = usage(&view, std::slice::from_ref(&stats), &files, 4).unwrap();
        assert_eq!(found.containers, [ContainerUsage { name: "a".into(), memory: 5, disk: 120, log: 20 }]);
        assert_eq!((found.layers, found.files, found.pids), (Space { bytes: 100, inodes: 2 }, all, 4));
        assert_eq!(found.volumes, files.volumes);
        assert_eq!(usage(&view, &[], &files, 4), None);
        // Of an ended container the runtime tells what is left, its layer: limits hold in a crash loop, too.
        let (sandbox, ended) = instance(&p, "a", 0, ContainerState::Exited, 1);
        let view = runtime(vec![], vec![(sandbox, ended)]);
        let left = ContainerStats { memory_working_set: None, ..stats };
        let found = usage(&view, &[left], &files, 0).unwrap();
        assert_eq!((found.volumes, found.containers[0].memory, found.containers[0].disk), (files.volumes, 0, 120));
    }

    /// What a runtime makes up is much, and neither little nor the end of the agent.
    #[test]
    fn no_figure_is_too_large() {
        let p = pod("  containers: [{name: a}, {name: b}]");
        let both = ["a", "b"].map(|name| instance(&p, name, 0, ContainerState::Running, 0));
        let stats = both.clone().map(|(_, status)| ContainerStats {
            id: status.id.clone(),
            metadata: status.metadata.clone(),
            labels: Default::default(),
            at: None,
            cpu_usage_nanos: None,
            memory_working_set: Some(u64::MAX),
            memory_rss: None,
            rootfs_used: Some(u64::MAX),
            rootfs_inodes: Some(u64::MAX),
        });
        let files = Files { logs: [("a".to_owned(), 20)].into(), ..Files::default() };
        let found = usage(&runtime(vec![], both.to_vec()), &stats, &files, 0).unwrap();
        assert_eq!(found.layers, Space { bytes: u64::MAX, inodes: u64::MAX });
        assert_eq!(found.containers[0].disk, u64::MAX);
    }
}

//! What pod workers work with; built once by [`crate::app`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cri::RuntimeService;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use tokio::sync::watch;

use super::admission::Admission;
use super::dispatch::PodWorkers;
use super::kernel_log::KernelLog;
use crate::cgroup::CgroupTree;
use crate::clock::Clock;
use crate::config::{DnsSettings, Paths};
use crate::contract::{PodProbes, PodVolumes};
use crate::convert::quantity::ResourceList;
use crate::convert::resources::{MemoryControl, ResourceContext, hugepage_size};
use crate::events::EventRecorder;
use crate::image::ImagePuller;
use crate::objectcache::{ObjectReader, ObjectRegistry};
use crate::plan::eviction::Pressures;
use crate::podcache::PodCache;
use crate::retention::Removals;
use crate::runtimeclass::RuntimeClasses;
use crate::services::ServiceLinks;
use crate::status::StatusManager;

/// What pods need to know of their node, at this moment.
#[derive(Clone, Debug, Default)]
pub struct NodeView {
    pub host_ips: Vec<String>,
    pub allocatable: ResourceList,
    /// Bytes.
    pub memory_capacity: i64,
    /// `None` while the runtime says its network is ready, else what it says.
    pub network_problem: Option<String>,
    /// What the node runs short of.
    pub pressures: Pressures,
    /// Protocols and ports that the node itself answers on.
    pub own_ports: Vec<(&'static str, u16)>,
    /// The node object as last seen.
    pub node: Option<Arc<Node>>,
    /// There is to be one, and it was not seen yet.
    pub awaited: bool,
}

/// Settings of all workers.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    pub node_name: String,
    pub paths: Paths,
    pub dns: DnsSettings,
    pub cfs_quota: bool,
    /// Microseconds.
    pub cfs_period: i64,
    pub pod_pids_limit: Option<i64>,
    pub memory: MemoryControl,
    /// Whether containers without a seccomp profile get the runtime's.
    pub seccomp_default: bool,
    pub max_crash_backoff: Duration,
    pub allowed_unsafe_sysctls: Vec<String>,
    /// `containerd` in `containerd://<id>`.
    pub runtime_name: String,
}

/// Services as pods see them in their environment; `None` until all are known.
pub type ServicesRx = watch::Receiver<Option<Arc<ServiceLinks>>>;

/// Everything a worker uses that is not its own.
pub struct Deps {
    pub settings: WorkerSettings,
    pub runtime: Arc<dyn RuntimeService>,
    pub images: Arc<ImagePuller>,
    pub cache: Arc<PodCache>,
    pub status: StatusManager,
    pub volumes: Arc<dyn PodVolumes>,
    pub probes: Arc<dyn PodProbes>,
    pub objects: Arc<dyn ObjectReader>,
    pub registry: Arc<dyn ObjectRegistry>,
    pub services: ServicesRx,
    pub runtime_classes: RuntimeClasses,
    pub node: watch::Receiver<Arc<NodeView>>,
    /// Where the Node is read when the view may be old; `None` without an API server.
    pub nodes: Option<Api<Node>>,
    /// `None`: pods get no cgroups of their own.
    pub cgroups: Option<Arc<CgroupTree>>,
    pub admission: Admission,
    pub workers: PodWorkers,
    pub kernel_log: Arc<KernelLog>,
    pub removals: Removals,
    pub events: EventRecorder,
    pub clock: Clock,
}

impl fmt::Debug for Deps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deps").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Deps {
    /// The node as it is now.
    pub fn node_view(&self) -> Arc<NodeView> {
        self.node.borrow().clone()
    }

    /// What the node contributes to resources of containers.
    pub fn resources(&self) -> ResourceContext {
        let node = self.node.borrow();
        ResourceContext {
            memory_capacity: node.memory_capacity,
            cfs_quota: self.settings.cfs_quota,
            cfs_period: self.settings.cfs_period,
            memory: self.settings.memory,
            hugepages: node.allocatable.keys().filter_map(|name| hugepage_size(name)).collect(),
        }
    }
}

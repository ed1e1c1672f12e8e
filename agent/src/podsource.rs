//! Which pods this node has to run: the API server, a directory of static pods
//! and a URL, merged into one desired set.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;

use crate::ids::{ObjectName, PodUid};

/// Where a pod was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PodOrigin {
    Api,
    File,
    Url,
}

impl PodOrigin {
    /// The value of annotation `kubernetes.io/config.source`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::File => "file",
            Self::Url => "http",
        }
    }
}

/// One pod to run.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredPod {
    pub pod: Arc<Pod>,
    pub origin: PodOrigin,
}

impl DesiredPod {
    /// Whether it comes from somewhere else than the API server.
    pub fn is_static(&self) -> bool {
        self.origin != PodOrigin::Api
    }
}

/// Everything this node has to run, at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DesiredPods {
    /// Whether the API server's list has been seen in full; before, the absence
    /// of a pod means nothing.
    pub api_synced: bool,
    /// By the UID the kubelet uses: a static pod's is the hash of its file.
    pub pods: BTreeMap<PodUid, DesiredPod>,
    /// Mirror pods seen at the API server, by name: their static pods' UIDs
    /// differ from their own.
    pub mirrors: HashMap<ObjectName, Arc<Pod>>,
}

impl DesiredPods {
    /// The pod of that name, if any.
    pub fn by_name(&self, name: &ObjectName) -> Option<&DesiredPod> {
        self.pods.values().find(|p| ObjectName::of_pod(&p.pod) == *name)
    }
}

/// The latest desired set.
pub type DesiredRx = watch::Receiver<Arc<DesiredPods>>;

pub mod api;
pub mod file;
pub mod merge;
pub mod mirror;
pub mod static_pod;
pub mod url;

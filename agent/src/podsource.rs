//! Which pods this node has to run: the API server, a directory of static pods
//! and a URL, merged into one desired set.

use std::collections::{BTreeMap, BTreeSet, HashMap};
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

    /// The source of that annotation value, if it is one.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Api, Self::File, Self::Url].into_iter().find(|origin| origin.as_str() == text)
    }
}

/// Which sources were read in full: before, the absence of a pod of theirs means
/// nothing (pkg/kubelet/config/sources.go: `SourcesReady`). One that does not
/// exist counts as read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourcesReady {
    pub api: bool,
    pub file: bool,
    pub url: bool,
}

impl SourcesReady {
    /// Every one of them.
    pub const ALL: Self = Self { api: true, file: true, url: true };

    /// Whether one was.
    pub fn has(self, origin: PodOrigin) -> bool {
        match origin {
            PodOrigin::Api => self.api,
            PodOrigin::File => self.file,
            PodOrigin::Url => self.url,
        }
    }

    /// Whether all were: only then it is known what nobody wants.
    pub fn all(self) -> bool {
        self == Self::ALL
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
    pub ready: SourcesReady,
    /// By the UID the kubelet uses: a static pod's is the hash of its file.
    pub pods: BTreeMap<PodUid, DesiredPod>,
    /// Mirror pods seen at the API server, by name: their static pods' UIDs
    /// differ from their own.
    pub mirrors: HashMap<ObjectName, Arc<Pod>>,
    /// Pods at the API server that cannot be read, nor ever could: nothing is
    /// begun for them, and nothing that runs of them ends.
    pub unreadable: BTreeSet<PodUid>,
}

impl DesiredPods {
    /// Whether somebody wants the pod, as far as that is known.
    pub fn wants(&self, uid: &PodUid) -> bool {
        self.pods.contains_key(uid) || self.unreadable.contains(uid)
    }

    /// The pod of that name, if any.
    pub fn by_name(&self, name: &ObjectName) -> Option<&DesiredPod> {
        self.pods.values().find(|p| ObjectName::of_pod(&p.pod) == *name)
    }
}

/// The latest desired set.
pub type DesiredRx = watch::Receiver<Arc<DesiredPods>>;

pub mod api;
pub mod file;
mod manifest;
pub mod merge;
pub mod mirror;
pub mod static_pod;
pub mod url;

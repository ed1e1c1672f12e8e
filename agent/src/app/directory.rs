//! Pods with their latest status, as the kubelet's server shows them.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::ids::{ObjectName, PodUid};
use crate::podsource::DesiredRx;
use crate::server::PodView;
use crate::status::StatusManager;

/// The desired set joined with reported statuses.
#[derive(Debug)]
pub(super) struct PodDirectory {
    desired: DesiredRx,
    status: StatusManager,
}

impl PodDirectory {
    pub(super) fn new(desired: DesiredRx, status: StatusManager) -> Self {
        Self { desired, status }
    }

    fn with_status(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        match self.status.get(&PodUid::of(pod)) {
            Some(status) if pod.status.as_ref() != Some(&*status) => {
                let mut pod = Pod::clone(pod);
                pod.status = Some(k8s_openapi::api::core::v1::PodStatus::clone(&status));
                Arc::new(pod)
            }
            _ => pod.clone(),
        }
    }
}

impl PodView for PodDirectory {
    fn pods(&self) -> Vec<Arc<Pod>> {
        let desired = self.desired.borrow().clone();
        desired.pods.values().map(|p| self.with_status(&p.pod)).collect()
    }

    fn pod(&self, name: &ObjectName) -> Option<Arc<Pod>> {
        let desired = self.desired.borrow().clone();
        desired.by_name(name).map(|p| self.with_status(&p.pod))
    }
}

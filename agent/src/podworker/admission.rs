//! Which pods this node has taken: one at a time, so that two never share the
//! same room.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::Pod;

use super::deps::NodeView;
use crate::convert::qos::burstable_milli_cpu;
use crate::ids::PodUid;
use crate::plan::admit::{Admit, NodeInfo, Refusal, admit};

/// What the node allows and can do, beside its room.
#[derive(Clone, Copy, Debug)]
pub struct NodeLimits<'a> {
    pub allowed_unsafe_sysctls: &'a [String],
    /// Whether the runtime can hold a pod to the groups it names.
    pub strict_groups: bool,
}

/// What came of admitting a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum AdmitResult {
    Yes,
    Refused(Refusal),
    /// Not before these have ended.
    Preempt(Vec<Arc<Pod>>),
}

/// A pod that was taken and may still have containers.
#[derive(Clone, Debug)]
struct Taken {
    pod: Arc<Pod>,
    /// Whether its source still has it.
    wanted: bool,
}

/// The pods taken.
#[derive(Debug, Default)]
pub struct Admission {
    taken: Mutex<HashMap<PodUid, Taken>>,
}

impl Admission {
    fn with<T>(&self, f: impl FnOnce(&mut HashMap<PodUid, Taken>) -> T) -> T {
        f(&mut self.taken.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes a pod when there is room, or whatever happens when it runs already.
    pub fn take(&self, pod: &Arc<Pod>, node: &NodeView, limits: NodeLimits<'_>, runs_already: bool) -> AdmitResult {
        let uid = PodUid::of(pod);
        self.with(|taken| {
            if !runs_already && !taken.contains_key(&uid) {
                let node_info = NodeInfo {
                    allocatable: node.allocatable.clone(),
                    others: taken.values().filter(|other| other.wanted).map(|other| &*other.pod).collect(),
                    node: node.node.as_deref(),
                    pressures: &node.pressures,
                    own_ports: &node.own_ports,
                    allowed_unsafe_sysctls: limits.allowed_unsafe_sysctls,
                    strict_groups: limits.strict_groups,
                };
                match admit(pod, &node_info) {
                    Admit::Yes => {}
                    Admit::Refused(refusal) => return AdmitResult::Refused(refusal),
                    Admit::Preempt(victims) => {
                        return AdmitResult::Preempt(victims.into_iter().cloned().map(Arc::new).collect());
                    }
                }
            }
            taken.insert(uid, Taken { pod: pod.clone(), wanted: true });
            AdmitResult::Yes
        })
    }

    /// Counts a pod that runs before its worker has asked for its room: who is new gets what is left.
    pub fn adopt(&self, pod: &Arc<Pod>) {
        self.with(|taken| {
            _ = taken.entry(PodUid::of(pod)).or_insert_with(|| Taken { pod: pod.clone(), wanted: true });
        });
    }

    /// Counts a pod no longer against new ones: its source has it no more, so whoever chose this node for the new ones
    /// did not count it either, however long it takes to end (pkg/kubelet/kubelet.go: `GetActivePods`).
    pub fn forget(&self, uid: &PodUid) {
        self.with(|taken| {
            if let Some(taken) = taken.get_mut(uid) {
                taken.wanted = false;
            }
        });
    }

    /// The pods taken.
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        self.with(|taken| taken.values().map(|taken| taken.pod.clone()).collect())
    }

    /// Whether the pod was taken and has not given its room back.
    pub fn has(&self, uid: &PodUid) -> bool {
        self.with(|taken| taken.contains_key(uid))
    }

    /// Gives a pod's room back.
    pub fn release(&self, uid: &PodUid) {
        self.with(|taken| taken.remove(uid));
    }

    /// Thousandths of CPU all burstable pods request together.
    pub fn burstable_milli_cpu(&self) -> i64 {
        self.with(|taken| burstable_milli_cpu(taken.values().map(|taken| &*taken.pod)))
    }
}

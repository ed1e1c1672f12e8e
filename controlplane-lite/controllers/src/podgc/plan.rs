//! Which pods nobody will clean up any more, as upstream's pkg/controller/podgc/gc_controller.go. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, Pod};

use super::super::nodelifecycle::health::ready;
use client::objects::{created, deleting, name, terminated};

/// A node must have been gone for so long before its pods are.
pub(super) const QUARANTINE: Duration = Duration::from_secs(40);

/// Why a pod is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// Its node does not exist.
    Orphaned,
    /// It is being deleted and has no node.
    Unscheduled,
    /// It is being deleted, and its node is out of service.
    OutOfService,
    /// There are too many finished pods.
    Surplus,
}

/// What is to be known of a pod's node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NodeState {
    /// There is none of that name.
    Missing,
    /// Somebody has tainted it: its kubelet will end nothing any more.
    OutOfService,
    /// It looks after its pods.
    Here,
}

/// The state of a node, as far as pods that nobody ends are concerned.
pub(super) fn state(node: Option<&Node>) -> NodeState {
    let Some(node) = node else { return NodeState::Missing };
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let out_of_service = taints.iter().any(|taint| taint.key == "node.kubernetes.io/out-of-service");
    if out_of_service && ready(node) != Some("True") { NodeState::OutOfService } else { NodeState::Here }
}

/// The pods to delete, and when to look again. `unknown_since` says since when
/// each node that pods name is missing, on a clock that nobody sets.
pub(super) fn plan(
    pods: &[Arc<Pod>],
    node_state: &dyn Fn(&str) -> NodeState,
    unknown_since: &mut BTreeMap<String, Instant>,
    threshold: usize,
    now: Instant,
) -> (Vec<(Arc<Pod>, Cause)>, Option<Duration>) {
    let mut out: Vec<(Arc<Pod>, Cause)> = Vec::new();
    let mut missing = BTreeMap::new();
    let mut wake: Option<Duration> = None;
    for pod in pods {
        let name = node(pod);
        let dying = deleting(&pod.metadata);
        match if name.is_empty() { None } else { Some(node_state(name)) } {
            None if dying => out.push((pod.clone(), Cause::Unscheduled)),
            Some(NodeState::OutOfService) if dying => out.push((pod.clone(), Cause::OutOfService)),
            None | Some(NodeState::Here | NodeState::OutOfService) => {}
            Some(NodeState::Missing) => {
                let since =
                    *missing.entry(name.to_owned()).or_insert_with(|| unknown_since.get(name).copied().unwrap_or(now));
                let left = QUARANTINE.saturating_sub(now.saturating_duration_since(since));
                if left.is_zero() {
                    out.push((pod.clone(), Cause::Orphaned));
                } else {
                    wake = Some(wake.map_or(left, |w| w.min(left)));
                }
            }
        }
    }
    *unknown_since = missing;
    let surplus = surplus(pods, threshold).into_iter().filter(|p| !out.iter().any(|(other, _)| Arc::ptr_eq(p, other)));
    let surplus: Vec<_> = surplus.map(|p| (p, Cause::Surplus)).collect();
    out.extend(surplus);
    (out, wake)
}

/// The oldest finished pods beyond the threshold, those that were evicted first: what their controllers made in
/// their place counts too. 0 keeps all.
fn surplus(pods: &[Arc<Pod>], threshold: usize) -> Vec<Arc<Pod>> {
    if threshold == 0 {
        return Vec::new();
    }
    let mut finished: Vec<Arc<Pod>> =
        pods.iter().filter(|p| terminated(p) && !deleting(&p.metadata)).cloned().collect();
    let too_many = finished.len().saturating_sub(threshold);
    finished.sort_by_cached_key(|p| (!evicted(p), created(&p.metadata), name(&p.metadata).to_owned()));
    finished.truncate(too_many);
    finished
}

fn evicted(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    status.is_some_and(|s| s.phase.as_deref() == Some("Failed") && s.reason.as_deref() == Some("Evicted"))
}

fn node(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or("")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::moment::tests::{at, moment};
    use serde_json::{Value, from_value, json};

    fn pod(name: &str, node: &str, phase: &str, age: i64, patch: Value) -> Arc<Pod> {
        let mut value = json!({
            "metadata": {"name": name, "uid": name, "creationTimestamp": at(-age).to_string()},
            "spec": {"nodeName": node, "containers": []}, "status": {"phase": phase}
        });
        json_patch::merge(&mut value, &patch);
        Arc::new(from_value(value).unwrap())
    }

    #[test]
    fn orphans_go_after_the_quarantine() {
        let pods = [pod("a", "gone", "Running", 0, json!({})), pod("b", "here", "Running", 0, json!({}))];
        let exists = |n: &str| if n == "here" { NodeState::Here } else { NodeState::Missing };
        let mut since = BTreeMap::new();
        let (out, wake) = plan(&pods, &exists, &mut since, 0, moment(0).instant);
        assert_eq!((out.len(), wake), (0, Some(QUARANTINE)));
        let (out, wake) = plan(&pods, &exists, &mut since, 0, moment(39).instant);
        assert_eq!((out.len(), wake), (0, Some(Duration::from_secs(1))));
        assert!(
            plan(&pods, &|_| NodeState::Here, &mut since.clone(), 0, moment(40).instant).0.is_empty(),
            "the node is back"
        );
        let (out, wake) = plan(&pods, &exists, &mut since, 0, moment(40).instant);
        assert_eq!(
            (out[0].0.metadata.name.as_deref(), out[0].1, out.len(), wake),
            (Some("a"), Cause::Orphaned, 1, None)
        );
    }

    #[test]
    fn pods_without_a_node_go_when_deleted() {
        let dying = json!({"metadata": {"deletionTimestamp": at(0).to_string()}});
        let pods = [pod("a", "", "Pending", 0, dying), pod("b", "", "Pending", 0, json!({}))];
        let (out, _) = plan(&pods, &|_| NodeState::Here, &mut BTreeMap::new(), 0, moment(0).instant);
        assert_eq!(out, [(pods[0].clone(), Cause::Unscheduled)]);
    }

    #[test]
    fn the_oldest_finished_pods_beyond_the_threshold_go() {
        let pods = [
            pod("a", "n", "Succeeded", 10, json!({})),
            pod("b", "n", "Failed", 30, json!({})),
            pod("c", "n", "Running", 90, json!({})),
            pod("d", "n", "Failed", 20, json!({})),
            pod("e", "n", "Failed", 1, json!({"status": {"reason": "Evicted"}})),
        ];
        let names = |threshold| {
            let (out, _) = plan(&pods, &|_| NodeState::Here, &mut BTreeMap::new(), threshold, moment(0).instant);
            out.iter().map(|(p, _)| p.metadata.name.clone().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(names(1), ["e", "b", "d"]);
        assert!(names(4).is_empty() && names(0).is_empty());
    }

    #[test]
    fn deleted_pods_of_a_node_out_of_service_go() {
        let dying = json!({"metadata": {"deletionTimestamp": at(0).to_string()}});
        let pods = [pod("a", "n", "Running", 0, dying), pod("b", "n", "Running", 0, json!({}))];
        let node = |ready: &str, taint: &str| -> Node {
            let conditions = json!([{"type": "Ready", "status": ready}]);
            let taints = json!([{"key": taint, "value": "nodeshutdown", "effect": "NoExecute"}]);
            from_value(json!({"spec": {"taints": taints}, "status": {"conditions": conditions}})).unwrap()
        };
        let deleted = |node: &Node| plan(&pods, &|_| state(Some(node)), &mut BTreeMap::new(), 0, moment(0).instant).0;
        let gone = "node.kubernetes.io/out-of-service";
        assert_eq!(deleted(&node("Unknown", gone)), [(pods[0].clone(), Cause::OutOfService)]);
        assert!(deleted(&node("True", gone)).is_empty(), "its kubelet is there");
        assert!(deleted(&node("False", "other")).is_empty());
    }
}

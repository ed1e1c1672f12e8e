//! When a pod has to leave a node because of NoExecute taints. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, Taint};

use client::objects::{active, created};
use client::tolerations::tolerates;

/// What becomes of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It stays.
    Stay,
    /// It leaves after this time, unless something changes.
    LeaveIn(SignedDuration),
    /// It leaves now.
    Leave,
}

/// Decides for a pod on a node.
pub fn fate(pod: &Pod, node: &Node, now: Timestamp) -> Fate {
    if !active(pod) {
        return Fate::Stay;
    }
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_ref());
    let deadlines = taints.into_iter().flatten().filter(|t| t.effect == "NoExecute").map(|t| deadline(pod, t));
    match deadlines.min_by_key(|d| d.map_or(Timestamp::MAX, |at| at)) {
        None | Some(None) => Fate::Stay,
        Some(Some(at)) if at <= now => Fate::Leave,
        Some(Some(at)) => Fate::LeaveIn(at.duration_since(now)),
    }
}

/// Until when the pod bears the taint; `None` for ever.
fn deadline(pod: &Pod, taint: &Taint) -> Option<Timestamp> {
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_ref());
    let mut bearing = tolerations.into_iter().flatten().filter(|t| tolerates(t, taint)).peekable();
    if bearing.peek().is_none() {
        return Some(Timestamp::MIN);
    }
    // The shortest of several tolerations counts; one without a limit sets none.
    let seconds = bearing.filter_map(|t| t.toleration_seconds).min()?.max(0);
    let since = taint.time_added.as_ref().map_or(Timestamp::MIN, |t| t.0);
    // A pod that came later has its time from then.
    let since = since.max(created(&pod.metadata));
    since.checked_add(SignedDuration::from_secs(seconds)).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::health::tests::{at, node};
    use super::*;
    use serde_json::{Value, from_value, json};

    fn check(tolerations: Value, taints: Value, now: i64, want: Fate) {
        let pod: Pod = from_value(json!({
            "metadata": {"name": "p", "creationTimestamp": at(-100).to_string()},
            "spec": {"containers": [], "tolerations": tolerations}, "status": {"phase": "Running"}
        }))
        .unwrap();
        let n = node("n", Some("True"), json!({"spec": {"taints": taints}}));
        assert_eq!(fate(&pod, &n, at(now)), want);
    }

    #[test]
    fn tolerations_set_the_time() {
        let taint = json!([{"key": "k", "effect": "NoExecute", "timeAdded": at(0).to_string()}]);
        let bear = |seconds: Value| json!([{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}]);
        check(json!([]), json!([]), 0, Fate::Stay);
        check(json!([]), json!([{"key": "k", "effect": "NoSchedule"}]), 0, Fate::Stay);
        check(json!([]), taint.clone(), 0, Fate::Leave);
        check(bear(json!(null)), taint.clone(), 9999, Fate::Stay);
        check(bear(json!(300)), taint.clone(), 100, Fate::LeaveIn(SignedDuration::from_secs(200)));
        check(bear(json!(300)), taint.clone(), 300, Fate::Leave);
        check(bear(json!(-5)), taint, 0, Fate::Leave);
        let two = json!([
            {"key": "k", "effect": "NoExecute", "timeAdded": at(0).to_string()},
            {"key": "other", "effect": "NoExecute", "timeAdded": at(0).to_string()}]);
        check(bear(json!(300)), two, 0, Fate::Leave);
    }

    #[test]
    fn ended_and_dying_pods_stay() {
        let n = node("n", None, json!({"spec": {"taints": [{"key": "k", "effect": "NoExecute"}]}}));
        let pod = |v: Value| from_value::<Pod>(v).unwrap();
        assert_eq!(fate(&pod(json!({"metadata": {}, "status": {"phase": "Failed"}})), &n, at(0)), Fate::Stay);
        assert_eq!(fate(&pod(json!({"metadata": {"deletionTimestamp": at(0).to_string()}})), &n, at(0)), Fate::Stay);
    }
}

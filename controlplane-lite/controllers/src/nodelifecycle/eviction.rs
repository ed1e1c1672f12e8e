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

/// Since when the taints of one node have been seen: `kubectl taint` notes no
/// time in the taint itself.
#[derive(Debug, Clone, Default)]
pub struct TaintTimes(Vec<(Taint, Timestamp)>);

impl TaintTimes {
    /// Takes in a state of the node. A taint that went and came back counts anew.
    pub fn observe(&mut self, node: &Node, now: Timestamp) {
        let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
        self.0.retain(|(taint, _)| taints.iter().any(|t| same(t, taint)));
        for taint in taints {
            if !self.0.iter().any(|(t, _)| same(t, taint)) {
                self.0.push((taint.clone(), now));
            }
        }
    }

    /// When the taint came, as far as is known.
    fn since(&self, taint: &Taint, now: Timestamp) -> Timestamp {
        let noted = taint.time_added.as_ref().map(|t| t.0);
        let seen = || self.0.iter().find(|(t, _)| same(t, taint)).map(|(_, at)| *at);
        noted.or_else(seen).unwrap_or(now)
    }
}

fn same(a: &Taint, b: &Taint) -> bool {
    (&a.key, &a.effect, &a.value) == (&b.key, &b.effect, &b.value)
}

/// Decides for a pod on a node.
pub fn fate(pod: &Pod, node: &Node, times: &TaintTimes, now: Timestamp) -> Fate {
    if !active(pod) {
        return Fate::Stay;
    }
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_ref());
    let deadlines = taints.into_iter().flatten().filter(|t| t.effect == "NoExecute");
    let deadlines = deadlines.map(|t| deadline(pod, t, times.since(t, now)));
    match deadlines.min_by_key(|d| d.map_or(Timestamp::MAX, |at| at)) {
        None | Some(None) => Fate::Stay,
        Some(Some(at)) if at <= now => Fate::Leave,
        Some(Some(at)) => Fate::LeaveIn(at.duration_since(now)),
    }
}

/// Until when the pod bears the taint; `None` for ever.
fn deadline(pod: &Pod, taint: &Taint, since: Timestamp) -> Option<Timestamp> {
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_ref());
    // The first of several tolerations counts, as in upstream's GetMatchingTolerations; without a limit it is for ever.
    let Some(first) = tolerations.into_iter().flatten().find(|t| tolerates(t, taint)) else {
        return Some(Timestamp::MIN);
    };
    let seconds = first.toleration_seconds?.max(0);
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
        assert_eq!(fate(&pod, &n, &TaintTimes::default(), at(now)), want);
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
    fn a_taint_without_a_time_counts_from_when_it_was_seen() {
        let pod: Pod = from_value(json!({
            "metadata": {"name": "p", "creationTimestamp": at(-10_000).to_string()},
            "spec": {"containers": [], "tolerations": [
                {"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 8}]},
            "status": {"phase": "Running"}
        }))
        .unwrap();
        let tainted = node("n", None, json!({"spec": {"taints": [{"key": "k", "effect": "NoExecute"}]}}));
        let clean = node("n", None, json!({}));
        let mut times = TaintTimes::default();
        let leave_in = |seconds| Fate::LeaveIn(SignedDuration::from_secs(seconds));
        times.observe(&tainted, at(0));
        assert_eq!(fate(&pod, &tainted, &times, at(0)), leave_in(8));
        times.observe(&tainted, at(5));
        assert_eq!(fate(&pod, &tainted, &times, at(5)), leave_in(3));
        assert_eq!(fate(&pod, &tainted, &times, at(8)), Fate::Leave);
        times.observe(&clean, at(9));
        times.observe(&tainted, at(20));
        assert_eq!(fate(&pod, &tainted, &times, at(20)), leave_in(8), "a new taint");
    }

    #[test]
    fn ended_and_dying_pods_stay() {
        let n = node("n", None, json!({"spec": {"taints": [{"key": "k", "effect": "NoExecute"}]}}));
        let pod = |v: Value| from_value::<Pod>(v).unwrap();
        assert_eq!(
            fate(&pod(json!({"metadata": {}, "status": {"phase": "Failed"}})), &n, &TaintTimes::default(), at(0)),
            Fate::Stay
        );
        assert_eq!(
            fate(
                &pod(json!({"metadata": {"deletionTimestamp": at(0).to_string()}})),
                &n,
                &TaintTimes::default(),
                at(0)
            ),
            Fate::Stay
        );
    }
}

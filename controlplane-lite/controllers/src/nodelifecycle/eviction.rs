//! When a pod has to leave a node because of NoExecute taints. Times of the API are only compared with each other;
//! what a pod bears is measured on a clock that nobody sets. Pure.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, Taint};

use crate::moment::Moment;
use client::objects::{active, created};
use client::tolerations::tolerates;

/// Whether taints evict a pod, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaintEviction {
    /// It stays.
    Stay,
    /// It leaves after this time, unless something changes.
    LeaveIn(Duration),
    /// It leaves now.
    Leave,
}

/// Since when the taints of one node are there, as it was when each was first seen: `kubectl taint` notes no time in
/// the taint itself, and a noted one says nothing after the clock was set.
#[derive(Debug, Clone, Default)]
pub struct TaintTimes(Vec<(Taint, Moment)>);

impl TaintTimes {
    /// Takes in a state of the node. A taint that went and came back counts anew.
    pub fn observe(&mut self, node: &Node, now: Moment) {
        let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
        self.0.retain(|(taint, _)| taints.iter().any(|t| same(t, taint)));
        for taint in taints {
            if !self.0.iter().any(|(t, _)| same(t, taint)) {
                self.0.push((taint.clone(), came(taint, now)));
            }
        }
    }

    /// When the taint came, as far as is known.
    fn since(&self, taint: &Taint, now: Moment) -> Moment {
        let seen = self.0.iter().find(|(t, _)| same(t, taint)).map(|(_, at)| *at);
        seen.unwrap_or_else(|| came(taint, now))
    }
}

/// When a taint came that is seen for the first time.
fn came(taint: &Taint, now: Moment) -> Moment {
    taint.time_added.as_ref().map_or(now, |noted| now.back_to(noted.0))
}

fn same(a: &Taint, b: &Taint) -> bool {
    (&a.key, &a.effect, &a.value, &a.time_added) == (&b.key, &b.effect, &b.value, &b.time_added)
}

/// Decides for a pod on a node.
pub fn taint_eviction(pod: &Pod, node: &Node, times: &TaintTimes, now: Moment) -> TaintEviction {
    if !active(pod) {
        return TaintEviction::Stay;
    }
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_ref());
    let evicting = taints.into_iter().flatten().filter(|t| t.effect == "NoExecute");
    match evicting.filter_map(|t| bears(pod, t, times.since(t, now), now)).min() {
        None => TaintEviction::Stay,
        Some(Duration::ZERO) => TaintEviction::Leave,
        Some(left) => TaintEviction::LeaveIn(left),
    }
}

/// The longest that upstream can count, in nanoseconds of an `int64`. What is borne for longer is borne for ever: the
/// largest number of seconds by upstream's word (`getMinTolerationTime`), those in between because nobody can count
/// them.
const LONGEST_SECONDS: i64 = i64::MAX / 1_000_000_000;

/// How much longer the pod bears a taint that came at `since`; `None` for ever.
fn bears(pod: &Pod, taint: &Taint, since: Moment, now: Moment) -> Option<Duration> {
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_ref());
    // The first of several tolerations counts, as in upstream's GetMatchingTolerations; without a limit it is for ever.
    let Some(first) = tolerations.into_iter().flatten().find(|t| tolerates(t, taint)) else {
        return Some(Duration::ZERO);
    };
    let seconds = first.toleration_seconds.filter(|seconds| *seconds <= LONGEST_SECONDS)?;
    let seconds = u64::try_from(seconds).unwrap_or(0);
    // A pod that came later has its time from then.
    let later = Duration::try_from(created(&pod.metadata).duration_since(since.time)).unwrap_or_default();
    let (borne, elapsed) = (Duration::from_secs(seconds), now.since(since.instant));
    Some(borne.saturating_add(later.min(elapsed)).saturating_sub(elapsed))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::health::tests::{at, moment, node, stepped};
    use super::*;
    use serde_json::{Value, from_value, json};

    fn check(tolerations: Value, taints: Value, now: u64, want: TaintEviction) {
        let pod: Pod = from_value(json!({
            "metadata": {"name": "p", "creationTimestamp": at(-100).to_string()},
            "spec": {"containers": [], "tolerations": tolerations}, "status": {"phase": "Running"}
        }))
        .unwrap();
        let n = node("n", Some("True"), json!({"spec": {"taints": taints}}));
        assert_eq!(taint_eviction(&pod, &n, &TaintTimes::default(), moment(now)), want);
    }

    #[test]
    fn tolerations_set_the_time() {
        let taint = json!([{"key": "k", "effect": "NoExecute", "timeAdded": at(0).to_string()}]);
        let bear = |seconds: Value| json!([{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}]);
        check(json!([]), json!([]), 0, TaintEviction::Stay);
        check(json!([]), json!([{"key": "k", "effect": "NoSchedule"}]), 0, TaintEviction::Stay);
        check(json!([]), taint.clone(), 0, TaintEviction::Leave);
        check(bear(json!(null)), taint.clone(), 9999, TaintEviction::Stay);
        check(bear(json!(300)), taint.clone(), 100, TaintEviction::LeaveIn(Duration::from_secs(200)));
        check(bear(json!(300)), taint.clone(), 300, TaintEviction::Leave);
        check(bear(json!(-5)), taint.clone(), 0, TaintEviction::Leave);
        check(bear(json!(i64::MIN)), taint.clone(), 0, TaintEviction::Leave);
        check(bear(json!(i64::MAX)), taint.clone(), 100, TaintEviction::Stay);
        check(bear(json!(LONGEST_SECONDS + 1)), taint.clone(), 100, TaintEviction::Stay);
        let longest = Duration::from_secs(LONGEST_SECONDS.cast_unsigned() - 100);
        check(bear(json!(LONGEST_SECONDS)), taint, 100, TaintEviction::LeaveIn(longest));
        let two = json!([
            {"key": "k", "effect": "NoExecute", "timeAdded": at(0).to_string()},
            {"key": "other", "effect": "NoExecute", "timeAdded": at(0).to_string()}]);
        check(bear(json!(300)), two, 0, TaintEviction::Leave);
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
        let leave_in = |seconds| TaintEviction::LeaveIn(Duration::from_secs(seconds));
        times.observe(&tainted, moment(0));
        assert_eq!(taint_eviction(&pod, &tainted, &times, moment(0)), leave_in(8));
        times.observe(&tainted, moment(5));
        assert_eq!(taint_eviction(&pod, &tainted, &times, moment(5)), leave_in(3));
        assert_eq!(taint_eviction(&pod, &tainted, &times, moment(8)), TaintEviction::Leave);
        times.observe(&clean, moment(9));
        times.observe(&tainted, moment(20));
        assert_eq!(taint_eviction(&pod, &tainted, &times, moment(20)), leave_in(8), "a new taint");
    }

    #[test]
    fn a_step_of_the_clock_evicts_nobody_and_keeps_nobody() {
        let pod = |created: i64| -> Pod {
            from_value(json!({
                "metadata": {"name": "p", "creationTimestamp": at(created).to_string()},
                "spec": {"containers": [], "tolerations": [
                    {"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]},
                "status": {"phase": "Running"}
            }))
            .unwrap()
        };
        let leave_in = |seconds| TaintEviction::LeaveIn(Duration::from_secs(seconds));
        for noted in [json!(at(0).to_string()), json!(null)] {
            let taints = json!([{"key": "k", "effect": "NoExecute", "timeAdded": noted}]);
            let tainted = node("n", None, json!({"spec": {"taints": taints}}));
            let mut times = TaintTimes::default();
            times.observe(&tainted, moment(0));
            for step in [86_400, -86_400] {
                assert_eq!(taint_eviction(&pod(-100), &tainted, &times, stepped(100, step)), leave_in(200), "{step}");
                assert_eq!(
                    taint_eviction(&pod(-100), &tainted, &times, stepped(300, step)),
                    TaintEviction::Leave,
                    "{step}"
                );
            }
            assert_eq!(
                taint_eviction(&pod(60), &tainted, &times, stepped(100, 86_400)),
                leave_in(260),
                "it came later"
            );
            assert_eq!(
                taint_eviction(&pod(86_460), &tainted, &times, stepped(60, 86_400)),
                leave_in(300),
                "after the step"
            );
        }
        // Whoever starts anew knows only what was noted.
        let noted = json!([{"key": "k", "effect": "NoExecute", "timeAdded": at(0).to_string()}]);
        let tainted = node("n", None, json!({"spec": {"taints": noted}}));
        assert_eq!(taint_eviction(&pod(-100), &tainted, &TaintTimes::default(), moment(100)), leave_in(200));
    }

    #[test]
    fn ended_and_dying_pods_stay() {
        let n = node("n", None, json!({"spec": {"taints": [{"key": "k", "effect": "NoExecute"}]}}));
        let pod = |v: Value| from_value::<Pod>(v).unwrap();
        assert_eq!(
            taint_eviction(
                &pod(json!({"metadata": {}, "status": {"phase": "Failed"}})),
                &n,
                &TaintTimes::default(),
                moment(0)
            ),
            TaintEviction::Stay
        );
        assert_eq!(
            taint_eviction(
                &pod(json!({"metadata": {"deletionTimestamp": at(0).to_string()}})),
                &n,
                &TaintTimes::default(),
                moment(0)
            ),
            TaintEviction::Stay
        );
    }
}

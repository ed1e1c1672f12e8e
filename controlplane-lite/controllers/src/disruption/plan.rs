//! The status of a PodDisruptionBudget, out of its pods and the sizes of their
//! controllers, and pods whose disruption never came; as upstream's
//! pkg/controller/disruption/disruption.go. Pure.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use client::objects::{deleting, name, pod_condition, ready, terminated};
use client::text::{CONDITION_MESSAGE, cut};

/// How long an evicted pod may take to be marked for deletion.
const DELETION_TIMEOUT: SignedDuration = SignedDuration::from_secs(120);
/// How long a pod that is to be disrupted may stay.
const STALE_MARK: SignedDuration = SignedDuration::from_secs(120);
const DISRUPTION_ALLOWED: &str = "DisruptionAllowed";
/// The condition of a pod that is about to be ended.
pub(super) const DISRUPTION_TARGET: &str = "DisruptionTarget";

/// A new status, and what else follows.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The status to show.
    pub status: PodDisruptionBudgetStatus,
    /// Evicted pods that were not deleted in time.
    pub not_deleted: Vec<String>,
    /// When the next evicted pod runs out of time.
    pub wake: Option<SignedDuration>,
}

/// Whether a pod is marked for a disruption that does not come, and how long to wait before the mark is taken back.
/// What the kubelet marked is being ended, however long that takes.
pub fn stale_mark(pod: &Pod, now: Timestamp) -> Option<SignedDuration> {
    let mark = pod_condition(pod, DISRUPTION_TARGET).filter(|c| c.status == "True")?;
    if deleting(&pod.metadata) || terminated(pod) || mark.reason.as_deref() == Some("TerminationByKubelet") {
        return None;
    }
    let since = mark.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    Some((STALE_MARK - now.duration_since(since)).max(SignedDuration::ZERO))
}

/// Whether the sizes of the pods' controllers have to be known.
pub fn needs_scale(budget: &PodDisruptionBudget) -> bool {
    let Some(spec) = &budget.spec else { return false };
    spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
}

/// Plans the status; `scale` is the sum of the sizes of the pods' controllers,
/// or why it is not known.
pub fn plan(budget: &PodDisruptionBudget, pods: &[&Pod], scale: Result<i32, String>, now: Timestamp) -> Plan {
    let (disrupted, not_deleted, wake) = disrupted(budget, pods, now);
    let healthy = |pod: &&&Pod| !deleting(&pod.metadata) && !disrupted.contains_key(name(&pod.metadata)) && ready(pod);
    let current = count(pods.iter().filter(healthy).count());
    let before = budget.status.clone().unwrap_or_default();
    let disrupted = (!disrupted.is_empty()).then_some(disrupted);
    let status = match expected(budget, count(pods.len()), scale) {
        Ok((expected, desired)) => {
            let allowed = if expected > 0 { (current - desired).max(0) } else { 0 };
            PodDisruptionBudgetStatus {
                current_healthy: Some(current),
                desired_healthy: Some(desired),
                disrupted_pods: disrupted,
                disruptions_allowed: Some(allowed),
                expected_pods: Some(expected),
                observed_generation: budget.metadata.generation,
                conditions: Some(condition(budget, allowed, None, now)),
            }
        }
        // Nobody is evicted by a budget that cannot be computed.
        Err(error) => PodDisruptionBudgetStatus {
            disruptions_allowed: Some(0),
            conditions: Some(condition(budget, 0, Some(error), now)),
            ..before
        },
    };
    Plan { status, not_deleted, wake }
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// How many pods there should be, and how many of them healthy.
fn expected(budget: &PodDisruptionBudget, pods: i32, scale: Result<i32, String>) -> Result<(i32, i32), String> {
    let spec = budget.spec.as_ref();
    if let Some(max) = spec.and_then(|s| s.max_unavailable.as_ref()) {
        let scale = scale?;
        return Ok((scale, (scale - resolve(max, scale)?).max(0)));
    }
    match spec.and_then(|s| s.min_available.as_ref()) {
        Some(IntOrString::Int(min)) => Ok((pods, *min)),
        Some(min) => {
            let scale = scale?;
            Ok((scale, resolve(min, scale)?))
        }
        None => Ok((pods, 0)),
    }
}

/// A number, or a share of the total, rounded up.
fn resolve(value: &IntOrString, total: i32) -> Result<i32, String> {
    match value {
        IntOrString::Int(n) => Ok(*n),
        IntOrString::String(text) => {
            let percent: Option<i64> = text.strip_suffix('%').and_then(|n| n.parse().ok());
            let percent = percent.ok_or_else(|| format!("invalid value for IntOrString: {text:?} is no percentage"))?;
            i32::try_from((percent * i64::from(total) + 99).div_euclid(100)).map_err(|error| error.to_string())
        }
    }
}

type Disrupted = (BTreeMap<String, Time>, Vec<String>, Option<SignedDuration>);

/// The evicted pods that still have time to go, those that had it, and when the next one runs out of it.
fn disrupted(budget: &PodDisruptionBudget, pods: &[&Pod], now: Timestamp) -> Disrupted {
    let (mut kept, mut late, mut wake) = (BTreeMap::new(), Vec::new(), None::<SignedDuration>);
    let before = budget.status.as_ref().and_then(|s| s.disrupted_pods.as_ref());
    for (pod, at) in before.into_iter().flatten() {
        // Gone, or about to: the eviction has done what it should.
        if !pods.iter().any(|p| name(&p.metadata) == pod && !deleting(&p.metadata)) {
            continue;
        }
        let left = DELETION_TIMEOUT - now.duration_since(at.0);
        if left.is_negative() || left.is_zero() {
            late.push(pod.clone());
            continue;
        }
        kept.insert(pod.clone(), at.clone());
        wake = Some(wake.map_or(left, |w| w.min(left)));
    }
    (kept, late, wake)
}

/// The conditions with `DisruptionAllowed` as it is now.
fn condition(budget: &PodDisruptionBudget, allowed: i32, error: Option<String>, now: Timestamp) -> Vec<Condition> {
    let mut all = budget.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    // What could not be computed says nothing of the present spec, as in upstream's failSafe.
    let generation = match &error {
        Some(_) => budget.status.as_ref().and_then(|status| status.observed_generation),
        None => budget.metadata.generation,
    };
    let (status, reason, message) = match error {
        Some(error) => ("False", "SyncFailed", error),
        None if allowed > 0 => ("True", "SufficientPods", String::new()),
        None => ("False", "InsufficientPods", String::new()),
    };
    let before = all.iter().find(|c| c.type_ == DISRUPTION_ALLOWED && c.status == status);
    let since = before.map_or(Time(now), |c| c.last_transition_time.clone());
    all.retain(|c| c.type_ != DISRUPTION_ALLOWED);
    all.push(Condition {
        type_: DISRUPTION_ALLOWED.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: cut(message, CONDITION_MESSAGE),
        last_transition_time: since,
        observed_generation: generation,
    });
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, from_value, json};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn budget(spec: &Value, disrupted: &Value) -> PodDisruptionBudget {
        let status = json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0,
            "disruptedPods": disrupted});
        from_value(json!({"metadata": {"name": "b", "generation": 3}, "spec": spec, "status": status})).unwrap()
    }

    fn pod(name: &str, is_ready: bool, is_deleting: bool) -> Pod {
        let conditions = json!([{"type": "Ready", "status": if is_ready { "True" } else { "False" }}]);
        let mut pod = json!({"metadata": {"name": name}, "status": {"phase": "Running", "conditions": conditions}});
        if is_deleting {
            pod["metadata"]["deletionTimestamp"] = json!(at(0).to_string());
        }
        from_value(pod).unwrap()
    }

    /// Allowed, healthy, desired, expected.
    fn numbers(spec: &Value, ready: usize, broken: usize, scale: Result<i32, String>) -> (i32, i32, i32, i32) {
        let pods: Vec<Pod> = (0..ready + broken).map(|n| pod(&format!("p{n}"), n < ready, false)).collect();
        let pods: Vec<&Pod> = pods.iter().collect();
        // A status that could not be computed says nothing of the present spec (upstream's failSafe).
        let s = plan(&budget(spec, &json!({})), &pods, scale, at(0)).status;
        let failed = s.conditions.iter().flatten().any(|c| c.reason == "SyncFailed");
        assert_eq!(s.observed_generation, (!failed).then_some(3));
        let n = Option::unwrap;
        (n(s.disruptions_allowed), n(s.current_healthy), n(s.desired_healthy), n(s.expected_pods))
    }

    #[test]
    fn numbers_and_shares() {
        assert_eq!(numbers(&json!({"maxUnavailable": 1}), 3, 0, Ok(3)), (1, 3, 2, 3));
        assert_eq!(numbers(&json!({"maxUnavailable": 1}), 2, 1, Ok(3)), (0, 2, 2, 3));
        assert_eq!(numbers(&json!({"maxUnavailable": "30%"}), 10, 0, Ok(10)), (3, 10, 7, 10));
        assert_eq!(numbers(&json!({"maxUnavailable": "10%"}), 3, 0, Ok(3)), (1, 3, 2, 3), "a share rounds up");
        assert_eq!(numbers(&json!({"maxUnavailable": 9}), 3, 0, Ok(3)), (3, 3, 0, 3));
        assert_eq!(numbers(&json!({"maxUnavailable": 0}), 3, 0, Ok(3)), (0, 3, 3, 3));
        assert_eq!(numbers(&json!({"minAvailable": 2}), 3, 0, Err("not asked".into())), (1, 3, 2, 3));
        assert_eq!(numbers(&json!({"minAvailable": "50%"}), 3, 0, Ok(3)), (1, 3, 2, 3));
        assert_eq!(numbers(&json!({"minAvailable": 0}), 0, 0, Ok(0)), (0, 0, 0, 0), "no pods, no disruptions");
        assert_eq!(numbers(&json!({"minAvailable": 1}), 1, 4, Ok(5)), (0, 1, 1, 5));
    }

    #[test]
    fn what_cannot_be_computed_allows_nothing() {
        let pods = [pod("a", true, false)];
        let unknown = plan(&budget(&json!({"maxUnavailable": 1}), &json!({})), &[&pods[0]], Err("why".into()), at(0));
        let conditions = unknown.status.conditions.unwrap();
        assert_eq!(unknown.status.disruptions_allowed, Some(0));
        assert_eq!((conditions[0].reason.as_str(), conditions[0].message.as_str()), ("SyncFailed", "why"));
        assert_eq!((unknown.status.observed_generation, conditions[0].observed_generation), (None, None));
        let long = Err("x".repeat(1_400_000));
        let long = plan(&budget(&json!({"maxUnavailable": 1}), &json!({})), &[&pods[0]], long, at(0));
        assert_eq!(long.status.conditions.unwrap()[0].message.len(), 32_768);
        let garbage = numbers(&json!({"maxUnavailable": "many"}), 1, 0, Ok(1));
        assert_eq!(garbage.0, 0);
    }

    #[test]
    fn evicted_pods_count_as_gone_for_two_minutes() {
        let noted = json!({"a": at(0).to_string(), "b": at(0).to_string(), "gone": at(0).to_string()});
        let pods = [pod("a", true, false), pod("b", true, true), pod("c", true, false)];
        let pods: Vec<&Pod> = pods.iter().collect();
        let budget = budget(&json!({"minAvailable": 1}), &noted);
        let soon = plan(&budget, &pods, Ok(0), at(30));
        let names = |plan: &Plan| plan.status.disrupted_pods.clone().map(|d| d.into_keys().collect::<Vec<_>>());
        assert_eq!((names(&soon), soon.status.current_healthy), (Some(vec!["a".to_owned()]), Some(1)));
        assert_eq!(soon.wake, Some(SignedDuration::from_secs(90)));
        let late = plan(&budget, &pods, Ok(0), at(120));
        assert_eq!((names(&late), late.status.current_healthy), (None, Some(2)));
        assert_eq!((late.not_deleted, late.wake), (vec!["a".to_owned()], None));
    }

    #[test]
    fn a_mark_without_a_disruption_is_taken_back_after_two_minutes() {
        let marked = |patch: &Value| -> Pod {
            let mark = json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
                "lastTransitionTime": at(0).to_string()});
            let mut value = json!({"metadata": {"name": "p"}, "status": {"phase": "Running", "conditions": [mark]}});
            json_patch::merge(&mut value, patch);
            from_value(value).unwrap()
        };
        let waits = |patch: Value, now| stale_mark(&marked(&patch), at(now)).map(|d| d.as_secs());
        assert_eq!(waits(json!({}), 30), Some(90));
        assert_eq!(waits(json!({}), 500), Some(0));
        assert_eq!(waits(json!({"metadata": {"deletionTimestamp": at(1).to_string()}}), 500), None);
        assert_eq!(waits(json!({"status": {"phase": "Failed"}}), 500), None);
        for (status, reason) in [("False", "EvictionByEvictionAPI"), ("True", "TerminationByKubelet")] {
            let condition = json!({"type": "DisruptionTarget", "status": status, "reason": reason});
            assert_eq!(waits(json!({"status": {"conditions": [condition]}}), 500), None, "{status} {reason}");
        }
    }

    #[test]
    fn a_condition_keeps_its_time_until_it_changes() {
        let pods = [pod("a", true, false)];
        let mut budget = budget(&json!({"minAvailable": 1}), &json!({}));
        let first = plan(&budget, &[&pods[0]], Ok(0), at(0)).status;
        budget.status = Some(first.clone());
        assert_eq!(plan(&budget, &[&pods[0]], Ok(0), at(60)).status, first, "nothing changed");
    }
}

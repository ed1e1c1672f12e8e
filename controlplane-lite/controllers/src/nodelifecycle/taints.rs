//! Which taints a node's conditions call for. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::health::{condition, ready};

/// The node reports that it is not ready.
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// The node does not report.
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// The node is cordoned.
pub const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
];

/// Whether NoExecute taints may be added or must go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eviction {
    /// Add what the conditions call for.
    Allowed,
    /// Add none now, keep what stands.
    Held,
    /// The whole cluster is out of reach: more likely it is us. None at all.
    Stopped,
}

/// The key of the taint for the Ready condition, if it is not True.
pub fn readiness_taint(node: &Node) -> Option<&'static str> {
    match ready(node)? {
        "True" => None,
        "False" => Some(NOT_READY),
        _ => Some(UNREACHABLE),
    }
}

/// Whether the node should have a NoExecute taint that it has not.
pub fn wants_no_execute(node: &Node) -> bool {
    let Some(key) = readiness_taint(node) else { return false };
    !taints(node).iter().any(|t| t.key == key && t.effect == "NoExecute")
}

fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default()
}

/// The taints the node should have, if they differ from those it has. Taints of
/// others stay, and so does the time of those that stay.
pub fn plan(node: &Node, eviction: Eviction, now: Timestamp) -> Option<Vec<Taint>> {
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    let readiness = readiness_taint(node);
    wanted.extend(readiness.map(|key| (key, "NoSchedule")));
    for (type_, key) in PRESSURES {
        if condition(node, type_).is_some_and(|c| c.status == "True") {
            wanted.push((key, "NoSchedule"));
        }
    }
    if node.spec.as_ref().is_some_and(|s| s.unschedulable == Some(true)) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let has = |key: &str, effect: &str| taints(node).iter().any(|t| t.key == key && t.effect == effect);
    match (readiness, eviction) {
        (None, _) | (_, Eviction::Stopped) => {}
        (Some(key), Eviction::Allowed) => wanted.push((key, "NoExecute")),
        // Another reason takes the place of a standing one without new permission.
        (Some(key), Eviction::Held) => {
            if has(NOT_READY, "NoExecute") || has(UNREACHABLE, "NoExecute") {
                wanted.push((key, "NoExecute"));
            }
        }
    }
    // A node that has never reported keeps the taint it registered with.
    let unreported = ready(node).is_none();
    let ours = |t: &Taint| match t.effect.as_str() {
        "NoSchedule" if unreported && t.key == NOT_READY => false,
        "NoSchedule" => {
            [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&t.key.as_str())
                || PRESSURES.iter().any(|(_, k)| *k == t.key)
        }
        "NoExecute" => t.key == NOT_READY || t.key == UNREACHABLE,
        _ => false,
    };
    let is_wanted = |t: &Taint| wanted.iter().any(|(k, e)| *k == t.key && *e == t.effect);
    let mut out: Vec<Taint> = taints(node).iter().filter(|t| !ours(t) || is_wanted(t)).cloned().collect();
    for (key, effect) in wanted {
        if !has(key, effect) {
            out.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                time_added: Some(Time(now)),
                value: None,
            });
        }
    }
    (out != taints(node)).then_some(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::health::tests::{at, node};
    use super::*;
    use serde_json::{Value, json};

    fn check(ready: Option<&str>, have: Value, eviction: Eviction, want: Option<&[&str]>) {
        let n = node("n", ready, json!({"spec": {"taints": have}}));
        let got = plan(&n, eviction, at(5)).map(|t| {
            t.iter().map(|t| format!("{}:{}", t.key.rsplit('/').next().unwrap(), t.effect)).collect::<Vec<_>>()
        });
        assert_eq!(got, want.map(|w| w.iter().map(|s| (*s).to_owned()).collect()), "{ready:?} {have} {eviction:?}");
    }

    #[test]
    fn readiness_becomes_taints() {
        let execute = json!([{"key": UNREACHABLE, "effect": "NoExecute"}]);
        check(Some("True"), json!([]), Eviction::Allowed, None);
        check(Some("False"), json!([]), Eviction::Allowed, Some(&["not-ready:NoSchedule", "not-ready:NoExecute"]));
        check(
            Some("Unknown"),
            json!([]),
            Eviction::Allowed,
            Some(&["unreachable:NoSchedule", "unreachable:NoExecute"]),
        );
        check(Some("Unknown"), json!([]), Eviction::Held, Some(&["unreachable:NoSchedule"]));
        check(
            Some("Unknown"),
            execute.clone(),
            Eviction::Held,
            Some(&["unreachable:NoExecute", "unreachable:NoSchedule"]),
        );
        check(Some("Unknown"), execute.clone(), Eviction::Stopped, Some(&["unreachable:NoSchedule"]));
        check(Some("False"), execute.clone(), Eviction::Held, Some(&["not-ready:NoSchedule", "not-ready:NoExecute"]));
        check(Some("True"), execute, Eviction::Allowed, Some(&[]));
    }

    #[test]
    fn taints_of_others_stay() {
        let have = json!([{"key": "mine", "effect": "NoExecute"}, {"key": NOT_READY, "effect": "NoSchedule"}]);
        check(Some("True"), have.clone(), Eviction::Allowed, Some(&["mine:NoExecute"]));
        check(None, have, Eviction::Allowed, None);
    }

    #[test]
    fn pressure_and_cordon() {
        let patch = json!({"spec": {"unschedulable": true}, "status": {"conditions": [
            {"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "True"}, {"type": "PIDPressure", "status": "False"}]}});
        let got = plan(&node("n", None, patch), Eviction::Allowed, at(5)).unwrap();
        let keys: Vec<_> = got.iter().map(|t| (t.key.as_str(), t.effect.as_str())).collect();
        assert_eq!(keys, [("node.kubernetes.io/disk-pressure", "NoSchedule"), (UNSCHEDULABLE, "NoSchedule")]);
        assert_eq!(got[0].time_added.as_ref().unwrap().0, at(5));
    }
}

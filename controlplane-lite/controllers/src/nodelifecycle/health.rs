//! Whether a node still speaks. Times of the node are only compared with each
//! other, silence is measured on our own clock, and on one that nobody sets. Pure.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::moment::Moment;
use client::objects::created;

/// When a node last gave a sign of life, as upstream's node health data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeHealth {
    renewed: Option<Timestamp>,
    heartbeat: Option<Timestamp>,
    /// When, on our clock, one of the two last moved.
    pub at: Instant,
}

/// One condition of a node.
pub fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == type_)
}

/// Status of the Ready condition; `None` when the node has never reported.
pub fn ready(node: &Node) -> Option<&str> {
    condition(node, "Ready").map(|c| c.status.as_str())
}

impl NodeHealth {
    /// Takes note of a node and its lease at the moment `now`.
    pub fn update(before: Option<&Self>, node: &Node, lease: Option<&Lease>, now: Moment) -> Self {
        let renewed = lease.and_then(|l| l.spec.as_ref()).and_then(|s| s.renew_time.as_ref()).map(|t| t.0);
        // A condition we have set to Unknown ourselves is no sign of life.
        let alive = condition(node, "Ready").filter(|c| c.status != "Unknown");
        let heartbeat = alive.and_then(|c| c.last_heartbeat_time.as_ref()).map(|t| t.0);
        let Some(before) = before else {
            // Seen for the first time (by this process): the grace period starts now,
            // for a node that never reported at its creation.
            let since = if ready(node).is_some() { now } else { now.back_to(created(&node.metadata)) };
            return Self { renewed, heartbeat, at: since.instant };
        };
        let moved =
            renewed.is_some() && renewed != before.renewed || heartbeat.is_some() && heartbeat != before.heartbeat;
        Self {
            renewed: renewed.or(before.renewed),
            heartbeat: heartbeat.or(before.heartbeat),
            at: if moved { now.instant } else { before.at },
        }
    }
}

/// A node after a look at it.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It speaks; look again after this time.
    Alive(Duration),
    /// It has been silent too long: these conditions are to be written (none
    /// when they stand already).
    Silent(Vec<NodeCondition>),
}

/// Judges a node.
pub fn judge(node: &Node, health: &NodeHealth, grace: Duration, startup: Duration, now: Moment) -> Verdict {
    let grace = if ready(node).is_some() { grace } else { startup };
    let left = grace.saturating_sub(now.since(health.at));
    if left > Duration::ZERO {
        return Verdict::Alive(left);
    }
    Verdict::Silent(
        ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"]
            .iter()
            .filter_map(|t| unknown(node, t, now.time))
            .collect(),
    )
}

fn unknown(node: &Node, type_: &str, now: Timestamp) -> Option<NodeCondition> {
    let Some(have) = condition(node, type_) else {
        return Some(NodeCondition {
            type_: type_.to_owned(),
            status: "Unknown".to_owned(),
            reason: Some("NodeStatusNeverUpdated".to_owned()),
            message: Some("Kubelet never posted node status.".to_owned()),
            last_heartbeat_time: node.metadata.creation_timestamp.clone(),
            last_transition_time: Some(Time(now)),
        });
    };
    (have.status != "Unknown").then(|| NodeCondition {
        status: "Unknown".to_owned(),
        reason: Some("NodeStatusUnknown".to_owned()),
        message: Some("Kubelet stopped posting node status.".to_owned()),
        last_transition_time: Some(Time(now)),
        ..have.clone()
    })
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    pub(crate) use crate::moment::tests::{at, moment, stepped};
    use serde_json::{Value, from_value, json};

    pub fn node(name: &str, ready: Option<&str>, patch: Value) -> Node {
        let conditions = ready.map(|s| json!([{"type": "Ready", "status": s, "lastHeartbeatTime": at(0).to_string()}]));
        let mut value = json!({
            "metadata": {"name": name, "uid": name, "creationTimestamp": at(0).to_string()},
            "spec": {}, "status": {"conditions": conditions}
        });
        json_patch::merge(&mut value, &patch);
        from_value(value).unwrap()
    }

    fn lease(seconds: i64) -> Lease {
        from_value(json!({"metadata": {}, "spec": {"renewTime": format!("{:.6}", at(seconds))}})).unwrap()
    }

    const GRACE: Duration = Duration::from_secs(40);
    const STARTUP: Duration = Duration::from_secs(60);

    #[test]
    fn a_step_of_the_clock_is_no_silence() {
        let n = node("n", Some("True"), json!({}));
        for step in [86_400, -86_400] {
            let health = NodeHealth::update(None, &n, Some(&lease(0)), moment(0));
            let now = stepped(10, step);
            assert_eq!(judge(&n, &health, GRACE, STARTUP, now), Verdict::Alive(Duration::from_secs(30)), "{step}");
            assert!(matches!(judge(&n, &health, GRACE, STARTUP, stepped(40, step)), Verdict::Silent(_)), "{step}");
        }
    }

    #[test]
    fn a_lease_alone_keeps_a_node_alive() {
        let n = node("n", Some("True"), json!({}));
        let health = NodeHealth::update(None, &n, Some(&lease(0)), moment(0));
        assert_eq!(judge(&n, &health, GRACE, STARTUP, moment(30)), Verdict::Alive(Duration::from_secs(10)));
        let renewed = NodeHealth::update(Some(&health), &n, Some(&lease(30)), moment(30));
        assert_eq!(judge(&n, &renewed, GRACE, STARTUP, moment(69)), Verdict::Alive(Duration::from_secs(1)));
        let same = NodeHealth::update(Some(&renewed), &n, Some(&lease(30)), moment(60));
        assert_eq!(same, renewed, "an unchanged lease is no sign of life");
        assert!(matches!(judge(&n, &same, GRACE, STARTUP, moment(70)), Verdict::Silent(c) if c.len() == 4));
    }

    #[test]
    fn the_nodes_own_clock_does_not_matter() {
        let n = node("n", Some("True"), json!({}));
        let health = NodeHealth::update(None, &n, Some(&lease(-86_400)), moment(0));
        let health = NodeHealth::update(Some(&health), &n, Some(&lease(-86_390)), moment(39));
        assert_eq!(judge(&n, &health, GRACE, STARTUP, moment(40)), Verdict::Alive(Duration::from_secs(39)));
    }

    #[test]
    fn silence_is_written_once() {
        let n = node("n", Some("Unknown"), json!({}));
        let health = NodeHealth::update(None, &n, None, moment(0));
        let Verdict::Silent(conditions) = judge(&n, &health, GRACE, STARTUP, moment(50)) else { panic!("silent") };
        assert!(conditions.iter().all(|c| c.type_ != "Ready"), "Ready is Unknown already");
        assert_eq!(conditions[0].reason.as_deref(), Some("NodeStatusNeverUpdated"));
    }

    #[test]
    fn a_node_that_never_reported_has_longer() {
        let n = node("n", None, json!({}));
        let health = NodeHealth::update(None, &n, None, moment(20));
        assert_eq!(judge(&n, &health, GRACE, STARTUP, moment(50)), Verdict::Alive(Duration::from_secs(10)));
        assert!(matches!(judge(&n, &health, GRACE, STARTUP, moment(60)), Verdict::Silent(_)));
    }
}

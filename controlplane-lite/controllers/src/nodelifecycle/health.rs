//! Whether a node still speaks. Times of the node are only compared with each
//! other, silence is measured on our own clock. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use client::objects::created;

/// What was last heard of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    renewed: Option<Timestamp>,
    heartbeat: Option<Timestamp>,
    /// When, on our clock, one of the two last moved.
    pub at: Timestamp,
}

/// One condition of a node.
pub fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == type_)
}

/// Status of the Ready condition; `None` when the node has never reported.
pub fn ready(node: &Node) -> Option<&str> {
    condition(node, "Ready").map(|c| c.status.as_str())
}

impl Heard {
    /// Takes note of a node and its lease at the time `now`.
    pub fn update(before: Option<&Self>, node: &Node, lease: Option<&Lease>, now: Timestamp) -> Self {
        let renewed = lease.and_then(|l| l.spec.as_ref()).and_then(|s| s.renew_time.as_ref()).map(|t| t.0);
        // A condition we have set to Unknown ourselves is no sign of life.
        let alive = condition(node, "Ready").filter(|c| c.status != "Unknown");
        let heartbeat = alive.and_then(|c| c.last_heartbeat_time.as_ref()).map(|t| t.0);
        let Some(before) = before else {
            // Seen for the first time (by this process): the grace period starts now,
            // for a node that never reported at its creation.
            let at =
                if ready(node).is_some() { now } else { created(&node.metadata).max(Timestamp::UNIX_EPOCH).min(now) };
            return Self { renewed, heartbeat, at };
        };
        let moved =
            renewed.is_some() && renewed != before.renewed || heartbeat.is_some() && heartbeat != before.heartbeat;
        Self {
            renewed: renewed.or(before.renewed),
            heartbeat: heartbeat.or(before.heartbeat),
            at: if moved { now } else { before.at },
        }
    }
}

/// A node after a look at it.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It speaks; look again after this time.
    Alive(SignedDuration),
    /// It has been silent too long: these conditions are to be written (none
    /// when they stand already).
    Silent(Vec<NodeCondition>),
}

/// Judges a node.
pub fn judge(node: &Node, heard: &Heard, grace: SignedDuration, startup: SignedDuration, now: Timestamp) -> Verdict {
    let grace = if ready(node).is_some() { grace } else { startup };
    let left = grace - now.duration_since(heard.at);
    if left > SignedDuration::ZERO {
        return Verdict::Alive(left);
    }
    Verdict::Silent(
        ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"]
            .iter()
            .filter_map(|t| unknown(node, t, now))
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
    use serde_json::{Value, from_value, json};

    pub fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

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

    const GRACE: SignedDuration = SignedDuration::from_secs(40);
    const STARTUP: SignedDuration = SignedDuration::from_secs(60);

    #[test]
    fn a_lease_alone_keeps_a_node_alive() {
        let n = node("n", Some("True"), json!({}));
        let heard = Heard::update(None, &n, Some(&lease(0)), at(0));
        assert_eq!(judge(&n, &heard, GRACE, STARTUP, at(30)), Verdict::Alive(SignedDuration::from_secs(10)));
        let renewed = Heard::update(Some(&heard), &n, Some(&lease(30)), at(30));
        assert_eq!(judge(&n, &renewed, GRACE, STARTUP, at(69)), Verdict::Alive(SignedDuration::from_secs(1)));
        let same = Heard::update(Some(&renewed), &n, Some(&lease(30)), at(60));
        assert_eq!(same, renewed, "an unchanged lease is no sign of life");
        assert!(matches!(judge(&n, &same, GRACE, STARTUP, at(70)), Verdict::Silent(c) if c.len() == 4));
    }

    #[test]
    fn the_nodes_own_clock_does_not_matter() {
        let n = node("n", Some("True"), json!({}));
        let heard = Heard::update(None, &n, Some(&lease(-86_400)), at(0));
        let heard = Heard::update(Some(&heard), &n, Some(&lease(-86_390)), at(39));
        assert_eq!(judge(&n, &heard, GRACE, STARTUP, at(40)), Verdict::Alive(SignedDuration::from_secs(39)));
    }

    #[test]
    fn silence_is_written_once() {
        let n = node("n", Some("Unknown"), json!({}));
        let heard = Heard::update(None, &n, None, at(0));
        let Verdict::Silent(conditions) = judge(&n, &heard, GRACE, STARTUP, at(50)) else { panic!("silent") };
        assert!(conditions.iter().all(|c| c.type_ != "Ready"), "Ready is Unknown already");
        assert_eq!(conditions[0].reason.as_deref(), Some("NodeStatusNeverUpdated"));
    }

    #[test]
    fn a_node_that_never_reported_has_longer() {
        let n = node("n", None, json!({}));
        let heard = Heard::update(None, &n, None, at(20));
        assert_eq!(judge(&n, &heard, GRACE, STARTUP, at(50)), Verdict::Alive(SignedDuration::from_secs(10)));
        assert!(matches!(judge(&n, &heard, GRACE, STARTUP, at(60)), Verdict::Silent(_)));
    }
}

//! How fast nodes of a zone may be tainted NoExecute, given how many of them are
//! in trouble: many at once are more likely our own trouble. Pure.

use std::collections::BTreeMap;
use std::time::Instant;

use k8s_openapi::api::core::v1::Node;

use super::health::ready;
use super::taints::Eviction;
use client::objects::label;

/// Zones with more nodes than this are large.
const LARGE: usize = 50;

/// At which rates pods are evicted.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Nodes per second in a healthy zone.
    pub rate: f64,
    /// Nodes per second in a large disrupted zone; small ones get none.
    pub secondary_rate: f64,
}

/// State of a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZoneState {
    /// Few nodes are not ready.
    Normal,
    /// Too many are.
    Partial,
    /// All are.
    Full,
}

/// The zone of a node: region and zone labels.
pub fn zone(node: &Node) -> String {
    let part = |key| label(&node.metadata, key).unwrap_or("");
    format!("{}/{}", part("topology.kubernetes.io/region"), part("topology.kubernetes.io/zone"))
}

/// Nodes with this label say nothing about their zone, as upstream's isNodeExcludedFromDisruptionChecks
/// (pkg/controller/nodelifecycle/node_lifecycle_controller.go).
const EXCLUDED: &str = "node.kubernetes.io/exclude-disruption";

/// State and size of every zone.
pub fn states<'a>(nodes: impl IntoIterator<Item = &'a Node>, threshold: f64) -> BTreeMap<String, (ZoneState, usize)> {
    let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for node in nodes.into_iter().filter(|node| label(&node.metadata, EXCLUDED).is_none()) {
        let (good, bad) = counts.entry(zone(node)).or_default();
        match ready(node) {
            Some("True") => *good += 1,
            // A node that has never reported says nothing about its zone.
            None => {}
            Some(_) => *bad += 1,
        }
    }
    counts.into_iter().map(|(zone, (good, bad))| (zone, (state(good, bad, threshold), good + bad))).collect()
}

// Numbers of nodes are far below 2^52.
#[allow(clippy::cast_precision_loss)]
fn state(good: usize, bad: usize, threshold: f64) -> ZoneState {
    if good == 0 && bad > 0 {
        ZoneState::Full
    } else if bad > 2 && bad as f64 / (good + bad) as f64 >= threshold {
        ZoneState::Partial
    } else {
        ZoneState::Normal
    }
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

/// Permits for NoExecute taints, one at a time per zone.
#[derive(Debug, Default)]
pub struct Permits {
    buckets: BTreeMap<String, Bucket>,
}

impl Permits {
    /// Decides for a node of `zone` that lacks its NoExecute taint. `wait` is
    /// when to ask again.
    pub fn ask(
        &mut self,
        zone: &str,
        zones: &BTreeMap<String, (ZoneState, usize)>,
        limits: Limits,
        now: Instant,
    ) -> (Eviction, Option<f64>) {
        if stopped(zones) {
            return (Eviction::Stopped, None);
        }
        let rate = match zones.get(zone) {
            Some((ZoneState::Partial, size)) if *size > LARGE => limits.secondary_rate,
            Some((ZoneState::Partial, _)) => 0.0,
            _ => limits.rate,
        };
        if rate <= 0.0 {
            return (Eviction::Held, None);
        }
        let bucket = self.buckets.entry(zone.to_owned()).or_insert(Bucket { tokens: 1.0, at: now });
        bucket.tokens = (bucket.tokens + now.saturating_duration_since(bucket.at).as_secs_f64() * rate).min(1.0);
        bucket.at = now;
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            return (Eviction::Allowed, None);
        }
        (Eviction::Held, Some((1.0 - bucket.tokens) / rate))
    }
}

/// Whether no zone has a ready node.
pub fn stopped(zones: &BTreeMap<String, (ZoneState, usize)>) -> bool {
    let mut known = zones.values().filter(|(_, size)| *size > 0).peekable();
    known.peek().is_some() && known.all(|(state, _)| *state == ZoneState::Full)
}

#[cfg(test)]
mod tests {
    use super::super::health::tests::{moment, node};
    use super::*;
    use serde_json::json;

    const LIMITS: Limits = Limits { rate: 0.1, secondary_rate: 0.01 };
    /// Share of not-ready nodes from which a zone is disrupted.
    const THRESHOLD: f64 = 0.55;

    fn cluster(ready: usize, broken: usize) -> BTreeMap<String, (ZoneState, usize)> {
        let nodes: Vec<Node> = (0..ready + broken)
            .map(|i| node(&format!("n{i}"), Some(if i < ready { "True" } else { "Unknown" }), json!({})))
            .collect();
        states(&nodes, THRESHOLD)
    }

    #[test]
    fn states_by_share() {
        for (good, bad, want) in [
            (3, 0, ZoneState::Normal),
            (1, 2, ZoneState::Normal),
            (1, 3, ZoneState::Partial),
            (3, 3, ZoneState::Normal),
            (0, 1, ZoneState::Full),
        ] {
            assert_eq!(cluster(good, bad)["/"].0, want, "{good} {bad}");
        }
    }

    #[test]
    fn excluded_nodes_disturb_no_zone() {
        let excluded = || json!({"metadata": {"labels": {EXCLUDED: ""}}});
        let mut nodes: Vec<Node> = (0..5).map(|i| node(&format!("spot{i}"), Some("Unknown"), excluded())).collect();
        nodes.push(node("n", Some("True"), json!({})));
        assert_eq!(states(&nodes, THRESHOLD)["/"], (ZoneState::Normal, 1));
    }

    #[test]
    fn one_node_in_ten_seconds() {
        let (zones, mut permits) = (cluster(5, 2), Permits::default());
        assert_eq!(permits.ask("/", &zones, LIMITS, moment(0).instant), (Eviction::Allowed, None));
        let (held, wait) = permits.ask("/", &zones, LIMITS, moment(4).instant);
        assert_eq!(held, Eviction::Held);
        assert!(wait.is_some_and(|w| (5.9..6.1).contains(&w)), "{wait:?}");
        assert_eq!(permits.ask("/", &zones, LIMITS, moment(11).instant).0, Eviction::Allowed);
    }

    #[test]
    fn disruption_holds_and_a_dark_cluster_stops() {
        let mut permits = Permits::default();
        assert_eq!(permits.ask("/", &cluster(2, 5), LIMITS, moment(0).instant), (Eviction::Held, None));
        assert_eq!(
            permits.ask("/", &cluster(20, 50), LIMITS, moment(0).instant).0,
            Eviction::Allowed,
            "large zones go slowly"
        );
        assert_eq!(permits.ask("/", &cluster(0, 3), LIMITS, moment(0).instant), (Eviction::Stopped, None));
    }
}

//! Nodes and the pods on them, pods we have just decided about included: those
//! are assumed to be there until the watch shows them or the binding fails. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;

use super::nodes::{Nodes, Slot};
use super::pod::{PodInfo, PodUid};

/// How long after a successful binding a pod may stay unseen by the watch.
pub const ASSUME_TIMEOUT: SignedDuration = SignedDuration::from_mins(15);

#[derive(Debug)]
enum Standing {
    /// Seen by the watch.
    Confirmed,
    /// Decided by us; once bound, believed until then.
    Assumed { until: Option<Timestamp> },
}

#[derive(Debug)]
struct Placed {
    pod: Arc<PodInfo>,
    node: String,
    /// `None` while the node is unknown.
    slot: Option<Slot>,
    standing: Standing,
}

/// The state that decisions are made on.
#[derive(Debug, Default)]
pub struct Cache {
    /// Nodes by column.
    pub nodes: Nodes,
    pods: HashMap<PodUid, Placed>,
}

impl Cache {
    /// How many pods are placed.
    pub fn pods(&self) -> usize {
        self.pods.len()
    }

    /// A new node or a new state of one; its slot.
    pub fn upsert_node(&mut self, node: &Node) -> Slot {
        let new = self.nodes.upsert(node);
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let slot = self.nodes.slot(name).expect("the node has just been added");
        if new {
            for placed in self.pods.values_mut().filter(|p| p.slot.is_none() && p.node == name) {
                placed.slot = Some(slot);
                self.nodes.charge(slot, &placed.pod);
            }
        }
        slot
    }

    /// A node is gone. Its pods stay known, in case it returns.
    pub fn remove_node(&mut self, name: &str) {
        let Some(slot) = self.nodes.remove(name) else { return };
        for placed in self.pods.values_mut().filter(|p| p.slot == Some(slot)) {
            placed.slot = None;
        }
    }

    /// Names of all nodes.
    pub fn node_names(&self) -> Vec<String> {
        self.nodes.order().iter().map(|s| self.nodes.name(*s).to_owned()).collect()
    }

    /// Uids of all pods the watch has shown.
    pub fn confirmed(&self) -> Vec<PodUid> {
        let seen = |(_, p): &(&PodUid, &Placed)| matches!(p.standing, Standing::Confirmed);
        self.pods.iter().filter(seen).map(|(uid, _)| uid.clone()).collect()
    }

    /// The watch shows a bound pod. Returns the slots that may have become
    /// emptier by it: those of a wrong assumption or of lowered requests.
    pub fn pod_seen(&mut self, pod: &PodInfo) -> Option<Slot> {
        let node = pod.node.clone().unwrap_or_default();
        if let Some(placed) = self.pods.get_mut(&pod.uid) {
            placed.standing = Standing::Confirmed;
            let same = placed.pod.requests == pod.requests && placed.pod.host_ports == pod.host_ports;
            if placed.node == node && same {
                return None;
            }
        }
        let freed = self.pod_gone(&pod.uid);
        self.place(pod, node, Standing::Confirmed);
        freed
    }

    /// A pod is gone or has ended. Returns the slot it was on.
    pub fn pod_gone(&mut self, uid: &PodUid) -> Option<Slot> {
        let placed = self.pods.remove(uid)?;
        let slot = placed.slot?;
        self.nodes.refund(slot, &placed.pod);
        Some(slot)
    }

    /// We have decided to put the pod there.
    pub fn assume(&mut self, pod: &PodInfo, slot: Slot) {
        let node = self.nodes.name(slot).to_owned();
        self.place(pod, node, Standing::Assumed { until: None });
    }

    /// The binding has been accepted.
    pub fn bound(&mut self, uid: &PodUid, now: Timestamp) {
        if let Some(Placed { standing: Standing::Assumed { until }, .. }) = self.pods.get_mut(uid) {
            *until = now.checked_add(ASSUME_TIMEOUT).ok();
        }
    }

    /// The binding has failed. Returns the slot that is free again.
    pub fn forget(&mut self, uid: &PodUid) -> Option<Slot> {
        let assumed = self.pods.get(uid).is_some_and(|p| matches!(p.standing, Standing::Assumed { .. }));
        if assumed { self.pod_gone(uid) } else { None }
    }

    /// Drops pods that were bound long ago and never seen, and says which.
    pub fn expire(&mut self, now: Timestamp) -> Vec<PodUid> {
        let old = |p: &Placed| matches!(p.standing, Standing::Assumed { until: Some(until) } if until <= now);
        let stale: Vec<PodUid> = self.pods.iter().filter(|(_, p)| old(p)).map(|(u, _)| u.clone()).collect();
        for uid in &stale {
            self.pod_gone(uid);
        }
        stale
    }

    /// Whether the pod is placed, by the watch or by us.
    pub fn contains(&self, uid: &PodUid) -> bool {
        self.pods.contains_key(uid)
    }

    fn place(&mut self, pod: &PodInfo, node: String, standing: Standing) {
        let slot = self.nodes.slot(&node);
        let slim = Arc::new(pod.placed());
        if let Some(slot) = slot {
            self.nodes.charge(slot, &slim);
        }
        self.pods.insert(slim.uid.clone(), Placed { pod: slim, node, slot, standing });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::nodes::{CPU, PODS};
    use super::super::testing::{node, pod, pod_on};
    use super::*;
    use proptest::prelude::*;

    fn used(cache: &Cache, name: &str) -> (i64, i64) {
        let slot = cache.nodes.slot(name).unwrap();
        (cache.nodes.columns[CPU].requested[slot], cache.nodes.columns[PODS].requested[slot])
    }

    #[test]
    fn an_assumed_pod_counts_once() {
        let mut cache = Cache::default();
        let slot = cache.upsert_node(&node("n", "4", "8Gi"));
        cache.assume(&pod("p", "500m"), slot);
        assert_eq!(used(&cache, "n"), (500, 1));
        assert_eq!(cache.pod_seen(&pod_on("p", "500m", "n")), None);
        assert_eq!(used(&cache, "n"), (500, 1));
        assert_eq!(cache.forget(&pod("p", "500m").uid), None, "the watch has confirmed it");
        assert_eq!(cache.pod_gone(&pod("p", "500m").uid), Some(slot));
        assert_eq!(used(&cache, "n"), (0, 0));
    }

    #[test]
    fn pods_of_an_unknown_node_count_when_it_comes() {
        let mut cache = Cache::default();
        cache.pod_seen(&pod_on("p", "500m", "n"));
        cache.upsert_node(&node("n", "4", "8Gi"));
        assert_eq!(used(&cache, "n"), (500, 1));
        cache.remove_node("n");
        cache.upsert_node(&node("m", "4", "8Gi"));
        assert_eq!(used(&cache, "m"), (0, 0), "a reused slot starts empty");
        cache.upsert_node(&node("n", "4", "8Gi"));
        assert_eq!(used(&cache, "n"), (500, 1));
    }

    #[test]
    fn a_wrong_assumption_is_corrected() {
        let mut cache = Cache::default();
        let a = cache.upsert_node(&node("a", "4", "8Gi"));
        cache.upsert_node(&node("b", "4", "8Gi"));
        cache.assume(&pod("p", "1"), a);
        assert_eq!(cache.pod_seen(&pod_on("p", "1", "b")), Some(a));
        assert_eq!((used(&cache, "a"), used(&cache, "b")), ((0, 0), (1000, 1)));
    }

    #[test]
    fn a_bound_pod_that_never_shows_expires() {
        let mut cache = Cache::default();
        let slot = cache.upsert_node(&node("a", "4", "8Gi"));
        let p = pod("p", "1");
        cache.assume(&p, slot);
        let now = Timestamp::UNIX_EPOCH;
        cache.expire(now + SignedDuration::from_hours(1));
        assert!(cache.contains(&p.uid), "not bound yet");
        cache.bound(&p.uid, now);
        cache.expire(now + SignedDuration::from_hours(1));
        assert_eq!(used(&cache, "a"), (0, 0));
    }

    proptest! {
        #[test]
        fn sums_match_the_pods(ops in proptest::collection::vec((0u8..7, 0u8..6, 0u8..3), 0..80)) {
            let mut cache = Cache::default();
            for (op, p, n) in ops {
                let (name, host) = (format!("p{p}"), format!("n{n}"));
                match op {
                    0 | 1 => { cache.upsert_node(&node(&host, "4", "8Gi")); }
                    2 => cache.remove_node(&host),
                    3 => { cache.pod_seen(&pod_on(&name, "100m", &host)); }
                    4 => { cache.pod_gone(&pod(&name, "100m").uid); }
                    5 => {
                        let uid = pod(&name, "100m").uid;
                        if let Some(slot) = cache.nodes.slot(&host) && !cache.contains(&uid) {
                            cache.assume(&pod(&name, "100m"), slot);
                        }
                    }
                    _ => { cache.forget(&pod(&name, "100m").uid); }
                }
                for slot in cache.nodes.order() {
                    let here = i64::try_from(cache.pods.values().filter(|p| p.slot == Some(*slot)).count()).unwrap();
                    prop_assert_eq!(cache.nodes.columns[PODS].requested[*slot], here);
                    prop_assert_eq!(cache.nodes.columns[CPU].requested[*slot], here * 100);
                }
            }
        }
    }
}

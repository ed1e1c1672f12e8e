//! The scheduler without its transport: takes what happened, gives what to do.
//! Owns the queue and the cache. Pure; the time and the tie-breaks are injected.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;

use super::cache::Cache;
use super::cycle::{Decision, TieBreak, hint, message, schedule_one};
use super::framework::{Permit, Profile};
use super::nodes::Slot;
use super::pod::{PodInfo, PodUid};
use super::queue::Queue;

/// Something the scheduler has to know.
#[derive(Debug)]
pub enum Input {
    /// All nodes there are; of those named their last state stays.
    Nodes(Vec<Node>, Vec<String>),
    /// A new or changed node.
    Node(Box<Node>),
    /// A node is gone.
    NodeGone(String),
    /// All pods there are; of those with these uids their last state stays.
    Pods(Vec<PodInfo>, Vec<PodUid>),
    /// A new or changed pod.
    Pod(Box<PodInfo>),
    /// A pod is gone.
    PodGone(PodUid),
    /// A binding has been accepted.
    Bound(PodUid),
    /// A binding was refused; `retry` unless the pod itself is at fault.
    BindFailed {
        /// Which pod.
        uid: PodUid,
        /// Whether another attempt makes sense.
        retry: bool,
    },
}

/// What to do for one pod.
#[derive(Debug)]
pub enum Action {
    /// Bind it.
    Bind {
        /// The pod.
        pod: Arc<PodInfo>,
        /// The node's name.
        node: String,
    },
    /// Tell why it waits.
    Report {
        /// The pod.
        pod: Arc<PodInfo>,
        /// Upstream's message.
        message: String,
    },
}

/// Queue, cache and profiles.
pub struct Engine {
    profiles: Vec<Profile>,
    cache: Cache,
    queue: Queue,
    start: usize,
    ties: Box<dyn TieBreak + Send>,
    nodes_synced: bool,
    pods_synced: bool,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("waiting", &self.queue.len()).field("placed", &self.cache.pods()).finish()
    }
}

impl Engine {
    /// An engine that knows nothing yet. Needs at least one profile.
    pub fn new(profiles: Vec<Profile>, ties: Box<dyn TieBreak + Send>) -> Self {
        let sort = profiles.first().expect("a scheduler has a profile").queue_sort.clone();
        Self {
            profiles,
            cache: Cache::default(),
            queue: Queue::new(sort),
            start: 0,
            ties,
            nodes_synced: false,
            pods_synced: false,
        }
    }

    /// Whether both lists are complete; before that nothing is decided.
    pub fn synced(&self) -> bool {
        self.nodes_synced && self.pods_synced
    }

    /// Pods that wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Takes in what happened.
    pub fn take(&mut self, input: Input, now: Timestamp) {
        match input {
            Input::Nodes(nodes, kept) => self.replace_nodes(&nodes, &kept, now),
            Input::Node(node) => self.node_changed(&node, now),
            Input::NodeGone(name) => self.cache.remove_node(&name),
            Input::Pods(pods, kept) => self.replace_pods(pods, &kept, now),
            Input::Pod(pod) => self.pod_changed(*pod, now),
            Input::PodGone(uid) => self.pod_gone(&uid, now),
            Input::Bound(uid) => self.cache.bound(&uid, now),
            Input::BindFailed { uid, retry } => {
                let freed = self.cache.forget(&uid);
                if retry {
                    self.queue.failed(&uid, now);
                } else {
                    self.queue.remove(&uid);
                }
                self.freed(freed, now);
            }
        }
    }

    /// Decides about the next pod, if one is ready.
    pub fn next(&mut self, now: Timestamp) -> Option<Action> {
        if !self.synced() {
            return None;
        }
        let pod = self.queue.pop(now)?;
        let Some(profile) = profile_of(&self.profiles, &pod) else {
            self.queue.remove(&pod.uid);
            return self.next(now);
        };
        match schedule_one(profile, &self.cache.nodes, &pod, &mut self.start, &mut *self.ties) {
            Decision::Node { slot, .. } => {
                let node = self.cache.nodes.name(slot).to_owned();
                if let Some(reason) = reserve(profile, &pod, &node) {
                    self.queue.failed(&pod.uid, now);
                    return Some(Action::Report { pod, message: reason });
                }
                self.cache.assume(&pod, slot);
                Some(Action::Bind { pod, node })
            }
            Decision::Unschedulable(rejected) => {
                let post = profile.post_filters.iter().find_map(|p| p.post_filter(&pod, &rejected));
                let message = message(&rejected, post.as_deref());
                self.queue.unschedulable(&pod.uid, rejected.plugins, now);
                Some(Action::Report { pod, message })
            }
        }
    }

    /// When to call [`Engine::tick`] although nothing happened.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.queue.deadline()
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Timestamp) {
        self.queue.flush(now);
        for uid in self.cache.expire(now) {
            self.queue.failed(&uid, now);
        }
    }

    /// Takes back what plugins reserved for a pod whose binding failed.
    pub fn unreserve(&self, pod: &PodInfo, node: &str) {
        if let Some(profile) = profile_of(&self.profiles, pod) {
            profile.reserve.iter().rev().for_each(|p| p.unreserve(pod, node));
        }
    }

    fn replace_nodes(&mut self, nodes: &[Node], kept: &[String], now: Timestamp) {
        let listed = nodes.iter().filter_map(|n| n.metadata.name.as_deref());
        let listed: HashSet<&str> = listed.chain(kept.iter().map(String::as_str)).collect();
        for name in self.cache.node_names() {
            if !listed.contains(name.as_str()) {
                self.cache.remove_node(&name);
            }
        }
        for node in nodes {
            self.cache.upsert_node(node);
        }
        self.nodes_synced = true;
        self.queue.changed(now, |_, _| true);
    }

    fn node_changed(&mut self, node: &Node, now: Timestamp) {
        let slot = self.cache.upsert_node(node);
        self.freed(Some(slot), now);
    }

    /// Pods that what refused them would let on this node now are tried again, others are not.
    fn freed(&mut self, slot: Option<Slot>, now: Timestamp) {
        let Some(slot) = slot else { return };
        let (profiles, nodes) = (&self.profiles, &self.cache.nodes);
        self.queue.changed(now, |pod, by| profile_of(profiles, pod).is_some_and(|p| hint(p, nodes, pod, slot, by)));
    }

    fn replace_pods(&mut self, pods: Vec<PodInfo>, kept: &[PodUid], now: Timestamp) {
        let listed: HashSet<PodUid> = pods.iter().map(|p| p.uid.clone()).chain(kept.iter().cloned()).collect();
        for uid in self.cache.confirmed().into_iter().chain(self.queue.uids()) {
            if !listed.contains(&uid) {
                self.pod_gone(&uid, now);
            }
        }
        for pod in pods {
            self.pod_changed(pod, now);
        }
        self.pods_synced = true;
    }

    fn pod_changed(&mut self, pod: PodInfo, now: Timestamp) {
        if pod.terminal {
            return self.pod_gone(&pod.uid, now);
        }
        if pod.node.is_some() {
            self.queue.remove(&pod.uid);
            let freed = self.cache.pod_seen(&pod);
            return self.freed(freed, now);
        }
        let Some(profile) = profile_of(&self.profiles, &pod) else { return };
        if pod.deleting {
            self.queue.remove(&pod.uid);
            return;
        }
        // A late event of a pod we have just decided about.
        if self.cache.contains(&pod.uid) && !self.queue.contains(&pod.uid) {
            return;
        }
        let gated = profile.pre_enqueue.iter().any(|p| p.pre_enqueue(&pod).is_err());
        self.queue.upsert(Arc::new(pod), gated, now);
    }

    fn pod_gone(&mut self, uid: &PodUid, now: Timestamp) {
        self.queue.remove(uid);
        let freed = self.cache.pod_gone(uid);
        self.freed(freed, now);
    }
}

fn profile_of<'a>(profiles: &'a [Profile], pod: &PodInfo) -> Option<&'a Profile> {
    profiles.iter().find(|p| p.scheduler_name == pod.scheduler_name)
}

/// Runs Reserve and Permit; the reason of a refusal.
fn reserve(profile: &Profile, pod: &PodInfo, node: &str) -> Option<String> {
    for (done, plugin) in profile.reserve.iter().enumerate() {
        if let Permit::Reject(reason) = plugin.reserve(pod, node) {
            profile.reserve[..=done].iter().rev().for_each(|p| p.unreserve(pod, node));
            return Some(reason);
        }
    }
    None
}

#[cfg(test)]
mod tests;

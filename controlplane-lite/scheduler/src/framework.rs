//! The scheduling framework: extension points as traits, under upstream's names.
//! A plugin compiles a pod against the nodes once per cycle (PreFilter, PreScore)
//! into a small object that is then asked per node (Filter, Score). Pure.

use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::Arc;

use super::nodes::{Nodes, Slot};
use super::pod::PodInfo;

/// The largest score of a node.
pub const MAX_SCORE: i64 = 100;

/// Why a node was refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rejection {
    /// Upstream's text, counted in the message of the pod.
    pub reason: Cow<'static, str>,
    /// Whether evicting pods could never help.
    pub unresolvable: bool,
}

impl Rejection {
    /// Evicting pods may help.
    pub const fn unschedulable(reason: &'static str) -> Self {
        Self { reason: Cow::Borrowed(reason), unresolvable: false }
    }

    /// Evicting pods cannot help.
    pub const fn unresolvable(reason: &'static str) -> Self {
        Self { reason: Cow::Borrowed(reason), unresolvable: true }
    }
}

/// A pod compiled for filtering.
pub trait NodeFilter {
    /// Whether the pod may run on the node. Reasons go to `why`.
    fn filter(&self, node: Slot, why: &mut Vec<Rejection>) -> bool;
}

/// The result of PreFilter.
pub enum PreFilter<'a> {
    /// The plugin has nothing to say about this pod.
    Skip,
    /// Ask per node.
    Filter(Box<dyn NodeFilter + 'a>),
    /// Only these nodes come into question; ask per node as well if given.
    Only(Vec<Slot>, Option<Box<dyn NodeFilter + 'a>>),
    /// The pod can run nowhere.
    Reject(Rejection),
}

impl Debug for PreFilter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Skip => "Skip",
            Self::Filter(_) => "Filter",
            Self::Only(..) => "Only",
            Self::Reject(_) => "Reject",
        })
    }
}

/// PreFilter and Filter.
pub trait FilterPlugin: Debug + Send + Sync {
    /// Upstream's name.
    fn name(&self) -> &'static str;
    /// Compiles the pod.
    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, nodes: &'a Nodes) -> PreFilter<'a>;
}

/// A pod compiled for scoring.
pub trait NodeScore {
    /// The raw score of a node.
    fn score(&self, node: Slot) -> i64;
    /// Brings raw scores into 0..=100.
    fn normalize(&self, _scores: &mut [i64]) {}
}

/// PreScore, Score and NormalizeScore.
pub trait ScorePlugin: Debug + Send + Sync {
    /// Upstream's name.
    fn name(&self) -> &'static str;
    /// Compiles the pod; `None` skips the plugin.
    fn pre_score<'a>(
        &'a self,
        pod: &'a PodInfo,
        nodes: &'a Nodes,
        feasible: &[Slot],
    ) -> Option<Box<dyn NodeScore + 'a>>;
}

/// PreEnqueue: whether a pod may enter the queue at all.
pub trait PreEnqueuePlugin: Debug + Send + Sync {
    /// Upstream's name.
    fn name(&self) -> &'static str;
    /// `Err` with the message that holds the pod back.
    ///
    /// # Errors
    /// The reason, as the pod's condition shows it.
    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), String>;
}

/// QueueSort: which of the waiting pods is tried first.
pub trait QueueSortPlugin: Debug + Send + Sync {
    /// Upstream's name.
    fn name(&self) -> &'static str;
    /// The rank of a pod: smaller first, the longer waiting first among equals.
    fn rank(&self, pod: &PodInfo) -> i64;
}

/// PostFilter: what to do when no node fits. The door for preemption.
pub trait PostFilterPlugin: Debug + Send + Sync {
    /// Upstream's name.
    fn name(&self) -> &'static str;
    /// The text appended to the pod's message.
    fn post_filter(&self, pod: &PodInfo, rejected: &Rejected) -> Option<String>;
}

/// The answer of a Permit plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permit {
    /// Go on.
    Allow,
    /// Back to the queue, with this reason.
    Reject(String),
}

/// Reserve and Permit: called once a node is chosen, before the pod is bound.
pub trait ReservePlugin: Debug + Send + Sync {
    /// Upstream's name.
    fn name(&self) -> &'static str;
    /// Takes what the pod needs on the node, or refuses.
    fn reserve(&self, pod: &PodInfo, node: &str) -> Permit;
    /// Gives it back; called for each plugin when a later step fails.
    fn unreserve(&self, pod: &PodInfo, node: &str);
}

/// How many nodes said no, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rejected {
    /// All nodes there are.
    pub nodes: usize,
    /// Reasons with their counts, ordered by reason.
    pub reasons: std::collections::BTreeMap<String, usize>,
    /// Plugins that said no.
    pub plugins: std::collections::BTreeSet<&'static str>,
    /// Nodes where evicting pods could not help.
    pub unresolvable: usize,
    /// A reason that concerns the pod itself, not nodes.
    pub pod_reason: Option<String>,
}

/// A scheduler name with its plugins.
#[derive(Debug, Clone)]
pub struct Profile {
    /// `spec.schedulerName` it answers to.
    pub scheduler_name: String,
    /// Order of the queue (equal in all profiles).
    pub queue_sort: Arc<dyn QueueSortPlugin>,
    /// Gates.
    pub pre_enqueue: Vec<Arc<dyn PreEnqueuePlugin>>,
    /// Filters in order.
    pub filters: Vec<Arc<dyn FilterPlugin>>,
    /// What happens when nothing fits.
    pub post_filters: Vec<Arc<dyn PostFilterPlugin>>,
    /// Scores with weights.
    pub scores: Vec<(Arc<dyn ScorePlugin>, i64)>,
    /// Reservations.
    pub reserve: Vec<Arc<dyn ReservePlugin>>,
    /// Share of nodes to find before scoring, 0 for adaptive, 100 for all.
    pub percentage_of_nodes_to_score: u8,
}

/// Scales raw scores so that the largest becomes 100; `reverse` turns them round.
pub fn default_normalize(scores: &mut [i64], reverse: bool) {
    let max = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let scaled = if max == 0 { 0 } else { MAX_SCORE * *score / max };
        *score = if reverse { MAX_SCORE - scaled } else { scaled };
    }
}

//! The default set of plugins with upstream's weights. Pure.

use std::sync::Arc;

use super::framework::{FilterPlugin, PostFilterPlugin, PreEnqueuePlugin, Profile, ScorePlugin};
use super::plugins::affinity::NodeAffinity;
use super::plugins::basic::{NodeName, NodePorts, NodeUnschedulable, PrioritySort, SchedulingGates};
use super::plugins::image::ImageLocality;
use super::plugins::preemption::DefaultPreemption;
use super::plugins::resources::{NodeResourcesBalancedAllocation, NodeResourcesFit};
use super::plugins::taints::TaintToleration;

/// The name pods ask for by default.
pub const DEFAULT_SCHEDULER_NAME: &str = "default-scheduler";

/// Arguments of plugins.
#[derive(Debug, Clone, Default)]
pub struct PluginArgs {
    /// NodeResourcesFit.
    pub fit: NodeResourcesFit,
    /// NodeResourcesBalancedAllocation.
    pub balanced: NodeResourcesBalancedAllocation,
}

/// Every filter, in upstream's order.
pub fn filters(args: &PluginArgs) -> Vec<Arc<dyn FilterPlugin>> {
    vec![
        Arc::new(NodeUnschedulable),
        Arc::new(NodeName),
        Arc::new(TaintToleration),
        Arc::new(NodeAffinity),
        Arc::new(NodePorts),
        Arc::new(args.fit.clone()),
    ]
}

/// Every score with its default weight.
pub fn scores(args: &PluginArgs) -> Vec<(Arc<dyn ScorePlugin>, i64)> {
    vec![
        (Arc::new(TaintToleration) as Arc<dyn ScorePlugin>, 3),
        (Arc::new(NodeAffinity), 2),
        (Arc::new(args.fit.clone()), 1),
        (Arc::new(args.balanced.clone()), 1),
        (Arc::new(ImageLocality), 1),
    ]
}

/// Every gate.
pub fn pre_enqueue() -> Vec<Arc<dyn PreEnqueuePlugin>> {
    vec![Arc::new(SchedulingGates)]
}

/// Every PostFilter.
pub fn post_filters() -> Vec<Arc<dyn PostFilterPlugin>> {
    vec![Arc::new(DefaultPreemption)]
}

/// The default profile under a name.
pub fn default_profile(scheduler_name: &str, args: &PluginArgs) -> Profile {
    Profile {
        scheduler_name: scheduler_name.to_owned(),
        queue_sort: Arc::new(PrioritySort),
        pre_enqueue: pre_enqueue(),
        filters: filters(args),
        post_filters: post_filters(),
        scores: scores(args),
        reserve: Vec::new(),
        percentage_of_nodes_to_score: 0,
    }
}

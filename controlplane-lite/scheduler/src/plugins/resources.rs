//! NodeResourcesFit with its scoring strategies, and
//! NodeResourcesBalancedAllocation. Pure.

use std::borrow::Cow;

use crate::framework::{FilterPlugin, MAX_SCORE, NodeFilter, NodeScore, PreFilter, Rejection, ScorePlugin};
use crate::nodes::{CPU, EPHEMERAL, MEMORY, Nodes, PODS, Slot};
use crate::pod::PodInfo;

/// How NodeResourcesFit scores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Strategy {
    /// The emptier the better.
    LeastAllocated,
    /// The fuller the better.
    MostAllocated,
    /// By a curve of (utilization in percent, score of 0 to 10).
    RequestedToCapacityRatio(Vec<(i64, i64)>),
}

/// Fits requests into what is allocatable.
#[derive(Debug, Clone)]
pub struct NodeResourcesFit {
    /// Scoring strategy.
    pub strategy: Strategy,
    /// Scored resources with weights.
    pub resources: Vec<(String, i64)>,
}

impl Default for NodeResourcesFit {
    fn default() -> Self {
        Self { strategy: Strategy::LeastAllocated, resources: default_resources() }
    }
}

/// CPU and memory, one each.
pub fn default_resources() -> Vec<(String, i64)> {
    vec![("cpu".to_owned(), 1), ("memory".to_owned(), 1)]
}

struct Fit<'a> {
    nodes: &'a Nodes,
    /// (column, amount) of what the pod asks for.
    wants: Vec<(usize, i64)>,
    /// Resources no node has.
    unknown: Vec<&'a str>,
}

impl FilterPlugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, nodes: &'a Nodes) -> PreFilter<'a> {
        let exact = &pod.requests.exact;
        let fixed = [(CPU, exact.cpu), (MEMORY, exact.memory), (EPHEMERAL, exact.ephemeral)];
        let mut wants: Vec<(usize, i64)> = fixed.into_iter().filter(|(_, amount)| *amount > 0).collect();
        let mut unknown = Vec::new();
        for (name, amount) in exact.scalars.iter().filter(|(_, amount)| *amount > 0) {
            match nodes.find_column(name) {
                Some(column) => wants.push((column, *amount)),
                None => unknown.push(name.as_str()),
            }
        }
        PreFilter::Filter(Box::new(Fit { nodes, wants, unknown }))
    }
}

impl NodeFilter for Fit<'_> {
    fn filter(&self, node: Slot, why: &mut Vec<Rejection>) -> bool {
        let before = why.len();
        let pods = &self.nodes.columns[PODS];
        if pods.requested[node] + 1 > pods.allocatable[node] {
            why.push(Rejection::unschedulable("Too many pods"));
        }
        for (column, amount) in &self.wants {
            let column = &self.nodes.columns[*column];
            if *amount > column.allocatable[node] - column.requested[node] {
                why.push(insufficient(&column.name, *amount > column.allocatable[node]));
            }
        }
        why.extend(self.unknown.iter().map(|name| insufficient(name, true)));
        why.len() == before
    }
}

fn insufficient(name: &str, unresolvable: bool) -> Rejection {
    let reason = match name {
        "cpu" => Cow::Borrowed("Insufficient cpu"),
        "memory" => Cow::Borrowed("Insufficient memory"),
        "ephemeral-storage" => Cow::Borrowed("Insufficient ephemeral-storage"),
        other => Cow::Owned(format!("Insufficient {other}")),
    };
    Rejection { reason, unresolvable }
}

struct Allocation<'a> {
    nodes: &'a Nodes,
    strategy: &'a Strategy,
    /// (column, amount of the pod, weight).
    resources: Vec<(usize, i64, i64)>,
}

/// Columns of the scored resources that count for this pod, with its amounts.
fn scored(resources: &[(String, i64)], pod: &PodInfo, nodes: &Nodes, defaults: bool) -> Vec<(usize, i64, i64)> {
    let exact = &pod.requests.exact;
    let amount = |name: &str| match name {
        "cpu" if defaults => Some(pod.requests.nonzero_cpu),
        "memory" if defaults => Some(pod.requests.nonzero_memory),
        "cpu" => Some(exact.cpu),
        "memory" => Some(exact.memory),
        "ephemeral-storage" => Some(exact.ephemeral),
        // An extended resource counts only for pods that ask for it.
        other => exact.scalars.iter().find(|(n, a)| n == other && *a > 0).map(|(_, a)| *a),
    };
    let find = |(name, weight): &(String, i64)| Some((nodes.find_column(name)?, amount(name)?, *weight));
    resources.iter().filter_map(find).collect()
}

impl ScorePlugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn pre_score<'a>(
        &'a self,
        pod: &'a PodInfo,
        nodes: &'a Nodes,
        _feasible: &[Slot],
    ) -> Option<Box<dyn NodeScore + 'a>> {
        let resources = scored(&self.resources, pod, nodes, true);
        Some(Box::new(Allocation { nodes, strategy: &self.strategy, resources }))
    }
}

impl NodeScore for Allocation<'_> {
    fn score(&self, node: Slot) -> i64 {
        let (mut sum, mut weights) = (0, 0);
        for (column, amount, weight) in &self.resources {
            let capacity = self.nodes.columns[*column].allocatable[node];
            if capacity == 0 {
                continue;
            }
            let used = match *column {
                CPU => self.nodes.nonzero_cpu[node],
                MEMORY => self.nodes.nonzero_memory[node],
                other => self.nodes.columns[other].requested[node],
            };
            let score = resource_score(self.strategy, used.saturating_add(*amount), capacity);
            // A curve that gives nothing for a resource leaves it out, as upstream.
            if score > 0 || !matches!(self.strategy, Strategy::RequestedToCapacityRatio(_)) {
                sum += score * weight;
                weights += weight;
            }
        }
        if weights == 0 { 0 } else { sum / weights }
    }
}

fn resource_score(strategy: &Strategy, requested: i64, capacity: i64) -> i64 {
    let percent = |part: i64| i64::try_from(i128::from(part) * 100 / i128::from(capacity)).unwrap_or(0);
    match strategy {
        Strategy::LeastAllocated if requested > capacity => 0,
        Strategy::LeastAllocated => percent(capacity - requested),
        Strategy::MostAllocated => percent(requested.min(capacity)),
        Strategy::RequestedToCapacityRatio(shape) => curve(shape, percent(requested).min(100)),
    }
}

/// Linear between the points of the curve, flat outside them; scores times ten.
fn curve(shape: &[(i64, i64)], utilization: i64) -> i64 {
    let scale = MAX_SCORE / 10;
    let Some(after) = shape.iter().position(|(u, _)| utilization <= *u) else {
        return shape.last().map_or(0, |(_, s)| s * scale);
    };
    let (u1, s1) = shape[after];
    if after == 0 {
        return s1 * scale;
    }
    let (u0, s0) = shape[after - 1];
    s0 * scale + (s1 - s0) * scale * (utilization - u0) / (u1 - u0).max(1)
}

/// Prefers nodes whose resources are used evenly.
#[derive(Debug, Clone)]
pub struct NodeResourcesBalancedAllocation {
    /// Resources to balance.
    pub resources: Vec<(String, i64)>,
}

impl Default for NodeResourcesBalancedAllocation {
    fn default() -> Self {
        Self { resources: default_resources() }
    }
}

struct Balance<'a> {
    nodes: &'a Nodes,
    resources: Vec<(usize, i64, i64)>,
}

impl ScorePlugin for NodeResourcesBalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn pre_score<'a>(
        &'a self,
        pod: &'a PodInfo,
        nodes: &'a Nodes,
        _feasible: &[Slot],
    ) -> Option<Box<dyn NodeScore + 'a>> {
        let resources = scored(&self.resources, pod, nodes, false);
        // A pod that asks for nothing changes no balance.
        resources.iter().any(|(_, amount, _)| *amount > 0).then(|| Box::new(Balance { nodes, resources }) as _)
    }
}

impl NodeScore for Balance<'_> {
    // Amounts of one node are far below 2^52, and the result lies in 0..=100.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    fn score(&self, node: Slot) -> i64 {
        let (mut sum, mut squares, mut n) = (0.0, 0.0, 0.0);
        for (column, amount, _) in &self.resources {
            let column = &self.nodes.columns[*column];
            if column.allocatable[node] == 0 {
                continue;
            }
            let used = (column.requested[node] + amount) as f64 / column.allocatable[node] as f64;
            let used = used.min(1.0);
            sum += used;
            squares += used * used;
            n += 1.0;
        }
        if n < 2.0 {
            return MAX_SCORE;
        }
        let mean: f64 = sum / n;
        let deviation = (squares / n - mean * mean).max(0.0).sqrt();
        ((1.0 - deviation) * MAX_SCORE as f64) as i64
    }
}

//! One scheduling cycle: which node a pod goes to, or why it goes nowhere. Pure.

use std::collections::BTreeSet;

use super::framework::{NodeFilter, NodeScore, PreFilter, Profile, Rejected, Rejection};
use super::nodes::{Nodes, Slot};
use super::pod::PodInfo;

/// Below this many nodes all are looked at.
const MIN_FEASIBLE: usize = 100;
/// The adaptive share never falls below this.
const MIN_PERCENTAGE: usize = 5;

/// Chooses among equals. Injected, so that cycles repeat in tests.
pub trait TieBreak {
    /// A number below `n` (which is at least 1).
    fn pick(&mut self, n: u32) -> u32;
}

/// A small xorshift generator.
#[derive(Debug, Clone)]
pub struct XorShift(u64);

impl XorShift {
    /// Starts from a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }
}

impl TieBreak for XorShift {
    fn pick(&mut self, n: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let high = u32::try_from(self.0 >> 32).unwrap_or(0);
        high % n.max(1)
    }
}

/// What a cycle found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The pod fits.
    Node {
        /// The chosen node.
        slot: Slot,
        /// Nodes looked at.
        evaluated: usize,
        /// Nodes that fit.
        feasible: usize,
    },
    /// It fits nowhere.
    Unschedulable(Box<Rejected>),
}

/// How many feasible nodes are enough, of `nodes` there are; `percentage` 0 is
/// adaptive as upstream: 50 % less one for each 125 nodes, at least 5 %.
pub fn enough_nodes(nodes: usize, percentage: u8) -> usize {
    if nodes < MIN_FEASIBLE {
        return nodes;
    }
    let percentage = match usize::from(percentage) {
        0 => 50_usize.saturating_sub(nodes / 125).max(MIN_PERCENTAGE),
        p => p.min(100),
    };
    (nodes * percentage / 100).max(MIN_FEASIBLE)
}

struct Compiled<'a> {
    filters: Vec<(&'static str, Box<dyn NodeFilter + 'a>)>,
    only: Option<Vec<Slot>>,
}

/// Schedules one pod. `start` is the place in the node order to begin with, and
/// is moved on so that all nodes get their turn.
pub fn schedule_one(
    profile: &Profile,
    nodes: &Nodes,
    pod: &PodInfo,
    start: &mut usize,
    ties: &mut dyn TieBreak,
) -> Decision {
    let compiled = match compile(profile, nodes, pod) {
        Ok(compiled) => compiled,
        Err(rejected) => return Decision::Unschedulable(rejected),
    };
    let (feasible, evaluated, rejected) = find_feasible(profile, nodes, &compiled, start);
    match feasible.as_slice() {
        [] => Decision::Unschedulable(Box::new(rejected)),
        [slot] => Decision::Node { slot: *slot, evaluated, feasible: 1 },
        many => {
            let scores = score(profile, nodes, pod, many);
            let slot = many[select(&scores, ties)];
            Decision::Node { slot, evaluated, feasible: many.len() }
        }
    }
}

/// Whether the plugins that refused the pod (all, when none is named) would let
/// it on this node now: the queueing hint for a changed node.
pub fn hint(profile: &Profile, nodes: &Nodes, pod: &PodInfo, slot: Slot, by: &BTreeSet<&'static str>) -> bool {
    let concerned = |name: &str| by.is_empty() || by.contains(name);
    let Ok(compiled) = compile(profile, nodes, pod) else { return false };
    let mut why = Vec::new();
    let named = !concerned("NodeAffinity") || compiled.only.as_ref().is_none_or(|o| o.contains(&slot));
    named && compiled.filters.iter().all(|(name, f)| !concerned(name) || f.filter(slot, &mut why))
}

fn compile<'a>(profile: &'a Profile, nodes: &'a Nodes, pod: &'a PodInfo) -> Result<Compiled<'a>, Box<Rejected>> {
    let mut compiled = Compiled { filters: Vec::new(), only: None };
    for plugin in &profile.filters {
        match plugin.pre_filter(pod, nodes) {
            PreFilter::Skip => {}
            PreFilter::Filter(filter) => compiled.filters.push((plugin.name(), filter)),
            PreFilter::Only(slots, filter) => {
                let slots = match compiled.only.take() {
                    Some(before) => before.into_iter().filter(|s| slots.contains(s)).collect(),
                    None => slots,
                };
                compiled.only = Some(slots);
                compiled.filters.extend(filter.map(|f| (plugin.name(), f)));
            }
            PreFilter::Reject(rejection) => {
                return Err(Box::new(Rejected {
                    nodes: nodes.len(),
                    plugins: [plugin.name()].into(),
                    unresolvable: nodes.len(),
                    pod_reason: Some(rejection.reason.into_owned()),
                    ..Rejected::default()
                }));
            }
        }
    }
    Ok(compiled)
}

fn find_feasible(
    profile: &Profile,
    nodes: &Nodes,
    compiled: &Compiled<'_>,
    start: &mut usize,
) -> (Vec<Slot>, usize, Rejected) {
    let order = compiled.only.as_deref().unwrap_or_else(|| nodes.order());
    let enough = enough_nodes(order.len(), profile.percentage_of_nodes_to_score);
    let mut rejected = Rejected { nodes: nodes.len(), ..Rejected::default() };
    let mut feasible = Vec::with_capacity(enough);
    let mut why: Vec<Rejection> = Vec::new();
    let mut evaluated = 0;
    let from = if order.is_empty() { 0 } else { *start % order.len() };
    for slot in order[from..].iter().chain(&order[..from]).copied() {
        evaluated += 1;
        match compiled.filters.iter().find(|(_, f)| !f.filter(slot, &mut why)) {
            None => feasible.push(slot),
            Some((plugin, _)) => record(&mut rejected, plugin, &mut why),
        }
        if feasible.len() >= enough {
            break;
        }
    }
    *start = if order.is_empty() { 0 } else { (from + evaluated) % order.len() };
    if feasible.is_empty() && compiled.only.is_some() {
        excluded(&mut rejected, nodes.len() - order.len());
    }
    (feasible, evaluated, rejected)
}

fn record(rejected: &mut Rejected, plugin: &'static str, why: &mut Vec<Rejection>) {
    rejected.plugins.insert(plugin);
    if why.iter().any(|w| w.unresolvable) {
        rejected.unresolvable += 1;
    }
    for rejection in why.drain(..) {
        match rejected.reasons.get_mut(rejection.reason.as_ref()) {
            Some(count) => *count += 1,
            None => {
                rejected.reasons.insert(rejection.reason.into_owned(), 1);
            }
        }
    }
}

/// Nodes a PreFilter has ruled out count as refused by affinity.
fn excluded(rejected: &mut Rejected, count: usize) {
    if count > 0 {
        *rejected.reasons.entry(super::plugins::REASON_AFFINITY.to_owned()).or_default() += count;
        rejected.plugins.insert("NodeAffinity");
        rejected.unresolvable += count;
    }
}

fn score(profile: &Profile, nodes: &Nodes, pod: &PodInfo, feasible: &[Slot]) -> Vec<i64> {
    let mut totals = vec![0_i64; feasible.len()];
    let mut raw = Vec::with_capacity(feasible.len());
    for (plugin, weight) in &profile.scores {
        let Some(compiled) = plugin.pre_score(pod, nodes, feasible) else { continue };
        let scorer: &dyn NodeScore = &*compiled;
        raw.clear();
        raw.extend(feasible.iter().map(|slot| scorer.score(*slot)));
        scorer.normalize(&mut raw);
        for (total, score) in totals.iter_mut().zip(&raw) {
            *total += weight * score;
        }
    }
    totals
}

fn select(scores: &[i64], ties: &mut dyn TieBreak) -> usize {
    let (mut best, mut at, mut equals) = (i64::MIN, 0, 0_u32);
    for (i, score) in scores.iter().enumerate() {
        if *score > best {
            (best, at, equals) = (*score, i, 1);
        } else if *score == best {
            equals += 1;
            if ties.pick(equals) == 0 {
                at = i;
            }
        }
    }
    at
}

/// The message of an unschedulable pod, as upstream words it.
pub fn message(rejected: &Rejected, post_filter: Option<&str>) -> String {
    let mut text = if rejected.nodes == 0 {
        "no nodes available to schedule pods".to_owned()
    } else {
        let mut text = format!("0/{} nodes are available", rejected.nodes);
        let mut parts: Vec<String> = rejected.reasons.iter().map(|(r, n)| format!("{n} {r}")).collect();
        parts.sort();
        parts.extend(rejected.pod_reason.clone());
        text.push_str(": ");
        text.push_str(&parts.join(", "));
        text.push('.');
        text
    };
    if let Some(post) = post_filter.filter(|_| rejected.nodes > 0) {
        text.push(' ');
        text.push_str(post);
    }
    text
}

#[cfg(test)]
mod tests;

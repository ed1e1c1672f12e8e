//! TaintToleration. Each distinct list of taints is judged once per pod. Pure.

use client::tolerations::tolerated;
use k8s_openapi::api::core::v1::Taint;

use crate::framework::{FilterPlugin, NodeFilter, NodeScore, PreFilter, Rejection, ScorePlugin, default_normalize};
use crate::nodes::{Nodes, Slot};
use crate::pod::PodInfo;

/// Filters by NoSchedule and NoExecute taints, scores by PreferNoSchedule ones.
#[derive(Debug)]
pub struct TaintToleration;

struct Refused<'a> {
    nodes: &'a Nodes,
    by_set: Vec<bool>,
}

impl FilterPlugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }
    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, nodes: &'a Nodes) -> PreFilter<'a> {
        let hard = |t: &&Taint| t.effect == "NoSchedule" || t.effect == "NoExecute";
        let refused = |set: &Vec<Taint>| set.iter().filter(hard).any(|t| !tolerated(t, &pod.tolerations));
        let by_set: Vec<bool> = nodes.taint_sets().iter().map(refused).collect();
        if by_set.iter().any(|r| *r) { PreFilter::Filter(Box::new(Refused { nodes, by_set })) } else { PreFilter::Skip }
    }
}

impl NodeFilter for Refused<'_> {
    fn filter(&self, node: Slot, why: &mut Vec<Rejection>) -> bool {
        let refused = self.by_set[self.nodes.taint_set(node).0];
        if refused {
            why.push(Rejection::unresolvable("node(s) had untolerated taint(s)"));
        }
        !refused
    }
}

struct Preference<'a> {
    nodes: &'a Nodes,
    by_set: Vec<i64>,
}

impl ScorePlugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }
    fn pre_score<'a>(
        &'a self,
        pod: &'a PodInfo,
        nodes: &'a Nodes,
        _feasible: &[Slot],
    ) -> Option<Box<dyn NodeScore + 'a>> {
        let soft = |t: &&Taint| t.effect == "PreferNoSchedule";
        let count = |set: &Vec<Taint>| set.iter().filter(soft).filter(|t| !tolerated(t, &pod.tolerations)).count();
        let by_set: Vec<i64> = nodes.taint_sets().iter().map(|s| i64::try_from(count(s)).unwrap_or(i64::MAX)).collect();
        // Nothing to tell nodes apart by: all would score alike.
        by_set.iter().any(|n| *n > 0).then(|| Box::new(Preference { nodes, by_set }) as _)
    }
}

impl NodeScore for Preference<'_> {
    fn score(&self, node: Slot) -> i64 {
        self.by_set[self.nodes.taint_set(node).0]
    }
    fn normalize(&self, scores: &mut [i64]) {
        default_normalize(scores, true);
    }
}

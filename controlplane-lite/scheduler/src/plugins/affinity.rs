//! NodeAffinity: nodeSelector, required and preferred node affinity, compiled to
//! symbols once per pod. Pure.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};

use super::REASON_AFFINITY;
use crate::framework::{FilterPlugin, NodeFilter, NodeScore, PreFilter, Rejection, ScorePlugin, default_normalize};
use crate::nodes::{Nodes, Slot, Symbol};
use crate::pod::PodInfo;

/// The plugin.
#[derive(Debug)]
pub struct NodeAffinity;

enum Expression {
    Const(bool),
    In(Symbol, Vec<Symbol>),
    NotIn(Symbol, Vec<Symbol>),
    Exists(Symbol),
    DoesNotExist(Symbol),
    Greater(Symbol, i64),
    Less(Symbol, i64),
    Named(Vec<String>),
    NotNamed(Vec<String>),
}

/// Expressions that must all hold; a term without any matches nothing.
struct Term(Vec<Expression>);

impl Term {
    fn compile(term: &NodeSelectorTerm, nodes: &Nodes) -> Self {
        let labels = term.match_expressions.iter().flatten().map(|r| expression(r, nodes));
        let fields = term.match_fields.iter().flatten().map(field);
        Self(labels.chain(fields).collect())
    }

    fn matches(&self, node: Slot, nodes: &Nodes) -> bool {
        !self.0.is_empty() && self.0.iter().all(|e| e.matches(node, nodes))
    }
}

impl Expression {
    fn matches(&self, node: Slot, nodes: &Nodes) -> bool {
        let number = |key: &Symbol| nodes.label(node, *key).and_then(|v| nodes.text(v).parse::<i64>().ok());
        match self {
            Self::Const(value) => *value,
            Self::In(key, values) => nodes.label(node, *key).is_some_and(|v| values.contains(&v)),
            Self::NotIn(key, values) => nodes.label(node, *key).is_none_or(|v| !values.contains(&v)),
            Self::Exists(key) => nodes.label(node, *key).is_some(),
            Self::DoesNotExist(key) => nodes.label(node, *key).is_none(),
            Self::Greater(key, than) => number(key).is_some_and(|n| n > *than),
            Self::Less(key, than) => number(key).is_some_and(|n| n < *than),
            Self::Named(names) => names.iter().any(|n| n == nodes.name(node)),
            Self::NotNamed(names) => names.iter().all(|n| n != nodes.name(node)),
        }
    }
}

fn expression(requirement: &NodeSelectorRequirement, nodes: &Nodes) -> Expression {
    let values = || requirement.values.iter().flatten().filter_map(|v| nodes.symbol(v)).collect();
    let number = || requirement.values.as_ref().and_then(|v| v.first()).and_then(|v| v.parse().ok());
    // A key no node has ever had.
    let Some(key) = nodes.symbol(&requirement.key) else {
        return Expression::Const(matches!(requirement.operator.as_str(), "NotIn" | "DoesNotExist"));
    };
    match requirement.operator.as_str() {
        "In" => Expression::In(key, values()),
        "NotIn" => Expression::NotIn(key, values()),
        "Exists" => Expression::Exists(key),
        "DoesNotExist" => Expression::DoesNotExist(key),
        "Gt" => number().map_or(Expression::Const(false), |n| Expression::Greater(key, n)),
        "Lt" => number().map_or(Expression::Const(false), |n| Expression::Less(key, n)),
        _ => Expression::Const(false),
    }
}

fn field(requirement: &NodeSelectorRequirement) -> Expression {
    let names: Vec<String> = requirement.values.clone().unwrap_or_default();
    match (requirement.key.as_str(), requirement.operator.as_str()) {
        ("metadata.name", "In") => Expression::Named(names),
        ("metadata.name", "NotIn") => Expression::NotNamed(names),
        _ => Expression::Const(false),
    }
}

struct Required<'a> {
    nodes: &'a Nodes,
    selector: Vec<Expression>,
    /// One of these must match; `None` when nothing is required.
    terms: Option<Vec<Term>>,
}

impl Required<'_> {
    fn matches(&self, node: Slot) -> bool {
        self.selector.iter().all(|e| e.matches(node, self.nodes))
            && self.terms.as_ref().is_none_or(|terms| terms.iter().any(|t| t.matches(node, self.nodes)))
    }
}

impl NodeFilter for Required<'_> {
    fn filter(&self, node: Slot, why: &mut Vec<Rejection>) -> bool {
        let ok = self.matches(node);
        if !ok {
            why.push(Rejection::unresolvable(REASON_AFFINITY));
        }
        ok
    }
}

impl FilterPlugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, nodes: &'a Nodes) -> PreFilter<'a> {
        let required = pod.node_affinity.as_ref().and_then(|a| {
            a.required_during_scheduling_ignored_during_execution.as_ref().map(|s| &s.node_selector_terms)
        });
        if pod.node_selector.is_empty() && required.is_none() {
            return PreFilter::Skip;
        }
        let equal = |(k, v): (&String, &String)| match (nodes.symbol(k), nodes.symbol(v)) {
            (Some(k), Some(v)) => Expression::In(k, vec![v]),
            _ => Expression::Const(false),
        };
        let selector = pod.node_selector.iter().map(equal).collect();
        let terms = required.map(|terms| terms.iter().map(|t| Term::compile(t, nodes)).collect());
        let filter = Box::new(Required { nodes, selector, terms });
        match required.and_then(|terms| named_nodes(terms)) {
            Some(names) => {
                let slots = names.iter().filter_map(|n| nodes.slot(n)).collect();
                PreFilter::Only(slots, Some(filter))
            }
            None => PreFilter::Filter(filter),
        }
    }
}

/// The nodes that terms name, when every term names its nodes.
fn named_nodes(terms: &[NodeSelectorTerm]) -> Option<Vec<String>> {
    let mut all: Vec<String> = Vec::new();
    for term in terms {
        let mut names: Option<Vec<String>> = None;
        for field in term.match_fields.iter().flatten() {
            if field.key != "metadata.name" || field.operator != "In" {
                continue;
            }
            let values = field.values.clone().unwrap_or_default();
            names = Some(match names {
                Some(before) => before.into_iter().filter(|n| values.contains(n)).collect(),
                None => values,
            });
        }
        for name in names? {
            if !all.contains(&name) {
                all.push(name);
            }
        }
    }
    (!terms.is_empty()).then_some(all)
}

struct Preferred<'a> {
    nodes: &'a Nodes,
    terms: Vec<(i64, Term)>,
}

impl ScorePlugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn pre_score<'a>(
        &'a self,
        pod: &'a PodInfo,
        nodes: &'a Nodes,
        _feasible: &[Slot],
    ) -> Option<Box<dyn NodeScore + 'a>> {
        let preferred = pod.node_affinity.as_ref()?.preferred_during_scheduling_ignored_during_execution.as_ref()?;
        let terms: Vec<_> =
            preferred.iter().map(|p| (i64::from(p.weight), Term::compile(&p.preference, nodes))).collect();
        (!terms.is_empty()).then(|| Box::new(Preferred { nodes, terms }) as _)
    }
}

impl NodeScore for Preferred<'_> {
    fn score(&self, node: Slot) -> i64 {
        self.terms.iter().filter(|(_, t)| t.matches(node, self.nodes)).map(|(w, _)| w).sum()
    }
    fn normalize(&self, scores: &mut [i64]) {
        default_normalize(scores, false);
    }
}

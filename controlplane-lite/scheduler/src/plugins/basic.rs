//! The small plugins: queue order, gates, node name, cordon, host ports. Pure.

use k8s_openapi::api::core::v1::Taint;

use crate::framework::{FilterPlugin, NodeFilter, PreEnqueuePlugin, PreFilter, QueueSortPlugin, Rejection};
use crate::nodes::{Nodes, Slot};
use crate::pod::PodInfo;
use client::tolerations::tolerated;

/// Higher priority first, then the one that waits longer.
#[derive(Debug)]
pub struct PrioritySort;

impl QueueSortPlugin for PrioritySort {
    fn name(&self) -> &'static str {
        "PrioritySort"
    }
    fn rank(&self, pod: &PodInfo) -> i64 {
        -i64::from(pod.priority)
    }
}

/// Holds back pods with `spec.schedulingGates`.
#[derive(Debug)]
pub struct SchedulingGates;

impl PreEnqueuePlugin for SchedulingGates {
    fn name(&self) -> &'static str {
        "SchedulingGates"
    }
    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), String> {
        if pod.gates.is_empty() {
            return Ok(());
        }
        Err(format!("waiting for scheduling gates: [{}]", pod.gates.join(" ")))
    }
}

/// Honours a node name in a pod that still has to be bound.
#[derive(Debug)]
pub struct NodeName;

struct Named(Option<Slot>);

impl FilterPlugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }
    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, nodes: &'a Nodes) -> PreFilter<'a> {
        match &pod.node {
            Some(name) => PreFilter::Filter(Box::new(Named(nodes.slot(name)))),
            None => PreFilter::Skip,
        }
    }
}

impl NodeFilter for Named {
    fn filter(&self, node: Slot, why: &mut Vec<Rejection>) -> bool {
        let ok = self.0 == Some(node);
        if !ok {
            why.push(Rejection::unresolvable("node(s) didn't match the requested node name"));
        }
        ok
    }
}

/// Refuses cordoned nodes, unless the pod bears the taint of cordoning.
#[derive(Debug)]
pub struct NodeUnschedulable;

struct Cordoned<'a>(&'a Nodes);

impl FilterPlugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }
    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, nodes: &'a Nodes) -> PreFilter<'a> {
        let taint = Taint {
            key: "node.kubernetes.io/unschedulable".to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        };
        if tolerated(&taint, &pod.tolerations) { PreFilter::Skip } else { PreFilter::Filter(Box::new(Cordoned(nodes))) }
    }
}

impl NodeFilter for Cordoned<'_> {
    fn filter(&self, node: Slot, why: &mut Vec<Rejection>) -> bool {
        let refused = self.0.unschedulable(node);
        if refused {
            why.push(Rejection::unresolvable("node(s) were unschedulable"));
        }
        !refused
    }
}

/// Keeps two pods from wanting one host port.
#[derive(Debug)]
pub struct NodePorts;

struct Ports<'a>(&'a PodInfo, &'a Nodes);

impl FilterPlugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }
    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, nodes: &'a Nodes) -> PreFilter<'a> {
        if pod.host_ports.is_empty() { PreFilter::Skip } else { PreFilter::Filter(Box::new(Ports(pod, nodes))) }
    }
}

impl NodeFilter for Ports<'_> {
    fn filter(&self, node: Slot, why: &mut Vec<Rejection>) -> bool {
        let taken = self.0.host_ports.iter().any(|want| self.1.ports(node).iter().any(|have| want.conflicts(have)));
        if taken {
            why.push(Rejection::unschedulable("node(s) didn't have free ports for the requested pod ports"));
        }
        !taken
    }
}

//! Which endpoints a Service port uses on this node: readiness, terminating fallback, traffic
//! policies and topology hints, as upstream's `CategorizeEndpoints`. Pure.

use crate::snapshot::{Endpoint, Resolved, ServicePort};

/// This node, as far as choosing endpoints goes.
#[derive(Clone, Copy, Debug)]
pub struct NodeTopology<'a> {
    /// The Node object's name.
    pub node_name: &'a str,
    /// Its zone.
    pub zone: Option<&'a str>,
}

/// Endpoints to use, each list in the order of the input.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Chosen {
    /// For the Cluster traffic policy; empty when nothing of the port uses it.
    pub cluster: Vec<Endpoint>,
    /// For the Local traffic policy; empty when nothing of the port uses it.
    pub local: Vec<Endpoint>,
    /// Whether any endpoint in the whole cluster could be used.
    pub any: bool,
}

fn falls_back(endpoint: &Endpoint) -> bool {
    endpoint.serving && endpoint.terminating
}

/// Whether some frontend of the port uses the Cluster policy. A Local external policy counts: pods
/// and the node itself reach external addresses as if the policy were Cluster.
#[must_use]
pub fn uses_cluster(port: &ServicePort) -> bool {
    !port.internal_local || is_external(port)
}

/// Whether some frontend of the port uses the Local policy.
#[must_use]
pub fn uses_local(port: &ServicePort) -> bool {
    port.internal_local || (port.external_local && is_external(port))
}

fn is_external(port: &ServicePort) -> bool {
    port.node_port != 0 || !port.external_ips.is_empty() || !port.load_balancer_ips.is_empty()
}

/// Chooses the endpoints of one Service port.
#[must_use]
pub fn choose(service: &Resolved, node: NodeTopology<'_>) -> Chosen {
    let endpoints = &service.endpoints;
    let pick =
        |keep: &dyn Fn(&Endpoint) -> bool| -> Vec<Endpoint> { endpoints.iter().filter(|e| keep(e)).cloned().collect() };
    let or_terminating = |keep: &dyn Fn(&Endpoint) -> bool, fallback: &dyn Fn(&Endpoint) -> bool| {
        let ready = pick(keep);
        if ready.is_empty() { pick(fallback) } else { ready }
    };
    let mut chosen = Chosen { any: endpoints.iter().any(|e| e.ready || falls_back(e)), ..Chosen::default() };
    if uses_cluster(&service.port) {
        let near = nearness(endpoints, node);
        chosen.cluster = or_terminating(&|e| e.ready && near.admits(e, node), &falls_back);
    }
    if uses_local(&service.port) {
        chosen.local = or_terminating(&|e| e.ready && e.local, &|e| falls_back(e) && e.local);
    }
    chosen
}

/// Which hints count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nearness {
    Anywhere,
    SameNode,
    SameZone,
}

impl Nearness {
    fn admits(self, endpoint: &Endpoint, node: NodeTopology<'_>) -> bool {
        match self {
            Self::Anywhere => true,
            Self::SameNode => for_node(endpoint, node),
            Self::SameZone => for_zone(endpoint, node),
        }
    }
}

fn for_node(endpoint: &Endpoint, node: NodeTopology<'_>) -> bool {
    endpoint.hints.as_ref().is_some_and(|h| h.nodes.iter().any(|n| **n == *node.node_name))
}

fn for_zone(endpoint: &Endpoint, node: NodeTopology<'_>) -> bool {
    endpoint.hints.as_ref().is_some_and(|h| h.zones.iter().any(|z| Some(&**z) == node.zone))
}

/// Hints count only when every ready endpoint has one and one of them means us: a half-hinted
/// Service would lose endpoints.
fn nearness(endpoints: &[Endpoint], node: NodeTopology<'_>) -> Nearness {
    let ready = || endpoints.iter().filter(|e| e.ready);
    let all = |hinted: fn(&Endpoint) -> bool| ready().all(hinted);
    if all(|e| e.hints.as_ref().is_some_and(|h| !h.nodes.is_empty())) && ready().any(|e| for_node(e, node)) {
        Nearness::SameNode
    } else if all(|e| e.hints.as_ref().is_some_and(|h| !h.zones.is_empty())) && ready().any(|e| for_zone(e, node)) {
        Nearness::SameZone
    } else {
        Nearness::Anywhere
    }
}

#[cfg(test)]
mod tests;

//! One Service port → its fragment. Pure.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::lanes::{Lane, LaneKind};
use super::names::{SetId, affinity_set, port_base, port_chain};
use super::{Fragment, Frontend, NodeView, PortInput, Shared, frontends};
use crate::nft::object::{Key, Name, Value, Verdict};
use crate::nft::statement::{Field, Rule, Side, Statement};
use crate::snapshot::bound::MANY_ADDRESSES;
use crate::snapshot::{Endpoint, ServicePortName};

/// What to compile.
#[derive(Debug)]
pub struct Request<'a> {
    /// The port's name.
    pub name: &'a ServicePortName,
    /// What it asks for, with its endpoints.
    pub input: &'a PortInput,
    /// The frontends it may have; others belong to another Service.
    pub owned: &'a BTreeSet<Frontend>,
    /// Whether it has lanes of its own.
    pub own_lane: bool,
    /// The node.
    pub node: &'a NodeView,
}

/// The key of a frontend in [`SetId::ServiceIps`] or [`SetId::ServiceNodePorts`].
fn frontend_key(frontend: Frontend) -> Key {
    match frontend {
        Frontend::Ip(ip, protocol, port) => Key::new().addr(ip).proto(protocol).port(port),
        Frontend::NodePort(protocol, port) => Key::new().proto(protocol).port(port),
    }
}

/// Compiles one port.
#[must_use]
pub fn fragment(request: &Request<'_>) -> Fragment {
    let mut builder = Builder { request, base: port_base(request.name), fragment: Fragment::default() };
    builder.build();
    builder.fragment
}

/// Whether anything of a port is served by a lane, and not by chains of the port's own.
#[must_use]
pub fn uses_lane(input: &PortInput) -> bool {
    let PortInput { port, chosen } = input;
    let outside = frontends(port).nth(1).is_some();
    port.proxied && chosen.any && port.affinity.is_none() && (!port.internal_local || (outside && !port.external_local))
}

struct Builder<'a> {
    request: &'a Request<'a>,
    base: String,
    fragment: Fragment,
}

impl Builder<'_> {
    fn build(&mut self) {
        let PortInput { port, chosen } = self.request.input;
        self.fragment.shared.push(Shared::ClusterIp(port.cluster_ip));
        if !chosen.any {
            return self.refuse();
        }
        self.hairpin();
        self.internal();
        self.external();
    }

    fn owns(&self, frontend: Frontend) -> bool {
        self.request.owned.contains(&frontend)
    }

    fn ip(&self, ip: Ipv4Addr) -> Frontend {
        let port = &self.request.input.port;
        Frontend::Ip(ip, port.protocol, port.port)
    }

    fn refuse(&mut self) {
        for frontend in self.request.owned {
            let set = match frontend {
                Frontend::Ip(..) => SetId::NoEndpointServices,
                Frontend::NodePort(..) => SetId::NoEndpointNodePorts,
            };
            self.fragment.elements.push((set, frontend_key(*frontend), Value::None));
        }
    }

    fn hairpin(&mut self) {
        let chosen = &self.request.input.chosen;
        let here = chosen.cluster.iter().chain(&chosen.local).filter(|e| e.local || e.node_unknown);
        let addresses: BTreeSet<Ipv4Addr> = here.map(|e| e.addr).collect();
        self.fragment.shared.extend(addresses.into_iter().map(Shared::Hairpin));
    }

    fn internal(&mut self) {
        let PortInput { port, chosen } = self.request.input;
        let frontend = self.ip(port.cluster_ip);
        if !self.owns(frontend) {
            return;
        }
        if port.internal_local {
            let verdict = match self.cascade("local", &chosen.local) {
                Some(chain) => Verdict::Jump(chain),
                None => Verdict::Drop,
            };
            self.dispatch(frontend, verdict);
        } else if port.affinity.is_some() {
            if let Some(chain) = self.cascade("cluster", &chosen.cluster) {
                self.dispatch(frontend, Verdict::Jump(chain));
            }
        } else {
            let chain = self.lane(LaneKind::Cluster, &[frontend]);
            self.dispatch(frontend, Verdict::Jump(chain));
        }
    }

    fn external(&mut self) {
        let port = &self.request.input.port;
        let owned = |frontend: &Frontend| self.request.owned.contains(frontend);
        // An address that is both is a load balancer's: its source ranges must not be got around.
        let balanced: Vec<_> = port.load_balancer_ips.iter().map(|ip| self.ip(*ip)).filter(owned).collect();
        let external = port.external_ips.iter().map(|ip| self.ip(*ip)).filter(owned);
        let guarded: BTreeSet<Frontend> = balanced.iter().copied().collect();
        let external: Vec<_> = external.filter(|f| !guarded.contains(f)).collect();
        let node_port = Some(Frontend::NodePort(port.protocol, port.node_port)).filter(owned);
        let by_address = [external.as_slice(), &balanced].concat();
        if by_address.is_empty() && node_port.is_none() {
            return;
        }
        // In a lane every address has an element for each endpoint.
        let few = by_address.len() <= MANY_ADDRESSES;
        let plain = port.affinity.is_none() && !port.external_local && few;
        let policy = if plain { None } else { Some(self.policy()) };
        let mut target = None;
        if !by_address.is_empty() {
            let chain = policy.clone().unwrap_or_else(|| self.lane(LaneKind::External, &by_address));
            for frontend in &external {
                self.dispatch(*frontend, Verdict::Jump(chain.clone()));
            }
            target = Some(chain);
        }
        if let Some(chain) = target {
            self.balanced(&balanced, &chain);
        }
        if let Some(frontend) = node_port {
            let chain = policy.unwrap_or_else(|| self.lane(LaneKind::NodePort, &[frontend]));
            self.dispatch(frontend, Verdict::Jump(chain));
        }
    }

    /// Load balancer addresses, behind a firewall when there are source ranges.
    fn balanced(&mut self, frontends: &[Frontend], target: &Name) {
        let port = &self.request.input.port;
        let Some(ranges) = port.source_ranges.as_ref().filter(|_| !frontends.is_empty()) else {
            for frontend in frontends {
                self.dispatch(*frontend, Verdict::Jump(target.clone()));
            }
            return;
        };
        let chain = port_chain("firewall", &self.base);
        let goto = || Statement::Verdict(Verdict::Goto(target.clone()));
        let from = |net| Statement::AddrIn { side: Side::Saddr, net, negate: false };
        let mut rules: Vec<Rule> = Vec::new();
        for net in ranges {
            let open = net.prefix_len() == 0;
            rules.push(Rule(if open { vec![goto()] } else { vec![from(*net), goto()] }));
        }
        // A node that may use the address may have the address itself, and then speak from it.
        if self.request.node.node_ips.iter().any(|ip| ranges.iter().any(|net| net.contains(*ip))) {
            for ip in port.load_balancer_ips.iter() {
                rules.push(Rule(vec![from(crate::cidr::Cidr4::host(*ip)), goto()]));
            }
        }
        rules.push(Rule(vec![Statement::Verdict(Verdict::Drop)]));
        self.fragment.chains.push((chain.clone(), rules));
        for frontend in frontends {
            self.dispatch(*frontend, Verdict::Jump(chain.clone()));
        }
    }

    /// The chain that decides between Cluster and Local policy for traffic from outside.
    fn policy(&mut self) -> Name {
        let PortInput { port, chosen } = self.request.input;
        let mark = Statement::SetMark(self.request.node.masquerade_mark);
        let goto = |chain: &Name| Statement::Verdict(Verdict::Goto(chain.clone()));
        let cluster = self.cascade("cluster", &chosen.cluster);
        let mut rules = Vec::new();
        if port.external_local {
            if let Some(cluster) = &cluster {
                // Pods and the node itself are served as if the policy were Cluster.
                for inside in self.request.node.local.inside() {
                    rules.push(Rule(vec![inside, goto(cluster)]));
                }
                rules.push(Rule(vec![Statement::FibLocal(Side::Saddr), mark, goto(cluster)]));
            }
            let local = self.cascade("local", &chosen.local);
            let last = local.map_or(Statement::Verdict(Verdict::Drop), |chain| goto(&chain));
            rules.push(Rule(vec![last]));
        } else if let Some(cluster) = &cluster {
            rules.push(Rule(vec![mark, goto(cluster)]));
        }
        let chain = port_chain("policy", &self.base);
        self.fragment.chains.push((chain.clone(), rules));
        chain
    }

    /// A chain that picks one of `endpoints` in turn, respecting affinity; `None` when there are none.
    fn cascade(&mut self, prefix: &str, endpoints: &[Endpoint]) -> Option<Name> {
        let last = endpoints.last()?;
        let chain = port_chain(prefix, &self.base);
        if self.fragment.chains.iter().any(|(name, _)| *name == chain) {
            return Some(chain);
        }
        let port = &self.request.input.port;
        let protocol = Statement::L4Proto(port.protocol);
        let dnat = |e: &Endpoint| Statement::Dnat { addr: e.addr, port: e.port };
        let mut rules = Vec::new();
        let mut remember = Vec::new();
        if let Some(timeout) = port.affinity {
            for endpoint in endpoints {
                let spec = affinity_set(&self.base, endpoint.addr, endpoint.port);
                let known = Statement::InSet { key: vec![Field::Saddr], set: spec.name.clone() };
                let update = Statement::UpdateSaddr { set: spec.name.clone(), timeout };
                rules.push(Rule(vec![protocol.clone(), known, update.clone(), dnat(endpoint)]));
                remember.push(update);
                if !self.fragment.sets.contains(&spec) {
                    self.fragment.sets.push(spec);
                }
            }
        }
        let count = endpoint_count(endpoints.len());
        for (left, (index, endpoint)) in (1..=count).rev().zip(endpoints.iter().enumerate()) {
            let mut rule = vec![protocol.clone()];
            if left > 1 {
                rule.push(Statement::NumgenInc(left));
            }
            rule.extend(remember.get(index).cloned());
            rule.push(dnat(endpoint));
            rules.push(Rule(rule));
        }
        if !remember.is_empty() {
            // A set that is full ends its rule: serve the client all the same.
            rules.push(Rule(vec![protocol, dnat(last)]));
        }
        self.fragment.chains.push((chain.clone(), rules));
        Some(chain)
    }

    /// A lane for `frontends`, with their endpoints in its map.
    fn lane(&mut self, kind: LaneKind, frontends: &[Frontend]) -> Name {
        let endpoints = &self.request.input.chosen.cluster;
        let own = self.request.own_lane;
        let count = endpoint_count(endpoints.len());
        for frontend in frontends {
            for (index, endpoint) in (0..count).zip(endpoints) {
                let value = Value::Data(Key::new().addr(endpoint.addr).port(endpoint.port));
                self.fragment.elements.push((kind.map(own), frontend_key(*frontend).index(index), value));
            }
        }
        if own {
            let chain = port_chain(kind.own_prefix(), &self.base);
            let rules = kind.rules(count, true, self.request.node.masquerade_mark);
            self.fragment.chains.push((chain.clone(), rules));
            chain
        } else {
            let lane = Lane::shared(kind, count, self.request.name);
            self.fragment.shared.push(Shared::Lane(lane));
            lane.chain()
        }
    }

    fn dispatch(&mut self, frontend: Frontend, verdict: Verdict) {
        let set = match frontend {
            Frontend::Ip(..) => SetId::ServiceIps,
            Frontend::NodePort(..) => SetId::ServiceNodePorts,
        };
        self.fragment.elements.push((set, frontend_key(frontend), Value::Verdict(verdict)));
    }
}

fn endpoint_count(endpoints: usize) -> u32 {
    u32::try_from(endpoints).unwrap_or(u32::MAX)
}

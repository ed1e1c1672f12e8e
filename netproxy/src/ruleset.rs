//! Services → nftables objects. Pure: it is given what each Service port wants and returns what
//! changes in the table; it never looks at the kernel.
//!
//! A Service port becomes a [`Fragment`]; fragments share a few objects (lanes, the sets of
//! ClusterIPs and hairpin addresses) that are counted. The shapes and their reasons:
//!
//! * A packet's destination leads through one verdict map to a *lane*: a chain whose one rule
//!   counts connections and takes the endpoint from a data map, keyed by destination and turn.
//!   Changing an endpoint then changes an element of a data map, which costs the kernel next to
//!   nothing, however many Services there are.
//! * The first [`lanes::OWN_LANES`] ports have lanes of their own and are served in exact turn.
//!   Ports beyond share lanes with others of the same number of endpoints: there every connection
//!   takes any of them, as with upstream's proxy, and shares are even on average.
//! * Session affinity, Local traffic policy and source ranges need rules of their own: such ports
//!   get chains (`cluster-`, `local-`, `policy-`, `firewall-`) in which rule k of N takes every
//!   (N-k)th connection that reaches it, which is exact turn again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::cidr::Cidr4;
use crate::nft::diff::diff;
use crate::nft::object::{Chain, Key, Name, SetSpec, Table, Value};
use crate::nft::statement::{Rule, Side, Statement};
use crate::nft::transaction::Transaction;
use crate::services::NodePortAddresses;
use crate::snapshot::{ServiceName, ServicePort, ServicePortName, State};
use crate::topology::{Chosen, NodeTopology, choose, uses_local};

pub mod base;
pub mod claims;
pub mod lanes;
pub mod names;
pub mod probe;
pub mod service;

use claims::{Claim, Claims, Origin, claims_of};
pub use claims::{Frontend, frontends};
use lanes::{Lane, LaneAllocator};
use names::SetId;

/// This node, as far as the ruleset goes.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// The node's own IPv4 addresses.
    pub node_ips: Vec<Ipv4Addr>,
    /// Which traffic is that of pods, as opposed to that of clients from elsewhere.
    pub local: LocalTraffic,
    /// Where ClusterIPs live.
    pub service_cidrs: Vec<Cidr4>,
    /// Which local addresses accept NodePort traffic.
    pub node_port_addresses: NodePortAddresses,
    /// Masquerade all ClusterIP traffic.
    pub masquerade_all: bool,
    /// Networks of pods whose packets to elsewhere are masqueraded.
    pub masquerade_outbound: Vec<Cidr4>,
    /// The packet mark that asks for masquerade: one bit.
    pub masquerade_mark: u32,
    /// Where cluster DNS answers on this node. That need be no Service's ClusterIP; no other address of a Service may
    /// be it.
    pub dns_address: Option<Ipv4Addr>,
}

/// How traffic of pods is recognised, as upstream's `detectLocalMode` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalTraffic {
    /// It is not: no rule depends on it.
    Undetected,
    /// By its source.
    From(Vec<Cidr4>),
    /// By the link it comes in through.
    Through(Name),
    /// By how the name of that link begins.
    ThroughAny(Name),
}

impl LocalTraffic {
    /// By these networks; by nothing when they are none, or everything.
    #[must_use]
    pub fn from_networks(networks: Vec<Cidr4>) -> Self {
        let all = networks.iter().any(|net| net.prefix_len() == 0);
        if networks.is_empty() || all { Self::Undetected } else { Self::From(networks) }
    }

    /// Matches for local traffic, one rule's beginning each.
    #[must_use]
    pub fn inside(&self) -> Vec<Statement> {
        match self {
            Self::Undetected => Vec::new(),
            Self::From(networks) => networks.iter().map(|net| saddr_in(*net, false)).collect(),
            Self::Through(name) => vec![Statement::IifName { name: name.clone(), prefix: false, negate: false }],
            Self::ThroughAny(name) => vec![Statement::IifName { name: name.clone(), prefix: true, negate: false }],
        }
    }

    /// Matches that together, in one rule, mean traffic from elsewhere; `None` when it cannot be told.
    #[must_use]
    pub fn outside(&self) -> Option<Vec<Statement>> {
        match self {
            Self::Undetected => None,
            Self::From(networks) => Some(networks.iter().map(|net| saddr_in(*net, true)).collect()),
            Self::Through(name) => Some(vec![Statement::IifName { name: name.clone(), prefix: false, negate: true }]),
            Self::ThroughAny(name) => Some(vec![Statement::IifName { name: name.clone(), prefix: true, negate: true }]),
        }
    }
}

fn saddr_in(net: Cidr4, negate: bool) -> Statement {
    Statement::AddrIn { side: Side::Saddr, net, negate }
}

/// One Service port and the endpoints chosen for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortInput {
    /// What it asks for.
    pub port: Arc<ServicePort>,
    /// Which endpoints serve it on this node.
    pub chosen: Chosen,
}

impl PortInput {
    /// The ports of a Service and the endpoints that serve them on this node; none when it is gone.
    #[must_use]
    pub fn of(state: &State, service: &ServiceName, node: NodeTopology<'_>) -> Vec<Self> {
        let resolved = state.resolve(service).into_iter();
        resolved.map(|r| Self { chosen: choose(&r, node), port: r.port }).collect()
    }
}

/// An object several fragments may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Shared {
    /// A lane for several ports.
    Lane(Lane),
    /// An address that may reach itself through a Service.
    Hairpin(Ipv4Addr),
    /// A ClusterIP.
    ClusterIp(Ipv4Addr),
}

/// The objects one Service port is responsible for.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Fragment {
    /// Chains with their rules.
    pub chains: Vec<(Name, Vec<Rule>)>,
    /// Sets of its own (affinity).
    pub sets: Vec<Arc<SetSpec>>,
    /// Elements in common sets that nobody else adds.
    pub elements: Vec<(SetId, Key, Value)>,
    /// Objects it shares.
    pub shared: Vec<Shared>,
}

impl Fragment {
    fn add_to(&self, table: &mut Table) {
        for spec in &self.sets {
            table.declare(spec);
        }
        for (set, key, value) in &self.elements {
            table.declare(set.spec()).elements.insert(*key, value.clone());
        }
        for (name, rules) in &self.chains {
            table.chains.insert(name.clone(), Chain { base: None, rules: rules.clone() });
        }
    }
}

impl Shared {
    fn add_to(self, table: &mut Table, node: &NodeView) {
        match self {
            Self::Lane(lane) => {
                let rules = lane.rules(node.masquerade_mark);
                table.chains.insert(lane.chain(), Chain { base: None, rules });
            }
            Self::Hairpin(addr) => {
                let key = Key::new().addr(addr).addr(addr);
                table.declare(SetId::Hairpin.spec()).elements.insert(key, Value::None);
            }
            Self::ClusterIp(addr) => {
                table.declare(SetId::ClusterIps.spec()).elements.insert(Key::new().addr(addr), Value::None);
            }
        }
    }
}

/// Tells the ports of a Service; none when it is gone.
pub type Lookup<'a> = &'a dyn Fn(&ServiceName) -> Vec<PortInput>;

type NamedPorts = Vec<(ServicePortName, PortInput)>;

#[derive(Debug)]
struct Compiled {
    name: ServicePortName,
    port: Arc<ServicePort>,
    fragment: Fragment,
    /// The Local policy finds no endpoint here, though there are some elsewhere.
    no_local: bool,
}

/// How many ports with a Local traffic policy have endpoints, but none on this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoLocalEndpoints {
    /// With `internalTrafficPolicy: Local`.
    pub internal: u32,
    /// With `externalTrafficPolicy: Local`.
    pub external: u32,
}

/// The ruleset as it stands, able to say what changes when Services change.
#[derive(Debug)]
pub struct Ruleset {
    node: NodeView,
    compiled: HashMap<ServiceName, Vec<Compiled>>,
    claims: Claims,
    shared: HashMap<Shared, u32>,
    lanes: LaneAllocator,
    no_local: NoLocalEndpoints,
}

impl Ruleset {
    /// A ruleset without Services.
    #[must_use]
    pub fn new(node: NodeView) -> Self {
        Self {
            node,
            compiled: HashMap::new(),
            claims: Claims::default(),
            shared: HashMap::new(),
            lanes: LaneAllocator::default(),
            no_local: NoLocalEndpoints::default(),
        }
    }

    /// Recognises pods' traffic otherwise from now on, and masquerades that of other networks; tells whether that is
    /// a change. Then all Services have to be compiled again and the table to be compared as a whole.
    pub fn set_pod_networks(&mut self, local: LocalTraffic, masquerade_outbound: Vec<Cidr4>) -> bool {
        let changed = (&self.node.local, &self.node.masquerade_outbound) != (&local, &masquerade_outbound);
        (self.node.local, self.node.masquerade_outbound) = (local, masquerade_outbound);
        changed
    }

    /// Drops what goes to addresses of these networks that no Service has from now on; tells whether that is a change.
    /// Then the table has to be compared as a whole.
    pub fn set_service_cidrs(&mut self, service_cidrs: Vec<Cidr4>) -> bool {
        let changed = self.node.service_cidrs != service_cidrs;
        self.node.service_cidrs = service_cidrs;
        changed
    }

    /// The whole table.
    #[must_use]
    pub fn table(&self) -> Table {
        let mut table = base::table(&self.node);
        for compiled in self.compiled.values().flatten() {
            compiled.fragment.add_to(&mut table);
        }
        for shared in self.shared.keys() {
            shared.add_to(&mut table, &self.node);
        }
        table
    }

    /// How many ports lack local endpoints they should have.
    #[must_use]
    pub fn no_local_endpoints(&self) -> NoLocalEndpoints {
        self.no_local
    }

    fn count_no_local(&mut self, compiled: &Compiled, one: fn(u32) -> u32) {
        if !compiled.no_local {
            return;
        }
        if compiled.port.internal_local {
            self.no_local.internal = one(self.no_local.internal);
        }
        if compiled.port.external_local && frontends(&compiled.port).nth(1).is_some() {
            self.no_local.external = one(self.no_local.external);
        }
    }

    /// Recompiles the `changed` Services, whose ports `lookup` tells (none: the Service is gone),
    /// and returns what changes in the table.
    pub fn update(&mut self, changed: BTreeSet<ServiceName>, lookup: Lookup<'_>) -> Transaction {
        let mut sides = (Table::default(), Table::default());
        self.recompile(changed, lookup, Some(&mut sides));
        let (mut before, mut after) = sides;
        restrict_to_common_sets(&mut before, &mut after);
        diff(Some(&before.observe()), &after)
    }

    /// The same without saying what changes; for when [`Ruleset::table`] is compared as a whole.
    pub fn absorb(&mut self, changed: BTreeSet<ServiceName>, lookup: Lookup<'_>) {
        self.recompile(changed, lookup, None);
    }

    /// Recompiles; adds what went and what came to `sides`.
    fn recompile(
        &mut self,
        changed: BTreeSet<ServiceName>,
        lookup: Lookup<'_>,
        mut sides: Option<&mut (Table, Table)>,
    ) {
        let mut counts: HashMap<Shared, i64> = HashMap::new();
        let mut changed = changed;
        // What goes leaves lanes to those that waited, which then change, too. None of them is among
        // those that went before: whoever claims a lane while there are any has one.
        while !changed.is_empty() {
            let inputs = self.reclaim_all(changed, lookup);
            self.take_out(&inputs, &mut counts, sides.as_deref_mut());
            self.put_in(inputs, &mut counts, sides.as_deref_mut());
            changed = self.lanes.promote();
        }
        self.count_shared(counts, sides);
    }

    /// Forgets what the Services of `inputs` were compiled to.
    fn take_out(
        &mut self,
        inputs: &BTreeMap<ServiceName, NamedPorts>,
        counts: &mut HashMap<Shared, i64>,
        mut sides: Option<&mut (Table, Table)>,
    ) {
        for (name, ports) in inputs {
            for old in self.compiled.remove(name).unwrap_or_default() {
                self.count_no_local(&old, |n| n.saturating_sub(1));
                if let Some((before, _)) = &mut sides {
                    old.fragment.add_to(before);
                }
                old.fragment.shared.iter().for_each(|s| *counts.entry(*s).or_default() -= 1);
                if !ports.iter().any(|(port, input)| *port == old.name && service::uses_lane(input)) {
                    self.lanes.release(&old.name);
                }
            }
        }
    }

    /// Compiles the Services of `inputs`.
    fn put_in(
        &mut self,
        inputs: BTreeMap<ServiceName, NamedPorts>,
        counts: &mut HashMap<Shared, i64>,
        mut sides: Option<&mut (Table, Table)>,
    ) {
        for (name, ports) in inputs {
            let new: Vec<_> = ports.into_iter().map(|(port, input)| self.compile(port, &input)).collect();
            for compiled in &new {
                self.count_no_local(compiled, |n| n.saturating_add(1));
                if let Some((_, after)) = &mut sides {
                    compiled.fragment.add_to(after);
                }
                compiled.fragment.shared.iter().for_each(|s| *counts.entry(*s).or_default() += 1);
            }
            if !new.is_empty() {
                self.compiled.insert(name, new);
            }
        }
    }

    /// Settles who has which frontend, and returns the inputs of all Services to recompile: a
    /// Service that gives up or takes a frontend changes what others may have.
    fn reclaim_all(&mut self, changed: BTreeSet<ServiceName>, lookup: Lookup<'_>) -> BTreeMap<ServiceName, NamedPorts> {
        let mut inputs: BTreeMap<ServiceName, NamedPorts> = BTreeMap::new();
        let mut queue = changed;
        while let Some(name) = queue.pop_first() {
            if inputs.contains_key(&name) {
                continue;
            }
            let ports = with_names(&name, lookup(&name));
            queue.extend(self.reclaim(&name, &ports).into_iter().filter(|other| *other != name));
            inputs.insert(name, ports);
        }
        inputs
    }

    fn compile(&mut self, name: ServicePortName, input: &PortInput) -> Compiled {
        if !input.port.proxied {
            let port = Arc::clone(&input.port);
            return Compiled { name, port, fragment: Fragment::default(), no_local: false };
        }
        let owned: BTreeSet<Frontend> = frontends(&input.port).filter(|f| self.claims.has(&name, *f)).collect();
        let own_lane = service::uses_lane(input) && self.lanes.claim(&name);
        let request = service::Request { name: &name, input, owned: &owned, own_lane, node: &self.node };
        let fragment = service::fragment(&request);
        let no_local = uses_local(&input.port) && input.chosen.any && input.chosen.local.is_empty();
        Compiled { name, port: Arc::clone(&input.port), fragment, no_local }
    }

    /// Updates who claims which frontend; returns the Services whose share changed.
    fn reclaim(&mut self, name: &ServiceName, ports: &[(ServicePortName, PortInput)]) -> BTreeSet<ServiceName> {
        let had = self.compiled.get(name).into_iter().flatten().flat_map(|c| claims_of(&c.name, &c.port));
        let dns = self.node.dns_address;
        let may = |frontend: &Frontend, claim: &Claim| {
            claim.origin == Origin::Cluster || !matches!(frontend, Frontend::Ip(ip, ..) if Some(*ip) == dns)
        };
        let wanted = ports.iter().flat_map(|(name, input)| claims_of(name, &input.port));
        self.claims.exchange(had, wanted.filter(|(frontend, claim)| may(frontend, claim)))
    }

    fn count_shared(&mut self, counts: HashMap<Shared, i64>, mut sides: Option<&mut (Table, Table)>) {
        for (shared, change) in counts {
            let old = self.shared.get(&shared).copied().unwrap_or(0);
            let new = u32::try_from(i64::from(old) + change).unwrap_or(0);
            if let Some((before, after)) = &mut sides {
                match (old, new) {
                    (1.., 0) => shared.add_to(before, &self.node),
                    (0, 1..) => shared.add_to(after, &self.node),
                    _ => {}
                }
            }
            if new == 0 {
                self.shared.remove(&shared);
            } else {
                self.shared.insert(shared, new);
            }
        }
    }
}

fn with_names(service: &ServiceName, ports: Vec<PortInput>) -> NamedPorts {
    let mut named: Vec<_> = ports
        .into_iter()
        .map(|input| {
            let (port, protocol) = (Arc::clone(&input.port.port_name), input.port.protocol);
            (ServicePortName { service: service.clone(), port, protocol }, input)
        })
        .collect();
    // Two ports of one name and protocol cannot be told apart; the API does not allow them.
    named.sort_by(|a, b| a.0.cmp(&b.0));
    named.dedup_by(|a, b| a.0 == b.0);
    named
}

/// The common sets are always there: declare them on both sides so that only elements differ.
fn restrict_to_common_sets(before: &mut Table, after: &mut Table) {
    for id in SetId::ALL {
        before.declare(id.spec());
        after.declare(id.spec());
    }
}

#[cfg(test)]
mod tests;

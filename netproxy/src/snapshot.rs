//! Services and EndpointSlices as the proxy needs them: compact, shared, updated in place.
//!
//! Owns the fold from watch events to [`State`] and which Services changed since the last sync.
//! Reading Kubernetes objects is `convert`; choosing endpoints is [`crate::topology`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::cidr::Cidr4;
/// A Service's namespace and name.
pub use crate::informer::ObjectName as ServiceName;
pub use crate::nft::object::Protocol;

pub mod bound;
pub mod convert;

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServicePortName {
    /// The Service.
    pub service: ServiceName,
    /// The port's name, empty for the only port of a Service.
    pub port: Arc<str>,
    /// The port's protocol.
    pub protocol: Protocol,
}

impl fmt::Display for ServicePortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.service, self.protocol.as_str(), self.port)
    }
}

/// What one port of a Service asks for. IPv4 only so far; the other family would be a second
/// snapshot with its own table, as upstream has two proxiers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// The port's name, empty for the only port.
    pub port_name: Arc<str>,
    /// The protocol.
    pub protocol: Protocol,
    /// `spec.clusterIP`
    pub cluster_ip: Ipv4Addr,
    /// `spec.ports[].port`
    pub port: u16,
    /// `spec.ports[].nodePort`, 0 for none.
    pub node_port: u16,
    /// Addresses served like the ClusterIP, for clients outside.
    pub external_ips: Arc<[Ipv4Addr]>,
    /// `status.loadBalancer.ingress[].ip` with ipMode VIP.
    pub load_balancer_ips: Arc<[Ipv4Addr]>,
    /// Who may use the load balancer addresses; `None` for everyone.
    pub source_ranges: Option<Vec<Cidr4>>,
    /// Seconds a client stays with its endpoint (ClientIP affinity).
    pub affinity: Option<u32>,
    /// `internalTrafficPolicy: Local`
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local`
    pub external_local: bool,
    /// `spec.healthCheckNodePort`, 0 for none.
    pub health_check_node_port: u16,
    /// Whether it is this proxy that serves it. Another's has its ClusterIP all the same, and nobody else may.
    pub proxied: bool,
}

impl ServicePort {
    /// The only port of a Service that asks for nothing else.
    #[must_use]
    pub fn new(protocol: Protocol, cluster_ip: Ipv4Addr, port: u16) -> Self {
        Self {
            port_name: "".into(),
            protocol,
            cluster_ip,
            port,
            node_port: 0,
            external_ips: Arc::default(),
            load_balancer_ips: Arc::default(),
            source_ranges: None,
            affinity: None,
            internal_local: false,
            external_local: false,
            health_check_node_port: 0,
            proxied: true,
        }
    }
}

/// One address behind a Service port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The address.
    pub addr: Ipv4Addr,
    /// The port.
    pub port: u16,
    /// `conditions.ready`
    pub ready: bool,
    /// `conditions.serving`
    pub serving: bool,
    /// `conditions.terminating`
    pub terminating: bool,
    /// On this node.
    pub local: bool,
    /// On which node is not known: it may be this one.
    pub node_unknown: bool,
    /// Which zones and nodes should use it.
    pub hints: Option<Arc<Hints>>,
}

impl Endpoint {
    /// A ready endpoint on this node. In a [`Slice`] the port stays 0.
    #[must_use]
    pub fn new(addr: Ipv4Addr, port: u16) -> Self {
        Self {
            addr,
            port,
            ready: true,
            serving: true,
            terminating: false,
            local: true,
            node_unknown: false,
            hints: None,
        }
    }
}

/// `endpoints[].hints`
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Hints {
    /// `forZones`
    pub zones: Vec<Box<str>>,
    /// `forNodes`
    pub nodes: Vec<Box<str>>,
}

/// One EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Slice {
    /// Name, protocol and number of each port.
    pub ports: Vec<(Arc<str>, Protocol, u16)>,
    /// Endpoints; their `port` is filled in per Service port.
    pub endpoints: Vec<Endpoint>,
}

impl Slice {
    /// The numbers that a Service port has here.
    fn numbers(&self, port: &ServicePort) -> impl Iterator<Item = u16> {
        let of_port = move |(name, protocol, _): &&(Arc<str>, Protocol, u16)| {
            *name == port.port_name && *protocol == port.protocol
        };
        self.ports.iter().filter(of_port).map(|(_, _, number)| *number)
    }
}

/// A change seen by a watch.
#[derive(Clone, Debug)]
pub enum Change {
    /// A Service; no ports when nobody serves it (headless, ExternalName).
    Service(ServiceName, Vec<ServicePort>),
    /// A Service is gone.
    ServiceGone(ServiceName),
    /// All Services there are have been told.
    ServicesListed,
    /// An EndpointSlice: Service, slice name, content.
    Slice(ServiceName, Arc<str>, Slice),
    /// An EndpointSlice is gone.
    SliceGone(ServiceName, Arc<str>),
    /// All EndpointSlices there are have been told.
    SlicesListed,
    /// The zone this node is in (`topology.kubernetes.io/zone`).
    Zone(Option<Box<str>>),
}

#[derive(Debug, Default)]
struct Entry {
    ports: Vec<Arc<ServicePort>>,
    slices: BTreeMap<Arc<str>, Slice>,
}

impl Entry {
    fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.slices.is_empty()
    }

    /// What of each port is served, and how many of its frontends are not.
    fn fit(&self) -> impl Iterator<Item = (Option<Arc<ServicePort>>, usize)> {
        let mut left = bound::MAX_ELEMENTS;
        self.ports.iter().map(move |port| {
            let of_slice = |slice: &Slice| slice.numbers(port).count() * slice.endpoints.len();
            bound::fit(port, self.slices.values().map(of_slice).sum(), &mut left)
        })
    }
}

/// One Service port with everything behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// What the port asks for.
    pub port: Arc<ServicePort>,
    /// Its endpoints, sorted by address and port, each once.
    pub endpoints: Vec<Endpoint>,
}

/// Everything the proxy knows about the cluster.
#[derive(Debug, Default)]
pub struct State {
    services: BTreeMap<ServiceName, Entry>,
    changed: BTreeSet<ServiceName>,
    services_synced: bool,
    slices_synced: bool,
    zone: Option<Box<str>>,
}

impl State {
    /// Nothing known yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether both watches delivered their first complete list. Before, nothing may be programmed.
    #[must_use]
    pub fn synced(&self) -> bool {
        self.services_synced && self.slices_synced
    }

    /// The zone of this node.
    #[must_use]
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// Folds one change in; tells whether anything differs from before.
    pub fn apply(&mut self, change: Change) -> bool {
        match change {
            Change::Service(name, ports) => self.set_ports(name, ports),
            Change::ServiceGone(name) => self.set_ports(name, Vec::new()),
            Change::ServicesListed => !std::mem::replace(&mut self.services_synced, true),
            Change::Slice(service, slice, content) => self.set_slice(service, slice, Some(content)),
            Change::SliceGone(service, slice) => self.set_slice(service, slice, None),
            Change::SlicesListed => !std::mem::replace(&mut self.slices_synced, true),
            Change::Zone(zone) => {
                let moved = self.zone != zone;
                if moved {
                    self.zone = zone;
                    // Hints may choose other endpoints now.
                    let hinted = self.services.iter().filter(|(_, entry)| has_hints(entry));
                    self.changed.extend(hinted.map(|(name, _)| name.clone()));
                }
                moved
            }
        }
    }

    fn set_ports(&mut self, name: ServiceName, ports: Vec<ServicePort>) -> bool {
        let known = self.services.get(&name).map_or(&[][..], |entry| &entry.ports);
        if known.iter().map(|p| &**p).eq(ports.iter()) {
            return false;
        }
        let entry = self.services.entry(name.clone()).or_default();
        entry.ports = ports.into_iter().map(Arc::new).collect();
        if entry.is_empty() {
            self.services.remove(&name);
        }
        self.changed.insert(name);
        true
    }

    fn set_slice(&mut self, service: ServiceName, slice: Arc<str>, content: Option<Slice>) -> bool {
        let known = self.services.get(&service).and_then(|entry| entry.slices.get(&slice));
        if known == content.as_ref() {
            return false;
        }
        let entry = self.services.entry(service.clone()).or_default();
        match content {
            Some(content) => {
                entry.slices.insert(slice, content);
            }
            None => {
                entry.slices.remove(&slice);
            }
        }
        // Endpoints of a Service that is not ours to serve change nothing.
        let served = !entry.ports.is_empty();
        if entry.is_empty() {
            self.services.remove(&service);
        }
        if served {
            self.changed.insert(service);
        }
        true
    }

    /// The Services that changed since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<ServiceName> {
        std::mem::take(&mut self.changed)
    }

    /// Counts a Service as changed.
    pub fn touch(&mut self, name: ServiceName) {
        self.changed.insert(name);
    }

    /// All Services with at least one port.
    pub fn services(&self) -> impl Iterator<Item = &ServiceName> {
        self.services.iter().filter(|(_, entry)| !entry.ports.is_empty()).map(|(name, _)| name)
    }

    /// The ports of one Service with their endpoints, as far as its share goes ([`bound`]); empty when it is not
    /// served.
    #[must_use]
    pub fn resolve(&self, name: &ServiceName) -> Vec<Resolved> {
        let Some(entry) = self.services.get(name) else { return Vec::new() };
        let fitting = entry.fit().filter_map(|(port, _)| port);
        fitting.map(|port| Resolved { endpoints: endpoints_of(&port, entry.slices.values()), port }).collect()
    }

    /// How many frontends of a Service are not served, because they are too many.
    #[must_use]
    pub fn unserved(&self, name: &ServiceName) -> usize {
        self.services.get(name).map_or(0, |entry| entry.fit().map(|(_, unserved)| unserved).sum())
    }
}

fn has_hints(entry: &Entry) -> bool {
    entry.slices.values().any(|slice| slice.endpoints.iter().any(|e| e.hints.is_some()))
}

/// Endpoints of all slices that have the port, by name and protocol. The same address may stand in
/// two slices while it moves from one to the other: the more useful copy counts.
fn endpoints_of<'a>(port: &ServicePort, slices: impl Iterator<Item = &'a Slice>) -> Vec<Endpoint> {
    let mut found: Vec<Endpoint> = Vec::new();
    for slice in slices {
        for number in slice.numbers(port) {
            found.extend(slice.endpoints.iter().map(|e| Endpoint { port: number, ..e.clone() }));
        }
    }
    found.sort_by_key(|e| (e.addr, e.port, !e.ready, !e.serving, !e.local));
    found.dedup_by_key(|e| (e.addr, e.port));
    found
}

#[cfg(test)]
mod tests;

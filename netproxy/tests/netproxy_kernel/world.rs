//! What a cluster would tell the proxy, made by hand, and the proxy's own code applied to it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use netproxy::backend::NftBackend;
use netproxy::backend::netlink::NetlinkBackend;
use netproxy::nft::diff::diff;
use netproxy::nft::transaction::Transaction;
use netproxy::ruleset::{LocalTraffic, NodeView, PortInput, Ruleset};
use netproxy::services::NodePortAddresses;
use netproxy::snapshot::{Change, Endpoint, Protocol, ServiceName, ServicePort, Slice, State};
use netproxy::topology::NodeTopology;

use crate::net::{NODE_IP, Net, Shape, TARGET_PORT, pod_ip};

pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 100);
pub const PORT: u16 = 80;
pub const NODE_PORT: u16 = 30080;
pub const TOPOLOGY: NodeTopology<'static> = NodeTopology { node_name: "node", zone: None };

pub fn vip() -> SocketAddrV4 {
    SocketAddrV4::new(VIP, PORT)
}

pub fn node_port() -> SocketAddrV4 {
    SocketAddrV4::new(NODE_IP, NODE_PORT)
}

pub fn node_view() -> NodeView {
    NodeView {
        node_ips: vec![NODE_IP],
        local: LocalTraffic::From(vec!["10.42.0.0/16".parse().unwrap()]),
        service_cidrs: vec!["10.43.0.0/16".parse().unwrap()],
        node_port_addresses: NodePortAddresses::AllLocal,
        masquerade_all: false,
        masquerade_outbound: Vec::new(),
        masquerade_mark: 0x4000,
        dns_address: None,
    }
}

pub fn name(text: &str) -> ServiceName {
    ServiceName { namespace: "ns".into(), name: text.into() }
}

pub fn port() -> ServicePort {
    ServicePort { port_name: "p".into(), node_port: NODE_PORT, ..ServicePort::new(Protocol::Tcp, VIP, PORT) }
}

pub fn endpoint(addr: Ipv4Addr) -> Endpoint {
    Endpoint::new(addr, 0)
}

pub fn slice(pods: &[u8]) -> Slice {
    slice_of(pods.iter().map(|pod| endpoint(pod_ip(*pod))).collect())
}

pub fn slice_of(endpoints: Vec<Endpoint>) -> Slice {
    let ports = [Protocol::Tcp, Protocol::Udp].map(|protocol| ("p".into(), protocol, TARGET_PORT));
    Slice { ports: ports.to_vec(), endpoints }
}

/// The proxy without its loop: state, ruleset and a backend in the node's namespace.
pub struct World {
    pub state: State,
    pub ruleset: Ruleset,
}

impl World {
    pub fn new() -> Self {
        Self::with(node_view())
    }

    pub fn with(node: NodeView) -> Self {
        let mut state = State::new();
        state.apply(Change::ServicesListed);
        state.apply(Change::SlicesListed);
        Self { state, ruleset: Ruleset::new(node) }
    }

    pub fn service(&mut self, service: &str, ports: Vec<ServicePort>) {
        self.state.apply(Change::Service(name(service), ports));
    }

    pub fn slice(&mut self, service: &str, content: Slice) {
        self.state.apply(Change::Slice(name(service), "slice".into(), content));
    }

    /// What changes in the table.
    pub fn update(&mut self) -> Transaction {
        let changed = self.state.take_changed();
        let state = &self.state;
        self.ruleset.update(changed, &|name| PortInput::of(state, name, TOPOLOGY))
    }

    /// Makes the kernel equal to the ruleset, whatever it has.
    pub fn adopt(&mut self, backend: &mut impl NftBackend) -> Transaction {
        self.update();
        let listing = backend.list().unwrap();
        let tx = diff(listing.table.as_ref(), &self.ruleset.table());
        backend.run(&tx, listing.generation).unwrap();
        tx
    }
}

/// A network whose node runs one Service over the given pods.
pub struct Served {
    pub net: Net,
    pub world: World,
    pub backend: NetlinkBackend,
}

impl Served {
    pub fn new(pods: u8, port: ServicePort) -> Self {
        Self::shaped(pods, port, Shape::Routed)
    }

    pub fn shaped(pods: u8, port: ServicePort, shape: Shape) -> Self {
        let net = Net::new(pods, shape);
        let backend = net.node.run(|| NetlinkBackend::new().unwrap());
        let mut served = Self { net, world: World::new(), backend };
        served.world.service("svc", vec![port]);
        let all: Vec<u8> = (0..pods).collect();
        served.world.slice("svc", slice(&all));
        served.world.adopt(&mut served.backend);
        served
    }

    /// Writes what changed.
    pub fn sync(&mut self) -> Transaction {
        let tx = self.world.update();
        self.backend.run(&tx, None).unwrap();
        tx
    }

    pub fn endpoints(&mut self, pods: &[u8]) {
        self.world.slice("svc", slice(pods));
        self.sync();
    }
}

pub fn evenly(pods: u8, each: u32) -> BTreeMap<u8, u32> {
    (0..pods).map(|pod| (pod, each)).collect()
}

//! Names of sets and chains. Pure.

use std::hash::Hasher as _;
use std::net::Ipv4Addr;
use std::sync::{Arc, LazyLock};

use crate::nft::object::FieldType::{Index, InetProto, InetService, Ipv4Addr as Addr};
use crate::nft::object::{DataType, FieldType, Name, SetSpec};
use crate::nft::statement::Fnv;
use crate::snapshot::ServicePortName;

/// The sets every table of ours has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SetId {
    /// address . protocol . port → where to go on: ClusterIPs, external and load balancer addresses.
    ServiceIps,
    /// protocol . port → where to go on: NodePorts.
    ServiceNodePorts,
    /// address . protocol . port . turn → endpoint, for ports with lanes of their own.
    Endpoints,
    /// The same for ports that share lanes. Apart, because adding an element costs time for every
    /// rule that uses the map, and there are many lanes of a port's own.
    LaneEndpoints,
    /// protocol . port . turn → endpoint, for NodePorts with lanes of their own.
    NodePortEndpoints,
    /// The same for NodePorts that share lanes.
    NodePortLaneEndpoints,
    /// Virtual addresses and ports to refuse: no endpoints.
    NoEndpointServices,
    /// NodePorts to refuse.
    NoEndpointNodePorts,
    /// All ClusterIPs.
    ClusterIps,
    /// address . address of endpoints that may be on this node.
    Hairpin,
}

static SPECS: LazyLock<[Arc<SetSpec>; 10]> = LazyLock::new(|| {
    SetId::ALL.map(|id| {
        let (name, key, data) = id.declaration();
        Arc::new(SetSpec { name: name.into(), key, data, dynamic: false, size: 0 })
    })
});

type Declaration = (&'static str, &'static [FieldType], DataType);

impl SetId {
    /// All of them, in declaration order.
    pub const ALL: [Self; 10] = [
        Self::ServiceIps,
        Self::ServiceNodePorts,
        Self::Endpoints,
        Self::LaneEndpoints,
        Self::NodePortEndpoints,
        Self::NodePortLaneEndpoints,
        Self::NoEndpointServices,
        Self::NoEndpointNodePorts,
        Self::ClusterIps,
        Self::Hairpin,
    ];

    fn declaration(self) -> Declaration {
        const SERVICE: &[FieldType] = &[Addr, InetProto, InetService];
        const NODE_PORT: &[FieldType] = &[InetProto, InetService];
        const TURN: &[FieldType] = &[Addr, InetProto, InetService, Index];
        const NODE_PORT_TURN: &[FieldType] = &[InetProto, InetService, Index];
        const ENDPOINT: DataType = DataType::Fields(&[Addr, InetService]);
        match self {
            Self::ServiceIps => ("service-ips", SERVICE, DataType::Verdict),
            Self::ServiceNodePorts => ("service-nodeports", NODE_PORT, DataType::Verdict),
            Self::Endpoints => ("endpoints", TURN, ENDPOINT),
            Self::LaneEndpoints => ("lane-endpoints", TURN, ENDPOINT),
            Self::NodePortEndpoints => ("nodeport-endpoints", NODE_PORT_TURN, ENDPOINT),
            Self::NodePortLaneEndpoints => ("nodeport-lane-endpoints", NODE_PORT_TURN, ENDPOINT),
            Self::NoEndpointServices => ("no-endpoint-services", SERVICE, DataType::None),
            Self::NoEndpointNodePorts => ("no-endpoint-nodeports", NODE_PORT, DataType::None),
            Self::ClusterIps => ("cluster-ips", &[Addr], DataType::None),
            Self::Hairpin => ("hairpin", &[Addr, Addr], DataType::None),
        }
    }

    /// The set's declaration.
    #[must_use]
    pub fn spec(self) -> &'static Arc<SetSpec> {
        &SPECS[self as usize]
    }

    /// The set's name.
    #[must_use]
    pub fn name(self) -> Name {
        self.spec().name.clone()
    }
}

/// `namespace/name/protocol/port`, as upstream names its chains (without its hash, which serves
/// to tell truncated names apart). A text nft could not read, or too long a one, gets a hash.
#[must_use]
pub fn port_base(name: &ServicePortName) -> String {
    /// With the longest prefix and an endpoint still within the 128 bytes old kernels allow.
    const MAX: usize = 96;
    let plain = format!("{}/{}/{}/{}", name.service.namespace, name.service.name, name.protocol.as_str(), name.port);
    let readable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '/');
    if plain.len() <= MAX && plain.chars().all(readable) {
        return plain;
    }
    let mut hasher = Fnv::default();
    hasher.write(plain.as_bytes());
    let cleaned: String = plain.chars().map(|c| if readable(c) { c } else { '_' }).take(MAX - 17).collect();
    format!("{:016x}-{cleaned}", hasher.finish())
}

/// A chain of one Service port.
#[must_use]
pub fn port_chain(prefix: &str, base: &str) -> Name {
    format!("{prefix}-{base}").into()
}

/// The set of clients that stay with one endpoint of one Service port.
#[must_use]
pub fn affinity_set(base: &str, addr: Ipv4Addr, port: u16) -> Arc<SetSpec> {
    Arc::new(SetSpec {
        name: format!("affinity-{base}__{addr}/{port}").into(),
        key: &[Addr],
        data: DataType::None,
        dynamic: true,
        // A bound only so that a flood of spoofed sources cannot eat the machine's memory.
        size: 1 << 20,
    })
}

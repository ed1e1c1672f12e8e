//! Host ports → nftables objects: what a container's ports are in the table, and how to get from
//! the table the kernel has to the one the leases ask for. Pure.
//!
//! The table is apart from that of Services, because it is written by short-lived plugins and not
//! by one loop that knows all of it. Its chains stand right behind those of Services in their
//! hooks: a connection that a Service has translated is not looked at again, so a NodePort or an
//! external address wins over a host port, and nothing is masqueraded twice.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, LazyLock};

use super::mapping::HostPort;
use crate::cidr::Cidr4;
use crate::nft::TableName;
use crate::nft::diff::diff;
use crate::nft::object::FieldType::{InetProto, InetService, Ipv4Addr as Addr};
use crate::nft::object::{
    ChainKind, DataType, FieldType, Hook, Key, Name, Observed, Protocol, SetSpec, Table, Value, Verdict,
};
use crate::nft::statement::{Field, Side, Statement};
use crate::nft::transaction::{Op, Transaction};

/// The table host ports live in.
pub const TABLE: TableName = TableName::new("copepod-hostports");

/// Finds the container behind a port of the node; reached from prerouting and output.
const HOSTPORTS: &str = "hostports";
/// Refuses loopback addresses to everybody but the node itself.
const LOOPBACK_CHECK: &str = "loopback-check";

// Services' chains are at -100 and 100.
const DSTNAT: i32 = -99;
const SRCNAT: i32 = 101;
const FILTER: i32 = 0;

/// The sets of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum SetId {
    /// protocol . port → container, on every address of the node.
    Ports,
    /// address . protocol . port → container, on that address alone.
    IpPorts,
    /// address . address of containers that may reach themselves.
    Hairpin,
    /// Addresses of containers with host ports.
    Containers,
}

static SPECS: LazyLock<[Arc<SetSpec>; 4]> = LazyLock::new(|| {
    SetId::ALL.map(|id| {
        let (name, key, data) = id.declaration();
        Arc::new(SetSpec { name: name.into(), key, data, dynamic: false, size: 0 })
    })
});

impl SetId {
    const ALL: [Self; 4] = [Self::Ports, Self::IpPorts, Self::Hairpin, Self::Containers];

    fn declaration(self) -> (&'static str, &'static [FieldType], DataType) {
        const CONTAINER: DataType = DataType::Fields(&[Addr, InetService]);
        match self {
            Self::Ports => ("ports", &[InetProto, InetService], CONTAINER),
            Self::IpPorts => ("ip-ports", &[Addr, InetProto, InetService], CONTAINER),
            Self::Hairpin => ("hairpin", &[Addr, Addr], DataType::None),
            Self::Containers => ("containers", &[Addr], DataType::None),
        }
    }

    fn spec(self) -> &'static Arc<SetSpec> {
        &SPECS[self as usize]
    }

    fn name(self) -> Name {
        self.spec().name.clone()
    }

    /// The container an element is about.
    fn container(self, key: &Key, value: &Value) -> Option<Ipv4Addr> {
        match (self, value) {
            (Self::Ports | Self::IpPorts, Value::Data(data)) => data.as_addr_port().map(|(address, _)| address),
            (Self::Ports | Self::IpPorts, _) => None,
            (Self::Hairpin | Self::Containers, _) => key.component(0).map(Ipv4Addr::from),
        }
    }
}

/// The elements of one container with ports.
fn elements(address: Ipv4Addr, ports: &[HostPort]) -> Vec<(SetId, Key, Value)> {
    if ports.is_empty() {
        return Vec::new();
    }
    let of_port = |port: &HostPort| {
        let (set, key) = match port.host_ip {
            None => (SetId::Ports, Key::new()),
            Some(host_ip) => (SetId::IpPorts, Key::new().addr(host_ip)),
        };
        let container = Value::Data(Key::new().addr(address).port(port.container_port));
        (set, key.proto(port.protocol).port(port.host_port), container)
    };
    let itself = [
        (SetId::Hairpin, Key::new().addr(address).addr(address), Value::None),
        (SetId::Containers, Key::new().addr(address), Value::None),
    ];
    ports.iter().map(of_port).chain(itself).collect()
}

/// Adds one container's ports to a table that is there: elements and nothing else. The kernel
/// refuses it as a whole when the table or a set is missing, or one of the ports is taken.
#[must_use]
pub fn addition(address: Ipv4Addr, ports: &[HostPort]) -> Transaction {
    let elements = elements(address, ports);
    let of_set = |id: SetId| {
        let list = elements.iter().filter(|(set, ..)| *set == id).map(|(_, key, value)| (*key, value.clone()));
        Op::AddElements(Arc::clone(id.spec()), list.collect())
    };
    let ops = SetId::ALL.into_iter().map(of_set);
    let ops = ops.filter(|op| !matches!(op, Op::AddElements(_, list) if list.is_empty()));
    Transaction { ops: ops.collect(), stale_chains: Vec::new() }
}

/// The table with these containers' ports; none on the address where cluster DNS answers.
#[must_use]
pub fn table<'a>(containers: impl IntoIterator<Item = (Ipv4Addr, &'a [HostPort])>, dns: Option<Ipv4Addr>) -> Table {
    let mut table = base(dns);
    for (address, ports) in containers {
        for (set, key, value) in elements(address, ports) {
            table.declare(set.spec()).elements.insert(key, value);
        }
    }
    table
}

/// Whether every element of the container is in the kernel's table.
#[must_use]
pub fn holds(observed: Option<&Observed>, address: Ipv4Addr, ports: &[HostPort]) -> bool {
    elements(address, ports).iter().all(|(set, key, value)| {
        let there = observed.and_then(|observed| observed.sets.get(&set.name()));
        there.is_some_and(|there| there.elements.get(key) == Some(value))
    })
}

/// The ports that lead to each container, by the kernel's table.
#[must_use]
pub fn ports(observed: Option<&Observed>) -> BTreeMap<Ipv4Addr, Vec<HostPort>> {
    let mut ports = BTreeMap::<Ipv4Addr, Vec<HostPort>>::new();
    for (id, skip) in [(SetId::Ports, 0), (SetId::IpPorts, 1)] {
        let set = observed.and_then(|observed| observed.sets.get(&id.name()));
        for (key, value) in set.into_iter().flat_map(|set| &set.elements) {
            let read = || {
                let Value::Data(data) = value else { return None };
                let (container, container_port) = data.as_addr_port()?;
                let [number, ..] = key.component(skip)?;
                let [high, low, ..] = key.component(skip + 1)?;
                let host_ip = if skip == 0 { None } else { Some(Ipv4Addr::from(key.component(0)?)) };
                let (protocol, host_port) = (Protocol::from_number(number)?, u16::from_be_bytes([high, low]));
                Some((container, HostPort { host_ip, protocol, host_port, container_port }))
            };
            if let Some((container, port)) = read() {
                ports.entry(container).or_default().push(port);
            }
        }
    }
    ports.values_mut().for_each(|ports| ports.sort_unstable());
    ports
}

/// Whose elements of the table are one network's: containers with an address within its subnet, and those that its
/// leases name, or named until now. A node's part of the pod network may change under running containers.
#[derive(Clone, Debug)]
pub struct NetworkAddresses {
    /// The network's addresses at present.
    pub subnet: Cidr4,
    /// Addresses that are, or just were, leased.
    pub leased: BTreeSet<Ipv4Addr>,
}

impl NetworkAddresses {
    fn has(&self, container: Ipv4Addr) -> bool {
        self.subnet.contains(container) || self.leased.contains(&container)
    }
}

/// The container of another network, whose leases are not `ours`, that has one of these ports.
#[must_use]
pub fn taken_by(observed: Option<&Observed>, ports: &[HostPort], ours: &NetworkAddresses) -> Option<Ipv4Addr> {
    // The address they would lead to does not matter: keys alone are looked for.
    elements(Ipv4Addr::UNSPECIFIED, ports).iter().find_map(|(id, key, _)| {
        let value = observed?.sets.get(&id.name())?.elements.get(key)?;
        id.container(key, value).filter(|by| !ours.has(*by))
    })
}

/// What makes the kernel's table hold the ports that `desired` (from [`table`]) has, and no other
/// ports of containers that are `ours`. Other containers are of other networks: they stay, and
/// keep a port that is wanted here, too. Nothing is made for nothing: without any port wanted, a
/// table that is missing stays missing.
#[must_use]
pub fn repair(observed: Option<&Observed>, mut desired: Table, ours: &NetworkAddresses) -> Transaction {
    if observed.is_none() && desired.sets.values().all(|set| set.elements.is_empty()) {
        return Transaction::default();
    }
    for id in SetId::ALL {
        let there = observed.and_then(|observed| observed.sets.get(&id.name()));
        let Some(there) = there.filter(|there| there.shape == id.spec().shape()) else { continue };
        let foreign = |(key, value): &(&Key, &Value)| id.container(key, value).is_some_and(|by| !ours.has(by));
        let foreign = there.elements.iter().filter(foreign).map(|(key, value)| (*key, value.clone()));
        desired.declare(id.spec()).elements.extend(foreign);
    }
    diff(observed, &desired)
}

fn base(dns: Option<Ipv4Addr>) -> Table {
    let mut table = Table::default();
    for id in SetId::ALL {
        table.declare(id.spec());
    }
    let jump = |chain: &str| Statement::Verdict(Verdict::Jump(chain.into()));
    // Cluster DNS has an address of its own on the pods' bridge. To the kernel it is the node's like every other; to
    // those who ask there it is a Service's, which no container's port may take.
    let not_dns = dns.map(|address| Statement::AddrIn { side: Side::Daddr, net: Cidr4::host(address), negate: true });
    let local = || not_dns.clone().into_iter().chain([Statement::FibLocal(Side::Daddr), jump(HOSTPORTS)]);
    // What the node sends to its loopback addresses is translated in the output hook; what comes
    // from a link with such an address is nobody's business.
    let mut from_links = vec![loopback(Side::Daddr, true)];
    from_links.extend(local());
    table.add_chain("nat-prerouting", Some((ChainKind::Nat, Hook::Prerouting, DSTNAT)), [from_links]);
    table.add_chain("nat-output", Some((ChainKind::Nat, Hook::Output, DSTNAT)), [local().collect()]);
    table.add_chain("nat-postrouting", Some((ChainKind::Nat, Hook::Postrouting, SRCNAT)), masquerade());
    let check = vec![Statement::CtStateNew, loopback(Side::Daddr, false), jump(LOOPBACK_CHECK)];
    table.add_chain("filter-input", Some((ChainKind::Filter, Hook::Input, FILTER)), [check]);
    let to = |key: &[Field], id: SetId| vec![Statement::DnatMap { key: key.to_vec(), map: id.name() }];
    // An address of its own is more than every address.
    let by_ip = to(&[Field::Daddr, Field::L4Proto, Field::Dport], SetId::IpPorts);
    table.add_chain(HOSTPORTS, None, [by_ip, to(&[Field::L4Proto, Field::Dport], SetId::Ports)]);
    // For 127.0.0.1 to lead to a container the bridge routes loopback addresses. That must not
    // let containers reach what listens on the node's loopback; somebody's translation may.
    let unless = |statement| vec![statement, Statement::Verdict(Verdict::Return)];
    let rest = vec![Statement::Verdict(Verdict::Drop)];
    let rules = [unless(Statement::FibLocal(Side::Saddr)), unless(Statement::CtStatusDnat), rest];
    table.add_chain(LOOPBACK_CHECK, None, rules);
    table
}

fn loopback(side: Side, negate: bool) -> Statement {
    let net = Cidr4::new(Ipv4Addr::new(127, 0, 0, 0), 8).expect("8 is a prefix length");
    Statement::AddrIn { side, net, negate }
}

fn masquerade() -> Vec<Vec<Statement>> {
    let among = |key: &[Field], id: SetId| Statement::InSet { key: key.to_vec(), set: id.name() };
    vec![
        // A container that reached itself must see another source, or it would answer itself directly.
        vec![Statement::CtStatusDnat, among(&[Field::Saddr, Field::Daddr], SetId::Hairpin), Statement::Masquerade],
        // It would take a loopback source for its own.
        vec![
            Statement::CtStatusDnat,
            loopback(Side::Saddr, false),
            among(&[Field::Daddr], SetId::Containers),
            Statement::Masquerade,
        ],
    ]
}

#[cfg(test)]
mod tests;

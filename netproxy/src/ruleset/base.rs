//! What every table has before the first Service: base chains, dispatch, refusal, masquerade. Pure.

use std::net::Ipv4Addr;

use super::NodeView;
use super::lanes::LaneKind;
use super::names::SetId;
use crate::cidr::Cidr4;
use crate::nft::object::{ChainKind, Hook, Protocol, Table, Verdict};
use crate::nft::statement::{Field, RejectWith, Side, Statement};
use crate::services::NodePortAddresses;

/// Dispatches to Services; reached from prerouting and output.
pub const SERVICES: &str = "services";
/// Refuses a packet.
pub const REJECT: &str = "reject-chain";
/// Refuses packets to Services without endpoints.
pub const ENDPOINTS_CHECK: &str = "endpoints-check";
/// Refuses what is still for a ClusterIP after translation: nobody serves that port.
pub const CLUSTER_IPS_CHECK: &str = "cluster-ips-check";

const DSTNAT: i32 = -100;
const SRCNAT: i32 = 100;
const FILTER: i32 = 0;

const SERVICE: [Field; 3] = [Field::Daddr, Field::L4Proto, Field::Dport];
const NODE_PORT: [Field; 2] = [Field::L4Proto, Field::Dport];

fn goto(chain: &str) -> Statement {
    Statement::Verdict(Verdict::Goto(chain.into()))
}

fn jump(chain: &str) -> Statement {
    Statement::Verdict(Verdict::Jump(chain.into()))
}

/// The table without any Service.
#[must_use]
pub fn table(node: &NodeView) -> Table {
    let mut table = Table::default();
    for id in SetId::ALL {
        table.declare(id.spec());
    }
    let mut add = |name, base, rules: Vec<Vec<Statement>>| table.add_chain(name, base, rules);
    let base = |kind, hook, priority| Some((kind, hook, priority));
    let to_services = || vec![vec![jump(SERVICES)]];
    add("nat-prerouting", base(ChainKind::Nat, Hook::Prerouting, DSTNAT), to_services());
    add("nat-output", base(ChainKind::Nat, Hook::Output, DSTNAT), to_services());
    add("nat-postrouting", base(ChainKind::Nat, Hook::Postrouting, SRCNAT), postrouting(node));
    let check = |chain| vec![Statement::CtStateNew, jump(chain)];
    add("filter-input", base(ChainKind::Filter, Hook::Input, FILTER), vec![check(ENDPOINTS_CHECK)]);
    let both = || vec![check(ENDPOINTS_CHECK), check(CLUSTER_IPS_CHECK)];
    add("filter-forward", base(ChainKind::Filter, Hook::Forward, FILTER), both());
    add("filter-output", base(ChainKind::Filter, Hook::Output, FILTER), both());
    add(SERVICES, None, services(node));
    add(ENDPOINTS_CHECK, None, endpoints_check(node));
    add(CLUSTER_IPS_CHECK, None, cluster_ips_check(node));
    // A reset reaches the client at once; ICMP errors are rate-limited by the kernel.
    let tcp = vec![Statement::L4Proto(Protocol::Tcp), Statement::Reject(RejectWith::TcpReset)];
    add(REJECT, None, vec![tcp, vec![Statement::Reject(RejectWith::PortUnreachable)]]);
    table
}

fn services(node: &NodeView) -> Vec<Vec<Statement>> {
    let mut rules = Vec::new();
    // Traffic to ClusterIPs from outside the pods' networks must come back through this node.
    let who = if node.masquerade_all { Some(Vec::new()) } else { node.local.outside() };
    if let Some(who) = who {
        let mut rule = vec![Statement::InSet { key: vec![Field::Daddr], set: SetId::ClusterIps.name() }];
        rule.extend(who);
        rule.push(Statement::SetMark(node.masquerade_mark));
        rules.push(rule);
    }
    rules.push(vec![Statement::Vmap { key: SERVICE.to_vec(), map: SetId::ServiceIps.name() }]);
    // While a commit passes, a packet may meet a lane's old rule and the map's new elements, and
    // find no endpoint for its turn. The first endpoint is there as long as any is.
    let first =
        |kind: LaneKind, own| Statement::DnatMap { key: kind.key(Field::NumgenInc(1)), map: kind.map(own).name() };
    rules.extend([true, false].map(|own| vec![first(LaneKind::Cluster, own)]));
    for local in local_addresses(node) {
        let and = |statement| [local.as_slice(), &[statement]].concat();
        rules.push(and(Statement::Vmap { key: NODE_PORT.to_vec(), map: SetId::ServiceNodePorts.name() }));
        rules.extend([true, false].map(|own| and(first(LaneKind::NodePort, own))));
    }
    rules
}

/// Matches for the addresses that accept NodePort traffic, one rule's beginning each. Loopback is
/// left out: without `route_localnet` the answers could not come back.
fn local_addresses(node: &NodeView) -> Vec<Vec<Statement>> {
    let loopback = Cidr4::new(Ipv4Addr::new(127, 0, 0, 0), 8).expect("8 is a prefix length");
    let no_loopback = Statement::AddrIn { side: Side::Daddr, net: loopback, negate: true };
    let local = Statement::FibLocal(Side::Daddr);
    match &node.node_port_addresses {
        NodePortAddresses::AllLocal => vec![vec![no_loopback, local]],
        NodePortAddresses::Within(nets) => nets
            .iter()
            .map(|net| {
                let mut rule = vec![no_loopback.clone()];
                if net.prefix_len() > 0 {
                    rule.push(Statement::AddrIn { side: Side::Daddr, net: *net, negate: false });
                }
                rule.push(local.clone());
                rule
            })
            .collect(),
    }
}

fn endpoints_check(node: &NodeView) -> Vec<Vec<Statement>> {
    let mut rules =
        vec![vec![Statement::InSet { key: SERVICE.to_vec(), set: SetId::NoEndpointServices.name() }, goto(REJECT)]];
    for mut rule in local_addresses(node) {
        rule.push(Statement::InSet { key: NODE_PORT.to_vec(), set: SetId::NoEndpointNodePorts.name() });
        rule.push(goto(REJECT));
        rules.push(rule);
    }
    rules
}

fn cluster_ips_check(node: &NodeView) -> Vec<Vec<Statement>> {
    let mut rules =
        vec![vec![Statement::InSet { key: vec![Field::Daddr], set: SetId::ClusterIps.name() }, goto(REJECT)]];
    // Addresses no Service has: dropped, as upstream, since one may come any moment.
    // An address of this node among them is somebody's own business: cluster DNS answers there.
    rules.push(vec![Statement::FibLocal(Side::Daddr), Statement::Verdict(Verdict::Return)]);
    for net in node.service_cidrs.iter().filter(|net| net.prefix_len() > 0) {
        let inside = Statement::AddrIn { side: Side::Daddr, net: *net, negate: false };
        rules.push(vec![inside, Statement::Verdict(Verdict::Drop)]);
    }
    rules
}

fn postrouting(node: &NodeView) -> Vec<Vec<Statement>> {
    let mark = node.masquerade_mark;
    let mut rules = vec![
        // An endpoint that reached itself must see another source, or it would answer itself directly.
        vec![
            Statement::CtStatusDnat,
            Statement::InSet { key: vec![Field::Saddr, Field::Daddr], set: SetId::Hairpin.name() },
            Statement::Masquerade,
        ],
        // The mark has done its duty; an encapsulated packet must not carry it on.
        vec![Statement::MarkIsSet(mark), Statement::ClearMark(mark), Statement::Masquerade],
    ];
    if !node.masquerade_outbound.is_empty() {
        // What is for everybody who listens keeps its source (upstream's ipmasq plugin package leaves out 224.0.0.0/4
        // alike): neighbours on the pods' bridge answer to that, and mDNS believes no other.
        for (first, prefix_len) in [(Ipv4Addr::new(224, 0, 0, 0), 4), (Ipv4Addr::BROADCAST, 32)] {
            let net = Cidr4::new(first, prefix_len).expect("both are networks");
            let everybody = Statement::AddrIn { side: Side::Daddr, net, negate: false };
            rules.push(vec![everybody, Statement::Verdict(Verdict::Return)]);
        }
    }
    // Nobody beyond the cluster knows the way to a pod: its packets carry the node's address.
    for net in &node.masquerade_outbound {
        let within = |side, negate| Statement::AddrIn { side, net: *net, negate };
        rules.push(vec![within(Side::Saddr, false), within(Side::Daddr, true), Statement::Masquerade]);
    }
    rules
}

//! What rulesets mean, by tracing packets, and that changes lead where a fresh start leads.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use super::*;
use crate::nft::apply::apply;
use crate::nft::object::Protocol;
use crate::nft::render::{rule_text, table_text};
use crate::snapshot::{Change, Endpoint, Slice, State};
use crate::topology::NodeTopology;
use crate::tracer::{Outcome, Packet, Tracer};

const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
const POD: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 99);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 10);

fn node() -> NodeView {
    NodeView {
        node_ips: vec![NODE],
        local: LocalTraffic::From(vec!["10.42.0.0/16".parse().unwrap()]),
        service_cidrs: vec!["10.43.0.0/16".parse().unwrap()],
        node_port_addresses: NodePortAddresses::AllLocal,
        masquerade_all: false,
        masquerade_outbound: Vec::new(),
        masquerade_mark: 0x4000,
        dns_address: None,
    }
}

fn port() -> ServicePort {
    ServicePort { node_port: 30080, ..ServicePort::new(Protocol::Tcp, VIP, 80) }
}

fn ep(last: u8) -> Endpoint {
    Endpoint::new(Ipv4Addr::new(10, 42, 0, last), 0)
}

fn name(text: &str) -> ServiceName {
    ServiceName { namespace: "ns".into(), name: text.into() }
}

/// A cluster's state with the ruleset that follows it, and the table as changes made it.
struct World {
    state: State,
    ruleset: Ruleset,
    applied: Option<Table>,
}

impl World {
    fn new(node: NodeView) -> Self {
        let ruleset = Ruleset::new(node);
        let applied = Some(ruleset.table());
        Self { state: State::new(), ruleset, applied }
    }

    fn service(&mut self, service: &str, ports: Vec<ServicePort>) -> &mut Self {
        self.state.apply(Change::Service(name(service), ports));
        self
    }

    fn endpoints(&mut self, service: &str, endpoints: Vec<Endpoint>) -> &mut Self {
        let ports = [Protocol::Tcp, Protocol::Udp].map(|p| ("".into(), p, 8080)).to_vec();
        self.state.apply(Change::Slice(name(service), "s".into(), Slice { ports, endpoints }));
        self
    }

    /// Follows the changes and checks that they lead where a fresh start leads.
    fn sync(&mut self) -> Transaction {
        let changed = self.state.take_changed();
        let state = &self.state;
        let topology = NodeTopology { node_name: "node", zone: None };
        let tx = self.ruleset.update(changed, &|name| PortInput::of(state, name, topology));
        apply(&mut self.applied, &tx).unwrap();
        apply(&mut self.applied, &Transaction::delete_chains(&tx.stale_chains)).unwrap();
        let (left, right) = (self.applied.as_ref().unwrap(), self.ruleset.table());
        assert!(*left == right, "changes led to\n{}\nnot to\n{}", table_text(left), table_text(&right));
        tx
    }

    fn tracer(&mut self) -> Tracer {
        self.sync();
        Tracer::new(self.ruleset.table(), &[NODE])
    }
}

fn served(port: ServicePort, endpoints: Vec<Endpoint>) -> World {
    let mut world = World::new(node());
    world.service("svc", vec![port]).endpoints("svc", endpoints);
    world
}

fn to(src: Ipv4Addr, dst: Ipv4Addr, dport: u16) -> Packet {
    Packet { from_node: src == NODE, src, dst, protocol: Protocol::Tcp, dport }
}

fn delivered(last: u8, masqueraded: bool) -> Outcome {
    Outcome::Delivered { to: (Ipv4Addr::new(10, 42, 0, last), 8080), masqueraded }
}

fn count(tracer: &mut Tracer, packet: Packet, packets: u32) -> BTreeMap<Ipv4Addr, u32> {
    let mut counts = BTreeMap::new();
    for _ in 0..packets {
        let Outcome::Delivered { to, .. } = tracer.send(packet) else { panic!("{packet:?} was not delivered") };
        *counts.entry(to.0).or_default() += 1;
    }
    counts
}

#[test]
fn serves_in_turn_and_masquerades_what_must_come_back() {
    let mut tracer = served(port(), vec![ep(1), ep(2), ep(3)]).tracer();
    for (src, dst, dport, masqueraded) in [
        (POD, VIP, 80, false),
        (OUTSIDE, VIP, 80, true),
        (NODE, VIP, 80, true),
        (POD, NODE, 30080, true),
        (OUTSIDE, NODE, 30080, true),
        (NODE, NODE, 30080, true),
    ] {
        let packet = to(src, dst, dport);
        let counts = count(&mut tracer, packet, 299);
        assert!(counts.values().all(|n| (99..=100).contains(n)), "{packet:?}: {counts:?}");
        let Outcome::Delivered { masqueraded: seen, .. } = tracer.send(packet) else { panic!("not delivered") };
        assert_eq!(seen, masqueraded, "{packet:?}");
    }
    // Not ours: other ports, loopback.
    let untouched = |packet: Packet| Outcome::Delivered { to: (packet.dst, packet.dport), masqueraded: false };
    for packet in [to(OUTSIDE, NODE, 30081), to(NODE, Ipv4Addr::LOCALHOST, 30080), to(POD, OUTSIDE, 80)] {
        assert_eq!(tracer.send(packet), untouched(packet));
    }
}

#[test]
fn hairpin_is_masqueraded_for_endpoints_that_may_be_here() {
    let remote = Endpoint { local: false, ..ep(2) };
    let unknown = Endpoint { local: false, node_unknown: true, ..ep(3) };
    let mut tracer = served(port(), vec![ep(1), remote, unknown]).tracer();
    for (last, masqueraded) in [(1, true), (3, true)] {
        let own = (0..3).map(|_| tracer.send(to(Ipv4Addr::new(10, 42, 0, last), VIP, 80)));
        let own: Vec<_> =
            own.filter(|o| matches!(o, Outcome::Delivered { to, .. } if to.0.octets()[3] == last)).collect();
        assert_eq!(own, [delivered(last, masqueraded)]);
    }
}

#[test]
fn refuses_and_drops_like_upstream() {
    let mut world = served(port(), vec![]);
    world.service("other", vec![ServicePort { cluster_ip: Ipv4Addr::new(10, 43, 0, 11), node_port: 0, ..port() }]);
    world.endpoints("other", vec![ep(1)]);
    let mut tracer = world.tracer();
    for src in [POD, NODE, OUTSIDE] {
        assert_eq!(tracer.send(to(src, VIP, 80)), Outcome::Rejected, "no endpoints, from {src}");
        assert_eq!(tracer.send(to(src, NODE, 30080)), Outcome::Rejected, "no endpoints, NodePort, from {src}");
        assert_eq!(tracer.send(to(src, Ipv4Addr::new(10, 43, 0, 11), 81)), Outcome::Rejected, "port, from {src}");
        assert_eq!(tracer.send(to(src, Ipv4Addr::new(10, 43, 0, 12), 80)), Outcome::Dropped, "address, from {src}");
    }
}

#[test]
fn affinity_lasts_as_long_as_it_is_used_and_as_the_endpoint_lives() {
    let mut world = served(ServicePort { affinity: Some(100), ..port() }, vec![ep(1), ep(2), ep(3)]);
    let mut tracer = world.tracer();
    assert_eq!(count(&mut tracer, to(POD, VIP, 80), 300).len(), 1);
    assert_eq!(tracer.send(to(POD, VIP, 80)), delivered(1, false));
    assert_eq!(tracer.send(to(OUTSIDE, NODE, 30080)), delivered(2, true), "another client, another endpoint");
    assert_eq!(tracer.send(to(OUTSIDE, VIP, 80)), delivered(2, true), "affinity is the port's, not the address's");
    tracer.now = 99;
    assert_eq!(tracer.send(to(POD, VIP, 80)), delivered(1, false));
    tracer.now = 198;
    assert_eq!(tracer.send(to(POD, VIP, 80)), delivered(1, false), "use renews it");
    tracer.now = 298;
    assert_eq!(tracer.send(to(POD, VIP, 80)), delivered(3, false), "a new choice");
    world.endpoints("svc", vec![ep(1), ep(2)]).sync();
    tracer.table = world.ruleset.table();
    let counts = count(&mut tracer, to(POD, VIP, 80), 10);
    assert!(counts.len() == 1 && !counts.contains_key(&ep(3).addr), "{counts:?}");
}

#[test]
fn local_policies() {
    let remote = Endpoint { local: false, ..ep(2) };
    let both = ServicePort {
        internal_local: true,
        external_local: true,
        external_ips: [Ipv4Addr::new(198, 51, 100, 1)].into(),
        ..port()
    };
    let mut world = served(both, vec![ep(1), remote.clone()]);
    let mut tracer = world.tracer();
    let external = Ipv4Addr::new(198, 51, 100, 1);
    for (dst, dport) in [(NODE, 30080), (external, 80)] {
        assert_eq!(tracer.send(to(OUTSIDE, dst, dport)), delivered(1, false), "the source is kept");
        assert_eq!(tracer.send(to(OUTSIDE, dst, dport)), delivered(1, false));
        assert_eq!(count(&mut tracer, to(POD, dst, dport), 10).len(), 2, "pods are served by all");
        assert_eq!(count(&mut tracer, to(NODE, dst, dport), 10).len(), 2, "and so is the node");
    }
    assert_eq!(count(&mut tracer, to(POD, VIP, 80), 10), [(ep(1).addr, 10)].into());
    world.endpoints("svc", vec![remote]).sync();
    tracer.table = world.ruleset.table();
    assert_eq!(world.ruleset.no_local_endpoints(), NoLocalEndpoints { internal: 1, external: 1 });
    assert_eq!(tracer.send(to(OUTSIDE, NODE, 30080)), Outcome::Dropped);
    assert_eq!(tracer.send(to(POD, VIP, 80)), Outcome::Dropped);
    assert_eq!(tracer.send(to(POD, NODE, 30080)), delivered(2, false));
    world.service("svc", vec![]).sync();
    assert_eq!(world.ruleset.no_local_endpoints(), NoLocalEndpoints::default());
}

#[test]
fn source_ranges_guard_load_balancer_addresses() {
    let lb = Ipv4Addr::new(198, 51, 100, 1);
    let at = |ranges: &[&str]| {
        let source_ranges = Some(ranges.iter().map(|r| r.parse().unwrap()).collect());
        let guarded = ServicePort { load_balancer_ips: [lb].into(), source_ranges, ..port() };
        served(guarded, vec![ep(1)]).tracer()
    };
    let mut tracer = at(&["203.0.113.0/24"]);
    assert_eq!(tracer.send(to(OUTSIDE, lb, 80)), delivered(1, true));
    assert_eq!(tracer.send(to(POD, lb, 80)), Outcome::Dropped);
    assert_eq!(tracer.send(to(POD, NODE, 30080)), delivered(1, true), "NodePorts are open");
    assert_eq!(at(&["0.0.0.0/0"]).send(to(POD, lb, 80)), delivered(1, true));
    assert_eq!(at(&[]).send(to(OUTSIDE, lb, 80)), Outcome::Dropped, "a list of nothing readable admits nobody");
    let both = ServicePort {
        load_balancer_ips: [lb].into(),
        external_ips: [lb].into(),
        source_ranges: Some(vec!["203.0.113.0/24".parse().unwrap()]),
        ..port()
    };
    let mut tracer = served(both, vec![ep(1)]).tracer();
    assert_eq!(tracer.send(to(OUTSIDE, lb, 80)), delivered(1, true));
    assert_eq!(tracer.send(to(POD, lb, 80)), Outcome::Dropped, "an external address opens no way around");
    let from_vip = Packet { from_node: true, ..to(lb, lb, 80) };
    assert_eq!(at(&["192.0.2.0/24"]).send(from_vip), delivered(1, true), "the node may speak from the address");
}

#[test]
fn node_port_addresses_can_be_narrowed() {
    let within = NodePortAddresses::Within(vec!["192.0.2.0/24".parse().unwrap()]);
    let mut world = World::new(NodeView { node_port_addresses: within, ..node() });
    world.service("svc", vec![port()]).endpoints("svc", vec![ep(1)]).sync();
    let other = Ipv4Addr::new(198, 18, 0, 1);
    let mut tracer = Tracer::new(world.ruleset.table(), &[NODE, other]);
    assert_eq!(tracer.send(to(OUTSIDE, NODE, 30080)), delivered(1, true));
    let untouched = Outcome::Delivered { to: (other, 30080), masqueraded: false };
    assert_eq!(tracer.send(to(OUTSIDE, other, 30080)), untouched);
}

#[test]
fn masquerade_all_masquerades_pods_too() {
    let mut world = World::new(NodeView { masquerade_all: true, ..node() });
    world.service("svc", vec![port()]).endpoints("svc", vec![ep(1)]);
    assert_eq!(world.tracer().send(to(POD, VIP, 80)), delivered(1, true));
    let mut world = World::new(NodeView { local: LocalTraffic::Undetected, ..node() });
    world.service("svc", vec![port()]).endpoints("svc", vec![ep(1)]);
    assert_eq!(world.tracer().send(to(OUTSIDE, VIP, 80)), delivered(1, false));
}

/// By a bridge's name, and by how the names of links begin.
#[test]
fn pods_can_be_told_by_the_link_they_come_through() {
    for (local, link, other) in [
        (LocalTraffic::Through("cni0".into()), "cni0", "cni01"),
        (LocalTraffic::ThroughAny("veth".into()), "vethab", "eth0"),
    ] {
        let mut world = World::new(NodeView { local, ..node() });
        let remote = Endpoint { local: false, ..ep(2) };
        world.service("svc", vec![ServicePort { external_local: true, ..port() }]);
        world.endpoints("svc", vec![ep(1), remote]);
        let mut tracer = world.tracer();
        tracer.links = [(POD, link), (OUTSIDE, other)].into();
        let masqueraded = |tracer: &mut Tracer, src| match tracer.send(to(src, VIP, 80)) {
            Outcome::Delivered { masqueraded, .. } => masqueraded,
            other => panic!("{src}: {other:?}"),
        };
        assert_eq!([POD, OUTSIDE, NODE].map(|src| masqueraded(&mut tracer, src)), [false, true, true], "{link}");
        assert_eq!(count(&mut tracer, to(POD, NODE, 30080), 10).len(), 2, "pods are served as if it were Cluster");
        assert_eq!(count(&mut tracer, to(OUTSIDE, NODE, 30080), 10), [(ep(1).addr, 10)].into());
    }
}

#[test]
fn networks_that_tell_nothing_apart_are_no_networks() {
    let all = "0.0.0.0/0".parse().unwrap();
    for networks in [vec![], vec![all], vec!["10.42.0.0/16".parse().unwrap(), all]] {
        assert_eq!(LocalTraffic::from_networks(networks), LocalTraffic::Undetected);
    }
}

#[test]
fn the_first_by_name_has_a_contested_address_until_it_goes() {
    let mut world = World::new(node());
    world.service("b", vec![port()]).endpoints("b", vec![ep(2)]).sync();
    assert_eq!(world.tracer().send(to(POD, VIP, 80)), delivered(2, false));
    world.service("a", vec![port()]).endpoints("a", vec![ep(1)]);
    let mut tracer = world.tracer();
    assert_eq!(tracer.send(to(POD, VIP, 80)), delivered(1, false));
    assert_eq!(tracer.send(to(OUTSIDE, NODE, 30080)), delivered(1, true));
    world.service("a", vec![]);
    assert_eq!(world.tracer().send(to(POD, VIP, 80)), delivered(2, false));
    world.service("b", vec![]).sync();
    assert_eq!(world.ruleset.table(), Ruleset::new(node()).table(), "nothing is left behind");
    assert!(world.ruleset.claims.is_empty() && world.ruleset.shared.is_empty());
}

#[test]
fn an_endpoint_change_is_one_element() {
    let mut world = served(ServicePort { node_port: 0, ..port() }, vec![ep(1), ep(2), ep(3)]);
    world.sync();
    let moved = Endpoint { local: false, ..ep(4) };
    let remote = |last| Endpoint { local: false, ..ep(last) };
    world.endpoints("svc", vec![remote(1), remote(2), remote(3)]).sync();
    let tx = world.endpoints("svc", vec![remote(1), remote(2), moved]).sync();
    assert_eq!(tx.len(), 2, "one goes, one comes: {tx:?}");
    assert!(tx.stale_chains.is_empty());
    assert!(world.sync().is_empty(), "nothing changed, nothing to do");
}

#[test]
fn ports_beyond_the_limit_share_lanes() {
    let mut world = World::new(node());
    let vip = |index: u32| Ipv4Addr::from_bits(0x0a2b_1000 + index);
    let total = u32::try_from(lanes::OWN_LANES).unwrap() + 200;
    for index in 0..total {
        let service = format!("s{index:05}");
        world.service(&service, vec![ServicePort { cluster_ip: vip(index), node_port: 0, ..port() }]);
        world.endpoints(&service, vec![ep(1), ep(2)]);
    }
    let mut tracer = world.tracer();
    let lanes = tracer.table.chains.keys().filter(|name| name.as_str().starts_with("lane-2-")).count();
    assert!((2..=16).contains(&lanes), "{lanes} lanes");
    for index in [0, total - 1] {
        let counts = count(&mut tracer, to(POD, vip(index), 80), 100);
        let even = if index == 0 { 50..=50 } else { 30..=70 };
        assert!(counts.len() == 2 && counts.values().all(|n| even.contains(n)), "service {index}: {counts:?}");
    }
    // What has a lane of its own keeps it; lanes that are freed go to those that wait.
    let own = |world: &World, index: u32| {
        let chain = format!("service-ns/s{index:05}/tcp/");
        world.ruleset.table().chains.keys().any(|name| name.as_str() == chain)
    };
    let limit = u32::try_from(lanes::OWN_LANES).unwrap();
    assert!(own(&world, limit - 1) && !own(&world, limit));
    world.sync();
    world.service("s00000", vec![]).sync();
    assert!(own(&world, limit) && !own(&world, limit + 1), "one went, one moved up");
    // Without endpoints, or with affinity, a port needs no lanes.
    world.endpoints("s00001", vec![]).sync();
    let affine = ServicePort { cluster_ip: vip(2), node_port: 0, affinity: Some(10), ..port() };
    world.service("s00002", vec![affine]).sync();
    assert!(own(&world, limit + 1) && own(&world, limit + 2) && !own(&world, limit + 3));
    world.endpoints("s00001", vec![ep(1)]).sync();
    assert!(!own(&world, 1), "what it gave up is another's");
    for index in 3..400 {
        world.service(&format!("s{index:05}"), vec![]);
    }
    world.sync();
    let shared = world.ruleset.table().chains.keys().filter(|name| name.as_str().starts_with("lane-")).count();
    assert_eq!(shared, 0, "there are fewer than lanes: every port has its own");
    assert!(own(&world, 1) && own(&world, total - 1));
}

/// As upstream's `ipmasq` (containernetworking/plugins, pkg/ip): an answer to the node's address would miss who asked.
#[test]
fn what_pods_send_to_everybody_keeps_their_address() {
    let mut world = World::new(NodeView { masquerade_outbound: vec!["10.42.0.0/16".parse().unwrap()], ..node() });
    let mut tracer = world.tracer();
    for (dst, masqueraded) in [
        (OUTSIDE, true),
        (ep(1).addr, false),
        (Ipv4Addr::new(224, 0, 0, 251), false),
        (Ipv4Addr::new(239, 255, 255, 250), false),
        (Ipv4Addr::BROADCAST, false),
    ] {
        let packet = Packet { protocol: Protocol::Udp, ..to(POD, dst, 5353) };
        assert_eq!(tracer.send(packet), Outcome::Delivered { to: (dst, 5353), masqueraded }, "{dst}");
    }
}

/// A client of one Service that calls another each time must not meet the same endpoint for ever.
#[test]
fn ports_that_share_a_lane_do_not_march_in_step() {
    let mut world = World::new(node());
    world.ruleset.lanes = LaneAllocator::with_limit(0);
    let vip = |index: u8| Ipv4Addr::new(10, 43, 7, index);
    let slot = |index: &u8| {
        let service = name(&format!("s{index}"));
        let name = ServicePortName { service, port: "".into(), protocol: Protocol::Tcp };
        Lane::shared(lanes::LaneKind::Cluster, 2, &name).slot
    };
    let mut by_slot: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for index in 0..17 {
        by_slot.entry(slot(&index)).or_default().push(index);
        let service = format!("s{index}");
        world.service(&service, vec![ServicePort { cluster_ip: vip(index), node_port: 0, ..port() }]);
        world.endpoints(&service, vec![ep(1), ep(2)]);
    }
    let pair = by_slot.into_values().find(|members| members.len() > 1).expect("there are fewer slots than ports");
    let mut tracer = world.tracer();
    let mut reached = [BTreeMap::new(), BTreeMap::new()];
    for _ in 0..200 {
        for (index, counts) in pair.iter().zip(&mut reached) {
            for (addr, more) in count(&mut tracer, to(POD, vip(*index), 80), 1) {
                *counts.entry(addr).or_insert(0) += more;
            }
        }
    }
    assert!(reached.iter().all(|counts| counts.len() == 2 && counts.values().all(|n| *n > 50)), "{reached:?}");
}

#[test]
fn names_stay_readable_and_within_limits() {
    let long = ServicePortName {
        service: ServiceName { namespace: "n".repeat(63).into(), name: "s".repeat(63).into() },
        port: "p".repeat(63).into(),
        protocol: Protocol::Sctp,
    };
    let odd = ServicePortName { port: "\"; flush ruleset; # ü".into(), service: name("svc"), ..long.clone() };
    for name in [&long, &odd] {
        let base = names::port_base(name);
        let set = names::affinity_set(&base, Ipv4Addr::BROADCAST, 65535).name.clone();
        assert!(set.as_str().len() <= 128, "{set}");
        assert!(set.as_str().chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c)), "{set}");
    }
    assert_ne!(names::port_base(&long), names::port_base(&ServicePortName { port: "q".into(), ..long.clone() }));
    let plain = ServicePortName { service: name("web"), port: "http".into(), protocol: Protocol::Tcp };
    assert_eq!(names::port_base(&plain), "ns/web/tcp/http");
}

#[test]
fn golden_base_and_service() {
    let mut world = served(ServicePort { affinity: Some(60), ..port() }, vec![ep(1), ep(2)]);
    world.sync();
    let table = world.ruleset.table();
    let chain = |name: &str| -> Vec<String> { table.chains[name].rules.iter().map(rule_text).collect() };
    assert_eq!(
        chain("cluster-ns/svc/tcp/"),
        [
            "meta l4proto tcp ip saddr @affinity-ns/svc/tcp/__10.42.0.1/8080 update @affinity-ns/svc/tcp/__10.42.0.1/8080 { ip saddr timeout 60s } dnat to 10.42.0.1:8080",
            "meta l4proto tcp ip saddr @affinity-ns/svc/tcp/__10.42.0.2/8080 update @affinity-ns/svc/tcp/__10.42.0.2/8080 { ip saddr timeout 60s } dnat to 10.42.0.2:8080",
            "meta l4proto tcp numgen inc mod 2 0 update @affinity-ns/svc/tcp/__10.42.0.1/8080 { ip saddr timeout 60s } dnat to 10.42.0.1:8080",
            "meta l4proto tcp update @affinity-ns/svc/tcp/__10.42.0.2/8080 { ip saddr timeout 60s } dnat to 10.42.0.2:8080",
            "meta l4proto tcp dnat to 10.42.0.2:8080",
        ]
    );
    assert_eq!(chain("policy-ns/svc/tcp/"), ["meta mark set meta mark | 0x4000 goto cluster-ns/svc/tcp/"]);
    assert_eq!(
        chain("services"),
        [
            "ip daddr @cluster-ips ip saddr != 10.42.0.0/16 meta mark set meta mark | 0x4000",
            "ip daddr . meta l4proto . th dport vmap @service-ips",
            "dnat ip to ip daddr . meta l4proto . th dport . numgen inc mod 1 map @endpoints",
            "dnat ip to ip daddr . meta l4proto . th dport . numgen inc mod 1 map @lane-endpoints",
            "ip daddr != 127.0.0.0/8 fib daddr type local meta l4proto . th dport vmap @service-nodeports",
            "ip daddr != 127.0.0.0/8 fib daddr type local dnat ip to meta l4proto . th dport . numgen inc mod 1 map @nodeport-endpoints",
            "ip daddr != 127.0.0.0/8 fib daddr type local dnat ip to meta l4proto . th dport . numgen inc mod 1 map @nodeport-lane-endpoints",
        ]
    );
    assert_eq!(
        chain("nat-postrouting"),
        [
            "ct status dnat ip saddr . ip daddr @hairpin masquerade fully-random",
            "meta mark & 0x4000 == 0x4000 meta mark set meta mark & 0xffffbfff masquerade fully-random",
        ]
    );
    assert_eq!(
        chain("endpoints-check")[0],
        "ip daddr . meta l4proto . th dport @no-endpoint-services goto reject-chain"
    );
    assert_eq!(
        chain("cluster-ips-check"),
        ["ip daddr @cluster-ips goto reject-chain", "fib daddr type local return", "ip daddr 10.43.0.0/16 drop"]
    );
}

mod claims;
mod properties;

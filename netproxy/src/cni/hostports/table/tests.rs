//! What the table does to packets, and which transactions lead to it.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::nft::apply::apply;
use crate::nft::object::Protocol;
use crate::nft::render::table_text;
use crate::tracer::{Outcome, Packet, Tracer};

const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OTHER_NODE_IP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const DNS: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 10);
const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn pod(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 42, 0, last)
}

/// What is a network's that leases nothing outside its subnet.
fn ours() -> NetworkAddresses {
    NetworkAddresses { subnet: "10.42.0.0/24".parse().unwrap(), leased: BTreeSet::new() }
}

fn port(host_ip: Option<Ipv4Addr>, protocol: Protocol, host_port: u16, container_port: u16) -> HostPort {
    HostPort { host_ip, protocol, host_port, container_port }
}

/// Pod 1 has TCP 80 everywhere; pod 2 has UDP 80 on one address, pod 3 TCP 81 on loopback, pod 4 on another.
fn containers() -> Vec<(Ipv4Addr, Vec<HostPort>)> {
    vec![
        (pod(1), vec![port(None, Protocol::Tcp, 80, 8080)]),
        (pod(2), vec![port(Some(NODE), Protocol::Udp, 80, 53)]),
        (pod(3), vec![port(Some(LOOPBACK), Protocol::Tcp, 81, 8080)]),
        (pod(4), vec![port(Some(NODE), Protocol::Tcp, 81, 8080), port(None, Protocol::Tcp, 82, 8082)]),
    ]
}

fn of(containers: &[(Ipv4Addr, Vec<HostPort>)]) -> Table {
    table(containers.iter().map(|(address, ports)| (*address, ports.as_slice())), Some(DNS))
}

#[test]
fn packets_reach_the_containers_behind_ports() {
    let to = |pod: Ipv4Addr, port: u16| Outcome::Delivered { to: (pod, port), masqueraded: false };
    let masqueraded = |pod: Ipv4Addr, port: u16| Outcome::Delivered { to: (pod, port), masqueraded: true };
    let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
    let (outside, node) = (false, true);
    for (from_node, src, dst, protocol, dport, expected) in [
        // Every address of the node, from everywhere, with the source kept.
        (outside, CLIENT, NODE, tcp, 80, to(pod(1), 8080)),
        (outside, CLIENT, OTHER_NODE_IP, tcp, 80, to(pod(1), 8080)),
        (outside, pod(2), NODE, tcp, 80, to(pod(1), 8080)),
        (node, NODE, NODE, tcp, 80, to(pod(1), 8080)),
        (node, NODE, LOOPBACK, tcp, 80, to(pod(1), 8080)),
        // From loopback, or from the container itself, answers would go astray.
        (node, LOOPBACK, LOOPBACK, tcp, 80, masqueraded(pod(1), 8080)),
        (outside, pod(1), NODE, tcp, 80, masqueraded(pod(1), 8080)),
        // The protocol, the number and the address count.
        (outside, CLIENT, NODE, udp, 80, to(pod(2), 53)),
        (outside, CLIENT, OTHER_NODE_IP, udp, 80, to(OTHER_NODE_IP, 80)),
        (outside, CLIENT, NODE, tcp, 8080, to(NODE, 8080)),
        (outside, CLIENT, CLIENT, tcp, 80, to(CLIENT, 80)),
        (outside, CLIENT, pod(4), tcp, 80, to(pod(4), 80)),
        (node, LOOPBACK, LOOPBACK, tcp, 81, masqueraded(pod(3), 8080)),
        (outside, CLIENT, NODE, tcp, 81, to(pod(4), 8080)),
        (outside, CLIENT, OTHER_NODE_IP, tcp, 81, to(OTHER_NODE_IP, 81)),
        // Loopback is the node's own, though the bridge routes it now.
        (outside, pod(2), LOOPBACK, tcp, 81, Outcome::Dropped),
        (outside, pod(2), LOOPBACK, tcp, 80, Outcome::Dropped),
        (outside, pod(2), LOOPBACK, tcp, 10248, Outcome::Dropped),
        (node, LOOPBACK, LOOPBACK, tcp, 10248, to(LOOPBACK, 10248)),
        (node, NODE, LOOPBACK, tcp, 10248, to(LOOPBACK, 10248)),
        (outside, pod(2), NODE, tcp, 10250, to(NODE, 10250)),
        // Cluster DNS is the node's, and no address for containers' ports.
        (outside, pod(2), DNS, tcp, 80, to(DNS, 80)),
        (outside, pod(1), DNS, tcp, 80, to(DNS, 80)),
        (node, NODE, DNS, tcp, 80, to(DNS, 80)),
        (node, DNS, DNS, tcp, 83, to(DNS, 83)),
        (node, DNS, NODE, tcp, 80, to(pod(1), 8080)),
    ] {
        let mut all = containers();
        all.push((pod(5), vec![port(Some(DNS), Protocol::Tcp, 83, 8080)]));
        let mut tracer = Tracer::new(of(&all), &[NODE, OTHER_NODE_IP, DNS]);
        let packet = Packet { from_node, src, dst, protocol, dport };
        assert_eq!(tracer.send(packet), expected, "{packet:?}");
    }
}

#[test]
fn an_address_of_its_own_is_more_than_every_address() {
    let both = [(pod(1), vec![port(None, Protocol::Tcp, 80, 1), port(Some(NODE), Protocol::Tcp, 80, 2)])];
    let mut tracer = Tracer::new(of(&both), &[NODE, OTHER_NODE_IP]);
    let mut reached = |dst| {
        let packet = Packet { from_node: false, src: CLIENT, dst, protocol: Protocol::Tcp, dport: 80 };
        tracer.send(packet)
    };
    assert_eq!(reached(NODE), Outcome::Delivered { to: (pod(1), 2), masqueraded: false });
    assert_eq!(reached(OTHER_NODE_IP), Outcome::Delivered { to: (pod(1), 1), masqueraded: false });
}

#[test]
fn the_table_reads_as_meant() {
    let text = table_text(&of(&containers()[..2]));
    assert_eq!(
        text,
        "set containers { type ipv4_addr; }\n  10.42.0.1\n  10.42.0.2\n\
         set hairpin { type ipv4_addr . ipv4_addr; }\n  10.42.0.1 . 10.42.0.1\n  10.42.0.2 . 10.42.0.2\n\
         map ip-ports { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }\n  \
         192.0.2.1 . udp . 80 : 10.42.0.2 . 53\n\
         map ports { type inet_proto . inet_service : ipv4_addr . inet_service; }\n  \
         tcp . 80 : 10.42.0.1 . 8080\n\
         chain filter-input\n  type filter hook input priority 0; policy accept;\n  \
         ct state new ip daddr 127.0.0.0/8 jump loopback-check\n\
         chain hostports\n  \
         dnat ip to ip daddr . meta l4proto . th dport map @ip-ports\n  \
         dnat ip to meta l4proto . th dport map @ports\n\
         chain loopback-check\n  fib saddr type local return\n  ct status dnat return\n  drop\n\
         chain nat-output\n  type nat hook output priority -99; policy accept;\n  \
         ip daddr != 10.43.0.10/32 fib daddr type local jump hostports\n\
         chain nat-postrouting\n  type nat hook postrouting priority 101; policy accept;\n  \
         ct status dnat ip saddr . ip daddr @hairpin masquerade fully-random\n  \
         ct status dnat ip saddr 127.0.0.0/8 ip daddr @containers masquerade fully-random\n\
         chain nat-prerouting\n  type nat hook prerouting priority -99; policy accept;\n  \
         ip daddr != 127.0.0.0/8 ip daddr != 10.43.0.10/32 fib daddr type local jump hostports\n"
    );
}

#[test]
fn adding_is_one_transaction_of_elements() {
    let all = containers();
    let (address, ports) = &all[3];
    let tx = addition(*address, ports);
    assert!(tx.ops.iter().all(|op| matches!(op, Op::AddElements(..))), "{tx:?}");
    let mut grown = Some(of(&all[..3]));
    apply(&mut grown, &tx).unwrap();
    assert_eq!(grown, Some(of(&all)));
    assert!(holds(Some(&of(&all).observe()), *address, ports));
    assert!(!holds(Some(&of(&all[..3]).observe()), *address, ports));
    assert!(!holds(None, *address, ports));
    // As the kernel does: without a table, and over somebody's port, it fails as a whole.
    assert!(apply(&mut None, &tx).is_err());
    let thief = addition(pod(9), &[port(None, Protocol::Tcp, 80, 1)]);
    assert!(apply(&mut grown, &thief).is_err());
    assert!(addition(*address, &[]).is_empty());
}

/// What the kernel has after a repair of `before`.
fn repaired(before: Option<Table>, wanted: &[(Ipv4Addr, Vec<HostPort>)]) -> Option<Table> {
    let tx = repair(before.as_ref().map(Table::observe).as_ref(), of(wanted), &ours());
    let mut table = before;
    apply(&mut table, &tx).unwrap();
    table
}

#[test]
fn a_repair_leads_from_anything_to_what_is_leased() {
    let all = containers();
    assert_eq!(repaired(None, &[]), None, "nothing is made for nothing");
    assert_eq!(repaired(None, &all), Some(of(&all)));
    assert_eq!(repaired(Some(Table::default()), &all), Some(of(&all)));
    assert_eq!(repaired(Some(of(&all)), &all[1..]), Some(of(&all[1..])), "one container's elements and no others");
    assert_eq!(repaired(Some(of(&all)), &[]), Some(of(&[])));
    let moved = [(pod(7), all[0].1.clone())];
    assert_eq!(repaired(Some(of(&all)), &moved), Some(of(&moved)), "a port changes hands");
    let mut older = of(&all);
    older.chains.get_mut(HOSTPORTS).unwrap().rules.pop();
    assert_eq!(repaired(Some(older), &all), Some(of(&all)), "rules of another version");
    let settled = repair(Some(&of(&all).observe()), of(&all), &ours());
    assert!(settled.is_empty());
}

#[test]
fn containers_of_other_networks_stay_and_keep_their_ports() {
    let elsewhere = Ipv4Addr::new(10, 99, 0, 1);
    let theirs = (elsewhere, vec![port(None, Protocol::Tcp, 443, 8443), port(Some(NODE), Protocol::Tcp, 444, 8443)]);
    let all = containers();
    let before = of(&[all[0].clone(), theirs.clone()]);
    assert_eq!(repaired(Some(before.clone()), &all[1..]), Some(of(&[&all[1..], &[theirs]].concat())));
    let taken = |port| taken_by(Some(&before.observe()), &[port], &ours());
    assert_eq!(taken(port(Some(NODE), Protocol::Tcp, 444, 80)), Some(elsewhere));
    assert_eq!(taken(port(None, Protocol::Tcp, 443, 80)), Some(elsewhere));
    assert_eq!(taken(port(None, Protocol::Udp, 443, 80)), None);
    assert_eq!(taken(port(None, Protocol::Tcp, 80, 80)), None, "of this network: its leases decide");
    // Whoever has it keeps it, and nothing else suffers.
    let greedy = [(pod(1), vec![port(Some(NODE), Protocol::Tcp, 444, 80), port(None, Protocol::Udp, 1, 1)])];
    let both = repaired(Some(before.clone()), &greedy).unwrap();
    assert_eq!(taken_by(Some(&both.observe()), &greedy[0].1, &ours()), Some(elsewhere));
    assert!(holds(Some(&both.observe()), pod(1), &greedy[0].1[1..]));
}

/// The cluster gave the node another range than the one its running containers are in.
#[test]
fn containers_with_leases_are_ours_wherever_their_addresses_are() {
    let before_the_move = (Ipv4Addr::new(10, 42, 7, 2), vec![port(None, Protocol::Tcp, 80, 8080)]);
    let gone = (Ipv4Addr::new(10, 42, 7, 3), vec![port(None, Protocol::Tcp, 81, 8080)]);
    let new = (pod(2), vec![port(None, Protocol::Tcp, 82, 8080)]);
    let ours = NetworkAddresses { leased: [before_the_move.0, gone.0, new.0].into(), ..ours() };
    let there = of(&[before_the_move.clone(), gone.clone()]);
    let mut after = Some(there.clone());
    let wanted = of(&[before_the_move.clone(), new.clone()]);
    apply(&mut after, &repair(Some(&there.observe()), wanted.clone(), &ours)).unwrap();
    assert_eq!(after, Some(wanted), "what went leaves nothing, what runs keeps its port");
    assert_eq!(taken_by(Some(&there.observe()), &gone.1, &ours), None, "a port of one that just went is free");
}

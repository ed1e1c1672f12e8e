//! Which flows are stale, case by case.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use super::*;
use crate::snapshot::{Endpoint, ServicePort};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 10);
const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 200);

fn name() -> ServiceName {
    ServiceName { namespace: "ns".into(), name: "dns".into() }
}

fn ports(protocol: Protocol, serving: &[u8]) -> Vec<Resolved> {
    let port = ServicePort {
        node_port: 30053,
        external_ips: [Ipv4Addr::new(198, 51, 100, 1)].into(),
        ..ServicePort::new(protocol, VIP, 53)
    };
    let endpoint =
        |last: &u8| Endpoint { ready: false, terminating: true, local: false, ..Endpoint::new(pod(*last), 5353) };
    vec![Resolved { port: Arc::new(port), endpoints: serving.iter().map(endpoint).collect() }]
}

fn pod(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 42, 0, last)
}

fn flow(dst: Ipv4Addr, dport: u16, from: (Ipv4Addr, u16)) -> Flow {
    let original = Tuple { src: CLIENT, dst, sport: 4000, dport };
    let reply = Tuple { src: from.0, dst: CLIENT, sport: from.1, dport: 4000 };
    Flow { original, reply, zone: 0 }
}

fn stale(services: &UdpServices, flow: Flow) -> bool {
    services.stale(&[flow], &[NODE]) == [flow]
}

#[test]
fn flows_to_endpoints_that_went() {
    let mut services = UdpServices::default();
    services.update(&name(), &ports(Protocol::Udp, &[1, 2]));
    assert!(services.pending());
    for (dst, dport) in [(VIP, 53), (Ipv4Addr::new(198, 51, 100, 1), 53), (NODE, 30053), (pod(77), 30053)] {
        assert!(!stale(&services, flow(dst, dport, (pod(1), 5353))), "it serves, if only terminating");
        assert!(stale(&services, flow(dst, dport, (pod(3), 5353))), "it does not serve");
        assert!(stale(&services, flow(dst, dport, (pod(1), 9))), "not on that port");
    }
    assert!(stale(&services, flow(VIP, 53, (VIP, 53))), "came before the Service");
    assert!(stale(&services, flow(NODE, 30053, (NODE, 30053))), "the same for the node's port");
    let elsewhere = Ipv4Addr::new(203, 0, 113, 9);
    assert!(!stale(&services, flow(elsewhere, 30053, (elsewhere, 30053))), "somebody else's port of that number");
    assert!(!stale(&services, flow(VIP, 54, (pod(9), 1))), "no port of ours");
}

#[test]
fn flows_of_services_that_lost_everything_or_went() {
    let mut services = UdpServices::default();
    services.update(&name(), &ports(Protocol::Udp, &[1]));
    services.done();
    assert!(!services.pending());
    services.update(&name(), &ports(Protocol::Udp, &[]));
    assert!(services.pending());
    assert!(stale(&services, flow(VIP, 53, (pod(1), 5353))));
    assert!(!stale(&services, flow(VIP, 53, (VIP, 53))), "never translated: refused anyway");
    services.update(&name(), &[]);
    assert!(stale(&services, flow(VIP, 53, (pod(1), 5353))));
    services.done();
    assert!(!stale(&services, flow(VIP, 53, (pod(1), 5353))), "looked at once");
}

#[test]
fn only_udp_and_only_changes_count() {
    let mut services = UdpServices::default();
    services.update(&name(), &ports(Protocol::Tcp, &[1]));
    assert!(!services.pending());
    services.update(&name(), &ports(Protocol::Udp, &[1]));
    services.done();
    services.update(&name(), &ports(Protocol::Udp, &[1]));
    assert!(!services.pending());
}

/// The rules lead a contested address to one Service: flows to the other's endpoints are the stale ones.
#[test]
fn a_contested_address_is_the_one_services_that_the_rules_say() {
    let external = |last: u8| {
        let port = ServicePort {
            external_ips: [VIP].into(),
            ..ServicePort::new(Protocol::Udp, Ipv4Addr::new(10, 43, 0, 66), 53)
        };
        vec![Resolved { port: Arc::new(port), endpoints: vec![Endpoint::new(pod(last), 5353)] }]
    };
    let named = |name: &str| ServiceName { namespace: "ns".into(), name: name.into() };
    let mut services = UdpServices::default();
    for (thief, last) in [("a", 66), ("z", 67)] {
        services.update(&named(thief), &external(last));
    }
    assert!(!stale(&services, flow(VIP, 53, (pod(66), 5353))) && stale(&services, flow(VIP, 53, (pod(67), 5353))));
    services.update(&name(), &ports(Protocol::Udp, &[1]));
    for (from, expected) in [(1, false), (66, true), (67, true)] {
        assert_eq!(stale(&services, flow(VIP, 53, (pod(from), 5353))), expected, "pod {from}");
    }
    // Of what another proxy serves nothing is known here.
    let another = ServicePort { proxied: false, ..ServicePort::new(Protocol::Udp, VIP, 53) };
    services.update(&name(), &[Resolved { port: Arc::new(another), endpoints: Vec::new() }]);
    for from in [1, 66, 67] {
        assert!(!stale(&services, flow(VIP, 53, (pod(from), 5353))), "pod {from}");
    }
}

//! Who serves an address that several Services name, and what a Service with very many of them costs.

use super::*;

fn external(cluster_ip: [u8; 4], external_ips: Vec<Ipv4Addr>) -> ServicePort {
    ServicePort { cluster_ip: cluster_ip.into(), node_port: 0, external_ips: external_ips.into(), ..port() }
}

/// Whoever comes first, and whatever it is called: `spec.externalIPs` is anybody's to write, a ClusterIP is not, and
/// neither is the status that names a load balancer's address.
#[test]
fn what_the_cluster_gave_is_not_taken_by_an_external_address() {
    let balanced = Ipv4Addr::new(198, 51, 100, 9);
    let victim = ServicePort { load_balancer_ips: vec![balanced].into(), node_port: 0, ..port() };
    for thief in ["a", "z"] {
        for thief_is_first in [true, false] {
            let mut world = World::new(node());
            for thief_comes in [thief_is_first, !thief_is_first] {
                if thief_comes {
                    world.service(thief, vec![external([10, 43, 0, 66], vec![VIP, balanced])]);
                    world.endpoints(thief, vec![ep(66)]).sync();
                } else {
                    world.service("svc", vec![victim.clone()]).endpoints("svc", vec![ep(1)]).sync();
                }
            }
            let mut tracer = world.tracer();
            assert_eq!(tracer.send(to(POD, VIP, 80)), delivered(1, false), "{thief} {thief_is_first}");
            assert_eq!(tracer.send(to(POD, balanced, 80)), delivered(1, true), "{thief} {thief_is_first}");
            assert_eq!(tracer.send(to(POD, Ipv4Addr::new(10, 43, 0, 66), 80)), delivered(66, false));
            world.service("svc", vec![]).sync();
            assert_eq!(world.tracer().send(to(POD, balanced, 80)), delivered(66, true), "nobody else has it now");
            world.service(thief, vec![]).sync();
            assert_eq!(world.ruleset.table(), Ruleset::new(node()).table(), "nothing is left behind");
        }
    }
}

/// Each address is an element, not each with each endpoint.
#[test]
fn many_addresses_cost_no_more_than_one_element_each() {
    let addresses: Vec<_> = (0..3000).map(|index| Ipv4Addr::from_bits(0xc633_0000 + index)).collect();
    let endpoints: Vec<_> = (1..=100).map(ep).collect();
    let mut world = World::new(node());
    world.service("svc", vec![external([10, 43, 0, 66], addresses.clone())]).endpoints("svc", endpoints);
    let tx = world.sync();
    assert!(tx.len() < 5000, "{} requests", tx.len());
    let elements: usize = world.ruleset.table().sets.values().map(|set| set.elements.len()).sum();
    assert!(elements < 5000, "{elements} elements");
    let mut tracer = world.tracer();
    for addr in [addresses[0], addresses[2999]] {
        let counts = count(&mut tracer, to(OUTSIDE, addr, 80), 200);
        assert!(counts.len() == 100 && counts.values().all(|n| *n == 2), "{counts:?}");
    }
    let Outcome::Delivered { masqueraded, .. } = tracer.send(to(POD, addresses[7], 80)) else { panic!("not served") };
    assert!(masqueraded, "as ever for external addresses");
}

/// What another proxy serves, cluster DNS on its node among it, has no rules here, and nobody else gets its address.
#[test]
fn what_another_proxy_serves_is_nobodys_to_take() {
    for thief_is_first in [true, false] {
        let mut world = World::new(node());
        for thief_comes in [thief_is_first, !thief_is_first] {
            if thief_comes {
                world.service("a", vec![external([10, 43, 0, 66], vec![VIP])]).endpoints("a", vec![ep(66)]).sync();
            } else {
                world.service("dns", vec![ServicePort { proxied: false, ..ServicePort::new(Protocol::Tcp, VIP, 80) }]);
                world.endpoints("dns", vec![ep(1)]).sync();
            }
        }
        // It may be an address of the node, which then answers.
        let mut tracer = Tracer::new(world.ruleset.table(), &[NODE, VIP]);
        for from in [POD, OUTSIDE, NODE] {
            assert_eq!(
                tracer.send(to(from, VIP, 80)),
                Outcome::Delivered { to: (VIP, 80), masqueraded: false },
                "{from}"
            );
        }
        world.service("a", vec![]).sync();
        assert_eq!(world.ruleset.table(), Ruleset::new(node()).table());
        world.service("dns", vec![]).sync();
        assert!(world.ruleset.claims.is_empty());
    }
}

/// Cluster DNS may answer at an address that no Service tells of.
#[test]
fn the_address_of_cluster_dns_is_no_external_one() {
    let mut world = World::new(NodeView { dns_address: Some(VIP), ..node() });
    let balanced = ServicePort { load_balancer_ips: [VIP].into(), ..external([10, 43, 0, 66], vec![VIP]) };
    world.service("a", vec![balanced]).endpoints("a", vec![ep(66)]).sync();
    let mut tracer = Tracer::new(world.ruleset.table(), &[NODE, VIP]);
    assert_eq!(tracer.send(to(POD, VIP, 80)), Outcome::Delivered { to: (VIP, 80), masqueraded: false });
    // Where it is a Service like others, with endpoints, that is its own.
    world.service("dns", vec![ServicePort { node_port: 0, ..port() }]).endpoints("dns", vec![ep(1)]).sync();
    tracer.table = world.ruleset.table();
    assert_eq!(tracer.send(to(POD, VIP, 80)), delivered(1, false));
}

/// Work grows with what changes, and not with its square.
#[test]
fn claims_are_looked_at_once_each() {
    let addresses: Vec<_> = (0..5000).map(|index| Ipv4Addr::from_bits(0xc633_0000 + index)).collect();
    let mut world = World::new(node());
    for service in ["a", "b"] {
        world.service(service, vec![external([10, 43, 0, 66], addresses.clone())]).endpoints(service, vec![ep(1)]);
    }
    world.sync();
    // A Service may be compiled again because another one is.
    assert!(world.ruleset.claims.steps <= 4 * 2 * 5001, "{} steps", world.ruleset.claims.steps);
}

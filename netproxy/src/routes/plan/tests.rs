//! Which routes are made and removed: tables and properties.

#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;
use crate::routes::peers::Vtep;

fn peer(third: u8, host: u8) -> Peer {
    let ip = Ipv4Addr::new(192, 168, 1, host);
    let vtep = Some(Vtep { mac: Vtep::mac_of(ip), ip });
    Peer { pod_cidr: format!("10.42.{third}.0/24").parse().unwrap(), ip, vtep, since: 0 }
}

fn near() -> Vec<Cidr4> {
    vec!["192.168.1.0/24".parse().unwrap()]
}

fn far() -> Vec<Cidr4> {
    vec!["10.0.0.0/16".parse().unwrap()]
}

fn by_route(peer: Peer) -> Tables {
    Tables { routes: [Route { to: peer.pod_cidr, via: Via::Gateway(peer.ip) }].into(), ..Tables::default() }
}

fn by_tunnel(peer: Peer) -> Tables {
    let (gateway, vtep) = (peer.pod_cidr.addr(), peer.vtep.unwrap());
    Tables {
        routes: [Route { to: peer.pod_cidr, via: Via::Tunnel(gateway) }].into(),
        neighbours: [(gateway, vtep.mac)].into(),
        forwarding: [(vtep.mac, vtep.ip)].into(),
    }
}

fn nothing() -> Observed {
    Observed::default()
}

#[test]
fn the_network_decides_the_way() {
    let node = peer(1, 2);
    let bare = Peer { vtep: None, ..node };
    for (network, links, peer, add, reachable) in [
        (NodeNetwork::Auto, near(), node, by_route(node), true),
        (NodeNetwork::Auto, near(), bare, by_route(node), true),
        (NodeNetwork::Auto, far(), node, by_tunnel(node), true),
        (NodeNetwork::Auto, far(), bare, Tables::default(), false),
        (NodeNetwork::Routes, near(), node, by_route(node), true),
        (NodeNetwork::Routes, far(), node, Tables::default(), false),
        (NodeNetwork::Vxlan, near(), node, by_tunnel(node), true),
        (NodeNetwork::Vxlan, near(), bare, Tables::default(), false),
        (NodeNetwork::None, near(), node, Tables::default(), true),
        (NodeNetwork::None, far(), node, Tables::default(), true),
    ] {
        let made = plan(network, &[peer], None, &links, &nothing());
        assert_eq!(made.add, add, "{network:?} {links:?}");
        assert_eq!(made.problems.is_empty(), reachable, "{network:?} {links:?}");
        assert_eq!(made.remove, Tables::default());
    }
    for (network, links, needed) in [
        (NodeNetwork::Auto, near(), false),
        (NodeNetwork::Auto, far(), true),
        (NodeNetwork::Vxlan, near(), true),
        (NodeNetwork::Routes, far(), false),
        (NodeNetwork::None, far(), false),
    ] {
        assert_eq!(needs_tunnel(network, [node].iter(), &links), needed, "{network:?} {links:?}");
    }
    assert_eq!((pod_mtu(true, 1500), pod_mtu(false, 1500), pod_mtu(true, 9000)), (1450, 0, 8950));
}

#[test]
fn a_node_that_moves_to_another_link_changes_its_way() {
    let observed = Observed { ours: by_route(peer(1, 2)), ..nothing() };
    let plan = plan(NodeNetwork::Auto, &[peer(1, 2)], None, &far(), &observed);
    assert_eq!((plan.remove, plan.add), (observed.ours, by_tunnel(peer(1, 2))));
}

#[test]
fn a_wrong_way_to_services_goes_when_the_right_one_comes() {
    let to = |text: &str| Route { to: text.parse().unwrap(), via: Via::Bridge(Ipv4Addr::new(192, 168, 1, 1)) };
    let stale = [to("10.43.0.0/16"), Route { to: "0.0.0.0/0".parse().unwrap(), via: Via::Other }];
    let observed = Observed { ours: Tables { routes: stale.into(), ..Tables::default() }, ..nothing() };
    for network in [NodeNetwork::Auto, NodeNetwork::None] {
        let plan = plan(network, &[], Some(to("10.96.0.0/12")), &near(), &observed);
        assert_eq!((plan.remove.routes, plan.add.routes), (stale.into(), [to("10.96.0.0/12")].into()));
    }
}

#[test]
fn routes_of_others_stay_and_are_not_covered() {
    let observed = Observed { foreign: [peer(1, 2).pod_cidr].into(), ..nothing() };
    let plan = plan(NodeNetwork::Auto, &[peer(1, 2), peer(2, 3)], None, &near(), &observed);
    assert_eq!((plan.remove, plan.add), (Tables::default(), by_route(peer(2, 3))));
    assert!(plan.problems[0].contains("10.42.1.0/24"), "{:?}", plan.problems);
}

proptest! {
    #[test]
    fn performing_the_plan_leaves_nothing_to_do(
        want in proptest::collection::btree_set((0u8..6, 1u8..6), 0..8),
        have in proptest::collection::btree_set((0u8..6, 1u8..6), 0..8),
        tunnels in any::<bool>(),
    ) {
        let network = if tunnels { NodeNetwork::Vxlan } else { NodeNetwork::Auto };
        let all = |set: &std::collections::BTreeSet<(u8, u8)>| -> Vec<Peer> {
            set.iter().map(|(third, host)| peer(*third, *host)).collect()
        };
        let mut have = plan(network, &all(&have), None, &near(), &nothing()).add;
        let first = plan(network, &all(&want), None, &near(), &Observed { ours: have.clone(), ..nothing() });
        have = have.without(&first.remove);
        have.routes.extend(first.add.routes);
        have.neighbours.extend(first.add.neighbours);
        have.forwarding.extend(first.add.forwarding);
        let again = plan(network, &all(&want), None, &near(), &Observed { ours: have, ..nothing() });
        prop_assert_eq!((again.remove, again.add), (Tables::default(), Tables::default()));
    }
}

//! What is believed of other nodes: tables, and properties over garbage.

#![allow(clippy::unwrap_used)]
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::routes::plan::{NodeNetwork, Observed, plan};

const OWN_IP: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);

fn net(text: &str) -> Cidr4 {
    text.parse().unwrap()
}

fn local_networks() -> LocalNetworks {
    LocalNetworks {
        cluster_cidr: net("10.42.0.0/16"),
        service_cidr: net("10.43.0.0/16"),
        own: Some(net("10.42.0.0/24")),
        addresses: vec![OWN_IP, Ipv4Addr::LOCALHOST],
        links: vec![net("192.168.1.0/24"), net("127.0.0.0/8")],
    }
}

fn node(pod_cidr: &str, ip: &str) -> Value {
    json!({
        "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"podCIDR": pod_cidr},
        "status": {"addresses": [{"type": "Hostname", "address": "x"}, {"type": "InternalIP", "address": ip}]},
    })
}

fn read(node: Value) -> Option<Peer> {
    Peer::read(&serde_json::from_value(node).unwrap())
}

fn peer(pod_cidr: &str, ip: &str, since: i64) -> Peer {
    Peer { pod_cidr: net(pod_cidr), ip: ip.parse().unwrap(), vtep: None, since }
}

/// Which of these are believed; the reasons against the others.
fn believed(peers: &[Peer], present: &Tables) -> (Vec<Peer>, Vec<String>) {
    let named = peers.iter().enumerate().map(|(index, peer)| (format!("n{index}"), *peer)).collect();
    local_networks().believe(&named, present)
}

#[test]
fn incomplete_nodes_have_no_way() {
    assert_eq!(read(node("10.42.3.0/24", "192.168.1.7")).unwrap().pod_cidr, net("10.42.3.0/24"));
    for nonsense in ["", "nonsense", "fd00::/64", "10.42.3.0/33"] {
        assert_eq!(read(node(nonsense, "192.168.1.7")), None, "{nonsense}");
    }
    for nonsense in ["", "host", "fd00::1"] {
        assert_eq!(read(node("10.42.3.0/24", nonsense)), None, "{nonsense}");
    }
}

#[test]
fn the_family_that_comes_first_does_not_matter() {
    let mut dual = node("fd00:42::/64", "192.168.1.7");
    dual["spec"]["podCIDRs"] = json!(["fd00:42::/64", "10.42.3.0/24"]);
    assert_eq!(read(dual).unwrap().pod_cidr, net("10.42.3.0/24"));
}

#[test]
fn what_the_cluster_gives_outweighs_the_flag() {
    for (own, range) in [
        (None, "10.42.0.0/16"),
        (Some("10.42.7.0/24"), "10.42.0.0/16"),
        (Some("10.244.7.0/24"), "10.244.0.0/16"),
        (Some("10.244.0.0/16"), "10.42.0.0/16"),
        (Some("0.0.0.0/0"), "10.42.0.0/16"),
    ] {
        assert_eq!(cluster_range(net("10.42.0.0/16"), own.map(net)), net(range), "{own:?}");
    }
}

/// Routes may follow a guess, a firewall that is opened by one lets strangers in.
#[test]
fn filters_are_opened_for_nothing_that_is_guessed() {
    for (own, range) in
        [(None, "10.42.0.0/16"), (Some("10.42.7.0/24"), "10.42.0.0/16"), (Some("10.244.7.0/24"), "10.244.7.0/24")]
    {
        let own = own.map(net);
        assert_eq!(filtered_range(net("10.42.0.0/16"), own), net(range), "{own:?}");
        let routed = cluster_range(net("10.42.0.0/16"), own);
        assert!(routed.covers(net(range)), "what passes is at most what is routed");
    }
}

#[test]
fn a_network_that_is_not_a_nodes_is_not_routed_to() {
    for (pod_cidr, why) in [
        ("0.0.0.0/0", "not within the cluster's"),
        ("10.0.0.0/8", "not within the cluster's"),
        ("10.42.0.0/16", "not within the cluster's"),
        ("10.43.0.0/16", "not within the cluster's"),
        ("192.168.1.0/24", "not within the cluster's"),
        ("192.168.1.9/32", "not within the cluster's"),
        ("127.0.0.0/8", "not within the cluster's"),
        ("10.42.0.0/24", "overlaps this node's own"),
        ("10.42.0.128/25", "overlaps this node's own"),
        ("10.42.0.0/23", "overlaps this node's own"),
    ] {
        let (none, problems) = believed(&[peer(pod_cidr, "192.168.1.7", 0)], &Tables::default());
        assert_eq!(none, [], "{pod_cidr}");
        assert!(problems.len() == 1 && problems[0].contains(why), "{pod_cidr}: {problems:?}");
    }
    // A machine may be in such a network by itself.
    let mut inside = local_networks();
    inside.links.push(net("10.42.9.0/24"));
    let nodes = [("n".to_owned(), peer("10.42.9.0/25", "192.168.1.7", 0))].into();
    assert_eq!(inside.believe(&nodes, &Tables::default()).0, []);
    // A wide network around the whole cluster's is nobody's in particular; an own address in it still is.
    let mut wide = local_networks();
    wide.links.push(net("10.0.0.0/8"));
    assert_eq!(wide.believe(&nodes, &Tables::default()).0.len(), 1);
    wide.addresses.push([10, 42, 9, 3].into());
    assert_eq!(wide.believe(&nodes, &Tables::default()).0, []);
}

#[test]
fn an_address_that_is_not_a_nodes_is_no_gateway() {
    for ip in [
        "0.0.0.0",
        "127.0.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "169.254.169.254",
        "192.168.1.1",
        "10.42.3.1",
        "10.43.0.1",
    ] {
        let (none, problems) = believed(&[peer("10.42.3.0/24", ip, 0)], &Tables::default());
        assert_eq!((none, problems.len()), (Vec::new(), 1), "{ip}");
    }
}

#[test]
fn of_two_claims_the_present_one_wins_then_the_older() {
    let (older, younger) = (peer("10.42.3.0/24", "192.168.1.7", 1), peer("10.42.3.128/25", "192.168.1.8", 2));
    assert_eq!(believed(&[older, younger], &Tables::default()).0, [older]);
    assert_eq!(believed(&[younger, older], &Tables::default()).0, [older]);
    let route = Route { to: younger.pod_cidr, via: Via::Gateway(younger.ip) };
    let present = Tables { routes: [route].into(), ..Tables::default() };
    assert_eq!(believed(&[older, younger], &present).0, [younger], "a node that comes with another's network");
}

#[test]
fn a_tunnels_end_is_one_nodes() {
    let end = |ip: &str, mac: Mac| Some(Vtep { mac, ip: ip.parse().unwrap() });
    let honest = Vtep::mac_of(Ipv4Addr::new(192, 168, 1, 7));
    let one = Peer { vtep: end("192.168.1.7", honest), ..peer("10.42.3.0/24", "192.168.1.7", 1) };
    let other = Peer { vtep: end("192.168.1.8", honest), ..peer("10.42.4.0/24", "192.168.1.8", 2) };
    assert_eq!(believed(&[one, other], &Tables::default()).0, [one, Peer { vtep: None, ..other }]);
    let own = Peer { vtep: end("192.168.1.8", Vtep::mac_of(OWN_IP)), ..other };
    assert_eq!(believed(&[own], &Tables::default()).0, [Peer { vtep: None, ..other }]);
    for ip in ["127.0.0.1", "224.0.0.1", "10.42.3.1", "192.168.1.1"] {
        let lying = Peer { vtep: end(ip, honest), ..one };
        assert_eq!(believed(&[lying], &Tables::default()).0, [Peer { vtep: None, ..one }], "{ip}");
    }
}

#[test]
fn nonsense_in_annotations_is_no_tunnel() {
    let read = |mac: &str, ip: &str| {
        let node = json!({"metadata": {"annotations": {ANNOTATION_VTEP_MAC: mac, ANNOTATION_VTEP_IP: ip}}});
        vtep(&serde_json::from_value(node).unwrap())
    };
    let good = "0a:59:c0:a8:01:07";
    assert_eq!(Vtep::mac_of(Ipv4Addr::new(192, 168, 1, 7)).to_string(), good);
    assert!(read(good, "192.168.1.7").is_some());
    for (mac, ip) in [("", "192.168.1.7"), ("01:59:c0:a8:01:07", "192.168.1.7"), (good, ""), (good, "fd00::1")] {
        assert_eq!(read(mac, ip), None, "{mac} {ip}");
    }
}

/// Networks and addresses a hostile node would choose, and some honest ones.
fn any_peer() -> impl Strategy<Value = Peer> {
    let interesting = prop_oneof![
        Just(0u32),
        Just(OWN_IP.to_bits()),
        Just(net("10.42.0.0/16").addr().to_bits()),
        Just(net("10.43.0.0/16").addr().to_bits()),
        Just(net("127.0.0.0/8").addr().to_bits()),
        (0u32..6).prop_map(|third| 0x0a2a_0000 + (third << 8)),
        any::<u32>(),
    ];
    let ip = prop_oneof![(0u32..10).prop_map(|host| 0xc0a8_0100 + host), interesting.clone()];
    let mac = (0u8..4).prop_map(|last| Mac([2, 0, 0, 0, 0, last]));
    let vtep = proptest::option::of((mac, ip.clone()).prop_map(|(mac, ip)| Vtep { mac, ip: Ipv4Addr::from_bits(ip) }));
    (interesting, prop_oneof![0u8..33, 22u8..27], ip, vtep, 0i64..4).prop_map(|(addr, len, ip, vtep, since)| Peer {
        pod_cidr: Cidr4::new(Ipv4Addr::from_bits(addr), len).unwrap(),
        ip: Ipv4Addr::from_bits(ip),
        vtep,
        since,
    })
}

proptest! {
    /// Whatever Node objects say, one after the other: routes stay within the cluster's range, off this
    /// node's own networks, one node's each; and what is there stays with whom it was.
    #[test]
    fn no_node_takes_what_is_not_its_own(
        first in proptest::collection::btree_map("[a-f]", any_peer(), 0..6),
        second in proptest::collection::btree_map("[g-l]", any_peer(), 0..6),
        network in prop_oneof![Just(NodeNetwork::Auto), Just(NodeNetwork::Vxlan), Just(NodeNetwork::Routes)],
    ) {
        let here = local_networks();
        let (honest, _) = here.believe(&first, &Tables::default());
        let before = plan(network, &honest, None, &here.links, &Observed::default()).add;
        let mut all = first;
        all.extend(second);
        let (believed, _) = here.believe(&all, &before);
        let after = plan(network, &believed, None, &here.links, &Observed { ours: before.clone(), ..Observed::default() });
        prop_assert_eq!(after.remove, Tables::default(), "a newcomer takes nothing away");
        let mut routes: Vec<_> = before.routes.iter().chain(&after.add.routes).collect();
        while let Some(route) = routes.pop() {
            prop_assert!(here.cluster_cidr.covers(route.to) && route.to.prefix_len() > 16, "{route:?}");
            prop_assert!(!route.to.overlaps(net("10.42.0.0/24")), "{route:?}");
            prop_assert!(routes.iter().all(|other| !other.to.overlaps(route.to)), "{route:?}");
            if let Via::Gateway(ip) = route.via {
                prop_assert!(net("192.168.1.0/24").contains(ip) && ip != OWN_IP, "{route:?}");
            }
        }
        let ends: Vec<_> = before.forwarding.iter().chain(&after.add.forwarding).collect();
        for (mac, ip) in &ends {
            prop_assert!(ends.iter().filter(|(other, _)| other == mac).count() == 1, "{mac} has one node");
            prop_assert!(*ip != OWN_IP && !ip.is_loopback() && !here.cluster_cidr.contains(*ip));
        }
    }
}

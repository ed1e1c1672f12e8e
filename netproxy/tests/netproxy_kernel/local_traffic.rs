//! Pods' traffic told from that of clients elsewhere by the link it comes in through, and NodePorts on some of the
//! node's addresses only.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4};

use netproxy::backend::NftBackend;
use netproxy::backend::cli::{CliBackend, list_json};
use netproxy::backend::netlink::NetlinkBackend;
use netproxy::nft::TABLE;
use netproxy::ruleset::{LocalTraffic, NodeView};
use netproxy::services::NodePortAddresses;
use netproxy::snapshot::{Endpoint, ServicePort};

use crate::net::{CLIENT_IP, NODE_IP, Namespace, Net, Shape, ask, pod_ip, tally};
use crate::tables::normalised;
use crate::world::{NODE_PORT, World, endpoint, evenly, node_port, node_view, port, slice_of, vip};

fn program(net: &Net, node: NodeView, port: ServicePort) {
    let mut world = World::with(node);
    world.service("svc", vec![port]);
    let remote = Endpoint { local: false, ..endpoint(pod_ip(1)) };
    world.slice("svc", slice_of(vec![endpoint(pod_ip(0)), remote]));
    net.node.run(move || world.adopt(&mut NetlinkBackend::new().unwrap()));
}

#[test]
fn pods_are_told_by_their_bridge_or_by_their_links() {
    let through = [
        (Shape::Bridged, LocalTraffic::Through("pods".into())),
        (Shape::Routed, LocalTraffic::ThroughAny("pod".into())),
    ];
    for (shape, local) in through {
        let net = Net::new(3, shape);
        let node = NodeView { local, ..node_view() };
        program(&net, node, ServicePort { external_local: true, ..port() });
        assert_eq!(net.pods[2].run(|| ask(vip()).unwrap().seen), pod_ip(2), "a pod is seen as itself: {shape:?}");
        assert_ne!(net.client.run(|| ask(vip()).unwrap().seen), CLIENT_IP, "a client comes back this way: {shape:?}");
        assert_eq!(tally(&net.pods[2], node_port(), 20), evenly(2, 10), "a pod uses the Cluster policy: {shape:?}");
        assert_eq!(tally(&net.client, node_port(), 20), [(0, 20)].into(), "a client the Local one: {shape:?}");
    }
}

#[test]
fn both_backends_match_links_alike() {
    for local in [LocalTraffic::Through("fifteen-letters".into()), LocalTraffic::ThroughAny("veth".into())] {
        let listed = |text: bool| {
            let local = local.clone();
            Namespace::new().run(move || {
                let mut world = World::with(NodeView { local, ..node_view() });
                let backend: &mut dyn NftBackend =
                    if text { &mut CliBackend::default() } else { &mut NetlinkBackend::new().unwrap() };
                let tx = netproxy::nft::diff::diff(None, &world.ruleset.table());
                backend.run(&tx, None).unwrap();
                assert!(world.update().is_empty());
                list_json(TABLE).unwrap()
            })
        };
        let (netlink, nft) = (listed(false), listed(true));
        assert!(netlink.contains("iifname"), "{netlink}");
        assert_eq!(normalised(&netlink), normalised(&nft));
    }
}

#[test]
fn node_ports_answer_on_the_addresses_they_are_given() {
    let net = Net::new(2, Shape::Routed);
    let other = Ipv4Addr::new(192, 0, 2, 77);
    net.node.ip(&format!("addr add {other}/24 dev out"));
    let only = NodePortAddresses::Within(vec![format!("{NODE_IP}/32").parse().unwrap()]);
    program(&net, NodeView { node_port_addresses: only, ..node_view() }, port());
    assert_eq!(tally(&net.client, node_port(), 20), evenly(2, 10));
    let elsewhere = SocketAddrV4::new(other, NODE_PORT);
    let refused = net.client.run(move || ask(elsewhere).unwrap_err().kind());
    assert_eq!(refused, ErrorKind::ConnectionRefused);
    program(&net, NodeView { masquerade_mark: 1 << 3, masquerade_all: true, ..node_view() }, port());
    assert!(net.client.run(move || ask(elsewhere).is_ok()));
    assert_ne!(net.pods[0].run(|| ask(vip()).unwrap().seen), pod_ip(0), "masqueradeAll, by another bit");
}

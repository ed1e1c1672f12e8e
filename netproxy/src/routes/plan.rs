//! Which way leads to each node's pods, and what to add and remove for it. Pure.
//!
//! A node on a common link is a gateway. Any other is reached through a VXLAN tunnel as flannel
//! lays it: the tunnel's far end has the first address of the node's part of the pod network; a
//! route leads through it, a neighbour entry tells its hardware address, and a forwarding entry
//! tells the node's own address for that.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Node;

use crate::cidr::Cidr4;

/// Annotation of a Node: the hardware address of its end of the tunnels.
pub const ANNOTATION_VTEP_MAC: &str = "copepod.local/vtep-mac";
/// Annotation of a Node: the address its tunnels lead to.
pub const ANNOTATION_VTEP_IP: &str = "copepod.local/vtep-ip";
/// What a tunnel's headers take of each packet, in bytes: IPv4, UDP, VXLAN and Ethernet.
pub const OVERHEAD: u32 = 50;

/// How packets travel between nodes (`--node-network`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum NodeNetwork {
    /// Routes where nodes share a link, tunnels where not.
    #[default]
    Auto,
    /// Routes only: nodes on other links are out of reach.
    Routes,
    /// Tunnels only.
    Vxlan,
    /// Somebody else sees to it.
    None,
}

/// A hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The one of the tunnels' end on the node `ip`: the same after every start.
    pub fn of_node(ip: Ipv4Addr) -> Self {
        let [a, b, c, d] = ip.octets();
        Self([0x0a, 0x59, a, b, c, d])
    }

    /// Reads `aa:bb:cc:dd:ee:ff`; `None` for what cannot be one host's.
    fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2 && part.chars().all(|c| c.is_ascii_hexdigit()))?;
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        let one_host = bytes[0] & 1 == 0 && bytes != [0; 6];
        (parts.next().is_none() && one_host).then_some(Self(bytes))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The end of a node's tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vtep {
    pub mac: Mac,
    pub ip: Ipv4Addr,
}

/// A node: its pods' network and how it can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    pub pod_cidr: Cidr4,
    pub ip: Ipv4Addr,
    /// `None` while it has no tunnels.
    pub vtep: Option<Vtep>,
}

impl Peer {
    /// What the way follows from; `None` while the node lacks an address or its
    /// part of the pod network, or has nonsense there.
    pub fn read(node: &Node) -> Option<Self> {
        let pod_cidr = node.spec.as_ref()?.pod_cidr.as_ref()?.parse().ok()?;
        let addresses = node.status.as_ref()?.addresses.as_ref()?;
        let internal = addresses.iter().filter(|address| address.type_ == "InternalIP");
        let ip = internal.filter_map(|address| address.address.parse().ok()).next()?;
        Some(Self { pod_cidr, ip, vtep: vtep(node) })
    }
}

fn vtep(node: &Node) -> Option<Vtep> {
    let annotations = node.metadata.annotations.as_ref()?;
    let ip: Ipv4Addr = annotations.get(ANNOTATION_VTEP_IP)?.parse().ok()?;
    let usable = !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_broadcast());
    let mac = Mac::parse(annotations.get(ANNOTATION_VTEP_MAC)?)?;
    usable.then_some(Vtep { mac, ip })
}

/// A route to a node's pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    pub pod_cidr: Cidr4,
    pub gateway: Ipv4Addr,
    /// Whether it leads into the tunnel device.
    pub tunnel: bool,
}

/// What the kernel is to have, or has, of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    pub routes: BTreeSet<Route>,
    /// Far ends of tunnels and their hardware addresses.
    pub neighbours: BTreeSet<(Ipv4Addr, Mac)>,
    /// Hardware addresses and the nodes they are on.
    pub forwarding: BTreeSet<(Mac, Ipv4Addr)>,
}

impl Tables {
    fn without(&self, other: &Self) -> Self {
        Self {
            routes: self.routes.difference(&other.routes).copied().collect(),
            neighbours: self.neighbours.difference(&other.neighbours).copied().collect(),
            forwarding: self.forwarding.difference(&other.forwarding).copied().collect(),
        }
    }
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// First, since a pod network may have moved to another node.
    pub remove: Tables,
    pub add: Tables,
    /// Nodes without any way to them.
    pub unreachable: Vec<Peer>,
}

fn shares_link(peer: &Peer, links: &[Cidr4]) -> bool {
    links.iter().any(|link| link.contains(peer.ip))
}

/// Whether this node needs the tunnel device; `links` are the networks it is directly in.
pub fn needs_tunnel<'a>(network: NodeNetwork, mut peers: impl Iterator<Item = &'a Peer>, links: &[Cidr4]) -> bool {
    match network {
        NodeNetwork::Vxlan => true,
        NodeNetwork::Auto => peers.any(|peer| !shares_link(peer, links)),
        NodeNetwork::Routes | NodeNetwork::None => false,
    }
}

/// The pods' largest packet, in bytes, where the node's own link carries `link_mtu`; 0 leaves the
/// kernel's choice.
pub fn pod_mtu(tunnel: bool, link_mtu: u32) -> u32 {
    if tunnel { link_mtu.saturating_sub(OVERHEAD) } else { 0 }
}

/// Compares what `peers` need with what is `observed`.
pub fn plan(network: NodeNetwork, peers: impl Iterator<Item = Peer>, links: &[Cidr4], observed: &Tables) -> Plan {
    let (mut want, mut unreachable) = (Tables::default(), Vec::new());
    let tunnels = matches!(network, NodeNetwork::Auto | NodeNetwork::Vxlan);
    for peer in peers.filter(|_| network != NodeNetwork::None) {
        let pod_cidr = peer.pod_cidr;
        if network != NodeNetwork::Vxlan && shares_link(&peer, links) {
            want.routes.insert(Route { pod_cidr, gateway: peer.ip, tunnel: false });
        } else if let Some(vtep) = peer.vtep.filter(|_| tunnels) {
            let gateway = pod_cidr.addr();
            want.routes.insert(Route { pod_cidr, gateway, tunnel: true });
            want.neighbours.insert((gateway, vtep.mac));
            want.forwarding.insert((vtep.mac, vtep.ip));
        } else {
            unreachable.push(peer);
        }
    }
    Plan { remove: observed.without(&want), add: want.without(observed), unreachable }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn peer(third: u8, host: u8) -> Peer {
        let ip = Ipv4Addr::new(192, 168, 1, host);
        let vtep = Some(Vtep { mac: Mac::of_node(ip), ip });
        Peer { pod_cidr: format!("10.42.{third}.0/24").parse().unwrap(), ip, vtep }
    }

    fn near() -> Vec<Cidr4> {
        vec!["192.168.1.0/24".parse().unwrap()]
    }

    fn far() -> Vec<Cidr4> {
        vec!["10.0.0.0/16".parse().unwrap()]
    }

    fn route(peer: Peer) -> Route {
        Route { pod_cidr: peer.pod_cidr, gateway: peer.ip, tunnel: false }
    }

    fn tunnel(peer: Peer) -> Tables {
        let (gateway, vtep) = (peer.pod_cidr.addr(), peer.vtep.unwrap());
        Tables {
            routes: [Route { pod_cidr: peer.pod_cidr, gateway, tunnel: true }].into(),
            neighbours: [(gateway, vtep.mac)].into(),
            forwarding: [(vtep.mac, vtep.ip)].into(),
        }
    }

    #[test]
    fn incomplete_nodes_have_no_way() {
        let node = |spec: serde_json::Value, addresses: serde_json::Value| {
            let node = json!({"metadata": {}, "spec": spec, "status": {"addresses": addresses}});
            Peer::read(&serde_json::from_value(node).unwrap())
        };
        let address = json!([{"type": "Hostname", "address": "x"}, {"type": "InternalIP", "address": "192.168.1.7"}]);
        let expect = Peer { vtep: None, ..peer(3, 7) };
        assert_eq!(node(json!({"podCIDR": "10.42.3.0/24"}), address.clone()), Some(expect));
        assert_eq!(node(json!({}), address.clone()), None);
        assert_eq!(node(json!({"podCIDR": "nonsense"}), address), None);
        assert_eq!(node(json!({"podCIDR": "10.42.3.0/24"}), json!([])), None);
    }

    #[test]
    fn nonsense_in_annotations_is_no_tunnel() {
        let read = |mac: &str, ip: &str| {
            let node = json!({"metadata": {"annotations": {ANNOTATION_VTEP_MAC: mac, ANNOTATION_VTEP_IP: ip}}});
            vtep(&serde_json::from_value(node).unwrap())
        };
        let good = "0a:59:c0:a8:01:07";
        assert_eq!(read(good, "192.168.1.7"), peer(3, 7).vtep);
        assert_eq!(Mac::of_node(Ipv4Addr::new(192, 168, 1, 7)).to_string(), good);
        let group = "01:59:c0:a8:01:07";
        let signed = "+a:59:c0:a8:01:07";
        for mac in ["", "0a:59", "0a:59:c0:a8:01:07:08", "0g:59:c0:a8:01:07", "00:00:00:00:00:00", group, signed] {
            assert_eq!(read(mac, "192.168.1.7"), None, "{mac}");
        }
        for ip in ["", "0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "fd00::1", "host"] {
            assert_eq!(read(good, ip), None, "{ip}");
        }
    }

    #[test]
    fn the_network_decides_the_way() {
        let node = peer(1, 2);
        let bare = Peer { vtep: None, ..node };
        let by_route = Tables { routes: [route(node)].into(), ..Tables::default() };
        let nothing = Tables::default;
        for (network, links, peer, add, reachable) in [
            (NodeNetwork::Auto, near(), node, by_route.clone(), true),
            (NodeNetwork::Auto, near(), bare, by_route.clone(), true),
            (NodeNetwork::Auto, far(), node, tunnel(node), true),
            (NodeNetwork::Auto, far(), bare, nothing(), false),
            (NodeNetwork::Routes, near(), node, by_route, true),
            (NodeNetwork::Routes, far(), node, nothing(), false),
            (NodeNetwork::Vxlan, near(), node, tunnel(node), true),
            (NodeNetwork::Vxlan, near(), bare, nothing(), false),
            (NodeNetwork::None, near(), node, nothing(), true),
            (NodeNetwork::None, far(), node, nothing(), true),
        ] {
            let made = plan(network, [peer].into_iter(), &links, &Tables::default());
            assert_eq!(made.add, add, "{network:?} {links:?}");
            assert_eq!(made.unreachable.is_empty(), reachable, "{network:?} {links:?}");
            assert_eq!(made.remove, nothing());
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
        let observed = Tables { routes: [route(peer(1, 2))].into(), ..Tables::default() };
        let plan = plan(NodeNetwork::Auto, [peer(1, 2)].into_iter(), &far(), &observed);
        assert_eq!((plan.remove, plan.add), (observed, tunnel(peer(1, 2))));
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
            let mut have = plan(network, all(&have).into_iter(), &near(), &Tables::default()).add;
            let first = plan(network, all(&want).into_iter(), &near(), &have);
            have = have.without(&first.remove);
            have.routes.extend(first.add.routes);
            have.neighbours.extend(first.add.neighbours);
            have.forwarding.extend(first.add.forwarding);
            prop_assert_eq!(plan(network, all(&want).into_iter(), &near(), &have), Plan::default());
        }
    }
}

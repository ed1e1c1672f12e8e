//! Which way leads to each node's pods, and what to add and remove for it. Pure.
//!
//! A node on a common link is a gateway. Any other is reached through a VXLAN tunnel as flannel
//! lays it: the tunnel's far end has the first address of the node's part of the pod network; a
//! route leads through it, a neighbour entry tells its hardware address, and a forwarding entry
//! tells the node's own address for that.
//!
//! What a Node says of itself is a stranger's word. `peers` decides whom to believe.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

pub use super::peers::Peer;
use crate::cidr::Cidr4;
use crate::links::Mac;

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

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Via {
    /// To a node on a common link.
    Gateway(Ipv4Addr),
    /// Into the tunnel with this far end.
    Tunnel(Ipv4Addr),
    /// To the pods' bridge, with this source.
    Bridge(Ipv4Addr),
    /// A route of ours in a form that is not wanted any more.
    Other,
}

/// A route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    pub to: Cidr4,
    pub via: Via,
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
    /// Nodes without any way to them, and routes that others have: one line each.
    pub problems: Vec<String>,
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

/// What the kernel has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// What is ours.
    pub ours: Tables,
    /// Where routes of others lead. They stay, and none of ours is laid over one.
    pub foreign: BTreeSet<Cidr4>,
}

/// Compares what `peers`, and the way to Services, need with what is `observed`.
pub fn plan(
    network: NodeNetwork,
    peers: &[Peer],
    services: Option<Route>,
    links: &[Cidr4],
    observed: &Observed,
) -> Plan {
    let (mut want, mut problems) = (Tables::default(), Vec::new());
    let tunnels = matches!(network, NodeNetwork::Auto | NodeNetwork::Vxlan);
    want.routes.extend(services);
    for peer in peers.iter().filter(|_| network != NodeNetwork::None) {
        let to = peer.pod_cidr;
        if network != NodeNetwork::Vxlan && shares_link(peer, links) {
            want.routes.insert(Route { to, via: Via::Gateway(peer.ip) });
        } else if let Some(vtep) = peer.vtep.filter(|_| tunnels) {
            let far = to.addr();
            want.routes.insert(Route { to, via: Via::Tunnel(far) });
            want.neighbours.insert((far, vtep.mac));
            want.forwarding.insert((vtep.mac, vtep.ip));
        } else {
            problems.push(format!("no way to the node {} so far: its pods ({to}) are out of reach", peer.ip));
        }
    }
    want.routes.retain(|route| {
        let taken = observed.foreign.contains(&route.to);
        if taken {
            problems.push(format!("there is a route to {} that is not copepod's: it stays", route.to));
        }
        !taken
    });
    Plan { remove: observed.ours.without(&want), add: want.without(&observed.ours), problems }
}

/// What can be done before other nodes are known: the way to Services is made, everything else stays.
pub fn keep(services: Option<Route>, observed: &Observed) -> Plan {
    let there = |route: &Route| observed.ours.routes.contains(route) || observed.foreign.contains(&route.to);
    // A wrong one of ours in its place goes when all is known.
    let wrong = |route: &Route| observed.ours.routes.iter().any(|ours| ours.to == route.to);
    let routes = services.into_iter().filter(|route| !there(route) && !wrong(route)).collect();
    Plan { add: Tables { routes, ..Tables::default() }, ..Plan::default() }
}

#[cfg(test)]
mod tests;

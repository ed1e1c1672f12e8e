//! Whom among the cluster's nodes to believe, and how far. Pure.
//!
//! Any node writes its own Node object: its pod network, addresses and annotations are a stranger's
//! word. A pod network is routed to only when it lies within the cluster's, touches neither this
//! node's own nor any network this node is in, and nobody else has it; an address only when it can
//! be a node's. Of two nodes that claim the same, the one that is routed to already keeps it, else
//! the older one.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::plan::{Route, Tables, Via};
use crate::api::Node;
use crate::cidr::Cidr4;
use crate::links::Mac;

/// Annotation of a Node: the hardware address of its end of the tunnels; read as [`crate::api::Annotations`].
pub const ANNOTATION_VTEP_MAC: &str = "copepod.local/vtep-mac";
/// Annotation of a Node: the address its tunnels lead to.
pub const ANNOTATION_VTEP_IP: &str = "copepod.local/vtep-ip";

/// The end of a node's tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vtep {
    pub mac: Mac,
    pub ip: Ipv4Addr,
}

impl Vtep {
    /// The hardware address of the tunnels' end on the node `ip`: the same after every start.
    pub fn mac_of(ip: Ipv4Addr) -> Mac {
        let [a, b, c, d] = ip.octets();
        Mac([0x0a, 0x59, a, b, c, d])
    }
}

/// A node: its pods' network and how it can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    pub pod_cidr: Cidr4,
    pub ip: Ipv4Addr,
    /// `None` while it has no tunnels.
    pub vtep: Option<Vtep>,
    /// When its object was created, in seconds.
    pub since: i64,
}

impl Peer {
    /// What the way follows from; `None` while the node lacks an address or its
    /// part of the pod network, or has nonsense there.
    pub fn read(node: &Node) -> Option<Self> {
        let internal = node.status.addresses.iter().filter(|address| address.r#type == "InternalIP");
        let ip = internal.filter_map(|address| address.address.parse().ok()).next()?;
        // Without a time it is nobody's senior.
        let since = node.metadata.creation_timestamp.unwrap_or(i64::MAX);
        Some(Self { pod_cidr: pod_cidr(node)?, ip, vtep: vtep(node), since })
    }

    fn is_routed_to(&self, present: &Tables) -> bool {
        let to = self.pod_cidr;
        present.routes.contains(&Route { to, via: Via::Gateway(self.ip) })
            || present.routes.contains(&Route { to, via: Via::Tunnel(to.addr()) })
                && self.vtep.is_some_and(|vtep| present.forwarding.contains(&(vtep.mac, vtep.ip)))
    }
}

/// A node's IPv4 part of the pod network, whichever family comes first.
pub fn pod_cidr(node: &Node) -> Option<Cidr4> {
    let all = node.spec.pod_cidrs.iter().chain([&node.spec.pod_cidr]);
    all.filter_map(|text| text.parse().ok()).next()
}

pub fn vtep(node: &Node) -> Option<Vtep> {
    let annotations = &node.metadata.annotations;
    let ip = annotations.vtep_ip.as_ref()?.parse().ok()?;
    Some(Vtep { mac: Mac::parse(annotations.vtep_mac.as_ref()?)?, ip })
}

/// The network that all pods are in: as it was named, unless the cluster gave this node a part that
/// is elsewhere. Then nobody can tell its size; most clusters' is 16 bits long.
pub fn cluster_range(named: Cidr4, own: Option<Cidr4>) -> Cidr4 {
    const USUAL: u8 = 16;
    let elsewhere = own.filter(|own| !named.covers(*own) && own.prefix_len() > USUAL);
    elsewhere.and_then(|own| Cidr4::new(own.addr(), USUAL)).unwrap_or(named)
}

/// The network whose packets filters of others are opened for: as [`cluster_range`], but what is only guessed there
/// would let others' packets pass, so no more than this node's own part.
pub fn filtered_range(named: Cidr4, own: Option<Cidr4>) -> Cidr4 {
    own.filter(|own| !named.covers(*own)).unwrap_or(named)
}

/// What this node knows without asking other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalNetworks {
    /// All nodes' pod networks lie within.
    pub cluster_cidr: Cidr4,
    /// No node and no pod has an address of these.
    pub service_cidr: Cidr4,
    /// This node's own pod network.
    pub own: Option<Cidr4>,
    /// This node's addresses.
    pub addresses: Vec<Ipv4Addr>,
    /// The networks this node is directly in, those of its own pods' links not among them.
    pub links: Vec<Cidr4>,
}

impl LocalNetworks {
    /// Why a pod network cannot be another node's.
    fn refuse_network(&self, pod_cidr: Cidr4) -> Option<String> {
        if !self.cluster_cidr.covers(pod_cidr) || self.cluster_cidr == pod_cidr {
            return Some(format!("its pod network {pod_cidr} is not within the cluster's, {}", self.cluster_cidr));
        }
        if let Some(own) = self.own.filter(|own| own.overlaps(pod_cidr)) {
            return Some(format!("its pod network {pod_cidr} overlaps this node's own, {own}"));
        }
        if let Some(here) = self.addresses.iter().find(|ip| pod_cidr.contains(**ip)) {
            return Some(format!("its pod network {pod_cidr} contains {here}, an address of this node"));
        }
        // A link's network around the whole cluster's, 10.0.0.0/8 for instance, does not clash: the longer prefix
        // decides.
        let clashes = |link: &&Cidr4| link.overlaps(pod_cidr) && !link.covers(self.cluster_cidr);
        let here = self.links.iter().find(clashes);
        let here = here.or_else(|| Some(&self.service_cidr).filter(|services| services.overlaps(pod_cidr)));
        here.map(|here| format!("its pod network {pod_cidr} overlaps {here}, which is no pods' network"))
    }

    /// Why an address cannot be another node's.
    fn refuse_address(&self, ip: Ipv4Addr) -> Option<String> {
        let special = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_broadcast();
        let why = if special || ip.is_link_local() {
            "no host can be reached under"
        } else if self.addresses.contains(&ip) {
            "this node has"
        } else if self.cluster_cidr.contains(ip) || self.service_cidr.contains(ip) {
            "pods or Services have"
        } else {
            return None;
        };
        Some(format!("it names the address {ip}, which {why}"))
    }

    /// Whom of `peers` to route to, and why not to the others, one line each. `present` is what
    /// there is already.
    pub fn believe(&self, peers: &BTreeMap<String, Peer>, present: &Tables) -> (Vec<Peer>, Vec<String>) {
        let mut order: Vec<_> = peers.iter().collect();
        order.sort_by_key(|(name, peer)| (!peer.is_routed_to(present), peer.since, (*name).clone()));
        let (mut believed, mut problems) = (Vec::<Peer>::new(), Vec::new());
        for (name, peer) in order {
            let taken = believed.iter().find(|other| other.pod_cidr.overlaps(peer.pod_cidr));
            let taken = taken.map(|other| {
                format!("its pod network {} overlaps {} of the node {}", peer.pod_cidr, other.pod_cidr, other.ip)
            });
            let refusal = self.refuse_network(peer.pod_cidr).or_else(|| self.refuse_address(peer.ip)).or(taken);
            if let Some(why) = refusal {
                problems.push(format!("the node {name} is not routed to: {why}"));
                continue;
            }
            let mut peer = *peer;
            if let Some(vtep) = peer.vtep {
                let used = |mac| believed.iter().any(|other| other.vtep.is_some_and(|other| other.mac == mac));
                let own = self.addresses.iter().any(|own| Vtep::mac_of(*own) == vtep.mac);
                if used(vtep.mac) || own {
                    problems.push(format!("the node {name} has no tunnel: another node has {}", vtep.mac));
                    peer.vtep = None;
                } else if let Some(why) = self.refuse_address(vtep.ip) {
                    problems.push(format!("the node {name} has no tunnel: {why}"));
                    peer.vtep = None;
                }
            }
            believed.push(peer);
        }
        (believed, problems)
    }
}

#[cfg(test)]
mod tests;

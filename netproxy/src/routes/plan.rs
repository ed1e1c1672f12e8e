//! Which routes to add and which to remove. Pure.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Node;

use crate::cidr::Cidr4;

/// Another node: its pods' network and where to send packets for it. The same
/// two facts make a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    pub pod_cidr: Cidr4,
    pub ip: Ipv4Addr,
}

impl Peer {
    /// What routes follow from; `None` while the node lacks an address or its
    /// part of the pod network, or has nonsense there.
    pub fn read(node: &Node) -> Option<Self> {
        let pod_cidr = node.spec.as_ref()?.pod_cidr.as_ref()?.parse().ok()?;
        let addresses = node.status.as_ref()?.addresses.as_ref()?;
        let internal = addresses.iter().filter(|address| address.type_ == "InternalIP");
        let ip = internal.filter_map(|address| address.address.parse().ok()).next()?;
        Some(Self { pod_cidr, ip })
    }
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// First, since a pod network may have moved to another node.
    pub remove: Vec<Peer>,
    pub add: Vec<Peer>,
    /// Nodes without a common link.
    pub unreachable: Vec<Peer>,
}

/// Compares the routes to `peers` with the `observed` ones; `links` are the
/// networks this node is directly in.
pub fn plan(peers: impl Iterator<Item = Peer>, links: &[Cidr4], observed: &BTreeSet<Peer>) -> Plan {
    let (near, unreachable): (BTreeSet<Peer>, Vec<Peer>) = {
        let (near, far): (Vec<_>, Vec<_>) = peers.partition(|peer| links.iter().any(|link| link.contains(peer.ip)));
        (near.into_iter().collect(), far)
    };
    Plan {
        remove: observed.difference(&near).copied().collect(),
        add: near.difference(observed).copied().collect(),
        unreachable,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn peer(third: u8, host: u8) -> Peer {
        Peer { pod_cidr: format!("10.42.{third}.0/24").parse().unwrap(), ip: Ipv4Addr::new(192, 168, 1, host) }
    }

    #[test]
    fn incomplete_nodes_have_no_route() {
        let node = |spec: serde_json::Value, addresses: serde_json::Value| {
            let node = json!({"metadata": {}, "spec": spec, "status": {"addresses": addresses}});
            Peer::read(&serde_json::from_value(node).unwrap())
        };
        let address = json!([{"type": "Hostname", "address": "x"}, {"type": "InternalIP", "address": "192.168.1.7"}]);
        assert_eq!(node(json!({"podCIDR": "10.42.3.0/24"}), address.clone()), Some(peer(3, 7)));
        assert_eq!(node(json!({}), address.clone()), None);
        assert_eq!(node(json!({"podCIDR": "nonsense"}), address), None);
        assert_eq!(node(json!({"podCIDR": "10.42.3.0/24"}), json!([])), None);
    }

    #[test]
    fn a_moved_pod_network_is_removed_before_it_is_added() {
        let links = ["192.168.1.0/24".parse().unwrap()];
        let observed = BTreeSet::from([peer(1, 2), peer(2, 3)]);
        let plan = plan([peer(1, 2), peer(2, 9)].into_iter(), &links, &observed);
        assert_eq!(plan, Plan { remove: vec![peer(2, 3)], add: vec![peer(2, 9)], unreachable: vec![] });
    }

    #[test]
    fn nodes_on_no_common_link_are_named() {
        let plan = plan([peer(1, 2)].into_iter(), &["10.0.0.0/8".parse().unwrap()], &BTreeSet::new());
        assert_eq!(plan, Plan { unreachable: vec![peer(1, 2)], ..Plan::default() });
    }

    proptest! {
        #[test]
        fn performing_the_plan_leaves_nothing_to_do(
            want in proptest::collection::btree_set((0u8..6, 1u8..6), 0..8),
            have in proptest::collection::btree_set((0u8..6, 1u8..6), 0..8),
        ) {
            let links = ["192.168.1.0/24".parse().unwrap()];
            let want: Vec<_> = want.into_iter().map(|(third, host)| peer(third, host)).collect();
            let mut have: BTreeSet<_> = have.into_iter().map(|(third, host)| peer(third, host)).collect();
            let first = plan(want.iter().copied(), &links, &have);
            have.retain(|route| !first.remove.contains(route));
            have.extend(first.add);
            prop_assert_eq!(plan(want.into_iter(), &links, &have), Plan::default());
        }
    }
}

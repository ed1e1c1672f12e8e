//! What a node's network follows from: the cluster's Nodes, folded. Pure.

use std::collections::BTreeMap;

use crate::api::Node;
use crate::cidr::Cidr4;
use crate::informer::Change;
use crate::routes::peers::{self, Peer, Vtep};

/// What the cluster says of this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnNode {
    /// Its part of the pod network.
    pub pod_cidr: Option<Cidr4>,
    /// The end of its tunnels, as other nodes see it.
    pub vtep: Option<Vtep>,
}

/// The cluster's nodes as this node sees them. One that cannot be read stays as it was known before.
#[derive(Clone, Debug)]
pub struct Cluster {
    node_name: String,
    own: OwnNode,
    peers: BTreeMap<String, Peer>,
    complete: bool,
}

impl Cluster {
    /// Nothing is known yet.
    pub fn new(node_name: String) -> Self {
        Self { node_name, own: OwnNode::default(), peers: BTreeMap::new(), complete: false }
    }

    /// Whether all nodes were seen.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// What is known of this node; nothing before all nodes were seen.
    pub fn own(&self) -> OwnNode {
        if self.complete { self.own } else { OwnNode::default() }
    }

    /// Other nodes by name; none before all were seen.
    pub fn peers(&self) -> &BTreeMap<String, Peer> {
        static NONE: BTreeMap<String, Peer> = BTreeMap::new();
        if self.complete { &self.peers } else { &NONE }
    }

    /// Folds a change; tells whether the picture is whole and may have changed.
    pub fn fold(&mut self, change: Change<Node>) -> bool {
        match change {
            Change::Applied(name, node) => self.insert(&name.name, &node),
            Change::Deleted(name) => self.remove(&name.name),
            Change::Listed(listed) => {
                self.complete = true;
                let is_listed = |name: &str| listed.iter().any(|listed| &*listed.name == name);
                if !is_listed(&self.node_name) {
                    self.own = OwnNode::default();
                }
                self.peers.retain(|name, _| is_listed(name));
            }
        }
        self.complete
    }

    fn insert(&mut self, name: &str, node: &Node) {
        if name == self.node_name {
            self.own = OwnNode { pod_cidr: peers::pod_cidr(node), vtep: peers::vtep(node) };
            return;
        }
        match Peer::read(node) {
            Some(peer) => self.peers.insert(name.to_owned(), peer),
            None => self.peers.remove(name),
        };
    }

    fn remove(&mut self, name: &str) {
        if name == self.node_name {
            self.own = OwnNode::default();
        }
        self.peers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::informer::ObjectName;

    fn name(name: &str) -> ObjectName {
        ObjectName { namespace: "".into(), name: name.into() }
    }

    fn applied(node: &str, pod_cidr: &str) -> Change<Node> {
        let object = json!({
            "metadata": {"name": node},
            "spec": {"podCIDR": pod_cidr},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.9"}]},
        });
        Change::Applied(name(node), serde_json::from_value(object).unwrap())
    }

    fn listed(names: &[&str]) -> Change<Node> {
        Change::Listed(names.iter().map(|node| name(node)).collect())
    }

    #[test]
    fn nothing_is_known_before_the_first_list_is_complete() {
        let mut cluster = Cluster::new("own".to_owned());
        assert!(!cluster.fold(applied("own", "10.42.0.0/24")));
        assert!(!cluster.fold(applied("other", "10.42.1.0/24")));
        assert!(!cluster.is_complete() && cluster.own() == OwnNode::default() && cluster.peers().is_empty());
        assert!(cluster.fold(listed(&["own", "other"])));
        assert_eq!(cluster.own().pod_cidr, "10.42.0.0/24".parse().ok());
        assert_eq!(cluster.peers().keys().collect::<Vec<_>>(), ["other"]);
    }

    #[test]
    fn a_list_takes_away_what_it_does_not_name() {
        let mut cluster = Cluster::new("own".to_owned());
        cluster.fold(applied("gone", "10.42.1.0/24"));
        cluster.fold(applied("unreadable", "10.42.2.0/24"));
        cluster.fold(applied("own", "10.42.7.0/24"));
        cluster.fold(listed(&["gone", "unreadable", "own"]));
        assert!(cluster.fold(listed(&["unreadable", "own"])));
        assert_eq!(cluster.peers().keys().collect::<Vec<_>>(), ["unreadable"], "it is there, and as it was known");
        assert!(cluster.fold(applied("own", "fd00::/64")));
        assert_eq!(cluster.own().pod_cidr, None, "a family that is not spoken here ends nothing");
        cluster.fold(applied("own", "10.42.7.0/24"));
        cluster.fold(applied("new", "10.42.1.0/24"));
        cluster.fold(applied("new", ""));
        assert!(!cluster.peers().contains_key("new") && cluster.own().pod_cidr.is_some());
        cluster.fold(Change::Deleted(name("own")));
        assert_eq!(cluster.own(), OwnNode::default());
        cluster.fold(applied("own", "10.42.7.0/24"));
        cluster.fold(listed(&[]));
        assert_eq!((cluster.own(), cluster.peers().len()), (OwnNode::default(), 0));
    }
}

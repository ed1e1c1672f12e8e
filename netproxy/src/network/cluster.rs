//! What a node's network follows from: the cluster's Nodes, folded. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::runtime::watcher;

use crate::cidr::Cidr4;
use crate::routes::peers::{self, ANNOTATION_VTEP_IP, ANNOTATION_VTEP_MAC, Peer, Vtep};

/// What the cluster says of this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// Its part of the pod network.
    pub pod_cidr: Option<Cidr4>,
    /// The end of its tunnels, as other nodes see it.
    pub vtep: Option<Vtep>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Nodes {
    own: Own,
    peers: BTreeMap<String, Peer>,
}

/// The cluster's nodes as this node sees them.
#[derive(Clone, Debug)]
pub struct Cluster {
    node_name: String,
    /// `None` before the first list is complete.
    nodes: Option<Nodes>,
    listing: Option<Nodes>,
}

/// Keeps of a node what its network follows from.
pub fn slim(node: &mut Node) {
    node.metadata.managed_fields = None;
    if let Some(annotations) = &mut node.metadata.annotations {
        annotations.retain(|name, _| name == ANNOTATION_VTEP_MAC || name == ANNOTATION_VTEP_IP);
    }
    if let Some(status) = &mut node.status {
        status.images = None;
        status.conditions = None;
    }
}

impl Cluster {
    /// Nothing is known yet.
    pub fn new(node_name: String) -> Self {
        Self { node_name, nodes: None, listing: None }
    }

    /// Whether all nodes were seen.
    pub fn is_complete(&self) -> bool {
        self.nodes.is_some()
    }

    /// What is known of this node.
    pub fn own(&self) -> Own {
        self.nodes.as_ref().map(|nodes| nodes.own).unwrap_or_default()
    }

    /// Other nodes by name.
    pub fn peers(&self) -> &BTreeMap<String, Peer> {
        static NONE: BTreeMap<String, Peer> = BTreeMap::new();
        self.nodes.as_ref().map_or(&NONE, |nodes| &nodes.peers)
    }

    /// Folds an event; tells whether the picture is whole and may have changed.
    pub fn fold(&mut self, event: watcher::Event<Node>) -> bool {
        match event {
            watcher::Event::Init => self.listing = Some(Nodes::default()),
            watcher::Event::InitApply(node) => {
                self.listing.get_or_insert_with(Nodes::default).insert(&self.node_name, &node);
            }
            watcher::Event::InitDone => self.nodes = Some(self.listing.take().unwrap_or_default()),
            watcher::Event::Apply(node) => {
                if let Some(nodes) = &mut self.nodes {
                    nodes.insert(&self.node_name, &node);
                }
            }
            watcher::Event::Delete(node) => {
                if let Some(nodes) = &mut self.nodes {
                    nodes.remove(&self.node_name, &node.name_any());
                }
            }
        }
        self.listing.is_none() && self.nodes.is_some()
    }
}

impl Nodes {
    fn insert(&mut self, node_name: &str, node: &Node) {
        let name = node.name_any();
        if name == node_name {
            self.own = Own { pod_cidr: peers::pod_cidr(node), vtep: peers::vtep(node) };
            return;
        }
        match Peer::read(node) {
            Some(peer) => self.peers.insert(name, peer),
            None => self.peers.remove(&name),
        };
    }

    fn remove(&mut self, node_name: &str, name: &str) {
        if name == node_name {
            self.own = Own::default();
        }
        self.peers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;
    use watcher::Event;

    use super::*;

    fn node(name: &str, pod_cidr: &str) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"podCIDR": pod_cidr},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.9"}]},
        }))
        .unwrap()
    }

    #[test]
    fn nothing_is_known_before_the_first_list_is_complete() {
        let mut cluster = Cluster::new("own".to_owned());
        assert!(!cluster.fold(Event::Init));
        assert!(!cluster.fold(Event::InitApply(node("own", "10.42.0.0/24"))));
        assert!(!cluster.fold(Event::InitApply(node("other", "10.42.1.0/24"))));
        assert!(!cluster.is_complete() && cluster.own() == Own::default() && cluster.peers().is_empty());
        assert!(cluster.fold(Event::InitDone));
        assert_eq!(cluster.own().pod_cidr, "10.42.0.0/24".parse().ok());
        assert_eq!(cluster.peers().keys().collect::<Vec<_>>(), ["other"]);
    }

    #[test]
    fn a_new_list_replaces_the_old_one_when_it_is_complete() {
        let mut cluster = Cluster::new("own".to_owned());
        for event in [Event::Init, Event::InitApply(node("gone", "10.42.1.0/24")), Event::InitDone, Event::Init] {
            cluster.fold(event);
        }
        assert_eq!(cluster.peers().len(), 1, "until then the old one holds");
        assert!(cluster.fold(Event::InitDone));
        assert!(cluster.peers().is_empty());
        assert!(cluster.fold(Event::Apply(node("own", "fd00::/64"))));
        assert_eq!(cluster.own().pod_cidr, None, "a family that is not spoken here ends nothing");
        cluster.fold(Event::Apply(node("own", "10.42.7.0/24")));
        cluster.fold(Event::Apply(node("new", "10.42.1.0/24")));
        cluster.fold(Event::Apply(node("new", "")));
        assert!(cluster.peers().is_empty() && cluster.own().pod_cidr.is_some());
        cluster.fold(Event::Delete(node("own", "10.42.7.0/24")));
        assert_eq!(cluster.own(), Own::default());
    }
}

//! What changed in the cluster → [`Event`]s on a channel, converted to the compact form that the
//! proxy keeps. While the channel is full, changes wait in the subscription, object by object.

use std::collections::BTreeSet;

use tokio::sync::mpsc;

use crate::api::Node;
use crate::cidr::Cidr4;
use crate::cluster::{Batch, Subscription};
use crate::snapshot::Change;
use crate::snapshot::convert::{is_proxied, service_ports, slice_content, trigger_time};

const LABEL_ZONE: &str = "topology.kubernetes.io/zone";
const TAINT_TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// What the proxy is told.
#[derive(Clone, Debug)]
pub enum Event {
    /// A change of the snapshot, and when what it carries began (milliseconds since 1970).
    Change(Change, Option<i64>),
    /// This node.
    Node {
        /// The zone it is in.
        zone: Option<Box<str>>,
        /// Whether load balancers may use it.
        eligible: bool,
        /// Its part of the pod network.
        pod_cidr: Option<Cidr4>,
    },
    /// The networks that the cluster says its Services have.
    ServiceRanges(BTreeSet<Cidr4>),
}

/// Passes on what changes until nobody receives any more.
pub async fn pass_on(subscription: Subscription, node_name: String, events: mpsc::Sender<Event>) {
    loop {
        for event in convert(&subscription.next().await, &node_name) {
            if events.send(event).await.is_err() {
                return;
            }
        }
    }
}

/// The events of a batch.
fn convert<'a>(batch: &'a Batch, node_name: &'a str) -> impl Iterator<Item = Event> + 'a {
    let node = batch.node.iter().map(|node| match node {
        Some(node) => Event::Node { zone: zone(node), eligible: is_eligible(node), pod_cidr: pod_cidr(node) },
        None => Event::Node { zone: None, eligible: false, pod_cidr: None },
    });
    let ranges = batch.service_ranges.iter().cloned().map(Event::ServiceRanges);
    let services = batch.services.iter().map(|(name, service)| match service {
        Some(service) => Event::Change(Change::Service(name.clone(), service_ports(service)), None),
        None => Event::Change(Change::ServiceGone(name.clone()), None),
    });
    let slices = batch.slices.iter().map(|((service, name), slice)| {
        // A slice may become another proxy's.
        match slice.as_ref().filter(|slice| is_proxied(slice)) {
            Some(slice) => {
                let change = Change::Slice(service.clone(), name.clone(), slice_content(slice, node_name));
                Event::Change(change, trigger_time(slice))
            }
            None => Event::Change(Change::SliceGone(service.clone(), name.clone()), None),
        }
    });
    // After the objects themselves: what is listed is complete.
    let listed =
        [batch.services_listed.then_some(Change::ServicesListed), batch.slices_listed.then_some(Change::SlicesListed)];
    node.chain(ranges)
        .chain(services)
        .chain(slices)
        .chain(listed.into_iter().flatten().map(|change| Event::Change(change, None)))
}

fn zone(node: &Node) -> Option<Box<str>> {
    let zone = node.metadata.labels.get(LABEL_ZONE);
    zone.filter(|zone| !zone.is_empty()).map(|zone| zone.as_str().into())
}

/// The IPv4 network among the node's, `None` while it has none.
fn pod_cidr(node: &Node) -> Option<Cidr4> {
    node.spec.pod_cidrs.iter().chain([&node.spec.pod_cidr]).find_map(|text| text.parse().ok())
}

/// As upstream: a node that is being deleted, or that the autoscaler is about to delete, wants no
/// new connections from load balancers.
fn is_eligible(node: &Node) -> bool {
    node.metadata.deletion_timestamp.is_none() && !node.spec.taints.iter().any(|t| t.key == TAINT_TO_BE_DELETED)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::api::EndpointSlice;
    use crate::snapshot::ServiceName;

    fn events(batch: &Batch) -> Vec<String> {
        convert(batch, "here").map(|event| format!("{event:?}")).collect()
    }

    fn slice(labels: Value) -> Option<Arc<EndpointSlice>> {
        serde_json::from_value(json!({"metadata": {"labels": labels}, "addressType": "IPv4"})).unwrap()
    }

    fn node(object: Value) -> Event {
        let node: Node = serde_json::from_value(object).unwrap();
        convert(&Batch { node: Some(Some(Arc::new(node))), ..Batch::default() }, "here").next().unwrap()
    }

    #[test]
    fn slices_that_are_not_for_us_count_as_gone() {
        let name = ServiceName { namespace: "ns".into(), name: "svc".into() };
        for (slice, gone) in [
            (slice(json!({})), false),
            (slice(json!({"service.kubernetes.io/headless": ""})), true),
            (slice(json!({"service.kubernetes.io/service-proxy-name": "other"})), true),
            (None, true),
        ] {
            let batch = Batch { slices: [((name.clone(), "a".into()), slice)].into(), ..Batch::default() };
            let events = events(&batch);
            assert_eq!(events[0].contains("SliceGone"), gone, "{events:?}");
        }
    }

    #[test]
    fn a_list_is_complete_after_its_objects() {
        let name = ServiceName { namespace: "ns".into(), name: "svc".into() };
        let batch = Batch { services: [(name, None)].into(), services_listed: true, ..Batch::default() };
        let events = events(&batch);
        assert!(events[0].contains("ServiceGone") && events[1].contains("ServicesListed"), "{events:?}");
        assert_eq!(events.len(), 2);
    }

    #[test]
    fn reads_this_node() {
        let there = json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "a"}},
            "spec": {"podCIDR": "10.42.0.0/24", "podCIDRs": ["fd00::/64", "10.42.0.0/24"]}});
        let Event::Node { zone, eligible, pod_cidr } = node(there) else { panic!() };
        assert_eq!((zone.as_deref(), eligible, pod_cidr), (Some("a"), true, "10.42.0.0/24".parse().ok()));
        for leaving in [
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
            json!({"spec": {"taints": [{"key": TAINT_TO_BE_DELETED}]}}),
        ] {
            let Event::Node { eligible, .. } = node(leaving.clone()) else { panic!() };
            assert!(!eligible, "{leaving}");
        }
        let Event::Node { pod_cidr, zone, .. } = node(json!({"spec": {"podCIDR": "mine"}})) else { panic!() };
        assert_eq!((pod_cidr, zone), (None, None));
    }
}

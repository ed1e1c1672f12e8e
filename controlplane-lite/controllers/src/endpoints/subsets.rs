//! The Endpoints object of a Service, as older clients read it. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::Endpoint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::plan::{Desired, Family, HEADLESS_LABEL, families, headless};

/// Addresses in one Endpoints object at most.
pub const MAX_ADDRESSES: usize = 1000;
/// Says that there were more.
pub const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Whose Endpoints these are.
pub const MANAGED_BY_LABEL: &str = "endpoints.kubernetes.io/managed-by";
const MANAGED_BY: &str = "endpoint-controller";

/// The Endpoints for what is desired, on top of what is there. `None` when
/// nothing is to be written.
pub fn endpoints(service: &Service, desired: &Desired, before: Option<&Endpoints>) -> Option<Endpoints> {
    // The object knows one family only: the Service's first.
    let family = families(service).first().copied().unwrap_or(Family::V4);
    let groups = desired.iter().filter(|((f, _), (_, endpoints))| *f == family && !endpoints.is_empty());
    let publish = service.spec.as_ref().is_some_and(|s| s.publish_not_ready_addresses == Some(true));
    let mut subsets: Vec<EndpointSubset> = groups.filter_map(|(_, (ports, e))| subset(ports, e, publish)).collect();
    let truncated = truncate(&mut subsets);
    let mut metadata = before.map(|e| e.metadata.clone()).unwrap_or_else(|| ObjectMeta {
        name: service.metadata.name.clone(),
        namespace: service.metadata.namespace.clone(),
        ..ObjectMeta::default()
    });
    let mut labels: BTreeMap<String, String> = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
    if headless(service) {
        labels.insert(HEADLESS_LABEL.to_owned(), String::new());
    } else {
        labels.remove(HEADLESS_LABEL);
    }
    metadata.labels = Some(labels);
    let mut annotations = metadata.annotations.take().unwrap_or_default();
    annotations.remove(OVER_CAPACITY);
    if truncated {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    }
    metadata.annotations = (!annotations.is_empty()).then_some(annotations);
    let want = Endpoints { metadata, subsets: (!subsets.is_empty()).then_some(subsets) };
    let same = before.is_some_and(|have| {
        have.subsets.as_deref().unwrap_or_default() == want.subsets.as_deref().unwrap_or_default()
            && have.metadata.labels == want.metadata.labels
            && have.metadata.annotations == want.metadata.annotations
    });
    (!same).then_some(want)
}

fn subset(
    ports: &[k8s_openapi::api::discovery::v1::EndpointPort],
    endpoints: &[Endpoint],
    publish: bool,
) -> Option<EndpointSubset> {
    let port = |p: &k8s_openapi::api::discovery::v1::EndpointPort| EndpointPort {
        name: p.name.clone().filter(|n| !n.is_empty()),
        port: p.port.unwrap_or(0),
        protocol: p.protocol.clone(),
        app_protocol: p.app_protocol.clone(),
    };
    let (mut ready, mut waiting) = (Vec::new(), Vec::new());
    for e in endpoints {
        let conditions = e.conditions.clone().unwrap_or_default();
        // Pods being deleted are of no use to clients that know no "terminating".
        if conditions.terminating == Some(true) && !publish {
            continue;
        }
        let list = if conditions.ready == Some(true) { &mut ready } else { &mut waiting };
        list.push(EndpointAddress {
            ip: e.addresses.first().cloned().unwrap_or_default(),
            hostname: e.hostname.clone(),
            node_name: e.node_name.clone(),
            target_ref: e.target_ref.clone(),
        });
    }
    if ready.is_empty() && waiting.is_empty() {
        return None;
    }
    for list in [&mut ready, &mut waiting] {
        list.sort_by(|a, b| a.ip.cmp(&b.ip));
    }
    let mut ports: Vec<EndpointPort> = ports.iter().map(port).collect();
    ports.sort_by(|a, b| (a.port, &a.protocol, &a.name).cmp(&(b.port, &b.protocol, &b.name)));
    let some = |list: Vec<EndpointAddress>| (!list.is_empty()).then_some(list);
    Some(EndpointSubset {
        addresses: some(ready),
        not_ready_addresses: some(waiting),
        ports: (!ports.is_empty()).then_some(ports),
    })
}

/// Cuts to the limit, addresses that are ready last to go.
fn truncate(subsets: &mut Vec<EndpointSubset>) -> bool {
    let count = |list: &Option<Vec<EndpointAddress>>| list.as_ref().map_or(0, Vec::len);
    let total: usize = subsets.iter().map(|s| count(&s.addresses) + count(&s.not_ready_addresses)).sum();
    let mut surplus = total.saturating_sub(MAX_ADDRESSES);
    if surplus == 0 {
        return false;
    }
    for pick_ready in [false, true] {
        for subset in subsets.iter_mut() {
            let list = if pick_ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
            let Some(addresses) = list else { continue };
            let cut = surplus.min(addresses.len());
            addresses.truncate(addresses.len() - cut);
            surplus -= cut;
            if addresses.is_empty() {
                *list = None;
            }
        }
    }
    subsets.retain(|s| s.addresses.is_some() || s.not_ready_addresses.is_some());
    true
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::plan::desired;
    use super::super::plan::tests::{pod, service};
    use super::*;
    use serde_json::json;

    #[test]
    fn ready_and_waiting_addresses_stand_apart() {
        let s = service(json!({"metadata": {"labels": {"team": "x"}}}));
        let unready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
        let dying = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
        let pods = [
            pod("b", "10.0.0.2", json!({})),
            pod("a", "10.0.0.1", json!({})),
            pod("c", "10.0.0.3", unready),
            pod("d", "10.0.0.4", dying),
        ];
        let want = desired(&s, &pods, &|_| None);
        let made = endpoints(&s, &want, None).unwrap();
        let subset = &made.subsets.as_ref().unwrap()[0];
        let ips = |l: &Option<Vec<EndpointAddress>>| l.iter().flatten().map(|a| a.ip.clone()).collect::<Vec<_>>();
        assert_eq!(
            (ips(&subset.addresses), ips(&subset.not_ready_addresses)),
            (vec!["10.0.0.1".into(), "10.0.0.2".into()], vec!["10.0.0.3".to_owned()])
        );
        let labels = made.metadata.labels.as_ref().unwrap();
        assert_eq!((labels["team"].as_str(), labels[MANAGED_BY_LABEL].as_str()), ("x", "endpoint-controller"));
        assert_eq!(endpoints(&s, &want, Some(&made)), None);
        let none = desired(&s, &[], &|_| None);
        assert_eq!(endpoints(&s, &none, Some(&made)).unwrap().subsets, None);
    }

    #[test]
    fn too_many_addresses_are_cut_and_said_so() {
        let s = service(json!({}));
        let unready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
        let pods: Vec<_> = (0..1100)
            .map(|i| {
                pod(
                    &format!("p{i}"),
                    &format!("10.0.{}.{}", i / 200, i % 200),
                    if i < 150 { unready.clone() } else { json!({}) },
                )
            })
            .collect();
        let made = endpoints(&s, &desired(&s, &pods, &|_| None), None).unwrap();
        let subset = &made.subsets.as_ref().unwrap()[0];
        assert_eq!(
            (subset.addresses.as_ref().unwrap().len(), subset.not_ready_addresses.as_ref().unwrap().len()),
            (950, 50)
        );
        assert_eq!(made.metadata.annotations.unwrap()[OVER_CAPACITY], "truncated");
    }
}

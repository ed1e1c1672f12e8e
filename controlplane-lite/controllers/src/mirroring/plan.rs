//! Which slices mirror an Endpoints object, and what has to change. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::endpoints::slices::{MANAGED_BY_LABEL, SERVICE_LABEL};
use client::objects::{annotation, controller_ref, label, name};

/// Value of the managed-by label on mirrored slices.
pub const MANAGED_BY: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that say something of the Endpoints alone.
const NOT_MIRRORED: [&str; 2] =
    ["endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration"];
/// Addresses of one subset at most, as upstream.
const MAX_ENDPOINTS: usize = 1000;

/// What to do with the slices of one Endpoints object.
#[derive(Debug, Default, PartialEq)]
pub struct Changes {
    /// New slices.
    pub create: Vec<EndpointSlice>,
    /// Slices with other content.
    pub update: Vec<EndpointSlice>,
    /// Names of slices that nothing needs.
    pub delete: Vec<String>,
}

/// Whether the Endpoints are somebody's own, and to be mirrored.
pub fn mirrored(endpoints: &Endpoints, service: Option<&Service>) -> bool {
    let meta = &endpoints.metadata;
    let selects =
        |s: &Service| s.spec.as_ref().is_some_and(|s| s.selector.as_ref().is_some_and(|selector| !selector.is_empty()));
    label(meta, SKIP_MIRROR) != Some("true")
        && annotation(meta, LEADER).is_none()
        && meta.deletion_timestamp.is_none()
        && service.is_some_and(|s| !selects(s))
}

/// Brings the existing slices in line with the Endpoints.
pub fn reconcile(endpoints: &Endpoints, existing: &[Arc<EndpointSlice>]) -> Changes {
    let mut changes = Changes::default();
    let mut spare: Vec<&Arc<EndpointSlice>> = existing.iter().collect();
    for subset in endpoints.subsets.iter().flatten() {
        for (family, of_family) in [("IPv4", false), ("IPv6", true)] {
            let Some(want) = slice(endpoints, subset, family, of_family) else { continue };
            // A slice's family never changes; one with the same ports needs the least change.
            let fits = |s: &&Arc<EndpointSlice>| s.address_type == family;
            let same_ports = spare.iter().position(|s| fits(s) && s.ports == want.ports);
            let Some(at) = same_ports.or_else(|| spare.iter().position(fits)) else {
                changes.create.push(want);
                continue;
            };
            let have = spare.remove(at);
            let next = EndpointSlice { metadata: merged(&have.metadata, &want.metadata), ..want };
            if next != **have {
                changes.update.push(next);
            }
        }
    }
    changes.delete = spare.into_iter().map(|s| name(&s.metadata).to_owned()).collect();
    changes
}

/// The metadata of an existing slice with what the mirror sets.
fn merged(have: &ObjectMeta, want: &ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        labels: want.labels.clone(),
        annotations: want.annotations.clone(),
        owner_references: want.owner_references.clone(),
        ..have.clone()
    }
}

fn slice(endpoints: &Endpoints, subset: &EndpointSubset, family: &str, v6: bool) -> Option<EndpointSlice> {
    let all = |addresses: &Option<Vec<EndpointAddress>>, ready: bool| {
        let addresses = addresses.clone().unwrap_or_default().into_iter();
        addresses.filter(move |a| a.ip.contains(':') == v6).map(move |a| endpoint(a, ready)).collect::<Vec<_>>()
    };
    let mut mirrored = all(&subset.addresses, true);
    mirrored.extend(all(&subset.not_ready_addresses, false));
    mirrored.truncate(MAX_ENDPOINTS);
    if mirrored.is_empty() {
        return None;
    }
    let ports = subset.ports.iter().flatten().map(|port| EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        app_protocol: port.app_protocol.clone(),
    });
    let meta = &endpoints.metadata;
    let mut labels = meta.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_LABEL.to_owned(), name(meta).to_owned());
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
    let mut annotations: BTreeMap<String, String> = meta.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| !NOT_MIRRORED.contains(&key.as_str()));
    Some(EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", name(meta))),
            namespace: meta.namespace.clone(),
            labels: Some(labels),
            annotations: (!annotations.is_empty()).then_some(annotations),
            owner_references: Some(vec![controller_ref(endpoints)]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        endpoints: Some(mirrored),
        ports: Some(ports.collect()),
    })
}

fn endpoint(address: EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.filter(|hostname| !hostname.is_empty()),
        node_name: address.node_name,
        target_ref: address.target_ref,
        ..Endpoint::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, from_value, json};

    fn endpoints(subsets: &Value) -> Endpoints {
        let metadata = json!({"name": "external", "namespace": "ns", "uid": "e", "labels": {"team": "x"},
            "annotations": {"note": "kept", "kubectl.kubernetes.io/last-applied-configuration": "{}"}});
        from_value(json!({"metadata": metadata, "subsets": subsets})).unwrap()
    }

    fn service(selector: &Value) -> Service {
        from_value(json!({"metadata": {"name": "external"}, "spec": {"selector": selector}})).unwrap()
    }

    #[test]
    fn only_endpoints_of_services_without_selector_are_mirrored() {
        let mut own = endpoints(&json!([]));
        assert!(mirrored(&own, Some(&service(&json!({})))) && mirrored(&own, Some(&service(&json!(null)))));
        assert!(!mirrored(&own, Some(&service(&json!({"app": "a"})))) && !mirrored(&own, None));
        own.metadata.labels.get_or_insert_default().insert(SKIP_MIRROR.into(), "true".into());
        assert!(!mirrored(&own, Some(&service(&json!({})))));
    }

    #[test]
    fn a_subset_becomes_a_slice_per_family() {
        let subsets = json!([{
            "addresses": [{"ip": "10.0.0.1", "nodeName": "n"}, {"ip": "fd00::1"}],
            "notReadyAddresses": [{"ip": "10.0.0.2"}],
            "ports": [{"port": 8080, "name": "http"}],
        }]);
        let made = reconcile(&endpoints(&subsets), &[]).create;
        let shown: Vec<_> = made
            .iter()
            .map(|s| {
                let ready = |e: &Endpoint| e.conditions.as_ref().unwrap().ready.unwrap();
                let all = s.endpoints.iter().flatten().map(|e| (e.addresses[0].as_str(), ready(e))).collect::<Vec<_>>();
                (s.address_type.as_str(), all)
            })
            .collect();
        assert_eq!(shown, [("IPv4", vec![("10.0.0.1", true), ("10.0.0.2", false)]), ("IPv6", vec![("fd00::1", true)])]);
        let meta = &made[0].metadata;
        assert_eq!(meta.generate_name.as_deref(), Some("external-"));
        assert_eq!((label(meta, SERVICE_LABEL), label(meta, MANAGED_BY_LABEL)), (Some("external"), Some(MANAGED_BY)));
        assert_eq!((label(meta, "team"), annotation(meta, "note")), (Some("x"), Some("kept")));
        assert_eq!(meta.annotations.as_ref().unwrap().len(), 1);
        assert_eq!(meta.owner_references.as_ref().unwrap()[0].kind, "Endpoints");
    }

    #[test]
    fn slices_follow_and_are_left_alone_when_right() {
        let subset = |ip: &str, port: i32| json!({"addresses": [{"ip": ip}], "ports": [{"port": port}]});
        let first = endpoints(&json!([subset("10.0.0.1", 80)]));
        let mut stored = reconcile(&first, &[]).create.remove(0);
        stored.metadata.name = Some("external-abc".into());
        let stored = [Arc::new(stored)];
        assert_eq!(reconcile(&first, &stored), Changes::default());
        let moved = reconcile(&endpoints(&json!([subset("10.0.0.9", 80)])), &stored);
        assert_eq!((moved.create.len(), moved.update.len(), moved.delete.len()), (0, 1, 0));
        assert_eq!(moved.update[0].metadata.name.as_deref(), Some("external-abc"));
        let more = reconcile(&endpoints(&json!([subset("10.0.0.2", 81), subset("10.0.0.1", 80)])), &stored);
        assert_eq!((more.create.len(), more.update.len(), more.delete.len()), (1, 1, 0));
        assert_eq!(reconcile(&endpoints(&json!([])), &stored).delete, ["external-abc"]);
    }
}

//! Which slices mirror an Endpoints object, and what has to change; as upstream's
//! pkg/controller/endpointslicemirroring/reconciler.go. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::repack::{Group, repack};
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
pub const MAX_ENDPOINTS: usize = 1000;

/// What to do with the slices of one Endpoints object.
#[derive(Debug, Default, PartialEq)]
pub struct Changes {
    /// New slices.
    pub create: Vec<EndpointSlice>,
    /// Slices with other content.
    pub update: Vec<EndpointSlice>,
    /// Names of slices that nothing needs.
    pub delete: Vec<String>,
    /// Addresses that are none.
    pub invalid: usize,
    /// Addresses beyond what one subset may have.
    pub skipped: usize,
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

/// Brings the existing slices in line with the Endpoints: a slice for each family of each group of addresses.
pub fn reconcile(endpoints: &Endpoints, existing: &[Arc<EndpointSlice>]) -> Changes {
    let mut changes = Changes::default();
    let mut wanted = Vec::new();
    for group in repack(endpoints.subsets.as_deref().unwrap_or_default()) {
        let (by_family, invalid, skipped) = mirror(&group);
        changes.invalid += invalid;
        changes.skipped += skipped;
        let families = ["IPv4", "IPv6"].into_iter().zip(by_family).filter(|(_, endpoints)| !endpoints.is_empty());
        wanted.extend(families.map(|(family, mirrored)| slice(endpoints, &group, family, mirrored)));
    }
    let mut spare: Vec<&Arc<EndpointSlice>> = existing.iter().collect();
    let mut without = Vec::new();
    for want in wanted {
        // One with the same ports needs the least change.
        match spare.iter().position(|s| s.address_type == want.address_type && s.ports == want.ports) {
            Some(at) => changes.keep(spare.remove(at), want),
            None => without.push(want),
        }
    }
    for want in without {
        // A slice's family never changes.
        match spare.iter().position(|s| s.address_type == want.address_type) {
            Some(at) => changes.keep(spare.remove(at), want),
            None => changes.create.push(want),
        }
    }
    changes.delete = spare.into_iter().map(|s| name(&s.metadata).to_owned()).collect();
    changes
}

impl Changes {
    /// Makes an existing slice what is wanted.
    fn keep(&mut self, have: &Arc<EndpointSlice>, want: EndpointSlice) {
        let next = EndpointSlice { metadata: merged(&have.metadata, &want.metadata), ..want };
        if next != **have {
            self.update.push(next);
        }
    }
}

/// The endpoints of a group, IPv4 and IPv6 apart, how many addresses are none, and how many are too many.
fn mirror(group: &Group) -> ([Vec<Endpoint>; 2], usize, usize) {
    let (mut v4, mut v6, mut invalid) = (Vec::new(), Vec::new(), 0);
    let mut addresses = group.addresses.iter();
    for (address, ready) in addresses.by_ref() {
        match parse_ip(&address.ip) {
            Some(ip @ IpAddr::V4(_)) => v4.push(endpoint(address, ip, *ready)),
            Some(ip @ IpAddr::V6(_)) => v6.push(endpoint(address, ip, *ready)),
            None => invalid += 1,
        }
        if v4.len() + v6.len() == MAX_ENDPOINTS {
            break;
        }
    }
    ([v4, v6], invalid, addresses.count())
}

/// An address as Go's older parser reads it: zeros may lead an octet, and an IPv4 address in IPv6 form is one.
fn parse_ip(text: &str) -> Option<IpAddr> {
    let octets = || {
        let octet = |part: &str| if part.bytes().all(|b| b.is_ascii_digit()) { part.parse::<u8>().ok() } else { None };
        let octets: Vec<u8> = text.split('.').map(octet).collect::<Option<_>>()?;
        Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?)))
    };
    text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical()).or_else(octets)
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

fn slice(endpoints: &Endpoints, group: &Group, family: &str, mirrored: Vec<Endpoint>) -> EndpointSlice {
    let ports = group.ports.iter().map(|port| EndpointPort {
        name: port.name.clone(),
        port: Some(port.port),
        protocol: port.protocol.clone(),
        app_protocol: port.app_protocol.clone(),
    });
    let meta = &endpoints.metadata;
    let mut labels = meta.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_LABEL.to_owned(), name(meta).to_owned());
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
    let mut annotations: BTreeMap<String, String> = meta.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| !NOT_MIRRORED.contains(&key.as_str()));
    EndpointSlice {
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
    }
}

fn endpoint(address: &EndpointAddress, ip: IpAddr, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone().filter(|hostname| !hostname.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
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
        assert_eq!((more.create.len(), more.update.len(), more.delete.len()), (1, 0, 0), "the one that fits stays");
        assert_eq!(reconcile(&endpoints(&json!([])), &stored).delete, ["external-abc"]);
    }

    #[test]
    fn a_slice_that_fits_is_not_given_to_another_group() {
        let subset = |ip: &str, port: i32| json!({"addresses": [{"ip": ip}], "ports": [{"port": port}]});
        let both = endpoints(&json!([subset("10.0.0.1", 80), subset("10.0.0.2", 81)]));
        let mut stored = reconcile(&both, &[]).create;
        for (n, slice) in stored.iter_mut().enumerate() {
            slice.metadata.name = Some(format!("external-{n}"));
        }
        let stored: Vec<_> = stored.into_iter().map(Arc::new).collect();
        // The first group has new ports and would take any slice.
        let changed = endpoints(&json!([subset("10.0.0.1", 99), subset("10.0.0.2", 81)]));
        let changes = reconcile(&changed, &[stored[1].clone(), stored[0].clone()]);
        assert_eq!((changes.create.len(), changes.update.len(), changes.delete.len()), (0, 1, 0));
        assert_eq!(changes.update[0].metadata.name, stored[0].metadata.name);
    }

    #[test]
    fn addresses_that_are_none_or_too_many_are_left_out_and_counted() {
        let ips: Vec<Value> = (0..1_205).map(|n| json!({"ip": format!("10.0.{}.{}", n / 250, n % 250)})).collect();
        let subsets = json!([
            {"addresses": ips, "ports": [{"port": 1}]},
            {"addresses": [{"ip": "010.0.0.1"}, {"ip": "::ffff:10.0.0.2"}, {"ip": "host"}], "ports": [{"port": 2}]},
        ]);
        let changes = reconcile(&endpoints(&subsets), &[]);
        assert_eq!((changes.invalid, changes.skipped, changes.create.len()), (1, 205, 2));
        let of = |port: i32| {
            let with = |s: &&EndpointSlice| s.ports.as_ref().unwrap()[0].port == Some(port);
            let slice = changes.create.iter().find(with).unwrap();
            slice.endpoints.iter().flatten().map(|e| e.addresses[0].clone()).collect::<Vec<_>>()
        };
        assert_eq!(of(1).len(), MAX_ENDPOINTS);
        assert_eq!(of(2), ["10.0.0.1", "10.0.0.2"]);
    }
}

//! From the endpoints a Service ought to have and the slices it has, the fewest
//! changes that lead there. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::plan::{Desired, Family, HEADLESS_LABEL, headless, port_key};
use client::objects::{controller_ref, name};

/// Endpoints in one slice at most.
pub const MAX_ENDPOINTS: usize = 100;
/// Whose slices these are.
pub const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY_LABEL`] for slices of this controller.
pub const MANAGED_BY: &str = "endpointslice-controller.k8s.io";
/// The Service a slice belongs to.
pub const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// What to do with the slices of a Service.
#[derive(Debug, Default, PartialEq)]
pub struct Changes {
    /// New slices; the server names them.
    pub create: Vec<EndpointSlice>,
    /// Slices with new content.
    pub update: Vec<EndpointSlice>,
    /// Names of slices to delete.
    pub delete: Vec<String>,
}

/// Compares what is with what ought to be. `existing` are slices of this
/// controller for this Service.
pub fn reconcile(service: &Service, desired: Desired, existing: &[Arc<EndpointSlice>]) -> Changes {
    let mut changes = Changes::default();
    let mut by_group: BTreeMap<(Family, String), Vec<&Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in existing {
        let family = match slice.address_type.as_str() {
            "IPv4" => Family::V4,
            "IPv6" => Family::V6,
            _ => {
                changes.delete.push(name(&slice.metadata).to_owned());
                continue;
            }
        };
        let key = (family, port_key(slice.ports.as_deref().unwrap_or_default()));
        by_group.entry(key).or_default().push(slice);
    }
    let mut spare: Vec<(Family, &Arc<EndpointSlice>)> = Vec::new();
    for (key, slices) in &by_group {
        if !desired.contains_key(key) {
            spare.extend(slices.iter().map(|s| (key.0, *s)));
        }
    }
    for (key, (ports, endpoints)) in desired {
        let slices = by_group.remove(&key).unwrap_or_default();
        let mut group = Group { service, family: key.0, changes: &mut changes };
        group.reconcile(ports, endpoints, slices, &mut spare);
    }
    changes.delete.extend(spare.iter().map(|(_, s)| name(&s.metadata).to_owned()));
    changes
}

struct Group<'a> {
    service: &'a Service,
    family: Family,
    changes: &'a mut Changes,
}

impl Group<'_> {
    fn reconcile(
        &mut self,
        ports: super::plan::Ports,
        endpoints: Vec<Endpoint>,
        slices: Vec<&Arc<EndpointSlice>>,
        spare: &mut Vec<(Family, &Arc<EndpointSlice>)>,
    ) {
        let mut missing: HashMap<String, Endpoint> = endpoints.into_iter().map(|e| (identity(&e), e)).collect();
        // What stays, in its slice and at its place, with its new state.
        let mut kept: Vec<(&EndpointSlice, Vec<Endpoint>)> = Vec::new();
        for slice in slices {
            let stays = slice.endpoints.iter().flatten().filter_map(|e| missing.remove(&identity(e))).collect();
            kept.push((slice.as_ref(), stays));
        }
        let mut rest: Vec<Endpoint> = missing.into_values().collect();
        rest.sort_by_key(identity);
        // Slices that must be written anyway are filled first, then the fullest others.
        kept.sort_by_key(|(slice, stays)| {
            let touched = slice.endpoints.as_deref().unwrap_or_default() != stays.as_slice();
            (!touched, std::cmp::Reverse(stays.len()), name(&slice.metadata).to_owned())
        });
        for (slice, stays) in &mut kept {
            let touched = slice.endpoints.as_deref().unwrap_or_default() != stays.as_slice();
            let room = MAX_ENDPOINTS.saturating_sub(stays.len());
            if !rest.is_empty() && (touched || rest.len() <= room) {
                stays.extend(rest.drain(..rest.len().min(room)));
            }
        }
        let mut anything = kept.iter().any(|(_, stays)| !stays.is_empty());
        while !rest.is_empty() {
            let batch: Vec<Endpoint> = rest.drain(..rest.len().min(MAX_ENDPOINTS)).collect();
            self.place(&ports, batch, spare);
            anything = true;
        }
        if !anything && kept.is_empty() {
            self.place(&ports, Vec::new(), spare);
        }
        self.write(&ports, kept, anything);
    }

    /// Writes changed slices; empty ones go, but for one that says "none".
    fn write(&mut self, ports: &super::plan::Ports, kept: Vec<(&EndpointSlice, Vec<Endpoint>)>, anything: bool) {
        let mut placeholder = !anything;
        for (slice, stays) in kept {
            if stays.is_empty() && !std::mem::take(&mut placeholder) {
                self.changes.delete.push(name(&slice.metadata).to_owned());
                continue;
            }
            let want = self.slice(Some(slice), ports, stays);
            if !same(&want, slice) {
                self.changes.update.push(want);
            }
        }
    }

    /// Endpoints for which no slice has room: a slice of outdated ports is used
    /// again, or a new one made.
    fn place(
        &mut self,
        ports: &super::plan::Ports,
        endpoints: Vec<Endpoint>,
        spare: &mut Vec<(Family, &Arc<EndpointSlice>)>,
    ) {
        match spare.iter().position(|(family, _)| *family == self.family) {
            Some(at) => {
                let (_, slice) = spare.swap_remove(at);
                let want = self.slice(Some(slice), ports, endpoints);
                self.changes.update.push(want);
            }
            None => {
                let want = self.slice(None, ports, endpoints);
                self.changes.create.push(want);
            }
        }
    }

    fn slice(
        &self,
        before: Option<&EndpointSlice>,
        ports: &super::plan::Ports,
        endpoints: Vec<Endpoint>,
    ) -> EndpointSlice {
        let service = name(&self.service.metadata);
        let mut metadata = before.map(|s| s.metadata.clone()).unwrap_or_else(|| ObjectMeta {
            generate_name: Some(format!("{service}-")),
            namespace: self.service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        });
        metadata.labels = Some(labels(self.service));
        metadata.owner_references = Some(vec![controller_ref(self.service)]);
        EndpointSlice {
            metadata,
            address_type: self.family.address_type().to_owned(),
            endpoints: Some(endpoints),
            ports: Some(ports.clone()),
        }
    }
}

/// The labels of the Service, and ours.
fn labels(service: &Service) -> BTreeMap<String, String> {
    let reserved = [MANAGED_BY_LABEL, SERVICE_LABEL, HEADLESS_LABEL];
    let own = service.metadata.labels.clone().unwrap_or_default();
    let mut out: BTreeMap<String, String> = own.into_iter().filter(|(k, _)| !reserved.contains(&k.as_str())).collect();
    if headless(service) {
        out.insert(HEADLESS_LABEL.to_owned(), String::new());
    }
    out.insert(SERVICE_LABEL.to_owned(), name(&service.metadata).to_owned());
    out.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
    out
}

/// Two endpoints with the same identity are the same pod's.
fn identity(e: &Endpoint) -> String {
    let target = e.target_ref.as_ref();
    let uid = target.and_then(|t| t.uid.as_deref()).unwrap_or_default();
    format!("{uid}/{}", e.addresses.join(","))
}

fn same(a: &EndpointSlice, b: &EndpointSlice) -> bool {
    a.metadata.labels == b.metadata.labels
        && a.metadata.owner_references == b.metadata.owner_references
        && a.endpoints.as_deref().unwrap_or_default() == b.endpoints.as_deref().unwrap_or_default()
        && a.ports.as_deref().unwrap_or_default() == b.ports.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::super::plan::desired;
    use super::super::plan::tests::{pod, service};
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use proptest::prelude::*;
    use serde_json::json;

    /// Slices as a server keeps them.
    #[derive(Default)]
    struct Server {
        slices: BTreeMap<String, EndpointSlice>,
        named: usize,
    }

    impl Server {
        fn sync(&mut self, service: &Service, pods: &[Pod]) -> Changes {
            let have: Vec<_> = self.slices.values().cloned().map(Arc::new).collect();
            let changes = reconcile(service, desired(service, pods, &|_| None), &have);
            for slice in &changes.create {
                self.named += 1;
                let key = format!("s-{:04}", self.named);
                let mut slice = slice.clone();
                slice.metadata.name = Some(key.clone());
                self.slices.insert(key, slice);
            }
            for slice in &changes.update {
                self.slices.insert(name(&slice.metadata).to_owned(), slice.clone());
            }
            for gone in &changes.delete {
                self.slices.remove(gone).unwrap();
            }
            changes
        }

        fn addresses(&self) -> BTreeSet<String> {
            let all = self.slices.values().flat_map(|s| s.endpoints.iter().flatten());
            let list: Vec<String> = all.map(|e| e.addresses[0].clone()).collect();
            let set: BTreeSet<String> = list.iter().cloned().collect();
            assert_eq!(list.len(), set.len(), "no address twice");
            set
        }
    }

    fn pods(ids: impl IntoIterator<Item = usize>) -> Vec<Pod> {
        ids.into_iter().map(|i| pod(&format!("p{i}"), &format!("10.42.{}.{}", i / 250, i % 250), json!({}))).collect()
    }

    #[test]
    fn a_service_without_pods_has_one_empty_slice() {
        let (mut server, s) = (Server::default(), service(json!({})));
        let changes = server.sync(&s, &[]);
        assert_eq!((changes.create.len(), server.slices.len()), (1, 1));
        let slice = &changes.create[0];
        let labels = slice.metadata.labels.as_ref().unwrap();
        assert_eq!((labels[SERVICE_LABEL].as_str(), labels[MANAGED_BY_LABEL].as_str()), ("svc", MANAGED_BY));
        assert_eq!(slice.metadata.generate_name.as_deref(), Some("svc-"));
        assert_eq!(server.sync(&s, &[]), Changes::default());
        let filled = server.sync(&s, &pods(0..2));
        assert_eq!((filled.create.len(), filled.update.len(), filled.delete.len()), (0, 1, 0), "the empty one is used");
        let emptied = server.sync(&s, &[]);
        assert_eq!((emptied.update.len(), emptied.delete.len()), (1, 0));
    }

    #[test]
    fn one_changed_pod_is_one_write() {
        let (mut server, s) = (Server::default(), service(json!({})));
        server.sync(&s, &pods(0..250));
        assert_eq!(server.slices.len(), 3);
        assert_eq!(server.sync(&s, &pods(0..250)), Changes::default());
        let mut changed = pods(0..250);
        changed[7] = pod("p7", "10.42.0.7", json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}));
        let changes = server.sync(&s, &changed);
        assert_eq!((changes.create.len(), changes.update.len(), changes.delete.len()), (0, 1, 0));
        let replaced = server.sync(&s, &pods((0..250).filter(|i| *i != 7).chain([999])));
        assert_eq!((replaced.create.len(), replaced.update.len()), (0, 1), "the hole is filled");
    }

    #[test]
    fn a_changed_port_rewrites_slices_in_place() {
        let (mut server, s) = (Server::default(), service(json!({})));
        server.sync(&s, &pods(0..3));
        let other = service(json!({"spec": {"ports": [{"port": 80, "targetPort": 9090, "protocol": "TCP"}]}}));
        let changes = server.sync(&other, &pods(0..3));
        assert_eq!((changes.create.len(), changes.update.len(), changes.delete.len()), (0, 1, 0));
        assert_eq!(changes.update[0].ports.as_ref().unwrap()[0].port, Some(9090));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn any_history_ends_with_exactly_the_wanted_addresses(
            rounds in proptest::collection::vec(proptest::collection::btree_set(0usize..300, 0..260), 1..6),
        ) {
            let (mut server, s) = (Server::default(), service(json!({})));
            for round in rounds {
                let pods = pods(round.iter().copied());
                server.sync(&s, &pods);
                let want: BTreeSet<String> = round.iter().map(|i| format!("10.42.{}.{}", i / 250, i % 250)).collect();
                prop_assert_eq!(server.addresses(), want);
                prop_assert!(server.slices.values().all(|s| s.endpoints.as_ref().unwrap().len() <= MAX_ENDPOINTS));
                prop_assert_eq!(server.sync(&s, &pods), Changes::default());
            }
        }
    }
}

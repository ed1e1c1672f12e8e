//! Keeps the zone current from watches of Services and EndpointSlices.

use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::stream::{self, StreamExt};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use super::read;
use super::zone::{ServiceKey, Zone};

/// The zone, shared between the one who keeps it and those who ask.
#[derive(Debug)]
pub struct SharedZone {
    zone: RwLock<Zone>,
    /// Whether the first lists are in.
    services_listed: AtomicBool,
    slices_listed: AtomicBool,
}

enum Change {
    Service(Box<watcher::Event<Service>>),
    Slice(Box<watcher::Event<EndpointSlice>>),
}

impl SharedZone {
    /// Shares a zone that is still to be filled.
    pub fn new(zone: Zone) -> Self {
        Self { zone: RwLock::new(zone), services_listed: AtomicBool::new(false), slices_listed: AtomicBool::new(false) }
    }

    /// Asks the zone; `None` until it is complete.
    pub fn ask<T>(&self, question: impl FnOnce(&Zone) -> T) -> Option<T> {
        if !self.services_listed.load(Ordering::Acquire) || !self.slices_listed.load(Ordering::Acquire) {
            return None;
        }
        // A poisoned lock means a panic while changing the zone: no answers then.
        self.zone.read().ok().map(|zone| question(&zone))
    }

    fn change(&self, change: impl FnOnce(&mut Zone)) {
        if let Ok(mut zone) = self.zone.write() {
            change(&mut zone);
        }
    }
}

/// Watches until `token` is cancelled; broken watches come back by themselves.
pub async fn keep_current(shared: &SharedZone, client: Client, token: &CancellationToken) {
    let services = watcher(Api::<Service>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .modify(|service| service.metadata.managed_fields = None);
    let slices = watcher(Api::<EndpointSlice>::all(client), watcher::Config::default())
        .default_backoff()
        .modify(|slice| slice.metadata.managed_fields = None);
    let changes = stream::select(
        services.map(|event| event.map(|event| Change::Service(Box::new(event)))).boxed(),
        slices.map(|event| event.map(|event| Change::Slice(Box::new(event)))).boxed(),
    );
    let mut changes = std::pin::pin!(changes);
    let mut listed = Listed::default();
    loop {
        let change = tokio::select! {
            () = token.cancelled() => return,
            // Dropping the future of the next event loses no event.
            change = changes.next() => change,
        };
        match change {
            Some(Ok(Change::Service(event))) => service_event(shared, &mut listed.services, *event),
            Some(Ok(Change::Slice(event))) => slice_event(shared, &mut listed.slices, *event),
            Some(Err(error)) => tracing::debug!(%error, "names of the cluster cannot be watched"),
            None => return,
        }
    }
}

/// What a list under way has named so far; the rest is gone when it ends.
#[derive(Default)]
struct Listed {
    services: Vec<ServiceKey>,
    slices: Vec<(ServiceKey, String)>,
}

fn service_event(shared: &SharedZone, listed: &mut Vec<ServiceKey>, event: watcher::Event<Service>) {
    match event {
        watcher::Event::Init => listed.clear(),
        watcher::Event::InitApply(service) => {
            if let Some((key, entry)) = read::service(&service) {
                listed.push(key.clone());
                shared.change(|zone| zone.put_service(key, entry));
            }
        }
        watcher::Event::InitDone => {
            let mut seen = std::mem::take(listed);
            seen.sort_unstable();
            shared.change(|zone| zone.retain_services(|key| seen.binary_search(key).is_ok()));
            shared.services_listed.store(true, Ordering::Release);
        }
        watcher::Event::Apply(service) => match read::service(&service) {
            Some((key, entry)) => shared.change(|zone| zone.put_service(key, entry)),
            None => forget_service(shared, &service),
        },
        watcher::Event::Delete(service) => forget_service(shared, &service),
    }
}

fn forget_service(shared: &SharedZone, service: &Service) {
    if let (Some(namespace), Some(name)) = (&service.metadata.namespace, &service.metadata.name) {
        let key = ServiceKey { namespace: namespace.clone(), name: name.clone() };
        shared.change(|zone| zone.remove_service(&key));
    }
}

fn slice_event(shared: &SharedZone, listed: &mut Vec<(ServiceKey, String)>, event: watcher::Event<EndpointSlice>) {
    let put = |slice: &EndpointSlice| {
        let key = read::slice_key(slice);
        if let Some((service, name)) = &key {
            shared.change(|zone| zone.put_slice(service, name, read::slice(slice)));
        }
        key
    };
    match event {
        watcher::Event::Init => listed.clear(),
        watcher::Event::InitApply(slice) => listed.extend(put(&slice)),
        watcher::Event::InitDone => {
            let mut seen = std::mem::take(listed);
            seen.sort_unstable();
            shared.change(|zone| zone.retain_slices(|key| seen.binary_search(key).is_ok()));
            shared.slices_listed.store(true, Ordering::Release);
        }
        watcher::Event::Apply(slice) => drop(put(&slice)),
        watcher::Event::Delete(slice) => {
            if let Some((service, name)) = read::slice_key(&slice) {
                shared.change(|zone| zone.remove_slice(&service, &name));
            }
        }
    }
}

/// Declares a zone complete, for tests.
#[cfg(test)]
impl SharedZone {
    pub fn complete(&self) {
        self.services_listed.store(true, Ordering::Release);
        self.slices_listed.store(true, Ordering::Release);
    }
}

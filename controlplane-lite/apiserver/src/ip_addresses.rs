//! Keeps an IPAddress for every cluster IP, as Services come and go. Decides nothing: `allocate::objects` says what
//! there ought to be.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use serde_json::Value;
use tracing::warn;

use super::allocate::objects::{Holder, Repair, allocated_to, holder, ip_addresses, repair};
use super::bootstrap;
use super::registry::{Change, RegistryError, Resource};
use super::server::Server;
use super::services::REPAIR_PERIOD;
use storage::EventKind;
use storage::watch_cache::{CacheWatch, Filter, WatchItem, WatchRequest, WatchStart};

const GROUP: &str = "networking.k8s.io";
/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// The two resources that are to agree.
struct Stored {
    server: Arc<Server>,
    services: Arc<Resource>,
    addresses: Arc<Resource>,
}

/// The names of the IPAddresses that Services have, as of what was last seen of each: a Service that lost its address
/// does not say which it was.
type Seen = HashMap<Holder, Vec<String>>;

/// Follows Services and IPAddresses until the server ends.
pub async fn keep(server: Arc<Server>) {
    let resources = (server.registry.get("", "services"), server.registry.get(GROUP, "ipaddresses"));
    let (Some(services), Some(addresses)) = resources else { return };
    let stored = Stored { server, services, addresses };
    while !stored.server.stopping.is_cancelled() {
        if let Err(error) = stored.follow().await {
            warn!(error = &error as &dyn Error, "cannot keep the IPAddresses of Services");
            // Cancel-safe: the pause is given up with the server.
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = stored.server.stopping.cancelled() => return,
            }
        }
    }
}

impl Stored {
    /// Brings everything in line, then follows changes until a watch ends.
    async fn follow(&self) -> Result<(), RegistryError> {
        let mut services = watch(&self.services)?;
        let mut addresses = watch(&self.addresses)?;
        let mut ticks = tokio::time::interval(REPAIR_PERIOD);
        // What changes before the first repair is the repair's.
        let mut seen = Seen::new();
        loop {
            // Each arm is cancel-safe: an event or tick is taken whole or not at all.
            tokio::select! {
                () = self.server.stopping.cancelled() => return Ok(()),
                _ = ticks.tick() => seen = self.repair().await?,
                item = services.next() => match item {
                    Some(Ok(WatchItem::Event { kind, object })) => {
                        self.service_changed(&mut seen, kind, &object.value()).await?;
                    }
                    Some(Ok(WatchItem::Bookmark { .. })) => {}
                    Some(Err(_)) | None => return Ok(()),
                },
                item = addresses.next() => match item {
                    Some(Ok(WatchItem::Event { kind: EventKind::Deleted, object })) => {
                        self.address_removed(&mut seen, &object.value()).await?;
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return Ok(()),
                },
            }
        }
    }

    /// Compares all Services with all IPAddresses, one at a time, and lets others have their turn in between.
    async fn repair(&self) -> Result<Seen, RegistryError> {
        self.server.registry.fresh().await?;
        let (mut services, mut addresses) = (Vec::new(), Vec::new());
        self.services.cache().for_each(&Filter::all(), |service| services.push(service.clone()));
        self.addresses.cache().for_each(&Filter::all(), |address| addresses.push(address.clone()));
        let mut seen = Seen::new();
        for service in services {
            self.hold(&mut seen, &service.value()).await?;
            tokio::task::yield_now().await;
        }
        for address in addresses {
            self.remove_unless_held(&address.value()).await?;
            tokio::task::yield_now().await;
        }
        Ok(seen)
    }

    async fn service_changed(&self, seen: &mut Seen, kind: EventKind, service: &Value) -> Result<(), RegistryError> {
        let mut lost = seen.remove(&holder(service)).unwrap_or_default();
        let named = ip_addresses(service).into_iter().map(|(name, _)| name);
        if kind == EventKind::Deleted {
            // Also what a repair has not seen.
            lost.extend(named);
        } else {
            self.hold(seen, service).await?;
            let kept: Vec<String> = named.collect();
            lost.retain(|name| !kept.contains(name));
        }
        if lost.is_empty() {
            return Ok(());
        }
        // What was made a moment ago is seen, too.
        self.server.registry.fresh().await?;
        for name in lost {
            if let Some(address) = self.addresses.cache().get("", &name) {
                self.remove_unless_held(&address.value()).await?;
            }
        }
        Ok(())
    }

    /// What somebody removes while a Service holds it comes back.
    async fn address_removed(&self, seen: &mut Seen, address: &Value) -> Result<(), RegistryError> {
        let holder = allocated_to(address).and_then(|(namespace, name)| self.services.cache().get(&namespace, &name));
        match holder {
            Some(service) => self.hold(seen, &service.value()).await,
            None => Ok(()),
        }
    }

    /// Makes what a Service ought to have.
    async fn hold(&self, seen: &mut Seen, service: &Value) -> Result<(), RegistryError> {
        let held = ip_addresses(service);
        if held.is_empty() {
            seen.remove(&holder(service));
        } else {
            seen.insert(holder(service), held.iter().map(|(name, _)| name.clone()).collect());
        }
        for (name, wanted) in held {
            let Some(stored) = self.addresses.cache().get("", &name) else {
                bootstrap::ensure(&self.server, GROUP, "ipaddresses", wanted).await?;
                continue;
            };
            match repair(&stored.value(), &wanted) {
                Repair::Keep => {}
                Repair::Conflict => warn!(address = name, "an IPAddress of a Service belongs to somebody else"),
                Repair::Replace(_) => {
                    let next = |old: &Value| match repair(old, &wanted) {
                        Repair::Replace(next) => Ok(Change::Write(next)),
                        Repair::Keep | Repair::Conflict => Ok(Change::Keep),
                    };
                    gone_is_fine(self.addresses.change("", &name, false, next).await)?;
                }
            }
        }
        Ok(())
    }

    /// Removes an object of the allocator whose Service does not hold that address.
    async fn remove_unless_held(&self, address: &Value) -> Result<(), RegistryError> {
        let Some((namespace, service)) = allocated_to(address) else { return Ok(()) };
        let name = scheme::access::str_at(address, &["metadata", "name"]);
        let holder = self.services.cache().get(&namespace, &service);
        let held = holder.is_some_and(|holder| ip_addresses(&holder.value()).iter().any(|(held, _)| held == name));
        if held {
            return Ok(());
        }
        let still = |old: &Value| {
            let same = allocated_to(old).as_ref() == Some(&(namespace.clone(), service.clone()));
            Ok(if same { Change::Remove(old.clone()) } else { Change::Keep })
        };
        gone_is_fine(self.addresses.change("", name, false, still).await)
    }
}

fn watch(resource: &Resource) -> Result<CacheWatch, RegistryError> {
    let request = WatchRequest::new(Filter::all(), WatchStart::Now);
    Ok(resource.cache().watch(request)?)
}

fn gone_is_fine<T>(result: Result<T, RegistryError>) -> Result<(), RegistryError> {
    match result {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

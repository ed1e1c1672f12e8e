//! Keeps the zone current from a subscription to the cluster.

use std::sync::RwLock;

use tokio_util::sync::CancellationToken;

use super::read;
use super::zone::Zone;
use crate::cluster::{Batch, Subscription};

/// The zone, shared between the one who keeps it and those who ask.
#[derive(Debug)]
pub struct SharedZone {
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    zone: Zone,
    /// Whether the first lists are in.
    services_listed: bool,
    slices_listed: bool,
}

impl SharedZone {
    /// Shares a zone that is still to be filled.
    pub fn new(zone: Zone) -> Self {
        Self { state: RwLock::new(State { zone, services_listed: false, slices_listed: false }) }
    }

    /// Asks the zone; tells, too, whether it is complete. `None` after a panic while it was changed.
    pub fn read<T>(&self, question: impl FnOnce(&Zone, bool) -> T) -> Option<T> {
        let state = self.state.read().ok()?;
        Some(question(&state.zone, state.services_listed && state.slices_listed))
    }

    /// Takes changes in.
    pub fn apply(&self, batch: &Batch) {
        let Ok(mut state) = self.state.write() else { return };
        for (name, service) in &batch.services {
            state.zone.set_service(name, service.as_ref().and_then(|service| read::service(service)));
        }
        for ((service, name), slice) in &batch.slices {
            state.zone.set_slice(service, name, slice.as_ref().map(|slice| read::slice(slice)));
        }
        for (namespace, exists) in &batch.namespaces {
            state.zone.set_namespace(namespace, *exists);
        }
        if let Some(ranges) = &batch.service_ranges {
            state.zone.set_service_ranges(ranges.iter().copied().collect());
        }
        if batch.namespaces_listed {
            state.zone.namespaces_are_known();
        }
        state.services_listed |= batch.services_listed;
        state.slices_listed |= batch.slices_listed;
    }
}

/// Takes changes in until `token` is cancelled.
pub async fn keep_current(shared: &SharedZone, subscription: &Subscription, token: &CancellationToken) {
    while let Some(batch) = token.run_until_cancelled(subscription.next()).await {
        shared.apply(&batch);
    }
}

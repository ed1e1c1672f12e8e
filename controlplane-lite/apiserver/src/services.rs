//! The lock around what Services hold, for the verbs that write them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::allocate::{Cidr, Grant, Pools};
use super::registry::Resource;
use scheme::{FieldErrors, Kind};
use storage::Object;
use storage::watch_cache::Filter;

/// Cluster IPs and node ports of the whole cluster.
#[derive(Debug)]
pub struct Services {
    pools: Mutex<Pools>,
}

fn is_service(kind: &Kind) -> bool {
    kind.group.is_empty() && kind.plural == "services"
}

impl Services {
    /// Nothing taken yet.
    pub fn new(cidr: Cidr, node_ports: (u16, u16)) -> Self {
        Self { pools: Mutex::new(Pools::new(cidr, node_ports)) }
    }

    fn lock(&self) -> MutexGuard<'_, Pools> {
        // The bitmaps are valid after every single step, so a panic elsewhere does not spoil them.
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks what the stored Services hold.
    pub fn occupy(&self, services: &Resource) {
        services.cache().for_each(&Filter::all(), |service| self.lock().occupy(&service.value()));
    }

    /// Completes a Service (other kinds pass untouched).
    ///
    /// # Errors
    /// What is wrong with the fields asked for.
    pub fn fill(&self, kind: &Kind, object: &mut Value, old: Option<&Value>) -> Result<Grant, FieldErrors> {
        if !is_service(kind) {
            return Ok(Grant::default());
        }
        self.lock().fill(object, old, &mut |span| rand::random_range(0..span.max(1)))
    }

    /// Ends a grant after the write it was for.
    pub fn settle(&self, grant: &Grant, written: bool) {
        if *grant != Grant::default() {
            self.lock().settle(grant, written);
        }
    }

    /// Frees what a removed Service held (other kinds pass).
    pub fn vacate(&self, kind: &Kind, object: &Object) {
        if is_service(kind) {
            self.lock().vacate(&object.value());
        }
    }
}

//! What Services hold, for the verbs that write them: grants that end however
//! their request ends, and the repair of what no request could conclude.
//!
//! A grant belongs to one try to write. Dropped before the store was asked it
//! goes back at once. One whose write succeeded or was refused is concluded at
//! once, too; one whose write ended otherwise (the request was cut off, the store
//! did not say) may or may not have been stored: what it took stays taken until
//! [`Services::repair`] has looked at the stored Services.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::allocate::{Cidr, Grant, Pools, Refused};
use super::registry::{Registry, RegistryError, Resource};
use scheme::Kind;
use storage::Object;
use storage::watch_cache::Filter;

/// How long a write may go on after its request was cut off.
const IN_FLIGHT: Duration = Duration::from_secs(60);
/// Upstream's pace of its repair loops.
pub const REPAIR_PERIOD: Duration = Duration::from_secs(180);

/// Cluster IPs and node ports of the whole cluster.
#[derive(Debug)]
pub struct Services {
    state: Mutex<State>,
    /// Those of the state, to be asked without waiting for it: every write of any kind asks.
    repairs: Arc<AtomicU64>,
}

#[derive(Debug)]
struct State {
    pools: Pools,
    open: HashMap<u64, Open>,
    ticket: u64,
    repairs: Arc<AtomicU64>,
    /// What was concluded as written since a repair began to read the stored Services.
    repairing: Option<Vec<Grant>>,
}

/// A grant that is not concluded.
#[derive(Debug)]
struct Open {
    grant: Grant,
    /// Since when nobody will conclude it.
    abandoned: Option<Instant>,
    /// The repairs when it was made.
    repairs: Repairs,
}

/// How many repairs there were. What a write freed is freed by the write only when no repair came in between: the
/// repair may have freed it, and somebody else may hold it since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repairs(u64);

/// A grant that a write is about to use.
#[derive(Debug)]
#[must_use = "a grant is concluded by what became of its write"]
pub struct OpenGrant {
    services: Arc<Services>,
    /// None for what holds nothing, and once concluded.
    ticket: Option<u64>,
    /// Whether the store was asked, so that only its answer tells.
    sent: bool,
}

fn is_service(kind: &Kind) -> bool {
    kind.facts.holds_addresses
}

impl Services {
    /// Nothing taken yet.
    pub fn new(cidr: Cidr, node_ports: (u16, u16)) -> Arc<Self> {
        let pools = Pools::new(cidr, node_ports);
        let repairs = Arc::new(AtomicU64::new(0));
        let state = State { pools, open: HashMap::new(), ticket: 0, repairs: repairs.clone(), repairing: None };
        Arc::new(Self { state: Mutex::new(state), repairs })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The bitmaps are valid after every single step, so a panic elsewhere does not spoil them.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives addresses of these ranges, too.
    pub fn set_added(&self, ranges: Vec<Cidr>) {
        self.lock().pools.set_added(ranges);
    }

    /// All ranges that addresses are given of.
    pub fn ranges(&self) -> Vec<Cidr> {
        self.lock().pools.ranges().collect()
    }

    /// Marks what the stored Services hold.
    pub fn occupy(&self, services: &Resource) {
        services.cache().for_each(&Filter::all(), |service| {
            let service = service.value();
            self.lock().pools.occupy(&service);
        });
    }

    /// A grant of nothing.
    pub fn nothing(self: &Arc<Self>) -> OpenGrant {
        OpenGrant { services: self.clone(), ticket: None, sent: false }
    }

    /// Completes a Service (other kinds pass untouched).
    ///
    /// # Errors
    /// What is wrong with the fields asked for, or what else cannot be had.
    pub fn fill(self: &Arc<Self>, kind: &Kind, object: &mut Value, old: Option<&Value>) -> Result<OpenGrant, Refused> {
        if !is_service(kind) {
            return Ok(self.nothing());
        }
        let mut state = self.lock();
        let grant = state.pools.fill(object, old, &mut |span| rand::random_range(0..span.max(1)))?;
        state.ticket += 1;
        let ticket = state.ticket;
        let repairs = state.repairs();
        state.open.insert(ticket, Open { grant, abandoned: None, repairs });
        drop(state);
        Ok(OpenGrant { services: self.clone(), ticket: Some(ticket), sent: false })
    }

    /// To be asked before a Service is removed, for [`Services::vacate`]. Who asks while a repair goes on may be told
    /// the number before it: then the next repair frees what they would have.
    pub fn repairs(&self) -> Repairs {
        Repairs(self.repairs.load(Ordering::Acquire))
    }

    /// Frees what a removed Service held (other kinds pass). Should the caller be
    /// cut off before, or come after a repair, the next repair does it.
    pub fn vacate(&self, kind: &Kind, object: &Object, before: Repairs) {
        if is_service(kind) {
            let service = object.value();
            self.lock().vacate(&service, before);
        }
    }

    /// Makes what is taken what the stored Services and the writes in flight hold.
    ///
    /// # Errors
    /// When the stored Services cannot be read.
    pub async fn repair(&self, registry: &Registry) -> Result<(), RegistryError> {
        let Some(services) = registry.get("", "services") else { return Ok(()) };
        self.lock().repairing = Some(Vec::new());
        let _repair = Repair(self);
        // From here on the cache shows every write that was answered before.
        registry.fresh().await?;
        let mut stored = Vec::new();
        services.cache().for_each(&Filter::all(), |service| stored.push(service.clone()));
        let mut taken = self.lock().pools.emptied();
        for service in stored {
            // One is decoded at a time, and others get their turn in between: all of them may be gigabytes.
            taken.occupy(&service.value());
            tokio::task::yield_now().await;
        }
        self.lock().rebuild(taken, Instant::now());
        Ok(())
    }
}

/// A repair that goes on. What was concluded meanwhile is of no use once it ends, wherever that is.
struct Repair<'a>(&'a Services);

impl Drop for Repair<'_> {
    fn drop(&mut self) {
        self.0.lock().repairing = None;
    }
}

impl State {
    fn repairs(&self) -> Repairs {
        Repairs(self.repairs.load(Ordering::Acquire))
    }

    fn vacate(&mut self, service: &Value, before: Repairs) {
        if before == self.repairs() {
            self.pools.vacate(service);
        }
    }

    /// `taken` is what the stored Services hold.
    fn rebuild(&mut self, taken: Pools, now: Instant) {
        self.open.retain(|_, open| open.abandoned.is_none_or(|since| now - since < IN_FLIGHT));
        self.repairs.fetch_add(1, Ordering::AcqRel);
        // The ranges may have changed since.
        let added = self.pools.ranges().skip(1).collect();
        self.pools = taken;
        self.pools.set_added(added);
        let concluded = self.repairing.take().unwrap_or_default();
        for grant in concluded.iter().chain(self.open.values().map(|open| &open.grant)) {
            self.pools.retake(grant);
        }
    }
}

impl OpenGrant {
    /// The write is stored.
    pub fn written(mut self) {
        self.conclude(true);
    }

    /// There was no write, or it did not happen.
    pub fn refused(mut self) {
        self.conclude(false);
    }

    /// The write is on its way: cut off from here on, nobody knows whether it arrived.
    pub fn sent(&mut self) {
        self.sent = true;
    }

    /// Whatever the store's answer says; of an error of its own nothing is known.
    pub fn answered<T>(self, answer: &Result<T, RegistryError>, dry_run: bool) {
        match answer {
            _ if dry_run => self.refused(),
            Ok(_) => self.written(),
            Err(error) if error.wrote_nothing() => self.refused(),
            Err(_) => drop(self),
        }
    }

    fn conclude(&mut self, written: bool) {
        let Some(ticket) = self.ticket.take() else { return };
        let mut state = self.services.lock();
        let Some(Open { grant, repairs, .. }) = state.open.remove(&ticket) else { return };
        // What it took is its own whatever was repaired; what it freed is not.
        if !written {
            state.pools.revert(&grant);
        } else if repairs == state.repairs() {
            state.pools.commit(&grant);
        }
        if written && let Some(concluded) = &mut state.repairing {
            concluded.push(grant);
        }
    }
}

impl Drop for OpenGrant {
    fn drop(&mut self) {
        if !self.sent {
            self.conclude(false);
        } else if let Some(ticket) = self.ticket.take()
            && let Some(open) = self.services.lock().open.get_mut(&ticket)
        {
            open.abandoned = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    /// A range with a handful of addresses.
    fn services() -> (Arc<Services>, &'static Kind) {
        let kind = scheme::builtin().kinds().find(|kind| is_service(kind)).unwrap();
        (Services::new("10.43.0.0/29".parse().unwrap(), (30000, 30003)), kind)
    }

    fn service(ip: &str) -> Value {
        json!({"spec": {"type": "ClusterIP", "clusterIP": ip, "ports": [{"port": 80, "protocol": "TCP"}]}})
    }

    fn free(services: &Arc<Services>, kind: &Kind, ip: &str) -> bool {
        services.fill(kind, &mut service(ip), None).is_ok()
    }

    /// A grant whose write is on its way.
    fn sent(services: &Arc<Services>, kind: &Kind, ip: &str) -> OpenGrant {
        let mut held = services.fill(kind, &mut service(ip), None).unwrap();
        held.sent();
        held
    }

    fn rebuild(services: &Services, stored: &[Value], now: Instant) {
        let mut taken = services.lock().pools.emptied();
        services.lock().repairing = Some(Vec::new());
        stored.iter().for_each(|service| taken.occupy(service));
        services.lock().rebuild(taken, now);
    }

    #[tokio::test(start_paused = true)]
    async fn a_grant_that_was_cut_off_is_kept_until_the_stored_services_tell() {
        let (services, kind) = services();
        let (ip, other) = ("10.43.0.2", "10.43.0.3");
        // Cut off after the write was sent: one was stored, the other not.
        let stored = async {
            let _held = (sent(&services, kind, ip), sent(&services, kind, other));
            std::future::pending::<()>().await;
        };
        assert!(tokio::time::timeout(Duration::from_secs(1), stored).await.is_err());
        assert!(!free(&services, kind, ip) && !free(&services, kind, other), "nobody knows yet");
        rebuild(&services, &[], Instant::now());
        assert!(!free(&services, kind, ip), "the write may still arrive");
        rebuild(&services, &[service(ip)], Instant::now() + IN_FLIGHT);
        assert!(!free(&services, kind, ip), "stored");
        assert!(free(&services, kind, other), "not stored: free again");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_of_the_store_decides() {
        let (services, kind) = services();
        let held = |ip| sent(&services, kind, ip);
        held("10.43.0.1").answered::<()>(&Ok(()), false);
        held("10.43.0.2").answered::<()>(&Ok(()), true);
        held("10.43.0.3").answered::<()>(&Err(RegistryError::TooLarge), false);
        held("10.43.0.4").answered::<()>(&Err(RegistryError::Store(storage::StoreError::Closed)), false);
        let taken: Vec<bool> = (1..5).map(|n| !free(&services, kind, &format!("10.43.0.{n}"))).collect();
        assert_eq!(taken, [true, false, false, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_grant_that_no_write_used_goes_back_at_once() {
        let (services, kind) = services();
        let cut_off = async {
            let _held = services.fill(kind, &mut service("10.43.0.2"), None).unwrap();
            std::future::pending::<()>().await;
        };
        assert!(tokio::time::timeout(Duration::from_secs(1), cut_off).await.is_err());
        assert!(free(&services, kind, "10.43.0.2"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_frees_after_a_repair_takes_nothing_from_the_next_holder() {
        let (services, kind) = services();
        services.fill(kind, &mut service("10.43.0.1"), None).unwrap().written();
        services.fill(kind, &mut service("10.43.0.2"), None).unwrap().written();
        let before = services.repairs();
        let mut moved = json!({"spec": {"type": "ExternalName", "externalName": "x.example"}});
        let moving = services.fill(kind, &mut moved, Some(&service("10.43.0.2"))).unwrap();
        // Both writes are stored, the repair sees it, and others get the addresses before the writers are heard of.
        rebuild(&services, &[], Instant::now());
        services.fill(kind, &mut service("10.43.0.1"), None).unwrap().written();
        services.fill(kind, &mut service("10.43.0.2"), None).unwrap().written();
        services.lock().vacate(&service("10.43.0.1"), before);
        moving.written();
        assert!(!free(&services, kind, "10.43.0.1"), "a deletion");
        assert!(!free(&services, kind, "10.43.0.2"), "an update");
        let now = services.repairs();
        services.lock().vacate(&service("10.43.0.1"), now);
        assert!(free(&services, kind, "10.43.0.1"), "in time it is freed");
    }

    /// Every write of every kind asks.
    #[test]
    fn who_asks_for_repairs_does_not_wait_for_services() {
        let (services, _) = services();
        let busy = services.lock();
        assert_eq!(services.repairs(), Repairs(0));
        drop(busy);
        rebuild(&services, &[], Instant::now());
        assert_eq!(services.repairs(), Repairs(1));
    }

    /// The stored Services of all tenants are read one after the other, and others get their turn in between.
    #[tokio::test]
    async fn a_repair_lets_others_go_first() {
        let (api, client) = crate::testing::start().await;
        let path = "/api/v1/namespaces/default/services";
        for n in 0..20 {
            let body = json!({"metadata": {"name": format!("s{n}")}, "spec": {"ports": [{"port": 80}]}});
            crate::testing::expect(crate::testing::post(&client, path, &body).await, http::StatusCode::CREATED);
        }
        let services = &api.server.services;
        // One that is dropped on its way collects nothing any more.
        let mut dropped = Box::pin(services.repair(&api.server.registry));
        assert!(futures::poll!(&mut dropped).is_pending());
        assert!(services.lock().repairing.is_some());
        drop(dropped);
        assert!(services.lock().repairing.is_none());
        let mut repair = std::pin::pin!(services.repair(&api.server.registry));
        let mut turns = 0;
        while futures::poll!(&mut repair).is_pending() {
            turns += 1;
            tokio::task::yield_now().await;
        }
        assert!(turns >= 20, "{turns}");
        let kind = api.server.registry.get("", "services").unwrap().kind.clone();
        assert!(!free(services, &kind, "10.43.0.1"), "what is stored is taken after it, as before");
    }

    #[tokio::test(start_paused = true)]
    async fn a_repair_frees_what_nobody_holds_and_keeps_what_was_written_meanwhile() {
        let (services, kind) = services();
        services.fill(kind, &mut service("10.43.0.1"), None).unwrap().written();
        services.lock().repairing = Some(Vec::new());
        // After the repair began to read, and not in what it has read.
        services.fill(kind, &mut service("10.43.0.2"), None).unwrap().written();
        let open = services.fill(kind, &mut service("10.43.0.3"), None).unwrap();
        let none = services.lock().pools.emptied();
        services.lock().rebuild(none, Instant::now());
        assert!(free(&services, kind, "10.43.0.1"), "its Service is gone");
        assert!(!free(&services, kind, "10.43.0.2") && !free(&services, kind, "10.43.0.3"));
        open.refused();
        assert!(free(&services, kind, "10.43.0.3"));
    }
}

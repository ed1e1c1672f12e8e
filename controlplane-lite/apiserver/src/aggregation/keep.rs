//! Follows APIServices, and the Services and EndpointSlices that they name: which requests go elsewhere, whether they
//! may, and what the servers there say of themselves
//! (k8s.io/kube-aggregator/pkg/controllers/status, `DiscoveryManager` of pkg/apiserver/handler_discovery.go).
//!
//! One task decides what is asked when; each question has a task of its own, so that a dead server holds up nobody.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::warn;

use super::check::{Unavailable, condition, look};
use super::registration::{Moment, register};
use super::{Remote, remote};
use crate::backends;
use crate::registry::{Change, RegistryError, Resource};
use crate::server::Server;
use scheme::access::{at, str_at};
use scheme::apiregistration::{GROUP, is_available, local_condition, with_available};
use storage::Object;
use storage::watch_cache::{CacheWatch, Filter, WatchEnd, WatchItem, WatchRequest, WatchStart};

/// Pause after a failure of the store.
const RETRY: Duration = Duration::from_secs(1);
/// What is well is looked at again after so long.
const RESYNC: Duration = Duration::from_secs(30);
/// A server that does not answer is asked again after so long, each time twice as long, up to [`RESYNC`].
const FIRST_RETRY: Duration = Duration::from_millis(5);
/// What a server says of itself is read again after so long.
const REFRESH: Duration = Duration::from_secs(60);
/// Servers that are asked at the same time.
const AT_ONCE: usize = 5;

/// Follows everything until the server ends.
pub(crate) async fn keep(server: Arc<Server>) {
    while !server.stopping.is_cancelled() {
        if let Err(error) = follow(&server).await {
            warn!(error = &error as &dyn Error, "cannot keep the APIServices");
            // Cancel-safe: the pause is given up with the server.
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = server.stopping.cancelled() => return,
            }
        }
    }
}

/// Puts in force what the stored APIServices say.
pub(crate) fn reload(server: &Server) {
    let Some(services) = server.registry.get(GROUP, "apiservices") else { return };
    let before = server.aggregation.remotes.load();
    let mut remotes = Vec::new();
    services.cache().for_each(&Filter::all(), |object| {
        let service = object.value();
        let (group, version) = (str_at(&service, &["spec", "group"]), str_at(&service, &["spec", "version"]));
        if scheme::builtin().has_group_version(group, version) {
            return;
        }
        let known = before.iter().find(|remote| remote.name == object.name()).map(|remote| &**remote);
        remotes.extend(Remote::new(&service, &server.aggregation.front_proxy, known).map(Arc::new));
    });
    server.aggregation.remotes.store(Arc::new(remotes));
}

fn watch(resource: &Resource) -> Result<CacheWatch, RegistryError> {
    Ok(resource.cache().watch(WatchRequest::new(Filter::all(), WatchStart::Now))?)
}

/// The next change; never, of what is not watched.
async fn next(watch: &mut Option<CacheWatch>) -> Option<Result<WatchItem, WatchEnd>> {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}

/// The Service and the slices' changes, while some APIService names a Service.
#[derive(Default)]
struct Nearby {
    services: Option<CacheWatch>,
    slices: Option<CacheWatch>,
}

impl Nearby {
    fn of(server: &Server, any: bool, before: Self) -> Result<Self, RegistryError> {
        if !any {
            return Ok(Self::default());
        }
        if before.services.is_some() {
            return Ok(before);
        }
        let open = |group, plural| server.registry.get(group, plural).map(|resource| watch(&resource)).transpose();
        Ok(Self { services: open("", "services")?, slices: open("discovery.k8s.io", "endpointslices")? })
    }
}

/// What is to be asked when.
#[derive(Default)]
struct Schedule {
    due: HashMap<String, Instant>,
    failures: HashMap<String, u32>,
    asked: HashSet<String>,
    /// What changed while it was asked.
    again: HashSet<String>,
    /// When a server was read last.
    read: HashMap<String, Instant>,
}

impl Schedule {
    /// As soon as may be, and from the beginning.
    fn now(&mut self, name: &str) {
        self.failures.remove(name);
        self.read.remove(name);
        if self.asked.contains(name) {
            self.again.insert(name.to_owned());
        } else {
            self.due.insert(name.to_owned(), Instant::now());
        }
    }

    fn forget(&mut self, stays: impl Fn(&String) -> bool) {
        self.due.retain(|name, _| stays(name));
        self.failures.retain(|name, _| stays(name));
        self.read.retain(|name, _| stays(name));
    }

    /// When the next is due, if another may be asked.
    fn next(&self) -> Option<Instant> {
        if self.asked.len() >= AT_ONCE { None } else { self.due.values().min().copied() }
    }

    /// Takes one that is due.
    fn take(&mut self) -> Option<String> {
        let now = Instant::now();
        let name = self.due.iter().find(|(_, at)| **at <= now).map(|(name, _)| name.clone())?;
        self.due.remove(&name);
        self.asked.insert(name.clone());
        Some(name)
    }

    /// What came of asking.
    fn done(&mut self, outcome: &Outcome) {
        let name = &outcome.name;
        self.asked.remove(name);
        if self.again.remove(name) {
            self.now(name);
            return;
        }
        if let Some(at) = outcome.read {
            self.read.insert(name.clone(), at);
        }
        let failures = self.failures.entry(name.clone()).or_default();
        let pause = if outcome.failed {
            let pause = FIRST_RETRY.saturating_mul(1 << (*failures).min(20));
            *failures += 1;
            pause.min(RESYNC)
        } else {
            *failures = 0;
            RESYNC
        };
        self.due.insert(name.clone(), Instant::now() + pause);
    }
}

/// What came of asking a server.
struct Outcome {
    name: String,
    /// Whether it did not answer, or its condition could not be written.
    failed: bool,
    /// When what it says of itself was read.
    read: Option<Instant>,
}

/// Brings everything in line, then follows changes until a watch ends.
async fn follow(server: &Arc<Server>) -> Result<(), RegistryError> {
    let Some(resource) = server.registry.get(GROUP, "apiservices") else {
        server.stopping.cancelled().await;
        return Ok(());
    };
    let mut api_services = watch(&resource)?;
    let mut kinds = server.registry.changes();
    let (mut schedule, mut nearby) = (Schedule::default(), Nearby::default());
    let mut asking: JoinSet<Outcome> = JoinSet::new();
    refresh(server, &resource, &mut schedule).await?;
    loop {
        nearby = Nearby::of(server, !server.aggregation.remotes.load().is_empty(), nearby)?;
        while schedule.asked.len() < AT_ONCE
            && let Some(name) = schedule.take()
        {
            let read = schedule.read.get(&name).copied();
            asking.spawn(ask(server.clone(), name, read));
        }
        let due = schedule.next().unwrap_or_else(|| Instant::now() + RESYNC);
        // Each arm is cancel-safe: an event, tick or outcome is taken whole or not at all.
        tokio::select! {
            () = server.stopping.cancelled() => return Ok(()),
            item = api_services.next() => {
                if !matches!(item, Some(Ok(_))) {
                    return Ok(());
                }
                // Once for all that came meanwhile; the end shows again.
                while let Some(Some(Ok(_))) = api_services.next().now_or_never() {}
                refresh(server, &resource, &mut schedule).await?;
            }
            changed = kinds.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                register(server, Moment::Later).await?;
            }
            item = next(&mut nearby.services) => match item {
                Some(Ok(WatchItem::Event { object, .. })) => due_to(server, &mut schedule, &object, object.name()),
                Some(Ok(WatchItem::Bookmark { .. })) => {}
                Some(Err(_)) | None => return Ok(()),
            },
            item = next(&mut nearby.slices) => match item {
                Some(Ok(WatchItem::Event { object, .. })) => {
                    let service = object.label("kubernetes.io/service-name").unwrap_or("");
                    due_to(server, &mut schedule, &object, service);
                }
                Some(Ok(WatchItem::Bookmark { .. })) => {}
                Some(Err(_)) | None => return Ok(()),
            },
            Some(outcome) = asking.join_next() => match outcome {
                Ok(outcome) => schedule.done(&outcome),
                Err(failure) if failure.is_panic() => std::panic::resume_unwind(failure.into_panic()),
                Err(_) => return Ok(()),
            },
            () = tokio::time::sleep_until(due) => {}
        }
    }
}

/// A Service or slice changed.
fn due_to(server: &Server, schedule: &mut Schedule, object: &Object, service: &str) {
    for remote in server.aggregation.remotes.load().iter() {
        if remote.service.name == service && remote.service.namespace == object.namespace() {
            schedule.now(&remote.name);
        }
    }
}

/// Takes the APIServices as they are now. What another Service serves, or the same by other means, is asked anew; what
/// is served here is available.
async fn refresh(server: &Server, resource: &Resource, schedule: &mut Schedule) -> Result<(), RegistryError> {
    let before = server.aggregation.remotes.load_full();
    reload(server);
    register(server, Moment::Later).await?;
    let remotes = server.aggregation.remotes.load_full();
    for remote in remotes.iter() {
        let same = |other: &&Arc<Remote>| other.name == remote.name && other.spec == remote.spec;
        if !before.iter().any(|other| same(&other)) || !is_scheduled(schedule, &remote.name) {
            schedule.now(&remote.name);
        }
    }
    let is_remote = |name: &String| remotes.iter().any(|remote| remote.name == *name);
    schedule.forget(is_remote);
    for gone in before.iter().filter(|remote| !is_remote(&remote.name)) {
        server.aggregation.learn(&gone.name, None);
    }
    let mut locals = Vec::new();
    resource.cache().for_each(&Filter::all(), |object| {
        let service = object.value();
        if at(&service, &["spec", "service"]).is_null() && !is_available(&service) {
            locals.push(object.name().to_owned());
        }
    });
    for name in locals {
        let still = |old: &Value| at(old, &["spec", "service"]).is_null();
        say(resource, &name, &local_condition(&server.now_text()), still).await?;
    }
    Ok(())
}

fn is_scheduled(schedule: &Schedule, name: &str) -> bool {
    schedule.due.contains_key(name) || schedule.asked.contains(name)
}

/// Writes a condition, as long as `still` holds.
async fn say(
    resource: &Resource,
    name: &str,
    condition: &Value,
    still: impl Fn(&Value) -> bool,
) -> Result<(), RegistryError> {
    let next = |old: &Value| {
        let next = if still(old) { with_available(old, condition.clone()) } else { None };
        Ok(next.map_or(Change::Keep, Change::Write))
    };
    match resource.change::<_, RegistryError>("", name, false, next).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

/// Asks the server of an APIService whether it lives, says so in its status, and reads what it says of itself.
async fn ask(server: Arc<Server>, name: String, read: Option<Instant>) -> Outcome {
    let remotes = server.aggregation.remotes.load_full();
    let found = remotes.iter().find(|remote| remote.name == name).cloned();
    let nothing = |name| Outcome { name, failed: false, read: None };
    let (Some(remote), Some(resource)) = (found, server.registry.get(GROUP, "apiservices")) else {
        return nothing(name);
    };
    let service = &remote.service;
    let stored = backends::service(&server, service);
    let slices = backends::slices(&server, service);
    let (found, mut failed) = match look(service, stored.as_ref(), &slices) {
        Err(because) => (Err(because), false),
        Ok(()) => match remote::lives(&server, &remote).await {
            Ok(()) => (Ok(()), false),
            Err(message) => (Err(Unavailable { reason: "FailedDiscoveryCheck", message }), true),
        },
    };
    let condition = condition(found.as_ref().copied(), &server.now_text());
    // Of another spec nothing is known yet.
    let still = |old: &Value| old["spec"] == remote.spec;
    if let Err(error) = say(&resource, &name, &condition, still).await {
        warn!(api_service = name, error = &error as &dyn Error, "cannot say whether an aggregated API is available");
        failed = true;
    }
    let at = Instant::now();
    if found.is_err() {
        server.aggregation.learn(&name, Some(super::Known::default()));
        return Outcome { name, failed, read: None };
    }
    if read.is_some_and(|read| at < read + REFRESH) {
        return Outcome { name, failed, read: None };
    }
    let known = remote::learn(&server, &remote).await;
    // What did not answer is asked soon.
    let answered = known.resources.is_some();
    server.aggregation.learn(&name, Some(known));
    Outcome { name, failed: failed || !answered, read: answered.then_some(at) }
}

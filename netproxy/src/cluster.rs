//! The one set of watches that the service proxy and cluster DNS share. Each of them has a
//! [`Subscription`], which holds what changed since it was last asked, by object: a consumer that is
//! busy holds up nobody, and however many changes an object goes through meanwhile, only its last
//! state waits. Nothing else is kept here but names: for one who subscribes later, a consumer that was
//! started again for instance, everything is listed anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures::FutureExt as _;
use kube::Client;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::{EndpointSlice, Namespace, Node, Service, ServiceCIDR};
use crate::cidr::Cidr4;
use crate::informer::{Change, Ended, Informer, Metrics, ObjectName};
use crate::snapshot::ServiceName;
use crate::snapshot::convert::LABEL_SERVICE_NAME;

/// What changed since the last batch. `None` stands for what is gone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Services by name.
    pub services: BTreeMap<ServiceName, Option<Arc<Service>>>,
    /// EndpointSlices by Service and name.
    pub slices: BTreeMap<(ServiceName, Arc<str>), Option<Arc<EndpointSlice>>>,
    /// This node, when it changed.
    pub node: Option<Option<Arc<Node>>>,
    /// Namespaces, and whether they are there.
    pub namespaces: BTreeMap<Arc<str>, bool>,
    /// All networks of Services that the cluster names, when they changed.
    pub service_ranges: Option<BTreeSet<Cidr4>>,
    /// Whether a list of all Services was completed with this batch.
    pub services_listed: bool,
    /// Whether a list of all EndpointSlices was completed with this batch.
    pub slices_listed: bool,
    /// Whether a list of all namespaces was completed with this batch.
    pub namespaces_listed: bool,
}

#[derive(Debug, Default)]
struct Feed {
    batch: Mutex<Batch>,
    changed: Notify,
}

impl Feed {
    fn lock(&self) -> MutexGuard<'_, Batch> {
        lock(&self.batch)
    }
}

/// What a mutex holds, whatever happened to one who held it: nothing here is left half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One consumer's view of the cluster.
#[derive(Debug)]
pub struct Subscription {
    feed: Arc<Feed>,
}

impl Subscription {
    /// Waits for changes and takes them all. Dropping the future loses nothing.
    pub async fn next(&self) -> Batch {
        loop {
            let batch = std::mem::take(&mut *self.feed.lock());
            if batch != Batch::default() {
                return batch;
            }
            self.feed.changed.notified().await;
        }
    }
}

/// The subscribers, to be told of changes. One that is dropped is forgotten.
#[derive(Clone, Debug, Default)]
pub struct Publisher {
    feeds: Arc<Mutex<Vec<Weak<Feed>>>>,
}

impl Publisher {
    /// Adds a subscriber, which learns what changes from now on.
    pub fn subscribe(&self) -> Subscription {
        let feed = Arc::new(Feed::default());
        lock(&self.feeds).push(Arc::downgrade(&feed));
        Subscription { feed }
    }

    /// Adds changes to everybody's batch.
    pub fn publish(&self, change: impl Fn(&mut Batch)) {
        lock(&self.feeds).retain(|feed| {
            let Some(feed) = feed.upgrade() else { return false };
            change(&mut feed.lock());
            feed.changed.notify_one();
            true
        });
    }
}

/// Names of what was told, by which it is known what is gone. They outlive a watch that begins anew.
#[derive(Debug, Default)]
struct Known {
    services: Mutex<BTreeSet<ObjectName>>,
    /// The Service that a slice belongs to may change, and events of deletion may not tell it.
    slices: Mutex<HashMap<ObjectName, ServiceName>>,
    /// A node that was never there is not one that is gone.
    node: Mutex<bool>,
    namespaces: Mutex<BTreeSet<ObjectName>>,
    service_ranges: Mutex<HashMap<ObjectName, Vec<Cidr4>>>,
}

/// The watches; clones are the same ones.
#[derive(Clone)]
#[allow(missing_debug_implementations, reason = "the client has none")]
pub struct Cluster {
    client: Client,
    node_name: String,
    metrics: Metrics,
    namespaces: bool,
    publisher: Publisher,
    known: Arc<Known>,
    /// Subscribers that are to be told everything: not before the next lists begin, since what is left of those that
    /// are under way would look like all there is.
    joining: Arc<Mutex<Vec<Weak<Feed>>>>,
    joined: Arc<Notify>,
}

impl Cluster {
    /// Will watch Services, EndpointSlices, the node of this name, and, where that is allowed, the networks of Services.
    #[must_use]
    pub fn new(client: Client, node_name: impl Into<String>, metrics: Metrics) -> Self {
        Self {
            client,
            node_name: node_name.into(),
            metrics,
            namespaces: false,
            publisher: Publisher::default(),
            known: Arc::default(),
            joining: Arc::default(),
            joined: Arc::default(),
        }
    }

    /// Will watch namespaces, too, where that is allowed.
    #[must_use]
    pub fn with_namespaces(self) -> Self {
        Self { namespaces: true, ..self }
    }

    /// Adds a consumer, which will see everything, whenever it comes.
    pub fn subscribe(&self) -> Subscription {
        let feed = Arc::new(Feed::default());
        lock(&self.joining).push(Arc::downgrade(&feed));
        self.joined.notify_one();
        Subscription { feed }
    }

    /// Watches until `token` is cancelled.
    pub async fn run(&self, token: CancellationToken) {
        while token.run_until_cancelled(self.watch()).await.is_some() {}
    }

    /// Watches until somebody joins.
    async fn watch(&self) {
        lock(&self.publisher.feeds).append(&mut lock(&self.joining));
        // Dropping the set ends the watches.
        let mut watches = self.watches();
        loop {
            // Each arm only waits: what one is told stays, and a watch that has ended is waited for but once.
            tokio::select! {
                () = self.joined.notified() => if !lock(&self.joining).is_empty() { break },
                Some(ended) = watches.join_next() => match ended {
                    Ok((told, Ended::Forbidden)) => tracing::info!("{told}"),
                    Ok((_, Ended::Unwanted)) => {}
                    // As it would without a task of its own.
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                },
            }
        }
        // None of these may tell anything once the next ones list.
        watches.shutdown().await;
    }

    /// Each tells, at its end, what it means that it was refused.
    fn watches(&self) -> JoinSet<(&'static str, Ended)> {
        const REFUSED: &str = "not watched any more";
        let mut watches = JoinSet::new();
        let told = || (self.publisher.clone(), Arc::clone(&self.known));
        let services = Informer::all(self.client.clone(), self.metrics.clone());
        watches.spawn(services.run(publish_services(told())).map(|ended| (REFUSED, ended)));
        let slices = Informer::all(self.client.clone(), self.metrics.clone());
        watches.spawn(slices.run(publish_slices(told())).map(|ended| (REFUSED, ended)));
        let node = Informer::named(self.client.clone(), self.metrics.clone(), &self.node_name);
        watches.spawn(node.run(publish_node(told())).map(|ended| (REFUSED, ended)));
        let ranges = Informer::all(self.client.clone(), self.metrics.clone()).optional();
        let ranges = ranges.run(publish_service_ranges(told()));
        let told_of = "ServiceCIDRs may not be watched, or there are none: ranges that are added later are not known";
        watches.spawn(ranges.map(move |ended| (told_of, ended)));
        if self.namespaces {
            let namespaces = Informer::all(self.client.clone(), self.metrics.clone()).optional();
            let namespaces = namespaces.run(publish_namespaces(told()));
            let told_of = "namespaces may not be watched: pods' names are answered in any";
            watches.spawn(namespaces.map(move |ended| (told_of, ended)));
        }
        watches
    }
}

/// Whom to tell, and what was told.
type Told = (Publisher, Arc<Known>);

fn publish_services((publisher, known): Told) -> impl FnMut(Change<Service>) -> bool + Send {
    move |change| {
        let mut known = lock(&known.services);
        match change {
            Change::Applied(name, service) => {
                let service = Arc::new(service);
                publisher.publish(|batch| drop(batch.services.insert(name.clone(), Some(Arc::clone(&service)))));
                known.insert(name);
            }
            Change::Deleted(name) => {
                known.remove(&name);
                publisher.publish(|batch| drop(batch.services.insert(name.clone(), None)));
            }
            Change::Listed(listed) => {
                let gone: Vec<_> = known.difference(&listed).cloned().collect();
                known.retain(|name| listed.contains(name));
                publisher.publish(|batch| {
                    batch.services.extend(gone.iter().map(|name| (name.clone(), None)));
                    batch.services_listed = true;
                });
            }
        }
        true
    }
}

fn publish_slices((publisher, known): Told) -> impl FnMut(Change<EndpointSlice>) -> bool + Send {
    let key = |service: &ServiceName, slice: &ObjectName| (service.clone(), Arc::clone(&slice.name));
    move |change| {
        let mut known = lock(&known.slices);
        match change {
            Change::Applied(name, slice) => {
                let label = slice.metadata.labels.get(LABEL_SERVICE_NAME).filter(|label| !label.is_empty());
                let service = label
                    .map(|label| ServiceName { namespace: Arc::clone(&name.namespace), name: label.as_str().into() });
                let before = match &service {
                    Some(service) => known.insert(name.clone(), service.clone()),
                    None => known.remove(&name),
                };
                let slice = Arc::new(slice);
                publisher.publish(|batch| {
                    if let Some(before) = before.as_ref().filter(|before| service.as_ref() != Some(before)) {
                        batch.slices.insert(key(before, &name), None);
                    }
                    if let Some(service) = &service {
                        batch.slices.insert(key(service, &name), Some(Arc::clone(&slice)));
                    }
                });
            }
            Change::Deleted(name) => {
                if let Some(service) = known.remove(&name) {
                    publisher.publish(|batch| drop(batch.slices.insert(key(&service, &name), None)));
                }
            }
            Change::Listed(listed) => {
                let gone: Vec<_> = known.extract_if(|name, _| !listed.contains(name)).collect();
                publisher.publish(|batch| {
                    batch.slices.extend(gone.iter().map(|(name, service)| (key(service, name), None)));
                    batch.slices_listed = true;
                });
            }
        }
        true
    }
}

fn publish_node((publisher, known): Told) -> impl FnMut(Change<Node>) -> bool + Send {
    move |change| {
        let mut known = lock(&known.node);
        let node = match change {
            Change::Applied(_, node) => Some(Arc::new(node)),
            Change::Listed(listed) if !*known || !listed.is_empty() => return true,
            Change::Deleted(_) | Change::Listed(_) => None,
        };
        *known = node.is_some();
        publisher.publish(|batch| batch.node = Some(node.clone()));
        true
    }
}

fn publish_service_ranges((publisher, known): Told) -> impl FnMut(Change<ServiceCIDR>) -> bool + Send {
    move |change| {
        let mut known = lock(&known.service_ranges);
        let all = |known: &HashMap<_, Vec<Cidr4>>| known.values().flatten().copied().collect::<BTreeSet<_>>();
        let before = all(&known);
        let listed = matches!(change, Change::Listed(_));
        match change {
            // Of two families the one that is spoken.
            Change::Applied(name, range) => {
                known.insert(name, range.spec.cidrs.iter().filter_map(|text| text.parse().ok()).collect());
            }
            Change::Deleted(name) => drop(known.remove(&name)),
            Change::Listed(listed) => known.retain(|name, _| listed.contains(name)),
        }
        let after = all(&known);
        // One who subscribed since knows nothing.
        if listed || before != after {
            publisher.publish(|batch| batch.service_ranges = Some(after.clone()));
        }
        true
    }
}

fn publish_namespaces((publisher, known): Told) -> impl FnMut(Change<Namespace>) -> bool + Send {
    move |change| {
        let mut known = lock(&known.namespaces);
        match change {
            Change::Applied(name, _) => {
                publisher.publish(|batch| batch.namespaces.extend([(Arc::clone(&name.name), true)]));
                known.insert(name);
            }
            Change::Deleted(name) => {
                known.remove(&name);
                publisher.publish(|batch| batch.namespaces.extend([(Arc::clone(&name.name), false)]));
            }
            Change::Listed(listed) => {
                // A namespace is there whether or not it can be read.
                let gone: Vec<_> = known.difference(&listed).cloned().collect();
                publisher.publish(|batch| {
                    batch.namespaces.extend(gone.iter().map(|name| (Arc::clone(&name.name), false)));
                    batch.namespaces.extend(listed.iter().map(|name| (Arc::clone(&name.name), true)));
                    batch.namespaces_listed = true;
                });
                *known = listed;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests;

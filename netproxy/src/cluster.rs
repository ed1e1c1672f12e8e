//! The one set of watches that the service proxy and cluster DNS share. Each of them has a
//! [`Subscription`], which holds what changed since it was last asked, by object: a consumer that is
//! busy holds up nobody, and however many changes an object goes through meanwhile, only its last
//! state waits. Nothing else is kept here but names.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::Client;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::{EndpointSlice, Namespace, Node, Service};
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
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

/// The subscribers, to be told of changes.
#[derive(Clone, Debug, Default)]
pub struct Publisher {
    feeds: Vec<Arc<Feed>>,
}

impl Publisher {
    /// Adds a subscriber, which learns what changes from now on.
    pub fn subscribe(&mut self) -> Subscription {
        let feed = Arc::new(Feed::default());
        self.feeds.push(Arc::clone(&feed));
        Subscription { feed }
    }

    /// Adds changes to everybody's batch.
    pub fn publish(&self, change: impl Fn(&mut Batch)) {
        for feed in &self.feeds {
            change(&mut feed.lock());
            feed.changed.notify_one();
        }
    }
}

/// The watches, before they start.
#[allow(missing_debug_implementations, reason = "the client has none")]
pub struct Cluster {
    client: Client,
    node_name: String,
    metrics: Metrics,
    publisher: Publisher,
    namespaces: bool,
}

impl Cluster {
    /// Will watch Services, EndpointSlices and the node of this name.
    #[must_use]
    pub fn new(client: Client, node_name: impl Into<String>, metrics: Metrics) -> Self {
        Self { client, node_name: node_name.into(), metrics, publisher: Publisher::default(), namespaces: false }
    }

    /// Will watch namespaces, too, where that is allowed.
    #[must_use]
    pub fn with_namespaces(self) -> Self {
        Self { namespaces: true, ..self }
    }

    /// Adds a consumer, which will see everything.
    pub fn subscribe(&mut self) -> Subscription {
        self.publisher.subscribe()
    }

    /// Watches until `token` is cancelled.
    pub async fn run(self, token: CancellationToken) {
        let Self { client, node_name, metrics, publisher, namespaces } = self;
        let mut watches = JoinSet::new();
        let services = Informer::all(client.clone(), metrics.clone());
        watches.spawn(services.run(publish_services(publisher.clone())));
        let slices = Informer::all(client.clone(), metrics.clone());
        watches.spawn(slices.run(publish_slices(publisher.clone())));
        let node = Informer::named(client.clone(), metrics.clone(), &node_name);
        watches.spawn(node.run(publish_node(publisher.clone())));
        if namespaces {
            let namespaces = Informer::all(client, metrics).optional();
            watches.spawn(namespaces.run(publish_namespaces(publisher)));
        }
        let ended = async {
            while let Some(ended) = watches.join_next().await {
                match ended {
                    Ok(Ended::Forbidden) => {
                        tracing::info!("namespaces may not be watched: pods' names are answered in any");
                    }
                    Ok(Ended::Unwanted) => {}
                    // As it would without a task of its own.
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                }
            }
            token.cancelled().await;
        };
        // Dropping the set ends the watches.
        let _ = token.run_until_cancelled(ended).await;
    }
}

fn publish_services(publisher: Publisher) -> impl FnMut(Change<Service>) -> bool + Send {
    let mut known: BTreeSet<ObjectName> = BTreeSet::new();
    move |change| {
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

fn publish_slices(publisher: Publisher) -> impl FnMut(Change<EndpointSlice>) -> bool + Send {
    // The Service that a slice belongs to may change, and events of deletion may not tell it.
    let mut known: HashMap<ObjectName, ServiceName> = HashMap::new();
    let key = |service: &ServiceName, slice: &ObjectName| (service.clone(), Arc::clone(&slice.name));
    move |change| {
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

fn publish_node(publisher: Publisher) -> impl FnMut(Change<Node>) -> bool + Send {
    // A node that was never there is not one that is gone.
    let mut known = false;
    move |change| {
        let node = match change {
            Change::Applied(_, node) => Some(Arc::new(node)),
            Change::Listed(listed) if !known || !listed.is_empty() => return true,
            Change::Deleted(_) | Change::Listed(_) => None,
        };
        known = node.is_some();
        publisher.publish(|batch| batch.node = Some(node.clone()));
        true
    }
}

fn publish_namespaces(publisher: Publisher) -> impl FnMut(Change<Namespace>) -> bool + Send {
    let mut known: BTreeSet<ObjectName> = BTreeSet::new();
    move |change| {
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
                known = listed;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests;

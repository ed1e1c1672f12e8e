//! Feeds the graph: from the caches the controllers share, and for every other
//! resource from a watch of metadata only.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::{Api, Resource as _};
use tokio::sync::watch;
use tokio_util::sync::DropGuard;

use super::graph::{Graph, Object, Owner, ResourceId, Uid, Work};
use super::kinds::Kinds;
use super::table::{Change, Table};
use crate::Context;
use crate::namespace::{Discovered, Resource};
use client::reflect::Metadata;
use client::workqueue::WorkQueue;
use client::{Filter, ObjectKey, Observer, Sink, Store, Unreadable, reflect};

/// Resources whose objects own nothing and are owned by nobody, and change often.
const IGNORED: [(&str, &str); 2] = [("", "events"), ("events.k8s.io", "events")];

/// The graph with its queue and the table of resources.
#[derive(Debug)]
pub(super) struct Shared {
    graph: Mutex<Graph>,
    pub(super) queue: Arc<WorkQueue<Work>>,
    table: Mutex<Table>,
    followed: Mutex<HashMap<ResourceId, Followed>>,
    pub(super) kinds: Kinds,
}

/// How a resource is followed.
#[derive(Debug)]
enum Followed {
    /// By a cache of the controllers, which is there in any case.
    Cache,
    /// By a watch of its own, which ends with this.
    Watch { _end: DropGuard },
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            graph: Mutex::default(),
            queue: WorkQueue::new(),
            table: Mutex::default(),
            followed: Mutex::default(),
            kinds: Kinds::default(),
        }
    }

    pub(super) fn graph(&self) -> std::sync::MutexGuard<'_, Graph> {
        lock(&self.graph)
    }

    /// A resource, as long as it is served.
    pub(super) fn served(&self, id: ResourceId) -> Option<Resource> {
        lock(&self.table).served(id).cloned()
    }

    /// A resource, as it was served last.
    pub(super) fn resource(&self, id: ResourceId) -> Option<Resource> {
        lock(&self.table).get(id).cloned()
    }

    /// The resource of a kind, whatever version it is asked for in.
    pub(super) fn find(&self, api_version: &str, kind: &str) -> Option<Resource> {
        lock(&self.table).find(api_version, kind).cloned()
    }

    /// Whether a resource in the table is of the kind that a reference names, in whatever version.
    pub(super) fn is_kind(&self, owner: &Owner, id: ResourceId) -> bool {
        lock(&self.table).is_kind(id, &owner.api_version, &owner.kind)
    }

    fn observe(&self, id: ResourceId, meta: &ObjectMeta) {
        let Some(uid) = &meta.uid else { return };
        let work = {
            let is_kind = |owner: &Owner, id| self.is_kind(owner, id);
            self.graph().observe(&Uid::from(uid.as_str()), Object::new(id, meta), &is_kind)
        };
        self.enqueue(work);
    }

    fn remove(&self, uid: &str) {
        let work = self.graph().remove(uid);
        self.enqueue(work);
    }

    pub(super) fn enqueue(&self, work: Vec<Work>) {
        for item in work {
            self.queue.add(item);
        }
    }
}

/// The sink of one metadata watch.
struct Feed {
    shared: Arc<Shared>,
    id: ResourceId,
    synced: watch::Sender<bool>,
}

impl Sink<PartialObjectMeta<DynamicObject>> for Feed {
    fn replace(&self, objects: Vec<PartialObjectMeta<DynamicObject>>, unreadable: &[Unreadable], _revision: u64) {
        let listed = objects.iter().filter_map(|o| o.metadata.uid.as_deref());
        let listed: HashSet<&str> = listed.chain(unreadable.iter().map(|u| u.uid.as_str())).collect();
        let known = self.shared.graph().of_resource(self.id);
        for uid in known.iter().filter(|uid| !listed.contains(&***uid)) {
            self.shared.remove(uid);
        }
        for object in &objects {
            self.shared.observe(self.id, object.meta());
        }
        self.synced.send_replace(true);
    }
    fn apply(&self, object: PartialObjectMeta<DynamicObject>) {
        self.shared.observe(self.id, object.meta());
    }
    fn delete(&self, object: PartialObjectMeta<DynamicObject>) {
        if let Some(uid) = &object.metadata.uid {
            self.shared.remove(uid);
        }
    }
    fn forget(&self, object: &Unreadable) {
        self.shared.remove(&object.uid);
    }
    fn progressed(&self, _revision: u64) {}
}

/// Follows the resources there are, as they are, and no others. Returns what tells when each new watch has its first
/// list.
pub(super) fn follow(ctx: &Context, shared: &Arc<Shared>, found: &Discovered) -> Vec<watch::Receiver<bool>> {
    let mut followed = lock(&shared.followed);
    let changes = lock(&shared.table).learn(found);
    let mut waits = Vec::new();
    for change in changes {
        let (Change::Follow(id, _) | Change::Leave(id)) = &change;
        if matches!(followed.get(id), Some(Followed::Cache)) {
            continue;
        }
        // The watch that was, if any, ends.
        followed.remove(id);
        if let Change::Follow(id, resource) = change
            && let Some((how, wait)) = begin(ctx, shared, &resource, id)
        {
            followed.insert(id, how);
            waits.extend(wait);
        }
    }
    waits
}

/// Begins to follow a resource, unless its objects are of no interest: then its kind may still be looked up.
fn begin(
    ctx: &Context,
    shared: &Arc<Shared>,
    resource: &Resource,
    number: ResourceId,
) -> Option<(Followed, Option<watch::Receiver<bool>>)> {
    let id = (resource.api.group.as_str(), resource.api.plural.as_str());
    if IGNORED.contains(&id) || !["list", "watch", "delete"].iter().all(|verb| resource.can(verb)) {
        return None;
    }
    if shared_cache(ctx, shared, id, number) {
        return Some((Followed::Cache, None));
    }
    let (end, wait) = watch_metadata(ctx, shared, resource, number);
    Some((Followed::Watch { _end: end }, Some(wait)))
}

/// Uses a cache of the controllers, if there is one of all objects.
fn shared_cache(ctx: &Context, shared: &Arc<Shared>, id: (&str, &str), number: ResourceId) -> bool {
    let informers = &ctx.informers;
    match id {
        ("", "pods") => subscribe(&informers.pods, shared, number),
        ("", "nodes") => subscribe(&informers.nodes, shared, number),
        ("", "services") => subscribe(&informers.services, shared, number),
        ("", "persistentvolumes") => subscribe(&informers.persistent_volumes, shared, number),
        ("", "persistentvolumeclaims") => subscribe(&informers.persistent_volume_claims, shared, number),
        ("", "resourcequotas") => subscribe(&informers.resource_quotas, shared, number),
        ("", "endpoints") => subscribe(&informers.endpoints, shared, number),
        ("", "namespaces") => subscribe(&informers.namespaces, shared, number),
        ("", "serviceaccounts") => subscribe(&informers.service_accounts, shared, number),
        ("apps", "deployments") => subscribe(&informers.deployments, shared, number),
        ("apps", "replicasets") => subscribe(&informers.replica_sets, shared, number),
        ("discovery.k8s.io", "endpointslices") => subscribe(&informers.endpoint_slices, shared, number),
        _ => return false,
    }
    true
}

/// Follows a cache. Changes may be told out of order when a write of ours meets
/// the watch, so each only says where to look: what the cache holds counts, read
/// while the graph is locked.
fn subscribe<K: kube::Resource + Send + Sync + 'static>(
    store: &Arc<Store<K>>,
    shared: &Arc<Shared>,
    number: ResourceId,
) {
    let (shared, cache) = (shared.clone(), Arc::downgrade(store));
    store.subscribe(move |change| {
        let Some(cache) = cache.upgrade() else { return };
        let key = ObjectKey::of(change.latest().meta());
        let mut work = Vec::new();
        {
            let is_kind = |owner: &Owner, id| shared.is_kind(owner, id);
            let mut graph = shared.graph();
            let current = cache.get(&key);
            let uid = current.as_ref().and_then(|c| c.meta().uid.as_deref());
            for seen in [change.old, change.new].into_iter().flatten().filter_map(|o| o.meta().uid.as_deref()) {
                if uid != Some(seen) {
                    work.extend(graph.remove(seen));
                }
            }
            if let (Some(uid), Some(current)) = (uid, &current) {
                work.extend(graph.observe(&Uid::from(uid), Object::new(number, current.meta()), &is_kind));
            }
        }
        shared.enqueue(work);
    });
}

fn watch_metadata(
    ctx: &Context,
    shared: &Arc<Shared>,
    resource: &Resource,
    number: ResourceId,
) -> (DropGuard, watch::Receiver<bool>) {
    let (tx, rx) = watch::channel(false);
    let feed = Feed { shared: shared.clone(), id: number, synced: tx };
    let api: Api<DynamicObject> = Api::all_with(ctx.client.clone(), &resource.api);
    let token = ctx.token.child_token();
    let end = token.clone().drop_guard();
    let status = ctx.runner.status.clone();
    let name = format!("metadata/{}", resource_name(&resource.api));
    let observer = Observer::named("metadata", name, &status).with_events(
        ctx.events.named("garbage-collector-controller"),
        &resource.api.api_version,
        &resource.api.kind,
    );
    ctx.tasks.spawn(async move {
        reflect(&Metadata(api), &Filter::default(), &feed, &observer, token).await;
        observer.retire(&status);
    });
    (end, rx)
}

/// `deployments.apps`, as upstream names resources.
fn resource_name(api: &kube::core::ApiResource) -> String {
    if api.group.is_empty() { api.plural.clone() } else { format!("{}.{}", api.plural, api.group) }
}

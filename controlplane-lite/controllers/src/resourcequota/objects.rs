//! The objects that quotas count, measured. Pods, Services and claims are in caches that all controllers share; any other kind
//! is watched as long as a quota counts it, and kept as what it uses alone.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::core::{DynamicObject, PartialObjectMeta};
use quota::{Evaluator, Measured};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::DropGuard;

use super::plan;
use crate::Context;
use crate::namespace::{Discovered, Resource, discover};
use client::reflect::Metadata;
use client::workqueue::SyncError;
use client::{Filter, ObjectKey, Objects, Observer, Sink, Store, Unreadable, reflect};

/// How long the first list of a kind may take before the quota is tried again.
const FIRST_LIST: Duration = Duration::from_secs(30);

/// What was heard of a resource in a namespace.
pub(super) enum Heard<'h> {
    /// One object is, or was, another one: its old and its new state, measured when somebody wants to know.
    Changed(&'h dyn Fn() -> (Option<Measured>, Option<Measured>)),
    /// Something is different.
    Anything,
}

/// Hears what became of which resource's objects, and where.
pub(super) type Hears = Arc<dyn Fn(&plan::Resource, &str, &Heard<'_>) + Send + Sync>;

/// By uid.
type InNamespace = HashMap<String, Arc<Measured>>;
/// By key, with the version that was measured.
type OfCache = HashMap<ObjectKey, (Option<String>, Arc<Measured>)>;

/// All that is counted.
pub(super) struct Counted {
    watched: tokio::sync::Mutex<HashMap<plan::Resource, Watched>>,
    /// Of the shared caches, by namespace and resource; only where there are quotas.
    cached: Mutex<HashMap<(String, &'static str), OfCache>>,
    hears: Hears,
}

/// A kind that is watched for quotas.
#[derive(Clone)]
struct Watched {
    kept: Arc<Kept>,
    _end: Arc<DropGuard>,
}

struct Kept {
    resource: plan::Resource,
    evaluator: Evaluator,
    namespaces: Mutex<HashMap<String, InNamespace>>,
    synced: watch::Sender<bool>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Counted {
    pub(super) fn new(hears: Hears) -> Self {
        Self { watched: tokio::sync::Mutex::default(), cached: Mutex::default(), hears }
    }

    /// The objects of a resource in a namespace; nothing when the resource is not served.
    ///
    /// # Errors
    /// When that cannot be found out now.
    pub(super) async fn objects(
        &self,
        ctx: &Context,
        resource: &plan::Resource,
        namespace: &str,
    ) -> Result<Option<Vec<Arc<Measured>>>, SyncError> {
        match (resource.0.as_str(), resource.1.as_str()) {
            ("", "pods") => Ok(Some(self.of_cache("pods", &ctx.informers.pods, namespace))),
            ("", "services") => Ok(Some(self.of_cache("services", &ctx.informers.services, namespace))),
            ("", "persistentvolumeclaims") => {
                let claims = &ctx.informers.persistent_volume_claims;
                Ok(Some(self.of_cache("persistentvolumeclaims", claims, namespace)))
            }
            _ => {
                let Some(kept) = self.follow(ctx, resource).await? else { return Ok(None) };
                let mut synced = kept.synced.subscribe();
                // The sender ends with what is kept, which is held here.
                match tokio::time::timeout(FIRST_LIST, synced.wait_for(|synced| *synced)).await {
                    Ok(_) => Ok(Some(kept.objects(namespace))),
                    Err(_) => Err(SyncError::Incomplete(format!("no list of {}.{} yet", resource.1, resource.0))),
                }
            }
        }
    }

    fn of_cache<K>(&self, plural: &'static str, store: &Store<K>, namespace: &str) -> Vec<Arc<Measured>>
    where
        K: kube::Resource<DynamicType = ()> + Serialize + Send + Sync + 'static,
    {
        let evaluator = Evaluator::of("", plural);
        let mut cached = lock(&self.cached);
        let before = cached.remove(&(namespace.to_owned(), plural)).unwrap_or_default();
        let measured = store.list_in(namespace, |_| true).into_iter().map(|object| {
            let (key, version) = (ObjectKey::of(object.meta()), object.meta().resource_version.clone());
            let known = before.get(&key).filter(|(of, _)| *of == version).map(|(_, measured)| measured.clone());
            let measured = known.unwrap_or_else(|| {
                // What cannot be written as JSON could not have been read.
                let value = serde_json::to_value(&*object).unwrap_or_default();
                Arc::new(evaluator.measure(&value))
            });
            (key, (version, measured))
        });
        let now: OfCache = measured.collect();
        let all = now.values().map(|(_, measured)| measured.clone()).collect();
        cached.insert((namespace.to_owned(), plural), now);
        all
    }

    /// Begins to watch a resource, unless it is watched.
    async fn follow(&self, ctx: &Context, resource: &plan::Resource) -> Result<Option<Arc<Kept>>, SyncError> {
        let mut watched = self.watched.lock().await;
        if let Some(known) = watched.get(resource) {
            return Ok(Some(known.kept.clone()));
        }
        let of = || format!("{}.{}", resource.1, resource.0);
        let found = discover(&ctx.client).await.map_err(SyncError::api("discover", of()))?;
        let served = served(&found, resource).cloned();
        let Some(served) = served else {
            return match found.failures.iter().find(|(group, _)| group.starts_with(&resource.0)) {
                Some((_, error)) if !resource.0.is_empty() => {
                    Err(SyncError::Incomplete(format!("{} may be served: {error}", of())))
                }
                _ => Ok(None),
            };
        };
        let begun = begin(ctx, resource, &served, self.hears.clone());
        watched.insert(resource.clone(), begun.clone());
        Ok(Some(begun.kept))
    }

    /// Gives up the resources that are served no longer, and tells of it.
    pub(super) async fn drop_unserved(&self, ctx: &Context) {
        if self.watched.lock().await.is_empty() {
            return;
        }
        let found = match discover(&ctx.client).await {
            Ok(found) if found.failures.is_empty() => found,
            // Whoever did not answer may still serve it.
            _ => return,
        };
        let mut gone = Vec::new();
        self.watched.lock().await.retain(|resource, watched| {
            let stays = served(&found, resource).is_some();
            if !stays {
                gone.push(watched.kept.clone());
            }
            stays
        });
        for kept in gone {
            let namespaces: Vec<String> = lock(&kept.namespaces).keys().cloned().collect();
            for namespace in namespaces {
                (self.hears)(&kept.resource, &namespace, &Heard::Anything);
            }
        }
    }

    /// Gives up what no quota counts any more, and what is kept of namespaces without one.
    pub(super) async fn keep_only(&self, resources: &BTreeSet<plan::Resource>, namespaces: &BTreeSet<String>) {
        self.watched.lock().await.retain(|resource, _| resources.contains(resource));
        lock(&self.cached).retain(|(namespace, _), _| namespaces.contains(namespace));
    }
}

/// A resource whose objects are in namespaces and can be followed.
fn served<'f>(found: &'f Discovered, resource: &plan::Resource) -> Option<&'f Resource> {
    found.resources.iter().find(|served| {
        let api = &served.api;
        (&api.group, &api.plural) == (&resource.0, &resource.1)
            && served.namespaced
            && served.can("list")
            && served.can("watch")
    })
}

fn begin(ctx: &Context, resource: &plan::Resource, served: &Resource, hears: Hears) -> Watched {
    let evaluator = Evaluator::of(&resource.0, &resource.1);
    let counts = matches!(evaluator, Evaluator::Count { .. });
    let kept = Arc::new(Kept {
        resource: resource.clone(),
        evaluator,
        namespaces: Mutex::default(),
        synced: watch::Sender::new(false),
    });
    let api: Api<DynamicObject> = Api::all_with(ctx.client.clone(), &served.api);
    let (token, status) = (ctx.token.child_token(), ctx.runner.status.clone());
    let end = Arc::new(token.clone().drop_guard());
    let observer = Observer::named("quota", format!("quota/{}.{}", resource.1, resource.0), &status).with_events(
        ctx.events.named("resourcequota-controller"),
        &served.api.api_version,
        &served.api.kind,
    );
    let feed = Feed { kept: kept.clone(), hears };
    ctx.tasks.spawn(async move {
        // Of most kinds it is enough that an object is there.
        match counts {
            true => reflect(&Metadata(api), &Filter::default(), &feed, &observer, token).await,
            false => reflect(&Objects(api), &Filter::default(), &feed, &observer, token).await,
        }
        observer.retire(&status);
    });
    Watched { kept, _end: end }
}

impl Kept {
    fn objects(&self, namespace: &str) -> Vec<Arc<Measured>> {
        lock(&self.namespaces).get(namespace).map(|of| of.values().cloned().collect()).unwrap_or_default()
    }
}

/// The sink of one watch.
struct Feed {
    kept: Arc<Kept>,
    hears: Hears,
}

impl Feed {
    fn tell(&self, namespace: &str, heard: &Heard<'_>) {
        (self.hears)(&self.kept.resource, namespace, heard);
    }

    fn replace_all(&self, objects: impl Iterator<Item = (ObjectMeta, Measured)>, unreadable: &[Unreadable]) {
        let mut now: HashMap<String, InNamespace> = HashMap::new();
        for (meta, measured) in objects {
            let (namespace, uid) = (meta.namespace.unwrap_or_default(), meta.uid.unwrap_or_default());
            now.entry(namespace).or_default().insert(uid, Arc::new(measured));
        }
        let mut namespaces = lock(&self.kept.namespaces);
        // What cannot be read now is still there.
        for unread in unreadable {
            let known = namespaces.iter().find_map(|(namespace, of)| Some((namespace, of.get(&unread.uid)?)));
            if let Some((namespace, measured)) = known {
                now.entry(namespace.clone()).or_default().insert(unread.uid.clone(), measured.clone());
            }
        }
        let before = std::mem::replace(&mut *namespaces, now);
        let differ: Vec<String> = before
            .iter()
            .filter(|(name, of)| namespaces.get(*name) != Some(of))
            .map(|(name, _)| name.clone())
            .collect();
        drop(namespaces);
        self.kept.synced.send_replace(true);
        for namespace in differ {
            self.tell(&namespace, &Heard::Anything);
        }
    }

    fn put(&self, meta: &ObjectMeta, measured: Measured) {
        let (namespace, uid) = (meta.namespace.as_deref().unwrap_or_default(), meta.uid.clone().unwrap_or_default());
        let before = {
            let mut namespaces = lock(&self.kept.namespaces);
            namespaces.entry(namespace.to_owned()).or_default().insert(uid, Arc::new(measured.clone()))
        };
        if before.as_deref() != Some(&measured) {
            let changed = || (before.as_deref().cloned(), Some(measured.clone()));
            self.tell(namespace, &Heard::Changed(&changed));
        }
    }

    fn take(&self, uid: &str) {
        let mut namespaces = lock(&self.kept.namespaces);
        let holds = namespaces.iter_mut().find_map(|(namespace, of)| Some((namespace.clone(), of.remove(uid)?)));
        let Some((namespace, old)) = holds else { return };
        if namespaces.get(&namespace).is_some_and(HashMap::is_empty) {
            namespaces.remove(&namespace);
        }
        drop(namespaces);
        self.tell(&namespace, &Heard::Changed(&|| (Some((*old).clone()), None)));
    }
}

impl Sink<PartialObjectMeta<DynamicObject>> for Feed {
    fn replace(&self, objects: Vec<PartialObjectMeta<DynamicObject>>, unreadable: &[Unreadable], _: u64) {
        let measure =
            |object: PartialObjectMeta<DynamicObject>| (object.metadata, self.kept.evaluator.measure(&Value::Null));
        self.replace_all(objects.into_iter().map(measure), unreadable);
    }
    fn apply(&self, object: PartialObjectMeta<DynamicObject>) {
        self.put(&object.metadata, self.kept.evaluator.measure(&Value::Null));
    }
    fn delete(&self, object: PartialObjectMeta<DynamicObject>) {
        self.take(object.metadata.uid.as_deref().unwrap_or_default());
    }
    fn forget(&self, object: &Unreadable) {
        self.take(&object.uid);
    }
    fn progressed(&self, _: u64) {}
}

impl Sink<DynamicObject> for Feed {
    fn replace(&self, objects: Vec<DynamicObject>, unreadable: &[Unreadable], _: u64) {
        let measure = |object: DynamicObject| {
            let measured = self.kept.evaluator.measure(&whole(&object));
            (object.metadata, measured)
        };
        self.replace_all(objects.into_iter().map(measure), unreadable);
    }
    fn apply(&self, object: DynamicObject) {
        self.put(&object.metadata, self.kept.evaluator.measure(&whole(&object)));
    }
    fn delete(&self, object: DynamicObject) {
        self.take(object.metadata.uid.as_deref().unwrap_or_default());
    }
    fn forget(&self, object: &Unreadable) {
        self.take(&object.uid);
    }
    fn progressed(&self, _: u64) {}
}

/// The object as JSON.
fn whole(object: &DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

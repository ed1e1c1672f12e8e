//! The cache of one kind: objects by key, an index by controlling owner, and
//! the rules by which watch events and our own writes are merged. Knows nothing
//! of transport.
//!
//! A controller records the answer of each of its writes with
//! [`Store::written`] and [`Store::removed`], so that its next decision already
//! sees them. This takes the place of upstream's expectations: no decision is
//! made on a picture older than our own last write.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use tokio::sync::watch;

use super::decode::Unreadable;
use super::objects::{controller_of, controller_ref, same_owner};
use super::status::InformerStatus;
use super::workqueue::panic_text;

/// Namespace and name of an object; the namespace is empty for cluster-scoped kinds.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Namespace, or empty.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectKey {
    /// A key out of its two parts, namespace first.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key of an object's metadata.
    pub fn of(meta: &ObjectMeta) -> Self {
        Self::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What happened to one object: `old` is absent on creation, `new` on removal.
#[derive(Debug)]
pub struct Change<'a, K> {
    /// The state before.
    pub old: Option<&'a Arc<K>>,
    /// The state after.
    pub new: Option<&'a Arc<K>>,
}

impl<'a, K> Change<'a, K> {
    /// Whatever is known of the object, newest first.
    pub fn latest(&self) -> &'a Arc<K> {
        self.new.or(self.old).expect("a change has at least one side")
    }
}

type Handler<K> = Arc<dyn Fn(&Change<'_, K>) + Send + Sync>;

type OldAndNew<K> = (Option<Arc<K>>, Option<Arc<K>>);

/// Where the owner index has an object. A uid alone would not do: who may write in one namespace could give objects
/// there a controller of another one (upstream: `PodControllerIndexKey` in pkg/controller/controller_utils.go).
#[derive(Clone, PartialEq, Eq, Hash)]
enum Index {
    Controlled { namespace: Box<str>, uid: Box<str> },
    Orphans { namespace: Box<str> },
}

impl Index {
    fn of(meta: &ObjectMeta) -> Self {
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        match controller_of(meta) {
            Some(owner) => Self::controlled(namespace, owner),
            None => Self::orphans(namespace),
        }
    }

    fn controlled(namespace: &str, owner: &OwnerReference) -> Self {
        Self::Controlled { namespace: namespace.into(), uid: owner.uid.as_str().into() }
    }

    fn orphans(namespace: &str) -> Self {
        Self::Orphans { namespace: namespace.into() }
    }
}

struct Inner<K> {
    objects: BTreeMap<ObjectKey, Arc<K>>,
    owners: Option<HashMap<Index, BTreeSet<ObjectKey>>>,
    /// The newest resource version the watch has delivered.
    seen: u64,
    /// Uids we know to be deleted, whose DELETED event is still to come.
    tombstones: HashSet<String>,
}

/// The shared cache of one kind.
pub struct Store<K> {
    inner: RwLock<Inner<K>>,
    handlers: Mutex<Vec<Handler<K>>>,
    synced: watch::Sender<bool>,
    /// Set once an informer fills the store.
    status: OnceLock<Arc<InformerStatus>>,
}

impl<K> fmt::Debug for Store<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("synced", &*self.synced.borrow()).finish_non_exhaustive()
    }
}

/// The resource version as a number; 0 when absent or not a number.
pub fn revision(meta: &ObjectMeta) -> u64 {
    meta.resource_version.as_deref().and_then(|rv| rv.parse().ok()).unwrap_or(0)
}

impl<K: Resource> Inner<K> {
    fn insert(&mut self, key: ObjectKey, object: Arc<K>) -> Option<Arc<K>> {
        let index = self.owners.is_some().then(|| Index::of(object.meta()));
        let old = self.objects.insert(key.clone(), object);
        if let (Some(owners), Some(index)) = (&mut self.owners, index) {
            if let Some(before) = old.as_ref().map(|o| Index::of(o.meta())).filter(|b| *b != index) {
                unindex(owners, &before, &key);
            }
            owners.entry(index).or_default().insert(key);
        }
        old
    }

    fn remove(&mut self, key: &ObjectKey) -> Option<Arc<K>> {
        let old = self.objects.remove(key)?;
        if let Some(owners) = &mut self.owners {
            unindex(owners, &Index::of(old.meta()), key);
        }
        Some(old)
    }

    fn current_uid(&self, key: &ObjectKey) -> Option<&str> {
        self.objects.get(key).and_then(|o| o.meta().uid.as_deref())
    }

    /// Whether the cached object under `key` is at least as new as `meta`.
    fn covers(&self, key: &ObjectKey, meta: &ObjectMeta) -> bool {
        self.objects.get(key).is_some_and(|have| revision(have.meta()) >= revision(meta) && revision(meta) > 0)
    }

    fn buried(&self, meta: &ObjectMeta) -> bool {
        meta.uid.as_ref().is_some_and(|uid| self.tombstones.contains(uid))
    }
}

fn unindex(owners: &mut HashMap<Index, BTreeSet<ObjectKey>>, index: &Index, key: &ObjectKey) {
    if let Some(keys) = owners.get_mut(index) {
        keys.remove(key);
        if keys.is_empty() {
            owners.remove(index);
        }
    }
}

impl<K: Resource> Store<K> {
    /// An empty cache. `by_owner` keeps the index that [`Store::owned`] needs.
    pub fn new(by_owner: bool) -> Arc<Self> {
        Arc::new(Self {
            inner: RwLock::new(Inner {
                objects: BTreeMap::new(),
                owners: by_owner.then(HashMap::new),
                seen: 0,
                tombstones: HashSet::new(),
            }),
            handlers: Mutex::new(Vec::new()),
            synced: watch::Sender::new(false),
            status: OnceLock::new(),
        })
    }

    pub(super) fn report_to(&self, status: &Arc<InformerStatus>) {
        // A store has one informer.
        let _ = self.status.set(status.clone());
    }

    /// Calls `handler` on each later change, and now for each object present.
    /// Handlers run on the watch task: they only enqueue keys. One that panics misses that change; it and the others
    /// see the next ones (upstream: `processorListener.run` in client-go's tools/cache/shared_informer.go).
    pub fn subscribe(&self, handler: impl Fn(&Change<'_, K>) + Send + Sync + 'static) {
        let handler: Handler<K> = Arc::new(handler);
        self.handlers.lock().unwrap_or_else(PoisonError::into_inner).push(handler.clone());
        for object in self.list() {
            self.call(&handler, &Change { old: None, new: Some(&object) });
        }
    }

    /// Waits until the first complete list is in.
    pub async fn wait_synced(&self) {
        let mut rx = self.synced.subscribe();
        // The sender lives in `self`, so this fails never.
        let _ = rx.wait_for(|s| *s).await;
    }

    /// One object.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.read().objects.get(key).cloned()
    }

    /// Every object, ordered by key.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.read().objects.values().cloned().collect()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.read().objects.len()
    }

    /// Whether there is no object.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The objects of one namespace for which `keep` holds, ordered by name.
    pub fn list_in(&self, namespace: &str, mut keep: impl FnMut(&K) -> bool) -> Vec<Arc<K>> {
        let inner = self.read();
        let from = ObjectKey::new(namespace, "");
        let range = inner.objects.range(from..).take_while(|(k, _)| k.namespace == namespace);
        range.filter(|(_, o)| keep(o)).map(|(_, o)| o.clone()).collect()
    }

    /// The objects that `owner` controls: those of its namespace whose reference names it by group, kind, name and uid.
    /// Needs the owner index.
    pub fn owned<O: Resource<DynamicType = ()>>(&self, owner: &O) -> Vec<Arc<K>> {
        self.controlled_by(owner.meta().namespace.as_deref().unwrap_or_default(), &controller_ref(owner))
    }

    /// The objects of a namespace that have this controller. Needs the owner index.
    pub fn controlled_by(&self, namespace: &str, owner: &OwnerReference) -> Vec<Arc<K>> {
        let mut found = self.indexed(&Index::controlled(namespace, owner));
        found.retain(|object| controller_of(object.meta()).is_some_and(|named| same_owner(named, owner)));
        found
    }

    /// The objects of a namespace without a controller. Needs the owner index.
    pub fn orphans(&self, namespace: &str) -> Vec<Arc<K>> {
        self.indexed(&Index::orphans(namespace))
    }

    fn indexed(&self, index: &Index) -> Vec<Arc<K>> {
        let inner = self.read();
        let keys = inner.owners.as_ref().and_then(|o| o.get(index));
        keys.into_iter().flatten().filter_map(|k| inner.objects.get(k).cloned()).collect()
    }

    /// Records the answer of a create, update or patch of ours.
    pub fn written(&self, mut object: K) {
        object.meta_mut().managed_fields = None;
        let key = ObjectKey::of(object.meta());
        let object = Arc::new(object);
        let old = {
            let mut inner = self.write();
            // The watch stream is already past this version: what it left in the
            // cache (or removed from it) is newer than our answer.
            let stale = inner.seen >= revision(object.meta());
            if stale || inner.buried(object.meta()) || inner.covers(&key, object.meta()) {
                return;
            }
            inner.insert(key, object.clone())
        };
        self.notify(&Change { old: old.as_ref(), new: Some(&object) });
    }

    /// Records a deletion of ours that took effect at once.
    pub fn removed(&self, key: &ObjectKey, uid: &str) {
        let old = {
            let mut inner = self.write();
            if inner.current_uid(key) != Some(uid) {
                return;
            }
            inner.tombstones.insert(uid.to_owned());
            inner.remove(key)
        };
        self.notify(&Change { old: old.as_ref(), new: None });
    }

    /// An ADDED or MODIFIED event.
    pub(super) fn apply(&self, object: K) {
        let key = ObjectKey::of(object.meta());
        let object = Arc::new(object);
        let old = {
            let mut inner = self.write();
            inner.seen = inner.seen.max(revision(object.meta()));
            if inner.buried(object.meta()) || inner.covers(&key, object.meta()) {
                return;
            }
            inner.insert(key, object.clone())
        };
        self.notify(&Change { old: old.as_ref(), new: Some(&object) });
    }

    /// A DELETED event.
    pub(super) fn delete(&self, meta: &ObjectMeta) {
        let key = ObjectKey::of(meta);
        let old = {
            let mut inner = self.write();
            inner.seen = inner.seen.max(revision(meta));
            if let Some(uid) = &meta.uid {
                inner.tombstones.remove(uid);
            }
            if inner.current_uid(&key) != meta.uid.as_deref() {
                return;
            }
            inner.remove(&key)
        };
        if old.is_some() {
            self.notify(&Change { old: old.as_ref(), new: None });
        }
    }

    /// A bookmark: the watch has delivered everything up to `revision`.
    pub(super) fn progressed(&self, revision: u64) {
        let mut inner = self.write();
        inner.seen = inner.seen.max(revision);
    }

    /// A complete list at `list_revision`: takes the place of the content, but
    /// for our own writes that are newer than the list, and for the last state of
    /// objects that are there and cannot be read.
    pub(super) fn replace(&self, objects: Vec<K>, unreadable: &[Unreadable], list_revision: u64) {
        let mut changes: Vec<OldAndNew<K>> = Vec::new();
        {
            let mut inner = self.write();
            inner.seen = inner.seen.max(list_revision);
            let listed: HashSet<ObjectKey> = objects.iter().map(|o| ObjectKey::of(o.meta())).collect();
            let kept: HashSet<&str> = unreadable.iter().map(|u| u.uid.as_str()).collect();
            let uids: HashSet<&str> = objects.iter().filter_map(|o| o.meta().uid.as_deref()).collect();
            inner.tombstones.retain(|uid| uids.contains(uid.as_str()) || kept.contains(uid.as_str()));
            let gone: Vec<ObjectKey> = inner
                .objects
                .iter()
                .filter(|(k, o)| !listed.contains(*k) && revision(o.meta()) <= list_revision)
                .filter(|(_, o)| !o.meta().uid.as_deref().is_some_and(|uid| kept.contains(uid)))
                .map(|(k, _)| k.clone())
                .collect();
            for key in gone {
                changes.push((inner.remove(&key), None));
            }
            for object in objects {
                let key = ObjectKey::of(object.meta());
                if inner.buried(object.meta()) || inner.covers(&key, object.meta()) {
                    continue;
                }
                let object = Arc::new(object);
                changes.push((inner.insert(key, object.clone()), Some(object)));
            }
        }
        self.synced.send_replace(true);
        for (old, new) in &changes {
            self.notify(&Change { old: old.as_ref(), new: new.as_ref() });
        }
    }

    fn notify(&self, change: &Change<'_, K>) {
        let handlers = self.handlers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for handler in &handlers {
            self.call(handler, change);
        }
    }

    fn call(&self, handler: &Handler<K>, change: &Change<'_, K>) {
        let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(|| handler(change))) else { return };
        let (object, panic) = (ObjectKey::of(change.latest().meta()), panic_text(&*panic));
        tracing::error!(%object, panic, "a handler of changes panicked");
        if let Some(status) = self.status.get() {
            status.panicked();
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Inner<K>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Inner<K>> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    fn cm(name: &str, uid: &str, rv: u64) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                namespace: Some("ns".into()),
                name: Some(name.into()),
                uid: Some(uid.into()),
                resource_version: Some(rv.to_string()),
                ..Default::default()
            },
            ..Default::default()
        }
    }

    fn names(store: &Store<ConfigMap>) -> Vec<String> {
        store
            .list()
            .iter()
            .map(|o| format!("{}@{}", o.metadata.name.as_ref().unwrap(), revision(&o.metadata)))
            .collect()
    }

    #[test]
    fn own_writes_are_seen_at_once_and_survive_an_older_list() {
        let store = Store::<ConfigMap>::new(false);
        store.replace(vec![cm("a", "1", 5)], &[], 5);
        store.written(cm("b", "2", 7));
        assert_eq!(names(&store), ["a@5", "b@7"]);
        store.replace(vec![cm("a", "1", 5)], &[], 6);
        assert_eq!(names(&store), ["a@5", "b@7"]);
        store.replace(vec![cm("a", "1", 5)], &[], 8);
        assert_eq!(names(&store), ["a@5"]);
    }

    #[test]
    fn an_answer_older_than_the_watch_is_ignored() {
        let store = Store::<ConfigMap>::new(false);
        store.replace(vec![], &[], 5);
        store.apply(cm("a", "1", 7));
        store.delete(&cm("a", "1", 9).metadata);
        store.written(cm("a", "1", 7));
        assert!(store.is_empty());
    }

    #[test]
    fn a_removed_object_is_not_resurrected_by_a_late_event() {
        let store = Store::<ConfigMap>::new(false);
        store.replace(vec![cm("a", "1", 5)], &[], 5);
        store.removed(&ObjectKey::new("ns", "a"), "1");
        store.apply(cm("a", "1", 6));
        assert!(store.is_empty());
        store.delete(&cm("a", "1", 7).metadata);
        store.apply(cm("a", "2", 8));
        assert_eq!(names(&store), ["a@8"]);
    }

    #[test]
    fn a_late_delete_of_a_predecessor_keeps_the_successor() {
        let store = Store::<ConfigMap>::new(false);
        store.replace(vec![], &[], 1);
        store.written(cm("a", "2", 9));
        store.delete(&cm("a", "1", 8).metadata);
        assert_eq!(names(&store), ["a@9"]);
    }

    fn owner(namespace: &str, name: &str) -> ConfigMap {
        let mut owner = cm(name, "u", 1);
        owner.metadata.namespace = Some(namespace.into());
        owner
    }

    fn controlled(by: OwnerReference) -> ConfigMap {
        let mut owned = cm("a", "1", 6);
        owned.metadata.owner_references = Some(vec![by]);
        owned
    }

    #[test]
    fn the_owner_index_follows_adoption_and_orphaning() {
        let store = Store::<ConfigMap>::new(true);
        let owner = owner("ns", "o");
        let count = || (store.orphans("ns").len(), store.owned(&owner).len());
        store.replace(vec![cm("a", "1", 5)], &[], 5);
        assert_eq!(count(), (1, 0));
        store.apply(controlled(controller_ref(&owner)));
        assert_eq!(count(), (0, 1));
        store.apply(cm("a", "1", 7));
        assert_eq!(count(), (1, 0));
        store.delete(&cm("a", "1", 8).metadata);
        assert_eq!(count(), (0, 0));
    }

    #[test]
    fn an_owner_is_known_by_all_that_a_reference_says() {
        let reference = || controller_ref(&owner("ns", "o"));
        let seen = |by: OwnerReference, namespace: &str| {
            let store = Store::<ConfigMap>::new(true);
            store.replace(vec![controlled(by)], &[], 6);
            (store.owned(&owner(namespace, "o")).len(), store.orphans(namespace).len())
        };
        assert_eq!(seen(reference(), "ns"), (1, 0));
        assert_eq!(seen(reference(), "other"), (0, 0), "an owner of another namespace");
        assert_eq!(seen(OwnerReference { name: "p".into(), ..reference() }, "ns"), (0, 0));
        assert_eq!(seen(OwnerReference { kind: "Secret".into(), ..reference() }, "ns"), (0, 0));
        assert_eq!(seen(OwnerReference { api_version: "apps/v1".into(), ..reference() }, "ns"), (0, 0));
        assert_eq!(seen(OwnerReference { api_version: "v2".into(), ..reference() }, "ns"), (1, 0), "another version");
        for uid in ["orphans/ns", "orphans/other", "ns", ""] {
            assert_eq!(seen(OwnerReference { uid: uid.into(), ..reference() }, "ns"), (0, 0), "{uid}");
            assert_eq!(seen(OwnerReference { uid: uid.into(), ..reference() }, "other"), (0, 0), "{uid}");
        }
    }

    #[test]
    fn subscribers_see_present_objects_and_later_changes_once() {
        let store = Store::<ConfigMap>::new(false);
        store.replace(vec![cm("a", "1", 5)], &[], 5);
        let log = Arc::new(Mutex::new(Vec::new()));
        let sink = log.clone();
        store.subscribe(move |c| sink.lock().unwrap().push((c.old.is_some(), c.new.is_some())));
        store.written(cm("a", "1", 6));
        store.apply(cm("a", "1", 6));
        store.delete(&cm("a", "1", 7).metadata);
        assert_eq!(*log.lock().unwrap(), [(false, true), (true, true), (true, false)]);
    }

    #[test]
    fn a_handler_that_panics_misses_one_change_and_the_others_none() {
        let store = Store::<ConfigMap>::new(false);
        let status = InformerStatus::unobserved();
        store.report_to(&status);
        store.replace(vec![cm("a", "1", 5)], &[], 5);
        let log = Arc::new(Mutex::new(Vec::new()));
        for name in ["first", "second"] {
            let log = log.clone();
            store.subscribe(move |change| {
                let at = revision(&change.latest().metadata);
                assert!(name != "first" || at == 7, "not this one");
                log.lock().unwrap().push((name, at));
            });
        }
        store.apply(cm("a", "1", 6));
        store.apply(cm("a", "1", 7));
        assert_eq!(*log.lock().unwrap(), [("second", 5), ("second", 6), ("first", 7), ("second", 7)]);
        assert_eq!(status.panics(), 2);
    }
}

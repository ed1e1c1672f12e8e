//! Tests of `storage::watch_cache`: tables, properties and garbage.

#![allow(clippy::unwrap_used)]
use super::super::memory::MemoryStore;
use super::super::object::EventKind;
use super::super::store::{Entry, Event, EventStream, Page, Precondition, Put, Range};
use super::super::testing::Delegate;
use super::*;
use futures::StreamExt;
use harness::time;
use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

mod behind;
mod panics;
mod removal;
mod restore;

struct World {
    store: Arc<dyn Store>,
    cache: WatchCache,
    pods: Arc<ResourceCache>,
    _guard: tokio_util::sync::DropGuard,
}

fn pods() -> ResourceSpec {
    ResourceSpec::new("", "pods", true).with_fields([FieldPath::new("spec.nodeName")])
}

async fn world_on(store: Arc<dyn Store>) -> World {
    let token = CancellationToken::new();
    let cache = WatchCache::start(store.clone(), vec![pods()], token.clone()).await.unwrap();
    let pods = cache.resource("", "pods").unwrap();
    World { store, cache, pods, _guard: token.drop_guard() }
}

async fn world() -> World {
    world_on(Arc::new(MemoryStore::new())).await
}

impl World {
    async fn put(&self, namespace: &str, name: &str, label: &str, node: &str) -> Revision {
        let value = json!({
            "metadata": {"namespace": namespace, "name": name, "labels": {"app": label}},
            "spec": {"nodeName": node},
        });
        let key = pods().key(namespace, name).unwrap();
        let revision = self.store.put(Put::overwrite(key, value.to_string())).await.unwrap();
        self.cache.wait_until_fresh(revision).await.unwrap();
        revision
    }

    async fn delete(&self, namespace: &str, name: &str) -> Revision {
        let key = pods().key(namespace, name).unwrap();
        let (revision, _) = self.store.delete(&key, Precondition::Any).await.unwrap();
        self.cache.wait_until_fresh(revision).await.unwrap();
        revision
    }

    async fn names(&self, query: ListQuery) -> Vec<String> {
        let listing = self.pods.list(&query).await.unwrap();
        listing.items.iter().map(|pod| format!("{}/{}", pod.namespace(), pod.name())).collect()
    }
}

async fn take(watch: &mut CacheWatch, count: usize) -> Vec<(EventKind, String)> {
    let mut seen = Vec::new();
    for _ in 0..count {
        let item = time::within("an event", watch.next()).await.unwrap().unwrap().unwrap();
        let WatchItem::Event { kind, object } = item else { panic!("bookmark") };
        seen.push((kind, object.name().to_owned()));
    }
    seen
}

#[tokio::test]
async fn reads_show_what_was_written() {
    let world = world().await;
    world.put("a", "one", "x", "").await;
    world.put("b", "two", "y", "n1").await;
    let revision = world.put("a", "three", "y", "n1").await;
    assert_eq!(world.pods.get("a", "one").unwrap().label("app"), Some("x"));
    assert!(world.pods.get("a", "two").is_none());
    assert!(world.pods.get("", "b/two").is_none(), "no reaching into other keys");
    assert_eq!(world.names(ListQuery::default()).await, ["a/one", "a/three", "b/two"]);
    let in_a = ListQuery { filter: Filter::all().in_namespace("a"), ..ListQuery::default() };
    assert_eq!(world.names(in_a).await, ["a/one", "a/three"]);
    let on_node = ListQuery { filter: Filter::all().with_field("spec.nodeName", "n1"), ..ListQuery::default() };
    assert_eq!(world.names(on_node).await, ["a/three", "b/two"]);
    let listing = world.pods.list(&ListQuery::default()).await.unwrap();
    assert_eq!(listing.revision, revision);
    assert_eq!(world.cache.fresh().await.unwrap(), revision);
}

#[tokio::test]
async fn pages_stay_at_their_revision() {
    let world = world().await;
    for name in ["a", "b", "c", "d", "e"] {
        world.put("ns", name, "x", "").await;
    }
    let first = world.pods.list(&ListQuery { limit: 2, ..ListQuery::default() }).await.unwrap();
    assert_eq!(first.remaining, Some(3));
    world.delete("ns", "c").await;
    world.put("ns", "d", "changed", "").await;
    world.put("ns", "bb", "new", "").await;
    let rest = ListQuery { after: first.next, at: Some(first.revision), ..ListQuery::default() };
    assert_eq!(world.names(rest.clone()).await, ["ns/c", "ns/d", "ns/e"]);
    let listing = world.pods.list(&rest).await.unwrap();
    assert_eq!(listing.items[1].label("app"), Some("x"), "as it was");
    assert_eq!(listing.revision, first.revision);
    let future = ListQuery { at: Some(Revision(999)), ..ListQuery::default() };
    assert!(matches!(world.pods.list(&future).await, Err(CacheError::TooLarge { .. })));
}

#[tokio::test]
async fn pages_out_of_the_store_are_read_page_by_page() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let world = world_on(store.clone()).await;
    for n in 0..1_300 {
        let label = if n % 400 == 0 { "rare" } else { "x" };
        world.put("ns", &format!("p{n:04}"), label, "").await;
    }
    let then = world.pods.revision();
    for n in (0..1_300).step_by(7) {
        world.delete("ns", &format!("p{n:04}")).await;
    }
    let counting = Arc::new(Unsteady::new(store));
    let world = world_on(counting.clone()).await;
    let read_before = counting.read.load(Ordering::SeqCst);
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let query = ListQuery { limit: 100, at: Some(then), after, ..ListQuery::default() };
        let page = world.pods.list(&query).await.unwrap();
        assert_eq!(page.revision, then);
        seen.extend(page.items.iter().map(|pod| pod.name().to_owned()));
        assert_eq!(page.remaining, page.next.is_some().then_some(1_300 - seen.len() as u64));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, (0..1_300).map(|n| format!("p{n:04}")).collect::<Vec<_>>());
    assert_eq!(counting.read.load(Ordering::SeqCst) - read_before, 1_300, "each entry is read for one page");
    let rare = Filter::all().matching(|pod| pod.label("app") == Some("rare"));
    let query = ListQuery { limit: 3, at: Some(then), filter: rare, ..ListQuery::default() };
    let page = world.pods.list(&query).await.unwrap();
    let names: Vec<_> = page.items.iter().map(|pod| pod.name().to_owned()).collect();
    assert_eq!((names, page.remaining), (["p0000", "p0400", "p0800"].map(String::from).to_vec(), None));
    let rest = world.pods.list(&ListQuery { after: page.next, ..query }).await.unwrap();
    assert_eq!((rest.items.len(), rest.items[0].name(), rest.next), (1, "p1200", None));
}

/// A store whose watches end or panic when told, that may have forgotten what came then or be another one, and that
/// counts what is read.
#[derive(Debug)]
struct Unsteady {
    inner: RwLock<Arc<dyn Store>>,
    breaks: tokio::sync::watch::Sender<()>,
    forgetful: AtomicBool,
    /// Whether a watch panics instead of breaking.
    panics: Arc<AtomicBool>,
    lists: AtomicUsize,
    read: AtomicUsize,
}

impl Unsteady {
    fn new(inner: Arc<dyn Store>) -> Self {
        Self {
            inner: RwLock::new(inner),
            breaks: tokio::sync::watch::Sender::new(()),
            forgetful: AtomicBool::default(),
            panics: Arc::default(),
            lists: AtomicUsize::default(),
            read: AtomicUsize::default(),
        }
    }
}

#[async_trait::async_trait]
impl Delegate for Unsteady {
    fn inner(&self) -> Arc<dyn Store> {
        self.inner.read().unwrap().clone()
    }
    async fn on_list(&self, range: Range) -> Result<Page, StoreError> {
        let page = self.inner().list(range).await?;
        self.lists.fetch_add(1, Ordering::SeqCst);
        self.read.fetch_add(page.entries.len(), Ordering::SeqCst);
        Ok(page)
    }
    async fn on_watch(&self, prefix: &str, after: Revision) -> Result<EventStream, StoreError> {
        let inner = self.inner();
        let current = inner.current_revision().await?;
        if self.forgetful.load(Ordering::SeqCst) && after < current {
            let lost = StoreError::Compacted { requested: after, oldest: Some(current) };
            return Ok(futures::stream::once(async move { Err(lost) }).boxed());
        }
        let mut breaks = self.breaks.subscribe();
        let ended = async move { drop(breaks.changed().await) };
        let panics = self.panics.clone();
        let broken = futures::stream::once(async move {
            assert!(!panics.swap(false, Ordering::SeqCst), "as a store may");
            Err(StoreError::io("watch", "store", "the leader is gone"))
        });
        Ok(inner.watch(prefix, after).await?.take_until(ended).chain(broken).boxed())
    }
}

/// Deletes and creates a pod anew while the cache does not look; what a watch that was open is told.
async fn recreated_behind_a_break(forgetful: bool) -> (Vec<(EventKind, String)>, World, Arc<Unsteady>, Revision) {
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let store = Arc::new(Unsteady::new(memory.clone()));
    let world = world_on(store.clone()).await;
    let object = |uid: &str| json!({"metadata": {"namespace": "ns", "name": "a", "uid": uid}}).to_string();
    let key = pods().key("ns", "a").unwrap();
    let first = store.put(Put::create(key.clone(), object("one"))).await.unwrap();
    world.cache.wait_until_fresh(first).await.unwrap();
    let lists = store.lists.load(Ordering::SeqCst);
    let mut watch = world.pods.watch(WatchRequest::new(Filter::all(), WatchStart::Now)).unwrap();
    store.forgetful.store(forgetful, Ordering::SeqCst);
    // The cache learns of the break when it runs next; until then nothing yields to it.
    store.breaks.send_replace(());
    futures::executor::block_on(async {
        memory.delete(&key, Precondition::Any).await.unwrap();
        memory.put(Put::create(key.clone(), object("two"))).await.unwrap()
    });
    let seen = time::within("what was created anew", async {
        let mut seen = Vec::new();
        while let Some(Ok(WatchItem::Event { kind, object })) = watch.next().await {
            seen.push((kind, object.uid().to_owned()));
            if kind == EventKind::Added {
                break;
            }
        }
        seen
    });
    let seen = seen.await.unwrap();
    assert_eq!(store.lists.load(Ordering::SeqCst) > lists, forgetful, "listed anew");
    (seen, world, store, first)
}

#[tokio::test]
async fn what_was_created_anew_behind_a_broken_watch_is_not_a_change() {
    for forgetful in [false, true] {
        let (seen, world, _store, first) = recreated_behind_a_break(forgetful).await;
        let told = [(EventKind::Deleted, "one".to_owned()), (EventKind::Added, "two".to_owned())];
        assert_eq!(seen, told, "forgetful: {forgetful}");
        let resumed = world.pods.watch(WatchRequest::new(Filter::all(), WatchStart::After(first)));
        assert_eq!(resumed.is_ok(), !forgetful, "history reaches behind the break where the store could tell it");
    }
}

#[tokio::test]
async fn a_restarted_cache_pages_through_the_store() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let world = world_on(store.clone()).await;
    let old = world.put("ns", "a", "first", "").await;
    world.put("ns", "a", "second", "").await;
    let world = world_on(store.clone()).await;
    let listing = world.pods.list(&ListQuery { at: Some(old), ..ListQuery::default() }).await.unwrap();
    assert_eq!(listing.items[0].label("app"), Some("first"));
    let resumed = world.pods.watch(WatchRequest::new(Filter::all(), WatchStart::After(old)));
    assert!(matches!(resumed, Err(CacheError::Expired { .. })));
    store.compact(store.current_revision().await.unwrap()).await.unwrap();
    let gone = world.pods.list(&ListQuery { at: Some(old), ..ListQuery::default() }).await;
    assert!(matches!(gone, Err(CacheError::Store(StoreError::Compacted { .. }))));
}

#[tokio::test]
async fn selectors_turn_changes_into_arrivals_and_departures() {
    use EventKind::{Added, Deleted, Modified};
    let world = world().await;
    let before = world.pods.revision();
    let filter = Filter::all().matching(|pod| pod.label("app") == Some("x"));
    let mut watch = world.pods.watch(WatchRequest::new(filter.clone(), WatchStart::Now)).unwrap();
    world.put("ns", "a", "x", "").await;
    world.put("ns", "a", "x", "n1").await;
    let left = world.put("ns", "a", "y", "").await;
    world.put("ns", "a", "y", "n2").await;
    world.put("ns", "a", "x", "").await;
    world.delete("ns", "a").await;
    let expected = [Added, Modified, Deleted, Added, Deleted].map(|kind| (kind, "a".to_owned()));
    assert_eq!(take(&mut watch, 5).await, expected);

    let mut late = world.pods.watch(WatchRequest::new(filter, WatchStart::After(before))).unwrap();
    let _ = take(&mut late, 2).await;
    let Some(Ok(WatchItem::Event { kind: Deleted, object })) = late.next().await else { panic!("no departure") };
    assert_eq!(object.revision(), left);
    assert_eq!(object.label("app"), Some("x"), "the last state that matched");
}

/// A predicate may take long; whoever waits for the cache waits for all resources, since one task feeds them.
#[tokio::test]
async fn predicates_are_asked_while_the_cache_is_free() {
    use EventKind::{Added, Deleted, Modified};
    let world = world().await;
    world.put("ns", "a", "x", "").await;
    let before = world.put("ns", "b", "y", "").await;
    let asked = Arc::new(AtomicUsize::new(0));
    let (pods, count) = (world.pods.clone(), asked.clone());
    let filter = Filter::all().in_namespace("ns").matching_apart(move |pod| {
        assert!(!pods.is_locked(), "{pod:?}");
        count.fetch_add(1, Ordering::SeqCst);
        pod.label("app") == Some("x")
    });
    let query = ListQuery { filter: filter.clone(), ..ListQuery::default() };
    assert_eq!(world.names(query.clone()).await, ["ns/a"]);
    let mut visited = 0;
    world.pods.for_each(&filter, |_| visited += 1);
    assert_eq!((visited, asked.swap(0, Ordering::SeqCst)), (1, 4));

    let mut watch = world.pods.watch(WatchRequest::new(filter.clone(), WatchStart::State)).unwrap();
    let mut late = world.pods.watch(WatchRequest::new(filter.clone(), WatchStart::After(before))).unwrap();
    world.put("other", "c", "x", "").await;
    world.put("ns", "a", "x", "n1").await;
    world.put("ns", "a", "y", "n1").await;
    world.put("ns", "b", "x", "n1").await;
    assert_eq!(asked.load(Ordering::SeqCst), 0, "nobody has read yet");
    let named = |list: &[(EventKind, &str)]| list.iter().map(|(k, n)| (*k, (*n).to_owned())).collect::<Vec<_>>();
    assert_eq!(take(&mut watch, 4).await, named(&[(Added, "a"), (Modified, "a"), (Deleted, "a"), (Added, "b")]));
    assert_eq!(take(&mut late, 3).await, named(&[(Modified, "a"), (Deleted, "a"), (Added, "b")]));
    let past = ListQuery { at: Some(before), ..query };
    assert_eq!(world.names(past).await, ["ns/a"]);
}

#[tokio::test]
async fn indexed_watches_see_only_theirs() {
    use EventKind::{Added, Deleted, Modified};
    let world = world().await;
    let on_node = Filter::all().with_field("spec.nodeName", "n1");
    let mut node = world.pods.watch(WatchRequest::new(on_node, WatchStart::State)).unwrap();
    let single = Filter::all().in_namespace("ns").named("b");
    let mut one = world.pods.watch(WatchRequest::new(single, WatchStart::State)).unwrap();
    let mut space =
        world.pods.watch(WatchRequest::new(Filter::all().in_namespace("other"), WatchStart::State)).unwrap();
    world.put("ns", "a", "x", "").await;
    world.put("ns", "a", "x", "n1").await;
    world.put("ns", "b", "x", "n2").await;
    world.put("ns", "a", "x", "n2").await;
    world.put("ns", "b", "x", "n1").await;
    world.put("other", "c", "x", "").await;
    let named = |list: &[(EventKind, &str)]| list.iter().map(|(k, n)| (*k, (*n).to_owned())).collect::<Vec<_>>();
    assert_eq!(take(&mut node, 3).await, named(&[(Added, "a"), (Deleted, "a"), (Added, "b")]));
    assert_eq!(take(&mut one, 2).await, named(&[(Added, "b"), (Modified, "b")]));
    assert_eq!(take(&mut space, 1).await, named(&[(Added, "c")]));
    assert_eq!(world.pods.read().watchers.len(), 3);
    drop((node, one, space));
    assert_eq!(world.pods.read().watchers.len(), 0, "closed watches leave nothing behind");
}

#[tokio::test]
async fn initial_state_ends_with_a_bookmark() {
    let world = world().await;
    world.put("ns", "a", "x", "").await;
    let revision = world.put("ns", "a", "y", "").await;
    let request = WatchRequest {
        bookmarks: true,
        initial_events_end: true,
        ..WatchRequest::new(Filter::all(), WatchStart::State)
    };
    let mut watch = world.pods.watch(request).unwrap();
    assert_eq!(take(&mut watch, 1).await, [(EventKind::Added, "a".to_owned())]);
    let item = watch.next().await.unwrap().unwrap();
    assert!(matches!(item, WatchItem::Bookmark { revision: r, initial_events_end: true } if r == revision));
    assert!(watch.final_bookmark().is_none(), "nothing new");
    // A write elsewhere moves the revision on.
    let key = Key::new("/registry/core/secrets/ns/s").unwrap();
    let elsewhere = world.store.put(Put::create(key, "{}")).await.unwrap();
    world.cache.wait_until_fresh(elsewhere).await.unwrap();
    assert_eq!(watch.final_bookmark().unwrap().revision(), elsewhere);
}

#[tokio::test(start_paused = true)]
async fn quiet_watches_get_bookmarks() {
    let world = world().await;
    let request =
        WatchRequest { bookmarks: true, ..WatchRequest::new(Filter::all().in_namespace("x"), WatchStart::Now) };
    let mut watch = world.pods.watch(request).unwrap();
    let revision = world.put("other", "a", "x", "").await;
    let item = watch.next().await.unwrap().unwrap();
    assert!(matches!(item, WatchItem::Bookmark { revision: r, initial_events_end: false } if r == revision));
}

impl PartialEq for WatchItem {
    fn eq(&self, _: &Self) -> bool {
        false
    }
}

#[tokio::test]
async fn unreadable_objects_are_left_out() {
    let world = world().await;
    world.put("ns", "good", "x", "").await;
    let key = pods().key("ns", "bad").unwrap();
    let revision = world.store.put(Put::create(key, &b"\xff not json"[..])).await.unwrap();
    world.cache.wait_until_fresh(revision).await.unwrap();
    assert_eq!(world.names(ListQuery::default()).await, ["ns/good"]);
}

#[tokio::test]
async fn a_future_revision_times_out() {
    let world = world().await;
    let error = world.cache.wait_until_fresh(Revision(500)).await.unwrap_err();
    assert!(matches!(error, CacheError::TooLarge { requested: Revision(500), .. }));
}

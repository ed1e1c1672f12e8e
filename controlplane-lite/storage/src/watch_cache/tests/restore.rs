//! Tests of `storage::watch_cache`: a store that was restored from a backup while the cache ran.

use super::*;

/// A pod in a store that nobody follows yet.
async fn put(store: &dyn Store, name: &str, label: &str) -> Revision {
    let value = json!({"metadata": {"namespace": "ns", "name": name, "labels": {"app": label}}});
    store.put(Put::overwrite(pods().key("ns", name).unwrap(), value.to_string())).await.unwrap()
}

/// It counts again, and what it says at a revision is something else.
#[tokio::test]
async fn what_a_store_says_that_was_restored_counts() {
    let (before, backup) = (Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new()));
    let store = Arc::new(Unsteady::new(before));
    let world = world_on(store.clone()).await;
    for n in 0..20 {
        world.put("ns", "a", &format!("before {n}"), "").await;
    }
    for n in 0..5 {
        put(&*backup, "a", &format!("behind {n}")).await;
    }
    let there = backup.current_revision().await.unwrap();
    let request = |start| WatchRequest { bookmarks: true, ..WatchRequest::new(Filter::all(), start) };
    let mut open = world.pods.watch(request(WatchStart::Now)).unwrap();
    let mut resumed = world.pods.watch(request(WatchStart::After(Revision(there.0 + 5)))).unwrap();
    take(&mut resumed, 1).await;
    *store.inner.write().unwrap() = backup.clone();
    store.breaks.send_replace(());
    for watch in [&mut open, &mut resumed] {
        let mut last = None;
        while let Some(item) = time::within("the end", watch.next()).await.unwrap() {
            last = Some(item.err());
        }
        assert_eq!(last, Some(Some(WatchEnd::CutOff)));
        assert!(watch.final_bookmark().is_none());
    }
    assert_eq!(world.cache.fresh().await.unwrap(), there);
    assert_eq!(world.pods.get("ns", "a").unwrap().label("app"), Some("behind 4"));
    // What is written is shown, although the caches had shown that revision before.
    let written = world.put("ns", "a", "behind 5", "").await;
    assert_eq!((written, world.pods.get("ns", "a").unwrap().label("app")), (there.next(), Some("behind 5")));
    let listed = world.pods.list(&ListQuery::default()).await.unwrap();
    assert_eq!((listed.revision, world.cache.revision()), (written, written));
    let mut watch = world.pods.watch(request(WatchStart::Now)).unwrap();
    world.put("ns", "b", "", "").await;
    assert_eq!(take(&mut watch, 1).await, [(EventKind::Added, "b".to_owned())]);
    let future = world.pods.watch(request(WatchStart::After(Revision(there.0 - 1))));
    assert!(matches!(future, Err(CacheError::Expired { .. })));
}

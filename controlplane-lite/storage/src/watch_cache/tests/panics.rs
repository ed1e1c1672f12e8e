//! Tests of `storage::watch_cache`: a panic of the task that follows the store.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_panic_costs_the_open_watches_and_nothing_else() {
    let store = Arc::new(Unsteady::new(Arc::new(MemoryStore::new())));
    let world = world_on(store.clone()).await;
    let before = world.put("ns", "a", "x", "").await;
    let mut open = world.pods.watch(WatchRequest::new(Filter::all(), WatchStart::Now)).unwrap();
    store.panics.store(true, Ordering::SeqCst);
    store.breaks.send_replace(());
    // Who watched may have missed something: it has to list again, and cannot resume.
    let told = time::within("the watch's end", open.next()).await.unwrap();
    assert_eq!(told.map(|item| item.err()), Some(Some(WatchEnd::CutOff)));
    let after = world.put("ns", "b", "x", "").await;
    assert_eq!(world.names(ListQuery::default()).await, ["ns/a", "ns/b"]);
    let resume = |revision| world.pods.watch(WatchRequest::new(Filter::all(), WatchStart::After(revision)));
    assert!(matches!(resume(Revision(before.0 - 1)), Err(CacheError::Expired { .. })));
    let mut watch = resume(after).unwrap();
    world.delete("ns", "a").await;
    assert_eq!(take(&mut watch, 1).await, [(EventKind::Deleted, "a".to_owned())]);
}

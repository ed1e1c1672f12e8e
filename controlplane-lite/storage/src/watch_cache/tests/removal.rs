//! Tests of `storage::watch_cache`: resources that come and go while the cache runs.

use super::*;

#[tokio::test]
async fn resources_come_and_go() {
    let world = world().await;
    let key = Key::new("/registry/example.com/widgets/w1").unwrap();
    world.store.put(Put::create(key, r#"{"metadata":{"name":"w1"}}"#)).await.unwrap();
    let spec = ResourceSpec::new("example.com", "widgets", false);
    let widgets = world.cache.add(spec.clone()).await.unwrap();
    assert!(widgets.get("", "w1").is_some());
    let mut watch = widgets.watch(WatchRequest::new(Filter::all(), WatchStart::Now)).unwrap();
    world.cache.remove(&spec).await.unwrap();
    assert!(watch.next().await.unwrap().is_err());
    assert!(world.cache.resource("example.com", "widgets").is_none());
}

/// Who holds the cache of a resource that went, and perhaps came back, reads what there was when it went: a list at a
/// later revision without what was written since would be one to watch on from.
#[tokio::test]
async fn a_removed_resource_stays_as_it_was() {
    let world = world().await;
    let object = |name: &str| {
        Put::create(
            Key::new(format!("/registry/example.com/widgets/{name}")).unwrap(),
            format!(r#"{{"metadata":{{"name":"{name}"}}}}"#),
        )
    };
    let before = world.store.put(object("w1")).await.unwrap();
    let spec = ResourceSpec::new("example.com", "widgets", false);
    let old = world.cache.add(spec.clone()).await.unwrap();
    world.cache.wait_until_fresh(before).await.unwrap();
    world.cache.remove(&spec).await.unwrap();
    let new = world.cache.add(spec.clone().with_fields([FieldPath::new("spec.size")])).await.unwrap();
    let after = world.store.put(object("w2")).await.unwrap();
    world.cache.wait_until_fresh(after).await.unwrap();

    let listed = old.list(&ListQuery::default()).await.unwrap();
    assert_eq!((listed.items.len(), listed.revision), (1, before));
    assert_eq!(new.list(&ListQuery::default()).await.unwrap().items.len(), 2);
    let mut watch = old.watch(WatchRequest::new(Filter::all(), WatchStart::State)).unwrap();
    assert_eq!(take(&mut watch, 1).await, [(EventKind::Added, "w1".to_owned())]);
    assert_eq!(watch.next().await, Some(Err(WatchEnd::CutOff)));
    assert!(watch.final_bookmark().is_none());
    // The same resource with other fields is another cache.
    let again = world.cache.add(spec).await.unwrap();
    assert!(!Arc::ptr_eq(&again, &new));
    assert_eq!(again.list(&ListQuery::default()).await.unwrap().revision, after);
}

/// Who watches on, or is behind, is told what happened until then.
#[tokio::test]
async fn a_removed_resource_says_all_that_happened() {
    let world = world().await;
    let spec = ResourceSpec::new("example.com", "widgets", false);
    let widgets = world.cache.add(spec.clone()).await.unwrap();
    let before = world.cache.revision();
    let key = Key::new("/registry/example.com/widgets/w1").unwrap();
    world.store.put(Put::create(key.clone(), r#"{"metadata":{"name":"w1"}}"#)).await.unwrap();
    let (removed, _) = world.store.delete(&key, Precondition::Any).await.unwrap();
    world.cache.wait_until_fresh(removed).await.unwrap();
    world.cache.remove(&spec).await.unwrap();
    let mut watch = widgets.watch(WatchRequest::new(Filter::all(), WatchStart::After(before))).unwrap();
    let told = [EventKind::Added, EventKind::Deleted].map(|kind| (kind, "w1".to_owned()));
    assert_eq!(take(&mut watch, 2).await, told);
    assert_eq!(watch.next().await, Some(Err(WatchEnd::CutOff)));
}

/// Commands are handled in order, and what follows from them after those that were given before.
async fn handled(world: &World) {
    for _ in 0..2 {
        world.cache.remove(&ResourceSpec::new("example.com", "others", false)).await.unwrap();
    }
}

#[tokio::test]
async fn nothing_is_cached_for_who_does_not_wait() {
    let world = world().await;
    let spec = ResourceSpec::new("example.com", "widgets", false);
    let mut asked = Box::pin(world.cache.add(spec.clone()));
    assert!(futures::poll!(&mut asked).is_pending());
    drop(asked);
    handled(&world).await;
    assert!(world.cache.resource("example.com", "widgets").is_none());
}

/// The answer is there, and nobody looks at it.
#[tokio::test]
async fn nothing_is_cached_for_who_leaves_with_the_answer() {
    let world = world().await;
    let spec = ResourceSpec::new("example.com", "widgets", false);
    let mut asked = Box::pin(world.cache.add(spec.clone()));
    assert!(futures::poll!(&mut asked).is_pending());
    handled(&world).await;
    assert!(world.cache.resource("example.com", "widgets").is_some(), "it was added");
    drop(asked);
    handled(&world).await;
    assert!(world.cache.resource("example.com", "widgets").is_none());
}

/// Another version of a resource that is served asks for the cache that is there.
#[tokio::test]
async fn what_was_cached_before_stays() {
    let world = world().await;
    let spec = ResourceSpec::new("example.com", "widgets", false);
    let mut widgets = Some(world.cache.add(spec.clone()).await.unwrap());
    let mut asked = Box::pin(world.cache.add(spec.clone()));
    assert!(futures::poll!(&mut asked).is_pending());
    handled(&world).await;
    drop(asked);
    handled(&world).await;
    let stayed = world.cache.resource("example.com", "widgets");
    assert!(stayed.is_some_and(|stayed| widgets.take().is_some_and(|before| Arc::ptr_eq(&stayed, &before))));
}

/// Who asks one after another for the same: what the first leaves behind is not taken from the next.
#[tokio::test]
async fn who_leaves_takes_nothing_from_the_next() {
    let world = world().await;
    let spec = ResourceSpec::new("example.com", "widgets", false);
    let ask = || Box::pin(world.cache.add(spec.clone()));
    for leaves_late in [false, true] {
        let mut first = ask();
        assert!(futures::poll!(&mut first).is_pending());
        handled(&world).await;
        let mut second = ask();
        assert!(futures::poll!(&mut second).is_pending());
        if leaves_late {
            handled(&world).await;
        }
        drop(first);
        let claimed = second.await.unwrap();
        handled(&world).await;
        let there = world.cache.resource("example.com", "widgets");
        assert!(there.is_some_and(|there| Arc::ptr_eq(&there, &claimed)), "late: {leaves_late}");
        world.cache.remove(&spec).await.unwrap();
    }
    // The last of many who leave leaves nothing.
    let (mut first, mut second) = (ask(), ask());
    assert!(futures::poll!(&mut first).is_pending() && futures::poll!(&mut second).is_pending());
    handled(&world).await;
    drop(first);
    handled(&world).await;
    assert!(world.cache.resource("example.com", "widgets").is_some(), "somebody is still to look");
    drop(second);
    handled(&world).await;
    assert!(world.cache.resource("example.com", "widgets").is_none());
}

/// A cache that is undone after another took its place is not the other.
#[tokio::test]
async fn who_leaves_takes_nothing_from_another_in_its_place() {
    let world = world().await;
    let spec = ResourceSpec::new("example.com", "widgets", false);
    let mut first = Box::pin(world.cache.add(spec.clone()));
    assert!(futures::poll!(&mut first).is_pending());
    handled(&world).await;
    let other = world.cache.add(spec.with_fields([FieldPath::new("spec.size")])).await.unwrap();
    drop(first);
    handled(&world).await;
    let there = world.cache.resource("example.com", "widgets");
    assert!(there.is_some_and(|there| Arc::ptr_eq(&there, &other)));
}

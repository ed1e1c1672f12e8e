//! Tests of `storage::watch_cache`: watches that are behind for long.

use std::sync::Weak;
use std::time::Instant;

use super::*;

/// Watches that are read ever so slowly, each from another time on, would together keep all that was ever written.
#[tokio::test]
async fn a_watch_keeps_little_that_the_history_has_forgotten() {
    let world = world().await;
    let watch = || world.pods.watch(WatchRequest::new(Filter::all(), WatchStart::Now)).unwrap();
    let (mut slow, mut current, idle) = (watch(), watch(), watch());
    let mut forgotten = Weak::new();
    for n in 0..200 {
        world.put("ns", "a", &n.to_string(), "").await;
        if n == 100 {
            forgotten = Arc::downgrade(&world.pods.get("ns", "a").unwrap());
        }
        assert_eq!(take(&mut current, 1).await.len(), 1);
    }
    drop(idle);
    let later = Instant::now() + Duration::from_secs(3600);
    take(&mut slow, 1).await;
    world.pods.trim(later);
    assert_eq!(world.pods.read().watchers.len(), 2, "it may be reading");
    take(&mut slow, 1).await;
    world.pods.trim(later);
    assert_eq!(world.pods.read().watchers.len(), 1);
    // It has to list again, and keeps nothing until then.
    assert!(matches!(slow.next().await, Some(Err(WatchEnd::CutOff))));
    assert_eq!(forgotten.strong_count(), 0);
    assert!(slow.next().await.is_none());
    world.put("ns", "a", "last", "").await;
    world.pods.trim(later);
    world.pods.trim(later);
    assert_eq!(take(&mut current, 1).await.len(), 1, "what is remembered may be read");
}

/// Of more than fits a queue the rest is read where it is remembered, whatever it is that does not fit: each change
/// once, in order, and then what comes next. It used to end the watch, and the next one, again and again.
#[tokio::test]
async fn a_watch_that_is_behind_its_queue_reads_on_in_the_history() {
    for (writes, label) in [(5_000_usize, "x".to_owned()), (45, "x".repeat(1 << 20))] {
        let world = world().await;
        let before = world.put("ns", "a", "", "").await;
        let only = |label: &str| {
            let label = label.to_owned();
            Filter::all().matching_apart(move |pod| pod.label("app") == Some(&*label))
        };
        let start = |filter, start| world.pods.watch(WatchRequest::new(filter, start)).unwrap();
        let mut slow = start(Filter::all(), WatchStart::Now);
        let mut asking = start(only(&label), WatchStart::Now);
        let mut resumed = start(Filter::all().in_namespace("ns"), WatchStart::After(before));
        let mut expected = Vec::new();
        for n in 0..writes {
            expected.push(world.put("ns", "a", &label, &n.to_string()).await);
            if n % 3 == 0 {
                take(&mut resumed, 1).await;
            }
        }
        expected.push(world.put("ns", "b", &label, "").await);
        let mut late = start(Filter::all(), WatchStart::After(before));
        assert!(late.initial_bytes() == 0, "the history has it");
        for (what, watch) in [("slow", &mut slow), ("asking", &mut asking), ("late", &mut late)] {
            let mut seen = Vec::new();
            for _ in &expected {
                let item = time::within(what, watch.next()).await.unwrap().unwrap().unwrap();
                seen.push(item.revision());
            }
            assert_eq!(seen, expected, "{what}");
        }
        let rest = take(&mut resumed, expected.len() - writes.div_ceil(3)).await;
        assert_eq!(rest.last().unwrap(), &(EventKind::Added, "b".to_owned()));
        world.put("ns", "c", &label, "").await;
        for watch in [&mut slow, &mut asking, &mut resumed, &mut late] {
            assert_eq!(take(watch, 1).await, [(EventKind::Added, "c".to_owned())]);
        }
    }
}

/// It ends once, and its client is told that what came next is gone, as upstream's is.
#[tokio::test]
async fn a_watch_that_is_behind_the_history_ends_and_cannot_be_resumed() {
    let world = world().await;
    let before = world.put("ns", "a", "", "").await;
    let request = |start| WatchRequest { bookmarks: true, ..WatchRequest::new(Filter::all(), start) };
    let mut unread = world.pods.watch(request(WatchStart::Now)).unwrap();
    let mut resumed = world.pods.watch(request(WatchStart::After(before))).unwrap();
    for n in 0..3_000 {
        world.put("ns", "a", &n.to_string(), "").await;
    }
    let told = resumed.next().await.unwrap().unwrap().revision();
    assert_eq!(told, before.next());
    assert!(resumed.final_bookmark().is_none(), "it has yet to read what it is behind by");
    let later = Instant::now() + Duration::from_secs(3600);
    world.pods.trim(later);
    world.pods.trim(later);
    assert!(unread.next().await == Some(Err(WatchEnd::CutOff)), "its queue reaches behind the history");
    let mut last = told;
    let end = loop {
        match resumed.next().await.unwrap() {
            Ok(item) => last = item.revision(),
            Err(end) => break end,
        }
    };
    assert_eq!(end, WatchEnd::CutOff);
    assert!(resumed.next().await.is_none() && resumed.final_bookmark().is_none());
    assert!(last < world.pods.revision(), "the part that it had taken");
    let again = world.pods.watch(request(WatchStart::After(last)));
    assert!(matches!(again, Err(CacheError::Expired { .. })));
}

/// What waits for it is bounded, and nothing of it stays when it is cut off.
#[tokio::test]
async fn a_watch_that_was_cut_off_keeps_nothing() {
    let world = world().await;
    let mut slow = world.pods.watch(WatchRequest::new(Filter::all(), WatchStart::Now)).unwrap();
    let large = "x".repeat(1 << 20);
    let mut kept = Vec::new();
    for _ in 0..100 {
        world.put("ns", "a", &large, "").await;
        kept.push(Arc::downgrade(&world.pods.get("ns", "a").unwrap()));
    }
    let of_the_history = world.pods.read().history.since();
    let kept_for_it = kept.iter().filter_map(Weak::upgrade).filter(|object| object.revision() < of_the_history);
    let bytes: usize = kept_for_it.map(|object| object.json_bytes().len()).sum();
    assert!((16 << 20..=super::super::watchers::MAX_PENDING_BYTES + (2 << 20)).contains(&bytes), "{bytes}");
    // The history keeps some of them as well.
    world.pods.trim(Instant::now());
    world.pods.trim(Instant::now());
    world.pods.cut_off();
    assert!(matches!(slow.next().await, Some(Err(WatchEnd::CutOff))));
    let left = kept.iter().filter(|object| object.strong_count() > 0).count();
    assert_eq!(left, 1, "the one that is there");
}

#[tokio::test]
async fn a_last_bookmark_covers_nothing_that_was_not_sent() {
    let later = Instant::now() + Duration::from_secs(3600);
    let of_ns = || {
        let start = WatchRequest::new(Filter::all().in_namespace("ns"), WatchStart::Now);
        WatchRequest { bookmarks: true, ..start }
    };
    for panicked in [false, true] {
        let world = world().await;
        let mut watch = world.pods.watch(of_ns()).unwrap();
        if panicked {
            world.pods.cut_off();
        } else {
            world.put("ns", "last", "", "").await;
            for _ in 0..200 {
                world.put("other", "a", "", "").await;
            }
            world.pods.trim(later);
            world.pods.trim(later);
            assert_eq!(world.pods.read().watchers.len(), 0);
        }
        world.put("ns", "missed", "", "").await;
        if !panicked {
            let _ = watch.next().await.unwrap();
        }
        assert!(watch.final_bookmark().is_none(), "{panicked}");
    }
}

/// A store that was restored from a backup counts again.
#[tokio::test]
async fn what_was_written_before_a_restore_is_not_shown_behind_it() {
    let world = world().await;
    let key = pods().key("ns", "a").unwrap();
    let value =
        |label: &str| json!({"metadata": {"namespace": "ns", "name": "a", "labels": {"app": label}}}).to_string();
    let again = Revision(50);
    world.pods.written(&key, value("before").as_bytes(), again, EventKind::Added).unwrap();
    world.pods.replace(Vec::new(), Revision(3), Instant::now());
    let entry = Entry { key, value: value("behind").into(), revision: again };
    world.pods.apply(&Event::Put { entry, created: true }, Instant::now());
    assert_eq!(world.pods.get("ns", "a").unwrap().label("app"), Some("behind"));
}

/// A long list that comes through a slow line.
#[tokio::test]
async fn a_watch_that_has_not_begun_is_not_behind_by_what_it_has_room_for() {
    let later = Instant::now() + Duration::from_secs(3600);
    for (spared, size, left) in [(false, 1, 0), (true, 1, 1), (true, 40_000, 0)] {
        let world = world().await;
        for name in ["a", "b"] {
            world.put("ns", name, &"x".repeat(10_000), "").await;
        }
        let state = WatchRequest::new(Filter::all().in_namespace("ns"), WatchStart::State);
        let mut slow = world.pods.watch(state).unwrap();
        if spared {
            slow.spare_while_beginning();
        }
        take(&mut slow, 1).await;
        world.put("ns", "a", &"y".repeat(size), "").await;
        let forget = async || {
            for _ in 0..200 {
                world.put("other", "a", "", "").await;
            }
            world.pods.trim(later);
            world.pods.trim(later);
        };
        forget().await;
        assert_eq!(world.pods.read().watchers.len(), left, "{spared} {size}");
        take(&mut slow, 1).await;
        world.pods.trim(later);
        world.pods.trim(later);
        assert_eq!(world.pods.read().watchers.len(), 0, "it has begun");
    }
}

//! What every store must do. One function per clause; each gets a store of its own.

use std::future::Future;
use std::sync::Arc;

use futures::{FutureExt, StreamExt};
use harness::time;
use storage::{
    DatastoreConfig, EtcdConfig, Event, EventStream, Key, Precondition, Put, Range, Revision, Store, StoreError, open,
};

type Shared = Arc<dyn Store>;

/// Runs all clauses on stores made by `make`, which is told the clause's name.
pub async fn run<F: Future<Output = Shared>>(make: impl Fn(&'static str) -> F) {
    crud(make("crud").await).await;
    preconditions(make("preconditions").await).await;
    lists(make("lists").await).await;
    past(make("past").await).await;
    watches(make("watches").await).await;
    resumes(make("resumes").await).await;
    progress(make("progress").await).await;
    compaction(make("compaction").await).await;
    races(make("races").await).await;
    bytes(make("bytes").await).await;
    closing(make("closing").await).await;
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

async fn put(store: &Shared, name: &str, value: &str) -> Revision {
    store.put(Put::overwrite(key(name), value.to_owned())).await.unwrap()
}

async fn next(watch: &mut EventStream) -> Result<Event, StoreError> {
    time::within("an event", watch.next()).await.unwrap().expect("not ended")
}

/// The next change as `+key=value`, `~key=value` or `-key`; progress is skipped.
async fn change(watch: &mut EventStream) -> (String, Revision) {
    loop {
        let event = next(watch).await.unwrap();
        let revision = event.revision();
        match event {
            Event::Progress(_) => {}
            Event::Put { entry, created } => {
                let sign = if created { '+' } else { '~' };
                return (format!("{sign}{}={}", entry.key, String::from_utf8_lossy(&entry.value)), revision);
            }
            Event::Delete { previous, .. } => {
                return (format!("-{}={}", previous.key, String::from_utf8_lossy(&previous.value)), revision);
            }
        }
    }
}

async fn names(store: &Shared, range: Range) -> Vec<String> {
    store.list(range).await.unwrap().entries.iter().map(|entry| entry.key.to_string()).collect()
}

async fn crud(store: Shared) {
    assert!(store.get(&key("/a")).await.unwrap().is_none());
    assert!(store.current_revision().await.unwrap() >= Revision(1), "an empty store has a usable revision");
    let first = store.put(Put::create(key("/a"), "1")).await.unwrap();
    let entry = store.get(&key("/a")).await.unwrap().unwrap();
    assert_eq!((&entry.value[..], entry.revision), (&b"1"[..], first));
    let second = store.put(Put::update(key("/a"), "2", first).eventually()).await.unwrap();
    assert!(second > first);
    assert_eq!(store.get(&key("/a")).await.unwrap().unwrap().value, "2", "eventual writes show at once");
    let (third, removed) = store.delete(&key("/a"), Precondition::Revision(second)).await.unwrap();
    assert!(third > second);
    assert_eq!((&removed.value[..], removed.revision), (&b"2"[..], second));
    assert!(store.get(&key("/a")).await.unwrap().is_none());
    assert_eq!(store.current_revision().await.unwrap(), third);
    let again = store.put(Put::create(key("/a"), "3")).await.unwrap();
    assert!(again > third, "a removed key can be created anew");
}

async fn preconditions(store: Shared) {
    let first = put(&store, "/a", "1").await;
    let exists = store.put(Put::create(key("/a"), "x")).await.unwrap_err();
    assert!(matches!(exists, StoreError::Conflict { current: Some(r), .. } if r == first), "{exists:?}");
    let stale = store.put(Put::update(key("/a"), "x", Revision(first.0 + 40))).await.unwrap_err();
    assert!(matches!(stale, StoreError::Conflict { current: Some(r), .. } if r == first), "{stale:?}");
    let missing = store.put(Put::update(key("/none"), "x", first)).await.unwrap_err();
    assert!(matches!(missing, StoreError::NotFound(_)), "{missing:?}");
    for precondition in [Precondition::Any, Precondition::Revision(first)] {
        let missing = store.delete(&key("/none"), precondition).await;
        assert!(matches!(missing, Err(StoreError::NotFound(_))), "{missing:?}");
    }
    let stale = store.delete(&key("/a"), Precondition::Revision(Revision(first.0 + 40))).await.unwrap_err();
    assert!(matches!(stale, StoreError::Conflict { current: Some(r), .. } if r == first), "{stale:?}");
    assert_eq!(store.current_revision().await.unwrap(), first, "failures take no revision");
    assert_eq!(store.get(&key("/a")).await.unwrap().unwrap().value, "1");
}

async fn lists(store: Shared) {
    for name in ["/r/pods/a/1", "/r/pods/a/2", "/r/pods/b/1", "/r/podsets/x", "/r/pods/a-b/3", "/q"] {
        put(&store, name, name).await;
    }
    let last = put(&store, "/z", "").await;
    assert_eq!(names(&store, Range::prefix("/r/pods/a/")).await, ["/r/pods/a/1", "/r/pods/a/2"]);
    let sorted = ["/r/pods/a-b/3", "/r/pods/a/1", "/r/pods/a/2", "/r/pods/b/1"];
    assert_eq!(names(&store, Range::prefix("/r/pods/")).await, sorted);
    assert_eq!(names(&store, Range::prefix("")).await.len(), 7);
    assert!(names(&store, Range::prefix("/none/")).await.is_empty());
    let mut after = None;
    let mut paged = Vec::new();
    loop {
        let page = store.list(Range { after, limit: 3, count: true, ..Range::prefix("/r/pods/") }).await.unwrap();
        assert_eq!(page.revision, last);
        assert_eq!(page.left_out, Some((sorted.len() - paged.len() - page.entries.len()) as u64));
        paged.extend(page.entries.iter().map(|entry| entry.key.to_string()));
        after = page.entries.last().map(|entry| entry.key.clone());
        if !page.more {
            break;
        }
    }
    assert_eq!(paged, sorted);
    let beyond = Range { after: Some(key("/zzz")), ..Range::prefix("/r/pods/") };
    assert!(names(&store, beyond).await.is_empty());
    let before = Range { after: Some(key("/a")), ..Range::prefix("/r/pods/") };
    assert_eq!(names(&store, before).await, sorted, "a start before the prefix is the prefix");
    let exact = store.list(Range { limit: 4, ..Range::prefix("/r/pods/") }).await.unwrap();
    assert!(!exact.more, "a full last page is the last page");
    assert_eq!(exact.left_out, None, "not asked for");
}

async fn past(store: Shared) {
    put(&store, "/p/a", "1").await;
    put(&store, "/p/b", "1").await;
    let then = put(&store, "/p/c", "1").await;
    put(&store, "/p/b", "2").await;
    store.delete(&key("/p/a"), Precondition::Any).await.unwrap();
    put(&store, "/p/d", "1").await;
    let page = store.list(Range { at: Some(then), ..Range::prefix("/p/") }).await.unwrap();
    assert_eq!(page.revision, then);
    let seen: Vec<_> =
        page.entries.iter().map(|e| format!("{}={}", e.key, String::from_utf8_lossy(&e.value))).collect();
    assert_eq!(seen, ["/p/a=1", "/p/b=1", "/p/c=1"]);
    let second = Range { at: Some(then), after: Some(key("/p/a")), limit: 1, count: true, ..Range::prefix("/p/") };
    assert_eq!(store.list(second.clone()).await.unwrap().left_out, Some(1), "as it was");
    let page = store.list(second).await.unwrap();
    assert_eq!((page.entries[0].key.as_str(), page.more), ("/p/b", true));
    assert_eq!(names(&store, Range::prefix("/p/")).await, ["/p/b", "/p/c", "/p/d"]);
    let future = Revision(then.0 + 1000);
    let refused = store.list(Range { at: Some(future), ..Range::prefix("/p/") }).await.unwrap_err();
    assert!(matches!(refused, StoreError::Future { requested, .. } if requested == future), "{refused:?}");
}

async fn watches(store: Shared) {
    let start = store.current_revision().await.unwrap();
    let mut all = store.watch("", start).await.unwrap();
    let mut some = store.watch("/w/", start).await.unwrap();
    let first = put(&store, "/w/a", "1").await;
    put(&store, "/x", "9").await;
    store.put(Put::overwrite(key("/w/a"), "2").eventually()).await.unwrap();
    let (removed, _) = store.delete(&key("/w/a"), Precondition::Any).await.unwrap();
    put(&store, "/w/a", "3").await;
    assert_eq!(change(&mut some).await, ("+/w/a=1".into(), first));
    assert_eq!(change(&mut some).await.0, "~/w/a=2");
    assert_eq!(change(&mut some).await, ("-/w/a=2".into(), removed));
    assert_eq!(change(&mut some).await.0, "+/w/a=3");
    let mut last = start;
    for expected in ["+/w/a=1", "+/x=9", "~/w/a=2", "-/w/a=2", "+/w/a=3"] {
        let (seen, revision) = change(&mut all).await;
        assert_eq!(seen, expected);
        assert!(revision > last, "revisions grow");
        last = revision;
    }
}

async fn resumes(store: Shared) {
    put(&store, "/w/a", "1").await;
    let known = put(&store, "/w/b", "1").await;
    put(&store, "/w/a", "2").await;
    store.put(Put::overwrite(key("/w/c"), "1").eventually()).await.unwrap();
    store.delete(&key("/w/b"), Precondition::Any).await.unwrap();
    let mut watch = store.watch("/w/", known).await.unwrap();
    put(&store, "/w/d", "1").await;
    for expected in ["~/w/a=2", "+/w/c=1", "-/w/b=1", "+/w/d=1"] {
        assert_eq!(change(&mut watch).await.0, expected);
    }
    let ahead = Revision(store.current_revision().await.unwrap().0 + 1);
    let mut early = store.watch("/w/", ahead).await.unwrap();
    put(&store, "/w/e", "skipped").await;
    put(&store, "/w/e", "seen").await;
    assert_eq!(change(&mut early).await.0, "~/w/e=seen");
}

async fn progress(store: Shared) {
    let start = store.current_revision().await.unwrap();
    let mut watch = store.watch("/quiet/", start).await.unwrap();
    let revision = put(&store, "/loud", "1").await;
    let told = async || {
        store.request_progress().await.unwrap();
        // What has come so far: the answer may take a moment, and may be to an earlier request.
        let come = std::iter::from_fn(|| watch.next().now_or_never()).flatten();
        come.map(Result::unwrap).any(|event| event.revision() >= revision)
    };
    time::eventually_true("progress", told).await.unwrap();
}

async fn compaction(store: Shared) {
    let first = put(&store, "/c/a", "1").await;
    put(&store, "/c/a", "2").await;
    put(&store, "/c/gone", "1").await;
    let (kept, _) = store.delete(&key("/c/gone"), Precondition::Any).await.unwrap();
    put(&store, "/c/a", "3").await;
    store.compact(kept).await.unwrap();
    store.compact(kept).await.unwrap();
    let old = store.list(Range { at: Some(first), ..Range::prefix("/c/") }).await.unwrap_err();
    assert!(matches!(old, StoreError::Compacted { requested, .. } if requested == first), "{old:?}");
    let page = store.list(Range { at: Some(kept), ..Range::prefix("/c/") }).await.unwrap();
    assert_eq!(page.entries.len(), 1);
    assert_eq!(page.entries[0].value, "2", "what was newest then is still there");
    assert_eq!(store.get(&key("/c/a")).await.unwrap().unwrap().value, "3");
    let refused = match store.watch("/c/", first).await {
        Ok(mut watch) => next(&mut watch).await.map(drop),
        Err(error) => Err(error),
    };
    assert!(matches!(refused, Err(StoreError::Compacted { .. })), "{refused:?}");
    let mut watch = store.watch("/c/", kept).await.unwrap();
    assert_eq!(change(&mut watch).await.0, "~/c/a=3");
    let future = Revision(store.current_revision().await.unwrap().0 + 1000);
    assert!(matches!(store.compact(future).await, Err(StoreError::Future { .. })));
}

async fn races(store: Shared) {
    let start = store.current_revision().await.unwrap();
    let mut watch = store.watch("/counter", start).await.unwrap();
    store.put(Put::create(key("/counter"), "0")).await.unwrap();
    let add = |store: Shared| async move {
        for _ in 0..10 {
            loop {
                let entry = store.get(&key("/counter")).await.unwrap().unwrap();
                let number: u64 = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
                let write = Put::update(key("/counter"), (number + 1).to_string(), entry.revision);
                match store.put(write).await {
                    Ok(_) => break,
                    Err(StoreError::Conflict { .. }) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
        }
    };
    let adders: Vec<_> = (0..8).map(|_| tokio::spawn(add(store.clone()))).collect();
    for adder in adders {
        adder.await.unwrap();
    }
    assert_eq!(store.get(&key("/counter")).await.unwrap().unwrap().value, "80", "no update is lost");
    for number in 0..=80 {
        assert!(change(&mut watch).await.0.ends_with(&format!("={number}")), "every state is seen once, in order");
    }
}

async fn bytes(store: Shared) {
    let all: Vec<u8> = (0..=255).collect();
    let large = vec![0xa5; 1_200_000];
    for (name, value) in [("/b/empty", vec![]), ("/b/all", all), ("/b/large", large), ("/b/ünïcode ☃", vec![1])] {
        store.put(Put::create(key(name), value.clone())).await.unwrap();
        assert_eq!(store.get(&key(name)).await.unwrap().unwrap().value, value, "{name}");
    }
    for n in 0..4 {
        store.put(Put::create(key(&format!("/b/more-{n}")), vec![n; 1_200_000])).await.unwrap();
    }
    assert_eq!(store.list(Range::prefix("/b/")).await.unwrap().entries.len(), 8, "pages of several MB pass");
}

async fn closing(store: Shared) {
    let start = store.current_revision().await.unwrap();
    let mut watch = store.watch("", start).await.unwrap();
    store.close().await.unwrap();
    assert!(next(&mut watch).await.is_err(), "watches end");
    let refused = store.put(Put::create(key("/late"), "")).await;
    assert!(matches!(refused, Err(StoreError::Closed)), "{refused:?}");
}

/// Two stores with prefixes of their own share one etcd without seeing each other.
pub async fn shared_cluster(url: &str) {
    let config = |prefix: &str| EtcdConfig { prefix: prefix.into(), ..EtcdConfig::new(vec![url.into()]) };
    let one = open(&DatastoreConfig::Etcd(config("/shared-1"))).await.unwrap();
    let two = open(&DatastoreConfig::Etcd(config("/shared-2"))).await.unwrap();
    let twin = open(&DatastoreConfig::Etcd(config("/shared-1"))).await.unwrap();
    let start = one.current_revision().await.unwrap();
    let mut watch = twin.watch("", start).await.unwrap();
    put(&two, "/k", "two").await;
    put(&one, "/k", "one").await;
    assert_eq!(change(&mut watch).await.0, "+/k=one");
    assert_eq!(names(&two, Range::default()).await, ["/k"]);
    assert_eq!(twin.get(&key("/k")).await.unwrap().unwrap().value, "one");
}

//! Tests of `storage::redb`: tables, properties and garbage.

#![allow(clippy::unwrap_used)]
use super::*;
use harness::time;
use std::time::Duration;

fn config(directory: &tempfile::TempDir) -> RedbConfig {
    RedbConfig::new(directory.path().join("sub/state.redb"))
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

#[tokio::test]
async fn a_reopened_store_shows_everything() {
    let directory = tempfile::tempdir().unwrap();
    let store = RedbStore::open(config(&directory)).unwrap();
    let first = store.put(Put::create(key("a"), "1")).await.unwrap();
    store.put(Put::create(key("b"), "2").eventually()).await.unwrap();
    let last = store.put(Put::update(key("a"), "3", first).eventually()).await.unwrap();
    store.close().await.unwrap();
    assert!(matches!(store.put(Put::create(key("c"), "")).await, Err(StoreError::Closed)));
    drop(store);
    let store = RedbStore::open(config(&directory)).unwrap();
    assert_eq!(store.current_revision().await.unwrap(), last, "a clean stop leaves no gap");
    let page = store.list(Range::default()).await.unwrap();
    let values: Vec<_> = page.entries.iter().map(|e| (e.key.as_str(), &e.value[..])).collect();
    assert_eq!(values, [("a", &b"3"[..]), ("b", b"2")]);
    let mut watch = store.watch("", first).await.unwrap();
    let event = futures::StreamExt::next(&mut watch).await.unwrap().unwrap();
    assert_eq!(event.key(), Some(&key("b")));
}

#[tokio::test]
async fn eventual_writes_reach_the_disk_by_themselves() {
    let directory = tempfile::tempdir().unwrap();
    let store = RedbStore::open(RedbConfig { flush_after: Duration::from_millis(20), ..config(&directory) }).unwrap();
    store.put(Put::create(key("beat"), "1").eventually()).await.unwrap();
    assert_eq!(store.get(&key("beat")).await.unwrap().unwrap().value, "1");
    let flushed = async || store.shared.visible().overlay.is_empty();
    time::eventually_true("the write to the disk", flushed).await.unwrap();
    assert_eq!(store.get(&key("beat")).await.unwrap().unwrap().value, "1");
}

/// Copies the file as a crash would leave it: what was committed and no more.
fn crash(directory: &tempfile::TempDir) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    std::fs::create_dir(copy.path().join("sub")).unwrap();
    for name in ["state.redb", "state.redb.acknowledged"] {
        std::fs::copy(directory.path().join("sub").join(name), copy.path().join("sub").join(name)).unwrap();
    }
    copy
}

#[tokio::test]
async fn a_crash_never_reuses_revisions() {
    let directory = tempfile::tempdir().unwrap();
    let store = RedbStore::open(config(&directory)).unwrap();
    let durable = store.put(Put::create(key("a"), "1")).await.unwrap();
    let lost = store.put(Put::overwrite(key("a"), "2").eventually()).await.unwrap();
    let copy = crash(&directory);
    let after = RedbStore::open(config(&copy)).unwrap();
    let entry = after.get(&key("a")).await.unwrap().unwrap();
    assert_eq!((entry.revision, &entry.value[..]), (durable, &b"1"[..]), "the heartbeat is lost, the rest is not");
    assert!(after.current_revision().await.unwrap() > lost);
    assert!(after.put(Put::create(key("b"), "")).await.unwrap() > lost);
    let stale = after.put(Put::update(key("a"), "3", lost)).await;
    assert!(matches!(stale, Err(StoreError::Conflict { .. })));
    assert!(matches!(after.watch("", lost).await, Err(StoreError::Compacted { .. })), "saw what never happened");
    let at_lost = Range { at: Some(lost), ..Range::default() };
    assert!(matches!(after.list(at_lost).await, Err(StoreError::Compacted { .. })));
    let mut watch = after.watch("", durable).await.unwrap();
    let event = futures::StreamExt::next(&mut watch).await.unwrap().unwrap();
    assert_eq!(event.key(), Some(&key("b")), "who saw only durable state resumes");
}

#[tokio::test]
async fn a_full_reserve_forces_a_commit() {
    let directory = tempfile::tempdir().unwrap();
    let store = RedbStore::open(config(&directory)).unwrap();
    let mut last = Revision(0);
    for _ in 0..=schema::RESERVE {
        last = store.put(Put::overwrite(key("beat"), "x").eventually()).await.unwrap();
    }
    let copy = crash(&directory);
    let after = RedbStore::open(config(&copy)).unwrap();
    assert!(after.current_revision().await.unwrap() > last);
}

#[tokio::test]
async fn history_is_forgotten_by_count() {
    let directory = tempfile::tempdir().unwrap();
    let store = RedbStore::open(RedbConfig { history_revisions: 50, ..config(&directory) }).unwrap();
    let first = store.put(Put::create(key("a"), "first")).await.unwrap();
    store.put(Put::create(key("gone"), "")).await.unwrap();
    store.delete(&key("gone"), Precondition::Any).await.unwrap();
    for n in 0..400 {
        store.put(Put::overwrite(key("b"), format!("{n}"))).await.unwrap();
    }
    assert!(matches!(store.watch("", first).await, Err(StoreError::Compacted { .. })));
    assert_eq!(store.get(&key("a")).await.unwrap().unwrap().value, "first");
    let read = store.shared.begin_read().unwrap();
    let rows = ::redb::ReadableTableMetadata::len(&read.open_table(schema::VERSIONS).unwrap()).unwrap();
    assert!(rows < 200, "{rows} versions are kept");
    let log = ::redb::ReadableTableMetadata::len(&read.open_table(schema::LOG).unwrap()).unwrap();
    assert!(log < 200, "{log} changes are kept");
}

#[tokio::test]
async fn one_file_has_one_owner() {
    let directory = tempfile::tempdir().unwrap();
    let _store = RedbStore::open(config(&directory)).unwrap();
    let second = RedbStore::open(config(&directory)).unwrap_err();
    assert!(matches!(second, StoreError::Io { operation: "open", .. }), "{second:?}");
}

#[tokio::test]
async fn damaged_files_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = config(&directory).path;
    let store = RedbStore::open(config(&directory)).unwrap();
    for n in 0..200 {
        store.put(Put::create(key(&format!("key-{n}")), vec![7; 500])).await.unwrap();
    }
    drop(store);
    let good = std::fs::read(&path).unwrap();
    let check = |name: &str, bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        match RedbStore::open(config(&directory)) {
            Err(error @ (StoreError::Corrupt { .. } | StoreError::Io { .. })) => {
                assert!(error.to_string().contains("state.redb"), "{name}: {error}");
            }
            other => panic!("{name}: {other:?}"),
        }
    };
    check("text", b"this is not a database\n".repeat(300).as_slice());
    check("cut short", &good[..good.len() / 3]);
    let mut flipped = good.clone();
    for byte in flipped.iter_mut().skip(4096).step_by(97) {
        *byte ^= 0x5a;
    }
    check("flipped bits", &flipped);
    check("empty", b"");
    std::fs::remove_file(&path).unwrap();
    std::fs::remove_file(path.with_extension("redb.acknowledged")).unwrap();
    assert!(RedbStore::open(config(&directory)).is_ok(), "no file is a new store");
    assert!(!path.with_extension("new").exists());
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

/// Damages every page that the last commit wrote, so that only the one before it is whole.
fn without_the_last_commit(before: &[u8], after: &[u8]) -> Vec<u8> {
    let mut damaged = after.to_vec();
    for (index, page) in damaged.chunks_mut(4096).enumerate().skip(1) {
        let old = before.get(index * 4096..(index + 1) * 4096).unwrap_or_default();
        if old != page {
            page.iter_mut().for_each(|byte| *byte ^= 0x5a);
        }
    }
    damaged
}

#[tokio::test]
async fn a_store_that_lost_its_last_commit_is_refused() {
    for clean in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let path = config(&directory).path;
        let store = RedbStore::open(config(&directory)).unwrap();
        for n in 0..20 {
            store.put(Put::create(key(&format!("key-{n}")), vec![7; 500])).await.unwrap();
        }
        let before = std::fs::read(&path).unwrap();
        store.put(Put::create(key("last"), "acknowledged")).await.unwrap();
        let killed = std::fs::read(&path).unwrap();
        drop(store);
        let after = if clean { std::fs::read(&path).unwrap() } else { killed };
        std::fs::write(&path, without_the_last_commit(&before, &after)).unwrap();
        match RedbStore::open(config(&directory)) {
            Err(StoreError::Corrupt { .. }) => {}
            Err(other) => panic!("clean: {clean}: {other:?}"),
            Ok(store) => {
                let last = store.get(&key("last")).await.unwrap();
                panic!("clean: {clean}: opened at {:?}, with {last:?}", store.current_revision().await);
            }
        }
    }
}

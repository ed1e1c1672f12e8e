//! The store on a disk that loses what was not synced, and that is full or away for a moment.

#![allow(clippy::unwrap_used)]
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use ::redb::StorageBackend;

use super::*;

/// What a disk holds, and what of it would survive a loss of power.
#[derive(Debug, Default)]
struct Platter {
    live: Mutex<Vec<u8>>,
    durable: Mutex<Vec<u8>>,
    /// Whether it refuses to write.
    full: AtomicBool,
    /// Whether it writes and then fails to say so.
    unsure: AtomicBool,
    /// Whether it cannot be read.
    unreadable: AtomicBool,
}

#[derive(Debug, Clone, Default)]
struct Disk(Arc<Platter>);

impl Disk {
    fn lose_power(&self) -> Self {
        let durable = self.0.durable.lock().unwrap().clone();
        Self(Arc::new(Platter {
            live: Mutex::new(durable.clone()),
            durable: Mutex::new(durable),
            ..Platter::default()
        }))
    }

    fn check(&self) -> io::Result<()> {
        let full = self.0.full.load(Ordering::SeqCst);
        if full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn open(&self) -> Result<RedbStore, StoreError> {
        let disk = self.clone();
        let open = move |config: &RedbConfig| {
            let mut builder = Database::builder();
            builder.set_cache_size(config.cache_bytes);
            builder.create_with_backend(disk.clone()).map_err(|error| StoreError::io("open", "disk", error))
        };
        // Without a cache every read asks the disk.
        RedbStore::open_with(RedbConfig { cache_bytes: 0, ..RedbConfig::new("disk") }, Box::new(open), |_| {
            Ok(Acknowledged::default())
        })
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.live.lock().unwrap().len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.0.unreadable.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let (live, from) = (self.0.live.lock().unwrap(), usize::try_from(offset).unwrap());
        let bytes = live.get(from..from + out.len()).ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        out.copy_from_slice(bytes);
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.0.live.lock().unwrap().resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        let live = self.0.live.lock().unwrap().clone();
        *self.0.durable.lock().unwrap() = live;
        if self.0.unsure.swap(false, Ordering::SeqCst) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        let from = usize::try_from(offset).unwrap();
        self.0.live.lock().unwrap()[from..from + data.len()].copy_from_slice(data);
        Ok(())
    }
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

async fn texts(store: &RedbStore) -> Vec<String> {
    let page = store.list(Range::default()).await.unwrap();
    page.entries.iter().map(|e| format!("{}={}", e.key.as_str(), String::from_utf8_lossy(&e.value))).collect()
}

#[tokio::test]
async fn an_acknowledged_write_survives_a_loss_of_power() {
    let disk = Disk::default();
    let store = disk.open().unwrap();
    let mut expected = Vec::new();
    for n in 0..20 {
        store.put(Put::create(key(&format!("k{n:02}")), "1")).await.unwrap();
        expected.push(format!("k{n:02}=1"));
        // The moment after the answer is the earliest at which power may be lost.
        let after = disk.lose_power().open().unwrap();
        assert_eq!(texts(&after).await, expected);
    }
    store.delete(&key("k00"), Precondition::Any).await.unwrap();
    assert_eq!(texts(&disk.lose_power().open().unwrap()).await, expected[1..]);
}

#[tokio::test]
async fn a_disk_that_was_full_takes_writes_again() {
    let disk = Disk::default();
    let store = disk.open().unwrap();
    store.put(Put::create(key("a"), "1")).await.unwrap();
    let beat = store.put(Put::create(key("beat"), "1").eventually()).await.unwrap();
    disk.0.full.store(true, Ordering::SeqCst);
    store.put(Put::create(key("b"), "1")).await.unwrap_err();
    store.check().await.unwrap_err();
    disk.0.full.store(false, Ordering::SeqCst);
    let again = async {
        while store.put(Put::overwrite(key("c"), "1")).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), again).await.expect("writes go on");
    store.check().await.unwrap();
    assert_eq!(texts(&store).await, ["a=1", "beat=1", "c=1"], "what was refused did not happen, the rest did");
    assert!(store.current_revision().await.unwrap() > beat);
    drop(store);
    assert_eq!(texts(&disk.lose_power().open().unwrap()).await, ["a=1", "beat=1", "c=1"]);
}

#[tokio::test]
async fn a_commit_that_reached_the_disk_and_failed_did_not_happen() {
    let disk = Disk::default();
    let store = disk.open().unwrap();
    store.put(Put::create(key("a"), "1")).await.unwrap();
    disk.0.unsure.store(true, Ordering::SeqCst);
    store.put(Put::create(key("b"), "1")).await.unwrap_err();
    let again = async {
        while store.put(Put::create(key("c"), "1")).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), again).await.expect("writes go on");
    assert_eq!(texts(&store).await, ["a=1", "c=1"]);
    drop(store);
    assert_eq!(texts(&disk.open().unwrap()).await, ["a=1", "c=1"]);
}

#[tokio::test]
async fn a_disk_that_could_not_be_read_is_read_again() {
    let disk = Disk::default();
    let store = disk.open().unwrap();
    store.put(Put::create(key("a"), "1")).await.unwrap();
    disk.0.unreadable.store(true, Ordering::SeqCst);
    store.get(&key("a")).await.unwrap_err();
    store.list(Range::default()).await.unwrap_err();
    store.put(Put::create(key("b"), "1")).await.unwrap_err();
    disk.0.unreadable.store(false, Ordering::SeqCst);
    // Nobody writes: the reads alone have to bring the store back.
    let again = async {
        while store.get(&key("a")).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), again).await.expect("reads go on");
    assert_eq!(texts(&store).await, ["a=1"]);
    store.put(Put::create(key("c"), "1")).await.unwrap();
    assert_eq!(texts(&store).await, ["a=1", "c=1"]);
}

//! Which backend to open and how: the door the composition root uses.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::etcd::EtcdStore;
use super::memory::MemoryStore;
use super::redb::RedbStore;
use super::store::{Store, StoreError};

/// Which store to use.
#[derive(Clone, Debug)]
pub enum DatastoreConfig {
    /// Nothing on disk; for tests.
    Memory,
    /// The embedded store in one file.
    Redb(RedbConfig),
    /// An etcd v3 cluster.
    Etcd(EtcdConfig),
}

/// How to run the embedded store.
#[derive(Clone, Debug)]
pub struct RedbConfig {
    /// The file; created with its directory when missing, mode 0600.
    pub path: PathBuf,
    /// How long superseded values stay readable at their old revisions.
    pub history: Duration,
    /// At most so many revisions of history, however young.
    pub history_revisions: u64,
    /// Longest time an eventual write may stay off the disk.
    pub flush_after: Duration,
    /// Bytes of the file kept in memory.
    pub cache_bytes: usize,
}

impl RedbConfig {
    /// Five minutes of history, as upstream compacts etcd; flushes within five
    /// seconds; 4 MiB of cache, since the watch cache answers most reads.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            history: Duration::from_secs(300),
            history_revisions: 100_000,
            flush_after: Duration::from_secs(5),
            cache_bytes: 4 << 20,
        }
    }
}

/// How to reach etcd.
#[derive(Clone, Debug)]
pub struct EtcdConfig {
    /// `http://host:port` or `https://host:port`, at least one.
    pub endpoints: Vec<String>,
    /// Put before every key, so that several clusters can share one etcd.
    pub prefix: String,
    pub tls: Option<EtcdTls>,
    /// Deadline of each call and of connecting.
    pub timeout: Duration,
    /// How often to compact revisions older than that period; `None` never.
    pub compact_every: Option<Duration>,
}

impl EtcdConfig {
    /// Plain endpoints, no key prefix, compaction every five minutes.
    pub fn new(endpoints: Vec<String>) -> Self {
        Self {
            endpoints,
            prefix: String::new(),
            tls: None,
            timeout: Duration::from_secs(10),
            compact_every: Some(Duration::from_secs(300)),
        }
    }
}

/// TLS towards etcd, as PEM.
#[derive(Clone)]
pub struct EtcdTls {
    pub ca: Option<Vec<u8>>,
    /// Client certificate chain and its key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// Name to verify instead of the endpoint's host.
    pub domain: Option<String>,
}

impl std::fmt::Debug for EtcdTls {
    /// Keys stay out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdTls")
            .field("ca", &self.ca.is_some())
            .field("identity", &self.identity.is_some())
            .field("domain", &self.domain)
            .finish()
    }
}

/// Opens the configured store.
pub async fn open(config: &DatastoreConfig) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match config {
        DatastoreConfig::Memory => Arc::new(MemoryStore::new()),
        DatastoreConfig::Redb(config) => {
            let config = config.clone();
            let opened = tokio::task::spawn_blocking(move || RedbStore::open(config)).await;
            Arc::new(opened.map_err(|source| StoreError::io("open", "store", source))??)
        }
        DatastoreConfig::Etcd(config) => Arc::new(EtcdStore::connect(config.clone()).await?),
    })
}

//! The [`Store`] on an etcd v3 cluster, for several servers. Owns the translation
//! of keys, preconditions and errors; etcd owns the rest. Revisions are etcd's.
//!
//! As upstream's API server this wants etcd 3.4.25, 3.5.8 or newer: older ones may
//! report progress a little early when a watch is far behind.

mod watch;

use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, DeleteOptions, Error, GetOptions, Identity, KeyValue,
    KvClient, ResponseHeader, TlsOptions, Txn, TxnOp, TxnOpResponse, WatchRequestSender,
};
use tokio_util::sync::CancellationToken;

use super::config::EtcdConfig;
use super::store::{
    Entry, EventStream, Key, Page, Precondition, Put, Range, Revision, Store, StoreError, check_precondition,
};

/// Lists and watches of whole clusters are larger than gRPC's default of 4 MiB.
const MAX_MESSAGE: usize = 512 << 20;

/// Where progress is asked for; one per open watch.
type ProgressSender = tokio::sync::Mutex<WatchRequestSender>;

/// A store on etcd.
pub struct EtcdStore {
    client: Client,
    prefix: Arc<str>,
    /// For error texts.
    name: Arc<str>,
    watches: Mutex<Vec<Weak<ProgressSender>>>,
    closed: CancellationToken,
}

impl std::fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdStore").field("endpoints", &self.name).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl EtcdStore {
    /// Connects and checks that etcd answers.
    pub async fn connect(config: EtcdConfig) -> Result<Self, StoreError> {
        let name: Arc<str> = config.endpoints.join(",").into();
        let mut options = ConnectOptions::new()
            .with_timeout(config.timeout)
            .with_connect_timeout(config.timeout)
            .with_keep_alive(std::time::Duration::from_secs(30), config.timeout);
        if let Some(tls) = &config.tls {
            let mut client = TlsOptions::new();
            if let Some(ca) = &tls.ca {
                client = client.ca_certificate(Certificate::from_pem(ca));
            }
            if let Some((chain, key)) = &tls.identity {
                client = client.identity(Identity::from_pem(chain, key));
            }
            if let Some(domain) = &tls.domain {
                client = client.domain_name(domain);
            }
            options = options.with_tls(client);
        }
        let client = Client::connect(&config.endpoints, Some(options))
            .await
            .map_err(|source| StoreError::io("connect to etcd", &*name, source))?;
        let closed = CancellationToken::new();
        let store = Self { client, prefix: config.prefix.into(), name, watches: Mutex::default(), closed };
        let first = tokio::time::timeout(config.timeout, store.current_revision()).await;
        first.map_err(|source| StoreError::io("connect to etcd", &*store.name, source))??;
        if let Some(period) = config.compact_every {
            tokio::spawn(compact_regularly(store.kv(), store.closed.clone(), period));
        }
        Ok(store)
    }

    fn kv(&self) -> KvClient {
        self.client.kv_client().max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
    }

    fn open(&self) -> Result<KvClient, StoreError> {
        if self.closed.is_cancelled() { Err(StoreError::Closed) } else { Ok(self.kv()) }
    }

    fn raw_key(&self, key: &Key) -> Vec<u8> {
        [self.prefix.as_bytes(), key.as_str().as_bytes()].concat()
    }

    /// First key of a prefix, and the first key behind it.
    fn raw_range(&self, prefix: &str) -> (Vec<u8>, Vec<u8>) {
        let start = [self.prefix.as_bytes(), prefix.as_bytes()].concat();
        let end = end_of_prefix(&start);
        // An empty start would mean "no key" to etcd; NUL is the smallest.
        if start.is_empty() { (vec![0], end) } else { (start, end) }
    }

    fn io(&self, operation: &'static str) -> impl Fn(Error) -> StoreError + '_ {
        move |source| StoreError::io(operation, &*self.name, source)
    }

    /// etcd answers "out of range" both for a compacted and for a future
    /// revision; which one it was follows from the newest.
    async fn out_of_range(&self, requested: Revision) -> StoreError {
        match self.current_revision().await {
            Ok(current) if requested > current => StoreError::Future { requested, current },
            Ok(_) => StoreError::Compacted { requested, oldest: None },
            Err(error) => error,
        }
    }

    /// Runs a write under a condition; on failure says what was there instead.
    async fn when(
        &self,
        operation: &'static str,
        key: &Key,
        precondition: Precondition,
        then: TxnOp,
    ) -> Result<(Revision, Vec<TxnOpResponse>), StoreError> {
        let raw = self.raw_key(key);
        let compare = match precondition {
            Precondition::Any => vec![],
            Precondition::NotExists => vec![Compare::mod_revision(raw.clone(), CompareOp::Equal, 0)],
            Precondition::Revision(revision) => {
                vec![Compare::mod_revision(raw.clone(), CompareOp::Equal, signed(revision))]
            }
        };
        let txn = Txn::new().when(compare).and_then([then]).or_else([TxnOp::get(raw, None)]);
        let response = self.open()?.txn(txn).await.map_err(self.io(operation))?;
        if response.succeeded() {
            return Ok((revision_of(response.header()), response.op_responses()));
        }
        let current = response.op_responses().into_iter().find_map(|response| match response {
            TxnOpResponse::Get(get) => get.kvs().first().map(|kv| unsigned(kv.mod_revision())),
            _ => None,
        });
        match check_precondition(key, precondition, current) {
            Err(error) => Err(error),
            // It failed at etcd, so it cannot hold here.
            Ok(()) => Err(StoreError::Conflict { key: key.clone(), current }),
        }
    }
}

impl Drop for EtcdStore {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let response = self.open()?.get(self.raw_key(key), None).await.map_err(self.io("read"))?;
        Ok(response.kvs().first().map(|kv| entry(key.clone(), kv)))
    }

    async fn list(&self, range: Range) -> Result<Page, StoreError> {
        let (mut start, end) = self.raw_range(&range.prefix);
        if let Some(after) = &range.after {
            let mut behind = self.raw_key(after);
            behind.push(0);
            start = start.max(behind);
        }
        if start >= end && end != [0] {
            let revision = self.current_revision().await?;
            let (entries, revision) = (Vec::new(), range.at.unwrap_or(revision));
            return Ok(Page { entries, revision, more: false, left_out: range.count.then_some(0) });
        }
        let limit = i64::try_from(range.limit).unwrap_or(i64::MAX);
        let options = GetOptions::new().with_range(end).with_limit(limit);
        let options = options.with_revision(range.at.map_or(0, signed));
        let mut response = match self.open()?.get(start, Some(options)).await {
            Ok(response) => response,
            Err(Error::GRpcStatus(status)) if status.code() == tonic::Code::OutOfRange => {
                return Err(self.out_of_range(range.at.unwrap_or_default()).await);
            }
            Err(error) => return Err(self.io("list")(error)),
        };
        let revision = range.at.unwrap_or_else(|| revision_of(response.header()));
        let more = response.more();
        let kvs = response.take_kvs();
        // etcd counts the whole range whatever the limit.
        let left_out = u64::try_from(response.count()).unwrap_or_default().saturating_sub(kvs.len() as u64);
        let entries = kvs.iter().filter_map(|kv| Some(entry(self::key(&self.prefix, kv)?, kv))).collect();
        Ok(Page { entries, revision, more, left_out: range.count.then_some(left_out) })
    }

    async fn put(&self, put: Put) -> Result<Revision, StoreError> {
        let write = TxnOp::put(self.raw_key(&put.key), put.value.to_vec(), None);
        let (revision, _) = self.when("write", &put.key, put.precondition, write).await?;
        Ok(revision)
    }

    async fn delete(&self, key: &Key, precondition: Precondition) -> Result<(Revision, Entry), StoreError> {
        let options = DeleteOptions::new().with_prev_key();
        let write = TxnOp::delete(self.raw_key(key), Some(options));
        let (revision, responses) = self.when("delete", key, precondition, write).await?;
        let removed = responses.into_iter().find_map(|response| match response {
            TxnOpResponse::Delete(delete) => delete.prev_kvs().first().map(|kv| entry(key.clone(), kv)),
            _ => None,
        });
        removed.map(|entry| (revision, entry)).ok_or_else(|| StoreError::NotFound(key.clone()))
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<EventStream, StoreError> {
        drop(self.open()?);
        let client = self.client.watch_client().max_decoding_message_size(MAX_MESSAGE);
        let (start, end) = self.raw_range(prefix);
        let source = watch::Source { prefix: self.prefix.clone(), name: self.name.clone(), after };
        let (progress, events) = watch::open(client, start, end, source, self.closed.clone()).await?;
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        watches.retain(|watch| watch.strong_count() > 0);
        watches.push(Arc::downgrade(&progress));
        Ok(events)
    }

    async fn request_progress(&self) -> Result<(), StoreError> {
        let watches: Vec<_> = {
            let watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
            watches.iter().filter_map(Weak::upgrade).collect()
        };
        for watch in watches {
            // A watch that is going down needs no progress.
            let _ = watch.lock().await.request_progress().await;
        }
        Ok(())
    }

    async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        match self.open()?.compact(signed(before), None).await {
            Ok(_) => Ok(()),
            Err(Error::GRpcStatus(status)) if status.code() == tonic::Code::OutOfRange => {
                match self.out_of_range(before).await {
                    // Someone was there first.
                    StoreError::Compacted { .. } => Ok(()),
                    error => Err(error),
                }
            }
            Err(error) => Err(self.io("compact")(error)),
        }
    }

    async fn current_revision(&self) -> Result<Revision, StoreError> {
        // Any linearizable read says; this one reads nothing.
        let key = [self.prefix.as_bytes(), b"/"].concat();
        let response = self.open()?.get(key, Some(GetOptions::new().with_count_only())).await;
        Ok(revision_of(response.map_err(self.io("read revision of"))?.header()))
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.closed.cancel();
        Ok(())
    }
}

/// Forgets revisions older than one period, each period, as upstream's API server
/// does. Several servers may do it; who comes second gets an error that says
/// nothing new.
async fn compact_regularly(mut kv: KvClient, closed: CancellationToken, period: std::time::Duration) {
    let mut old = 0;
    loop {
        tokio::select! {
            () = closed.cancelled() => return,
            () = tokio::time::sleep(period) => {}
        }
        let probe = kv.get("/", Some(GetOptions::new().with_count_only())).await;
        let Ok(now) = probe.map(|response| response.header().map_or(0, ResponseHeader::revision)) else { continue };
        if old > 0
            && let Err(error) = kv.compact(old, None).await
        {
            tracing::debug!(error = error.to_string(), revision = old, "etcd was not compacted");
        }
        old = now;
    }
}

/// The first key that does not start with `prefix`; NUL, etcd's "to the end",
/// when there is none.
fn end_of_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

/// The key of a pair below our prefix; `None` for what others put there and is no
/// key of ours.
fn key(prefix: &str, kv: &KeyValue) -> Option<Key> {
    Key::new(kv.key_str().ok()?.strip_prefix(prefix)?).ok()
}

fn entry(key: Key, kv: &KeyValue) -> Entry {
    Entry { key, value: Bytes::copy_from_slice(kv.value()), revision: unsigned(kv.mod_revision()) }
}

fn revision_of(header: Option<&ResponseHeader>) -> Revision {
    unsigned(header.map_or(0, ResponseHeader::revision))
}

/// etcd counts in signed numbers, from one.
fn unsigned(revision: i64) -> Revision {
    Revision(u64::try_from(revision).unwrap_or_default())
}

fn signed(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::end_of_prefix;

    #[test]
    fn prefixes_end_where_the_next_begins() {
        for (prefix, end) in
            [(&b"a"[..], &b"b"[..]), (b"a/", b"a0"), (b"a\xff", b"b"), (b"\xff\xff", b"\0"), (b"", b"\0")]
        {
            assert_eq!(end_of_prefix(prefix), end, "{prefix:?}");
        }
    }
}

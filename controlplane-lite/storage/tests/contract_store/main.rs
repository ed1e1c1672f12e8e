//! The contract of `Store`, run on every backend: in memory, embedded, and a real
//! etcd started here on loopback. Beside it: what the embedded store promises for
//! a process that is killed.
#![allow(clippy::unwrap_used)]

mod crash;
mod etcd;
mod model;
mod suite;

use std::sync::Arc;

use harness::time;
use storage::{DatastoreConfig, EtcdConfig, EtcdTls, Key, Put, Range, RedbConfig, Store, StoreError, open};

#[tokio::test]
async fn memory_keeps_the_contract() {
    suite::run(|_| async { open(&DatastoreConfig::Memory).await.unwrap() }).await;
}

#[tokio::test]
async fn redb_keeps_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    suite::run(|case| {
        let config = DatastoreConfig::Redb(RedbConfig::new(directory.path().join(format!("{case}.redb"))));
        async move { open(&config).await.unwrap() }
    })
    .await;
}

#[tokio::test]
async fn etcd_keeps_the_contract() {
    let etcd = etcd::Etcd::start().await;
    suite::run(|case| {
        let config = EtcdConfig { prefix: format!("/{case}"), ..EtcdConfig::new(vec![etcd.url()]) };
        async move { open(&DatastoreConfig::Etcd(config)).await.unwrap() }
    })
    .await;
    suite::shared_cluster(&etcd.url()).await;
}

#[tokio::test]
async fn etcd_is_reached_with_certificates_only() {
    let ca = etcd::Authority::new();
    let etcd = etcd::Etcd::start_tls(&ca).await;
    let config = |ca: &etcd::Authority, identity, timeout| EtcdConfig {
        tls: Some(EtcdTls { ca: Some(ca.pem.clone().into()), identity, domain: None }),
        timeout,
        ..EtcdConfig::new(vec![etcd.url()])
    };
    let (certificate, key) = ca.issue(etcd.address());
    let identity = Some((certificate.into(), key.into()));
    let store = open(&DatastoreConfig::Etcd(config(&ca, identity.clone(), time::limit()))).await.unwrap();
    let key = Key::new("/k").unwrap();
    store.put(Put::create(key.clone(), "v")).await.unwrap();
    assert_eq!(store.get(&key).await.unwrap().unwrap().value, "v");
    let stranger = etcd::Authority::new();
    let (foreign, foreign_key) = stranger.issue(etcd.address());
    let short = std::time::Duration::from_secs(5);
    for (who, config) in [
        ("without a certificate", config(&ca, None, short)),
        ("with a stranger's", config(&ca, Some((foreign.into(), foreign_key.into())), short)),
        ("who believes another CA", config(&stranger, identity, short)),
    ] {
        assert!(open(&DatastoreConfig::Etcd(config)).await.is_err(), "{who}");
    }
}

#[tokio::test]
async fn etcd_is_compacted_by_and_by() {
    let etcd = etcd::Etcd::start().await;
    let config =
        EtcdConfig { compact_every: Some(std::time::Duration::from_millis(300)), ..EtcdConfig::new(vec![etcd.url()]) };
    let store = open(&DatastoreConfig::Etcd(config)).await.unwrap();
    let key = Key::new("/k").unwrap();
    let first = store.put(Put::create(key.clone(), "1")).await.unwrap();
    let last = store.put(Put::overwrite(key, "2")).await.unwrap();
    let compacted = async || {
        let old = store.list(Range { at: Some(first), ..Range::default() }).await;
        matches!(old, Err(StoreError::Compacted { .. }))
    };
    time::eventually_true("the end of what is old", compacted).await.unwrap();
    let now = store.list(Range { at: Some(last), ..Range::default() }).await.unwrap();
    assert_eq!(now.entries[0].value, "2");
}

#[tokio::test]
async fn redb_matches_the_model() {
    let directory = tempfile::tempdir().unwrap();
    for seed in 0..12 {
        let config = RedbConfig {
            flush_after: std::time::Duration::from_millis(3),
            ..RedbConfig::new(directory.path().join(format!("{seed}.redb")))
        };
        let reopen = || async { open(&DatastoreConfig::Redb(config.clone())).await.unwrap() };
        model::compare(seed, reopen).await;
    }
}

#[tokio::test]
async fn memory_matches_the_model() {
    for seed in 0..40 {
        let store: Arc<dyn Store> = open(&DatastoreConfig::Memory).await.unwrap();
        model::compare(seed, || async { store.clone() }).await;
    }
}

#[tokio::test]
async fn unreachable_etcd_is_a_clear_error() {
    let config = EtcdConfig {
        timeout: std::time::Duration::from_millis(300),
        ..EtcdConfig::new(vec!["http://127.0.0.1:1".into()])
    };
    let error = open(&DatastoreConfig::Etcd(config)).await.unwrap_err();
    assert!(error.to_string().contains("http://127.0.0.1:1"), "{error}");
    for bad in ["", "not a url \u{0}"] {
        let config = EtcdConfig { timeout: std::time::Duration::from_millis(300), ..EtcdConfig::new(vec![bad.into()]) };
        assert!(open(&DatastoreConfig::Etcd(config)).await.is_err(), "{bad:?}");
    }
}

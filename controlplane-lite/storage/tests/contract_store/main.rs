//! The contract of `Store`, run on every backend: in memory, embedded, and a real
//! etcd started here on loopback. Beside it: what the embedded store promises for
//! a process that is killed.
#![allow(clippy::unwrap_used)]

mod crash;
mod etcd;
mod model;
mod suite;

use std::sync::Arc;

use storage::{DatastoreConfig, EtcdConfig, RedbConfig, Store, open};

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

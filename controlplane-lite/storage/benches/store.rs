//! What a durable write costs: the embedded store at 1, 16 and 64 writers beside the
//! floor (write and fsync of the same bytes), beside redb without grouping, and
//! beside etcd on the same disk. Prints medians and rates; asserts nothing.
//!
//! `cargo bench -p storage --bench store [-- DIRECTORY]`

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use harness::etcd::Etcd;
use storage::{
    DatastoreConfig, EtcdConfig, FieldPath, Filter, Key, ListQuery, Put, Range, RedbConfig, ResourceSpec, Store,
    WatchCache, WatchRequest, WatchStart, open,
};
use tokio_util::sync::CancellationToken;

const VALUE_BYTES: usize = 1024;
const SECONDS: u64 = 2;

#[tokio::main]
async fn main() -> Result<()> {
    // Cargo passes flags of its own; a directory is the first that is none.
    let directory = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let directory = match directory {
        Some(directory) => tempfile::tempdir_in(directory)?,
        None => tempfile::tempdir()?,
    };
    println!("{VALUE_BYTES}-byte values, {SECONDS} s each, in {}", directory.path().display());
    println!("{:<34} {:>10} {:>10} {:>10}", "", "writes/s", "p50 µs", "p99 µs");
    let floor = report("write + fsync, 1 writer", &fsync_floor(&directory.path().join("floor"))?, None);
    ungrouped(&directory.path().join("plain.redb"), floor)?;
    let redb = open(&DatastoreConfig::Redb(RedbConfig::new(directory.path().join("store.redb")))).await?;
    for writers in [1, 16, 64] {
        report(&format!("redb, group commit, {writers} writers"), &hammer(&redb, writers).await?, Some(floor));
    }
    lists(&redb).await?;
    reopen(redb, &directory.path().join("store.redb")).await?;
    cache(&directory.path().join("cache.redb")).await?;
    let etcd = Etcd::start(directory.path()).await?;
    let store = open(&DatastoreConfig::Etcd(EtcdConfig::new(vec![etcd.url().to_owned()]))).await?;
    for writers in [1, 16, 64] {
        report(&format!("etcd, {writers} writers"), &hammer(&store, writers).await?, Some(floor));
    }
    Ok(())
}

/// Prints one line; returns the median.
fn report(name: &str, latencies: &[Duration], floor: Option<Duration>) -> Duration {
    let mut sorted = latencies.to_vec();
    sorted.sort();
    let at = |part: usize| sorted.get(sorted.len() * part / 100).copied().unwrap_or_default();
    let rate = sorted.len() as u64 / SECONDS;
    let ratio =
        floor.map_or(String::new(), |floor| format!("  {:.2} × floor", at(50).as_secs_f64() / floor.as_secs_f64()));
    println!("{name:<34} {rate:>10} {:>10} {:>10}{ratio}", at(50).as_micros(), at(99).as_micros());
    at(50)
}

fn fsync_floor(path: &Path) -> Result<Vec<Duration>> {
    let mut file = std::fs::File::create(path)?;
    let mut latencies = Vec::new();
    let end = Instant::now() + Duration::from_secs(SECONDS);
    while Instant::now() < end {
        let start = Instant::now();
        file.write_all(&[b'x'; VALUE_BYTES])?;
        file.sync_data()?;
        latencies.push(start.elapsed());
    }
    Ok(latencies)
}

fn ungrouped(path: &Path, floor: Duration) -> Result<()> {
    const TABLE: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("t");
    let database = redb::Database::create(path)?;
    let mut latencies = Vec::new();
    let end = Instant::now() + Duration::from_secs(SECONDS);
    while Instant::now() < end {
        let start = Instant::now();
        let write = database.begin_write()?;
        write.open_table(TABLE)?.insert(format!("/{}", latencies.len()).as_str(), &[b'x'; VALUE_BYTES][..])?;
        write.commit()?;
        latencies.push(start.elapsed());
    }
    report("redb, one commit per write", &latencies, Some(floor));
    Ok(())
}

async fn hammer(store: &Arc<dyn Store>, writers: usize) -> Result<Vec<Duration>> {
    let end = Instant::now() + Duration::from_secs(SECONDS);
    let write = |writer: usize| {
        let store = store.clone();
        async move {
            let mut latencies = Vec::new();
            while Instant::now() < end {
                let key = Key::new(format!("/bench/{writers}/{writer}/{}", latencies.len()))?;
                let start = Instant::now();
                store.put(Put::create(key, vec![b'x'; VALUE_BYTES])).await?;
                latencies.push(start.elapsed());
            }
            anyhow::Ok(latencies)
        }
    };
    let tasks: Vec<_> = (0..writers).map(|writer| tokio::spawn(write(writer))).collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await??);
    }
    Ok(all)
}

async fn lists(store: &Arc<dyn Store>) -> Result<()> {
    let start = Instant::now();
    let page = store.list(Range { limit: 10_000, ..Range::prefix("/bench/") }).await?;
    println!("{:<34} {:>32?}", format!("redb, list {} entries", page.entries.len()), start.elapsed());
    Ok(())
}

/// A start after a stop, and one after a crash.
async fn reopen(store: Arc<dyn Store>, path: &Path) -> Result<()> {
    let crashed = path.with_extension("crashed");
    std::fs::copy(path, &crashed)?;
    store.close().await?;
    drop(store);
    for (name, path) in [("redb, start after a stop", path), ("redb, start after a crash", &crashed)] {
        let start = Instant::now();
        open(&DatastoreConfig::Redb(RedbConfig::new(path))).await?;
        let megabytes = std::fs::metadata(path)?.len() >> 20;
        println!("{:<34} {:>32?}", format!("{name}, {megabytes} MB"), start.elapsed());
    }
    Ok(())
}

/// What 20,000 objects and 1,000 watches of them take, store included.
async fn cache(path: &Path) -> Result<()> {
    const OBJECTS: usize = 20_000;
    let before = resident()?;
    let store = open(&DatastoreConfig::Redb(RedbConfig::new(path))).await?;
    let spec = ResourceSpec::new("", "pods", true).with_fields(["spec.nodeName", "status.phase"].map(FieldPath::new));
    let cache = WatchCache::start(store.clone(), vec![spec.clone()], CancellationToken::new()).await?;
    let pods = cache.resource("", "pods").context("pods are cached")?;
    let create = |writer: usize| {
        let (store, spec) = (store.clone(), spec.clone());
        async move {
            for n in (writer..OBJECTS).step_by(64) {
                let name = format!("pod-{n}");
                let pod = serde_json::json!({
                    "apiVersion": "v1", "kind": "Pod",
                    "metadata": {"name": name, "namespace": "default", "labels": {"app": "web", "tier": "front"}},
                    "spec": {"nodeName": format!("node-{}", n % 1000), "pad": "x".repeat(VALUE_BYTES - 220)},
                    "status": {"phase": "Running"},
                });
                store.put(Put::create(spec.key("default", &name)?, pod.to_string())).await?;
            }
            anyhow::Ok(())
        }
    };
    let writers: Vec<_> = (0..64).map(|writer| tokio::spawn(create(writer))).collect();
    for writer in writers {
        writer.await??;
    }
    cache.fresh().await?;
    let on_node = |n: usize| Filter::all().with_field("spec.nodeName", &format!("node-{n}"));
    let watches: Vec<_> =
        (0..1000).map(|n| pods.watch(WatchRequest::new(on_node(n), WatchStart::Now))).collect::<Result<_, _>>()?;
    let name = format!("cache, {OBJECTS} × 1 KB, {} watches", watches.len());
    println!("{name:<34} {:>29} MiB", resident()?.saturating_sub(before) >> 20);
    let start = Instant::now();
    let listing = pods.list(&ListQuery { limit: 10_000, ..ListQuery::default() }).await?;
    println!("{:<34} {:>32?}", format!("cache, list {} objects", listing.items.len()), start.elapsed());
    Ok(())
}

/// Bytes this process has in memory.
fn resident() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes << 10)
}

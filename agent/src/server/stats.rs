//! What node and pods use, as upstream's stats API names it: gathered from the runtime and /proc, served as
//! `/stats/summary`.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use cri::types::{self, ContainerFilter};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::ServerState;
use crate::node::facts;
use crate::podcache::RuntimePod;
use crate::read;

/// CPU time at an earlier look, to tell a rate.
#[derive(Debug, Default)]
pub struct Sampler {
    last: Mutex<HashMap<String, (Timestamp, u64)>>,
}

impl Sampler {
    /// Cores in billionths since the last look at `key`, if there was one.
    fn rate(&self, key: &str, at: Timestamp, cpu_nanos: u64) -> Option<u64> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, then) = last.insert(key.to_owned(), (at, cpu_nanos))?;
        let passed = u128::try_from(at.duration_since(before).as_nanos()).ok().filter(|nanos| *nanos > 0)?;
        let used = u128::from(cpu_nanos.checked_sub(then)?);
        u64::try_from(used * 1_000_000_000 / passed).ok()
    }

    /// Forgets what is gone.
    fn retain(&self, keys: &[&str]) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.retain(|key, _| keys.contains(&key.as_str()));
    }
}

/// The whole node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeStats {
    pub name: String,
    pub cpu_nanos: u64,
    pub cpu_rate: Option<u64>,
    /// Bytes.
    pub memory_total: u64,
    /// What can be had without swapping, as far as it is known.
    pub memory_available: Option<u64>,
    /// The kubelet's file system: capacity, available, bytes; inodes, free.
    pub fs: (u64, u64),
    pub inodes: (u64, u64),
    pub started_at: Option<Timestamp>,
}

impl NodeStats {
    /// Bytes of memory in use, as far as it is known.
    pub fn memory_used(&self) -> Option<u64> {
        self.memory_available.map(|available| self.memory_total.saturating_sub(available))
    }
}

/// One container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerStats {
    pub name: String,
    pub id: String,
    pub started_at: Option<Timestamp>,
    pub cpu_nanos: u64,
    pub cpu_rate: Option<u64>,
    pub working_set: u64,
    pub rss: u64,
    pub rootfs_used: u64,
}

/// One pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodStats {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub started_at: Option<Timestamp>,
    pub containers: Vec<ContainerStats>,
}

/// The stats of the node and its pods, at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub at: Timestamp,
    pub node: NodeStats,
    pub pods: Vec<PodStats>,
}

/// Gathers the stats now.
pub async fn collect(state: &ServerState, sampler: &Sampler) -> Result<Summary, String> {
    let stats = state.runtime.list_container_stats(&ContainerFilter::default()).await;
    let stats = stats.map_err(|error| format!("failed to list container stats: {error}"))?;
    let at = Timestamp::now();
    let mut pods: Vec<PodStats> =
        state.cache.all().iter().filter_map(|pod| pod_stats(pod, &stats, sampler, at)).collect();
    pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    let mut node = node_stats(&state.root_dir);
    node.name.clone_from(&state.node_name);
    node.cpu_rate = sampler.rate("node", at, node.cpu_nanos);
    let ids = pods.iter().flat_map(|pod| &pod.containers).map(|c| c.id.as_str()).chain(["node"]);
    sampler.retain(&ids.collect::<Vec<_>>());
    Ok(Summary { at, node, pods })
}

fn pod_stats(
    pod: &Arc<RuntimePod>,
    stats: &[types::ContainerStats],
    sampler: &Sampler,
    at: Timestamp,
) -> Option<PodStats> {
    let running = pod.containers.iter().filter(|c| c.is_running());
    let containers: Vec<ContainerStats> = running
        .filter_map(|container| {
            let stats = stats.iter().find(|s| s.id == *container.id())?;
            let cpu_nanos = stats.cpu_usage_nanos.unwrap_or(0);
            Some(ContainerStats {
                name: container.name().to_owned(),
                id: container.id().as_str().to_owned(),
                started_at: container.status.started_at,
                cpu_nanos,
                cpu_rate: sampler.rate(container.id().as_str(), stats.at.unwrap_or(at), cpu_nanos),
                working_set: stats.memory_working_set.unwrap_or(0),
                rss: stats.memory_rss.unwrap_or(0),
                rootfs_used: stats.rootfs_used.unwrap_or(0),
            })
        })
        .collect();
    (!containers.is_empty()).then(|| PodStats {
        namespace: pod.name.namespace.to_string(),
        name: pod.name.name.to_string(),
        uid: pod.uid.as_str().to_owned(),
        started_at: pod.ready_sandbox().and_then(|s| s.summary.created_at),
        containers,
    })
}

fn node_stats(root: &Path) -> NodeStats {
    let meminfo = read::text("/proc/meminfo", read::MUCH).unwrap_or_default();
    let stat = read::text("/proc/stat", read::MUCH).unwrap_or_default();
    let mut node = NodeStats {
        cpu_nanos: cpu_nanos(&stat),
        memory_total: facts::meminfo(&meminfo, "MemTotal").unwrap_or(0),
        memory_available: facts::meminfo(&meminfo, "MemAvailable"),
        started_at: boot_time(&stat),
        ..NodeStats::default()
    };
    if let Some(disk) = facts::Disk::of(root) {
        node.fs = (disk.capacity, disk.available);
        node.inodes = (disk.inodes, disk.inodes_free);
    }
    node
}

/// Busy time of all processors from /proc/stat: user, nice, system, irq,
/// softirq, steal, in ticks of 10 ms.
pub(crate) fn cpu_nanos(stat: &str) -> u64 {
    let Some(line) = stat.lines().find_map(|line| line.strip_prefix("cpu ")) else { return 0 };
    let ticks: Vec<u64> = line.split_whitespace().map(|n| n.parse().unwrap_or(0)).collect();
    let busy = [0, 1, 2, 5, 6, 7].iter().filter_map(|i| ticks.get(*i)).fold(0u64, |sum, n| sum.saturating_add(*n));
    busy.saturating_mul(10_000_000)
}

pub(crate) fn boot_time(stat: &str) -> Option<Timestamp> {
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    Timestamp::from_second(line.trim().parse().ok()?).ok()
}

/// Resident memory of this process in bytes.
pub fn own_rss() -> Option<u64> {
    let statm = read::text("/proc/self/statm", read::MUCH).ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    pages.checked_mul(u64::try_from(page).ok()?)
}

/// The answer of `/stats/summary`. Pure.
pub fn summary_json(summary: &Summary) -> Value {
    let time = summary.at.to_string();
    let cpu =
        |nanos: u64, rate: Option<u64>| json!({"time": time, "usageNanoCores": rate, "usageCoreNanoSeconds": nanos});
    let node = &summary.node;
    let used = node.memory_used();
    let fs = json!({
        "time": time, "capacityBytes": node.fs.0, "availableBytes": node.fs.1,
        "usedBytes": node.fs.0.saturating_sub(node.fs.1),
        "inodes": node.inodes.0, "inodesFree": node.inodes.1,
        "inodesUsed": node.inodes.0.saturating_sub(node.inodes.1),
    });
    let pods = summary.pods.iter().map(|pod| {
        let containers = pod.containers.iter().map(|c| {
            json!({
                "name": c.name, "startTime": c.started_at.map(|t| t.to_string()),
                "cpu": cpu(c.cpu_nanos, c.cpu_rate),
                "memory": {"time": time, "workingSetBytes": c.working_set, "rssBytes": c.rss},
                "rootfs": {"time": time, "usedBytes": c.rootfs_used},
            })
        });
        let containers: Vec<Value> = containers.collect();
        let sum = |value: fn(&ContainerStats) -> u64| total(pod.containers.iter().map(value));
        let rates: Option<Vec<u64>> = pod.containers.iter().map(|c| c.cpu_rate).collect();
        json!({
            "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
            "startTime": pod.started_at.map(|t| t.to_string()), "containers": containers,
            "cpu": cpu(sum(|c| c.cpu_nanos), rates.map(|rates| total(rates.into_iter()))),
            "memory": {"time": time, "workingSetBytes": sum(|c| c.working_set), "rssBytes": sum(|c| c.rss)},
        })
    });
    let pods: Vec<Value> = pods.collect();
    without_nulls(json!({
        "node": {
            "nodeName": node.name, "startTime": node.started_at.map(|t| t.to_string()),
            "cpu": cpu(node.cpu_nanos, node.cpu_rate),
            "memory": {"time": time, "availableBytes": node.memory_available, "usageBytes": used, "workingSetBytes": used},
            "fs": fs, "runtime": {"imageFs": fs},
        },
        "pods": pods,
    }))
}

/// A sum that ends at the largest number there is: the figures are the runtime's.
pub(super) fn total(values: impl Iterator<Item = u64>) -> u64 {
    values.fold(0, u64::saturating_add)
}

/// Clients expect unknown values to be absent.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect()
        }
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn proc_files() {
        let stat = "cpu  10 1 5 1000 7 2 3 4 0 0\ncpu0 1 2\nbtime 1600000000\n";
        assert_eq!(cpu_nanos(stat), 25 * 10_000_000);
        assert_eq!(boot_time(stat), Timestamp::from_second(1_600_000_000).ok());
        assert_eq!(cpu_nanos("garbage"), 0);
    }

    #[test]
    fn rates_need_two_looks() {
        let sampler = Sampler::default();
        let at = |s| Timestamp::from_second(s).unwrap();
        assert_eq!(sampler.rate("a", at(0), 0), None);
        assert_eq!(sampler.rate("a", at(2), 1_000_000_000), Some(500_000_000));
        assert_eq!(sampler.rate("a", at(2), 2_000_000_000), None, "no time has passed");
        assert_eq!(sampler.rate("a", at(3), 5), None, "the counter went back");
        sampler.retain(&["b"]);
        assert_eq!(sampler.rate("a", at(4), 9), None);
    }

    #[test]
    fn summaries_leave_out_what_is_unknown() {
        let container = ContainerStats {
            name: "c".into(),
            id: "x".into(),
            started_at: None,
            cpu_nanos: 5,
            cpu_rate: None,
            working_set: 7,
            rss: 3,
            rootfs_used: 1,
        };
        let pod = PodStats {
            namespace: "ns".into(),
            name: "p".into(),
            uid: "u".into(),
            started_at: None,
            containers: vec![container.clone(), ContainerStats { cpu_rate: Some(2), ..container }],
        };
        let summary = Summary { pods: vec![pod], ..Summary::default() };
        let summary = summary_json(&summary);
        assert_eq!(summary["pods"][0]["memory"]["workingSetBytes"], 14);
        assert_eq!(summary["pods"][0]["cpu"]["usageCoreNanoSeconds"], 10);
        assert!(summary["pods"][0]["cpu"].get("usageNanoCores").is_none());
        assert_eq!(summary["pods"][0]["containers"][1]["cpu"]["usageNanoCores"], 2);
    }

    #[test]
    fn sums_have_an_end() {
        let container = ContainerStats {
            name: "c".into(),
            id: "x".into(),
            started_at: None,
            cpu_nanos: u64::MAX,
            cpu_rate: Some(u64::MAX),
            working_set: u64::MAX,
            rss: u64::MAX,
            rootfs_used: 1,
        };
        let [namespace, name, uid] = ["ns", "p", "u"].map(str::to_owned);
        let pod = PodStats { namespace, name, uid, started_at: None, containers: vec![container; 2] };
        let summary = Summary { pods: vec![pod], ..Summary::default() };
        assert!(crate::server::metrics::resource(Some(&summary)).contains("resource_scrape_error 0"));
        let summary = summary_json(&summary);
        assert_eq!(summary["pods"][0]["memory"]["workingSetBytes"], u64::MAX);
        assert_eq!(summary["pods"][0]["cpu"]["usageNanoCores"], u64::MAX);
    }
}

//! Capacity and what of it pods may use. Pure.

use std::collections::BTreeMap;

use super::facts::{MachineInfo, MachineUsage};
use crate::config::{EvictionSettings, Signal};
use crate::convert::quantity::{ResourceList, from_nanos, kibibytes, nanos, units};
use crate::convert::resources::{PodCgroupLimits, shares};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// What the machine has.
pub fn capacity(machine: &MachineInfo, usage: &MachineUsage, max_pods: u32) -> ResourceList {
    let mut out = ResourceList::from([
        ("cpu".to_owned(), units(machine.cpus)),
        ("memory".to_owned(), kibibytes(machine.memory)),
        ("ephemeral-storage".to_owned(), kibibytes(usage.disk_capacity)),
        ("pods".to_owned(), units(u64::from(max_pods))),
    ]);
    for (size, count) in &machine.hugepages {
        let name = match size {
            s if s % (1 << 30) == 0 => format!("hugepages-{}Gi", s >> 30),
            s if s % (1 << 20) == 0 => format!("hugepages-{}Mi", s >> 20),
            s => format!("hugepages-{}Ki", s >> 10),
        };
        out.insert(name, units(size * count));
    }
    out
}

/// Capacity without what is reserved and, of memory and disk, without what
/// eviction keeps free.
pub fn allocatable(
    capacity: &ResourceList,
    reserved: &BTreeMap<String, String>,
    eviction: &EvictionSettings,
) -> ResourceList {
    let mut out = ResourceList::new();
    let kept = |signal, have: i128| {
        let whole = u64::try_from(have / 1_000_000_000).unwrap_or(0);
        i128::from(eviction.hard(signal).map_or(0, |minimum| minimum.of(whole))) * 1_000_000_000
    };
    for (name, quantity) in capacity {
        let Some(have) = nanos(&quantity.0) else { continue };
        let mut keep = reserved.get(name).and_then(|r| nanos(r)).unwrap_or(0);
        match name.as_str() {
            "memory" => keep += kept(Signal::MemoryAvailable, have),
            "ephemeral-storage" => keep += kept(Signal::NodefsAvailable, have),
            "cpu" | "pods" => {}
            _ => {
                out.insert(name.clone(), quantity.clone());
                continue;
            }
        }
        let left = (have - keep).max(0);
        out.insert(name.clone(), if name == "memory" { in_ki(left) } else { whole_or_milli(left, name) });
    }
    // Memory that is set aside as huge pages is not there for anything else.
    let huge: i128 =
        capacity.iter().filter(|(n, _)| n.starts_with("hugepages-")).filter_map(|(_, q)| nanos(&q.0)).sum();
    if huge > 0
        && let Some(memory) = out.get("memory").and_then(|q| nanos(&q.0))
    {
        out.insert("memory".to_owned(), in_ki((memory - huge).max(0)));
    }
    out
}

/// What all pods together may use: everything that is not reserved. What
/// eviction keeps free of memory is not taken off here, unlike of what is
/// allocatable: pods are to be evicted before the kernel kills them.
pub fn kubepods_limits(machine: &MachineInfo, reserved: &BTreeMap<String, String>) -> PodCgroupLimits {
    let left = |name: &str, have: u64| {
        let have = i128::from(have) * 1_000_000_000;
        (have - reserved.get(name).and_then(|r| nanos(r)).unwrap_or(0)).max(0)
    };
    // Without anything left no limit can be written; nothing is admitted either.
    let whole = |name, have| i64::try_from(left(name, have) / 1_000_000_000).ok().filter(|amount| *amount > 0);
    PodCgroupLimits {
        cpu_shares: shares(i64::try_from(left("cpu", machine.cpus) / 1_000_000).unwrap_or(i64::MAX)),
        memory: whole("memory", machine.memory),
        pids: whole("pid", machine.pid_max),
        ..PodCgroupLimits::default()
    }
}

fn in_ki(value: i128) -> Quantity {
    kibibytes(u64::try_from(value / 1_000_000_000).unwrap_or(0))
}

fn whole_or_milli(value: i128, name: &str) -> Quantity {
    if name == "cpu" { from_nanos(value) } else { Quantity((value / 1_000_000_000).to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_pods_may_have_what_is_not_reserved() {
        let machine = MachineInfo { cpus: 2, memory: 1 << 30, pid_max: 5000, ..MachineInfo::default() };
        let limits = |reserved: &[(&str, &str)]| {
            let reserved = reserved.iter().map(|(name, r)| ((*name).to_owned(), (*r).to_owned())).collect();
            let limits = kubepods_limits(&machine, &reserved);
            assert_eq!((limits.cpu_quota, limits.cpu_period), (None, 0), "only shares of the CPU");
            (limits.cpu_shares, limits.memory, limits.pids)
        };
        assert_eq!(limits(&[]), (2048, Some(1 << 30), Some(5000)));
        assert_eq!(limits(&[("cpu", "500m"), ("memory", "1Mi"), ("pid", "1k")]), (1536, Some(1023 << 20), Some(4000)));
        assert_eq!(limits(&[("cpu", "2"), ("memory", "2Gi"), ("pid", "5000")]), (2, None, None));
        assert_eq!(limits(&[("cpu", "much"), ("memory", "")]), (2048, Some(1 << 30), Some(5000)));
    }

    #[test]
    fn reserved_and_eviction_are_kept_back() {
        let machine = MachineInfo { cpus: 2, memory: 1 << 30, hugepages: vec![(2 << 20, 4)], ..MachineInfo::default() };
        let usage = MachineUsage { disk_capacity: 1000 * 1024, ..MachineUsage::default() };
        let have = capacity(&machine, &usage, 110);
        assert_eq!(have["memory"].0, "1048576Ki");
        assert_eq!((have["cpu"].0.as_str(), have["hugepages-2Mi"].0.as_str()), ("2", "8388608"));
        let reserved = [("cpu".to_owned(), "500m".to_owned()), ("memory".to_owned(), "100Mi".to_owned())].into();
        let eviction = EvictionSettings::default();
        let can = allocatable(&have, &reserved, &eviction);
        assert_eq!((can["cpu"].0.as_str(), can["pods"].0.as_str()), ("1500m", "110"));
        assert_eq!(can["memory"].0, format!("{}Ki", 1_048_576 - 200 * 1024 - 8192));
        assert_eq!(can["ephemeral-storage"].0, "921600");
        let none = allocatable(&have, &[("cpu".to_owned(), "9".to_owned())].into(), &eviction);
        assert_eq!(none["cpu"].0, "0");
        let never = EvictionSettings { hard: Some(BTreeMap::new()), ..eviction };
        assert_eq!(allocatable(&have, &BTreeMap::new(), &never)["ephemeral-storage"].0, "1024000");
    }
}

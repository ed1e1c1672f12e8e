//! Limits as the files of each version, and their values. Pure.

use crate::convert::resources::PodCgroupLimits;

/// v2's `cpu.weight` for v1's `cpu.shares`.
pub(super) fn weight(shares: i64) -> i64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn or_max(value: Option<i64>) -> String {
    value.map_or_else(|| "max".to_owned(), |value| value.to_string())
}

/// Files of a v1 cgroup: controller, name, value. The order matters: a quota counts by its period.
pub(super) fn v1(limits: &PodCgroupLimits) -> Vec<(&'static str, &'static str, String)> {
    let mut files = vec![("cpu", "cpu.shares", limits.cpu_shares.to_string())];
    if let Some(quota) = limits.cpu_quota {
        files.push(("cpu", "cpu.cfs_period_us", limits.cpu_period.to_string()));
        files.push(("cpu", "cpu.cfs_quota_us", quota.to_string()));
    }
    files.extend(limits.memory.map(|memory| ("memory", "memory.limit_in_bytes", memory.to_string())));
    files.extend(limits.pids.map(|_| ("pids", "pids.max", or_max(limits.pids))));
    files
}

/// Files of a v2 cgroup: name, value. A pod, which has a period, also loses limits it had.
pub(super) fn v2(limits: &PodCgroupLimits) -> Vec<(&'static str, String)> {
    let is_pod = limits.cpu_period > 0;
    let mut files = vec![("cpu.weight", weight(limits.cpu_shares).to_string())];
    if is_pod {
        files.push(("cpu.max", format!("{} {}", or_max(limits.cpu_quota), limits.cpu_period)));
    }
    if is_pod || limits.memory.is_some() {
        files.push(("memory.max", or_max(limits.memory)));
    }
    files.extend(limits.pids.map(|_| ("pids.max", or_max(limits.pids))));
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_span_the_same_range_as_shares() {
        assert_eq!([weight(0), weight(2), weight(1024), weight(262_144), weight(i64::MAX)], [1, 1, 39, 10_000, 10_000]);
    }

    #[test]
    fn files_by_version() {
        let pod = PodCgroupLimits {
            cpu_shares: 512,
            cpu_quota: Some(50_000),
            cpu_period: 100_000,
            memory: Some(1 << 20),
            pids: Some(64),
        };
        let class = PodCgroupLimits { cpu_shares: 1024, ..PodCgroupLimits::default() };
        let all = PodCgroupLimits { memory: Some(4096), ..class };
        let of_v1 = |limits| v1(limits).iter().map(|(_, file, value)| format!("{file}={value}")).collect::<Vec<_>>();
        let of_v2 = |limits| v2(limits).iter().map(|(file, value)| format!("{file}={value}")).collect::<Vec<_>>();
        assert_eq!(
            of_v1(&pod),
            [
                "cpu.shares=512",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=50000",
                "memory.limit_in_bytes=1048576",
                "pids.max=64"
            ]
        );
        assert_eq!(of_v2(&pod), ["cpu.weight=20", "cpu.max=50000 100000", "memory.max=1048576", "pids.max=64"]);
        assert_eq!((of_v1(&class), of_v2(&class)), (vec!["cpu.shares=1024".to_owned()], vec!["cpu.weight=39".into()]));
        assert_eq!(of_v1(&all), ["cpu.shares=1024", "memory.limit_in_bytes=4096"]);
        let free = PodCgroupLimits { cpu_quota: None, memory: None, pids: None, ..pod };
        assert_eq!(of_v2(&free), ["cpu.weight=20", "cpu.max=max 100000", "memory.max=max"]);
    }
}

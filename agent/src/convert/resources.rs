//! Requests and limits → cgroup values, with upstream's formulas.

use std::collections::{BTreeMap, BTreeSet};

use cri::types::LinuxContainerResources;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};

use super::qos::{QosClass, container_requests, pod_limits, pod_requests, qos_class};
use super::{quantity, spec};

/// Smallest `cpu.shares` the kernel takes.
pub const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
const SHARES_PER_CPU: i64 = 1024;
/// Smallest CFS quota the kernel takes, microseconds.
const MIN_QUOTA: i64 = 1000;
const GUARANTEED_OOM: i64 = -997;
const BEST_EFFORT_OOM: i64 = 1000;

/// What the node contributes to a container's resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceContext {
    /// Bytes of memory of the node.
    pub memory_capacity: i64,
    pub cfs_quota: bool,
    /// Microseconds.
    pub cfs_period: i64,
    pub memory: MemoryControl,
    /// Sizes of huge pages that the node has, bytes.
    pub hugepages: BTreeSet<u64>,
}

/// What the kernel lets be said about containers' memory beside its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryControl {
    /// Whether a container that runs out of memory is to be killed as a whole.
    pub oom_group: bool,
    pub swap: SwapControl,
}

/// How containers are kept from swapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SwapControl {
    /// The kernel does not count swap.
    #[default]
    Absent,
    /// v1: a limit of memory and swap together.
    Together,
    /// v2: a limit of swap alone.
    Alone,
}

/// `cpu.shares` of a request in thousandths of a CPU.
pub fn shares(milli_cpu: i64) -> i64 {
    if milli_cpu == 0 {
        return MIN_SHARES;
    }
    (milli_cpu.saturating_mul(SHARES_PER_CPU) / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// CFS quota in microseconds of a limit in thousandths; 0 is no limit.
pub fn quota(milli_cpu: i64, period: i64) -> i64 {
    if milli_cpu <= 0 {
        return 0;
    }
    (milli_cpu.saturating_mul(period) / 1000).max(MIN_QUOTA)
}

fn milli_of(nanos: i128) -> i64 {
    i64::try_from((nanos + 999_999) / 1_000_000).unwrap_or(i64::MAX)
}

fn units_of(nanos: i128) -> i64 {
    i64::try_from((nanos + 999_999_999) / 1_000_000_000).unwrap_or(i64::MAX)
}

/// cgroup values of one container.
pub fn container_resources(pod: &Pod, container: &Container, ctx: &ResourceContext) -> LinuxContainerResources {
    let limits = container.resources.as_ref().and_then(|r| r.limits.as_ref());
    let limit = |name: &str| limits.and_then(|l| l.get(name));
    let cpu_request = container_requests(container).get("cpu").copied().map_or(0, milli_of);
    let cpu_limit = limit("cpu").map_or(0, quantity::milli);
    let memory_limit = limit("memory").map_or(0, quantity::value);
    // Nothing here allows swap yet, so all containers are kept from it.
    let swap = ctx.memory.swap;
    LinuxContainerResources {
        cpu_shares: shares(cpu_request),
        cpu_quota: if ctx.cfs_quota { quota(cpu_limit, ctx.cfs_period) } else { 0 },
        cpu_period: if ctx.cfs_quota && cpu_limit > 0 { ctx.cfs_period } else { 0 },
        memory_limit,
        memory_swap_limit: if swap == SwapControl::Together { memory_limit } else { 0 },
        unified: [
            ("memory.oom.group", "1", ctx.memory.oom_group),
            ("memory.swap.max", "0", swap == SwapControl::Alone),
        ]
        .into_iter()
        .filter(|(_, _, wanted)| *wanted)
        .map(|(file, value, _)| (file.to_owned(), value.to_owned()))
        .collect(),
        oom_score_adj: oom_score_adj(pod, container, ctx.memory_capacity),
        hugepage_limits: hugepage_limits(container, &ctx.hugepages),
        ..LinuxContainerResources::default()
    }
}

/// The limit of every size of huge pages: none of what the container does not
/// ask for, or it could take what others are promised.
fn hugepage_limits(container: &Container, sizes: &BTreeSet<u64>) -> BTreeMap<String, u64> {
    let mut out: BTreeMap<String, u64> = sizes.iter().map(|size| (page_size_name(*size), 0)).collect();
    let limits = container.resources.as_ref().and_then(|r| r.limits.as_ref());
    for (name, limit) in limits.into_iter().flatten() {
        if let Some(size) = hugepage_size(name) {
            out.insert(page_size_name(size), u64::try_from(quantity::value(limit)).unwrap_or(0));
        }
    }
    out
}

/// The page size, in bytes, of a resource such as `hugepages-2Mi`.
pub fn hugepage_size(resource: &str) -> Option<u64> {
    let size = quantity::nanos(resource.strip_prefix("hugepages-")?)? / 1_000_000_000;
    u64::try_from(size).ok().filter(|size| *size > 0)
}

/// A page size as the kernel writes it in names of files: `64KB`, `2MB`, `1GB`.
fn page_size_name(size: u64) -> String {
    match size {
        s if s % (1 << 30) == 0 => format!("{}GB", s >> 30),
        s if s % (1 << 20) == 0 => format!("{}MB", s >> 20),
        s => format!("{}KB", s >> 10),
    }
}

/// How early the kernel's OOM killer looks at the container.
pub fn oom_score_adj(pod: &Pod, container: &Container, memory_capacity: i64) -> i64 {
    if spec::is_node_critical(pod) {
        return GUARANTEED_OOM;
    }
    match qos_class(pod) {
        QosClass::Guaranteed => return GUARANTEED_OOM,
        QosClass::BestEffort => return BEST_EFFORT_OOM,
        QosClass::Burstable => {}
    }
    let score = burstable_oom(container, memory_capacity);
    if !spec::is_sidecar(container) {
        return score;
    }
    // A sidecar must not be killed before the containers it serves.
    let regular = spec::containers(pod).iter().map(|c| burstable_oom(c, memory_capacity)).min();
    regular.map_or(score, |r| score.min(r))
}

fn burstable_oom(container: &Container, memory_capacity: i64) -> i64 {
    let request = container_requests(container).get("memory").copied().map_or(0, units_of);
    let share = i128::from(request) * 1000 / i128::from(memory_capacity.max(1));
    let score = 1000 - i64::try_from(share).unwrap_or(1000);
    // 1000 and the guaranteed score stay reserved for the other classes.
    score.clamp(1000 + GUARANTEED_OOM, BEST_EFFORT_OOM - 1)
}

/// Limits of the cgroup around the whole pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodCgroupLimits {
    pub cpu_shares: i64,
    /// Microseconds per period; `None` leaves it unlimited.
    pub cpu_quota: Option<i64>,
    pub cpu_period: i64,
    /// Bytes.
    pub memory: Option<i64>,
    pub pids: Option<i64>,
}

/// Limits of the pod's cgroup: limits apply only when every container has one.
pub fn pod_cgroup_limits(pod: &Pod, ctx: &ResourceContext, pids: Option<i64>) -> PodCgroupLimits {
    let class = qos_class(pod);
    let mut out = PodCgroupLimits { cpu_shares: MIN_SHARES, cpu_period: ctx.cfs_period, pids, ..Default::default() };
    if class == QosClass::BestEffort {
        return out;
    }
    let (requests, limits) = (pod_requests(pod), pod_limits(pod));
    out.cpu_shares = shares(requests.get("cpu").copied().map_or(0, milli_of));
    // Zero is no limit (pkg/kubelet/cm/helpers_linux.go: `ResourceConfigForPod`).
    let limited = |resources: Option<&ResourceRequirements>, name: &str| {
        let limit = resources.and_then(|r| r.limits.as_ref()).and_then(|limits| limits.get(name));
        limit.and_then(|limit| quantity::nanos(&limit.0)).is_some_and(|nanos| nanos != 0)
    };
    let declared = |name: &str| {
        let mut containers = spec::containers(pod).iter().chain(spec::init_containers(pod));
        limited(spec::spec(pod).resources.as_ref(), name) || containers.all(|c| limited(c.resources.as_ref(), name))
    };
    if ctx.cfs_quota && declared("cpu") {
        out.cpu_quota = limits.get("cpu").copied().map(milli_of).map(|m| quota(m, ctx.cfs_period)).filter(|q| *q > 0);
    }
    if declared("memory") {
        out.memory = limits.get("memory").copied().map(units_of).filter(|m| *m > 0);
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const CTX: ResourceContext = ResourceContext {
        memory_capacity: 4 << 30,
        cfs_quota: true,
        cfs_period: 100_000,
        memory: MemoryControl { oom_group: false, swap: SwapControl::Absent },
        hugepages: BTreeSet::new(),
    };

    fn pod(text: &str) -> Pod {
        serde_norway::from_str(&format!("spec:\n{text}")).unwrap()
    }

    #[test]
    fn shares_and_quota_follow_upstream() {
        assert_eq!([0, 1, 2, 1000, 1_000_000].map(shares), [2, 2, 2, 1024, 262_144]);
        assert_eq!([0, 1, 10, 1500].map(|m| quota(m, 100_000)), [0, 1000, 1000, 150_000]);
    }

    #[test]
    fn container_values() {
        let p = pod(
            "  containers: [{name: a, resources: {requests: {cpu: 250m, memory: 1Gi}, limits: {cpu: '1', memory: 2Gi}}}]",
        );
        let r = container_resources(&p, &spec::containers(&p)[0], &CTX);
        assert_eq!((r.cpu_shares, r.cpu_quota, r.cpu_period, r.memory_limit), (256, 100_000, 100_000, 2 << 30));
        assert_eq!(r.oom_score_adj, 750);
    }

    #[test]
    fn huge_pages_are_limited_to_what_is_asked_for() {
        let p = pod("  containers: [{name: a, resources: {limits: {hugepages-2Mi: 4Mi}}}, {name: b}]");
        let ctx = ResourceContext { hugepages: [64 << 10, 2 << 20, 1 << 30].into(), ..CTX };
        let of = |index: usize| container_resources(&p, &spec::containers(&p)[index], &ctx).hugepage_limits;
        let named = |two: u64| [("1GB", 0), ("2MB", two), ("64KB", 0)].map(|(n, l)| (n.to_owned(), l)).into();
        assert_eq!((of(0), of(1)), (named(4 << 20), named(0)));
        assert_eq!(["hugepages-1Gi", "hugepages-", "cpu"].map(hugepage_size), [Some(1 << 30), None, None]);
    }

    #[test]
    fn memory_is_controlled_as_the_kernel_can() {
        let p = pod("  containers: [{name: a, resources: {limits: {memory: 1Gi}}}]");
        let with = |oom_group, swap| {
            let ctx = ResourceContext { memory: MemoryControl { oom_group, swap }, ..CTX };
            let r = container_resources(&p, &spec::containers(&p)[0], &ctx);
            let unified: Vec<_> = r.unified.into_iter().map(|(file, value)| format!("{file}={value}")).collect();
            (r.memory_swap_limit, unified.join(" "))
        };
        assert_eq!(with(false, SwapControl::Absent), (0, String::new()));
        assert_eq!(with(false, SwapControl::Together), (1 << 30, String::new()));
        assert_eq!(with(true, SwapControl::Alone), (0, "memory.oom.group=1 memory.swap.max=0".to_owned()));
    }

    #[test]
    fn oom_scores() {
        let cases = [
            ("  containers: [{name: a}]", 1000),
            ("  containers: [{name: a, resources: {requests: {memory: 4Gi}}}]", 3),
            ("  containers: [{name: a, resources: {requests: {memory: '1'}}}]", 999),
            ("  containers: [{name: a, resources: {limits: {cpu: 1, memory: 1Gi}}}]", -997),
            ("  priority: 2000001000\n  priorityClassName: system-node-critical\n  containers: [{name: a}]", -997),
            ("  priority: 2000000000\n  priorityClassName: system-cluster-critical\n  containers: [{name: a}]", 1000),
            ("  priorityClassName: system-node-critical\n  containers: [{name: a}]", 1000),
        ];
        for (text, score) in cases {
            let p = pod(text);
            assert_eq!(oom_score_adj(&p, &spec::containers(&p)[0], CTX.memory_capacity), score, "{text}");
        }
    }

    #[test]
    fn pod_limits_need_every_container() {
        let p = pod(
            "  containers: [{name: a, resources: {limits: {cpu: 500m, memory: 1Gi}}}, {name: b, resources: {limits: {cpu: 500m}}}]",
        );
        let l = pod_cgroup_limits(&p, &CTX, Some(100));
        assert_eq!((l.cpu_shares, l.cpu_quota, l.memory, l.pids), (1024, Some(100_000), None, Some(100)));
        // As upstream, zero is none.
        let p = pod(
            "  containers: [{name: a, resources: {limits: {cpu: 500m, memory: 1Gi}}}, {name: b, resources: {limits: {cpu: 0, memory: 0}}}]",
        );
        let l = pod_cgroup_limits(&p, &CTX, None);
        assert_eq!((l.cpu_quota, l.memory), (None, None));
        let p = pod(
            "  resources: {limits: {cpu: 0, memory: 2Gi}}\n  containers: [{name: a, resources: {limits: {cpu: 500m}}}, {name: b}]",
        );
        let l = pod_cgroup_limits(&p, &CTX, None);
        assert_eq!((l.cpu_quota, l.memory), (None, Some(2 << 30)));
        let l = pod_cgroup_limits(&pod("  containers: [{name: a}]"), &CTX, None);
        assert_eq!((l.cpu_shares, l.cpu_quota, l.memory), (2, None, None));
    }
}

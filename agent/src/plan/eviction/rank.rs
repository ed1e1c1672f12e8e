//! Whom to evict first, and what to tell about it.

use std::cmp::Reverse;
use std::collections::BTreeMap;

pub use cri::dirtree::Space;
use k8s_openapi::api::core::v1::{Container, Pod};
use quantity::{Format, Quantity};

use super::Shortage;
use crate::config::Signal;
use crate::convert::qos::pod_requests;
use crate::convert::spec;

/// What one container uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerUsage {
    pub name: String,
    /// Working set, bytes.
    pub memory: u64,
    /// Bytes of its own layer and its logs.
    pub disk: u64,
    /// Bytes of its logs alone.
    pub log: u64,
}

/// What a pod uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodUsage {
    pub containers: Vec<ContainerUsage>,
    /// Processes.
    pub pids: u64,
    /// Bytes and inodes in containers' own layers.
    pub layers: Space,
    /// Bytes and inodes in logs and local volumes.
    pub files: Space,
    /// Bytes in scratch directories on disk, by volume.
    pub volumes: BTreeMap<String, u64>,
}

/// A pod that could be evicted; `usage` is unknown of a pod that just began.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    pub pod: &'a Pod,
    pub usage: Option<&'a PodUsage>,
}

/// The resource that a signal is about, in upstream's words.
pub fn resource(signal: Signal) -> &'static str {
    match signal {
        Signal::MemoryAvailable => "memory",
        Signal::NodefsAvailable | Signal::ImagefsAvailable => "ephemeral-storage",
        Signal::NodefsInodesFree | Signal::ImagefsInodesFree => "inodes",
        Signal::PidAvailable => "pids",
    }
}

/// How much of what is short a pod uses. With file systems of their own, images'
/// is filled by layers and the node's by the rest.
fn used(signal: Signal, usage: &PodUsage, own_imagefs: bool) -> u64 {
    let space = |part: fn(Space) -> u64, images: bool| match (own_imagefs, images) {
        (false, _) => part(usage.layers).saturating_add(part(usage.files)),
        (true, true) => part(usage.layers),
        (true, false) => part(usage.files),
    };
    match signal {
        Signal::MemoryAvailable => {
            usage.containers.iter().fold(0, |sum, container| container.memory.saturating_add(sum))
        }
        Signal::PidAvailable => usage.pids,
        Signal::NodefsAvailable => space(|s| s.bytes, false),
        Signal::ImagefsAvailable => space(|s| s.bytes, true),
        Signal::NodefsInodesFree => space(|s| s.inodes, false),
        Signal::ImagefsInodesFree => space(|s| s.inodes, true),
    }
}

/// What the pod requests of the resource, in whole units.
fn requested(signal: Signal, pod: &Pod) -> u64 {
    let nanos = pod_requests(pod).get(resource(signal)).copied().unwrap_or(0);
    u64::try_from((nanos + 999_999_999) / 1_000_000_000).unwrap_or(0)
}

/// Sorts candidates, the first to go first: pods whose use is unknown, then
/// those that use more than they request, then those of low priority, then
/// those that use most beyond their request. Processes cannot be requested.
pub fn rank(signal: Signal, candidates: &mut [Candidate<'_>], own_imagefs: bool) {
    candidates.sort_by_cached_key(|candidate| {
        let priority = spec::spec(candidate.pod).priority.unwrap_or(0);
        let Some(usage) = candidate.usage else { return (false, false, priority, Reverse(0)) };
        let (used, requested) = (used(signal, usage, own_imagefs), requested(signal, candidate.pod));
        let exceeds = signal == Signal::PidAvailable || used > requested;
        (true, !exceeds, priority, Reverse(i128::from(used) - i128::from(requested)))
    });
}

/// Why a pod is evicted, in upstream's words.
pub fn message(shortage: &Shortage, candidate: &Candidate<'_>) -> String {
    let name = resource(shortage.signal);
    let format = match shortage.signal {
        Signal::MemoryAvailable | Signal::NodefsAvailable | Signal::ImagefsAvailable => Format::BinarySi,
        Signal::NodefsInodesFree | Signal::ImagefsInodesFree | Signal::PidAvailable => Format::DecimalSi,
    };
    let amount = |n: u64| Quantity::new(i64::try_from(n).unwrap_or(i64::MAX), format);
    let mut text = format!(
        "The node was low on resource: {name}. Threshold quantity: {}, available: {}. ",
        amount(shortage.wanted),
        amount(shortage.available)
    );
    for container in candidate.usage.into_iter().flat_map(|u| &u.containers) {
        let used = match name {
            "memory" => container.memory,
            "ephemeral-storage" => container.disk,
            _ => break,
        };
        let used = amount(used);
        let request = request_of(candidate.pod, &container.name, name);
        if used > request {
            text.push_str(&format!(
                "Container {} was using {used}, request is {request}, has larger consumption of {name}. ",
                container.name
            ));
        }
    }
    text
}

fn request_of(pod: &Pod, container: &str, resource: &str) -> Quantity {
    let mut all = spec::containers(pod).iter().chain(spec::init_containers(pod));
    let text = |c: &Container| c.resources.as_ref()?.requests.as_ref()?.get(resource)?.0.parse().ok();
    all.find(|c| c.name == container).and_then(text).unwrap_or(Quantity::ZERO)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A pod with one container `a` of that memory request and use, in MiB.
    fn pod(name: &str, priority: i32, request: u64, used: u64) -> (Pod, PodUsage) {
        let text = format!(
            "metadata: {{name: {name}}}
spec:
  priority: {priority}
  containers: [{{name: a, resources: {{requests: {{memory: {request}Mi, ephemeral-storage: {request}Mi}}}}}}]"
        );
        let container = ContainerUsage { name: "a".into(), memory: used << 20, disk: used << 20, log: 0 };
        let layers = Space { bytes: used << 20, inodes: used };
        let usage = PodUsage { containers: vec![container], pids: used, layers, ..PodUsage::default() };
        (serde_norway::from_str(&text).unwrap(), usage)
    }

    fn order(signal: Signal, pods: &[(Pod, PodUsage)], own_imagefs: bool) -> Vec<&str> {
        let mut all: Vec<Candidate> = pods.iter().map(|(pod, usage)| Candidate { pod, usage: Some(usage) }).collect();
        rank(signal, &mut all, own_imagefs);
        all.iter().map(|c| c.pod.metadata.name.as_deref().unwrap()).collect()
    }

    #[test]
    fn who_exceeds_requests_goes_before_priority_counts() {
        let pods = [
            pod("modest", 0, 100, 90),
            pod("over-high", 9, 10, 500),
            pod("over", 0, 100, 150),
            pod("over-more", 0, 10, 100),
            pod("modest-low", -5, 500, 10),
        ];
        for signal in [Signal::MemoryAvailable, Signal::NodefsAvailable, Signal::ImagefsAvailable] {
            let expect = ["over-more", "over", "over-high", "modest-low", "modest"];
            assert_eq!(order(signal, &pods, false), expect, "{signal:?}");
        }
        assert_eq!(
            order(Signal::PidAvailable, &pods, false),
            ["modest-low", "over", "over-more", "modest", "over-high"]
        );
        // Layers are not on the node's file system: nobody exceeds anything there.
        assert_eq!(order(Signal::NodefsAvailable, &pods, true)[0], "modest-low");
        assert_eq!(order(Signal::NodefsInodesFree, &pods, false)[4], "over-high", "inodes are never requested");
    }

    #[test]
    fn the_unknown_go_first() {
        let (known, usage) = pod("known", -9, 0, 500);
        let (unknown, _) = pod("unknown", 9, 0, 0);
        let mut all = [Candidate { pod: &known, usage: Some(&usage) }, Candidate { pod: &unknown, usage: None }];
        rank(Signal::MemoryAvailable, &mut all, false);
        assert!(all[0].usage.is_none());
    }

    #[test]
    fn no_usage_is_too_large_to_be_ranked() {
        let (mut all, signals) = (
            [pod("modest", 0, 100, 90), pod("endless", 0, 100, 150)],
            [Signal::MemoryAvailable, Signal::NodefsAvailable, Signal::NodefsInodesFree],
        );
        let usage = &mut all[1].1;
        usage.containers = vec![ContainerUsage { memory: u64::MAX, ..usage.containers[0].clone() }; 2];
        (usage.layers, usage.files) = (Space { bytes: u64::MAX, inodes: u64::MAX }, Space { bytes: 1, inodes: 1 });
        for signal in signals {
            assert_eq!(order(signal, &all, false), ["endless", "modest"], "{signal:?}");
        }
    }

    #[test]
    fn messages_name_who_used_too_much() {
        let shortage = |signal| Shortage { signal, wanted: 100 << 20, available: 2000 * 1024, soft: false };
        let (greedy, usage) = pod("p", 0, 10, 20);
        let candidate = Candidate { pod: &greedy, usage: Some(&usage) };
        assert_eq!(
            message(&shortage(Signal::MemoryAvailable), &candidate),
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 2000Ki. Container a was \
             using 20Mi, request is 10Mi, has larger consumption of memory. "
        );
        assert!(message(&shortage(Signal::ImagefsAvailable), &candidate).ends_with("of ephemeral-storage. "));
        let pids = message(&shortage(Signal::PidAvailable), &candidate);
        assert_eq!(pids, "The node was low on resource: pids. Threshold quantity: 104857600, available: 2048k. ");
        let (modest, usage) = pod("p", 0, 30, 20);
        let text = message(&shortage(Signal::MemoryAvailable), &Candidate { pod: &modest, usage: Some(&usage) });
        assert!(text.ends_with("available: 2000Ki. "), "{text}");
    }
}

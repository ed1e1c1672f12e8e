//! Pods that take more of the node's disk than they are limited to.

use k8s_openapi::api::core::v1::{Container, Pod};
use quantity::{Format, Quantity};

use super::rank::PodUsage;
use crate::convert::qos::pod_limits;
use crate::convert::spec;

const EPHEMERAL_STORAGE: &str = "ephemeral-storage";

/// Whether anything of the pod's disk is limited: only then it is worth measuring.
pub fn is_limited(pod: &Pod) -> bool {
    volumes(pod).next().is_some() || all_containers(pod).any(|c| limit(c).is_some())
}

/// Why the pod has to go, in upstream's words: a volume, the pod as a whole or
/// a container is over its limit. Layers on a file system of their own do not
/// count as containers' ephemeral storage.
pub fn excess(pod: &Pod, usage: &PodUsage, own_imagefs: bool) -> Option<String> {
    excessive_volume(pod, usage)
        .or_else(|| excessive_pod(pod, usage))
        .or_else(|| excessive_container(pod, usage, own_imagefs))
}

fn excessive_volume(pod: &Pod, usage: &PodUsage) -> Option<String> {
    let (name, limit) =
        volumes(pod).find(|(name, limit)| usage.volumes.get(*name).is_some_and(|u| bytes(*u) > *limit))?;
    Some(format!("Usage of EmptyDir volume {name:?} exceeds the limit \"{limit}\". "))
}

fn excessive_pod(pod: &Pod, usage: &PodUsage) -> Option<String> {
    // Overhead alone is no limit.
    let first = all_containers(pod).find_map(limit)?;
    let whole = pod_limits(pod).get(EPHEMERAL_STORAGE).copied()?;
    // The sum is written as its first part is.
    let whole = first + Quantity::from_nanos(whole - first.nanos(), Format::DecimalSi);
    let over = bytes(usage.layers.bytes.saturating_add(usage.files.bytes)) > whole;
    over.then(|| format!("Pod ephemeral local storage usage exceeds the total limit of containers {whole}. "))
}

fn excessive_container(pod: &Pod, usage: &PodUsage, own_imagefs: bool) -> Option<String> {
    spec::containers(pod).iter().find_map(|container| {
        let (limit, used) = (limit(container)?, usage.containers.iter().find(|c| c.name == container.name)?);
        let used = bytes(if own_imagefs { used.log } else { used.disk });
        let name = &container.name;
        (used > limit).then(|| format!("Container {name} exceeded its local ephemeral storage limit \"{limit}\". "))
    })
}

fn all_containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    spec::containers(pod).iter().chain(spec::init_containers(pod))
}

fn bytes(amount: u64) -> Quantity {
    Quantity::new(i64::try_from(amount).unwrap_or(i64::MAX), Format::BinarySi)
}

/// Nothing, zero and nonsense are no limit.
fn positive(text: &str) -> Option<Quantity> {
    text.parse().ok().filter(|q: &Quantity| !q.is_zero() && !q.is_negative())
}

fn limit(container: &Container) -> Option<Quantity> {
    positive(&container.resources.as_ref()?.limits.as_ref()?.get(EPHEMERAL_STORAGE)?.0)
}

/// Scratch directories on disk that have a limit: of those in memory the kernel
/// sees to it.
fn volumes(pod: &Pod) -> impl Iterator<Item = (&str, Quantity)> {
    spec::spec(pod).volumes.iter().flatten().filter_map(|volume| {
        let source = volume.empty_dir.as_ref().filter(|e| e.medium.as_deref().unwrap_or_default().is_empty())?;
        Some((volume.name.as_str(), positive(&source.size_limit.as_ref()?.0)?))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::rank::{ContainerUsage, Space};
    use super::*;

    const MI: u64 = 1 << 20;

    fn pod(text: &str) -> Pod {
        serde_norway::from_str(&format!("spec:\n{text}")).unwrap()
    }

    /// A pod whose containers `a` and `b` use so many MiB of layers and of logs
    /// each, and whose volume `v` holds so many.
    fn usage(layer: u64, log: u64, volume: u64) -> PodUsage {
        let container =
            |name: &str| ContainerUsage { name: name.into(), memory: 0, disk: (layer + log) * MI, log: log * MI };
        PodUsage {
            containers: vec![container("a"), container("b")],
            layers: Space { bytes: 2 * layer * MI, inodes: 0 },
            files: Space { bytes: (2 * log + volume) * MI, inodes: 0 },
            volumes: [("v".to_owned(), volume * MI)].into(),
            ..PodUsage::default()
        }
    }

    #[test]
    fn who_is_over_which_limit() {
        let volume = "  containers: [{name: a}]\n  volumes: [{name: w, emptyDir: {sizeLimit: 1}}, {name: v, emptyDir: {sizeLimit: 10Mi}}]";
        let memory = "  containers: [{name: a}]\n  volumes: [{name: v, emptyDir: {medium: Memory, sizeLimit: 10Mi}}]";
        let one = "  containers: [{name: a}, {name: b, resources: {limits: {ephemeral-storage: 10Mi}}}]";
        let both = "  containers: [{name: a, resources: {limits: {ephemeral-storage: 100Mi}}}, {name: b, resources: {limits: {ephemeral-storage: 10M}}}]";
        let over_volume = Some("Usage of EmptyDir volume \"v\" exceeds the limit \"10Mi\". ");
        let over_pod = Some("Pod ephemeral local storage usage exceeds the total limit of containers 10Mi. ");
        let over_container = Some("Container b exceeded its local ephemeral storage limit \"10M\". ");
        let over_both = Some("Pod ephemeral local storage usage exceeds the total limit of containers 114857600. ");
        for (text, used, own_imagefs, expect) in [
            (volume, usage(500, 500, 10), false, None),
            (volume, usage(0, 0, 11), false, over_volume),
            (memory, usage(0, 0, 11), false, None),
            (one, usage(2, 2, 2), false, None),
            (one, usage(0, 0, 11), false, over_pod),
            (one, usage(3, 2, 1), true, over_pod),
            (both, usage(6, 4, 0), false, over_container),
            (both, usage(6, 4, 0), true, None),
            (both, usage(0, 10, 0), true, over_container),
            (both, usage(0, 0, 110), false, over_both),
        ] {
            let pod = pod(text);
            assert!(is_limited(&pod) || expect.is_none(), "{text}");
            assert_eq!(excess(&pod, &used, own_imagefs).as_deref(), expect, "{text}\n{used:?}");
        }
    }

    #[test]
    fn what_is_no_limit_limits_nothing() {
        let everything = usage(u64::MAX >> 24, u64::MAX >> 25, u64::MAX >> 24);
        for text in [
            "  containers: [{name: a}]\n  overhead: {ephemeral-storage: 1}",
            "  containers: [{name: a, resources: {limits: {ephemeral-storage: '0'}}}]",
            "  containers: [{name: a, resources: {limits: {ephemeral-storage: lots}}}]",
            "  containers: [{name: a, resources: {requests: {ephemeral-storage: 1}}}]",
            "  containers: [{name: a}]\n  volumes: [{name: v, emptyDir: {sizeLimit: -1}}, {name: v, emptyDir: {}}]",
            "  containers: [{name: a}]\n  volumes: [{name: v, hostPath: {path: /}}]",
        ] {
            let pod = pod(text);
            assert!(!is_limited(&pod) && excess(&pod, &everything, false).is_none(), "{text}");
        }
        assert!(!is_limited(&Pod::default()));
        // Nothing was measured.
        let unknown = pod("  containers: [{name: a}]\n  volumes: [{name: v, emptyDir: {sizeLimit: 1}}]");
        assert!(is_limited(&unknown) && excess(&unknown, &PodUsage::default(), false).is_none());
    }
}

//! The labels of a Node that its kubelet may set, change and remove.

use std::collections::BTreeSet;

use serde_json::Value;

/// Labels outside kubelets' namespaces that they may set all the same.
const KUBELET: [&str; 11] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
];

/// The labels that differ and that a node must leave alone, sorted.
pub(super) fn forbidden<'l>(new: &'l Value, old: &'l Value) -> Vec<&'l str> {
    let keys = |labels: &'l Value| labels.as_object().into_iter().flatten().map(|(key, _)| key.as_str());
    let all: BTreeSet<&str> = keys(new).chain(keys(old)).collect();
    all.into_iter().filter(|key| new.get(key) != old.get(key) && !may_change(key)).collect()
}

fn may_change(key: &str) -> bool {
    let namespace = key.split_once('/').map_or("", |(namespace, _)| namespace);
    let within = |suffix: &str| {
        namespace == suffix || namespace.strip_suffix(suffix).is_some_and(|before| before.ends_with('.'))
    };
    if within("node-restriction.kubernetes.io") {
        return false;
    }
    let kubernetes = within("kubernetes.io") || within("k8s.io");
    let kubelet = KUBELET.contains(&key) || within("kubelet.kubernetes.io") || within("node.kubernetes.io");
    !kubernetes || kubelet
}

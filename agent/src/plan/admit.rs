//! Whether this node takes a pod that was bound to it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod, Taint};

use super::eviction::{Pressure, Pressures};
use super::node_fit;
use super::preempt::{PODS, victims};
use crate::convert::qos::{QosClass, Sums, pod_requests, qos_class};
use crate::convert::quantity::{ResourceList, nanos};
use crate::convert::sandbox::forbidden_sysctl;
use crate::convert::{security, spec};

/// One, in billionths.
const UNIT: i128 = 1_000_000_000;

/// The operating system of this node, and the label that names a pod's.
const OS: &str = "linux";
const OS_LABEL: &str = "kubernetes.io/os";

/// The resources that are told to be short before others, in this order
/// (pkg/scheduler/framework/plugins/noderesources/fit.go: `fitsRequest`).
const FIRST: [&str; 4] = [PODS, "cpu", "memory", "ephemeral-storage"];

/// The reason of a pod that selects other nodes.
pub const NODE_AFFINITY: &str = "NodeAffinity";

/// Why a pod is refused: it becomes `Failed` with this reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: String,
    pub message: String,
}

/// What the node has and who uses it, as upstream gives to its admission.
#[derive(Clone, Debug)]
pub struct NodeInfo<'a> {
    pub allocatable: ResourceList,
    /// Pods that run or start here, without the one in question.
    pub others: Vec<&'a Pod>,
    pub node: Option<&'a Node>,
    pub allowed_unsafe_sysctls: &'a [String],
    /// Whether the runtime can hold a pod to the groups it names.
    pub strict_groups: bool,
    /// What the node runs short of.
    pub pressures: &'a Pressures,
    /// Protocols and ports that the node itself answers on.
    pub own_ports: &'a [(&'static str, u16)],
}

fn sums(pods: &[&Pod]) -> Sums {
    let mut total: BTreeMap<String, i128> = BTreeMap::new();
    for pod in pods {
        for (name, amount) in pod_requests(pod) {
            *total.entry(name).or_default() += amount;
        }
    }
    total
}

/// Host ports a pod takes: (address, protocol, port).
fn host_ports(pod: &Pod) -> Vec<(String, String, i32)> {
    let sidecars = spec::init_containers(pod).iter().filter(|c| spec::is_sidecar(c));
    let ports = spec::containers(pod).iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|p| {
            let port = p.host_port.filter(|p| *p > 0)?;
            Some((p.host_ip.clone().unwrap_or_default(), p.protocol.clone().unwrap_or_else(|| "TCP".into()), port))
        })
        .collect()
}

/// Whether an address stands for all of the node's, in the scheduler's eyes: `::` does not.
fn wildcard(ip: &str) -> bool {
    matches!(ip, "" | "0.0.0.0")
}

fn ports_clash(a: &(String, String, i32), b: &(String, String, i32)) -> bool {
    a.1 == b.1 && a.2 == b.2 && (wildcard(&a.0) || wildcard(&b.0) || a.0 == b.0)
}

/// A node that runs short takes critical pods only; one that is short of memory
/// alone also those that say how much they need, or that they do not mind.
fn check_pressures(pod: &Pod, pressures: &Pressures) -> Result<(), Refusal> {
    if pressures.is_empty() || spec::is_critical(pod) {
        return Ok(());
    }
    let memory_alone = pressures.iter().all(|p| *p == Pressure::Memory);
    if memory_alone && (qos_class(pod) != QosClass::BestEffort || tolerates_memory_pressure(pod)) {
        return Ok(());
    }
    let conditions: Vec<&str> = pressures.iter().map(|p| p.condition()).collect();
    let message = format!("The node had condition: [{}]. ", conditions.join(" "));
    Err(Refusal { reason: "Evicted".to_owned(), message })
}

fn tolerates_memory_pressure(pod: &Pod) -> bool {
    let (key, effect) = ("node.kubernetes.io/memory-pressure".to_owned(), "NoSchedule".to_owned());
    node_fit::tolerates(pod, &Taint { key, effect, ..Taint::default() })
}

/// What admission says of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Admit<'a> {
    Yes,
    Refused(Refusal),
    /// A critical pod gets in once these have ended.
    Preempt(Vec<&'a Pod>),
}

/// Whether the pod is taken. Where only room is short, others end for a critical one. Of several reasons against it the
/// first is told: room comes before what the pod selects, ports and taints (pkg/kubelet/lifecycle/predicate.go:
/// `generalFilter`; pkg/scheduler/eventhandlers.go: `AdmissionCheck`), but a critical pod is never short of room
/// (pkg/kubelet/preemption/preemption.go: `HandleAdmissionFailure`).
pub fn admit<'a>(pod: &Pod, node_info: &NodeInfo<'a>) -> Admit<'a> {
    if let Err(refusal) = check(pod, node_info) {
        return Admit::Refused(refusal);
    }
    let (missing, misfit) = (missing(pod, node_info), misfit(pod, node_info));
    match misfit {
        Some(misfit) if missing.is_empty() || spec::is_critical(pod) => return Admit::Refused(misfit),
        None if missing.is_empty() => return Admit::Yes,
        _ => {}
    }
    if !spec::is_critical(pod) {
        return Admit::Refused(out_of(pod, node_info, &missing));
    }
    match victims(pod, &node_info.others, &missing) {
        Some(victims) => Admit::Preempt(victims),
        None => {
            let names: Vec<&str> = missing.keys().map(String::as_str).collect();
            let message = format!(
                "Unexpected error while attempting to recover from admission failure: preemption: error finding a set of pods to preempt: no set of running pods found to reclaim resources: [{}]",
                names.join(" ")
            );
            Admit::Refused(refusal("UnexpectedAdmissionError", &message))
        }
    }
}

fn refusal(reason: &str, message: &str) -> Refusal {
    Refusal { reason: reason.to_owned(), message: message.to_owned() }
}

/// Checks what no end of another pod could change: pressures, sysctls, the operating system and groups.
fn check(pod: &Pod, node_info: &NodeInfo<'_>) -> Result<(), Refusal> {
    check_pressures(pod, node_info.pressures)?;
    if let Some(name) = forbidden_sysctl(pod, node_info.allowed_unsafe_sysctls) {
        return Err(refusal("SysctlForbidden", &format!("forbidden sysctl: \"{name}\" not allowlisted")));
    }
    // The pod's own label, whatever the Node's says (`rejectPodAdmissionBasedOnOSSelector`).
    if pod.metadata.labels.iter().flatten().any(|(key, value)| key == OS_LABEL && value != OS) {
        let message = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
        return Err(refusal("PodOSSelectorNodeLabelDoesNotMatch", message));
    }
    if spec::spec(pod).os.as_ref().is_some_and(|os| os.name != OS) {
        return Err(refusal("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS"));
    }
    if security::strict_groups(pod) && !node_info.strict_groups {
        let message = "SupplementalGroupsPolicy=Strict is not supported in this node";
        return Err(refusal("SupplementalGroupsPolicyNotSupported", message));
    }
    Ok(())
}

/// The first thing about the node, beside its room, that does not fit the pod.
fn misfit(pod: &Pod, node_info: &NodeInfo<'_>) -> Option<Refusal> {
    if node_info.node.is_some_and(|node| !node_fit::is_selected(pod, node)) {
        let message = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        return Some(refusal(NODE_AFFINITY, message));
    }
    let mine = host_ports(pod);
    let taken: Vec<_> = node_info.others.iter().flat_map(|p| host_ports(p)).collect();
    // A pod's host port would take the node's own connections, whoever listens.
    let own = |m: &(String, String, i32)| {
        node_info.own_ports.iter().any(|(protocol, port)| *protocol == m.1 && i32::from(*port) == m.2)
    };
    if mine.iter().any(|m| own(m) || taken.iter().any(|t| ports_clash(m, t))) {
        let message = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        return Some(refusal("NodePorts", message));
    }
    // A static pod is where it is.
    if !spec::is_static(pod) && node_info.node.is_some_and(|node| node_fit::has_untolerated_taint(pod, node)) {
        let message = "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate";
        return Some(refusal("TaintToleration", message));
    }
    None
}

/// What the pod requests beyond what is free, in billionths by resource.
fn missing(pod: &Pod, node_info: &NodeInfo<'_>) -> Sums {
    let (used, limits) = (used(node_info), limits(node_info));
    let mut wanted = pod_requests(pod);
    wanted.insert(PODS.to_owned(), UNIT);
    let over = wanted.into_iter().filter_map(|(name, want)| {
        // A page of a size that the node does not have is one it has none of. Whatever else it does not know of is the
        // scheduler's business (pkg/kubelet/lifecycle/predicate.go: `removeMissingExtendedResources`).
        let limit = limits.get(&name).copied().or_else(|| name.starts_with("hugepages-").then_some(0))?;
        let over = used.get(&name).copied().unwrap_or(0) + want - limit;
        (want > 0 && over > 0).then_some((name, over))
    });
    over.collect()
}

fn used(node_info: &NodeInfo<'_>) -> Sums {
    let mut used = sums(&node_info.others);
    used.insert(PODS.to_owned(), UNIT * i128::try_from(node_info.others.len()).unwrap_or(i128::MAX / UNIT));
    used
}

fn limits(node_info: &NodeInfo<'_>) -> Sums {
    node_info.allocatable.iter().filter_map(|(name, q)| Some((name.clone(), nanos(&q.0)?))).collect()
}

/// The refusal that names the first resource that is short.
fn out_of(pod: &Pod, node_info: &NodeInfo<'_>, missing: &Sums) -> Refusal {
    let first = FIRST.into_iter().find(|name| missing.contains_key(*name));
    let resource = first.or_else(|| missing.keys().next().map(String::as_str)).unwrap_or_default();
    let scale = if resource == "cpu" { UNIT / 1000 } else { UNIT };
    let of = |list: &Sums| list.get(resource).copied().unwrap_or(0) / scale;
    let want = if resource == PODS { 1 } else { of(&pod_requests(pod)) };
    Refusal {
        reason: format!("OutOf{resource}"),
        message: format!(
            "Node didn't have enough resource: {resource}, requested: {want}, used: {}, capacity: {}",
            of(&used(node_info)),
            of(&limits(node_info))
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    fn pod(text: &str) -> Pod {
        serde_norway::from_str(&format!("metadata: {{name: p}}\nspec:\n{text}")).unwrap()
    }

    fn refusal(text: &str, node_info: &NodeInfo<'_>) -> Option<Refusal> {
        match admit(&pod(text), node_info) {
            Admit::Refused(refusal) => Some(refusal),
            Admit::Yes | Admit::Preempt(_) => None,
        }
    }

    #[test]
    fn refusals() {
        let busy = pod(
            "  containers: [{name: a, resources: {requests: {cpu: 700m}}, ports: [{containerPort: 80, hostPort: 80}, {containerPort: 81, hostPort: 81, hostIP: '::'}]}]",
        );
        let node: Node = serde_norway::from_str("metadata: {labels: {disk: ssd}}").unwrap();
        let node_info = NodeInfo {
            allocatable: [("cpu", "1"), ("memory", "1Gi"), ("pods", "2")]
                .map(|(k, v)| (k.to_owned(), Quantity(v.to_owned())))
                .into(),
            others: vec![&busy],
            node: Some(&node),
            allowed_unsafe_sysctls: &[],
            strict_groups: false,
            pressures: &Pressures::new(),
            own_ports: &[("TCP", 10250), ("UDP", 8472)],
        };
        let cases = [
            ("  containers: [{name: a, resources: {requests: {cpu: 300m}}}]", None),
            ("  containers: [{name: a, resources: {requests: {cpu: 301m}}}]", Some("OutOfcpu")),
            ("  containers: [{name: a, resources: {requests: {memory: 2Gi}}}]", Some("OutOfmemory")),
            ("  containers: [{name: a, resources: {requests: {example.com/gpu: 2}}}]", None),
            (
                "  containers: [{name: a, ports: [{containerPort: 1, hostPort: 80, hostIP: 1.2.3.4}]}]",
                Some("NodePorts"),
            ),
            ("  containers: [{name: a, ports: [{containerPort: 1, hostPort: 80, protocol: UDP}]}]", None),
            ("  containers: [{name: a, ports: [{containerPort: 1, hostPort: 81, hostIP: 1.2.3.4}]}]", None),
            ("  containers: [{name: a, ports: [{containerPort: 1, hostPort: 81}]}]", Some("NodePorts")),
            ("  containers: [{name: a, ports: [{containerPort: 1, hostPort: 10250}]}]", Some("NodePorts")),
            (
                "  containers: [{name: a, ports: [{containerPort: 1, hostPort: 10250, hostIP: 1.2.3.4}]}]",
                Some("NodePorts"),
            ),
            ("  containers: [{name: a, ports: [{containerPort: 10250}]}]", None),
            ("  containers: [{name: a, ports: [{containerPort: 1, hostPort: 10250, protocol: UDP}]}]", None),
            (
                "  containers: [{name: a, ports: [{containerPort: 1, hostPort: 8472, protocol: UDP}]}]",
                Some("NodePorts"),
            ),
            ("  containers: [{name: a, ports: [{containerPort: 1, hostPort: 8472}]}]", None),
            ("  nodeSelector: {disk: hdd}\n  containers: [{name: a}]", Some("NodeAffinity")),
            ("  os: {name: windows}\n  containers: [{name: a}]", Some("PodOSNotSupported")),
            (
                "  securityContext: {supplementalGroupsPolicy: Strict}\n  containers: [{name: a}]",
                Some("SupplementalGroupsPolicyNotSupported"),
            ),
            (
                "  securityContext: {sysctls: [{name: kernel.msgmax, value: '1'}]}\n  containers: [{name: a}]",
                Some("SysctlForbidden"),
            ),
        ];
        for (text, reason) in cases {
            assert_eq!(refusal(text, &node_info).map(|r| r.reason).as_deref(), reason, "{text}");
        }
        let full = NodeInfo { others: vec![&busy, &busy], ..node_info.clone() };
        assert_eq!(refusal("  containers: [{name: a}]", &full).unwrap().reason, "OutOfpods");
        // A critical pod gets in at the cost of others, if that is enough.
        let critical = |cpu: &str| {
            pod(&format!(
                "  priority: 2000000000\n  containers: [{{name: a, resources: {{requests: {{cpu: {cpu}}}}}}}]"
            ))
        };
        assert_eq!(admit(&critical("300m"), &node_info), Admit::Yes);
        assert_eq!(admit(&critical("301m"), &node_info), Admit::Preempt(vec![&busy]));
        let Admit::Refused(refusal) = admit(&critical("1001m"), &node_info) else { panic!("there is no such room") };
        assert_eq!(refusal.reason, "UnexpectedAdmissionError");
    }

    /// In upstream's order: of several reasons the first is told.
    #[test]
    fn the_first_reason_is_told() {
        let busy = pod("  containers: [{name: a, ports: [{containerPort: 80, hostPort: 80}]}]");
        let node = "{metadata: {name: n1, labels: {disk: ssd}}, spec: {taints: [{key: a, effect: NoExecute}]}}";
        let node: Node = serde_norway::from_str(node).unwrap();
        let short = [("cpu", "1"), ("memory", "1Gi"), ("ephemeral-storage", "1Gi"), ("pods", "2")];
        let node_info = NodeInfo {
            allocatable: short.map(|(k, v)| (k.to_owned(), Quantity(v.to_owned()))).into(),
            others: vec![&busy],
            node: Some(&node),
            allowed_unsafe_sysctls: &[],
            strict_groups: false,
            pressures: &Pressures::new(),
            own_ports: &[],
        };
        let (tolerant, elsewhere) = ("  tolerations: [{operator: Exists}]\n", "  nodeSelector: {disk: hdd}\n");
        let (groups, other_os) = ("  securityContext: {supplementalGroupsPolicy: Strict}\n", "  os: {name: windows}\n");
        let wants = |requests: &str, port| {
            format!(
                "  containers: [{{name: a, resources: {{requests: {{{requests}}}}}, ports: [{{containerPort: 1, hostPort: {port}}}]}}]"
            )
        };
        let all = "cpu: 2, memory: 2Gi, ephemeral-storage: 2Gi, hugepages-2Mi: 2Mi";
        for (text, reason) in [
            (format!("{groups}{other_os}{elsewhere}{}", wants(all, 80)), "PodOSNotSupported"),
            (format!("{groups}{elsewhere}{}", wants(all, 80)), "SupplementalGroupsPolicyNotSupported"),
            (format!("{elsewhere}{}", wants(all, 80)), "OutOfcpu"),
            (wants("memory: 2Gi, ephemeral-storage: 2Gi, hugepages-2Mi: 2Mi", 80), "OutOfmemory"),
            (wants("ephemeral-storage: 2Gi, hugepages-2Mi: 2Mi, example.com/gpu: 2", 80), "OutOfephemeral-storage"),
            (wants("hugepages-2Mi: 2Mi", 80), "OutOfhugepages-2Mi"),
            (format!("{elsewhere}{}", wants("cpu: 1", 80)), "NodeAffinity"),
            (wants("cpu: 1", 80), "NodePorts"),
            (wants("cpu: 1", 81), "TaintToleration"),
            (format!("  priority: 2000000000\n{elsewhere}{}", wants(all, 80)), "NodeAffinity"),
            (format!("  priority: 2000000000\n{tolerant}{}", wants(all, 80)), "NodePorts"),
            (format!("  priority: 2000000000\n{}", wants(all, 81)), "TaintToleration"),
        ] {
            assert_eq!(refusal(&text, &node_info).map(|r| r.reason).as_deref(), Some(reason), "{text}");
        }
        let mut labelled = pod(&format!("{other_os}{}", wants(all, 80)));
        labelled.metadata.labels = Some([(OS_LABEL.to_owned(), "windows".to_owned())].into());
        let Admit::Refused(refused) = admit(&labelled, &node_info) else { panic!("it is for Windows") };
        assert_eq!(refused.reason, "PodOSSelectorNodeLabelDoesNotMatch");
        let mut labelled = pod(&format!("{tolerant}{}", wants("cpu: 1", 81)));
        labelled.metadata.labels = Some([(OS_LABEL.to_owned(), "linux".to_owned())].into());
        assert_eq!(admit(&labelled, &node_info), Admit::Yes);
    }

    #[test]
    fn a_node_takes_whom_it_fits() {
        let node = "{metadata: {name: n1, labels: {disk: ssd}}, spec: {taints: [{key: a, effect: NoExecute}]}}";
        let node: Node = serde_norway::from_str(node).unwrap();
        let node_info = NodeInfo {
            allocatable: ResourceList::new(),
            others: vec![],
            node: Some(&node),
            allowed_unsafe_sysctls: &[],
            strict_groups: false,
            pressures: &Pressures::new(),
            own_ports: &[],
        };
        let affinity = |disk: &str| {
            format!(
                "  affinity: {{nodeAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: {{nodeSelectorTerms: [{{matchExpressions: [{{key: disk, operator: In, values: [{disk}]}}]}}]}}}}}}\n"
            )
        };
        let tolerant = "  tolerations: [{key: a, operator: Exists}]\n";
        let one = "  containers: [{name: a}]";
        for (spec, reason) in [
            (format!("{}{tolerant}{one}", affinity("ssd")), None),
            (format!("{}{tolerant}{one}", affinity("hdd")), Some("NodeAffinity")),
            (format!("{}{one}", affinity("ssd")), Some("TaintToleration")),
        ] {
            assert_eq!(refusal(&spec, &node_info).map(|r| r.reason).as_deref(), reason, "{spec}");
        }
        let mut of_file = pod(one);
        of_file.metadata.annotations = Some([(spec::CONFIG_SOURCE.to_owned(), "file".to_owned())].into());
        assert_eq!(admit(&of_file, &node_info), Admit::Yes);
    }

    #[test]
    fn a_node_under_pressure_is_choosy() {
        let (memory, more) = ([Pressure::Memory].into(), [Pressure::Memory, Pressure::Disk].into());
        let tolerant = "  tolerations: [{key: node.kubernetes.io/memory-pressure, operator: Exists}]\n";
        let one = "  containers: [{name: a}]";
        let cases = [
            (one.to_owned(), false, false),
            ("  containers: [{name: a, resources: {requests: {cpu: 1m}}}]".to_owned(), true, false),
            (format!("{tolerant}{one}"), true, false),
            (format!("  tolerations: [{{operator: Exists}}]\n{one}"), true, false),
            (format!("  tolerations: [{{key: node.kubernetes.io/memory-pressure, value: x}}]\n{one}"), false, false),
            (format!("  priority: 2000000000\n{one}"), true, true),
        ];
        for (text, if_memory, if_more) in cases {
            for (pressures, taken) in [(&Pressures::new(), true), (&memory, if_memory), (&more, if_more)] {
                let node_info = NodeInfo {
                    allocatable: ResourceList::new(),
                    others: vec![],
                    node: None,
                    allowed_unsafe_sysctls: &[],
                    strict_groups: false,
                    pressures,
                    own_ports: &[],
                };
                assert_eq!(admit(&pod(&text), &node_info) == Admit::Yes, taken, "{text} under {pressures:?}");
                if let Some(refusal) = refusal(&text, &node_info) {
                    assert_eq!(refusal.reason, "Evicted");
                }
            }
        }
        let node_info = NodeInfo {
            allocatable: ResourceList::new(),
            others: vec![],
            node: None,
            allowed_unsafe_sysctls: &[],
            strict_groups: false,
            pressures: &more,
            own_ports: &[],
        };
        let message = refusal(one, &node_info).unwrap().message;
        assert_eq!(message, "The node had condition: [MemoryPressure DiskPressure]. ");
    }
}

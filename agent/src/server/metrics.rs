//! Prometheus text of the `/metrics` doors, under upstream's names. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::stats::{Summary, total};
use crate::podcache::RuntimePod;
use crate::probe::ProbeCounts;
use crate::probe::threshold::ProbeKind;

/// Writes families of metrics.
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display, at: Option<Timestamp>) {
        self.0.push_str(name);
        if !labels.is_empty() {
            let pairs: Vec<String> = labels.iter().map(|(k, v)| format!("{k}=\"{}\"", escaped(v))).collect();
            let _ = write!(self.0, "{{{}}}", pairs.join(","));
        }
        let _ = write!(self.0, " {value}");
        if let Some(at) = at {
            let _ = write!(self.0, " {}", at.as_millisecond());
        }
        self.0.push('\n');
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Nanoseconds as seconds.
fn seconds(nanos: u64) -> String {
    format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

fn unix_seconds(at: Timestamp) -> String {
    format!("{}.{:03}", at.as_second(), at.subsec_millisecond())
}

/// `/metrics/resource`; `None` when there are no stats.
pub fn resource(summary: Option<&Summary>) -> String {
    let mut text = Text(String::new());
    if let Some(summary) = summary {
        let at = Some(summary.at);
        per_container(&mut text, summary);
        let node = &summary.node;
        text.family(
            "node_cpu_usage_seconds_total",
            "counter",
            "[STABLE] Cumulative cpu time consumed by the node in core-seconds",
        );
        text.sample("node_cpu_usage_seconds_total", &[], seconds(node.cpu_nanos), at);
        text.family("node_memory_working_set_bytes", "gauge", "[STABLE] Current working set of the node in bytes");
        if let Some(used) = node.memory_used() {
            text.sample("node_memory_working_set_bytes", &[], used, at);
        }
        per_pod(&mut text, summary);
    }
    text.family(
        "resource_scrape_error",
        "gauge",
        "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise",
    );
    text.sample("resource_scrape_error", &[], u8::from(summary.is_none()), None);
    text.0
}

fn per_container(text: &mut Text, summary: &Summary) {
    let all = || summary.pods.iter().flat_map(|pod| pod.containers.iter().map(move |c| (pod, c)));
    let at = Some(summary.at);
    let mut each =
        |name: &str, kind: &str, help: &str, value: &dyn Fn(&super::stats::ContainerStats) -> Option<String>| {
            text.family(name, kind, help);
            for (pod, container) in all() {
                if let Some(value) = value(container) {
                    let labels = [("container", &*container.name), ("namespace", &*pod.namespace), ("pod", &*pod.name)];
                    text.sample(name, &labels, value, at);
                }
            }
        };
    each(
        "container_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the container in core-seconds",
        &|c| Some(seconds(c.cpu_nanos)),
    );
    each(
        "container_memory_working_set_bytes",
        "gauge",
        "[STABLE] Current working set of the container in bytes",
        &|c| Some(c.working_set.to_string()),
    );
    each(
        "container_start_time_seconds",
        "gauge",
        "[STABLE] Start time of the container since unix epoch in seconds",
        &|c| c.started_at.map(unix_seconds),
    );
}

fn per_pod(text: &mut Text, summary: &Summary) {
    let at = Some(summary.at);
    text.family(
        "pod_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the pod in core-seconds",
    );
    for pod in &summary.pods {
        let nanos = total(pod.containers.iter().map(|c| c.cpu_nanos));
        text.sample(
            "pod_cpu_usage_seconds_total",
            &[("namespace", &pod.namespace), ("pod", &pod.name)],
            seconds(nanos),
            at,
        );
    }
    text.family("pod_memory_working_set_bytes", "gauge", "[STABLE] Current working set of the pod in bytes");
    for pod in &summary.pods {
        let bytes = total(pod.containers.iter().map(|c| c.working_set));
        text.sample("pod_memory_working_set_bytes", &[("namespace", &pod.namespace), ("pod", &pod.name)], bytes, at);
    }
}

/// `/metrics/cadvisor`: what dashboards use most of it.
pub fn cadvisor(summary: Option<&Summary>) -> String {
    let mut text = Text(String::new());
    let pods = summary.map(|f| f.pods.as_slice()).unwrap_or_default();
    let at = summary.map(|f| f.at);
    let mut each = |name: &str, kind: &str, help: &str, value: &dyn Fn(&super::stats::ContainerStats) -> String| {
        text.family(name, kind, help);
        for (pod, c) in pods.iter().flat_map(|pod| pod.containers.iter().map(move |c| (pod, c))) {
            let labels = [("container", &*c.name), ("id", &*c.id), ("namespace", &*pod.namespace), ("pod", &*pod.name)];
            text.sample(name, &labels, value(c), at);
        }
    };
    each("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in seconds.", &|c| {
        seconds(c.cpu_nanos)
    });
    each("container_memory_working_set_bytes", "gauge", "Current working set in bytes.", &|c| {
        c.working_set.to_string()
    });
    each("container_memory_rss", "gauge", "Size of RSS in bytes.", &|c| c.rss.to_string());
    each(
        "container_fs_usage_bytes",
        "gauge",
        "Number of bytes that are consumed by the container on this filesystem.",
        &|c| c.rootfs_used.to_string(),
    );
    text.0
}

/// `/metrics/probes`.
pub fn probes(counts: &[(Arc<Pod>, String, ProbeKind, ProbeCounts)]) -> String {
    let mut text = Text(String::new());
    let name = "prober_probe_total";
    text.family(
        name,
        "counter",
        "[BETA] Cumulative number of a liveness, readiness or startup probe for a container by result.",
    );
    for (pod, container, kind, counts) in counts {
        let meta = &pod.metadata;
        let of = |value: &Option<String>| value.clone().unwrap_or_default();
        let (namespace, pod_name, uid) = (of(&meta.namespace), of(&meta.name), of(&meta.uid));
        let results = [("successful", counts.successful), ("failed", counts.failed), ("unknown", counts.unknown)];
        for (result, count) in results.into_iter().filter(|(_, count)| *count > 0) {
            let labels = [
                ("container", container.as_str()),
                ("namespace", &namespace),
                ("pod", &pod_name),
                ("pod_uid", &uid),
                ("probe_type", kind.title()),
                ("result", result),
            ];
            text.sample(name, &labels, count, None);
        }
    }
    text.0
}

/// What panicked and was started again, since the agent's start.
#[derive(Clone, Debug, Default)]
pub struct Panics {
    /// Parts of the agent, by name.
    pub tasks: BTreeMap<&'static str, u64>,
    /// Pod workers.
    pub workers: u64,
}

/// `/metrics`: the kubelet itself; `rss` is its resident memory in bytes.
pub fn kubelet(node_name: &str, pods: &[Arc<RuntimePod>], rss: Option<u64>, panics: &Panics) -> String {
    let mut text = Text(String::new());
    text.family("kubelet_node_name", "gauge", "[ALPHA] The node's name. The count is always 1.");
    text.sample("kubelet_node_name", &[("node", node_name)], 1, None);
    text.family("kubelet_running_pods", "gauge", "[BETA] Number of pods that have a running pod sandbox");
    text.sample("kubelet_running_pods", &[], pods.iter().filter(|p| p.ready_sandbox().is_some()).count(), None);
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    for container in pods.iter().flat_map(|pod| &pod.containers) {
        let state = match container.status.state {
            cri::types::ContainerState::Created => "created",
            cri::types::ContainerState::Running => "running",
            cri::types::ContainerState::Exited => "exited",
            cri::types::ContainerState::Unknown => "unknown",
        };
        *states.entry(state).or_default() += 1;
    }
    text.family("kubelet_running_containers", "gauge", "[BETA] Number of containers currently running");
    for (state, count) in states {
        text.sample("kubelet_running_containers", &[("container_state", state)], count, None);
    }
    let name = "copepod_agent_task_restarts_total";
    text.family(name, "counter", "Number of times a part of the agent panicked and was started again");
    for (task, count) in &panics.tasks {
        text.sample(name, &[("task", task)], count, None);
    }
    text.family("copepod_pod_worker_panics_total", "counter", "Pod workers that panicked and were started again");
    text.sample("copepod_pod_worker_panics_total", &[], panics.workers, None);
    if let Some(rss) = rss {
        text.family("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.");
        text.sample("process_resident_memory_bytes", &[], rss, None);
    }
    text.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::server::stats::{ContainerStats, NodeStats, PodStats};

    #[test]
    fn resource_metrics_as_metrics_server_reads_them() {
        let at = Timestamp::from_millisecond(1_600_000_000_500).unwrap();
        let container = ContainerStats {
            name: "c".into(),
            id: "x".into(),
            started_at: Some(at),
            cpu_nanos: 1_500_000_000,
            cpu_rate: None,
            working_set: 7,
            rss: 3,
            rootfs_used: 1,
        };
        let pod = PodStats {
            namespace: "ns".into(),
            name: "p\"".into(),
            uid: "u".into(),
            started_at: None,
            containers: vec![container],
        };
        let node = NodeStats { memory_total: 10, memory_available: Some(4), ..NodeStats::default() };
        let text = resource(Some(&Summary { at, node, pods: vec![pod] }));
        for line in [
            "container_cpu_usage_seconds_total{container=\"c\",namespace=\"ns\",pod=\"p\\\"\"} 1.500000000 1600000000500",
            "container_memory_working_set_bytes{container=\"c\",namespace=\"ns\",pod=\"p\\\"\"} 7 1600000000500",
            "container_start_time_seconds{container=\"c\",namespace=\"ns\",pod=\"p\\\"\"} 1600000000.500 1600000000500",
            "node_memory_working_set_bytes 6 1600000000500",
            "resource_scrape_error 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\nnot in\n{text}");
        }
        assert!(resource(None).ends_with("resource_scrape_error 1\n"));
    }
}

//! What a pod asks for and a node offers, as numbers. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// CPU that a container without a request counts for in scoring, in millicores.
pub const DEFAULT_MILLI_CPU: i64 = 100;
/// Memory that a container without a request counts for in scoring, in bytes.
pub const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

type Quantities = BTreeMap<String, Quantity>;

/// Amounts of resources: CPU in millicores, all others in whole units.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Millicores.
    pub cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes of node-local storage.
    pub ephemeral: i64,
    /// Pods (of a node's offer only).
    pub pods: i64,
    /// Everything else by name: extended resources, huge pages.
    pub scalars: Vec<(String, i64)>,
}

impl Resources {
    /// Reads a list of quantities; an unreadable one counts as zero.
    pub fn of(list: Option<&Quantities>) -> Self {
        let mut out = Self::default();
        for (name, quantity) in list.into_iter().flatten() {
            let amount = quantity.0.parse().unwrap_or(quantity::Quantity::ZERO);
            match name.as_str() {
                "cpu" => out.cpu = amount.milli_value(),
                "memory" => out.memory = amount.value(),
                "ephemeral-storage" => out.ephemeral = amount.value(),
                "pods" => out.pods = amount.value(),
                _ => out.scalars.push((name.clone(), amount.value())),
            }
        }
        out
    }

    /// Adds each amount.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, i64::saturating_add);
    }

    /// Takes the larger of each amount.
    pub fn max(&mut self, other: &Self) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Self, op: fn(i64, i64) -> i64) {
        self.cpu = op(self.cpu, other.cpu);
        self.memory = op(self.memory, other.memory);
        self.ephemeral = op(self.ephemeral, other.ephemeral);
        self.pods = op(self.pods, other.pods);
        for (name, amount) in &other.scalars {
            match self.scalars.iter_mut().find(|(n, _)| n == name) {
                Some((_, have)) => *have = op(*have, *amount),
                None => self.scalars.push((name.clone(), *amount)),
            }
        }
    }
}

/// Requests of a pod: exact, and with defaults for CPU and memory as scoring wants them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requests {
    /// What must fit.
    pub exact: Resources,
    /// Millicores with the default for containers that ask for none.
    pub nonzero_cpu: i64,
    /// Bytes with the default for containers that ask for none.
    pub nonzero_memory: i64,
}

/// The requests of a pod: the sum of its containers and sidecars, or the largest
/// init container beside the sidecars started before it, plus overhead. Requests
/// on the pod itself take the place of the sum where given.
pub fn requests(spec: &PodSpec) -> Requests {
    let exact = aggregate(spec, &|c| container(c, false));
    let nonzero = aggregate(spec, &|c| container(c, true));
    Requests { nonzero_cpu: nonzero.cpu, nonzero_memory: nonzero.memory, exact }
}

fn container(c: &Container, defaults: bool) -> Resources {
    let list = c.resources.as_ref().and_then(|r| r.requests.as_ref());
    let mut out = Resources::of(list);
    if defaults {
        let asks = |name: &str| list.is_some_and(|l| l.contains_key(name));
        if !asks("cpu") {
            out.cpu = DEFAULT_MILLI_CPU;
        }
        if !asks("memory") {
            out.memory = DEFAULT_MEMORY;
        }
    }
    out
}

fn aggregate(spec: &PodSpec, of: &dyn Fn(&Container) -> Resources) -> Resources {
    let mut running = Resources::default();
    for c in &spec.containers {
        running.add(&of(c));
    }
    let mut sidecars = Resources::default();
    let mut init = Resources::default();
    for c in spec.init_containers.iter().flatten() {
        let mut at_once = of(c);
        if c.restart_policy.as_deref() == Some("Always") {
            running.add(&at_once);
            sidecars.add(&at_once);
            at_once = sidecars.clone();
        } else {
            at_once.add(&sidecars);
        }
        init.max(&at_once);
    }
    running.max(&init);
    if let Some(pod_level) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
        let asked = Resources::of(Some(pod_level));
        if pod_level.contains_key("cpu") {
            running.cpu = asked.cpu;
        }
        if pod_level.contains_key("memory") {
            running.memory = asked.memory;
        }
    }
    running.add(&Resources::of(spec.overhead.as_ref()));
    running
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ResourceRequirements;

    fn c(cpu: &str, memory: &str, sidecar: bool) -> Container {
        let mut requests = BTreeMap::new();
        for (k, v) in [("cpu", cpu), ("memory", memory)] {
            if !v.is_empty() {
                requests.insert(k.to_owned(), Quantity(v.to_owned()));
            }
        }
        Container {
            resources: Some(ResourceRequirements { requests: Some(requests), ..Default::default() }),
            restart_policy: sidecar.then(|| "Always".to_owned()),
            ..Default::default()
        }
    }

    fn check(containers: Vec<Container>, init: Vec<Container>, cpu: i64, memory: i64, nonzero: (i64, i64)) {
        let spec = PodSpec { containers, init_containers: Some(init), ..Default::default() };
        let r = requests(&spec);
        assert_eq!((r.exact.cpu, r.exact.memory, r.nonzero_cpu, r.nonzero_memory), (cpu, memory, nonzero.0, nonzero.1));
    }

    #[test]
    fn requests_follow_the_life_of_a_pod() {
        check(
            vec![c("100m", "1Mi", false), c("200m", "", false)],
            vec![],
            300,
            1 << 20,
            (300, (1 << 20) + DEFAULT_MEMORY),
        );
        check(vec![c("100m", "1Mi", false)], vec![c("1", "1Mi", false)], 1000, 1 << 20, (1000, 1 << 20));
        check(
            vec![c("100m", "1Mi", false)],
            vec![c("50m", "1Mi", true), c("1", "1Mi", false)],
            1050,
            2 << 20,
            (1050, 2 << 20),
        );
        check(vec![c("", "", false)], vec![], 0, 0, (DEFAULT_MILLI_CPU, DEFAULT_MEMORY));
        check(vec![c("garbage", "1Mi", false)], vec![], 0, 1 << 20, (0, 1 << 20));
    }
}

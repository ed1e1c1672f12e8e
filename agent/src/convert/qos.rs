//! The QoS class of a pod and what it requests in sum.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::quantity::{ResourceList, nanos};
use super::spec;

/// Quality of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QosClass {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl QosClass {
    /// As `status.qosClass` names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// Sums in billionths by resource name.
pub type Sums = BTreeMap<String, i128>;

fn positive<'a>(list: Option<&'a ResourceList>, name: &str) -> Option<&'a Quantity> {
    list?.get(name).filter(|q| nanos(&q.0).is_some_and(|n| n > 0))
}

fn is_guaranteed(resources: &ResourceRequirements) -> bool {
    ["cpu", "memory"].iter().all(|name| {
        let limit = positive(resources.limits.as_ref(), name);
        // The API server defaults requests to limits; a static pod may lack it.
        let request = positive(resources.requests.as_ref(), name).or(limit);
        limit.is_some() && limit.and_then(|q| nanos(&q.0)) == request.and_then(|q| nanos(&q.0))
    })
}

fn asks_nothing(resources: &ResourceRequirements) -> bool {
    ["cpu", "memory"].iter().all(|name| {
        positive(resources.limits.as_ref(), name).is_none() && positive(resources.requests.as_ref(), name).is_none()
    })
}

/// The class of a pod, from its containers (ephemeral ones do not count).
pub fn qos_class(pod: &Pod) -> QosClass {
    let empty = ResourceRequirements::default();
    if let Some(resources) = spec::spec(pod).resources.as_ref().filter(|r| !asks_nothing(r)) {
        return if is_guaranteed(resources) { QosClass::Guaranteed } else { QosClass::Burstable };
    }
    let mut all = spec::containers(pod)
        .iter()
        .chain(spec::init_containers(pod))
        .map(|c| c.resources.as_ref().unwrap_or(&empty))
        .peekable();
    if all.peek().is_none() {
        return QosClass::BestEffort;
    }
    let (mut guaranteed, mut nothing) = (true, true);
    for resources in all {
        guaranteed &= is_guaranteed(resources);
        nothing &= asks_nothing(resources);
    }
    match (nothing, guaranteed) {
        (true, _) => QosClass::BestEffort,
        (false, true) => QosClass::Guaranteed,
        (false, false) => QosClass::Burstable,
    }
}

fn add(sums: &mut Sums, list: &Sums) {
    for (name, amount) in list {
        *sums.entry(name.clone()).or_default() += amount;
    }
}

fn maximum(sums: &mut Sums, list: &Sums) {
    for (name, amount) in list {
        let slot = sums.entry(name.clone()).or_default();
        *slot = (*slot).max(*amount);
    }
}

fn sums_of(list: Option<&ResourceList>) -> Sums {
    list.into_iter().flatten().filter_map(|(name, q)| Some((name.clone(), nanos(&q.0)?))).collect()
}

/// What one container requests; limits stand in for missing requests.
pub fn container_requests(container: &Container) -> Sums {
    let resources = container.resources.as_ref();
    let mut sums = sums_of(resources.and_then(|r| r.limits.as_ref()));
    sums.extend(sums_of(resources.and_then(|r| r.requests.as_ref())));
    sums
}

fn container_limits(container: &Container) -> Sums {
    sums_of(container.resources.as_ref().and_then(|r| r.limits.as_ref()))
}

/// The pod's effective amounts: the sum of main containers and sidecars, at
/// least what any init container needs beside the sidecars before it, and the
/// pod-level amounts and overhead.
fn aggregate(pod: &Pod, of: impl Fn(&Container) -> Sums, pod_level: Option<&ResourceList>) -> Sums {
    let mut total = Sums::new();
    for container in spec::containers(pod) {
        add(&mut total, &of(container));
    }
    let (mut sidecars, mut init) = (Sums::new(), Sums::new());
    for container in spec::init_containers(pod) {
        let own = of(container);
        if spec::is_sidecar(container) {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            maximum(&mut init, &sidecars);
        } else {
            let mut with_sidecars = sidecars.clone();
            add(&mut with_sidecars, &own);
            maximum(&mut init, &with_sidecars);
        }
    }
    maximum(&mut total, &init);
    total.extend(sums_of(pod_level));
    add(&mut total, &sums_of(spec::spec(pod).overhead.as_ref()));
    total
}

/// What the pod requests.
pub fn pod_requests(pod: &Pod) -> Sums {
    let level = spec::spec(pod).resources.as_ref().and_then(|r| r.requests.as_ref());
    aggregate(pod, container_requests, level)
}

/// What the pod is limited to, where limits are given.
pub fn pod_limits(pod: &Pod) -> Sums {
    let level = spec::spec(pod).resources.as_ref().and_then(|r| r.limits.as_ref());
    aggregate(pod, container_limits, level)
}

/// Thousandths of CPU that the burstable ones of some pods request together.
pub fn burstable_milli_cpu<'a>(pods: impl Iterator<Item = &'a Pod>) -> i64 {
    let burstable = pods.filter(|p| qos_class(p) == QosClass::Burstable);
    let nanos: i128 = burstable.filter_map(|p| pod_requests(p).get("cpu").copied()).sum();
    i64::try_from(nanos / 1_000_000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pod(text: &str) -> Pod {
        serde_norway::from_str(&format!("spec:\n{text}")).unwrap()
    }

    #[test]
    fn classes() {
        let cases = [
            ("  containers: [{name: a}]", QosClass::BestEffort),
            ("  containers: [{name: a, resources: {requests: {cpu: 1m}}}]", QosClass::Burstable),
            ("  containers: [{name: a, resources: {limits: {cpu: '1', memory: 1Gi}}}]", QosClass::Guaranteed),
            (
                "  containers: [{name: a, resources: {limits: {cpu: '1', memory: 1Gi}, requests: {cpu: 1000m, memory: 1024Mi}}}]",
                QosClass::Guaranteed,
            ),
            ("  containers: [{name: a, resources: {limits: {cpu: '1', memory: 1Gi}}}, {name: b}]", QosClass::Burstable),
            ("  containers: [{name: a, resources: {limits: {cpu: '0'}}}]", QosClass::BestEffort),
            ("  containers: [{name: a}]\n  resources: {limits: {cpu: 1, memory: 1Gi}}", QosClass::Guaranteed),
        ];
        for (text, class) in cases {
            assert_eq!(qos_class(&pod(text)), class, "{text}");
        }
    }

    #[test]
    fn init_containers_count_beside_the_sidecars_before_them() {
        let pod = pod("  containers: [{name: a, resources: {requests: {cpu: 100m}}}]
  initContainers:
  - {name: s, restartPolicy: Always, resources: {requests: {cpu: 200m}}}
  - {name: i, resources: {requests: {cpu: 500m}}}
  overhead: {cpu: 10m}");
        assert_eq!(pod_requests(&pod)["cpu"], 710_000_000);
    }
}

//! Which pods make room for a critical one. Pure.

use std::cmp::Ordering;

use k8s_openapi::api::core::v1::Pod;

use crate::convert::qos::{QosClass, Sums, pod_requests, qos_class};
use crate::convert::spec;

/// The resource of which every pod takes one.
pub const PODS: &str = "pods";

/// Why a preempted pod failed, and the reason of its event.
pub const PREEMPTING: &str = "Preempting";

/// Whether `pod` may push `other` out.
fn preemptable(pod: &Pod, other: &Pod) -> bool {
    if spec::is_critical(pod) && !spec::is_critical(other) {
        return true;
    }
    let priority = |p: &Pod| spec::spec(p).priority;
    matches!((priority(pod), priority(other)), (Some(mine), Some(theirs)) if mine > theirs)
}

fn request(pod: &Pod, resource: &str) -> i128 {
    if resource == PODS {
        // Sums are in billionths.
        return 1_000_000_000;
    }
    pod_requests(pod).get(resource).copied().unwrap_or(0)
}

/// What is still missing without `pods`.
fn without<'a>(missing: &Sums, pods: impl Iterator<Item = &'a Pod> + Clone) -> Sums {
    let left = missing.iter().map(|(name, amount)| {
        let freed: i128 = pods.clone().map(|p| request(p, name)).sum();
        (name.clone(), amount - freed)
    });
    left.filter(|(_, amount)| *amount > 0).collect()
}

/// How far the pod's requests are from what is missing, each resource alike.
fn distance(missing: &Sums, pod: &Pod) -> f64 {
    let part = |(name, amount): (&String, &i128)| {
        let left = (amount - request(pod, name)).max(0);
        // Precision does not matter for a ratio.
        #[allow(clippy::cast_precision_loss)]
        let ratio = left as f64 / *amount as f64;
        ratio * ratio
    };
    missing.iter().map(part).sum()
}

/// The pods to end so that nothing of `missing` (in billionths) is missing any
/// more: few and small ones, of the best-effort class first and guaranteed ones
/// last. `None` when all together would not be enough.
pub fn victims<'a>(pod: &Pod, others: &[&'a Pod], missing: &Sums) -> Option<Vec<&'a Pod>> {
    let of = |class| -> Vec<&'a Pod> {
        others.iter().copied().filter(|o| preemptable(pod, o) && qos_class(o) == class).collect()
    };
    let (best_effort, burstable, guaranteed) =
        (of(QosClass::BestEffort), of(QosClass::Burstable), of(QosClass::Guaranteed));
    let weaker = best_effort.iter().chain(&burstable).copied();
    let guaranteed = nearest(guaranteed, without(missing, weaker))?;
    let beside = best_effort.iter().chain(&guaranteed).copied();
    let burstable = nearest(burstable, without(missing, beside))?;
    let stronger = burstable.iter().chain(&guaranteed).copied();
    let best_effort = nearest(best_effort, without(missing, stronger))?;
    Some([best_effort, burstable, guaranteed].concat())
}

/// Takes pods, the one nearest to what is missing first, until nothing is.
fn nearest(mut pods: Vec<&Pod>, mut missing: Sums) -> Option<Vec<&Pod>> {
    let mut out = Vec::new();
    while !missing.is_empty() {
        let by_need = |a: &&Pod, b: &&Pod| {
            let size = |p: &Pod| (request(p, "memory"), request(p, "cpu"));
            let distances = distance(&missing, a).partial_cmp(&distance(&missing, b));
            distances.unwrap_or(Ordering::Equal).then_with(|| size(a).cmp(&size(b)))
        };
        let index = (0..pods.len()).min_by(|a, b| by_need(&pods[*a], &pods[*b]))?;
        let chosen = pods.swap_remove(index);
        missing = without(&missing, std::iter::once(chosen));
        out.push(chosen);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pod(name: &str, priority: i32, resources: &str) -> Pod {
        let text = format!(
            "metadata: {{name: {name}}}\nspec: {{priority: {priority}, containers: [{{name: a, resources: {resources}}}]}}"
        );
        serde_norway::from_str(&text).unwrap()
    }

    #[test]
    fn few_small_and_weak_pods_go() {
        let all = [
            pod("best-effort", 0, "{}"),
            pod("burst-1", 0, "{requests: {cpu: 100m, memory: 100Mi}}"),
            pod("burst-3", 0, "{requests: {cpu: 300m, memory: 300Mi}}"),
            pod("guaranteed", 0, "{limits: {cpu: 400m, memory: 400Mi}}"),
            pod("critical", 2_000_000_000, "{limits: {cpu: 8, memory: 8Gi}}"),
        ];
        let others: Vec<&Pod> = all.iter().collect();
        let me = pod("me", 2_000_000_001, "{}");
        let names = |missing: &[(&str, i128)]| {
            let missing = missing.iter().map(|(n, a)| ((*n).to_owned(), a * 1_000_000)).collect();
            let of_equals = pod("me", 2_000_000_000, "{}");
            let found = victims(&of_equals, &others, &missing);
            found.map(|l| l.iter().map(|p| p.metadata.name.clone().unwrap()).collect::<Vec<_>>().join(" "))
        };
        let cpu = |milli| names(&[("cpu", milli)]);
        assert_eq!(names(&[]).as_deref(), Some(""));
        assert_eq!(names(&[("pods", 1000)]).as_deref(), Some("best-effort"));
        assert_eq!(names(&[("pods", 2000)]).as_deref(), Some("best-effort burst-1"));
        assert_eq!(cpu(50).as_deref(), Some("burst-1"));
        assert_eq!(cpu(200).as_deref(), Some("burst-3"));
        assert_eq!(cpu(400).as_deref(), Some("burst-3 burst-1"));
        assert_eq!(cpu(401).as_deref(), Some("burst-1 guaranteed"));
        assert_eq!(cpu(800).as_deref(), Some("burst-3 burst-1 guaranteed"));
        assert_eq!(cpu(801), None, "critical pods stay");
        // A higher priority pushes out a lower one, critical as it may be.
        let missing = [("cpu".to_owned(), 801_000_000)].into();
        assert_eq!(victims(&me, &others, &missing).unwrap().last().unwrap().metadata.name.as_deref(), Some("critical"));
        let nobody = pod("nobody", 0, "{}");
        assert!(victims(&nobody, &others, &[("cpu".to_owned(), 1)].into()).is_none());
    }
}

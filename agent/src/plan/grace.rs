//! How long a container has to stop, and in which order containers stop.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::pod_actions::KillReason;
use crate::convert::spec;

/// What a container gets at least, so that a SIGTERM means something.
pub const MINIMUM: Duration = Duration::from_secs(2);
/// The least that anybody can give a pod.
pub const LEAST: Duration = Duration::from_secs(1);

fn seconds(value: i64) -> Duration {
    Duration::from_secs(u64::try_from(value).unwrap_or(0))
}

/// What a pod that ends is given as a whole: the least of what it was `given` before, what its deletion says and what
/// the node `asks` for; what the pod wants for itself where nobody said anything. So it only ever shrinks
/// (pkg/kubelet/pod_workers.go: `calculateEffectiveGracePeriod`).
pub fn effective(given: Option<Duration>, pod: &Pod, asked: Option<Duration>) -> Duration {
    let deletion = pod.metadata.deletion_grace_period_seconds.map(seconds);
    let least = [given, deletion, asked].into_iter().flatten().min();
    least.unwrap_or_else(|| seconds(spec::grace_seconds(pod))).max(LEAST)
}

/// The grace period of one container that is killed while its pod goes on, preStop included.
pub fn grace_period(pod: &Pod, container: Option<&Container>, reason: KillReason) -> Duration {
    if let Some(deletion) = pod.metadata.deletion_grace_period_seconds {
        return seconds(deletion);
    }
    let probe = container.and_then(|c| match reason {
        KillReason::LivenessProbe => c.liveness_probe.as_ref(),
        KillReason::StartupProbe => c.startup_probe.as_ref(),
        _ => None,
    });
    if let Some(own) = probe.and_then(|p| p.termination_grace_period_seconds) {
        return seconds(own);
    }
    seconds(spec::grace_seconds(pod))
}

/// What is left of `total` for the stop signal after preStop took `used`. What a whole pod was given may be less than
/// the minimum, what a single container asks for may not.
pub fn remaining(total: Duration, used: Duration, whole_pod: bool) -> Duration {
    let least = if whole_pod { MINIMUM.min(total) } else { MINIMUM };
    total.saturating_sub(used).max(least)
}

/// Containers of the pod in the order they stop: all main and unknown ones
/// together first, then sidecars from the last to the first.
pub fn stop_order<'a>(pod: &Pod, running: impl Iterator<Item = &'a str>) -> Vec<Vec<&'a str>> {
    let sidecars: Vec<&str> =
        spec::init_containers(pod).iter().filter(|c| spec::is_sidecar(c)).map(|c| c.name.as_str()).collect();
    let (mut first, mut later) = (Vec::new(), Vec::new());
    for name in running {
        match sidecars.iter().position(|s| *s == name) {
            Some(index) => later.push((index, name)),
            None => first.push(name),
        }
    }
    later.sort_unstable();
    let groups = std::iter::once(first).chain(later.into_iter().rev().map(|(_, n)| vec![n]));
    groups.filter(|g| !g.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn periods() {
        let pod: Pod = serde_norway::from_str(
            "spec: {terminationGracePeriodSeconds: 7, containers: [{name: a, livenessProbe: {terminationGracePeriodSeconds: 3}}]}",
        )
        .unwrap();
        let c = &spec::containers(&pod)[0];
        assert_eq!(grace_period(&pod, Some(c), KillReason::PodEnds).as_secs(), 7);
        assert_eq!(grace_period(&pod, Some(c), KillReason::LivenessProbe).as_secs(), 3);
        let mut deleted = pod.clone();
        deleted.metadata.deletion_grace_period_seconds = Some(1);
        assert_eq!(grace_period(&deleted, Some(c), KillReason::LivenessProbe).as_secs(), 1);
        deleted.metadata.deletion_grace_period_seconds = Some(-1);
        assert_eq!(grace_period(&deleted, None, KillReason::PodEnds).as_secs(), 0);
        let s = Duration::from_secs;
        let left = [(10, 3, false), (1, 3, false), (1, 0, true), (7, 7, true), (30, 10, true)];
        let left = left.map(|(total, used, whole_pod)| remaining(s(total), s(used), whole_pod));
        assert_eq!(left, [s(7), s(2), s(1), s(2), s(20)]);
    }

    #[test]
    fn what_a_pod_is_given_only_shrinks() {
        let check = |given: Option<u64>, deletion: Option<i64>, asked: Option<u64>, wants: i64, expect: u64| {
            let mut pod = crate::testutil::pod("  containers: [{name: a}]");
            pod.spec.as_mut().unwrap().termination_grace_period_seconds = Some(wants);
            pod.metadata.deletion_grace_period_seconds = deletion;
            let s = |seconds: u64| Duration::from_secs(seconds);
            let found = effective(given.map(s), &pod, asked.map(s));
            assert_eq!(found.as_secs(), expect, "{given:?} {deletion:?} {asked:?} {wants}");
        };
        check(None, None, None, 30, 30);
        check(None, Some(60), None, 30, 60);
        check(None, Some(60), Some(7), 30, 7);
        check(None, None, Some(60), 30, 60);
        check(Some(20), None, None, 30, 20);
        check(Some(20), Some(30), None, 30, 20);
        check(Some(20), Some(10), Some(15), 30, 10);
        check(Some(20), Some(30), Some(1), 30, 1);
        // Never less than a second, whatever is asked for.
        check(None, None, None, 0, 1);
        check(None, Some(0), None, 30, 1);
        check(None, Some(-5), None, 30, 1);
        check(Some(20), None, Some(0), 30, 1);
    }

    #[test]
    fn sidecars_stop_last_in_reverse() {
        let pod: Pod = serde_norway::from_str(
            "spec: {containers: [{name: a}, {name: b}], initContainers: [{name: s1, restartPolicy: Always}, {name: i}, {name: s2, restartPolicy: Always}]}",
        )
        .unwrap();
        let order = stop_order(&pod, ["s1", "a", "s2", "b"].into_iter());
        assert_eq!(order, [vec!["a", "b"], vec!["s2"], vec!["s1"]]);
        assert!(stop_order(&pod, std::iter::empty()).is_empty());
    }
}

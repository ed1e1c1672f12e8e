//! How long a container has to stop, and in which order containers stop.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::pod_actions::KillReason;
use crate::convert::spec;

/// What a container gets at least, so that a SIGTERM means something.
pub const MINIMUM: Duration = Duration::from_secs(2);

fn seconds(value: i64) -> Duration {
    Duration::from_secs(u64::try_from(value).unwrap_or(0))
}

/// The grace period of one container, preStop included.
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

/// What is left for the stop signal after preStop took `used`; an override (as
/// of an eviction or a forced deletion) is taken literally.
pub fn remaining(total: Duration, used: Duration, literal: bool) -> Duration {
    let left = total.saturating_sub(used);
    if literal { left } else { left.max(MINIMUM) }
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
        assert_eq!(
            [remaining(s(10), s(3), false), remaining(s(1), s(3), false), remaining(s(1), s(0), true)],
            [s(7), s(2), s(1)]
        );
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

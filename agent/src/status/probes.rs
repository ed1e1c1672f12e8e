//! Probe results in a status that was reported already: what a result changes
//! shows at once, whatever the pod's worker is busy with. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodStatus};

use super::conditions;
use crate::contract::{ProbeOutcome, ProbeView};
use crate::convert::spec;
use cri::ContainerId;

/// Whether a running container has started and whether it is ready, by its
/// probes; one that its spec lacks counts as passed.
pub fn started_and_ready(container: &Container, id: &ContainerId, probes: &ProbeView) -> (bool, bool) {
    let results = probes.get(id);
    let started = container.startup_probe.is_none() || results.startup == ProbeOutcome::Success;
    (started, started && (container.readiness_probe.is_none() || results.readiness == ProbeOutcome::Success))
}

/// The status with the newest results of the containers it shows as running, and
/// the conditions that follow from them; `None` when nothing changes.
pub fn with_probes(pod: &Pod, status: &PodStatus, probes: &ProbeView, now: Timestamp) -> Option<PodStatus> {
    let mut new = status.clone();
    let sidecars = spec::init_containers(pod).iter().filter(|c| spec::is_sidecar(c));
    let changed = [
        refresh(sidecars, new.init_container_statuses.as_deref_mut(), probes),
        refresh(spec::containers(pod).iter(), new.container_statuses.as_deref_mut(), probes),
    ];
    if changed == [false; 2] {
        return None;
    }
    let list = |l: &Option<Vec<ContainerStatus>>| l.clone().unwrap_or_default();
    let (init, main) = (list(&new.init_container_statuses), list(&new.container_statuses));
    let phase = new.phase.as_deref().unwrap_or_default();
    let old = status.conditions.as_deref().unwrap_or_default();
    let foreign = pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let containers = conditions::containers_ready(pod, &init, &main, phase);
    let ready = conditions::ready(pod, &containers, foreign);
    for (kind, verdict) in [(conditions::CONTAINERS_READY, &containers), (conditions::READY, &ready)] {
        let condition = conditions::stamp(kind, verdict, pod, old, now);
        let slot = new.conditions.iter_mut().flatten().find(|c| c.type_ == kind);
        match slot {
            Some(slot) => *slot = condition,
            None => new.conditions.get_or_insert_default().push(condition),
        }
    }
    Some(new)
}

fn refresh<'a>(
    containers: impl Iterator<Item = &'a Container>,
    statuses: Option<&mut [ContainerStatus]>,
    probes: &ProbeView,
) -> bool {
    let Some(statuses) = statuses else { return false };
    let mut changed = false;
    for container in containers {
        let Some(status) = statuses.iter_mut().find(|s| s.name == container.name) else { continue };
        if status.state.as_ref().is_none_or(|s| s.running.is_none()) {
            continue;
        }
        let Some(id) = status.container_id.as_deref().and_then(|uri| uri.split_once("://")) else { continue };
        let (started, ready) = started_and_ready(container, &ContainerId::new(id.1), probes);
        changed |= status.started != Some(started) || status.ready != ready;
        (status.started, status.ready) = (Some(started), ready);
    }
    changed
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::contract::ContainerProbes;

    const POD: &str = "spec: {containers: [{name: a, readinessProbe: {}}, {name: b}]}";
    const STATUS: &str = "{phase: Running, conditions: [{type: Ready, status: 'True'}, {type: x, status: 'True'}], \
        containerStatuses: [\
        {name: a, image: i, imageID: '', restartCount: 0, ready: true, started: true, containerID: 'c://1', state: {running: {}}},\
        {name: b, image: i, imageID: '', restartCount: 0, ready: true, started: true, containerID: 'c://2', state: {running: {}}}]}";

    #[test]
    fn a_lost_readiness_changes_the_container_and_what_follows_from_it() {
        let pod: Pod = serde_norway::from_str(POD).unwrap();
        let status: PodStatus = serde_norway::from_str(STATUS).unwrap();
        let view = |readiness| {
            let results = ContainerProbes { readiness, ..ContainerProbes::default() };
            ProbeView { containers: [(ContainerId::new("1"), results)].into() }
        };
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(with_probes(&pod, &status, &view(ProbeOutcome::Success), now), None);
        let new = with_probes(&pod, &status, &view(ProbeOutcome::Failure), now).unwrap();
        let ready: Vec<bool> = new.container_statuses.iter().flatten().map(|c| c.ready).collect();
        assert_eq!(ready, [false, true]);
        let of = |kind: &str| new.conditions.iter().flatten().find(|c| c.type_ == kind).unwrap().clone();
        assert_eq!((of("Ready").status.as_str(), of("ContainersReady").status.as_str()), ("False", "False"));
        assert_eq!(of("Ready").message.as_deref(), Some("containers with unready status: [a]"));
        assert_eq!(of("x").status, "True");
    }

    #[test]
    fn results_of_another_instance_or_of_an_ended_one_change_nothing() {
        let pod: Pod = serde_norway::from_str(POD).unwrap();
        let mut status: PodStatus = serde_norway::from_str(STATUS).unwrap();
        let a = &mut status.container_statuses.as_mut().unwrap()[0];
        (a.ready, a.started, a.state) = (false, Some(false), None);
        let results = ContainerProbes { readiness: ProbeOutcome::Success, ..ContainerProbes::default() };
        let view = ProbeView { containers: [(ContainerId::new("1"), results)].into() };
        assert_eq!(with_probes(&pod, &status, &view, Timestamp::UNIX_EPOCH), None);
    }
}

//! Which of the containers that are to start may start now, under which number,
//! and why the others wait. Pure.

use std::time::Duration;

use cri::types::ContainerState;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::Facts;
use crate::clock::go_duration;
use crate::convert::spec::ContainerKind;
use crate::convert::{container, spec};
use crate::plan::effect::{ContainerStart, PodEvent, WaitReason};
use crate::plan::memory::{Memory, after};
use crate::plan::pod_actions::{PodActions, StartContainer};

/// What may start, and what waits.
#[derive(Debug, Default)]
pub(super) struct Starts {
    pub ready: Vec<ContainerStart>,
    /// When the first of those that wait may start.
    pub soonest: Option<Timestamp>,
    pub waiting: Vec<(String, WaitReason)>,
    pub events: Vec<PodEvent>,
}

/// Sorts what `actions` wants started by whether it has to wait.
pub(super) fn starts(actions: &PodActions, facts: &Facts<'_>, memory: &Memory, now: Timestamp) -> Starts {
    let mut out = Starts::default();
    for wanted in actions.start_ephemeral.iter().chain(&actions.start_init).chain(&actions.start) {
        match held_back(wanted, facts, memory, now, &mut out) {
            None => out.ready.extend(container_start(wanted, facts, memory, now)),
            Some(until) => out.soonest = Some(out.soonest.map_or(until, |s| s.min(until))),
        }
    }
    out
}

/// Whether each of these has to wait for the one before it, as upstream starts
/// all of them: init containers, and neighbours of a postStart hook. Others
/// start at once, which looks the same from outside.
pub(super) fn in_order(pod: &Pod, starts: &[ContainerStart]) -> bool {
    starts.iter().any(|start| {
        start.kind == ContainerKind::Init
            || container::find(pod, &start.name)
                .is_some_and(|(_, c)| c.lifecycle.as_ref().is_some_and(|l| l.post_start.is_some()))
    })
}

/// Until when a container has to wait before it may start (again).
fn held_back(
    wanted: &StartContainer,
    facts: &Facts<'_>,
    memory: &Memory,
    now: Timestamp,
    out: &mut Starts,
) -> Option<Timestamp> {
    let tries = memory.tries.get(&wanted.name);
    if let Some(at) = tries.and_then(|t| t.not_before).filter(|at| *at > now) {
        return Some(at);
    }
    let (hash, ended) = last_end(&wanted.name, facts, now)?;
    let key = (wanted.name.clone(), hash);
    let ended = ended.or_else(|| memory.crashes.updated(&key))?;
    let left = memory.crashes.remaining(&key, ended, now)?;
    note_crash_loop(wanted, memory.crashes.current(&key), facts, memory, out);
    Some(after(now, left))
}

/// A crash loop is announced once, in upstream's words (`doBackOff`).
fn note_crash_loop(wanted: &StartContainer, whole: Duration, facts: &Facts<'_>, memory: &Memory, out: &mut Starts) {
    let text = |s: &Option<String>| s.clone().unwrap_or_default();
    let meta = &facts.pod.metadata;
    let pod = format!("{}_{}({})", text(&meta.name), text(&meta.namespace), text(&meta.uid));
    let message = format!("back-off {} restarting failed container={} pod={pod}", go_duration(whole), wanted.name);
    let reason = WaitReason { reason: "CrashLoopBackOff".to_owned(), message };
    if memory.waiting.get(&wanted.name) == Some(&reason) {
        return;
    }
    out.waiting.push((wanted.name.clone(), reason));
    out.events.push(PodEvent {
        container: Some(wanted.name.clone()),
        warning: true,
        reason: "BackOff".to_owned(),
        message: format!("Back-off restarting failed container {} in pod {pod}", wanted.name),
    });
}

/// The hash of a container's spec and when its last instance ended. Where the machine's clock was set back since, it
/// is not known when.
fn last_end(name: &str, facts: &Facts<'_>, now: Timestamp) -> Option<(u64, Option<Timestamp>)> {
    let ended = facts.runtime.containers_named(name).find(|c| c.status.state == ContainerState::Exited)?;
    let (_, found) = container::find(facts.pod, name)?;
    let at = ended.status.finished_at.unwrap_or(Timestamp::MIN);
    let at = (at <= facts.wall).then(|| facts.by_steady_clock(at, now));
    Some((spec::container_hash(&found), at))
}

fn container_start(
    wanted: &StartContainer,
    facts: &Facts<'_>,
    memory: &Memory,
    now: Timestamp,
) -> Option<ContainerStart> {
    let (_, found) = container::find(facts.pod, &wanted.name)?;
    let image = found.image.unwrap_or_default();
    let newest = facts.runtime.container(&wanted.name);
    let leftover = newest.filter(|c| c.status.state == ContainerState::Created);
    let restart_count = match (leftover, newest) {
        (Some(left), _) => left.restart_count,
        (None, Some(before)) => before.restart_count.saturating_add(1),
        (None, None) => remembered_restarts(&wanted.name, facts),
    };
    let free = memory.tries.get(&wanted.name).map_or(0, |t| t.free_attempt);
    let others = facts.runtime.containers_named(&wanted.name).filter(|c| leftover.is_none_or(|l| l.id() != c.id()));
    // Whatever is newest has the greatest attempt of its name.
    let after_others = others.map(|c| c.status.metadata.attempt.saturating_add(1)).max().unwrap_or(0);
    Some(ContainerStart {
        kind: wanted.kind,
        name: wanted.name.clone(),
        restart_count,
        attempt: restart_count.max(free).max(after_others),
        leftover: leftover.map(|c| c.id().clone()),
        ended: last_end(&wanted.name, facts, now).map(|(hash, at)| (hash, at.unwrap_or(now))),
        pull_back_off: memory.pulls.waits_for(&image, now),
        image,
    })
}

/// The restart count of a container the runtime forgot.
fn remembered_restarts(name: &str, facts: &Facts<'_>) -> u32 {
    let lists = facts.status.map(|s| [&s.container_statuses, &s.init_container_statuses]);
    let found = lists.into_iter().flatten().flat_map(|l| l.iter().flatten()).find(|c| c.name == name);
    found.map_or(0, |c| u32::try_from(c.restart_count).unwrap_or(0))
}

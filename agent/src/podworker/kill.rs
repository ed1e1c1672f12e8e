//! Stopping containers with grace, hooks and order, and sandboxes after them.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use cri::{ContainerId, CriError};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::watch;
use tokio::time::Instant;

use super::deps::Deps;
use super::lifecycle;
use crate::convert::{container, spec};
use crate::events::EventType;
use crate::plan::KillReason;
use crate::plan::grace;
use crate::podcache::{RuntimeContainer, RuntimePod};

/// Containers whose preStop hook has come to its end: it does not run again when
/// a kill is repeated. One that was interrupted runs anew, as upstream's does.
#[derive(Debug, Default)]
pub struct HooksRun(Mutex<HashSet<ContainerId>>);

impl HooksRun {
    fn with<T>(&self, f: impl FnOnce(&mut HashSet<ContainerId>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn ended(&self, id: &ContainerId) -> bool {
        self.with(|ids| ids.contains(id))
    }

    fn end(&self, id: &ContainerId) {
        self.with(|ids| ids.insert(id.clone()));
    }
}

/// How long a container gets to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance {
    /// As long as it asks for.
    Own,
    /// This, whatever it asks for.
    Exactly(Duration),
}

/// A kill of one container.
#[derive(Clone, Copy, Debug)]
pub struct Kill<'a> {
    pub target: &'a RuntimeContainer,
    pub reason: KillReason,
    /// The text of the `Killing` event.
    pub message: &'a str,
    pub allowance: Allowance,
    /// The containers that have to stop before this one, if any.
    turn: Option<(&'a Turns, usize)>,
}

impl<'a> Kill<'a> {
    /// A kill that waits for no other container.
    pub fn new(target: &'a RuntimeContainer, reason: KillReason, message: &'a str, allowance: Allowance) -> Self {
        Self { target, reason, message, allowance, turn: None }
    }
}

/// Whose turn it is to get the stop signal: groups of containers, one after the other.
#[derive(Debug)]
struct Turns {
    /// Containers of each group that have not stopped yet.
    left: watch::Sender<Vec<usize>>,
}

impl Turns {
    fn new(groups: &[Vec<&str>]) -> Self {
        Self { left: watch::Sender::new(groups.iter().map(Vec::len).collect()) }
    }

    /// Waits until every earlier group has stopped, at most for `limit`.
    async fn wait(&self, group: usize, limit: Duration) {
        let mut left = self.left.subscribe();
        let earlier = left.wait_for(|left| left[..group].iter().all(|n| *n == 0));
        // Out of time it is signalled all the same, so that it is not killed outright.
        let _ = tokio::time::timeout(limit, earlier).await;
    }

    fn stopped(&self, group: usize) {
        self.left.send_modify(|left| left[group] = left[group].saturating_sub(1));
    }
}

/// Kills one container: preStop, its turn, stop signal, then SIGKILL.
pub async fn kill_container(deps: &Deps, pod: &Pod, kill: Kill<'_>, hooks: &HooksRun) -> Result<(), CriError> {
    let target = kill.target;
    let found = container::find(pod, target.name()).map(|(_, c)| c);
    let total = match kill.allowance {
        Allowance::Own => grace::grace_period(pod, found.as_ref(), kill.reason),
        Allowance::Exactly(given) => given,
    };
    deps.events.container(pod, target.name(), EventType::Normal, "Killing", kill.message);
    let began = Instant::now();
    if let Some(spec) = &found
        && !total.is_zero()
        && target.is_running()
    {
        pre_stop(deps, pod, spec, target.id(), total, hooks).await;
    }
    if let Some((turns, group)) = kill.turn {
        turns.wait(group, total.saturating_sub(began.elapsed())).await;
    }
    // A forced deletion (grace 0) and an eviction are upstream's literal overrides.
    let forced =
        pod.metadata.deletion_grace_period_seconds == Some(0) || matches!(kill.allowance, Allowance::Exactly(_));
    let left = grace::remaining(total, began.elapsed(), forced);
    match deps.runtime.stop_container(target.id(), left).await {
        Err(error) if !error.is_not_found() => return Err(error),
        _ => {}
    }
    if let Some((turns, group)) = kill.turn {
        turns.stopped(group);
    }
    Ok(())
}

async fn pre_stop(deps: &Deps, pod: &Pod, spec: &Container, id: &ContainerId, limit: Duration, hooks: &HooksRun) {
    let Some(hook) = spec.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref()) else { return };
    if hooks.ended(id) {
        return;
    }
    let host = pod_host(deps, pod);
    let result = lifecycle::run(deps.runtime.as_ref(), hook, spec, id, &host, limit).await;
    hooks.end(id);
    if let Err(error) = result {
        // What the hook printed may be a secret: it stays out of the event.
        tracing::info!(pod.uid = ?pod.metadata.uid, container = spec.name, %error, "preStop hook failed");
        deps.events.container(pod, &spec.name, EventType::Warning, "FailedPreStopHook", "PreStopHook failed");
    }
}

/// The address hooks of the pod go to.
pub fn pod_host(deps: &Deps, pod: &Pod) -> String {
    let own = deps.cache.get(&crate::ids::PodUid::of(pod)).and_then(|r| r.ips().first().cloned());
    if spec::host_network(pod) || own.is_none() {
        return deps.node.borrow().host_ips.first().cloned().unwrap_or_else(|| "127.0.0.1".to_owned());
    }
    own.unwrap_or_default()
}

/// Kills every running container of the pod: all preStop hooks at once, then the
/// stop signals, to main containers together and to sidecars in reverse order
/// after them; all within the grace period of the pod, or within what the node
/// gives them. Goes on past errors.
pub async fn kill_containers(
    deps: &Deps,
    pod: &Pod,
    runtime: &RuntimePod,
    given: Option<Duration>,
    hooks: &HooksRun,
) -> Vec<CriError> {
    let alive: Vec<&RuntimeContainer> = runtime
        .containers
        .iter()
        .filter(|c| matches!(c.status.state, cri::types::ContainerState::Running | cri::types::ContainerState::Unknown))
        .collect();
    let groups = grace::stop_order(pod, alive.iter().map(|c| c.name()));
    let turns = Turns::new(&groups);
    let allowance = given.map_or(Allowance::Own, Allowance::Exactly);
    let kills = alive.iter().map(|target| {
        let message = format!("Stopping container {}", target.name());
        let group = groups.iter().position(|g| g.contains(&target.name())).unwrap_or(0);
        let turns = &turns;
        async move {
            let kill =
                Kill { turn: Some((turns, group)), ..Kill::new(target, KillReason::PodEnds, &message, allowance) };
            kill_container(deps, pod, kill, hooks).await
        }
    });
    join_all(kills).await.into_iter().filter_map(Result::err).collect()
}

/// Stops every sandbox of the pod, going on past errors.
pub async fn stop_sandboxes(deps: &Deps, runtime: &RuntimePod) -> Vec<CriError> {
    let stops = runtime.sandboxes.iter().map(|s| deps.runtime.stop_pod_sandbox(&s.summary.id));
    join_all(stops).await.into_iter().filter_map(Result::err).filter(|e| !e.is_not_found()).collect()
}

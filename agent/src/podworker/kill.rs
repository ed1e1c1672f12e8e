//! Stopping containers with grace, hooks and order, and sandboxes after them.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use cri::{ContainerId, CriError};
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;

use super::deps::Deps;
use super::lifecycle;
use crate::convert::{container, spec};
use crate::events::EventType;
use crate::plan::KillReason;
use crate::plan::grace;
use crate::podcache::{RuntimeContainer, RuntimePod};

/// Containers whose preStop hook has run (or begun): never twice, also when a
/// kill is repeated with less grace.
#[derive(Debug, Default)]
pub struct HooksRun(Mutex<HashSet<ContainerId>>);

impl HooksRun {
    fn begin(&self, id: &ContainerId) -> bool {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(id.clone())
    }
}

/// How long a container gets to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance {
    /// As long as it asks for.
    Own,
    /// Its own time, but no more than this.
    AtMost(Duration),
    /// This, whatever it asks for.
    Exactly(Duration),
}

/// Kills one container: preStop, stop signal, then SIGKILL.
pub async fn kill_container(
    deps: &Deps,
    pod: &Pod,
    running: &RuntimeContainer,
    reason: KillReason,
    message: &str,
    allowance: Allowance,
    hooks: &HooksRun,
) -> Result<(), CriError> {
    let found = container::find(pod, running.name()).map(|(_, c)| c);
    let own = grace::grace_period(pod, found.as_ref(), reason);
    let total = match allowance {
        Allowance::Own => own,
        Allowance::AtMost(limit) => own.min(limit),
        Allowance::Exactly(given) => given,
    };
    deps.events.container(pod, running.name(), EventType::Normal, "Killing", message);
    let began = Instant::now();
    let hook = found.as_ref().and_then(|c| c.lifecycle.as_ref()).and_then(|l| l.pre_stop.as_ref());
    if let (Some(hook), Some(spec)) = (hook, &found)
        && !total.is_zero()
        && running.is_running()
        && hooks.begin(running.id())
    {
        let host = pod_host(deps, pod);
        let result = lifecycle::run(deps.runtime.as_ref(), hook, spec, running.id(), &host, total).await;
        if let Err(error) = result {
            let text = format!("PreStopHook failed: {error}");
            deps.events.container(pod, running.name(), EventType::Warning, "FailedPreStopHook", text);
        }
    }
    // A forced deletion (grace 0) and an eviction are upstream's literal overrides.
    let forced = pod.metadata.deletion_grace_period_seconds == Some(0) || matches!(allowance, Allowance::Exactly(_));
    let left = grace::remaining(total, began.elapsed(), forced);
    match deps.runtime.stop_container(running.id(), left).await {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
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

/// Kills every running container of the pod: main ones together, then sidecars
/// in reverse order, all within one grace period, or within what the node gives
/// them. Goes on past errors.
pub async fn kill_containers(
    deps: &Deps,
    pod: &Pod,
    runtime: &RuntimePod,
    given: Option<Duration>,
    hooks: &HooksRun,
) -> Vec<CriError> {
    let began = Instant::now();
    let grace = given.unwrap_or_else(|| grace::grace_period(pod, None, KillReason::PodEnds));
    let alive: Vec<&RuntimeContainer> = runtime
        .containers
        .iter()
        .filter(|c| matches!(c.status.state, cri::types::ContainerState::Running | cri::types::ContainerState::Unknown))
        .collect();
    let mut errors = Vec::new();
    for group in grace::stop_order(pod, alive.iter().map(|c| c.name())) {
        let left = grace.saturating_sub(began.elapsed());
        let allowance = if given.is_some() { Allowance::Exactly(left) } else { Allowance::AtMost(left) };
        let stops = alive.iter().filter(|c| group.contains(&c.name())).map(|c| {
            let message = format!("Stopping container {}", c.name());
            async move { kill_container(deps, pod, c, KillReason::PodEnds, &message, allowance, hooks).await }
        });
        errors.extend(join_all(stops).await.into_iter().filter_map(Result::err));
    }
    errors
}

/// Stops every sandbox of the pod, going on past errors.
pub async fn stop_sandboxes(deps: &Deps, runtime: &RuntimePod) -> Vec<CriError> {
    let stops = runtime.sandboxes.iter().map(|s| deps.runtime.stop_pod_sandbox(&s.summary.id));
    join_all(stops).await.into_iter().filter_map(Result::err).filter(|e| !e.is_not_found()).collect()
}

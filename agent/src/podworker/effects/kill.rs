//! Stopping containers with grace, hooks and order, and sandboxes after them.

use std::time::Duration;

use cri::types::ContainerState;
use cri::{ContainerId, CriError};
use futures::future::join_all;
use k8s_openapi::api::core::v1::Container;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{EffectContext, lifecycle};
use crate::convert::{container, spec};
use crate::events::EventType;
use crate::plan::KillReason;
use crate::plan::effect::Outcome;
use crate::plan::grace;
use crate::podcache::RuntimeContainer;

/// A kill of one container.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kill<'a> {
    target: &'a RuntimeContainer,
    reason: KillReason,
    /// The text of the `Killing` event.
    message: &'a str,
    /// What the whole pod gets to end, whatever the container asks for.
    pod_grace: Option<Duration>,
    /// The containers that have to stop before this one, if any.
    ordering: Option<(&'a TerminationOrdering, usize)>,
}

impl<'a> Kill<'a> {
    /// A kill that waits for no other container and gives it what it asks for.
    pub(super) fn new(target: &'a RuntimeContainer, reason: KillReason, message: &'a str) -> Self {
        Self { target, reason, message, pod_grace: None, ordering: None }
    }
}

/// Which containers get the stop signal when: groups, one after the other
/// (pkg/kubelet/kuberuntime/kuberuntime_termination_order.go).
#[derive(Debug)]
struct TerminationOrdering {
    /// Containers of each group that have not stopped yet.
    left: watch::Sender<Vec<usize>>,
}

impl TerminationOrdering {
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

/// Kills one container: preStop, its place in the order, stop signal, then SIGKILL.
pub(super) async fn kill_container(ctx: &EffectContext, kill: Kill<'_>) -> Result<(), CriError> {
    let (pod, target) = (&ctx.pod, kill.target);
    let found = container::find(pod, target.name()).map(|(_, c)| c);
    let total = kill.pod_grace.unwrap_or_else(|| grace::grace_period(pod, found.as_ref(), kill.reason));
    ctx.deps.events.container(pod, target.name(), EventType::Normal, "Killing", kill.message);
    let began = Instant::now();
    if let Some(spec) = &found
        && !total.is_zero()
        && target.is_running()
    {
        pre_stop(ctx, spec, target.id(), total).await;
    }
    if let Some((ordering, group)) = kill.ordering {
        ordering.wait(group, total.saturating_sub(began.elapsed())).await;
    }
    let left = grace::remaining(total, began.elapsed(), kill.pod_grace.is_some());
    match ctx.deps.runtime.stop_container(target.id(), left).await {
        Err(error) if !error.is_not_found() => return Err(error),
        _ => {}
    }
    if let Some((ordering, group)) = kill.ordering {
        ordering.stopped(group);
    }
    Ok(())
}

async fn pre_stop(ctx: &EffectContext, spec: &Container, id: &ContainerId, limit: Duration) {
    let Some(hook) = spec.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref()) else { return };
    if ctx.hooks_ended.contains(id) {
        return;
    }
    let host = hook_host(ctx, ctx.runtime.ips());
    let result = lifecycle::run(ctx.deps.runtime.as_ref(), hook, spec, id, &host, limit).await;
    ctx.journal.outcome(Outcome::HookEnded(id.clone()));
    if let Err(error) = result {
        // What the hook printed may be a secret: it stays out of the event.
        tracing::info!(pod.uid = %ctx.uid, container = spec.name, %error, "preStop hook failed");
        ctx.deps.events.container(&ctx.pod, &spec.name, EventType::Warning, "FailedPreStopHook", "PreStopHook failed");
    }
}

/// The address hooks of the pod go to.
pub(super) fn hook_host(ctx: &EffectContext, pod_ips: &[String]) -> String {
    match pod_ips.first() {
        Some(own) if !spec::host_network(&ctx.pod) => own.clone(),
        _ => ctx.deps.node.borrow().host_ips.first().cloned().unwrap_or_else(|| "127.0.0.1".to_owned()),
    }
}

/// Kills every running container of the pod: all preStop hooks at once, then the
/// stop signals, to main containers together and to sidecars in reverse order
/// after them; all within what the pod is given, where it ends. Goes on past errors.
pub(super) async fn kill_containers(ctx: &EffectContext, pod_grace: Option<Duration>) -> Vec<CriError> {
    let alive: Vec<&RuntimeContainer> = ctx
        .runtime
        .containers
        .iter()
        .filter(|c| matches!(c.status.state, ContainerState::Running | ContainerState::Unknown))
        .collect();
    let groups = grace::stop_order(&ctx.pod, alive.iter().map(|c| c.name()));
    let ordering = TerminationOrdering::new(&groups);
    let kills = alive.iter().map(|target| {
        let message = format!("Stopping container {}", target.name());
        let group = groups.iter().position(|g| g.contains(&target.name())).unwrap_or(0);
        let ordering = &ordering;
        async move {
            let kill = Kill {
                ordering: Some((ordering, group)),
                pod_grace,
                ..Kill::new(target, KillReason::PodEnds, &message)
            };
            kill_container(ctx, kill).await
        }
    });
    join_all(kills).await.into_iter().filter_map(Result::err).collect()
}

/// Stops every sandbox of the pod, going on past errors.
pub(super) async fn stop_sandboxes(ctx: &EffectContext) -> Vec<CriError> {
    let stops = ctx.runtime.sandboxes.iter().map(|s| ctx.deps.runtime.stop_pod_sandbox(&s.summary.id));
    join_all(stops).await.into_iter().filter_map(Result::err).filter(|e| !e.is_not_found()).collect()
}

//! Stopping a pod for good, for a restart, or some of its containers.

use std::time::Duration;

use cri::types::SandboxState;
use futures::future::join_all;

use super::kill::{Kill, kill_container, kill_containers, stop_sandboxes};
use super::{EffectContext, NotDone};
use crate::plan::KillContainer;
use crate::plan::effect::Outcome;
use crate::podcache::{RuntimeContainer, RuntimePod};
use crate::podworker::journal::Record;

/// Stops some containers while the pod goes on.
pub(super) async fn kill(ctx: &EffectContext, targets: &[KillContainer]) -> Result<(), NotDone> {
    let kills = targets.iter().filter_map(|k| {
        let target = ctx.runtime.containers.iter().find(|c| *c.id() == k.id)?;
        Some(kill_container(ctx, Kill::new(target, k.reason, &k.message)))
    });
    let results = join_all(kills).await;
    look(ctx).await;
    let mut all = Ok(());
    for error in results.into_iter().filter_map(Result::err) {
        tracing::warn!(pod.uid = %ctx.uid, %error, "container not stopped");
        all = Err(NotDone);
    }
    all
}

/// Stops all containers and sandboxes because everything starts anew.
pub(super) async fn stop_for_restart(ctx: &EffectContext) -> Result<(), NotDone> {
    let mut errors = kill_containers(ctx, None).await;
    errors.extend(stop_sandboxes(ctx).await);
    look(ctx).await;
    report_errors(ctx, &errors)
}

/// Reads what is left: nobody is to take what was stopped for running while something else starts.
async fn look(ctx: &EffectContext) {
    let record = match ctx.read_view().await {
        Ok((view, messages)) => Record::View(view, messages),
        Err(_) => Record::Stale,
    };
    ctx.journal.write(record);
}

fn report_errors(ctx: &EffectContext, errors: &[cri::CriError]) -> Result<(), NotDone> {
    for error in errors {
        ctx.warn("FailedKillPod", format!("error killing pod: {error}"));
    }
    if errors.is_empty() { Ok(()) } else { Err(NotDone) }
}

/// Stops everything for good, and learns how it ended.
pub(super) async fn stop(ctx: &EffectContext, grace: Duration) -> Result<(), NotDone> {
    ctx.deps.probes.stop_liveness_and_startup(&ctx.uid);
    let was_running = ctx.runtime.is_running();
    let mut errors = kill_containers(ctx, Some(grace)).await;
    let mut view = RuntimePod::clone(&ctx.runtime);
    if errors.is_empty() && was_running {
        ctx.journal.write(Record::Stale);
        // Its processes are gone: free the network while we look at how they went.
        let (stopped, read) = tokio::join!(stop_sandboxes(ctx), ctx.read_view());
        errors.extend(stopped);
        match read {
            Ok((read, messages)) => {
                view.clone_from(&read);
                ctx.journal.write(Record::View(read, messages));
            }
            Err(error) => errors.push(error),
        }
    }
    let still_runs = view.containers.iter().any(RuntimeContainer::is_running);
    if !errors.is_empty() || still_runs {
        ctx.journal.write(Record::Stale);
        report_errors(ctx, &errors)?;
        return Err(NotDone);
    }
    // They were stopped after they were last read.
    for sandbox in &mut view.sandboxes {
        sandbox.summary.state = SandboxState::NotReady;
    }
    ctx.journal.write(Record::Changed(view));
    ctx.deps.probes.remove_pod(&ctx.uid);
    ctx.journal.outcome(Outcome::Stopped);
    Ok(())
}

//! Freeing what a pod used once nothing of it runs, and removing what is left.

use super::{EffectContext, NotDone, collect_garbage};
use crate::plan::effect::Outcome;
use crate::retention::{containers, pods};

/// Unmounts the pod's volumes and gives back what the pod held of the node.
pub(super) async fn tear_down_volumes(ctx: &EffectContext) -> Result<(), NotDone> {
    let deps = &ctx.deps;
    if let Err(error) = deps.volumes.tear_down(&ctx.uid).await {
        ctx.warn("FailedUnMount", error.to_string());
        return Err(NotDone);
    }
    deps.registry.unregister_pod(&ctx.uid);
    deps.admission.release(&ctx.uid);
    report_end(ctx);
    ctx.journal.outcome(Outcome::VolumesGone);
    Ok(())
}

/// The status manager hears that nothing of the pod runs any more: a deleted
/// pod's object goes away now.
fn report_end(ctx: &EffectContext) {
    if !ctx.removed {
        ctx.deps.status.finished(&ctx.pod);
    }
}

pub(super) async fn remove_cgroup(ctx: &EffectContext) -> Result<(), NotDone> {
    if let Some(tree) = &ctx.deps.cgroups
        && let Err(error) = tree.remove_pod(&ctx.uid).await
    {
        tracing::debug!(pod.uid = %ctx.uid, %error, "cgroup not removed yet");
        return Err(NotDone);
    }
    ctx.journal.outcome(Outcome::CgroupGone);
    Ok(())
}

/// As long as somebody wants the pod its containers stay for their logs.
pub(super) async fn rest(ctx: &EffectContext) -> Result<(), NotDone> {
    if ctx.pod.metadata.deletion_timestamp.is_some() {
        report_end(ctx);
    }
    collect_garbage(ctx).await;
    ctx.journal.outcome(Outcome::Rested);
    Ok(())
}

/// Removes sandboxes, files and cgroup. Each step may have been done before.
pub(super) async fn remove(ctx: &EffectContext) -> Result<(), NotDone> {
    let deps = &ctx.deps;
    // The worker's view may lack what a lost answer left behind. It is not put in
    // order: nothing of the pod is to be known afterwards.
    let Ok((view, _)) = ctx.read_view().await else { return Err(NotDone) };
    if !containers::remove_all(deps.runtime.as_ref(), &view).await {
        return Err(NotDone);
    }
    if let Err(error) = pods::remove(&deps.removals, &deps.settings.paths, &ctx.pod).await {
        tracing::warn!(pod.uid = %ctx.uid, %error, "files of the pod not removed");
        return Err(NotDone);
    }
    if let Some(tree) = &deps.cgroups
        && let Err(error) = tree.remove_pod(&ctx.uid).await
    {
        tracing::debug!(pod.uid = %ctx.uid, %error, "cgroup not removed yet");
    }
    deps.cache.remove(&ctx.uid);
    deps.status.forget(&ctx.uid);
    ctx.journal.outcome(Outcome::Removed);
    Ok(())
}

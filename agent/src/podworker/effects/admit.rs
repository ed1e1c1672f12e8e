//! Asking for the node's room.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};

use super::{EffectContext, NotDone};
use crate::convert::{security, spec};
use crate::events::EventType;
use crate::ids::PodUid;
use crate::plan::admit::NODE_AFFINITY;
use crate::plan::effect::Outcome;
use crate::plan::preempt::PREEMPTING;
use crate::podworker::NodeView;
use crate::podworker::admission::{AdmitResult, NodeLimits};
use crate::podworker::inbox::Eviction;

/// How long the API server may take to say what the Node is like.
const NODE_READ: Duration = Duration::from_secs(10);

/// Takes the room the pod needs, or asks others to make some; those of `asked`
/// were asked before.
pub(super) async fn admit(ctx: &EffectContext, runs_already: bool, asked: &BTreeSet<PodUid>) -> Result<(), NotDone> {
    let deps = &ctx.deps;
    let mut strict_groups = true;
    if !runs_already && security::strict_groups(&ctx.pod) {
        match deps.runtime.status().await {
            Ok(status) => strict_groups = status.supplemental_groups_policy,
            Err(error) => {
                tracing::warn!(pod.uid = %ctx.uid, %error, "what the runtime can do is not known");
                return Err(NotDone);
            }
        }
    }
    let limits = NodeLimits { allowed_unsafe_sysctls: &deps.settings.allowed_unsafe_sysctls, strict_groups };
    let view = deps.node_view();
    let take = |view: &NodeView| deps.admission.take(&ctx.pod, view, limits, runs_already);
    let mut result = take(&view);
    // The scheduler may have seen labels that the watch is yet to show (pkg/kubelet/lifecycle/predicate.go:
    // `generalFilter`).
    if matches!(&result, AdmitResult::Refused(refusal) if refusal.reason == NODE_AFFINITY)
        && let Some(node) = read_node(ctx).await
    {
        result = take(&NodeView { node: Some(Arc::new(node)), ..NodeView::clone(&view) });
    }
    let outcome = match result {
        AdmitResult::Yes => {
            deps.registry.register_pod(&ctx.pod);
            Outcome::Admitted
        }
        AdmitResult::Refused(refusal) => Outcome::Refused(refusal),
        AdmitResult::Preempt(victims) => Outcome::Preempting(preempt(ctx, &victims, asked)),
    };
    ctx.journal.outcome(outcome);
    Ok(())
}

/// The Node as the API server has it now; `None` where nobody says.
async fn read_node(ctx: &EffectContext) -> Option<Node> {
    let api = ctx.deps.nodes.as_ref()?;
    match tokio::time::timeout(NODE_READ, api.get(&ctx.deps.settings.node_name)).await {
        Ok(Ok(node)) => Some(node),
        Ok(Err(error)) => {
            tracing::debug!(pod.uid = %ctx.uid, %error, "the Node is not readable");
            None
        }
        Err(_) => None,
    }
}

/// Ends pods for this critical one, each once; room is there when they are gone. Returns those that were told.
fn preempt(ctx: &EffectContext, victims: &[Arc<Pod>], asked: &BTreeSet<PodUid>) -> BTreeSet<PodUid> {
    let message = "Preempted in order to admit critical pod";
    let mut all = BTreeSet::new();
    for victim in victims {
        let uid = PodUid::of(victim);
        if !asked.contains(&uid) {
            let grace = Duration::from_secs(u64::try_from(spec::grace_seconds(victim)).unwrap_or(0));
            // One that runs from before a restart may have no worker yet: it is asked with the next look.
            if !ctx.deps.workers.preempt(&uid, Eviction { message: message.to_owned(), grace }) {
                continue;
            }
            tracing::warn!(pod.uid = %ctx.uid, victim = %uid, "pod preempted");
            ctx.deps.events.pod(victim, EventType::Warning, PREEMPTING, message);
        }
        all.insert(uid);
    }
    all
}

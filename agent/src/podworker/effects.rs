//! Effects: each an asynchronous function that does one thing [`crate::plan`]
//! decided and writes what came of it into the worker's journal. None of them
//! decides what comes next, and each may be dropped at any await or die with
//! the process: the runtime, the file system and the API show how far it came.

mod admit;
mod container;
mod kill;
mod lifecycle;
mod remove;
mod sandbox;
mod start;
mod stop;

use std::collections::HashSet;
use std::sync::Arc;

use cri::{ContainerId, CriError};
use k8s_openapi::api::core::v1::Pod;

use super::deps::Deps;
use super::journal::{Journal, Record};
use super::messages;
use super::refresh::read_pod;
use crate::events::EventType;
use crate::ids::{ObjectName, PodUid};
use crate::plan::effect::{Effect, Outcome};
use crate::podcache::RuntimePod;
use crate::retention::containers;
use crate::retention::plan::containers::Keep;
use crate::status::containers::TerminationMessages;

/// An effect was not done to its end; events and logs have said why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotDone;

/// What an effect works on.
#[derive(Debug)]
pub(super) struct EffectContext {
    pub deps: Arc<Deps>,
    pub uid: PodUid,
    pub name: ObjectName,
    pub pod: Arc<Pod>,
    /// Nobody wants the pod any more.
    pub removed: bool,
    /// The runtime's view when the effect was begun.
    pub runtime: Arc<RuntimePod>,
    pub messages: Arc<TerminationMessages>,
    pub hooks_ended: HashSet<ContainerId>,
    pub journal: Journal,
}

impl EffectContext {
    fn warn(&self, reason: &'static str, message: impl Into<String>) {
        if self.name.name.is_empty() {
            // Its directory is all that is known of it: no event can be about it.
            let message = message.into();
            tracing::warn!(pod.uid = %self.uid, reason, message, "pod does not end");
            return;
        }
        self.deps.events.pod(&self.pod, EventType::Warning, reason, message);
    }

    /// Reads the runtime's view and what its ended containers left.
    async fn read_view(&self) -> Result<(RuntimePod, TerminationMessages), CriError> {
        let read = read_pod(self.deps.runtime.as_ref(), &self.uid, &self.name, Some(&self.runtime)).await?;
        let messages = messages::read_new(&read, &self.messages, &self.deps.kernel_log).await;
        Ok((read, messages))
    }
}

/// Performs one effect.
pub(super) async fn perform(ctx: &EffectContext, effect: Effect) -> Result<(), NotDone> {
    match effect {
        Effect::Read { list } => read(ctx, list).await,
        Effect::Admit { runs_already, asked } => admit::admit(ctx, runs_already, &asked).await,
        Effect::Keep => keep(ctx).await,
        Effect::StopForRestart => stop::stop_for_restart(ctx).await,
        Effect::Kill(targets) => stop::kill(ctx, &targets).await,
        Effect::Start(start) => start::start(ctx, start).await,
        Effect::Stop { grace } => stop::stop(ctx, grace).await,
        Effect::TearDownVolumes => remove::tear_down_volumes(ctx).await,
        Effect::RemoveCgroup => remove::remove_cgroup(ctx).await,
        Effect::Rest => remove::rest(ctx).await,
        Effect::Remove => remove::remove(ctx).await,
    }
}

async fn read(ctx: &EffectContext, list: bool) -> Result<(), NotDone> {
    if !list {
        let read = messages::read_new(&ctx.runtime, &ctx.messages, &ctx.deps.kernel_log).await;
        ctx.journal.write(Record::Messages(read));
        return Ok(());
    }
    match ctx.read_view().await {
        Ok((view, messages)) => {
            ctx.journal.write(Record::View(view, messages));
            Ok(())
        }
        Err(error) => {
            tracing::warn!(pod.uid = %ctx.uid, %error, "runtime not readable");
            Err(NotDone)
        }
    }
}

/// Keeps a pod for which nothing is to be started: its volumes are set up and
/// current, also after a restart of the agent, and its garbage goes.
async fn keep(ctx: &EffectContext) -> Result<(), NotDone> {
    if let Err(error) = ctx.deps.volumes.set_up(&ctx.pod).await {
        ctx.warn("FailedMount", error.to_string());
        ctx.journal.outcome(Outcome::NotKept);
        return Ok(());
    }
    collect_garbage(ctx).await;
    ctx.journal.outcome(Outcome::Rested);
    Ok(())
}

/// Removes dead instances nobody needs: one per container stays for its logs.
async fn collect_garbage(ctx: &EffectContext) {
    if let Some(view) = containers::collect(ctx.deps.runtime.as_ref(), &ctx.runtime, Keep::Last).await {
        ctx.journal.write(Record::Changed(view));
    }
}

//! Starting a pod: sandbox and volumes at the same time, since neither needs the
//! other, then all images, then each container as soon as its own is there.

use std::sync::Arc;

use cri::SandboxId;
use cri::types::SandboxConfig;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, join_all};
use tokio::sync::watch;

use super::container::{StartContext, StartError, start_container};
use super::sandbox::{self, CreateSandboxError};
use super::{EffectContext, NotDone};
use crate::contract::MountedVolumes;
use crate::convert::{container, spec};
use crate::events::EventType;
use crate::plan::effect::{ContainerStart, Outcome, PodStart, SandboxChoice, StartFailure, WaitReason};
use crate::podworker::files;
use crate::podworker::journal::Record;

/// What every container of the pod needs.
#[derive(Debug)]
struct Prerequisites {
    sandbox: SandboxId,
    ips: Vec<String>,
    volumes: Arc<MountedVolumes>,
}

/// The same once they are there; each container that needs them waits for it.
type PrerequisitesReady<'a> = Shared<BoxFuture<'a, Option<Arc<Prerequisites>>>>;

/// Makes the sandbox if there is none and starts containers in it. Containers
/// that fail are outcomes of their own.
pub(super) async fn start(ctx: &EffectContext, start: PodStart) -> Result<(), NotDone> {
    let config = match sandbox::config(&ctx.deps, &ctx.pod, start.sandbox.attempt()) {
        Ok(config) => config,
        Err(error) => return Err(sandbox_failed(ctx, &start.sandbox, &error)),
    };
    if let Err(problem) = prepare(ctx).await {
        ctx.warn("FailedCreatePodContainer", problem);
        return Err(NotDone);
    }
    let needs: PrerequisitesReady<'_> = prerequisites(ctx, &start.sandbox, &config).boxed().shared();
    let order = StartOrder::new(start.in_order);
    let starts = start.containers.into_iter().enumerate().map(|(place, container)| {
        let (needs, order, config) = (needs.clone(), &order, &config);
        async move {
            let go_on = start_one(ctx, config, needs, order, (place, &container)).await;
            order.leave(place, go_on);
        }
    });
    let starts = join_all(starts);
    let (needs, _) = tokio::join!(needs, starts);
    needs.map(|_| ()).ok_or(NotDone)
}

async fn prepare(ctx: &EffectContext) -> Result<(), String> {
    files::make_pod_dirs(&ctx.deps.settings.paths, &ctx.pod).map_err(|e| e.to_string())?;
    sandbox::ensure_cgroup(&ctx.deps, &ctx.pod).await.map_err(|e| format!("unable to ensure pod container exists: {e}"))
}

/// Sandbox and volumes; `None` when one of them failed, which an event says.
async fn prerequisites(
    ctx: &EffectContext,
    choice: &SandboxChoice,
    config: &SandboxConfig,
) -> Option<Arc<Prerequisites>> {
    let made = async {
        match choice {
            SandboxChoice::Existing { id, .. } => Ok::<_, CreateSandboxError>((id.clone(), ctx.runtime.ips().to_vec())),
            SandboxChoice::Create(_) => {
                let status = sandbox::create(&ctx.deps, &ctx.pod, config).await?;
                let (id, ips) = (status.summary.id.clone(), status.ips.clone());
                ctx.journal.write(Record::Sandbox(status));
                Ok((id, ips))
            }
        }
    };
    let (made, volumes) = tokio::join!(made, ctx.deps.volumes.set_up(&ctx.pod));
    let made = made.map_err(|error| sandbox_failed(ctx, choice, &error));
    let volumes = volumes.map_err(|error| ctx.warn("FailedMount", error.to_string()));
    let ((sandbox, ips), volumes) = (made.ok()?, volumes.ok()?);
    Some(Arc::new(Prerequisites { sandbox, ips, volumes }))
}

fn sandbox_failed(ctx: &EffectContext, choice: &SandboxChoice, error: &CreateSandboxError) -> NotDone {
    ctx.warn("FailedCreatePodSandBox", format!("Failed to create pod sandbox: {error}"));
    if let CreateSandboxError::Run(source) | CreateSandboxError::Status(source) = error {
        // The name of a try whose answer was lost stays taken.
        if source.is_already_exists() {
            ctx.journal.outcome(Outcome::SandboxNameTaken(choice.attempt()));
        }
        ctx.journal.write(Record::Stale);
    }
    NotDone
}

/// Starts one container when its place comes. False: those after it must not start.
async fn start_one(
    ctx: &EffectContext,
    config: &SandboxConfig,
    needs: PrerequisitesReady<'_>,
    order: &StartOrder,
    (place, start): (usize, &ContainerStart),
) -> bool {
    let Some((_, container)) = container::find(&ctx.pod, &start.name) else { return true };
    // As upstream's SyncPod: a pod that lacks a volume or a sandbox pulls nothing, and nothing is said of its images.
    let Some(needs) = needs.await else { return false };
    let image = ctx.deps.images.ensure(&ctx.pod, &container, config, start.pull_back_off.as_deref()).await;
    if !order.wait(place).await {
        return false;
    }
    // What follows an init container must not start before it; a sidecar that
    // fails is passed by, as upstream's SyncPod does.
    let needed = spec::init_containers(&ctx.pod).iter().any(|c| c.name == start.name) && !spec::is_sidecar(&container);
    let failed = |why: WaitReason, cause| {
        ctx.journal.outcome(Outcome::StartFailed { start: start.clone(), why, cause });
        !needed
    };
    let image = match image {
        Ok(image) => image,
        Err(error) => {
            let why = WaitReason { reason: error.reason().to_owned(), message: error.to_string() };
            return failed(why, StartFailure::Image(error.failure()));
        }
    };
    ctx.journal.outcome(Outcome::Starting(start.clone()));
    let within = StartContext {
        ctx,
        sandbox: &needs.sandbox,
        sandbox_config: config,
        pod_ips: &needs.ips,
        volumes: &needs.volumes,
    };
    match start_container(&within, &container, image, start).await {
        Ok(status) => {
            ctx.journal.write(Record::Container(needs.sandbox.clone(), status));
            ctx.journal.outcome(Outcome::Started { name: start.name.clone() });
            true
        }
        Err(error) => {
            start_error(ctx, &start.name, &error);
            let why = WaitReason { reason: error.reason().to_owned(), message: error.to_string() };
            failed(why, if error.name_taken() { StartFailure::NameTaken } else { StartFailure::Other })
        }
    }
}

fn start_error(ctx: &EffectContext, name: &str, error: &StartError) {
    if error.touched_runtime() {
        ctx.journal.write(Record::Stale);
    }
    // A failed hook has its own event, without what the hook printed.
    if !matches!(error, StartError::PostStart(_)) {
        ctx.deps.events.container(&ctx.pod, name, EventType::Warning, "Failed", format!("Error: {error}"));
    }
}

/// Containers that start one after the other, if they have to.
#[derive(Debug)]
struct StartOrder {
    in_order: bool,
    /// Whose place it is; `None` when nobody's is any more.
    next: watch::Sender<Option<usize>>,
}

impl StartOrder {
    fn new(in_order: bool) -> Self {
        Self { in_order, next: watch::Sender::new(Some(0)) }
    }

    /// Waits until everybody before `place` has left. False: it never will start.
    async fn wait(&self, place: usize) -> bool {
        if !self.in_order {
            return true;
        }
        let mut next = self.next.subscribe();
        let reached = next.wait_for(|next| next.is_none_or(|next| next >= place)).await;
        reached.is_ok_and(|next| next.is_some())
    }

    fn leave(&self, place: usize, go_on: bool) {
        self.next.send_modify(|next| *next = next.filter(|_| go_on).map(|_| place + 1));
    }
}

//! Creating and starting one container.

use std::collections::BTreeMap;
use std::time::Duration;

use cri::types::{ContainerStatus, Mount, SandboxConfig};
use cri::{ContainerId, CriError, SandboxId};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::kill::{Kill, hook_host, kill_container};
use super::{EffectContext, lifecycle};
use crate::contract::{MountedVolumes, VolumeError};
use crate::convert::container::{ContainerContext, container_config};
use crate::convert::env::{EnvError, EnvObjects, environment, references};
use crate::convert::fields::FieldContext;
use crate::convert::security::{self, SeccompSettings, SecurityError};
use crate::convert::service_env::service_env;
use crate::convert::spec;
use crate::events::EventType;
use crate::ids::ObjectName;
use crate::image::EnsuredImage;
use crate::objectcache::ObjectError;
use crate::plan::KillReason;
use crate::plan::effect::ContainerStart;
use crate::podcache::RuntimeContainer;
use crate::podworker::deps::Deps;
use crate::podworker::files::{self, FileError};
use crate::retention::containers::{RemoveError, remove_container};
use crate::runtimeclass::RuntimeClassError;

/// Why a container did not start. [`StartError::reason`] is what its status
/// shows while it waits.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error(transparent)]
    Env(#[from] EnvError),
    #[error(transparent)]
    Object(#[from] ObjectError),
    #[error(transparent)]
    Security(#[from] SecurityError),
    #[error(transparent)]
    RuntimeClass(#[from] RuntimeClassError),
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("unable to find target container {0}")]
    Target(String),
    #[error("services have not yet been read at least once, cannot construct envvars")]
    Services,
    #[error(transparent)]
    Leftover(#[from] RemoveError),
    #[error("{0}")]
    Create(#[source] CriError),
    #[error("{0}")]
    Start(#[source] CriError),
    #[error("{0}")]
    PostStart(#[source] lifecycle::HookError),
}

impl StartError {
    /// Upstream's reason.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Leftover(_) | Self::Create(_) => "CreateContainerError",
            Self::Start(_) => "RunContainerError",
            Self::PostStart(_) => "PostStartHookError",
            _ => "CreateContainerConfigError",
        }
    }

    /// Whether the runtime may have done something we do not know of.
    pub(super) fn touched_runtime(&self) -> bool {
        matches!(self, Self::Leftover(_) | Self::Create(_) | Self::Start(_) | Self::PostStart(_))
    }

    /// Whether the container's name and attempt are taken.
    pub(super) fn name_taken(&self) -> bool {
        matches!(self, Self::Create(e) if e.is_already_exists())
    }
}

/// What a container is started in.
#[derive(Clone, Copy, Debug)]
pub(super) struct StartContext<'a> {
    pub ctx: &'a EffectContext,
    pub sandbox: &'a SandboxId,
    pub sandbox_config: &'a SandboxConfig,
    pub pod_ips: &'a [String],
    pub volumes: &'a MountedVolumes,
}

/// Longest wait for the first list of Services.
const SERVICES_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest run of a postStart hook.
const POST_START_LIMIT: Duration = Duration::from_secs(24 * 3600);

async fn env_objects(deps: &Deps, pod: &Pod, container: &Container) -> Result<EnvObjects, ObjectError> {
    let refs = references(container);
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let name = |n: &str| ObjectName::new(namespace, n);
    let mut out = EnvObjects::default();
    for wanted in refs.config_maps {
        let found = absent_is_none(deps.objects.config_map(&name(&wanted)).await)?;
        out.config_maps.insert(wanted, found);
    }
    for wanted in refs.secrets {
        let found = absent_is_none(deps.objects.secret(&name(&wanted)).await)?;
        out.secrets.insert(wanted, found);
    }
    Ok(out)
}

fn absent_is_none<T>(result: Result<T, ObjectError>) -> Result<Option<T>, ObjectError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

async fn service_variables(deps: &Deps, pod: &Pod) -> Result<BTreeMap<String, String>, StartError> {
    let mut services = deps.services.clone();
    let known = tokio::time::timeout(SERVICES_TIMEOUT, services.wait_for(Option::is_some)).await;
    let known = known.ok().and_then(Result::ok).and_then(|s| s.clone()).ok_or(StartError::Services)?;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let links = spec::spec(pod).enable_service_links.unwrap_or(true);
    Ok(service_env(known.iter(), namespace, links))
}

async fn full_environment(
    within: &StartContext<'_>,
    container: &Container,
) -> Result<BTreeMap<String, String>, StartError> {
    let (deps, pod) = (&within.ctx.deps, &within.ctx.pod);
    let objects = env_objects(deps, pod, container).await?;
    let services = service_variables(deps, pod).await?;
    let node = deps.node_view();
    let pod_ips = if spec::host_network(pod) { node.host_ips.clone() } else { within.pod_ips.to_vec() };
    let fields = FieldContext { pod_ips, host_ips: node.host_ips.clone(), allocatable: node.allocatable.clone() };
    Ok(environment(pod, container, &objects, &services, &fields)?)
}

async fn all_mounts(
    within: &StartContext<'_>,
    container: &Container,
    env: &BTreeMap<String, String>,
) -> Result<Vec<Mount>, StartError> {
    let (deps, pod) = (&within.ctx.deps, &within.ctx.pod);
    let pairs: Vec<(String, String)> = env.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    let mut mounts = deps.volumes.container_mounts(pod, container, &pairs, within.volumes).await?;
    mounts.extend(files::own_mounts(&deps.settings, pod, container, within.pod_ips).await?);
    if security::wants_recursive_read_only(container) {
        let runtime = deps.runtime.status().await.map_err(StartError::Create)?;
        let handler = deps.runtime_classes.handler(pod).await?;
        let supported = runtime.handlers.iter().any(|h| h.name == handler && h.recursive_read_only_mounts);
        security::recursive_read_only(container, &mut mounts, supported)?;
    }
    Ok(mounts)
}

/// Creates and starts the container and runs its postStart hook. Each step is
/// found again after a crash: a created container is removed and made anew, a
/// started one is adopted.
pub(super) async fn start_container(
    within: &StartContext<'_>,
    container: &Container,
    image: EnsuredImage,
    start: &ContainerStart,
) -> Result<ContainerStatus, StartError> {
    let (deps, pod) = (&within.ctx.deps, &within.ctx.pod);
    let env = full_environment(within, container).await?;
    let mounts = all_mounts(within, container, &env).await?;
    let context = ContainerContext {
        image_ref: image.id.to_string(),
        image_user: image.user,
        restart_count: start.restart_count,
        env: &env,
        mounts,
        resources: deps.resources(),
        seccomp: SeccompSettings {
            root: deps.settings.paths.seccomp.to_string_lossy().into_owned(),
            runtime_default: deps.settings.seccomp_default,
        },
        target: target_of(within.ctx, &container.name)?,
    };
    let mut config = container_config(pod, container, context)?;
    config.metadata.attempt = start.attempt;
    let leftover = |c: &&RuntimeContainer| Some(c.id()) == start.leftover.as_ref();
    if let Some(leftover) = within.ctx.runtime.containers.iter().find(leftover) {
        remove_container(deps.runtime.as_ref(), leftover, &within.ctx.runtime.containers).await?;
    }
    let created = deps.runtime.create_container(within.sandbox, &config, within.sandbox_config).await;
    let id = created.map_err(StartError::Create)?;
    let event = |reason, text: String| deps.events.container(pod, &container.name, EventType::Normal, reason, text);
    event("Created", format!("Created container: {}", container.name));
    deps.runtime.start_container(&id).await.map_err(StartError::Start)?;
    event("Started", format!("Started container {}", container.name));
    let status = deps.runtime.container_status(&id).await.map_err(StartError::Start)?;
    post_start(within, container, &status, start.restart_count).await?;
    Ok(status)
}

/// The container an ephemeral one looks at; `None` when it names none.
fn target_of(ctx: &EffectContext, name: &str) -> Result<Option<ContainerId>, StartError> {
    let debugger = spec::ephemeral_containers(&ctx.pod).iter().find(|e| e.name == name);
    let wanted = debugger.and_then(|e| e.target_container_name.as_deref()).filter(|wanted| !wanted.is_empty());
    let Some(wanted) = wanted else { return Ok(None) };
    let found = ctx.runtime.container(wanted).map(|c| c.id().clone());
    found.map(Some).ok_or_else(|| StartError::Target(wanted.to_owned()))
}

/// Runs the postStart hook; when it fails, the container is killed like any
/// other, preStop included.
async fn post_start(
    within: &StartContext<'_>,
    container: &Container,
    status: &ContainerStatus,
    restart_count: u32,
) -> Result<(), StartError> {
    let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) else { return Ok(()) };
    let ctx = within.ctx;
    let host = hook_host(ctx, within.pod_ips);
    let result = lifecycle::run(ctx.deps.runtime.as_ref(), hook, container, &status.id, &host, POST_START_LIMIT).await;
    let Err(error) = result else { return Ok(()) };
    // What the hook printed may be a secret: it stays out of the event.
    tracing::info!(pod.uid = %ctx.uid, container = container.name, %error, "postStart hook failed");
    let text = "PostStartHook failed";
    ctx.deps.events.container(&ctx.pod, &container.name, EventType::Warning, "FailedPostStartHook", text);
    let running = RuntimeContainer {
        sandbox: within.sandbox.clone(),
        hash: spec::container_hash(container),
        restart_count,
        status: status.clone(),
    };
    let kill = Kill::new(&running, KillReason::PodEnds, "FailedPostStartHook");
    kill_container(ctx, kill).await.map_err(StartError::Start)?;
    Err(StartError::PostStart(error))
}

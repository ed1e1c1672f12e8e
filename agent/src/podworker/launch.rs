//! Starting containers of a pod that has its sandbox, volumes and images.

use std::time::Duration;

use cri::types::{ContainerState, ContainerStatus, SandboxConfig};
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::deps::Deps;
use super::gather::Images;
use super::start::{Launch, StartContext, StartError, start_container};
use super::worker::{Progress, Worker};
use crate::contract::MountedVolumes;
use crate::convert::{container, spec};
use crate::events::EventType;
use crate::image::EnsuredImage;
use crate::plan::StartContainer;
use crate::podcache::{RuntimeContainer, RuntimePod};
use crate::status::containers::WaitReason;

impl Worker {
    /// Starts what is ready: ephemeral and init containers in order, main ones
    /// together unless a postStart hook makes their order matter.
    pub(super) async fn launch(
        &mut self,
        config: &SandboxConfig,
        volumes: &MountedVolumes,
        mut images: Images,
        ready: Vec<StartContainer>,
    ) -> Progress {
        let Some(sandbox) = self.runtime.ready_sandbox().map(|s| s.summary.id.clone()) else {
            self.dirty = true;
            let delay = self.next_retry();
            return self.wait(Some(delay));
        };
        let ips = self.runtime.ips().to_vec();
        let (mut launches, mut failed) = (Vec::new(), 0);
        for start in &ready {
            match images.remove(&start.name) {
                Some(Ok(image)) => launches.extend(self.launch_of(start, image)),
                Some(Err(error)) => {
                    failed += 1;
                    self.start_failed(&start.name, error.reason(), error.to_string(), Some(error.retry_after()));
                }
                None => {}
            }
        }
        let (pod, deps) = (self.pod.clone(), self.deps.clone());
        let ctx = StartContext { pod: &pod, sandbox: &sandbox, sandbox_config: config, pod_ips: &ips, volumes };
        let names: Vec<String> = launches.iter().map(|l| l.container.name.clone()).collect();
        let results = start_launches(&deps, &ctx, launches).await;
        let mut started = 0;
        let mut view = RuntimePod::clone(&self.runtime);
        for (name, result) in names.iter().zip(results) {
            match result {
                Ok(status) => {
                    started += 1;
                    self.started(name);
                    view = with_container(view, &sandbox, status);
                }
                Err(error) => {
                    failed += 1;
                    self.start_error(name, &error);
                }
            }
        }
        self.replace_view(view);
        if started > 0 {
            self.failures = 0;
            return Progress::Again;
        }
        if failed > 0 {
            // The next round knows who has to wait for how long.
            return if self.dirty { Progress::Again } else { self.wait(self.soonest_retry()) };
        }
        self.wait(None)
    }

    fn soonest_retry(&self) -> Option<Duration> {
        let now = self.deps.clock.now();
        self.not_before.values().map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default()).min()
    }

    fn launch_of(&mut self, start: &StartContainer, image: EnsuredImage) -> Option<Launch> {
        let (_, found) = container::find(&self.pod, &start.name)?;
        let newest = self.runtime.container(&start.name);
        let stale = newest.filter(|c| c.status.state == ContainerState::Created).map(|c| c.id().clone());
        let restart_count = match newest {
            Some(left) if stale.is_some() => left.restart_count,
            Some(before) => before.restart_count + 1,
            None => self.remembered_restarts(&start.name),
        };
        let floor = self.attempts.get(&start.name).copied().unwrap_or(0);
        let after_newest = newest.filter(|_| stale.is_none()).map_or(0, |c| c.status.metadata.attempt + 1);
        let attempt = restart_count.max(floor).max(after_newest);
        if let Some((key, finished)) = self.last_end(&start.name) {
            self.crash.next(key, finished, self.deps.clock.now());
        }
        Some(Launch { container: found, image, restart_count, attempt, stale })
    }

    /// The restart count of a container the runtime forgot.
    fn remembered_restarts(&self, name: &str) -> u32 {
        let status = self.reported();
        let lists = status.as_deref().map(|s| [&s.container_statuses, &s.init_container_statuses]);
        let found = lists.into_iter().flatten().flat_map(|l| l.iter().flatten()).find(|c| c.name == name);
        found.map_or(0, |c| u32::try_from(c.restart_count).unwrap_or(0))
    }

    fn started(&mut self, name: &str) {
        self.waiting.remove(name);
        self.not_before.remove(name);
        self.attempts.remove(name);
    }

    fn start_error(&mut self, name: &str, error: &StartError) {
        if error.name_taken() {
            let taken = self.runtime.container(name).map_or(0, |c| c.status.metadata.attempt + 1);
            let floor = self.attempts.entry(name.to_owned()).or_insert(taken);
            *floor = (*floor).max(taken) + 1;
        }
        self.dirty |= error.touched_runtime();
        // A failed hook has its own event, without what the hook printed.
        if !matches!(error, StartError::PostStart(_)) {
            self.deps.events.container(&self.pod, name, EventType::Warning, "Failed", format!("Error: {error}"));
        }
        self.start_failed(name, error.reason(), error.to_string(), None);
    }

    fn start_failed(&mut self, name: &str, reason: &str, message: String, retry: Option<Duration>) {
        let retry = retry.unwrap_or_else(|| self.next_retry());
        let at = self.deps.clock.now().saturating_add(retry).unwrap_or(Timestamp::MAX);
        self.not_before.insert(name.to_owned(), at);
        self.waiting.insert(name.to_owned(), WaitReason { reason: reason.to_owned(), message });
    }
}

/// Starts containers one after the other where their order matters, until one
/// fails; else all at once.
async fn start_launches(
    deps: &Deps,
    ctx: &StartContext<'_>,
    launches: Vec<Launch>,
) -> Vec<Result<ContainerStatus, StartError>> {
    if !launches.iter().any(|l| has_order(ctx.pod, &l.container)) {
        return join_all(launches.into_iter().map(|l| start_container(deps, ctx, l))).await;
    }
    let mut results = Vec::new();
    for launch in launches {
        let result = start_container(deps, ctx, launch).await;
        let failed = result.is_err();
        results.push(result);
        if failed {
            break;
        }
    }
    results
}

/// Whether what follows the container must wait for it.
fn has_order(pod: &Pod, container: &Container) -> bool {
    container.lifecycle.as_ref().is_some_and(|l| l.post_start.is_some())
        || spec::init_containers(pod).iter().any(|c| c.name == container.name)
}

fn with_container(view: RuntimePod, sandbox: &cri::SandboxId, status: cri::types::ContainerStatus) -> RuntimePod {
    let id = status.id.clone();
    let created = status.metadata.clone();
    let keep = |c: &RuntimeContainer| {
        // A leftover of the same name and attempt was removed before.
        *c.id() != id && !(c.status.state == ContainerState::Created && c.status.metadata.name == created.name)
    };
    let mut all: Vec<_> = view.containers.into_iter().filter(keep).map(|c| (c.sandbox, c.status)).collect();
    all.push((sandbox.clone(), status));
    RuntimePod::assemble(view.uid, view.name, view.sandboxes, all)
}

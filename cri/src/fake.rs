//! [`FakeRuntime`]: a runtime in memory, with scripted faults, for tests.
//!
//! It keeps the promises that `tests/contract.rs` checks on real containerd
//! too, and nothing more: no processes, no files, no network. Time is tokio's,
//! so paused clocks work.
//!
//! ```text
//! let runtime = FakeRuntime::new();
//! runtime.add_image("copepod.local/demo:latest");
//! runtime.fail_next(Op::StartContainer, 2, runtime_error(Op::StartContainer, "no such file"));
//! let agent_view: Arc<dyn RuntimeService> = runtime.clone();
//! // … the code under test creates a container …
//! let id = runtime.container_named("main").expect("created").id;
//! runtime.exit_container(&id, 3);
//! assert_eq!(runtime.count(Op::StartContainer), 3);
//! ```

mod op;
mod script;
mod service;
mod state;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast;

pub use op::{Op, runtime_error, unavailable};
pub use script::FakeCall;

use crate::error::{CriError, Result};
use crate::id::{ContainerId, ImageRef, SandboxId};
use crate::types::{
    ContainerConfig, ContainerEvent, ContainerEventKind, ContainerState, ContainerStatus, ExecOutput,
    LinuxContainerResources, RuntimeStatus, SandboxConfig, SandboxStatus,
};
use script::{Fault, Script};
use state::State;

type ExecHook = Arc<dyn Fn(&ContainerId, &[String]) -> Result<ExecOutput> + Send + Sync>;

/// What a container does by itself, looked up by its name at its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Behavior {
    /// Runs until it is stopped, and exits 0 on the stop signal.
    #[default]
    Runs,
    /// Runs until it is killed: a stop takes the whole grace period and ends in 137.
    IgnoresStopSignal,
    /// Exits with this code right after its start.
    ExitsWith(i32),
}

/// A runtime in memory. See the module's example.
pub struct FakeRuntime {
    state: Mutex<State>,
    script: Mutex<Script>,
    exec: Mutex<Option<ExecHook>>,
    /// Dropped and replaced to end every subscription.
    events: Mutex<broadcast::Sender<ContainerEvent>>,
}

impl std::fmt::Debug for FakeRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeRuntime").field("state", &*self.state()).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that panicked elsewhere must not hide its message behind ours.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeRuntime {
    /// A runtime that is ready and has neither images nor sandboxes.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            script: Mutex::default(),
            exec: Mutex::default(),
            events: Mutex::new(broadcast::channel(4096).0),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Makes an image present.
    pub fn add_image(&self, name: &str) {
        self.state().images.insert(name.to_owned());
    }

    /// Makes an image pullable, without it being present.
    pub fn add_remote_image(&self, name: &str) {
        self.state().remote_images.insert(name.to_owned());
    }

    /// The same of one that is given away for a password alone.
    pub fn add_private_image(&self, name: &str, password: &str) {
        self.add_remote_image(name);
        self.state().passwords.insert(name.to_owned(), password.to_owned());
    }

    /// Makes a runtime handler known beside the default one.
    pub fn add_handler(&self, name: &str) {
        self.state().handlers.insert(name.to_owned());
    }

    /// The next `times` calls of `op` fail with `error` and do nothing.
    pub fn fail_next(&self, op: Op, times: usize, error: CriError) {
        lock(&self.script).add(op, times, Fault::Fail(error));
    }

    /// The next `times` calls of `op` do their work, then answer `error`: the
    /// answer was lost on the way.
    pub fn lose_answer(&self, op: Op, times: usize, error: CriError) {
        lock(&self.script).add(op, times, Fault::LoseAnswer(error));
    }

    /// The next `times` calls of `op` take this long before they do anything.
    pub fn delay(&self, op: Op, times: usize, by: Duration) {
        lock(&self.script).add(op, times, Fault::Delay(by));
    }

    /// Forgets every fault that has not struck yet.
    pub fn clear_faults(&self) {
        lock(&self.script).faults.clear();
    }

    /// Every call so far, in order.
    pub fn calls(&self) -> Vec<FakeCall> {
        lock(&self.script).calls.clone()
    }

    /// How many calls of `op` there were, failed ones included.
    pub fn count(&self, op: Op) -> usize {
        lock(&self.script).calls.iter().filter(|c| c.op == op).count()
    }

    /// Forgets the calls so far.
    pub fn clear_calls(&self) {
        lock(&self.script).calls.clear();
    }

    /// The clock is set back by this much: what is made or ends from now on seems older.
    pub fn set_clock_back(&self, by: Duration) {
        self.state().behind += by;
    }

    /// What containers named `name` do when they are started from now on.
    pub fn set_behavior(&self, name: &str, behavior: Behavior) {
        self.state().behaviors.insert(name.to_owned(), behavior);
    }

    /// Answers `ExecSync`; without it every command succeeds silently.
    pub fn on_exec(&self, hook: impl Fn(&ContainerId, &[String]) -> Result<ExecOutput> + Send + Sync + 'static) {
        *lock(&self.exec) = Some(Arc::new(hook));
    }

    /// Makes `status` tell of these handlers and features; its conditions are not touched.
    pub fn set_features(&self, features: RuntimeStatus) {
        self.state().features = features;
    }

    /// A container's process ends by itself with `code`.
    pub fn exit_container(&self, id: &ContainerId, code: i32) {
        let ended = self.state().end(id, code, if code == 0 { "Completed" } else { "Error" });
        self.emit(ended);
    }

    /// The kernel kills a container's process for memory.
    pub fn oom_kill(&self, id: &ContainerId) {
        let mut events = vec![ContainerEvent::new(id.as_str(), ContainerEventKind::Oom)];
        events.extend(self.state().end(id, 137, "OOMKilled"));
        self.emit(events);
    }

    /// The sandbox's own process dies; its containers go on.
    pub fn exit_sandbox(&self, id: &SandboxId) {
        let event = self.state().sandbox_ends(id);
        self.emit(event);
    }

    /// The runtime forgets a sandbox, but not what was in it.
    pub fn lose_sandbox(&self, id: &SandboxId) {
        self.state().sandboxes.remove(id);
    }

    /// Ends every event stream, as a restart of the runtime does.
    pub fn disconnect_events(&self) {
        *lock(&self.events) = broadcast::channel(4096).0;
    }

    fn emit(&self, events: impl IntoIterator<Item = ContainerEvent>) {
        let sender = lock(&self.events);
        for event in events {
            // Nobody listening is fine.
            let _ = sender.send(event);
        }
    }

    /// The latest container of that name, whatever its state.
    pub fn container_named(&self, name: &str) -> Option<ContainerStatus> {
        let state = self.state();
        state
            .containers
            .values()
            .filter(|c| c.status.metadata.name == name)
            .max_by_key(|c| c.serial)
            .map(|c| c.status.clone())
    }

    /// Every container, in the order of creation.
    pub fn containers(&self) -> Vec<ContainerStatus> {
        let state = self.state();
        let mut all: Vec<_> = state.containers.values().collect();
        all.sort_by_key(|c| c.serial);
        all.into_iter().map(|c| c.status.clone()).collect()
    }

    /// Names of the running containers, sorted.
    pub fn running(&self) -> Vec<String> {
        let state = self.state();
        let running = state.containers.values().filter(|c| c.status.state == ContainerState::Running);
        let mut names: Vec<_> = running.map(|c| c.status.metadata.name.clone()).collect();
        names.sort();
        names
    }

    /// Every sandbox, in the order of creation.
    pub fn sandboxes(&self) -> Vec<SandboxStatus> {
        let state = self.state();
        let mut all: Vec<_> = state.sandboxes.values().collect();
        all.sort_by_key(|s| s.serial);
        all.into_iter().map(|s| s.status.clone()).collect()
    }

    /// What a sandbox was made from.
    pub fn sandbox_config(&self, id: &SandboxId) -> Option<SandboxConfig> {
        self.state().sandboxes.get(id).map(|s| s.config.clone())
    }

    /// What a container was made from.
    pub fn container_config(&self, id: &ContainerId) -> Option<ContainerConfig> {
        self.state().containers.get(id).map(|c| c.config.clone())
    }

    /// The limits a container has now.
    pub fn container_resources(&self, id: &ContainerId) -> Option<LinuxContainerResources> {
        self.state().containers.get(id).map(|c| c.resources.clone())
    }

    /// The pod CIDRs the runtime was told.
    pub fn pod_cidr(&self) -> String {
        self.state().pod_cidr.clone()
    }

    /// Present images, sorted.
    pub fn images(&self) -> Vec<ImageRef> {
        self.state().images.iter().map(ImageRef::new).collect()
    }
}

impl ContainerEvent {
    fn new(id: &str, kind: ContainerEventKind) -> Self {
        Self { id: id.to_owned(), kind, sandbox: None, at: Some(jiff::Timestamp::now()) }
    }
}

/// Behaviours by container name.
type Behaviors = BTreeMap<String, Behavior>;

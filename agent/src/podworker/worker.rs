//! One pod's worker: take the newest pod and view, decide, perform, remember,
//! wait. What to do is [`crate::plan::decide`]'s business, how is
//! [`super::effects`]'.

use std::sync::Arc;
use std::time::Duration;

use cri::SandboxId;
use cri::types::{ContainerState, ContainerStatus, SandboxStatus};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio_util::sync::CancellationToken;

use super::deps::Deps;
use super::effects::{self, EffectContext};
use super::inbox::{Inbox, PodUpdate};
use super::journal::{Journal, Record};
use crate::convert::spec;
use crate::events::EventType;
use crate::ids::{ObjectName, PodUid};
use crate::plan::decide::{Decision, Facts, decide};
use crate::plan::effect::{Effect, Outcome, PodEvent};
use crate::plan::memory::{Admission, Memory, after};
use crate::plan::stage::{Stage, WorkerStage};
use crate::podcache::{RuntimeContainer, RuntimePod};
use crate::podsource::DesiredPod;
use crate::status::StatusFacts;
use crate::status::containers::TerminationMessages;

/// Rounds of one sync; more would mean that plan and runtime disagree for ever.
const MAX_ROUNDS: usize = 64;
/// The pause after that many.
const DISAGREEMENT: Duration = Duration::from_secs(10);
/// How long an effect may go on before what it did so far is reported.
const SLOW: Duration = Duration::from_millis(200);

/// What follows a sync.
enum Next {
    /// Wait for a change, or until then.
    Wait(Option<Timestamp>),
    /// Nothing of the pod is left.
    Removed,
}

/// The worker of one pod.
#[derive(Debug)]
pub(super) struct Worker {
    deps: Arc<Deps>,
    uid: PodUid,
    name: ObjectName,
    inbox: Arc<Inbox>,
    pod: Arc<Pod>,
    /// Nobody wants the pod any more; its API object may be gone.
    removed: bool,
    runtime: Arc<RuntimePod>,
    messages: Arc<TerminationMessages>,
    memory: Memory,
}

impl Worker {
    /// A worker of a pod that somebody wants.
    pub(super) fn new(deps: Arc<Deps>, inbox: Arc<Inbox>, wanted: &DesiredPod) -> Self {
        Self::build(deps, inbox, wanted.pod.clone())
    }

    /// A worker that ends a pod only the runtime or the disk knows of.
    pub(super) fn orphan(deps: Arc<Deps>, inbox: Arc<Inbox>, pod: Arc<Pod>) -> Self {
        let mut worker = Self::build(deps, inbox, pod);
        worker.removed = true;
        worker
    }

    /// Whose worker it is.
    pub(super) fn uid(&self) -> &PodUid {
        &self.uid
    }

    fn build(deps: Arc<Deps>, inbox: Arc<Inbox>, pod: Arc<Pod>) -> Self {
        let (uid, name) = (PodUid::of(&pod), ObjectName::of_pod(&pod));
        let known = deps.cache.get(&uid);
        let mut memory = Memory::new(deps.settings.max_crash_backoff);
        memory.stale = deps.cache.is_unread(&uid);
        let runtime = known.unwrap_or_else(|| Arc::new(RuntimePod::empty(uid.clone(), name.clone())));
        Self { deps, uid, name, inbox, pod, removed: false, runtime, messages: Arc::default(), memory }
    }

    /// Runs until nothing of the pod is left (true), or until `token` is
    /// cancelled, which leaves the pod as it is (false).
    pub(super) async fn run(mut self, token: CancellationToken) -> bool {
        loop {
            self.memory.wake();
            // A sync dropped at exit is like a crash: the next agent adopts. Boxed,
            // so that a worker that waits is small.
            let next = match token.run_until_cancelled(Box::pin(self.sync())).await {
                Some(Next::Wait(at)) => at,
                Some(Next::Removed) => return true,
                None => return false,
            };
            let timer = self.sleep_until(next);
            tokio::select! {
                () = token.cancelled() => return false,
                // Cancel-safe: the inbox keeps its wake-up until it is taken.
                () = self.inbox.changed() => {}
                // Cancel-safe: when to wake is decided anew after every sync.
                () = timer => {}
            }
        }
    }

    /// One sync: look, decide, do, until there is nothing to do or only to wait.
    async fn sync(&mut self) -> Next {
        for _ in 0..MAX_ROUNDS {
            let (update, interrupt) = self.inbox.take();
            self.absorb(update);
            let decision = self.decide();
            self.enter(&decision);
            if decision.stage == WorkerStage::Removed {
                return Next::Removed;
            }
            if decision.effects.is_empty() {
                return Next::Wait(decision.wake_at);
            }
            for effect in decision.effects {
                let stops = matches!(effect, Effect::Kill(_) | Effect::StopForRestart);
                if !self.perform(effect, decision.wake_at, &interrupt).await {
                    break;
                }
                if stops {
                    // What starts next may take long: what was stopped is not ready meanwhile.
                    self.deps.probes.update_pod(&self.pod, &self.runtime);
                    self.report(Stage::Syncing);
                }
            }
        }
        Next::Wait(Some(after(self.deps.clock.steady(), DISAGREEMENT)))
    }

    /// Takes in what happened.
    fn absorb(&mut self, update: PodUpdate) {
        self.memory.stale |= update.runtime_changed;
        self.removed |= update.removed;
        if let Some(wanted) = update.pod {
            self.pod = wanted.pod;
        }
        if let Some(eviction) = update.eviction {
            self.memory.evict(eviction);
        }
    }

    fn decide(&self) -> Decision {
        if self.memory.admission == Admission::Admitted && self.memory.stage == WorkerStage::Syncing {
            self.deps.probes.update_pod(&self.pod, &self.runtime);
        }
        let (probes, status) = (self.deps.probes.view(&self.uid), self.reported());
        let node = self.deps.node_view();
        let unread = |c: &RuntimeContainer| {
            c.status.state == ContainerState::Exited && !self.messages.contains_key(&c.status.id)
        };
        let facts = Facts {
            pod: &self.pod,
            removed: self.removed,
            runtime: &self.runtime,
            messages_missing: self.runtime.containers.iter().any(unread),
            probes: &probes,
            status: status.as_deref(),
            network_problem: node.network_problem.as_deref(),
            node_awaited: node.awaited && !spec::is_static(&self.pod),
            wall: self.deps.clock.now(),
        };
        decide(&facts, &self.memory, self.deps.clock.steady())
    }

    /// Remembers a decision and says what it says.
    fn enter(&mut self, decision: &Decision) {
        self.memory.enter(decision);
        if let Some(grace) = decision.grace {
            self.inbox.ending(grace);
        }
        for event in &decision.events {
            self.record_event(event);
        }
        if let Some(stage) = decision.report {
            self.report(stage);
        }
    }

    fn record_event(&self, event: &PodEvent) {
        let kind = if event.warning { EventType::Warning } else { EventType::Normal };
        let (reason, message) = (event.reason.clone(), event.message.clone());
        match &event.container {
            Some(name) => self.deps.events.container(&self.pod, name, kind, reason, message),
            None => self.deps.events.pod(&self.pod, kind, reason, message),
        }
    }

    /// Performs one effect unless it is given up half-way: deletion, eviction,
    /// removal and the active deadline wait for nothing that the pod's own program
    /// or a registry holds up. Keeps what it notes while it goes on.
    async fn perform(&mut self, effect: Effect, until: Option<Timestamp>, interrupt: &CancellationToken) -> bool {
        let interruptible = self.memory.stage.is_interruptible();
        let (journal, mut records) = Journal::new();
        let ctx = self.context(journal);
        let deadline = self.sleep_until(until);
        let unreported = tokio::time::sleep(SLOW);
        let mut waits_for_report = false;
        let work = effects::perform(&ctx, effect);
        tokio::pin!(work, deadline, unreported);
        let done = loop {
            tokio::select! {
                biased;
                // What was done of it shows in the runtime; nothing is polled again.
                () = interrupt.cancelled(), if interruptible => break None,
                () = &mut deadline, if interruptible => break None,
                // Cancel-safe: a record is lost only when it is received.
                Some(record) = records.recv() => {
                    let shows = self.note(record);
                    if shows && !waits_for_report {
                        waits_for_report = true;
                        unreported.as_mut().reset(tokio::time::Instant::now() + SLOW);
                    }
                }
                () = &mut unreported, if waits_for_report => {
                    waits_for_report = false;
                    self.deps.probes.update_pod(&self.pod, &self.runtime);
                    self.report(Stage::Syncing);
                }
                done = &mut work => break Some(done),
            }
        };
        while let Ok(record) = records.try_recv() {
            self.note(record);
        }
        let now = self.deps.clock.steady();
        match done {
            Some(Ok(())) => return true,
            Some(Err(effects::NotDone)) => self.memory.note(Outcome::Failed, now),
            None => self.memory.stale = true,
        }
        false
    }

    fn context(&self, journal: Journal) -> EffectContext {
        EffectContext {
            deps: self.deps.clone(),
            uid: self.uid.clone(),
            name: self.name.clone(),
            pod: self.pod.clone(),
            removed: self.removed,
            runtime: self.runtime.clone(),
            messages: self.messages.clone(),
            hooks_ended: self.memory.hooks_ended.clone(),
            journal,
        }
    }

    /// Keeps what an effect noted. Whether it shows in the pod's status.
    fn note(&mut self, record: Record) -> bool {
        match record {
            Record::View(view, messages) => {
                self.memory.stale = false;
                self.messages = Arc::new(messages);
                self.replace_view(view);
            }
            Record::Messages(messages) => self.messages = Arc::new(messages),
            Record::Changed(view) => self.replace_view(view),
            Record::Stale => self.memory.stale = true,
            Record::Sandbox(status) => {
                self.replace_view(with_sandbox(RuntimePod::clone(&self.runtime), status));
                return true;
            }
            Record::Container(sandbox, status) => {
                self.replace_view(with_container(RuntimePod::clone(&self.runtime), &sandbox, status));
                return true;
            }
            Record::Outcome(outcome) => {
                let shows = matches!(outcome, Outcome::StartFailed { .. });
                self.memory.note(outcome, self.deps.clock.steady());
                return shows;
            }
        }
        false
    }

    fn replace_view(&mut self, view: RuntimePod) {
        self.memory.observe(&view);
        if *self.runtime != view {
            self.runtime = self.deps.cache.put(view);
        }
    }

    /// The status last reported, else the one the pod came with.
    fn reported(&self) -> Option<Arc<PodStatus>> {
        self.deps.status.get(&self.uid).or_else(|| self.pod.status.clone().map(Arc::new))
    }

    /// Hands the status manager what it makes the pod's status from.
    fn report(&self, stage: Stage) {
        if self.removed && !spec::is_static(&self.pod) {
            return;
        }
        let facts = StatusFacts {
            pod: self.pod.clone(),
            runtime: self.runtime.clone(),
            waiting: self.memory.waiting.clone(),
            messages: self.messages.clone(),
            stage,
            failure: self.memory.failure.clone(),
            host_ips: self.deps.node_view().host_ips.clone(),
            runtime_name: self.deps.settings.runtime_name.clone(),
        };
        self.deps.status.report(facts, self.deps.probes.as_ref(), self.deps.clock.now());
    }

    fn sleep_until(&self, at: Option<Timestamp>) -> impl Future<Output = ()> + use<> {
        let now = self.deps.clock.steady();
        let left = at.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
        async move {
            match left {
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
        }
    }
}

fn with_sandbox(mut view: RuntimePod, status: SandboxStatus) -> RuntimePod {
    view.sandboxes.retain(|s| s.summary.id != status.summary.id);
    view.sandboxes.insert(0, status);
    view
}

fn with_container(view: RuntimePod, sandbox: &SandboxId, status: ContainerStatus) -> RuntimePod {
    let (id, created) = (status.id.clone(), status.metadata.clone());
    let keep = |c: &RuntimeContainer| {
        // A leftover of the same name was removed before.
        *c.id() != id && !(c.status.state == ContainerState::Created && c.status.metadata.name == created.name)
    };
    let mut all: Vec<_> = view.containers.into_iter().filter(keep).map(|c| (c.sandbox, c.status)).collect();
    all.push((sandbox.clone(), status));
    RuntimePod::assemble(view.uid, view.name, view.sandboxes, all)
}

//! How the rest of the agent talks to one pod worker: the latest pod wins, any
//! number of wake-ups is one.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::convert::spec;
use crate::plan::preempt::PREEMPTING;
use crate::plan::{grace, memory};
use crate::podsource::DesiredPod;

/// Why the node ends a pod, and how fast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// What its status will say.
    pub message: String,
    /// What containers get to stop, whatever the pod says.
    pub grace: Duration,
}

/// What happened since the worker last looked.
#[derive(Clone, Debug, Default)]
pub(super) struct PodUpdate {
    /// The pod, when it changed.
    pub pod: Option<DesiredPod>,
    /// Nobody wants the pod any more.
    pub removed: bool,
    /// The node runs short of something and this pod has to go.
    pub eviction: Option<memory::Eviction>,
    /// The runtime's view may be out of date.
    pub runtime_changed: bool,
}

#[derive(Debug, Default)]
struct State {
    update: PodUpdate,
    /// Cancelled when the pod is to end, or to end sooner, so that an
    /// effect that waits is given up.
    interrupt: CancellationToken,
    /// What the pod was given to end, once it is to end, whoever wants that.
    grace: Option<Duration>,
    removed: bool,
}

impl State {
    /// The pod is to end within `grace`. Whether that is news, or sooner than it
    /// would have: what is being done is given up then, and nothing else is a
    /// reason to begin an end anew.
    fn end_within(&mut self, grace: Duration) -> bool {
        let sooner = self.grace.is_none_or(|before| grace < before);
        if sooner {
            self.grace = Some(grace);
            self.interrupt.cancel();
        }
        sooner
    }
}

/// Where one worker's updates wait for it.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    notify: Notify,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new version of the pod.
    pub(super) fn update(&self, pod: DesiredPod) {
        let mut state = self.lock();
        if pod.pod.metadata.deletion_timestamp.is_some() || spec::is_over(&pod.pod) {
            let grace = grace::effective(state.grace, &pod.pod, None);
            state.end_within(grace);
        }
        state.update.pod = Some(pod);
        drop(state);
        self.notify.notify_one();
    }

    /// The pod is not wanted any more.
    pub(super) fn remove(&self) {
        let mut state = self.lock();
        state.update.removed = true;
        // A pod that ends already goes on with the grace it was given.
        if !state.removed && state.grace.is_none() {
            state.interrupt.cancel();
        }
        state.removed = true;
        drop(state);
        self.notify.notify_one();
    }

    /// The worker ends its pod within `grace` from now on, for whatever reason.
    pub(super) fn ending(&self, grace: Duration) {
        let mut state = self.lock();
        state.grace = Some(state.grace.map_or(grace, |before| before.min(grace)));
    }

    /// The pod has to go, however well it is. False: it goes already, and this makes no difference.
    pub(super) fn evict(&self, eviction: Eviction) -> bool {
        self.end_early("Evicted", eviction)
    }

    /// The pod has to make room for a critical one.
    pub(super) fn preempt(&self, eviction: Eviction) {
        let _ = self.end_early(PREEMPTING, eviction);
    }

    fn end_early(&self, reason: &'static str, eviction: Eviction) -> bool {
        let mut state = self.lock();
        let Eviction { message, grace } = eviction;
        if !state.end_within(grace.max(grace::LEAST)) {
            return false;
        }
        state.update.eviction = Some(memory::Eviction { reason, message, grace });
        drop(state);
        self.notify.notify_one();
        true
    }

    /// Something of the pod changed in the runtime.
    pub(super) fn runtime_changed(&self) {
        self.lock().update.runtime_changed = true;
        self.notify.notify_one();
    }

    /// Something else changed: probe results, volumes, configuration.
    pub(super) fn wake(&self) {
        self.notify.notify_one();
    }

    /// Waits for anything new. Cancel-safe: a wake-up is kept until taken.
    pub(super) async fn changed(&self) {
        self.notify.notified().await;
    }

    /// Takes what happened and a token for the sync that deals with it.
    pub(super) fn take(&self) -> (PodUpdate, CancellationToken) {
        let mut state = self.lock();
        let update = std::mem::take(&mut state.update);
        state.interrupt = CancellationToken::new();
        (update, state.interrupt.clone())
    }
}

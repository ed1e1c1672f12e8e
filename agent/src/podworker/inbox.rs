//! How the rest of the agent talks to one pod worker: the latest pod wins, any
//! number of wake-ups is one.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::plan::memory;
use crate::plan::preempt::PREEMPTING;
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
    /// The grace period of the deletion that was announced last.
    deletion: Option<i64>,
    removed: bool,
    evicted: bool,
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
        if pod.pod.metadata.deletion_timestamp.is_some() {
            let grace = pod.pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
            if state.deletion.is_none_or(|before| grace < before) {
                state.deletion = Some(grace);
                state.interrupt.cancel();
            }
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
        if !state.removed && state.deletion.is_none() {
            state.interrupt.cancel();
        }
        state.removed = true;
        drop(state);
        self.notify.notify_one();
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
        // A pod that ends already goes on with the grace it was given.
        if state.evicted || state.removed || state.deletion.is_some() {
            return false;
        }
        state.evicted = true;
        let Eviction { message, grace } = eviction;
        state.update.eviction = Some(memory::Eviction { reason, message, grace });
        state.interrupt.cancel();
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
    pub(super) fn poke(&self) {
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

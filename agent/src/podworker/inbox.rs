//! How the rest of the agent talks to one pod worker: the latest pod wins, any
//! number of wake-ups is one.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

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
pub struct Mail {
    /// The pod, when it changed.
    pub pod: Option<DesiredPod>,
    /// Nobody wants the pod any more.
    pub removed: bool,
    /// The node runs short of something and this pod has to go, with the reason
    /// that its status will say.
    pub eviction: Option<(&'static str, Eviction)>,
    /// The runtime's view may be out of date.
    pub dirty: bool,
}

#[derive(Debug, Default)]
struct Slot {
    mail: Mail,
    /// Cancelled when the pod is to end, or to end sooner, so that a step that
    /// waits gives up.
    interrupt: CancellationToken,
    /// The grace period of the deletion that was announced last.
    deletion: Option<i64>,
    removed: bool,
    evicted: bool,
}

/// The mail box of one worker.
#[derive(Debug, Default)]
pub struct Inbox {
    slot: Mutex<Slot>,
    notify: Notify,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new version of the pod.
    pub fn update(&self, pod: DesiredPod) {
        let mut slot = self.lock();
        if pod.pod.metadata.deletion_timestamp.is_some() {
            let grace = pod.pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
            if slot.deletion.is_none_or(|before| grace < before) {
                slot.deletion = Some(grace);
                slot.interrupt.cancel();
            }
        }
        slot.mail.pod = Some(pod);
        drop(slot);
        self.notify.notify_one();
    }

    /// The pod is not wanted any more.
    pub fn remove(&self) {
        let mut slot = self.lock();
        slot.mail.removed = true;
        // A pod that ends already goes on with the grace it was given.
        if !slot.removed && slot.deletion.is_none() {
            slot.interrupt.cancel();
        }
        slot.removed = true;
        drop(slot);
        self.notify.notify_one();
    }

    /// The pod has to go, however well it is.
    pub fn evict(&self, eviction: Eviction) {
        self.end_early("Evicted", eviction);
    }

    /// The pod has to make room for a critical one.
    pub fn preempt(&self, eviction: Eviction) {
        self.end_early(PREEMPTING, eviction);
    }

    fn end_early(&self, reason: &'static str, eviction: Eviction) {
        let mut slot = self.lock();
        // A pod that ends already goes on with the grace it was given.
        if slot.evicted {
            return;
        }
        slot.evicted = true;
        slot.mail.eviction = Some((reason, eviction));
        if !slot.removed && slot.deletion.is_none() {
            slot.interrupt.cancel();
        }
        drop(slot);
        self.notify.notify_one();
    }

    /// Something of the pod changed in the runtime.
    pub fn runtime_changed(&self) {
        self.lock().mail.dirty = true;
        self.notify.notify_one();
    }

    /// Something else changed: probe results, volumes, configuration.
    pub fn poke(&self) {
        self.notify.notify_one();
    }

    /// Waits for anything new. Cancel-safe: a wake-up is kept until taken.
    pub async fn changed(&self) {
        self.notify.notified().await;
    }

    /// Takes the mail and a token for the step that deals with it.
    pub fn take(&self) -> (Mail, CancellationToken) {
        let mut slot = self.lock();
        let mail = std::mem::take(&mut slot.mail);
        slot.interrupt = CancellationToken::new();
        (mail, slot.interrupt.clone())
    }
}

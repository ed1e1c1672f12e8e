//! Keeps projected files current: follows object changes, token lives, retries.

use std::sync::PoisonError;

use futures::future::join_all;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::VolumeSet;
use super::plan::{Part, Source, VolumePlan};
use super::state::PodState;
use crate::ids::PodUid;
use crate::objectcache::{ObjectKind, ObjectRef};

/// Longest wait for a deadline: tokio's timers like an end.
const FOREVER: std::time::Duration = std::time::Duration::from_secs(365 * 24 * 3600);

impl VolumeSet {
    /// Runs until cancelled. Idle, it waits and does nothing.
    pub async fn run(&self, token: CancellationToken) {
        let taken = self.changes.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut changes = taken.unwrap_or_else(|| self.reader.changes());
        loop {
            let deadline = self.next_deadline().await;
            tokio::select! {
                () = token.cancelled() => return,
                // Receiving is cancel-safe: an unread change stays queued.
                change = changes.recv() => match change {
                    Ok(object) => self.refresh_users_of(Some(&object)).await,
                    Err(RecvError::Lagged(_)) => self.refresh_users_of(None).await,
                    // No cache, no changes: only deadlines are left.
                    Err(RecvError::Closed) => return self.run_deadlines(&token).await,
                },
                () = tokio::time::sleep_until(deadline) => self.refresh_due().await,
                () = self.deadlines.notified() => {}
            }
        }
    }

    async fn run_deadlines(&self, token: &CancellationToken) {
        loop {
            let deadline = self.next_deadline().await;
            tokio::select! {
                () = token.cancelled() => return,
                () = tokio::time::sleep_until(deadline) => self.refresh_due().await,
                () = self.deadlines.notified() => {}
            }
        }
    }

    /// Pods that are busy are passed over: they announce their deadlines at the end.
    async fn next_deadline(&self) -> Instant {
        let pods = self.known();
        let deadlines = pods.iter().filter_map(|entry| entry.state.try_lock().ok()?.deadline());
        deadlines.min().unwrap_or_else(|| Instant::now() + FOREVER)
    }

    async fn refresh_due(&self) {
        let pods = self.known();
        join_all(pods.iter().map(async |entry| {
            let mut state = entry.state.lock().await;
            let due = state.due(Instant::now());
            self.refresh(entry, &mut state, &due).await;
        }))
        .await;
    }

    /// Refreshes the volumes that show an object; `None` means any could have changed.
    async fn refresh_users_of(&self, object: Option<&ObjectRef>) {
        let pods = self.known();
        join_all(pods.iter().map(async |entry| {
            let mut state = entry.state.lock().await;
            let names = volumes_showing(&state, object);
            if names.is_empty() {
                return;
            }
            match &state.pod {
                // It waits for another try; what it lacked may be there now.
                Some(pod) if state.mounted.is_none() => (self.sink)(&PodUid::of(pod)),
                _ => self.refresh(entry, &mut state, &names).await,
            }
        }))
        .await;
    }
}

fn volumes_showing(state: &PodState, object: Option<&ObjectRef>) -> Vec<String> {
    let namespace = state.pod.as_ref().and_then(|pod| pod.metadata.namespace.as_deref()).unwrap_or("default");
    if object.is_some_and(|object| &*object.name.namespace != namespace) {
        return Vec::new();
    }
    let shows = |plan: &&VolumePlan| match &plan.source {
        Source::Projected(volume) => volume.parts.iter().any(|part| is_of(part, object)),
        _ => false,
    };
    state.plans.iter().filter(shows).map(|plan| plan.name.clone()).collect()
}

fn is_of(part: &Part, object: Option<&ObjectRef>) -> bool {
    let (kind, name) = match part {
        Part::ConfigMap(part) => (ObjectKind::ConfigMap, part.name.as_str()),
        Part::Secret(part) => (ObjectKind::Secret, part.name.as_str()),
        Part::Downward(_) | Part::Token(_) => return false,
    };
    object.is_none_or(|object| object.kind == kind && &*object.name.name == name)
}

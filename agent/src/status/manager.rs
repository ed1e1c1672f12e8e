//! Makes pods' statuses and is the only one to write them at the API server.
//!
//! Workers hand in facts, never statuses; a probe's new result is joined with
//! the facts handed in last, whatever the pod's worker is busy with. One request
//! per pod is under way at a time, and whatever came in meanwhile goes out as one. When a deleted pod has
//! ended and its last status is written, its object is removed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::containers::TerminationMessages;
use super::generate::{StatusInput, generate};
use super::patch::status_patch;
use crate::contract::{PodProbes, ProbeView};
use crate::convert::spec::{self, CONFIG_HASH, CONFIG_MIRROR};
use crate::ids::{ObjectName, PodUid, segment};
use crate::plan::effect::{PodFailure, WaitReason};
use crate::plan::stage::Stage;
use crate::podcache::RuntimePod;
use crate::podsource::DesiredRx;
use crate::watch::Item;

/// How a write ended.
#[derive(Debug)]
pub enum WriteOutcome {
    /// Done.
    Written,
    /// The object does not exist (any more), or is another pod's.
    Gone,
    /// Worth another try.
    Failed(String),
}

/// The requests the manager sends.
#[async_trait]
pub trait StatusWriter: Send + Sync + std::fmt::Debug {
    /// Patches the status of a pod.
    async fn patch(&self, name: &ObjectName, patch: &Value) -> WriteOutcome;
    /// Removes the object of a pod at once, if it still is the one of that UID.
    async fn delete(&self, name: &ObjectName, uid: &str) -> WriteOutcome;
}

/// Writes through the API server.
#[derive(Clone)]
pub struct ApiWriter {
    client: kube::Client,
}

impl std::fmt::Debug for ApiWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiWriter")
    }
}

impl ApiWriter {
    /// A writer that uses `client`.
    pub fn new(client: kube::Client) -> Self {
        Self { client }
    }

    /// What the server answers is not read: a pod that cannot be is written all the same.
    fn api(&self, name: &ObjectName) -> Api<Item<Pod>> {
        Api::namespaced(self.client.clone(), &name.namespace)
    }

    /// What a refusal means: the server says Conflict (some say Invalid) of another
    /// pod's UID and of two writers that met alike, so the object decides.
    async fn refused(&self, name: &ObjectName, uid: &str, error: &kube::Error) -> WriteOutcome {
        if !matches!(code(error), Some(409 | 422)) {
            return outcome(error);
        }
        match self.api(name).get_metadata(&segment(&name.name)).await {
            Ok(object) if object.metadata.uid.as_deref() == Some(uid) => WriteOutcome::Failed(error.to_string()),
            Ok(_) => WriteOutcome::Gone,
            Err(unread) => outcome(&unread),
        }
    }
}

fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

fn outcome(error: &kube::Error) -> WriteOutcome {
    match code(error) {
        Some(404) => WriteOutcome::Gone,
        _ => WriteOutcome::Failed(error.to_string()),
    }
}

#[async_trait]
impl StatusWriter for ApiWriter {
    async fn patch(&self, name: &ObjectName, patch: &Value) -> WriteOutcome {
        let params = PatchParams::default();
        match self.api(name).patch_status(&segment(&name.name), &params, &Patch::Strategic(patch)).await {
            Ok(_) => WriteOutcome::Written,
            Err(error) => {
                let uid = patch.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
                self.refused(name, uid, &error).await
            }
        }
    }

    async fn delete(&self, name: &ObjectName, uid: &str) -> WriteOutcome {
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            ..DeleteParams::default()
        };
        match self.api(name).delete(&segment(&name.name), &params).await {
            Ok(_) => WriteOutcome::Gone,
            Err(error) => self.refused(name, uid, &error).await,
        }
    }
}

/// What a pod's worker knows of it.
#[derive(Clone, Debug)]
pub struct StatusFacts {
    pub pod: Arc<Pod>,
    pub runtime: Arc<RuntimePod>,
    /// Containers held up, by name.
    pub waiting: BTreeMap<String, WaitReason>,
    pub messages: Arc<TerminationMessages>,
    pub stage: Stage,
    pub failure: Option<PodFailure>,
    pub host_ips: Vec<String>,
    /// `containerd` in `containerd://<id>`.
    pub runtime_name: String,
}

impl StatusFacts {
    fn status(&self, probes: &dyn PodProbes, previous: Option<&PodStatus>, now: Timestamp) -> PodStatus {
        let probes = match self.stage {
            Stage::Terminated => ProbeView::default(),
            Stage::Syncing | Stage::Terminating => probes.view(&PodUid::of(&self.pod)),
        };
        generate(&StatusInput {
            pod: &self.pod,
            runtime: &self.runtime,
            probes: &probes,
            waiting: &self.waiting,
            messages: &self.messages,
            previous,
            stage: self.stage,
            failure: self.failure.as_ref(),
            host_ips: &self.host_ips,
            runtime_name: &self.runtime_name,
            now,
        })
    }
}

#[derive(Debug)]
struct Entry {
    facts: StatusFacts,
    status: Arc<PodStatus>,
    /// What the API server is known to show.
    shown: Option<Arc<PodStatus>>,
    /// The object version `shown` was taken from, when from a watch.
    seen_version: Option<String>,
    finished: bool,
    /// A request is under way.
    busy: bool,
    /// What that request will make the server show.
    sending: Option<Arc<PodStatus>>,
    failures: u32,
    retry_at: Option<tokio::time::Instant>,
}

impl Entry {
    /// The patch to write, if any. Every wake-up asks this of every pod, so what
    /// is known to show already costs one comparison of pointers.
    fn patch(&mut self, target: &str) -> Option<Value> {
        if self.shown.as_ref().is_some_and(|shown| Arc::ptr_eq(shown, &self.status)) {
            return None;
        }
        let patch = status_patch(target, self.shown.as_deref(), &self.status);
        if patch.is_none() {
            self.shown = Some(self.status.clone());
        }
        patch
    }
}

#[derive(Debug, Default)]
struct Shared {
    entries: Mutex<HashMap<PodUid, Entry>>,
    wake: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<PodUid, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands statuses to the writing task. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct StatusManager {
    shared: Arc<Shared>,
}

impl StatusManager {
    /// A manager nobody writes for yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the pod's status anew from what its worker knows now. Probe results
    /// are read while nobody else can report, so that older ones never win.
    pub fn report(&self, facts: StatusFacts, probes: &dyn PodProbes, now: Timestamp) {
        let mut entries = self.shared.lock();
        let previous = entries.get(&PodUid::of(&facts.pod)).map(|e| e.status.clone());
        let status = facts.status(probes, previous.as_deref(), now);
        store(&mut entries, facts, status);
        drop(entries);
        self.shared.wake.notify_one();
    }

    /// Makes the pod's status anew because a probe has another result.
    pub fn probes_changed(&self, uid: &PodUid, probes: &dyn PodProbes, now: Timestamp) {
        let mut entries = self.shared.lock();
        let Some(entry) = entries.get_mut(uid) else { return };
        let status = entry.facts.status(probes, Some(&entry.status), now);
        if *entry.status == status {
            return;
        }
        entry.status = Arc::new(status);
        drop(entries);
        self.shared.wake.notify_one();
    }

    /// Nothing of the pod runs any more, and what it used is free.
    pub fn finished(&self, pod: &Arc<Pod>) {
        if let Some(entry) = self.shared.lock().get_mut(&PodUid::of(pod)) {
            entry.facts.pod = pod.clone();
            entry.finished = true;
        }
        self.shared.wake.notify_one();
    }

    /// The pod is gone.
    pub fn forget(&self, uid: &PodUid) {
        self.shared.lock().remove(uid);
    }

    /// The status last reported for a pod.
    pub fn get(&self, uid: &PodUid) -> Option<Arc<PodStatus>> {
        self.shared.lock().get(uid).map(|e| e.status.clone())
    }

    /// The same once the API server shows it. Of a static pod that does not matter: whether it runs again is not asked
    /// there.
    pub fn get_written(&self, uid: &PodUid) -> Option<Arc<PodStatus>> {
        let entries = self.shared.lock();
        let entry = entries.get(uid)?;
        let written = entry.shown.as_ref() == Some(&entry.status) || spec::is_static(&entry.facts.pod);
        written.then(|| entry.status.clone())
    }

    /// Writes until cancelled. `desired` tells which mirror pod shows a static
    /// one.
    pub async fn run(&self, writer: Arc<dyn StatusWriter>, mut desired: DesiredRx, token: CancellationToken) {
        let mut writes: JoinSet<(PodUid, WriteOutcome)> = JoinSet::new();
        loop {
            let next_retry = self.start_writes(&writer, &desired, &mut writes);
            let timer = async {
                match next_retry {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = token.cancelled() => break,
                // Cancel-safe: a wake-up is kept until taken.
                () = self.shared.wake.notified() => {}
                // Cancel-safe: a finished write stays in the set until taken.
                Some(done) = writes.join_next() => {
                    if let Ok((uid, outcome)) = done {
                        self.note(&uid, outcome);
                    }
                }
                // A mirror pod may have appeared; the sender outlives us or ends all.
                changed = desired.changed() => {
                    if changed.is_err() {
                        break;
                    }
                }
                () = timer => {}
            }
        }
        // What is under way reaches the server; it is the pods' last word from us.
        let drain = async { while writes.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(Duration::from_secs(2), drain).await;
    }

    /// Starts a write for every pod that needs one and has none; returns when
    /// the next retry is due.
    fn start_writes(
        &self,
        writer: &Arc<dyn StatusWriter>,
        desired: &DesiredRx,
        writes: &mut JoinSet<(PodUid, WriteOutcome)>,
    ) -> Option<tokio::time::Instant> {
        let desired = desired.borrow().clone();
        let now = tokio::time::Instant::now();
        let mut next: Option<tokio::time::Instant> = None;
        for (uid, entry) in self.shared.lock().iter_mut().filter(|(_, e)| !e.busy) {
            if let Some(at) = entry.retry_at.filter(|at| *at > now) {
                next = Some(next.map_or(at, |n| n.min(at)));
                continue;
            }
            let name = ObjectName::of_pod(&entry.facts.pod);
            let mut target = uid.to_string();
            if spec::is_static(&entry.facts.pod) {
                // The mirror of another version of the manifest shows that one.
                let own = |m: &&Arc<Pod>| {
                    spec::annotation(m, CONFIG_MIRROR) == spec::annotation(&entry.facts.pod, CONFIG_HASH)
                };
                let Some(mirror) = desired.mirrors.get(&name).filter(own) else { continue };
                target = mirror.metadata.uid.clone().unwrap_or_default();
                if entry.seen_version != mirror.metadata.resource_version {
                    entry.seen_version = mirror.metadata.resource_version.clone();
                    entry.shown = mirror.status.clone().map(Arc::new);
                }
            }
            let (writer, uid) = (writer.clone(), uid.clone());
            if let Some(patch) = entry.patch(&target) {
                entry.busy = true;
                entry.sending = Some(entry.status.clone());
                writes.spawn(async move { (uid, writer.patch(&name, &patch).await) });
            } else if entry.finished
                && entry.facts.pod.metadata.deletion_timestamp.is_some()
                && !spec::is_static(&entry.facts.pod)
            {
                entry.busy = true;
                writes.spawn(async move { (uid, writer.delete(&name, &target).await) });
            }
        }
        next
    }

    fn note(&self, uid: &PodUid, outcome: WriteOutcome) {
        let mut entries = self.shared.lock();
        let Some(entry) = entries.get_mut(uid) else { return };
        entry.busy = false;
        match outcome {
            WriteOutcome::Written => {
                entry.shown = entry.sending.take();
                entry.failures = 0;
                entry.retry_at = None;
            }
            WriteOutcome::Gone => {
                // Nothing to write to: quiet until the pod changes or comes back.
                entry.shown = Some(entry.status.clone());
                entry.finished = false;
                entry.failures = 0;
            }
            WriteOutcome::Failed(error) => {
                tracing::debug!(pod.uid = %uid, %error, "status not written");
                let wait = Duration::from_millis(200).saturating_mul(1 << entry.failures.min(6));
                entry.failures = entry.failures.saturating_add(1);
                entry.retry_at = Some(tokio::time::Instant::now() + wait.min(Duration::from_secs(10)));
            }
        }
    }

    /// Pods with a status that is not written yet.
    pub fn pending(&self) -> HashSet<PodUid> {
        let entries = self.shared.lock();
        entries.iter().filter(|(_, e)| e.shown.as_ref() != Some(&e.status)).map(|(uid, _)| uid.clone()).collect()
    }
}

/// Keeps a pod's latest facts and status.
fn store(entries: &mut HashMap<PodUid, Entry>, facts: StatusFacts, status: PodStatus) {
    let pod = &facts.pod;
    let version = pod.metadata.resource_version.clone();
    let shown = || pod.status.clone().filter(|_| !spec::is_static(pod)).map(Arc::new);
    let Some(entry) = entries.get_mut(&PodUid::of(pod)) else {
        let entry = Entry {
            status: Arc::new(status),
            shown: shown(),
            seen_version: version,
            finished: false,
            busy: false,
            sending: None,
            failures: 0,
            retry_at: None,
            facts,
        };
        entries.insert(PodUid::of(&entry.facts.pod), entry);
        return;
    };
    if entry.seen_version != version {
        // The object was written since: it shows what it shows, unless this is
        // an older version than our own last write made.
        entry.seen_version = version;
        if !spec::is_static(pod) && !entry.busy {
            entry.shown = shown();
        }
    }
    if *entry.status != status {
        entry.status = Arc::new(status);
    }
    entry.facts = facts;
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

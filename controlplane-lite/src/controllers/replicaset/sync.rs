//! Performs a ReplicaSet's plan.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::json;

use super::plan::{self, Scale};
use super::pods::{from_template, slow_start};
use crate::controllers::Context;
use crate::controllers::events::{EventType, Recorder};
use crate::controllers::informers::{Change, ObjectKey, api_in};
use crate::controllers::objects::{Matcher, controller_key, controller_of, controller_ref, name, uid};
use crate::controllers::runtime::{Next, SyncError, WorkQueue, chain, spawn_workers};

type Queue = Arc<WorkQueue<ObjectKey>>;

pub(in crate::controllers) fn start(ctx: &Context) {
    let queue = WorkQueue::new();
    let sink = queue.clone();
    ctx.informers.replica_sets.subscribe(move |change| sink.add(ObjectKey::of(&change.latest().metadata)));
    let (sink, sets) = (queue.clone(), ctx.informers.clone());
    ctx.informers.pods.subscribe(move |change| pod_changed(&sink, &sets, change));
    let worker = Worker { ctx: ctx.clone(), events: ctx.events.named("replicaset-controller") };
    spawn_workers("replicaset", &queue, ctx.config.workers, &ctx.tasks, &ctx.token, move |key| {
        let worker = worker.clone();
        async move { worker.sync(&key).await }
    });
}

/// Wakes the set that controls the pod, before and after; an orphan wakes all it matches.
fn pod_changed(queue: &Queue, informers: &crate::controllers::informers::Informers, change: &Change<'_, Pod>) {
    for pod in [change.old, change.new].into_iter().flatten() {
        if let Some(key) = controller_key::<ReplicaSet>(&pod.metadata) {
            queue.add(key);
        }
    }
    let Some(orphan) = change.new.filter(|p| controller_of(&p.metadata).is_none()) else { return };
    let namespace = orphan.metadata.namespace.as_deref().unwrap_or_default();
    let matching = informers
        .replica_sets
        .list_in(namespace, |rs| rs.spec.as_ref().is_some_and(|s| Matcher::new(&s.selector).matches(&orphan.metadata)));
    for rs in matching {
        queue.add(ObjectKey::of(&rs.metadata));
    }
}

#[derive(Clone)]
struct Worker {
    ctx: Context,
    events: Recorder,
}

impl Worker {
    async fn sync(&self, key: &ObjectKey) -> Result<Next, SyncError> {
        let Some(rs) = self.ctx.informers.replica_sets.get(key) else { return Ok(Next::Wait) };
        let set_uid = uid(&rs.metadata);
        let pods = &self.ctx.informers.pods;
        let claim = plan::claim(&rs, pods.owned(set_uid), pods.orphans(&key.namespace));
        let mut owned = claim.owned;
        for pod in &claim.release {
            self.release(pod, set_uid).await?;
        }
        if !claim.adopt.is_empty() {
            self.check_not_deleted(key, set_uid).await?;
        }
        for pod in claim.adopt {
            owned.extend(self.adopt(&rs, &pod).await?);
        }
        let related = self.related(&rs, &owned);
        let result = match plan::scale(&rs, &owned, &related, Timestamp::now()) {
            Scale::Keep => Ok(()),
            Scale::Create(count) => self.create(&rs, count).await,
            Scale::Delete(victims) => self.delete(&rs, &victims).await,
        };
        // What was created or deleted is in the cache by now.
        let owned = plan::claim(&rs, pods.owned(set_uid), Vec::new()).owned;
        let failure = result.as_ref().err().map(|(reason, error)| (*reason, chain(error)));
        let failure = failure.as_ref().map(|(reason, text)| (*reason, text.as_str()));
        let (status, wake) = plan::status(&rs, &owned, failure, Timestamp::now());
        self.write_status(&rs, status).await?;
        result.map_err(|(_, error)| error)?;
        Ok(wake.map_or(Next::Wait, |w| Next::After(w.unsigned_abs())))
    }

    /// Pods of all sets with the same controller, to spread deletions.
    fn related(&self, rs: &ReplicaSet, owned: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
        let Some(owner) = controller_of(&rs.metadata) else { return owned.to_vec() };
        let siblings = self.ctx.informers.replica_sets.owned(&owner.uid);
        siblings.iter().flat_map(|s| self.ctx.informers.pods.owned(uid(&s.metadata))).collect()
    }

    /// Asks the server itself, so that a set deleted a moment ago adopts nothing.
    async fn check_not_deleted(&self, key: &ObjectKey, set_uid: &str) -> Result<(), SyncError> {
        let api: Api<ReplicaSet> = api_in(&self.ctx.client, key);
        let fresh = api.get(&key.name).await.map_err(SyncError::api("get ReplicaSet", key))?;
        if uid(&fresh.metadata) != set_uid || fresh.metadata.deletion_timestamp.is_some() {
            return Err(SyncError::Incomplete(format!("ReplicaSet {key} is gone or being deleted")));
        }
        Ok(())
    }

    async fn adopt(&self, rs: &ReplicaSet, pod: &Pod) -> Result<Option<Arc<Pod>>, SyncError> {
        let patch = json!({"metadata": {"uid": uid(&pod.metadata), "ownerReferences": [controller_ref(rs)]}});
        self.patch_owners(pod, patch).await
    }

    async fn release(&self, pod: &Pod, owner: &str) -> Result<(), SyncError> {
        let patch =
            json!({"metadata": {"uid": uid(&pod.metadata), "ownerReferences": [{"$patch": "delete", "uid": owner}]}});
        self.patch_owners(pod, patch).await.map(drop)
    }

    async fn patch_owners(&self, pod: &Pod, patch: serde_json::Value) -> Result<Option<Arc<Pod>>, SyncError> {
        let key = ObjectKey::of(&pod.metadata);
        let api: Api<Pod> = api_in(&self.ctx.client, &key);
        match api.patch(&key.name, &PatchParams::default(), &Patch::Strategic(&patch)).await {
            Ok(pod) => {
                self.ctx.informers.pods.written(pod);
                Ok(self.ctx.informers.pods.get(&key))
            }
            // Gone or changed hands: the watch brings the rest.
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 422 => Ok(None),
            Err(error) => Err(SyncError::api("patch owners of Pod", key)(error)),
        }
    }

    async fn create(&self, rs: &ReplicaSet, count: usize) -> Result<(), (&'static str, SyncError)> {
        let Some(template) = rs.spec.as_ref().and_then(|s| s.template.as_ref()) else { return Ok(()) };
        let namespace = rs.metadata.namespace.as_deref().unwrap_or_default();
        let pod = from_template(template, namespace, controller_ref(rs));
        let api: Api<Pod> = Api::namespaced(self.ctx.client.clone(), namespace);
        for batch in slow_start(count) {
            let params = PostParams::default();
            let creations = (0..batch).map(|_| api.create(&params, &pod));
            let mut failure = None;
            for result in futures::future::join_all(creations).await {
                match result {
                    Ok(pod) => {
                        let text = format!("Created pod: {}", name(&pod.metadata));
                        self.ctx.informers.pods.written(pod);
                        self.events.event(rs, EventType::Normal, "SuccessfulCreate", text);
                    }
                    Err(error) => failure = Some(error),
                }
            }
            if let Some(error) = failure {
                // In a namespace being deleted nothing can be created, and nobody wants to hear it.
                let terminating = matches!(&error, kube::Error::Api(s) if namespace_terminating(s));
                if terminating {
                    return Ok(());
                }
                let text = format!("Error creating: {}", api_message(&error));
                self.events.event(rs, EventType::Warning, "FailedCreate", text);
                return Err(("FailedCreate", SyncError::api("create Pod of ReplicaSet", name(&rs.metadata))(error)));
            }
        }
        Ok(())
    }

    async fn delete(&self, rs: &ReplicaSet, victims: &[Arc<Pod>]) -> Result<(), (&'static str, SyncError)> {
        let namespace = rs.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.ctx.client.clone(), namespace);
        let deletions = victims.iter().map(|pod| {
            let api = api.clone();
            async move { (pod, delete_pod(&self.ctx, &api, pod).await) }
        });
        let mut failure = None;
        for (pod, result) in futures::future::join_all(deletions).await {
            match result {
                Ok(()) => {
                    let text = format!("Deleted pod: {}", name(&pod.metadata));
                    self.events.event(rs, EventType::Normal, "SuccessfulDelete", text);
                }
                Err(error) => {
                    let text = format!("Error deleting: {}", api_message(&error));
                    self.events.event(rs, EventType::Warning, "FailedDelete", text);
                    failure = Some(error);
                }
            }
        }
        match failure {
            None => Ok(()),
            Some(error) => Err(("FailedDelete", SyncError::api("delete Pod of ReplicaSet", name(&rs.metadata))(error))),
        }
    }

    async fn write_status(
        &self,
        rs: &ReplicaSet,
        status: k8s_openapi::api::apps::v1::ReplicaSetStatus,
    ) -> Result<(), SyncError> {
        if rs.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let key = ObjectKey::of(&rs.metadata);
        let api: Api<ReplicaSet> = api_in(&self.ctx.client, &key);
        let update = ReplicaSet { status: Some(status), ..rs.clone() };
        match api.replace_status(&key.name, &PostParams::default(), &update).await {
            Ok(rs) => {
                self.ctx.informers.replica_sets.written(rs);
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(SyncError::api("update status of ReplicaSet", key)(error)),
        }
    }
}

/// Deletes exactly this pod and notes it in the cache. A pod that is gone is fine.
pub(in crate::controllers) async fn delete_pod(ctx: &Context, api: &Api<Pod>, pod: &Pod) -> Result<(), kube::Error> {
    let uid = uid(&pod.metadata);
    let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    let params = DeleteParams::default().preconditions(preconditions);
    let key = ObjectKey::of(&pod.metadata);
    match api.delete(&key.name, &params).await.map(|answer| answer.left()) {
        Ok(Some(dying)) if dying.metadata.deletion_timestamp.is_some() => {
            ctx.informers.pods.written(dying);
            Ok(())
        }
        Ok(_) => {
            ctx.informers.pods.removed(&key, uid);
            Ok(())
        }
        // (On a conflict the pod may well live: try again with what the watch shows.)
        Err(kube::Error::Api(status)) if status.code == 404 => {
            ctx.informers.pods.removed(&key, uid);
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn namespace_terminating(status: &kube::core::Status) -> bool {
    let causes = status.details.iter().flat_map(|d| &d.causes);
    status.code == 403 && causes.into_iter().any(|c| c.reason == "NamespaceTerminating")
}

/// What the server said, without our wrapping.
pub(in crate::controllers) fn api_message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

//! Performs a ReplicaSet's plan.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};
use serde_json::json;

use super::plan::{self, Scale};
use super::pods::{from_template, slow_start};
use crate::Context;
use crate::ownership::{self, wake_owners};
use client::events::{EventType, Recorder};
use client::objects::{controller_of, controller_ref, name, uid};
use client::workqueue::{Next, SyncError, WorkQueue, chain, spawn_workers};
use client::{ObjectKey, api_in};

pub(crate) fn start(ctx: &Context) {
    let queue = WorkQueue::new();
    let sink = queue.clone();
    ctx.informers.replica_sets.subscribe(move |change| sink.add(ObjectKey::of(&change.latest().metadata)));
    let (sink, sets) = (queue.clone(), ctx.informers.replica_sets.clone());
    ctx.informers.pods.subscribe(move |change| {
        wake_owners(&sink, &sets, |rs| rs.spec.as_ref().map(|s| &s.selector), change);
    });
    let worker = Worker { ctx: ctx.clone(), events: ctx.events.named("replicaset-controller") };
    spawn_workers("replicaset", &queue, ctx.config.workers, &ctx.runner, move |key| {
        let worker = worker.clone();
        async move { worker.sync(&key).await }
    });
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
        let claim = plan::claim(&rs, pods.owned(&*rs), pods.orphans(&key.namespace));
        let mut owned = claim.owned;
        for pod in &claim.release {
            self.release(pod, set_uid).await?;
        }
        if !claim.adopt.is_empty() {
            ownership::check_not_deleted::<ReplicaSet>(&self.ctx.client, key, set_uid).await?;
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
        let owned = plan::claim(&rs, pods.owned(&*rs), Vec::new()).owned;
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
        let namespace = rs.metadata.namespace.as_deref().unwrap_or_default();
        let siblings = self.ctx.informers.replica_sets.controlled_by(namespace, owner);
        siblings.iter().flat_map(|s| self.ctx.informers.pods.owned(&**s)).collect()
    }

    async fn adopt(&self, rs: &ReplicaSet, pod: &Pod) -> Result<Option<Arc<Pod>>, SyncError> {
        self.patch_owners(pod, json!([controller_ref(rs)])).await
    }

    async fn release(&self, pod: &Pod, owner: &str) -> Result<(), SyncError> {
        self.patch_owners(pod, json!([{"$patch": "delete", "uid": owner}])).await.map(drop)
    }

    async fn patch_owners(&self, pod: &Pod, owners: serde_json::Value) -> Result<Option<Arc<Pod>>, SyncError> {
        ownership::patch_owners(&self.ctx.client, &self.ctx.informers.pods, pod, owners).await
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
        let deletions = victims.iter().map(|pod| async move { (pod, delete_pod(&self.ctx, pod).await) });
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
///
/// It is asked for in its own namespace: "not found" elsewhere would take a living pod out of everybody's cache.
pub(crate) async fn delete_pod(ctx: &Context, pod: &Pod) -> Result<(), kube::Error> {
    let uid = uid(&pod.metadata);
    let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    let params = DeleteParams::default().preconditions(preconditions);
    let key = ObjectKey::of(&pod.metadata);
    let api: Api<Pod> = api_in(&ctx.client, &key);
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

pub(crate) fn namespace_terminating(status: &kube::core::Status) -> bool {
    let causes = status.details.iter().flat_map(|d| &d.causes);
    status.code == 403 && causes.into_iter().any(|c| c.reason == "NamespaceTerminating")
}

/// What the server said, without our wrapping.
pub(crate) fn api_message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

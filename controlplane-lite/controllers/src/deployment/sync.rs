//! Performs a Deployment's plan.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::json;

use super::plan::{Plan, SetChange, plan};
use super::revision::{REVISION, Set, equal};
use crate::Context;
use crate::informers::Informers;
use crate::ownership::{self, wake_owners};
use client::events::{EventType, Recorder};
use client::objects::{Matcher, controller_key, controller_of, controller_ref, deleting, name, terminated, uid};
use client::workqueue::{Next, SyncError, WorkQueue, spawn_workers};
use client::{Change, ObjectKey, api_in};

type Queue = Arc<WorkQueue<ObjectKey>>;

pub(crate) fn start(ctx: &Context) {
    let queue = WorkQueue::new();
    let sink = queue.clone();
    ctx.informers.deployments.subscribe(move |change| sink.add(ObjectKey::of(&change.latest().metadata)));
    let (sink, deployments) = (queue.clone(), ctx.informers.deployments.clone());
    ctx.informers.replica_sets.subscribe(move |change| {
        wake_owners(&sink, &deployments, |d| d.spec.as_ref().map(|s| &s.selector), change);
    });
    let (sink, informers) = (queue.clone(), ctx.informers.clone());
    ctx.informers.pods.subscribe(move |change| pod_ended(&sink, &informers, change));
    let worker = Worker { ctx: ctx.clone(), events: ctx.events.named("deployment-controller") };
    spawn_workers("deployment", &queue, ctx.config.workers, &ctx.runner, move |key| {
        let worker = worker.clone();
        async move { worker.sync(&key).await }
    });
}

/// A Recreate rollout goes on when the last old pod has ended.
fn pod_ended(queue: &Queue, informers: &Informers, change: &Change<'_, Pod>) {
    if change.new.is_some_and(|p| !terminated(p)) {
        return;
    }
    let Some(set) = controller_key::<ReplicaSet>(&change.latest().metadata) else { return };
    let set = informers.replica_sets.get(&set);
    let Some(key) = set.and_then(|rs| controller_key::<Deployment>(&rs.metadata)) else { return };
    let recreate = |d: &Deployment| {
        let strategy = d.spec.as_ref().and_then(|s| s.strategy.as_ref());
        strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate")
    };
    if informers.deployments.get(&key).is_some_and(|d| recreate(&d)) {
        queue.add(key);
    }
}

#[derive(Clone)]
struct Worker {
    ctx: Context,
    events: Recorder,
}

impl Worker {
    async fn sync(&self, key: &ObjectKey) -> Result<Next, SyncError> {
        let Some(d) = self.ctx.informers.deployments.get(key) else { return Ok(Next::Wait) };
        let matcher = d.spec.as_ref().map(|s| Matcher::new(&s.selector));
        let Some(matcher) = matcher.filter(Matcher::matches_something) else {
            let text = "This deployment is selecting all pods. A non-empty selector is required.";
            self.events.event(&*d, EventType::Warning, "SelectingAll", text);
            return Ok(Next::Wait);
        };
        let sets = self.claim(&d, &matcher).await?;
        let pods = &self.ctx.informers.pods;
        let old_pods_run = |old: &[&Set]| old.iter().any(|rs| pods.owned(&***rs).iter().any(|p| !terminated(p)));
        let plan = plan(&d, &sets, &old_pods_run, Timestamp::now());
        self.perform(&d, &sets, plan).await
    }

    /// The sets of the Deployment, after adopting and releasing.
    async fn claim(&self, d: &Deployment, matcher: &Matcher) -> Result<Vec<Set>, SyncError> {
        let store = &self.ctx.informers.replica_sets;
        let mut sets = Vec::new();
        for rs in store.owned(d) {
            if matcher.matches(&rs.metadata) {
                sets.push(rs);
            } else if !deleting(&d.metadata) {
                let owners = json!([{"$patch": "delete", "uid": uid(&d.metadata)}]);
                self.patch_owners(&rs, owners).await?;
            }
        }
        if deleting(&d.metadata) {
            return Ok(sets);
        }
        let key = ObjectKey::of(&d.metadata);
        let adoptable = |rs: &Set| matcher.matches(&rs.metadata) && !deleting(&rs.metadata);
        let orphans: Vec<Set> = store.orphans(&key.namespace).into_iter().filter(adoptable).collect();
        if !orphans.is_empty() {
            ownership::check_not_deleted::<Deployment>(&self.ctx.client, &key, uid(&d.metadata)).await?;
        }
        for rs in orphans {
            sets.extend(self.patch_owners(&rs, json!([controller_ref(d)])).await?);
        }
        Ok(sets)
    }

    async fn patch_owners(&self, rs: &ReplicaSet, owners: serde_json::Value) -> Result<Option<Set>, SyncError> {
        ownership::patch_owners(&self.ctx.client, &self.ctx.informers.replica_sets, rs, owners).await
    }

    async fn perform(&self, d: &Deployment, sets: &[Set], plan: Plan) -> Result<Next, SyncError> {
        let mut plan = plan;
        if let Some(new) = plan.create.take() {
            self.create(d, *new, &mut plan).await?;
        }
        for change in &plan.changes {
            let Some(rs) = sets.iter().find(|rs| name(&rs.metadata) == change.name) else { continue };
            self.change(d, rs, change).await?;
        }
        for set in &plan.delete {
            self.delete(sets, set).await?;
        }
        if let Some(revision) = &plan.revision {
            self.note_revision(d, revision).await?;
        }
        self.write_status(d, plan.status).await?;
        Ok(plan.wake.map_or(Next::Wait, |w| Next::After(w.unsigned_abs())))
    }

    async fn create(&self, d: &Deployment, new: ReplicaSet, plan: &mut Plan) -> Result<(), SyncError> {
        let key = ObjectKey::of(&new.metadata);
        let api: Api<ReplicaSet> = api_in(&self.ctx.client, &key);
        let replicas = new.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
        match api.create(&PostParams::default(), &new).await {
            Ok(rs) => {
                self.ctx.informers.replica_sets.written(rs);
                if replicas > 0 {
                    let text = format!("Scaled up replica set {} from 0 to {replicas}", key.name);
                    self.events.event(d, EventType::Normal, "ScalingReplicaSet", text);
                }
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 409 && status.is_already_exists() => {
                self.collided(d, &new, plan).await
            }
            Err(error) => {
                let text = format!("Failed to create new replica set \"{}\": {error}", key.name);
                self.events.event(d, EventType::Warning, "FailedCreate", text);
                Err(SyncError::api("create ReplicaSet", key)(error))
            }
        }
    }

    /// A set of that name exists: ours from an earlier attempt, or another
    /// template with the same hash, which calls for another name.
    async fn collided(&self, d: &Deployment, new: &ReplicaSet, plan: &mut Plan) -> Result<(), SyncError> {
        let key = ObjectKey::of(&new.metadata);
        let api: Api<ReplicaSet> = api_in(&self.ctx.client, &key);
        let have = api.get(&key.name).await.map_err(SyncError::api("get ReplicaSet", &key))?;
        let ours = controller_of(&have.metadata).is_some_and(|o| o.uid == uid(&d.metadata));
        let template = |rs: &ReplicaSet| rs.spec.as_ref().and_then(|s| s.template.clone());
        let same = matches!((template(&have), template(new)), (Some(a), Some(b)) if equal(&a, &b));
        if ours && same {
            self.ctx.informers.replica_sets.written(have);
            return Ok(());
        }
        if same && controller_of(&have.metadata).is_none() {
            // An orphan the cache did not show yet: to be adopted, not avoided.
            self.ctx.informers.replica_sets.written(have);
            return Err(SyncError::Incomplete(format!("ReplicaSet {key} is to be adopted")));
        }
        plan.status.collision_count = Some(plan.status.collision_count.unwrap_or(0).saturating_add(1));
        self.write_status(d, plan.status.clone()).await?;
        Err(SyncError::Incomplete(format!("hash collision of {key}")))
    }

    async fn change(&self, d: &Deployment, rs: &ReplicaSet, change: &SetChange) -> Result<(), SyncError> {
        let key = ObjectKey::of(&rs.metadata);
        let mut spec = serde_json::Map::new();
        if let Some((_, to)) = change.replicas {
            spec.insert("replicas".to_owned(), json!(to));
        }
        if let Some(seconds) = change.min_ready_seconds {
            spec.insert("minReadySeconds".to_owned(), json!(seconds));
        }
        // The version makes this fail if the set was resized meanwhile.
        let patch = json!({
            "metadata": {"resourceVersion": rs.metadata.resource_version, "annotations": change.annotations},
            "spec": spec,
        });
        let api: Api<ReplicaSet> = api_in(&self.ctx.client, &key);
        let answer = api.patch(&key.name, &PatchParams::default(), &Patch::Merge(&patch)).await;
        self.ctx.informers.replica_sets.written(answer.map_err(SyncError::api("scale ReplicaSet", &key))?);
        if let Some((from, to)) = change.replicas {
            let direction = if to > from { "up" } else { "down" };
            let text = format!("Scaled {direction} replica set {} from {from} to {to}", key.name);
            self.events.event(d, EventType::Normal, "ScalingReplicaSet", text);
        }
        Ok(())
    }

    async fn delete(&self, sets: &[Set], set: &str) -> Result<(), SyncError> {
        let Some(rs) = sets.iter().find(|rs| name(&rs.metadata) == set) else { return Ok(()) };
        let key = ObjectKey::of(&rs.metadata);
        let preconditions =
            Preconditions { uid: rs.metadata.uid.clone(), resource_version: rs.metadata.resource_version.clone() };
        let api: Api<ReplicaSet> = api_in(&self.ctx.client, &key);
        match api.delete(&key.name, &DeleteParams::background().preconditions(preconditions)).await {
            Ok(answer) => {
                if answer.left().is_none_or(|rs| rs.metadata.deletion_timestamp.is_none()) {
                    self.ctx.informers.replica_sets.removed(&key, uid(&rs.metadata));
                }
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(SyncError::api("delete ReplicaSet", key)(error)),
        }
    }

    async fn note_revision(&self, d: &Deployment, revision: &str) -> Result<(), SyncError> {
        let key = ObjectKey::of(&d.metadata);
        let patch = json!({"metadata": {"uid": uid(&d.metadata), "annotations": {REVISION: revision}}});
        let api: Api<Deployment> = api_in(&self.ctx.client, &key);
        match api.patch(&key.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(d) => self.ctx.informers.deployments.written(d),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(SyncError::api("note revision of Deployment", key)(error)),
        }
        Ok(())
    }

    async fn write_status(
        &self,
        d: &Deployment,
        status: k8s_openapi::api::apps::v1::DeploymentStatus,
    ) -> Result<(), SyncError> {
        if d.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let key = ObjectKey::of(&d.metadata);
        // Our own note of the revision may have made a new version of the same object.
        let latest = self.ctx.informers.deployments.get(&key);
        let latest = latest.filter(|l| {
            uid(&l.metadata) == uid(&d.metadata)
                && l.metadata.generation == d.metadata.generation
                && l.status == d.status
        });
        let mut update = latest.map_or_else(|| d.clone(), |l| (*l).clone());
        update.status = Some(status);
        let api: Api<Deployment> = api_in(&self.ctx.client, &key);
        match api.replace_status(&key.name, &PostParams::default(), &update).await {
            Ok(d) => self.ctx.informers.deployments.written(d),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(SyncError::api("update status of Deployment", key)(error)),
        }
        Ok(())
    }
}

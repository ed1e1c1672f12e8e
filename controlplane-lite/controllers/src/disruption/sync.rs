//! Watches budgets, pods and their controllers; writes what the plan says.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Api;
use kube::api::PostParams;

use super::plan::{needs_scale, plan};
use crate::Context;
use client::events::EventType;
use client::objects::{Matcher, controller_key, controller_of, name, uid};
use client::workqueue::{Next, SyncError, WorkQueue, spawn_workers};
use client::{Change, ObjectKey, api_in};

type Queue = Arc<WorkQueue<ObjectKey>>;

pub(crate) fn start(ctx: &Context) {
    let queue: Queue = WorkQueue::new();
    let sink = queue.clone();
    ctx.informers.disruption_budgets.subscribe(move |change| {
        if change.new.is_some() {
            sink.add(ObjectKey::of(&change.latest().metadata));
        }
    });
    let (sink, inner) = (queue.clone(), ctx.clone());
    ctx.informers.pods.subscribe(move |change| pod_changed(&inner, &sink, change));
    // A new size changes what is expected, although no pod changes.
    let (sink, inner) = (queue.clone(), ctx.clone());
    ctx.informers.deployments.subscribe(move |change| {
        let size = |d: Option<&Arc<Deployment>>| d.and_then(|d| d.spec.as_ref()?.replicas);
        if size(change.old) != size(change.new) {
            wake_namespace(&inner, &sink, change.latest().metadata.namespace.as_deref());
        }
    });
    let (sink, inner) = (queue.clone(), ctx.clone());
    ctx.informers.replica_sets.subscribe(move |change| {
        let size = |rs: Option<&Arc<ReplicaSet>>| rs.and_then(|rs| rs.spec.as_ref()?.replicas);
        if size(change.old) != size(change.new) {
            wake_namespace(&inner, &sink, change.latest().metadata.namespace.as_deref());
        }
    });
    let worker = ctx.clone();
    spawn_workers("disruption", &queue, 1, &ctx.runner, move |key| {
        let ctx = worker.clone();
        async move { sync(&ctx, &key).await }
    });
}

fn matcher(budget: &PodDisruptionBudget) -> Option<Matcher> {
    budget.spec.as_ref()?.selector.as_ref().map(Matcher::new)
}

/// Wakes the budgets that select the pod, before or after.
fn pod_changed(ctx: &Context, queue: &Queue, change: &Change<'_, Pod>) {
    let namespace = change.latest().metadata.namespace.as_deref().unwrap_or_default();
    let hit = |budget: &PodDisruptionBudget| {
        let pods = [change.old, change.new];
        matcher(budget).is_some_and(|m| pods.into_iter().flatten().any(|pod| m.matches(&pod.metadata)))
    };
    for budget in ctx.informers.disruption_budgets.list_in(namespace, hit) {
        queue.add(ObjectKey::of(&budget.metadata));
    }
}

fn wake_namespace(ctx: &Context, queue: &Queue, namespace: Option<&str>) {
    for budget in ctx.informers.disruption_budgets.list_in(namespace.unwrap_or_default(), needs_scale) {
        queue.add(ObjectKey::of(&budget.metadata));
    }
}

async fn sync(ctx: &Context, key: &ObjectKey) -> Result<Next, SyncError> {
    let Some(budget) = ctx.informers.disruption_budgets.get(key) else { return Ok(Next::Wait) };
    let events = ctx.events.named("controllermanager");
    let pods = matcher(&budget).map(|m| ctx.informers.pods.list_in(&key.namespace, |p| m.matches(&p.metadata)));
    let pods = pods.unwrap_or_default();
    let scale = if needs_scale(&budget) { scale(ctx, key, &pods).await? } else { Ok(0) };
    if let Err(error) = &scale {
        let text = format!("Failed to calculate the number of expected pods: {error}");
        events.event(&*budget, EventType::Warning, "CalculateExpectedPodCountFailed", text);
    }
    let selected: Vec<&Pod> = pods.iter().map(|p| &**p).collect();
    let plan = plan(&budget, &selected, scale, Timestamp::now());
    for pod in pods.iter().filter(|p| plan.not_deleted.iter().any(|n| n == name(&p.metadata))) {
        let text = format!("Pod was expected by PDB {key} to be deleted but it wasn't");
        events.event(&**pod, EventType::Warning, "NotDeleted", text);
    }
    if budget.status.as_ref() != Some(&plan.status) {
        let api: Api<PodDisruptionBudget> = api_in(&ctx.client, key);
        // With the version that was read: an eviction in between counts in the same status.
        let next = PodDisruptionBudget { status: Some(plan.status), ..(*budget).clone() };
        match api.replace_status(&key.name, &PostParams::default(), &next).await {
            Ok(written) => ctx.informers.disruption_budgets.written(written),
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(Next::Wait),
            Err(error) => return Err(SyncError::api("update status of PodDisruptionBudget", key)(error)),
        }
    }
    Ok(plan.wake.map_or(Next::Wait, |wake| Next::After(wake.unsigned_abs())))
}

/// The sum of the sizes of the controllers of these pods. Pods without a controller count for nothing.
async fn scale(ctx: &Context, key: &ObjectKey, pods: &[Arc<Pod>]) -> Result<Result<i32, String>, SyncError> {
    let mut sizes: BTreeMap<String, i32> = BTreeMap::new();
    for pod in pods {
        let Some(owner) = controller_of(&pod.metadata) else { continue };
        if sizes.contains_key(&owner.uid) {
            continue;
        }
        let size = match owner.kind.as_str() {
            "ReplicaSet" => replica_set_size(ctx, pod, &mut sizes),
            "StatefulSet" => {
                let api: Api<StatefulSet> = api_in(&ctx.client, key);
                let found = api.get_opt(&owner.name).await.map_err(SyncError::api("get StatefulSet", &owner.name))?;
                found.map(|set| set.spec.and_then(|s| s.replicas).unwrap_or(1))
            }
            "ReplicationController" => {
                let api: Api<ReplicationController> = api_in(&ctx.client, key);
                let found = api.get_opt(&owner.name).await;
                let found = found.map_err(SyncError::api("get ReplicationController", &owner.name))?;
                found.map(|rc| rc.spec.and_then(|s| s.replicas).unwrap_or(1))
            }
            kind => {
                return Ok(Err(format!("{kind} {} does not implement the scale subresource", owner.name)));
            }
        };
        let Some(size) = size else {
            return Ok(Err(format!("found no controllers for pod {:?}", name(&pod.metadata))));
        };
        sizes.insert(owner.uid.clone(), size);
    }
    Ok(Ok(sizes.values().copied().fold(0, i32::saturating_add)))
}

/// The size of a pod's ReplicaSet. That of a Deployment's is the Deployment's, counted once for all its sets.
fn replica_set_size(ctx: &Context, pod: &Pod, sizes: &mut BTreeMap<String, i32>) -> Option<i32> {
    let set = ctx.informers.replica_sets.get(&controller_key::<ReplicaSet>(&pod.metadata)?)?;
    let Some(deployment) = controller_key::<Deployment>(&set.metadata) else {
        return Some(set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1));
    };
    let deployment = ctx.informers.deployments.get(&deployment)?;
    let size = deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
    sizes.insert(uid(&deployment.metadata).to_owned(), size);
    Some(0)
}

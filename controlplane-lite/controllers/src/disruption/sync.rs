//! Watches budgets, pods and their controllers; writes what the plan says.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use super::plan::{DISRUPTION_TARGET, needs_scale, plan, stale_mark};
use super::scale::{Scale, scale};
use crate::Context;
use client::events::{EventType, Recorder};
use client::objects::{Matcher, name, uid};
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
    start_unmarking(ctx);
}

/// Takes back marks of pods that were to be disrupted and were not.
fn start_unmarking(ctx: &Context) {
    let queue: Queue = WorkQueue::new();
    let sink = queue.clone();
    ctx.informers.pods.subscribe(move |change| {
        let wait = change.new.and_then(|pod| stale_mark(pod, Timestamp::now()));
        if let Some(wait) = wait {
            sink.add_after(ObjectKey::of(&change.latest().metadata), wait.unsigned_abs());
        }
    });
    let worker = ctx.clone();
    spawn_workers("disruption-stale-pod", &queue, 1, &ctx.runner, move |key| {
        let ctx = worker.clone();
        async move { unmark(&ctx, &key).await }
    });
}

async fn unmark(ctx: &Context, key: &ObjectKey) -> Result<Next, SyncError> {
    let now = Timestamp::now();
    let pod = ctx.informers.pods.get(key);
    let Some((pod, wait)) = pod.and_then(|pod| stale_mark(&pod, now).map(|wait| (pod, wait))) else {
        return Ok(Next::Wait);
    };
    if wait.is_positive() {
        return Ok(Next::After(wait.unsigned_abs()));
    }
    let condition = json!({
        "type": DISRUPTION_TARGET, "status": "False", "reason": null, "message": null, "lastTransitionTime": Time(now),
    });
    let meta = &pod.metadata;
    let patch = json!({
        // As it was seen: an eviction that has just begun marks it anew.
        "metadata": {"uid": uid(meta), "resourceVersion": meta.resource_version},
        "status": {"conditions": [condition]},
    });
    let api: Api<Pod> = api_in(&ctx.client, key);
    match api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(&patch)).await {
        Ok(written) => ctx.informers.pods.written(written),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(SyncError::api("reset DisruptionTarget of Pod", key)(error)),
    }
    Ok(Next::Wait)
}

/// What a budget selects. In policy/v1 an empty selector selects every pod, an absent one none.
fn matcher(budget: &PodDisruptionBudget) -> Option<Matcher> {
    budget.spec.as_ref()?.selector.as_ref().map(Matcher::or_everything)
}

/// Wakes the budgets that select the pod, before or after.
fn pod_changed(ctx: &Context, queue: &Queue, change: &Change<'_, Pod>) {
    let namespace = change.latest().metadata.namespace.as_deref().unwrap_or_default();
    let hit = |budget: &PodDisruptionBudget| {
        let pods = [change.old, change.new];
        matcher(budget).is_some_and(|m| pods.into_iter().flatten().any(|pod| m.matches(&pod.metadata)))
    };
    let budgets = ctx.informers.disruption_budgets.list_in(namespace, hit);
    for budget in &budgets {
        queue.add(ObjectKey::of(&budget.metadata));
    }
    let Some(pod) = change.new else { return };
    let of_pod = budgets.iter().filter(|b| matcher(b).is_some_and(|m| m.matches(&pod.metadata)));
    if of_pod.count() > 1 {
        let text = format!(
            "Pod {namespace:?}/{:?} matches multiple PodDisruptionBudgets; it cannot be evicted.",
            name(&pod.metadata)
        );
        let events = ctx.events.named("controllermanager");
        events.event(&**pod, EventType::Warning, "MultiplePodDisruptionBudgets", text);
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
    let scale = if needs_scale(&budget) { scale(ctx, key, &pods).await? } else { Ok(Scale::default()) };
    record_events(&events, &budget, pods.is_empty(), &scale);
    let selected: Vec<&Pod> = pods.iter().map(|p| &**p).collect();
    let plan = plan(&budget, &selected, scale.map(|scale| scale.size), Timestamp::now());
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

/// Records as events what keeps a budget from meaning what its owner thinks it does.
fn record_events(events: &Recorder, budget: &PodDisruptionBudget, no_pods: bool, scale: &Result<Scale, String>) {
    if no_pods {
        events.event(budget, EventType::Normal, "NoPods", "No matching pods found");
    }
    match scale {
        Ok(Scale { unmanaged, .. }) if !unmanaged.is_empty() => {
            let text = format!(
                "Pods selected by this PodDisruptionBudget were found to be unmanaged ({} of them, {} among them). As a \
                 result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. \
                 To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value.",
                unmanaged.len(),
                unmanaged[0]
            );
            events.event(budget, EventType::Warning, "UnmanagedPods", text);
        }
        Ok(_) => {}
        Err(error) => {
            let text = format!("Failed to calculate the number of expected pods: {error}");
            events.event(budget, EventType::Warning, "CalculateExpectedPodCountFailed", text);
        }
    }
}

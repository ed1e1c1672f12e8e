//! Evicts pods that do not bear their node's NoExecute taints.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::eviction::{TaintEviction, TaintTimes, taint_eviction};
use crate::Context;
use crate::moment::Moment;
use crate::replicaset::delete_pod;
use client::events::EventType;
use client::objects::uid;
use client::workqueue::{Next, SyncError, WorkQueue, spawn_workers};
use client::{Change, ObjectKey, api_in};

pub(super) fn start(ctx: &Context) {
    let queue = WorkQueue::new();
    let (sink, nodes) = (queue.clone(), ctx.informers.nodes.clone());
    ctx.informers.pods.subscribe(move |change| {
        let Some(pod) = change.new.filter(|p| !node_name(p).is_empty()) else { return };
        // A pod on a node without such taints costs nothing.
        if nodes.get(&ObjectKey::new("", node_name(pod))).is_some_and(|n| no_execute(&n)) {
            sink.add(ObjectKey::of(&pod.metadata));
        }
    });
    let (sink, pods) = (queue.clone(), ctx.informers.pods.clone());
    let times = Times::default();
    let observed = times.clone();
    ctx.informers.nodes.subscribe(move |change| {
        observe(&observed, change);
        let taints = |n: &Node| n.spec.as_ref().and_then(|s| s.taints.clone());
        let Some(node) = change.new.filter(|n| no_execute(n)) else { return };
        if change.old.is_some_and(|old| taints(old) == taints(node)) {
            return;
        }
        let name = node.metadata.name.as_deref().unwrap_or_default();
        for pod in pods.list().into_iter().filter(|p| node_name(p) == name) {
            sink.add(ObjectKey::of(&pod.metadata));
        }
    });
    let worker = ctx.clone();
    spawn_workers("taint-eviction-controller", &queue, 4, &ctx.runner, move |key| {
        let (ctx, times) = (worker.clone(), times.clone());
        async move { sync(&ctx, &times, &key).await }
    });
}

/// Since when taints have been seen, by node.
type Times = Arc<Mutex<HashMap<String, TaintTimes>>>;

fn observe(times: &Times, change: &Change<'_, Node>) {
    let name = change.latest().metadata.name.clone().unwrap_or_default();
    let mut times = times.lock().unwrap_or_else(PoisonError::into_inner);
    match change.new.filter(|node| no_execute(node)) {
        Some(node) => times.entry(name).or_default().observe(node, Moment::now()),
        None => drop(times.remove(&name)),
    }
}

fn node_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or("")
}

fn no_execute(node: &Node) -> bool {
    node.spec.as_ref().is_some_and(|s| s.taints.iter().flatten().any(|t| t.effect == "NoExecute"))
}

async fn sync(ctx: &Context, times: &Times, key: &ObjectKey) -> Result<Next, SyncError> {
    let Some(pod) = ctx.informers.pods.get(key) else { return Ok(Next::Wait) };
    let Some(node) = ctx.informers.nodes.get(&ObjectKey::new("", node_name(&pod))) else { return Ok(Next::Wait) };
    let times = times.lock().unwrap_or_else(PoisonError::into_inner).get(node_name(&pod)).cloned();
    match taint_eviction(&pod, &node, &times.unwrap_or_default(), Moment::now()) {
        TaintEviction::Stay => Ok(Next::Wait),
        TaintEviction::LeaveIn(wait) => Ok(Next::After(wait)),
        TaintEviction::Leave => evict(ctx, key, &pod).await,
    }
}

async fn evict(ctx: &Context, key: &ObjectKey, pod: &Pod) -> Result<Next, SyncError> {
    tracing::info!(pod = %key, node = node_name(pod), "evicting pod from tainted node");
    let events = ctx.events.named("taint-eviction-controller");
    events.event(pod, EventType::Normal, "TaintManagerEviction", format!("Marking for deletion Pod {key}"));
    let api: Api<Pod> = api_in(&ctx.client, key);
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
        "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": Time(Timestamp::now()),
    });
    let patch = json!({"metadata": {"uid": uid(&pod.metadata)}, "status": {"conditions": [condition]}});
    match api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(&patch)).await {
        Ok(pod) => ctx.informers.pods.written(pod),
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => return Ok(Next::Wait),
        Err(error) => return Err(SyncError::api("mark Pod for eviction", key)(error)),
    }
    delete_pod(ctx, pod).await.map_err(SyncError::api("evict Pod", key))?;
    Ok(Next::Wait)
}

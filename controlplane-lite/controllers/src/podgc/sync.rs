//! Deletes what the plan names, without grace: no kubelet will do it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;

use super::plan::{Cause, NodeState, plan, state};
use crate::Context;
use crate::moment::Moment;
use client::objects::{deleting, terminated, uid};
use client::workqueue::{Next, SyncError, WorkQueue, spawn_workers};
use client::{ObjectKey, segment};

/// Events within this time are handled together; a pass looks at every pod.
const PERIOD: Duration = Duration::from_secs(20);

pub(crate) fn start(ctx: &Context) {
    let queue = WorkQueue::new();
    let sink = queue.clone();
    ctx.informers.nodes.subscribe(move |change| {
        if state(change.new.map(|node| &**node)) != NodeState::Here {
            sink.add(());
        }
    });
    let (sink, nodes) = (queue.clone(), ctx.informers.nodes.clone());
    ctx.informers.pods.subscribe(move |change| {
        let Some(pod) = change.new else { return };
        let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or("");
        let found = if node.is_empty() { None } else { Some(state(nodes.get(&ObjectKey::new("", node)).as_deref())) };
        if deleting(&pod.metadata) && matches!(found, None | Some(NodeState::OutOfService)) {
            sink.add(());
        } else if found == Some(NodeState::Missing) || terminated(pod) {
            sink.add_after((), PERIOD);
        }
    });
    let unknown = Arc::new(Mutex::new(BTreeMap::new()));
    let worker = ctx.clone();
    spawn_workers("pod-garbage-collector", &queue, 1, &ctx.runner, move |()| {
        let (ctx, unknown) = (worker.clone(), unknown.clone());
        async move { sync(&ctx, &unknown).await }
    });
}

async fn sync(ctx: &Context, unknown: &Mutex<BTreeMap<String, Instant>>) -> Result<Next, SyncError> {
    let pods = ctx.informers.pods.list();
    let node = |name: &str| state(ctx.informers.nodes.get(&ObjectKey::new("", name)).as_deref());
    let threshold = ctx.config.terminated_pod_gc_threshold;
    let (doomed, wake) = {
        let mut unknown = unknown.lock().unwrap_or_else(PoisonError::into_inner);
        plan(&pods, &node, &mut unknown, threshold, Moment::now().instant)
    };
    // One that cannot be deleted keeps nobody else; the pass comes again for it.
    let mut failed = None;
    for (pod, cause) in doomed {
        if let Err(error) = collect(ctx, &pod, cause).await {
            failed = Some(error);
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    Ok(wake.map_or(Next::Wait, Next::After))
}

async fn collect(ctx: &Context, pod: &Pod, cause: Cause) -> Result<(), SyncError> {
    if cause == Cause::Orphaned && node_lives(ctx, pod).await? {
        return Ok(());
    }
    delete(ctx, pod, cause).await
}

/// Asks the server itself before a pod is declared lost.
async fn node_lives(ctx: &Context, pod: &Pod) -> Result<bool, SyncError> {
    let name = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or("");
    let api: Api<Node> = Api::all(ctx.client.clone());
    api.get_opt(&segment(name)).await.map(|n| n.is_some()).map_err(SyncError::api("get Node", name))
}

async fn delete(ctx: &Context, pod: &Pod, cause: Cause) -> Result<(), SyncError> {
    let key = ObjectKey::of(&pod.metadata);
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &key.namespace);
    tracing::info!(pod = %key, ?cause, "deleting pod");
    if !terminated(pod) {
        mark_failed(&api, pod, &key, cause).await?;
    }
    let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
    let params = DeleteParams::default().grace_period(0).preconditions(preconditions);
    match api.delete(&key.name, &params).await {
        Ok(_) => {
            ctx.informers.pods.removed(&key, uid(&pod.metadata));
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        Err(error) => Err(SyncError::api("delete Pod", key)(error)),
    }
}

/// A pod that nobody runs has failed: its controller counts it so.
async fn mark_failed(api: &Api<Pod>, pod: &Pod, key: &ObjectKey, cause: Cause) -> Result<(), SyncError> {
    let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::now());
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
        "message": "PodGC: node no longer exists", "lastTransitionTime": now,
    });
    let conditions = if cause == Cause::Orphaned { vec![condition] } else { Vec::new() };
    let patch =
        json!({"metadata": {"uid": uid(&pod.metadata)}, "status": {"phase": "Failed", "conditions": conditions}});
    match api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(&patch)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        Err(error) => Err(SyncError::api("mark Pod failed", key)(error)),
    }
}

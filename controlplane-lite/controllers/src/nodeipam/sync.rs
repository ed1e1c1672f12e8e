//! Writes `spec.podCIDR` of nodes that have none.

use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::plan::{Allocations, Cidr};
use crate::Context;
use client::ObjectKey;
use client::events::EventType;
use client::objects::uid;
use client::workqueue::{Next, SyncError, WorkQueue, spawn_workers};

pub(crate) fn start(ctx: &Context) {
    let Some(cluster) = ctx.config.cluster_cidr else { return };
    let allocations = Arc::new(Mutex::new(Allocations::new(cluster, ctx.config.node_cidr_mask)));
    // What nodes already hold is known before anything is handed out.
    for node in ctx.informers.nodes.list() {
        note(&allocations, &node);
    }
    let queue = WorkQueue::new();
    let (sink, known) = (queue.clone(), allocations.clone());
    ctx.informers.nodes.subscribe(move |change| match (change.old, change.new) {
        (Some(old), None) => {
            known.lock().unwrap_or_else(PoisonError::into_inner).release(old.metadata.name.as_deref().unwrap_or(""));
        }
        (_, Some(node)) => {
            note(&known, node);
            if pod_cidr(node).is_none() {
                sink.add(ObjectKey::of(&node.metadata));
            }
        }
        (None, None) => {}
    });
    let worker = ctx.clone();
    spawn_workers("node-ipam", &queue, 1, &ctx.runner, move |key| {
        let (ctx, allocations) = (worker.clone(), allocations.clone());
        async move { sync(&ctx, &allocations, &key).await }
    });
}

fn pod_cidr(node: &Node) -> Option<&str> {
    node.spec.as_ref()?.pod_cidr.as_deref().filter(|c| !c.is_empty())
}

fn note(allocations: &Mutex<Allocations>, node: &Node) {
    let name = node.metadata.name.as_deref().unwrap_or("");
    if let Some(cidr) = pod_cidr(node).and_then(|c| c.parse::<Cidr>().ok()) {
        allocations.lock().unwrap_or_else(PoisonError::into_inner).occupy(name, cidr);
    }
}

async fn sync(ctx: &Context, allocations: &Mutex<Allocations>, key: &ObjectKey) -> Result<Next, SyncError> {
    let Some(node) = ctx.informers.nodes.get(key).filter(|n| pod_cidr(n).is_none()) else { return Ok(Next::Wait) };
    let assigned = allocations.lock().unwrap_or_else(PoisonError::into_inner).assign(&key.name);
    let Some(cidr) = assigned else {
        let events = ctx.events.named("cidrAllocator");
        events.event(
            &*node,
            EventType::Normal,
            "CIDRNotAvailable",
            format!("Node {} status is now: CIDRNotAvailable", key.name),
        );
        return Err(SyncError::Invalid(format!("no pod range is left for node {}", key.name)));
    };
    let text = cidr.to_string();
    // The uid makes sure that a node of the same name, recreated meanwhile, is a conflict.
    let patch = json!({"metadata": {"uid": uid(&node.metadata)}, "spec": {"podCIDR": text, "podCIDRs": [text]}});
    let api: Api<Node> = Api::all(ctx.client.clone());
    match api.patch(&key.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(node) => {
            tracing::info!(node = %key.name, pod_cidr = %cidr, "pod network assigned");
            ctx.informers.nodes.written(node);
            Ok(Next::Wait)
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Next::Wait),
        Err(error) => Err(SyncError::api("patch podCIDR of node", key)(error)),
    }
}

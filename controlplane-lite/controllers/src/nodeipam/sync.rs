//! Writes `spec.podCIDR` of nodes that have none.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::plan::{Allocations, Cidr};
use crate::Context;
use client::events::EventType;
use client::objects::uid;
use client::workqueue::{Next, SyncError, WorkQueue, spawn_workers};
use client::{ObjectKey, Store};

pub(crate) fn start(ctx: &Context) {
    let Some(cluster) = ctx.config.cluster_cidr else { return };
    let allocations = Arc::new(Mutex::new(Allocations::new(cluster, ctx.config.node_cidr_mask)));
    let (queue, nodes) = (WorkQueue::new(), &ctx.informers.nodes);
    // What nodes already hold is known before anything is handed out.
    for node in nodes.list() {
        note(nodes, &allocations, &ObjectKey::of(&node.metadata));
    }
    follow(nodes, &allocations, &queue);
    let worker = ctx.clone();
    spawn_workers("node-ipam", &queue, 1, &ctx.runner, move |key| {
        let (ctx, allocations) = (worker.clone(), allocations.clone());
        async move { sync(&ctx, &allocations, &key).await }
    });
}

/// Keeps the allocations what the nodes say, and queues nodes that have no range.
fn follow(nodes: &Arc<Store<Node>>, allocations: &Arc<Mutex<Allocations>>, queue: &Arc<WorkQueue<ObjectKey>>) {
    let (cache, known, sink) = (Arc::downgrade(nodes), allocations.clone(), queue.clone());
    nodes.subscribe(move |change| {
        let Some(cache) = cache.upgrade() else { return };
        let key = ObjectKey::of(&change.latest().metadata);
        note(&cache, &known, &key);
        if change.new.is_some_and(|node| pod_cidr(node).is_none()) {
            sink.add(key);
        }
    });
}

fn pod_cidr(node: &Node) -> Option<&str> {
    node.spec.as_ref()?.pod_cidr.as_deref().filter(|c| !c.is_empty())
}

fn lock(allocations: &Mutex<Allocations>) -> MutexGuard<'_, Allocations> {
    allocations.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes what a node holds, or that it is gone. Changes may be told out of order when a write of ours meets the watch:
/// what the cache holds counts, read while the allocations are locked.
fn note(nodes: &Store<Node>, allocations: &Mutex<Allocations>, key: &ObjectKey) {
    let mut allocations = lock(allocations);
    match nodes.get(key) {
        None => allocations.release(&key.name),
        Some(node) => {
            if let Some(cidr) = pod_cidr(&node).and_then(|cidr| cidr.parse::<Cidr>().ok()) {
                allocations.occupy(&key.name, cidr);
            }
        }
    }
}

async fn sync(ctx: &Context, allocations: &Mutex<Allocations>, key: &ObjectKey) -> Result<Next, SyncError> {
    let Some(node) = ctx.informers.nodes.get(key).filter(|n| pod_cidr(n).is_none()) else {
        // One that went while its range could not be written still has it here.
        note(&ctx.informers.nodes, allocations, key);
        return Ok(Next::Wait);
    };
    let assigned = lock(allocations).assign(&key.name);
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
        Err(kube::Error::Api(status)) if status.code == 404 => {
            // Its end may have been noted before the range was.
            note(&ctx.informers.nodes, allocations, key);
            Ok(Next::Wait)
        }
        Err(error) => Err(SyncError::api("patch podCIDR of node", key)(error)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::from_value;

    fn node(pod_cidr: &str) -> Node {
        let metadata = json!({"name": "n", "uid": "u", "resourceVersion": "5"});
        from_value(json!({"metadata": metadata, "spec": {"podCIDR": pod_cidr}})).unwrap()
    }

    /// One range, so that whoever holds it is seen.
    fn allocations() -> Arc<Mutex<Allocations>> {
        Arc::new(Mutex::new(Allocations::new("10.0.0.0/24".parse().unwrap(), 24)))
    }

    #[test]
    fn a_node_that_is_gone_holds_nothing_in_whatever_order_that_is_told() {
        let (nodes, allocations) = (Store::<Node>::new(false), allocations());
        let cache = Arc::downgrade(&nodes);
        // Its end comes in while its range is still being told.
        nodes.subscribe(move |change| {
            if change.new.is_some() {
                cache.upgrade().unwrap().removed(&ObjectKey::new("", "n"), "u");
            }
        });
        follow(&nodes, &allocations, &WorkQueue::new());
        nodes.written(node("10.0.0.0/24"));
        assert!(nodes.is_empty());
        assert_eq!(lock(&allocations).assign("other"), Some("10.0.0.0/24".parse().unwrap()));
    }

    #[test]
    fn what_a_node_holds_nobody_else_gets() {
        let (nodes, allocations, queue) = (Store::<Node>::new(false), allocations(), WorkQueue::new());
        follow(&nodes, &allocations, &queue);
        nodes.written(node("10.0.0.0/24"));
        assert_eq!(lock(&allocations).assign("other"), None);
        nodes.removed(&ObjectKey::new("", "n"), "u");
        assert!(lock(&allocations).assign("other").is_some());
    }
}

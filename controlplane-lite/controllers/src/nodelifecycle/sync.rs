//! Watches over nodes: one timer per node, moved on by its leases.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::LEASE_NAMESPACE;
use super::health::{NodeHealth, Verdict, judge, ready};
use super::taints::{self, Eviction, wants_no_execute};
use super::zones::{Limits, Permits, states, stopped, zone};
use crate::Context;
use crate::moment::Moment;
use client::events::{EventType, Recorder};
use client::objects::{pod_condition, uid};
use client::workqueue::{Next, SyncError, WorkQueue, spawn_workers};
use client::{ObjectKey, api_in};

#[derive(Clone)]
struct Worker {
    ctx: Context,
    events: Recorder,
    /// The health of each node, by name.
    health: Arc<Mutex<HashMap<String, NodeHealth>>>,
    permits: Arc<Mutex<Permits>>,
    /// Nodes that are not ready and whose pods have been marked.
    marked: Arc<Mutex<HashSet<String>>>,
}

pub(super) fn start(ctx: &Context) {
    let queue = WorkQueue::new();
    let worker = Worker {
        ctx: ctx.clone(),
        events: ctx.events.named("node-controller"),
        health: Arc::default(),
        permits: Arc::default(),
        marked: Arc::default(),
    };
    // A lease that moves only notes the time: the node's timer finds it there.
    let (leases, nodes) = (worker.clone(), ctx.informers.nodes.clone());
    ctx.informers.node_leases.subscribe(move |change| {
        let name = change.latest().metadata.name.clone().unwrap_or_default();
        if let Some(node) = nodes.get(&ObjectKey::new("", name)) {
            leases.update_health(&node, Moment::now());
        }
    });
    let (sink, nodes, watcher) = (queue.clone(), ctx.informers.nodes.clone(), worker.clone());
    ctx.informers.nodes.subscribe(move |change| {
        let Some(node) = change.new else {
            watcher.forget(change.latest());
            return;
        };
        watcher.update_health(node, Moment::now());
        sink.add(ObjectKey::of(&node.metadata));
        // The state of one node decides about the eviction from others.
        if change.old.is_none_or(|old| ready(old) != ready(node)) {
            for other in nodes.list().iter().filter(|n| ready(n).is_some_and(|s| s != "True")) {
                sink.add(ObjectKey::of(&other.metadata));
            }
        }
    });
    spawn_workers("node-lifecycle", &queue, 4, &ctx.runner, move |key| {
        let worker = worker.clone();
        async move { worker.sync(&key).await }
    });
}

impl Worker {
    fn update_health(&self, node: &Node, now: Moment) -> NodeHealth {
        let name = node.metadata.name.clone().unwrap_or_default();
        let lease = self.ctx.informers.node_leases.get(&ObjectKey::new(LEASE_NAMESPACE, name.clone()));
        let mut all = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let health = NodeHealth::update(all.get(&name), node, lease.as_deref(), now);
        if all.insert(name.clone(), health.clone()).is_none() {
            let text = format!("Node {name} event: Registered Node {name} in Controller");
            self.events.event(node, EventType::Normal, "RegisteredNode", text);
        }
        health
    }

    fn forget(&self, node: &Node) {
        let name = node.metadata.name.clone().unwrap_or_default();
        self.health.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
        self.marked.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
        let text = format!("Node {name} event: Removing Node {name} from Controller");
        self.events.event(node, EventType::Normal, "RemovingNode", text);
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Next, SyncError> {
        let Some(mut node) = self.ctx.informers.nodes.get(key) else { return Ok(Next::Wait) };
        let now = Moment::now();
        let health = self.update_health(&node, now);
        let config = &self.ctx.config;
        let (grace, startup) = (config.node_monitor_grace_period, config.node_startup_grace_period);
        let mut wake = match judge(&node, &health, grace, startup, now) {
            Verdict::Alive(left) => Some(left),
            Verdict::Silent(conditions) if conditions.is_empty() => None,
            Verdict::Silent(conditions) => {
                node = Arc::new(self.write_conditions(key, &node, &conditions).await?);
                None
            }
        };
        if let Some(retry) = self.taint(key, &node, now).await? {
            wake = Some(wake.map_or(retry, |w| w.min(retry)));
        }
        self.follow_readiness(key, ready(&node).is_some_and(|s| s != "True")).await?;
        Ok(wake.map_or(Next::Wait, Next::After))
    }

    /// Marks the pods of a node once for each time that it stops being ready: a
    /// kubelet that still runs knows better from then on.
    async fn follow_readiness(&self, key: &ObjectKey, not_ready: bool) -> Result<(), SyncError> {
        let marked = || self.marked.lock().unwrap_or_else(PoisonError::into_inner);
        if !not_ready {
            marked().remove(&key.name);
        } else if !marked().contains(&key.name) {
            self.mark_pods(key).await?;
            marked().insert(key.name.clone());
        }
        Ok(())
    }

    async fn write_conditions(
        &self,
        key: &ObjectKey,
        node: &Node,
        conditions: &[NodeCondition],
    ) -> Result<Node, SyncError> {
        tracing::info!(node = %key, "node has stopped reporting");
        let text = format!("Node {key} status is now: NodeNotReady");
        self.events.event(node, EventType::Normal, "NodeNotReady", text);
        let patch = json!({
            "metadata": {"resourceVersion": node.metadata.resource_version},
            "status": {"conditions": conditions},
        });
        let api: Api<Node> = Api::all(self.ctx.client.clone());
        let answer = api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(&patch)).await;
        let node = answer.map_err(SyncError::api("mark Node silent", key))?;
        self.ctx.informers.nodes.written(node.clone());
        Ok(node)
    }

    /// Brings the taints in line; how long to wait when a permit is missing.
    async fn taint(&self, key: &ObjectKey, node: &Node, now: Moment) -> Result<Option<Duration>, SyncError> {
        let (eviction, wait) = self.permit(node, now.instant);
        let Some(taints) = taints::plan(node, eviction, now.time) else { return Ok(wait) };
        let patch = json!({
            "metadata": {"resourceVersion": node.metadata.resource_version},
            "spec": {"taints": taints},
        });
        let api: Api<Node> = Api::all(self.ctx.client.clone());
        match api.patch(&key.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(node) => self.ctx.informers.nodes.written(node),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(SyncError::api("taint Node", key)(error)),
        }
        Ok(wait)
    }

    fn permit(&self, node: &Node, now: Instant) -> (Eviction, Option<Duration>) {
        if ready(node).is_none_or(|s| s == "True") {
            return (Eviction::Allowed, None);
        }
        let config = &self.ctx.config;
        let nodes = self.ctx.informers.nodes.list();
        let zones = states(nodes.iter().map(|n| &**n), config.unhealthy_zone_threshold);
        if stopped(&zones) {
            return (Eviction::Stopped, None);
        }
        if !wants_no_execute(node) {
            return (Eviction::Held, None);
        }
        let limits = Limits { rate: config.node_eviction_rate, secondary_rate: config.secondary_node_eviction_rate };
        let mut permits = self.permits.lock().unwrap_or_else(PoisonError::into_inner);
        let (eviction, wait) = permits.ask(&zone(node), &zones, limits, now);
        (eviction, wait.map(|s| Duration::try_from_secs_f64(s.max(0.1)).unwrap_or(Duration::from_secs(10))))
    }

    /// Pods of a node that is not ready serve nobody.
    async fn mark_pods(&self, node: &ObjectKey) -> Result<(), SyncError> {
        let on_node = |p: &Pod| p.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(&node.name);
        for pod in self.ctx.informers.pods.list().into_iter().filter(|p| on_node(p)) {
            let Some(condition) = pod_condition(&pod, "Ready").filter(|c| c.status == "True") else { continue };
            let changed = json!({
                "type": "Ready", "status": "False", "reason": condition.reason, "message": condition.message,
                "lastTransitionTime": Time(Timestamp::now()),
            });
            let patch = json!({"metadata": {"uid": uid(&pod.metadata)}, "status": {"conditions": [changed]}});
            let key = ObjectKey::of(&pod.metadata);
            let api: Api<Pod> = api_in(&self.ctx.client, &key);
            match api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(&patch)).await {
                Ok(written) => {
                    self.ctx.informers.pods.written(written);
                    self.events.event(&*pod, EventType::Warning, "NodeNotReady", "Node is not ready");
                }
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
                Err(error) => return Err(SyncError::api("mark Pod not ready", key)(error)),
            }
        }
        Ok(())
    }
}

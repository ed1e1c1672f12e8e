//! Writes the rules that the plan says.

use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::plan::rules;
use crate::Context;
use client::workqueue::{Next, SyncError, WorkQueue, spawn_workers};
use client::{ObjectKey, segment};

pub(crate) fn start(ctx: &Context) {
    let queue = WorkQueue::new();
    let (sink, roles) = (queue.clone(), ctx.informers.cluster_roles.clone());
    // Any role may be part of any that gathers; those are few.
    ctx.informers.cluster_roles.subscribe(move |_| {
        for role in roles.list().iter().filter(|role| role.aggregation_rule.is_some()) {
            sink.add(ObjectKey::of(&role.metadata));
        }
    });
    let worker = ctx.clone();
    spawn_workers("clusterrole-aggregation", &queue, 1, &ctx.runner, move |key: ObjectKey| {
        let ctx = worker.clone();
        async move { sync(&ctx, &key).await }
    });
}

async fn sync(ctx: &Context, key: &ObjectKey) -> Result<Next, SyncError> {
    let roles = ctx.informers.cluster_roles.list();
    let Some(role) = ctx.informers.cluster_roles.get(key) else { return Ok(Next::Wait) };
    let Some(rules) = rules(&role, roles.iter().map(AsRef::as_ref)) else { return Ok(Next::Wait) };
    let api: Api<ClusterRole> = Api::all(ctx.client.clone());
    // The version makes sure that nobody's newer selectors are answered with older rules.
    let patch = json!({"metadata": {"resourceVersion": role.metadata.resource_version}, "rules": rules});
    match api.patch(&segment(&key.name), &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(role) => {
            ctx.informers.cluster_roles.written(role);
            Ok(Next::Wait)
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Next::Wait),
        Err(error) => Err(SyncError::api("patch rules of ClusterRole", key)(error)),
    }
}

//! Empties a namespace that is being deleted.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use serde_json::json;

use super::discovery::{Resource, discover};
use super::plan::{FINALIZER, RemainingContent, conditions, rank, waits};
use crate::Context;
use client::workqueue::{Next, SyncError, WorkQueue, spawn_workers};
use client::{ObjectKey, segment};

/// How soon to look again at content that is neither pods nor known to need time.
const RECHECK: Duration = Duration::from_secs(2);

pub(crate) fn start(ctx: &Context) {
    let queue = WorkQueue::new();
    let sink = queue.clone();
    ctx.informers.namespaces.subscribe(move |change| {
        if let Some(namespace) = change.new.filter(|n| waits(n)) {
            sink.add(ObjectKey::of(&namespace.metadata));
        }
    });
    // The last pod of a namespace is what its deletion usually waits for.
    let (sink, informers) = (queue.clone(), ctx.informers.clone());
    ctx.informers.pods.subscribe(move |change| {
        let (Some(gone), None) = (change.old, change.new) else { return };
        let namespace = gone.metadata.namespace.clone().unwrap_or_default();
        let key = ObjectKey::new("", namespace.clone());
        let terminating = informers.namespaces.get(&key).is_some_and(|n| waits(&n));
        if terminating && informers.pods.list_in(&namespace, |_| true).is_empty() {
            sink.add(key);
        }
    });
    let worker = ctx.clone();
    spawn_workers("namespace", &queue, 4, &ctx.runner, move |key| {
        let ctx = worker.clone();
        async move { sync(&ctx, &key).await }
    });
}

async fn sync(ctx: &Context, key: &ObjectKey) -> Result<Next, SyncError> {
    let Some(namespace) = ctx.informers.namespaces.get(key).filter(|n| waits(n)) else { return Ok(Next::Wait) };
    let found = discover(&ctx.client).await.map_err(SyncError::api("discover resources for Namespace", key))?;
    let mut remaining = RemainingContent {
        discovery_failures: found.failures.iter().map(|(group, error)| format!("{group}: {error}")).collect(),
        ..RemainingContent::default()
    };
    let mut resources: Vec<Resource> =
        found.resources.into_iter().filter(|r| r.namespaced && r.can("delete")).collect();
    resources.sort_by_key(|r| rank(&r.api.plural));
    for resource in &resources {
        // What pods need outlives them.
        if remaining.objects.contains_key("pods") && rank(&resource.api.plural) > 0 {
            break;
        }
        empty(ctx, &key.name, resource, &mut remaining).await;
    }
    if remaining.nothing() {
        finalize(ctx, &namespace).await?;
        return Ok(Next::Wait);
    }
    write_conditions(ctx, &namespace, &remaining).await?;
    let wait = u64::try_from(remaining.grace_seconds / 2 + 1).unwrap_or(1);
    Ok(Next::After(RECHECK.max(Duration::from_secs(wait.min(15)))))
}

/// Deletes every object of a resource and counts what stays.
async fn empty(ctx: &Context, namespace: &str, resource: &Resource, remaining: &mut RemainingContent) {
    let api: Api<DynamicObject> = Api::namespaced_with(ctx.client.clone(), namespace, &resource.api);
    let name = if resource.api.group.is_empty() {
        resource.api.plural.clone()
    } else {
        format!("{}.{}", resource.api.plural, resource.api.group)
    };
    if let Err(error) = delete_all(&api, resource).await {
        remaining.content_failures.push(format!("{name}: {error}"));
    }
    if !resource.can("list") {
        return;
    }
    match api.list_metadata(&ListParams::default()).await {
        // Method not allowed, or no such resource: nothing can be left of it.
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 405 => {}
        Err(error) => remaining.content_failures.push(format!("{name}: {error}")),
        Ok(list) => {
            for object in &list.items {
                *remaining.objects.entry(name.clone()).or_default() += 1;
                for finalizer in object.metadata.finalizers.iter().flatten() {
                    *remaining.finalizers.entry(finalizer.clone()).or_default() += 1;
                }
                let grace = object.metadata.deletion_grace_period_seconds.unwrap_or(0);
                remaining.grace_seconds = remaining.grace_seconds.max(grace);
            }
        }
    }
}

async fn delete_all(api: &Api<DynamicObject>, resource: &Resource) -> Result<(), kube::Error> {
    let params = DeleteParams::background();
    if resource.can("deletecollection") {
        return match api.delete_collection(&params, &ListParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 405 => Ok(()),
            other => other.map(drop),
        };
    }
    if !resource.can("list") {
        return Ok(());
    }
    for object in api.list_metadata(&ListParams::default()).await?.items {
        let Some(name) = object.metadata.name else { continue };
        match api.delete(&segment(&name), &params).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            other => drop(other?),
        }
    }
    Ok(())
}

async fn write_conditions(ctx: &Context, namespace: &Namespace, remaining: &RemainingContent) -> Result<(), SyncError> {
    let before = namespace.status.as_ref().and_then(|s| s.conditions.as_deref());
    let after = conditions(before, remaining, Timestamp::now());
    if before == Some(after.as_slice()) {
        return Ok(());
    }
    let key = ObjectKey::of(&namespace.metadata);
    let patch = json!({
        "metadata": {"resourceVersion": namespace.metadata.resource_version},
        "status": {"conditions": after},
    });
    let api: Api<Namespace> = Api::all(ctx.client.clone());
    match api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(namespace) => ctx.informers.namespaces.written(namespace),
        // Someone else's change, or gone: the next pass writes again.
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
        Err(error) => return Err(SyncError::api("write conditions of Namespace", key)(error)),
    }
    Ok(())
}

/// Removes our finalizer, upon which the server deletes the namespace.
async fn finalize(ctx: &Context, namespace: &Arc<Namespace>) -> Result<(), SyncError> {
    let key = ObjectKey::of(&namespace.metadata);
    let mut update = (**namespace).clone();
    if let Some(finalizers) = update.spec.as_mut().and_then(|s| s.finalizers.as_mut()) {
        finalizers.retain(|f| f != FINALIZER);
    }
    let api: Api<Namespace> = Api::all(ctx.client.clone());
    match api.replace_subresource("finalize", &key.name, &PostParams::default(), &update).await {
        Ok(_) => {
            tracing::info!(namespace = %key, "namespace emptied");
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(SyncError::api("finalize Namespace", key)(error)),
    }
}

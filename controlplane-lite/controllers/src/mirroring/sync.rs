//! Watches Endpoints, Services and mirrored slices; performs the plan.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Endpoints;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DeleteParams, PostParams};

use super::plan::{Changes, MANAGED_BY, MAX_ENDPOINTS, mirrored, reconcile};
use crate::Context;
use crate::endpoints::slices::{MANAGED_BY_LABEL, SERVICE_LABEL};
use crate::replicaset::namespace_terminating;
use client::events::EventType;
use client::objects::{label, name, uid};
use client::workqueue::{Next, SyncError, WorkQueue, spawn_workers};
use client::{ObjectKey, api_in};

pub(crate) fn start(ctx: &Context) {
    let queue = WorkQueue::new();
    let sink = queue.clone();
    ctx.informers.endpoints.subscribe(move |change| sink.add(ObjectKey::of(&change.latest().metadata)));
    let sink = queue.clone();
    ctx.informers.services.subscribe(move |change| sink.add(ObjectKey::of(&change.latest().metadata)));
    let sink = queue.clone();
    ctx.informers.endpoint_slices.subscribe(move |change| {
        let meta = &change.latest().metadata;
        if let Some(service) = label(meta, SERVICE_LABEL).filter(|_| label(meta, MANAGED_BY_LABEL) == Some(MANAGED_BY))
        {
            sink.add(ObjectKey::new(meta.namespace.clone().unwrap_or_default(), service));
        }
    });
    let worker = ctx.clone();
    spawn_workers("endpointslice-mirroring", &queue, ctx.config.workers, &ctx.runner, move |key| {
        let ctx = worker.clone();
        async move { sync(&ctx, &key).await }
    });
}

async fn sync(ctx: &Context, key: &ObjectKey) -> Result<Next, SyncError> {
    let ours = |s: &EndpointSlice| {
        let meta = &s.metadata;
        label(meta, SERVICE_LABEL) == Some(&key.name)
            && label(meta, MANAGED_BY_LABEL) == Some(MANAGED_BY)
            && meta.deletion_timestamp.is_none()
    };
    let existing = ctx.informers.endpoint_slices.list_in(&key.namespace, ours);
    let service = ctx.informers.services.get(key);
    let endpoints = ctx.informers.endpoints.get(key).filter(|e| mirrored(e, service.as_deref()));
    let changes = match endpoints {
        Some(endpoints) => {
            let changes = reconcile(&endpoints, &existing);
            record_events(ctx, &endpoints, &changes);
            changes
        }
        None => {
            let delete = existing.iter().map(|s| name(&s.metadata).to_owned()).collect();
            Changes { delete, ..Changes::default() }
        }
    };
    perform(ctx, key, changes, &existing).await
}

/// Records as events which addresses have no mirror.
fn record_events(ctx: &Context, endpoints: &Endpoints, changes: &Changes) {
    let events = ctx.events.named("endpoint-slice-mirroring-controller");
    let Changes { invalid, skipped, .. } = changes;
    if *invalid > 0 {
        let text = format!("Skipped {invalid} invalid IP addresses when mirroring to EndpointSlices");
        events.event(endpoints, EventType::Warning, "InvalidIPAddress", text);
    }
    if *skipped > 0 {
        let text = format!(
            "A max of {MAX_ENDPOINTS} addresses can be mirrored to EndpointSlices per Endpoints subset. {skipped} \
             addresses were skipped"
        );
        events.event(endpoints, EventType::Warning, "TooManyAddressesToMirror", text);
    }
}

async fn perform(
    ctx: &Context,
    key: &ObjectKey,
    changes: Changes,
    existing: &[Arc<EndpointSlice>],
) -> Result<Next, SyncError> {
    let (api, slices): (Api<EndpointSlice>, _) = (api_in(&ctx.client, key), &ctx.informers.endpoint_slices);
    for slice in &changes.create {
        match api.create(&PostParams::default(), slice).await {
            Ok(made) => slices.written(made),
            // The namespace is gone or going, and the Endpoints with it.
            Err(kube::Error::Api(status)) if status.code == 404 || namespace_terminating(&status) => {
                return Ok(Next::Wait);
            }
            Err(error) => return Err(SyncError::api("create EndpointSlice of", key)(error)),
        }
    }
    for slice in &changes.update {
        let made = api.replace(name(&slice.metadata), &PostParams::default(), slice).await;
        slices.written(made.map_err(SyncError::api("update EndpointSlice of", key))?);
    }
    for slice in existing.iter().filter(|s| changes.delete.iter().any(|gone| gone == name(&s.metadata))) {
        match api.delete(name(&slice.metadata), &DeleteParams::default()).await {
            Ok(_) => slices.removed(&ObjectKey::of(&slice.metadata), uid(&slice.metadata)),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(SyncError::api("delete EndpointSlice of", key)(error)),
        }
    }
    Ok(Next::Wait)
}

//! Keeps Endpoints and EndpointSlices of Services up to date.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DeleteParams, PostParams};

use super::plan::{ZONE_LABEL, desired, has_endpoints, selects};
use super::slices::{MANAGED_BY, MANAGED_BY_LABEL, SERVICE_LABEL, reconcile};
use super::subsets::{MANAGED_BY_LABEL as ENDPOINTS_MANAGED_BY_LABEL, endpoints};
use crate::Context;
use crate::informers::Informers;
use crate::replicaset::namespace_terminating;
use client::objects::{annotation, label, uid};
use client::workqueue::{Next, SyncError, WorkQueue, spawn_workers};
use client::{Change, ObjectKey, api_in};

type Queue = Arc<WorkQueue<ObjectKey>>;

pub(crate) fn start(ctx: &Context) {
    let queue = WorkQueue::new();
    let sink = queue.clone();
    ctx.informers.services.subscribe(move |change| sink.add(ObjectKey::of(&change.latest().metadata)));
    let (sink, informers) = (queue.clone(), ctx.informers.clone());
    ctx.informers.pods.subscribe(move |change| pod_changed(&sink, &informers, change));
    // Someone else's change of our slices is put right.
    let sink = queue.clone();
    ctx.informers.endpoint_slices.subscribe(move |change| {
        let meta = &change.latest().metadata;
        if let Some(service) = label(meta, SERVICE_LABEL).filter(|_| label(meta, MANAGED_BY_LABEL) == Some(MANAGED_BY))
        {
            sink.add(ObjectKey::new(meta.namespace.clone().unwrap_or_default(), service));
        }
    });
    let sink = queue.clone();
    ctx.informers.endpoints.subscribe(move |change| {
        if label(&change.latest().metadata, ENDPOINTS_MANAGED_BY_LABEL).is_some() {
            sink.add(ObjectKey::of(&change.latest().metadata));
        }
    });
    // A slice shows the zone of each endpoint's node.
    let (sink, slices) = (queue.clone(), ctx.informers.endpoint_slices.clone());
    ctx.informers.nodes.subscribe(move |change| {
        let zone = |node: Option<&Arc<Node>>| node.and_then(|n| label(&n.metadata, ZONE_LABEL).map(str::to_owned));
        if zone(change.old) == zone(change.new) {
            return;
        }
        let name = change.latest().metadata.name.as_deref();
        let shows = |s: &&Arc<EndpointSlice>| s.endpoints.iter().flatten().any(|e| e.node_name.as_deref() == name);
        for slice in slices.list().iter().filter(shows) {
            if let Some(service) = label(&slice.metadata, SERVICE_LABEL) {
                sink.add(ObjectKey::new(slice.metadata.namespace.clone().unwrap_or_default(), service));
            }
        }
    });
    let of_endpoints = ctx.acting_as("endpoint-controller");
    leftovers(&of_endpoints);
    let workers = (ctx.clone(), of_endpoints);
    spawn_workers("endpointslice", &queue, ctx.config.workers, &ctx.runner, move |key| {
        let (ctx, of_endpoints) = workers.clone();
        async move { sync(&ctx, &of_endpoints, &key).await }
    });
}

/// Endpoints go with their Service, whoever made them, and at the start those that have none, as upstream's
/// syncService and checkLeftoverEndpoints (pkg/controller/endpoint/endpoints_controller.go). A queue of its own: what
/// else wakes the other one says nothing against Endpoints that somebody makes before their Service.
fn leftovers(ctx: &Context) {
    let queue = WorkQueue::new();
    let sink = queue.clone();
    ctx.informers.services.subscribe(move |change| {
        if let (Some(gone), None) = (change.old, change.new) {
            sink.add(ObjectKey::of(&gone.metadata));
        }
    });
    for endpoints in ctx.informers.endpoints.list().iter().filter(|e| !elects(e)) {
        queue.add(ObjectKey::of(&endpoints.metadata));
    }
    let worker = ctx.clone();
    spawn_workers("endpoint", &queue, 1, &ctx.runner, move |key| {
        let ctx = worker.clone();
        async move {
            if ctx.informers.services.get(&key).is_none() {
                delete_endpoints(&ctx, &key).await?;
            }
            Ok(Next::Wait)
        }
    });
}

/// Whether the object is a record of an election, which never has a Service.
fn elects(endpoints: &Endpoints) -> bool {
    annotation(&endpoints.metadata, "control-plane.alpha.kubernetes.io/leader").is_some()
}

/// Wakes the Services that select the pod, before and after, if anything that
/// endpoints show has changed.
fn pod_changed(queue: &Queue, informers: &Informers, change: &Change<'_, Pod>) {
    if let (Some(old), Some(new)) = (change.old, change.new)
        && visible(old) == visible(new)
    {
        return;
    }
    let namespace = change.latest().metadata.namespace.as_deref().unwrap_or_default();
    let hit = |s: &Service| [change.old, change.new].into_iter().flatten().any(|p| selects(s, &p.metadata));
    for service in informers.services.list_in(namespace, hit) {
        queue.add(ObjectKey::of(&service.metadata));
    }
}

/// What of a pod shows in endpoints.
fn visible(pod: &Pod) -> impl PartialEq + '_ {
    use client::objects::{deleting, ready, terminated};
    let status = pod.status.as_ref();
    (
        &pod.metadata.labels,
        deleting(&pod.metadata),
        (ready(pod), terminated(pod)),
        pod.spec.as_ref().map(|s| (&s.node_name, &s.hostname, &s.subdomain)),
        status.map(|s| (&s.pod_ip, &s.pod_ips)),
    )
}

async fn sync(ctx: &Context, of_endpoints: &Context, key: &ObjectKey) -> Result<Next, SyncError> {
    let service = ctx.informers.services.get(key);
    let Some(service) = service.filter(|s| has_endpoints(s)) else {
        // Without a selector the endpoints belong to whoever made them; without a Service ours go, should a sync of
        // before have made them again. (Slices are owned by the Service and collected.)
        let ours = |e: &Endpoints| label(&e.metadata, ENDPOINTS_MANAGED_BY_LABEL).is_some();
        if ctx.informers.services.get(key).is_none() && ctx.informers.endpoints.get(key).is_some_and(|e| ours(&e)) {
            delete_endpoints(of_endpoints, key).await?;
        }
        return Ok(Next::Wait);
    };
    let pods = ctx.informers.pods.list_in(&key.namespace, |p| selects(&service, &p.metadata));
    let nodes = &ctx.informers.nodes;
    let want = desired(&service, pods.iter().map(|p| &**p), &|name| nodes.get(&ObjectKey::new("", name)));
    let before = ctx.informers.endpoints.get(key);
    if let Some(endpoints) = endpoints(&service, &want, before.as_deref()) {
        write_endpoints(of_endpoints, key, endpoints, before.is_some()).await?;
    }
    let ours = |s: &EndpointSlice| {
        label(&s.metadata, SERVICE_LABEL) == Some(&key.name) && label(&s.metadata, MANAGED_BY_LABEL) == Some(MANAGED_BY)
    };
    let existing: Vec<_> = ctx
        .informers
        .endpoint_slices
        .list_in(&key.namespace, ours)
        .into_iter()
        .filter(|s| s.metadata.deletion_timestamp.is_none())
        .collect();
    let changes = reconcile(&service, want, &existing);
    let api: Api<EndpointSlice> = api_in(&ctx.client, key);
    for slice in &changes.create {
        let made = api.create(&PostParams::default(), slice).await;
        if let Err(kube::Error::Api(status)) = &made
            && status.code == 404
        {
            // The namespace is gone, and the Service with it.
            return Ok(Next::Wait);
        }
        ctx.informers.endpoint_slices.written(made.map_err(SyncError::api("create EndpointSlice of", key))?);
    }
    for slice in &changes.update {
        let name = slice.metadata.name.as_deref().unwrap_or_default();
        let made = api.replace(name, &PostParams::default(), slice).await;
        ctx.informers.endpoint_slices.written(made.map_err(SyncError::api("update EndpointSlice of", key))?);
    }
    for name in &changes.delete {
        delete_slice(ctx, &api, &existing, name).await?;
    }
    Ok(Next::Wait)
}

async fn delete_slice(
    ctx: &Context,
    api: &Api<EndpointSlice>,
    existing: &[Arc<EndpointSlice>],
    name: &str,
) -> Result<(), SyncError> {
    match api.delete(name, &DeleteParams::default()).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(SyncError::api("delete EndpointSlice", name)(error)),
    }
    if let Some(slice) = existing.iter().find(|s| s.metadata.name.as_deref() == Some(name)) {
        ctx.informers.endpoint_slices.removed(&ObjectKey::of(&slice.metadata), uid(&slice.metadata));
    }
    Ok(())
}

async fn write_endpoints(ctx: &Context, key: &ObjectKey, want: Endpoints, exists: bool) -> Result<(), SyncError> {
    let api: Api<Endpoints> = api_in(&ctx.client, key);
    let params = PostParams::default();
    let answer = if exists { api.replace(&key.name, &params, &want).await } else { api.create(&params, &want).await };
    match answer {
        Ok(endpoints) => {
            ctx.informers.endpoints.written(endpoints);
            Ok(())
        }
        Err(kube::Error::Api(status)) if namespace_terminating(&status) || (status.code == 404 && !exists) => {
            tracing::debug!(service = %key, message = status.message, "endpoints not written");
            Ok(())
        }
        Err(error) => Err(SyncError::api("write Endpoints", key)(error)),
    }
}

async fn delete_endpoints(ctx: &Context, key: &ObjectKey) -> Result<(), SyncError> {
    // Asked for even if the cache has none yet: nothing else would wake us for what comes late.
    let cached = ctx.informers.endpoints.get(key);
    let api: Api<Endpoints> = api_in(&ctx.client, key);
    match api.delete(&key.name, &DeleteParams::default()).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(SyncError::api("delete Endpoints", key)(error)),
    }
    if let Some(endpoints) = cached {
        ctx.informers.endpoints.removed(key, uid(&endpoints.metadata));
    }
    Ok(())
}

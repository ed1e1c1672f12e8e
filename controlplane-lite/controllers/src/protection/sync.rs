//! Watches claims, volumes and pods; writes finalizers.

use std::fmt::Debug;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{ListParams, PostParams};
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::plan::{CLAIM, VOLUME, Verdict, bound, claims, judge, next, uses};
use crate::Context;
use client::workqueue::{Next, SyncError, WorkQueue, spawn_workers};
use client::{ObjectKey, Store, api_in};

/// Claims, while pods use them.
pub(crate) fn start_claims(ctx: &Context) {
    let queue = WorkQueue::new();
    let sink = queue.clone();
    ctx.informers.persistent_volume_claims.subscribe(move |change| {
        if let Some(claim) = change.new {
            sink.add(ObjectKey::of(&claim.metadata));
        }
    });
    let sink = queue.clone();
    ctx.informers.pods.subscribe(move |change| {
        for pod in [change.old, change.new].into_iter().flatten() {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            for claim in claims(pod) {
                sink.add(ObjectKey::new(namespace, claim));
            }
        }
    });
    let worker = ctx.clone();
    spawn_workers("pvc-protection", &queue, 1, &ctx.runner, move |key| {
        let ctx = worker.clone();
        async move { claim(&ctx, &key).await }
    });
}

/// Volumes, while claims are bound to them.
pub(crate) fn start_volumes(ctx: &Context) {
    let queue = WorkQueue::new();
    let sink = queue.clone();
    ctx.informers.persistent_volumes.subscribe(move |change| {
        if let Some(volume) = change.new {
            sink.add(ObjectKey::of(&volume.metadata));
        }
    });
    let worker = ctx.clone();
    spawn_workers("pv-protection", &queue, 1, &ctx.runner, move |key| {
        let ctx = worker.clone();
        async move { volume(&ctx, &key).await }
    });
}

async fn claim(ctx: &Context, key: &ObjectKey) -> Result<Next, SyncError> {
    let Some(claim) = ctx.informers.persistent_volume_claims.get(key) else { return Ok(Next::Wait) };
    let used = || !ctx.informers.pods.list_in(&key.namespace, |pod| uses(pod, &claim)).is_empty();
    let verdict = judge(&claim.metadata, CLAIM, used);
    if verdict == Verdict::Remove {
        // The caches may not show the newest pod, and a volume under a running one must not go.
        let pods: Api<Pod> = api_in(&ctx.client, key);
        let pods = pods.list(&ListParams::default()).await.map_err(SyncError::api("list Pods for", key))?;
        if pods.iter().any(|pod| uses(pod, &claim)) {
            return Ok(Next::Wait);
        }
    }
    let api: Api<PersistentVolumeClaim> = api_in(&ctx.client, key);
    write(&api, &ctx.informers.persistent_volume_claims, key, (*claim).clone(), (CLAIM, verdict)).await
}

async fn volume(ctx: &Context, key: &ObjectKey) -> Result<Next, SyncError> {
    let Some(volume) = ctx.informers.persistent_volumes.get(key) else { return Ok(Next::Wait) };
    let verdict = judge(&volume.metadata, VOLUME, || bound(&volume));
    let api: Api<PersistentVolume> = Api::all(ctx.client.clone());
    write(&api, &ctx.informers.persistent_volumes, key, (*volume).clone(), (VOLUME, verdict)).await
}

/// Writes the finalizers of just the object that was judged.
async fn write<K>(
    api: &Api<K>,
    store: &Store<K>,
    key: &ObjectKey,
    mut object: K,
    (finalizer, verdict): (&str, Verdict),
) -> Result<Next, SyncError>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    if verdict == Verdict::Keep {
        return Ok(Next::Wait);
    }
    next(object.meta_mut(), finalizer, verdict);
    match api.replace(&key.name, &PostParams::default(), &object).await {
        Ok(written) => store.written(written),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(SyncError::api("write finalizers of", key)(error)),
    }
    Ok(Next::Wait)
}

//! Deletes tokens that are over and writes signatures. Both may be done twice
//! without harm, so dying in between costs nothing.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};

use super::plan::{Token, signed};
use super::{CLUSTER_INFO, TOKEN_NAMESPACE};
use crate::Context;
use client::ObjectKey;
use client::objects::{deleting, name, uid};
use client::workqueue::{Next, SyncError, WorkQueue, spawn_workers};

/// Timers beyond this are set anew when they fire.
const LONGEST_TIMER: Duration = Duration::from_secs(24 * 3600);

pub(crate) fn start(ctx: &Context) {
    let queue = WorkQueue::new();
    let sink = queue.clone();
    ctx.informers.bootstrap_tokens.subscribe(move |_| sink.add(()));
    let sink = queue.clone();
    ctx.informers.cluster_info.subscribe(move |_| sink.add(()));
    let workers = (ctx.clone(), ctx.acting_as("token-cleaner"));
    spawn_workers("bootstrap", &queue, 1, &ctx.runner, move |()| {
        let (ctx, cleaner) = workers.clone();
        async move { sync(&ctx, &cleaner).await }
    });
}

async fn sync(ctx: &Context, cleaner: &Context) -> Result<Next, SyncError> {
    let now = Timestamp::now();
    let mut tokens = Vec::new();
    for secret in ctx.informers.bootstrap_tokens.list() {
        let Some(token) = Token::read(&secret).filter(|_| !deleting(&secret.metadata)) else { continue };
        if token.is_over(now) {
            remove(cleaner, &secret).await?;
        } else {
            tokens.push(token);
        }
    }
    if let Some(map) = ctx.informers.cluster_info.get(&ObjectKey::new(CLUSTER_INFO.0, CLUSTER_INFO.1)) {
        sign(ctx, &map, &tokens, now).await?;
    }
    let next = tokens.iter().filter_map(|token| token.ends).min();
    let wait = next.map(|ends| ends.duration_since(now).unsigned_abs().min(LONGEST_TIMER));
    Ok(wait.map_or(Next::Wait, Next::After))
}

async fn sign(ctx: &Context, map: &ConfigMap, tokens: &[Token], now: Timestamp) -> Result<(), SyncError> {
    let have = map.data.clone().unwrap_or_default();
    let wanted =
        signed(&have, tokens, now).map_err(|error| SyncError::Invalid(format!("sign cluster-info: {error}")))?;
    let Some(data) = wanted else { return Ok(()) };
    let changed = ConfigMap { data: Some(data), ..map.clone() };
    let api: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), CLUSTER_INFO.0);
    match api.replace(CLUSTER_INFO.1, &PostParams::default(), &changed).await {
        Ok(map) => ctx.informers.cluster_info.written(map),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(SyncError::api("sign ConfigMap", CLUSTER_INFO.1)(error)),
    }
    Ok(())
}

async fn remove(ctx: &Context, secret: &Arc<Secret>) -> Result<(), SyncError> {
    let key = ObjectKey::of(&secret.metadata);
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), TOKEN_NAMESPACE);
    let preconditions = Preconditions { uid: secret.metadata.uid.clone(), resource_version: None };
    match api.delete(name(&secret.metadata), &DeleteParams::default().preconditions(preconditions)).await {
        Ok(_) => {
            tracing::info!(secret = %key, "expired bootstrap token removed");
            ctx.informers.bootstrap_tokens.removed(&key, uid(&secret.metadata));
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        Err(error) => Err(SyncError::api("delete Secret", key)(error)),
    }
}

//! Creates what the plan misses.

use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::Api;
use kube::api::PostParams;

use super::ROOT_CA_NAME;
use super::plan::{CaChange, ca_change, in_use, missing_account};
use crate::Context;
use crate::replicaset::namespace_terminating;
use client::ObjectKey;
use client::workqueue::{Next, SyncError, WorkQueue, spawn_workers};

pub(crate) fn start(ctx: &Context) {
    let queue = WorkQueue::new();
    let sink = queue.clone();
    ctx.informers.namespaces.subscribe(move |change| {
        if let Some(namespace) = change.new {
            sink.add(namespace.metadata.name.clone().unwrap_or_default());
        }
    });
    let sink = queue.clone();
    ctx.informers.service_accounts.subscribe(move |change| {
        if let (Some(gone), None) = (change.old, change.new) {
            sink.add(gone.metadata.namespace.clone().unwrap_or_default());
        }
    });
    let sink = queue.clone();
    ctx.informers.root_cas.subscribe(move |change| {
        sink.add(change.latest().metadata.namespace.clone().unwrap_or_default());
    });
    let workers = (ctx.clone(), ctx.acting_as("root-ca-cert-publisher"));
    spawn_workers("serviceaccount", &queue, 2, &ctx.runner, move |namespace: String| {
        let (ctx, publisher) = workers.clone();
        async move { sync(&ctx, &publisher, &namespace).await }
    });
}

async fn sync(ctx: &Context, publisher: &Context, namespace: &str) -> Result<Next, SyncError> {
    let found = ctx.informers.namespaces.get(&ObjectKey::new("", namespace));
    if !found.is_some_and(|n| in_use(&n)) {
        return Ok(Next::Wait);
    }
    let account = ctx.informers.service_accounts.get(&ObjectKey::new(namespace, "default"));
    if let Some(account) = missing_account(namespace, account.as_deref()) {
        let api: Api<ServiceAccount> = Api::namespaced(ctx.client.clone(), namespace);
        let answer = api.create(&PostParams::default(), &account).await;
        accept_write(answer, "create ServiceAccount default in", namespace, |a| {
            ctx.informers.service_accounts.written(a)
        })?;
    }
    let have = ctx.informers.root_cas.get(&ObjectKey::new(namespace, ROOT_CA_NAME));
    let api: Api<ConfigMap> = Api::namespaced(publisher.client.clone(), namespace);
    let answer = match ca_change(namespace, &ctx.config.root_ca_pem, have.as_deref()) {
        CaChange::Keep => return Ok(Next::Wait),
        CaChange::Create(map) => api.create(&PostParams::default(), &map).await,
        CaChange::Update(map) => api.replace(ROOT_CA_NAME, &PostParams::default(), &map).await,
    };
    accept_write(answer, "publish root CA in", namespace, |map| ctx.informers.root_cas.written(map))?;
    Ok(Next::Wait)
}

/// A namespace that went meanwhile, or an object that came, is no failure.
fn accept_write<T>(
    answer: Result<T, kube::Error>,
    operation: &'static str,
    namespace: &str,
    written: impl FnOnce(T),
) -> Result<(), SyncError> {
    match answer {
        Ok(object) => {
            written(object);
            Ok(())
        }
        Err(kube::Error::Api(status))
            if status.is_already_exists() || status.code == 404 || namespace_terminating(&status) =>
        {
            Ok(())
        }
        Err(error) => Err(SyncError::api(operation, namespace)(error)),
    }
}

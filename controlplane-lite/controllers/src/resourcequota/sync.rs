//! Counts for each quota and writes its status.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, Service};
use kube::Api;
use kube::api::PostParams;
use quota::{Amounts, Evaluator, Quota, add};
use serde_json::{Value, to_value};
use tokio::time::Instant;

use super::objects::{Counted, Happened};
use super::plan::{self, Count, next_status, resources};
use crate::Context;
use client::workqueue::{Next, SyncError, WorkQueue, spawn_workers};
use client::{Change, ObjectKey, api_in};

/// How often everything is counted anew, whatever was heard (upstream's `--resource-quota-sync-period`).
const RESYNC: Duration = Duration::from_secs(300);
/// When a kind is looked for again that a quota counts and that nobody serves, and whether those that are watched are
/// served still (upstream's discovery of `resource_quota_controller.go`, `Sync`).
const UNSERVED: Duration = Duration::from_secs(30);
/// When new objects are compared with what was charged for them.
const ADDED: Duration = Duration::from_secs(1);
/// What was charged so long ago is stored, or its write has failed.
const SETTLED: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Work {
    /// Count everything.
    Recount(ObjectKey),
    /// See that what is there was charged.
    Raise(ObjectKey),
    /// Count everything once nothing was charged for a while: a write may have failed after it was.
    Settle(ObjectKey),
}

struct Shared {
    queue: Arc<WorkQueue<Work>>,
    counted: Counted,
    /// When a quota was last written by somebody.
    written: Mutex<HashMap<ObjectKey, Instant>>,
}

pub(crate) fn start(ctx: &Context) {
    let queue = WorkQueue::new();
    let (informers, sink) = (ctx.informers.clone(), queue.clone());
    let hears = move |resource: &plan::Resource, namespace: &str, happened: Happened| {
        let evaluator = Evaluator::of(&resource.0, &resource.1);
        for quota in informers.resource_quotas.list_in(namespace, |quota| counts(quota, &evaluator)) {
            let key = ObjectKey::of(&quota.metadata);
            match happened {
                Happened::Freed => sink.add(Work::Recount(key)),
                Happened::Added => sink.add_after(Work::Raise(key), ADDED),
            }
        }
    };
    let hears: super::objects::Hears = Arc::new(hears);
    let shared = Arc::new(Shared { queue, counted: Counted::new(hears.clone()), written: Mutex::default() });
    let (sink, of_pods) = (hears.clone(), (String::new(), "pods".to_owned()));
    ctx.informers.pods.subscribe(move |change| {
        let changed = |old: &Arc<Pod>, new: &Arc<Pod>| plan::changed(old, new);
        tell(change, changed, &|namespace, happened| sink(&of_pods, namespace, happened));
    });
    let (sink, of_claims) = (hears.clone(), (String::new(), "persistentvolumeclaims".to_owned()));
    ctx.informers.persistent_volume_claims.subscribe(move |change| {
        let changed = |old: &Arc<PersistentVolumeClaim>, new: &Arc<PersistentVolumeClaim>| {
            old.spec != new.spec || old.status != new.status
        };
        tell(change, changed, &|namespace, happened| sink(&of_claims, namespace, happened));
    });
    let (sink, of_services) = (hears, (String::new(), "services".to_owned()));
    ctx.informers.services.subscribe(move |change| {
        let changed = |old: &Arc<Service>, new: &Arc<Service>| old.spec != new.spec;
        tell(change, changed, &|namespace, happened| sink(&of_services, namespace, happened));
    });
    let heard = shared.clone();
    ctx.informers.resource_quotas.subscribe(move |change| heard.quota_changed(change));
    let (follower, following) = (ctx.clone(), shared.clone());
    ctx.tasks.spawn(async move {
        // A watch of what is served no longer would fail for ever.
        while follower.token.run_until_cancelled(tokio::time::sleep(UNSERVED)).await.is_some() {
            following.counted.drop_unserved(&follower).await;
        }
    });
    let worker = ctx.clone();
    let queue = shared.queue.clone();
    spawn_workers("resourcequota", &queue, ctx.config.workers, &ctx.runner, move |work| {
        let (ctx, shared) = (worker.clone(), shared.clone());
        async move { shared.sync(&ctx, work).await }
    });
}

/// Whether a quota counts objects of a kind.
fn counts(quota: &ResourceQuota, evaluator: &Evaluator) -> bool {
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
    hard.is_some_and(|hard| hard.keys().any(|name| evaluator.tracks(name)))
}

fn tell<K: kube::Resource>(
    change: &Change<'_, K>,
    changed: impl Fn(&Arc<K>, &Arc<K>) -> bool,
    sink: &dyn Fn(&str, Happened),
) {
    let happened = match (change.old, change.new) {
        (Some(old), Some(new)) if !changed(old, new) => return,
        (None, _) => Happened::Added,
        _ => Happened::Freed,
    };
    sink(change.latest().meta().namespace.as_deref().unwrap_or_default(), happened);
}

impl Shared {
    fn written(&self) -> std::sync::MutexGuard<'_, HashMap<ObjectKey, Instant>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn quota_changed(&self, change: &Change<'_, ResourceQuota>) {
        let key = ObjectKey::of(&change.latest().metadata);
        let Some(new) = change.new else {
            self.written().remove(&key);
            return self.queue.add(Work::Recount(key));
        };
        self.written().insert(key.clone(), Instant::now());
        match change.old.filter(|old| old.spec == new.spec) {
            None => self.queue.add(Work::Recount(key)),
            Some(old) if old.status != new.status => self.queue.add_after(Work::Settle(key), SETTLED),
            Some(_) => {}
        }
    }

    async fn sync(&self, ctx: &Context, work: Work) -> Result<Next, SyncError> {
        let (Work::Recount(key) | Work::Raise(key) | Work::Settle(key)) = &work;
        let Some(quota) = ctx.informers.resource_quotas.get(key) else {
            self.give_up(ctx).await;
            return Ok(Next::Wait);
        };
        if let Work::Settle(_) = work {
            let since = self.written().get(key).map_or(SETTLED, Instant::elapsed);
            if since < SETTLED {
                return Ok(Next::After(SETTLED - since));
            }
        }
        let count = if let Work::Raise(_) = work { Count::Raise } else { Count::Exact };
        let complete = self.recount(ctx, key, &quota, count).await?;
        Ok(match work {
            _ if !complete => Next::After(UNSERVED),
            Work::Recount(_) => Next::After(RESYNC),
            Work::Raise(_) | Work::Settle(_) => Next::Wait,
        })
    }

    /// Counts and writes; whether every kind is served that the quota counts.
    async fn recount(
        &self,
        ctx: &Context,
        key: &ObjectKey,
        object: &ResourceQuota,
        count: Count,
    ) -> Result<bool, SyncError> {
        let value = to_value(object).unwrap_or_default();
        let (quota, now) = (Quota::read(&value), Timestamp::now());
        let (mut counted, mut complete) = (Amounts::new(), true);
        for resource in resources(&quota) {
            let evaluator = Evaluator::of(&resource.0, &resource.1);
            match self.counted.objects(ctx, &resource, &key.namespace).await? {
                Some(objects) => add(&mut counted, &quota.count(&evaluator, objects.iter().map(|of| &**of), now)),
                None => complete = false,
            }
        }
        if let Some(status) = next_status(&quota, counted, count) {
            write(ctx, key, value, status).await?;
        }
        Ok(complete)
    }

    /// A quota is gone: what only it counted is watched no more.
    async fn give_up(&self, ctx: &Context) {
        let (mut needed, mut namespaces) = (BTreeSet::new(), BTreeSet::new());
        for quota in ctx.informers.resource_quotas.list() {
            needed.extend(resources(&Quota::read(&to_value(&*quota).unwrap_or_default())));
            namespaces.extend(quota.metadata.namespace.clone());
        }
        self.counted.keep_only(&needed, &namespaces).await;
    }
}

/// Writes the status of just the quota that was read.
async fn write(ctx: &Context, key: &ObjectKey, mut quota: Value, status: Value) -> Result<(), SyncError> {
    quota["status"] = status;
    let api: Api<ResourceQuota> = api_in(&ctx.client, key);
    let quota: ResourceQuota = match serde_json::from_value(quota) {
        Ok(quota) => quota,
        Err(error) => return Err(SyncError::Invalid(format!("write ResourceQuota {key}: {error}"))),
    };
    match api.replace_status(&key.name, &PostParams::default(), &quota).await {
        Ok(written) => {
            ctx.informers.resource_quotas.written(written);
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(SyncError::api("write status of ResourceQuota", key)(error)),
    }
}

//! Counts for each quota and writes its status.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, Service};
use kube::Api;
use kube::api::PostParams;
use quota::{Amounts, Evaluator, Quota, add};
use serde::Serialize;
use serde_json::{Value, to_value};
use tokio::time::Instant;

use super::objects::{Counted, Heard, Hears};
use super::plan::{self, Count, next_status, resources};
use crate::Context;
use crate::informers::Informers;
use client::workqueue::{Next, SyncError, WorkQueue, spawn_workers};
use client::{Change, ObjectKey, Store, api_in};

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
    /// Give back what was freed, and see that what is there was charged.
    Adjust(ObjectKey),
    /// Count everything once nothing was charged for a while: a write may have failed after it was.
    Settle(ObjectKey),
}

struct Shared {
    queue: Arc<WorkQueue<Work>>,
    counted: Counted,
    /// When a quota was last written by somebody.
    written: Mutex<HashMap<ObjectKey, Instant>>,
    /// What was freed and not given back yet.
    freed: Arc<Mutex<HashMap<ObjectKey, Amounts>>>,
}

pub(crate) fn start(ctx: &Context) {
    let (queue, freed) = (WorkQueue::new(), Arc::default());
    let (informers, sink, notes) = (ctx.informers.clone(), queue.clone(), Arc::clone(&freed));
    let hears: Hears = Arc::new(move |resource: &plan::Resource, namespace: &str, heard: &Heard<'_>| {
        note(&informers, &sink, &notes, (resource, namespace), heard);
    });
    let shared = Arc::new(Shared { queue, counted: Counted::new(hears.clone()), written: Mutex::default(), freed });
    listen("pods", &ctx.informers.pods, &hears, |old: &Pod, new: &Pod| plan::changed(old, new));
    listen("services", &ctx.informers.services, &hears, |old: &Service, new: &Service| old.spec != new.spec);
    let claims = &ctx.informers.persistent_volume_claims;
    listen("persistentvolumeclaims", claims, &hears, |old: &PersistentVolumeClaim, new: &PersistentVolumeClaim| {
        old.spec != new.spec || old.status != new.status
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

/// Notes what was heard for the quotas that count it.
fn note(
    informers: &Informers,
    queue: &WorkQueue<Work>,
    freed: &Mutex<HashMap<ObjectKey, Amounts>>,
    (resource, namespace): (&plan::Resource, &str),
    heard: &Heard<'_>,
) {
    let evaluator = Evaluator::of(&resource.0, &resource.1);
    let quotas = informers.resource_quotas.list_in(namespace, |quota| counts(quota, &evaluator));
    let Heard::Changed(measure) = heard else {
        return quotas.iter().for_each(|quota| queue.add(Work::Recount(ObjectKey::of(&quota.metadata))));
    };
    if quotas.is_empty() {
        return;
    }
    let ((old, new), now) = (measure(), Timestamp::now());
    for quota in quotas {
        let key = ObjectKey::of(&quota.metadata);
        let quota = Quota::read(&to_value(&*quota).unwrap_or_default());
        let gone = old.as_ref().map(|old| quota.freed(old, new.as_ref(), now)).unwrap_or_default();
        if gone.is_empty() {
            queue.add_after(Work::Adjust(key), ADDED);
            continue;
        }
        add(lock(freed).entry(key.clone()).or_default(), &gone);
        queue.add(Work::Adjust(key));
    }
}

/// Hears of a cache.
fn listen<K>(
    plural: &'static str,
    store: &Arc<Store<K>>,
    hears: &Hears,
    changed: impl Fn(&K, &K) -> bool + Send + Sync + 'static,
) where
    K: kube::Resource<DynamicType = ()> + Serialize + Send + Sync + 'static,
{
    let (hears, resource, evaluator) = (hears.clone(), (String::new(), plural.to_owned()), Evaluator::of("", plural));
    store.subscribe(move |change| {
        if let (Some(old), Some(new)) = (change.old, change.new)
            && !changed(old, new)
        {
            return;
        }
        let of =
            |object: Option<&Arc<K>>| object.map(|object| evaluator.measure(&to_value(&**object).unwrap_or_default()));
        let namespace = change.latest().meta().namespace.as_deref().unwrap_or_default();
        hears(&resource, namespace, &Heard::Changed(&|| (of(change.old), of(change.new))));
    });
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn quota_changed(&self, change: &Change<'_, ResourceQuota>) {
        let key = ObjectKey::of(&change.latest().metadata);
        let Some(new) = change.new else {
            lock(&self.written).remove(&key);
            lock(&self.freed).remove(&key);
            return self.queue.add(Work::Recount(key));
        };
        lock(&self.written).insert(key.clone(), Instant::now());
        match change.old.filter(|old| old.spec == new.spec) {
            None => self.queue.add(Work::Recount(key)),
            Some(old) if old.status != new.status => self.queue.add_after(Work::Settle(key), SETTLED),
            Some(_) => {}
        }
    }

    async fn sync(&self, ctx: &Context, work: Work) -> Result<Next, SyncError> {
        let (Work::Recount(key) | Work::Adjust(key) | Work::Settle(key)) = &work;
        let Some(quota) = ctx.informers.resource_quotas.get(key) else {
            self.give_up(ctx).await;
            return Ok(Next::Wait);
        };
        if let Work::Settle(_) = work {
            let since = lock(&self.written).get(key).map_or(SETTLED, Instant::elapsed);
            if since < SETTLED {
                return Ok(Next::After(SETTLED - since));
            }
        }
        let freed = lock(&self.freed).remove(key).unwrap_or_default();
        let count = if let Work::Adjust(_) = work { Count::AtLeast { freed } } else { Count::Exact };
        let counted = self.recount(ctx, key, &quota, &count).await;
        if let (Err(_), Count::AtLeast { freed }) = (&counted, count) {
            // It is still to be given back.
            add(lock(&self.freed).entry(key.clone()).or_default(), &freed);
        }
        let complete = counted?;
        Ok(match work {
            _ if !complete => Next::After(UNSERVED),
            Work::Recount(_) => Next::After(RESYNC),
            Work::Adjust(_) | Work::Settle(_) => Next::Wait,
        })
    }

    /// Counts and writes; whether every kind is served that the quota counts.
    async fn recount(
        &self,
        ctx: &Context,
        key: &ObjectKey,
        object: &ResourceQuota,
        count: &Count,
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

//! Performs the verdicts, each after a look at the object itself.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::{DynamicObject, PartialObjectMeta};
use serde_json::json;

use super::graph::{FOREGROUND, ORPHAN, Object, Owner, Uid, Work, refers_to};
use super::kinds::Kind;
use super::monitor::{Shared, follow};
use super::plan::{Known, OwnerState, UNSERVED, Verdict, blocking, evidently_kept, in_circle, judge};
use crate::Context;
use crate::namespace::{Resource, discover};
use client::events::EventType;
use client::segment;
use client::workqueue::{Next, SyncError, chain, panic_text, spawn_workers};

/// How long to wait for the first lists; a resource that cannot be listed must
/// not keep all others from being collected.
const FIRST_LISTS: Duration = Duration::from_secs(30);
const WORKERS: usize = 8;
/// How often the server is asked for what it serves now, as upstream's.
const RESYNC: Duration = Duration::from_secs(30);
/// Pauses between discoveries that were not complete, and after a panic: the first, and the longest.
const RETRY: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(10)];

pub(crate) fn start(ctx: &Context) {
    let ctx = ctx.clone();
    let tasks = ctx.tasks.clone();
    tasks.spawn(async move {
        let (shared, mut working) = (Arc::new(Shared::new()), false);
        let token = ctx.token.clone();
        let following = async {
            while let Err(panic) = AssertUnwindSafe(follow_all(&ctx, &shared, &mut working)).catch_unwind().await {
                tracing::error!(
                    panic = panic_text(&*panic),
                    "garbage collection panicked and asks for all resources again"
                );
                tokio::time::sleep(RETRY[1]).await;
            }
        };
        tokio::select! {
            // The watches and workers end with the same token.
            () = token.cancelled() => {}
            () = following => {}
        }
    });
}

/// Follows all resources as they come and go. The work starts with those of the first discovery that succeeds; groups
/// that did not answer are asked again soon.
async fn follow_all(ctx: &Context, shared: &Arc<Shared>, working: &mut bool) {
    let mut delay = RETRY[0];
    loop {
        let complete = match shared.kinds.refresh(follow_new(ctx, shared)).await {
            Ok((complete, waits)) => {
                if !*working {
                    first_lists(waits).await;
                    *working = true;
                    work(ctx, shared);
                }
                complete
            }
            Err(error) => {
                tracing::debug!(error = %chain(&error), "discovery failed");
                false
            }
        };
        let pause = if complete { RESYNC } else { delay };
        tokio::time::sleep(pause).await;
        delay = if complete { RETRY[0] } else { (delay * 2).min(RETRY[1]) };
    }
}

/// What tells when a watch has its first list.
type Synced = tokio::sync::watch::Receiver<bool>;

/// Asks for all resources and follows what has changed; whether every group answered.
async fn follow_new(ctx: &Context, shared: &Arc<Shared>) -> Result<(bool, Vec<Synced>), kube::Error> {
    let found = discover(&ctx.client).await?;
    Ok((found.failures.is_empty(), follow(ctx, shared, &found)))
}

async fn first_lists(waits: Vec<Synced>) {
    let all = futures::future::join_all(waits.into_iter().map(|mut rx| async move {
        // The sender ends only with the watch, and that with the process.
        let _ = rx.wait_for(|synced| *synced).await;
    }));
    if tokio::time::timeout(FIRST_LISTS, all).await.is_err() {
        tracing::warn!("garbage collection starts without the lists of all resources");
    }
}

fn work(ctx: &Context, shared: &Arc<Shared>) {
    let worker = Worker { ctx: ctx.clone(), shared: shared.clone() };
    spawn_workers("garbage-collector", &shared.queue, WORKERS, &ctx.runner, move |item| {
        let worker = worker.clone();
        async move {
            match item {
                Work::Delete(uid) => worker.attempt_to_delete(&uid).await,
                Work::Orphan(uid) => worker.attempt_to_orphan(&uid).await,
            }
        }
    });
}

#[derive(Clone)]
struct Worker {
    ctx: Context,
    shared: Arc<Shared>,
}

type Live = PartialObjectMeta<DynamicObject>;

impl Worker {
    fn api(&self, resource: &Resource, namespace: &str) -> Api<DynamicObject> {
        if resource.namespaced && !namespace.is_empty() {
            Api::namespaced_with(self.ctx.client.clone(), namespace, &resource.api)
        } else {
            Api::all_with(self.ctx.client.clone(), &resource.api)
        }
    }

    /// The object as the server has it; `None` when it is gone (and then it is
    /// gone from the graph as well). Of a kind that is not served nobody knows.
    async fn live(&self, uid: &Uid, object: &Object) -> Result<Option<(Api<DynamicObject>, Live)>, SyncError> {
        let Some(resource) = self.shared.served(object.resource) else {
            return Err(SyncError::Incomplete(format!("the kind of {} is not served", object.name)));
        };
        let api = self.api(&resource, &object.namespace);
        let found = api.get_metadata_opt(&segment(&object.name)).await;
        let found = found.map_err(SyncError::api("get metadata of", &object.name))?;
        match found.filter(|live| live.metadata.uid.as_deref() == Some(uid)) {
            Some(live) => Ok(Some((api, live))),
            None => {
                let work = self.shared.graph().remove(uid);
                self.shared.enqueue(work);
                Ok(None)
            }
        }
    }

    async fn attempt_to_delete(&self, uid: &Uid) -> Result<Next, SyncError> {
        let object = {
            let graph = self.shared.graph();
            let Some(object) = graph.get(uid) else { return Ok(Next::Wait) };
            // Being deleted already, or evidently wanted.
            let is_kind = |owner: &Owner, id| self.shared.is_kind(owner, id);
            if (object.deleting || evidently_kept(&graph, object, &is_kind)) && !object.foreground {
                return Ok(Next::Wait);
            }
            object.clone()
        };
        if !object.foreground && self.waits_for_a_kind(&object).await? {
            return Ok(Next::After(UNSERVED));
        }
        let Some((api, live)) = self.live(uid, &object).await? else { return Ok(Next::Wait) };
        let current = Object::new(object.resource, &live.metadata);
        if current.foreground {
            return self.foreground(uid, &api, &live).await;
        }
        if current.deleting {
            return Ok(Next::Wait);
        }
        let mut owners = Vec::new();
        for owner in &*current.owners {
            owners.push((owner.clone(), self.known(uid, &current, owner).await?));
        }
        let has_dependents = self.shared.graph().has_dependents(uid);
        let (verdict, again) = judge(&owners, has_dependents);
        self.perform(uid, &current, (api, live), verdict).await?;
        Ok(again.map_or(Next::Wait, Next::After))
    }

    async fn perform(
        &self,
        uid: &Uid,
        current: &Object,
        (api, live): (Api<DynamicObject>, Live),
        verdict: Verdict,
    ) -> Result<(), SyncError> {
        match verdict {
            Verdict::Keep => {}
            Verdict::DropOwners(useless) => self.drop_owners(&api, &live, &useless).await?,
            Verdict::DeleteForeground => {
                let circle = in_circle(&self.shared.graph(), uid);
                if circle {
                    self.unblock_owners(&api, &live).await?;
                    let Some((api, live)) = self.live(uid, current).await? else { return Ok(()) };
                    self.delete(&api, &live, PropagationPolicy::Foreground).await?;
                } else {
                    self.delete(&api, &live, PropagationPolicy::Foreground).await?;
                }
            }
            Verdict::Delete => {
                let has = |name: &str| live.metadata.finalizers.iter().flatten().any(|f| f == name);
                let policy = if has(ORPHAN) {
                    PropagationPolicy::Orphan
                } else if has(FOREGROUND) {
                    PropagationPolicy::Foreground
                } else {
                    PropagationPolicy::Background
                };
                self.delete(&api, &live, policy).await?;
            }
        }
        Ok(())
    }

    /// Whether an owner exists: by the graph, else by asking the server.
    async fn known(&self, uid: &Uid, object: &Object, owner: &Owner) -> Result<Known, SyncError> {
        let waiting = |foreground: bool| {
            if foreground && owner.blocks { OwnerState::Waiting } else { OwnerState::Solid }
        };
        let is_kind = |owner: &Owner, id| self.shared.is_kind(owner, id);
        let known = self.shared.graph().get(&owner.uid).cloned();
        if let Some(known) = known.as_ref().filter(|known| refers_to(object, owner, known, &is_kind)) {
            return Ok(Known::Observed(waiting(known.foreground)));
        }
        if known.is_some_and(|known| !known.namespace.is_empty() && known.namespace != object.namespace) {
            self.invalid_namespace(uid, object, owner);
        }
        let resource = match self.kind_of(owner).await? {
            Kind::Served(resource) => resource,
            Kind::Unserved => return Ok(Known::Unserved),
            Kind::Unclear => {
                let kind = format!("{} {}", owner.api_version, owner.kind);
                return Err(SyncError::Incomplete(format!("kind {kind} is not known until every group answers")));
            }
        };
        if resource.namespaced && object.namespace.is_empty() {
            // Names no object at all; upstream leaves such objects alone.
            return Ok(Known::Observed(OwnerState::Solid));
        }
        let api = self.api(&resource, &object.namespace);
        let found = api.get_metadata_opt(&segment(&owner.name)).await;
        let found = found.map_err(SyncError::api("get owner", &owner.name))?;
        Ok(match found.filter(|live| live.metadata.uid.as_deref() == Some(&*owner.uid)) {
            Some(live) => Known::Asked(waiting(Object::new(0, &live.metadata).foreground)),
            None => Known::Observed(OwnerState::Dangling),
        })
    }

    /// Says that an owner lies in another namespace than its dependent.
    fn invalid_namespace(&self, uid: &Uid, object: &Object, owner: &Owner) {
        let Some(resource) = self.shared.resource(object.resource) else { return };
        let reference = ObjectReference {
            api_version: Some(resource.api.api_version.clone()),
            kind: Some(resource.api.kind.clone()),
            namespace: Some(object.namespace.to_string()).filter(|n| !n.is_empty()),
            name: Some(object.name.to_string()),
            uid: Some(uid.to_string()),
            ..ObjectReference::default()
        };
        let text = format!(
            "ownerRef [{}/{}, name: {}, uid: {}] does not exist in namespace {:?}",
            owner.api_version, owner.kind, owner.name, owner.uid, object.namespace
        );
        let events = self.ctx.events.named("garbage-collector-controller");
        events.event_on(reference, EventType::Warning, "OwnerRefInvalidNamespace", text);
    }

    /// Lets all owners go before this object does.
    async fn unblock_owners(&self, api: &Api<DynamicObject>, live: &Live) -> Result<(), SyncError> {
        let mut owners = live.metadata.owner_references.clone().unwrap_or_default();
        for owner in &mut owners {
            owner.block_owner_deletion = Some(false);
        }
        self.patch(api, live, json!({"ownerReferences": owners})).await
    }

    /// Whether an owner is of a kind that nobody serves. The object stays then, whatever else is true of it, so nobody
    /// is asked for it: there may be many, and they are looked at often.
    async fn waits_for_a_kind(&self, object: &Object) -> Result<bool, SyncError> {
        for owner in &*object.owners {
            let unknown = self.shared.graph().get(&owner.uid).is_none();
            if unknown && self.kind_of(owner).await? == Kind::Unserved {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The resource of an owner's kind; asks the server again for unknown ones.
    async fn kind_of(&self, owner: &Owner) -> Result<Kind, SyncError> {
        let find = || self.shared.find(&owner.api_version, &owner.kind);
        let ask = async { follow_new(&self.ctx, &self.shared).await.map(|(complete, _)| complete) };
        self.shared.kinds.resource(find, ask).await.map_err(SyncError::api("discover", &owner.kind))
    }

    /// Carries a foreground deletion on: dependents first, then the object.
    async fn foreground(&self, uid: &Uid, api: &Api<DynamicObject>, live: &Live) -> Result<Next, SyncError> {
        let waiting_for = blocking(&self.shared.graph(), uid);
        if waiting_for.is_empty() {
            self.remove_finalizer(api, live, FOREGROUND).await?;
            return Ok(Next::Wait);
        }
        for dependent in waiting_for {
            let deleting = self.shared.graph().get(&dependent).is_some_and(|o| o.deleting);
            if !deleting {
                self.shared.queue.add(Work::Delete(dependent));
            }
        }
        Ok(Next::Wait)
    }

    /// Sets all dependents free, then lets the object go.
    async fn attempt_to_orphan(&self, uid: &Uid) -> Result<Next, SyncError> {
        let Some(object) = self.shared.graph().get(uid).cloned() else { return Ok(Next::Wait) };
        let Some((api, live)) = self.live(uid, &object).await? else { return Ok(Next::Wait) };
        if !Object::new(object.resource, &live.metadata).orphaning {
            return Ok(Next::Wait);
        }
        let dependents: Vec<(Uid, Object)> =
            self.shared.graph().dependents(uid).map(|(u, o)| (u.clone(), o.clone())).collect();
        for (dependent, object) in dependents {
            if let Some((api, live)) = self.live(&dependent, &object).await? {
                self.drop_owners(&api, &live, std::slice::from_ref(uid)).await?;
            }
        }
        self.remove_finalizer(&api, &live, ORPHAN).await?;
        Ok(Next::Wait)
    }

    async fn drop_owners(&self, api: &Api<DynamicObject>, live: &Live, useless: &[Uid]) -> Result<(), SyncError> {
        let owners = live.metadata.owner_references.iter().flatten();
        let kept: Vec<_> = owners.filter(|o| !useless.iter().any(|u| **u == *o.uid)).collect();
        if kept.len() == live.metadata.owner_references.as_ref().map_or(0, Vec::len) {
            return Ok(());
        }
        self.patch(api, live, json!({"ownerReferences": kept})).await
    }

    async fn remove_finalizer(&self, api: &Api<DynamicObject>, live: &Live, name: &str) -> Result<(), SyncError> {
        let kept: Vec<_> = live.metadata.finalizers.iter().flatten().filter(|f| *f != name).collect();
        self.patch(api, live, json!({"finalizers": kept})).await
    }

    async fn patch(&self, api: &Api<DynamicObject>, live: &Live, mut meta: serde_json::Value) -> Result<(), SyncError> {
        meta["uid"] = json!(live.metadata.uid);
        meta["resourceVersion"] = json!(live.metadata.resource_version);
        let name = live.metadata.name.as_deref().unwrap_or_default();
        let patch = Patch::Merge(json!({"metadata": meta}));
        match api.patch_metadata(&segment(name), &PatchParams::default(), &patch).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(SyncError::api("patch metadata of", name)(error)),
        }
    }

    async fn delete(&self, api: &Api<DynamicObject>, live: &Live, policy: PropagationPolicy) -> Result<(), SyncError> {
        let name = live.metadata.name.as_deref().unwrap_or_default();
        tracing::debug!(name, namespace = live.metadata.namespace, ?policy, "collecting garbage");
        let params = DeleteParams {
            propagation_policy: Some(policy),
            // A change in between may have given the object a reason to be.
            preconditions: Some(Preconditions {
                uid: live.metadata.uid.clone(),
                resource_version: live.metadata.resource_version.clone(),
            }),
            ..DeleteParams::default()
        };
        match api.delete(&segment(name), &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(SyncError::api("delete", name)(error)),
        }
    }
}

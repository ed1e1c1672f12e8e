//! What controllers that own objects by a selector do alike: being woken by
//! what they own, adopting and releasing.

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use client::objects::{Matcher, controller_key, controller_of, deleting, uid};
use client::workqueue::{SyncError, WorkQueue};
use client::{Change, ObjectKey, Store, api_in};

/// Wakes the owner that controls the object, before and after; an orphan wakes
/// all owners that select it.
pub fn wake_owners<O, K>(
    queue: &WorkQueue<ObjectKey>,
    owners: &Store<O>,
    selector: fn(&O) -> Option<&LabelSelector>,
    change: &Change<'_, K>,
) where
    O: Resource<DynamicType = ()>,
    K: Resource,
{
    for object in [change.old, change.new].into_iter().flatten() {
        if let Some(key) = controller_key::<O>(object.meta()) {
            queue.add(key);
        }
    }
    let Some(orphan) = change.new.filter(|object| controller_of(object.meta()).is_none()) else { return };
    let namespace = orphan.meta().namespace.as_deref().unwrap_or_default();
    let selects = |owner: &O| selector(owner).is_some_and(|s| Matcher::new(s).matches(orphan.meta()));
    for owner in owners.list_in(namespace, selects) {
        queue.add(ObjectKey::of(owner.meta()));
    }
}

/// Asks the server itself, so that an owner deleted a moment ago adopts nothing.
///
/// # Errors
/// When it is not there any more as it was, or does not answer.
pub async fn check_not_deleted<O>(client: &Client, key: &ObjectKey, owner: &str) -> Result<(), SyncError>
where
    O: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let api: Api<O> = api_in(client, key);
    let fresh = api.get(&key.name).await.map_err(SyncError::api("get owner", key))?;
    if uid(fresh.meta()) != owner || deleting(fresh.meta()) {
        return Err(SyncError::Incomplete(format!("{} {key} is gone or being deleted", O::kind(&()))));
    }
    Ok(())
}

/// Merges `owners` into the object's owner references; `None` when it is gone
/// or changed hands: the watch brings the rest.
///
/// # Errors
/// When the server refuses for another reason.
pub async fn patch_owners<K>(
    client: &Client,
    store: &Store<K>,
    object: &K,
    owners: Value,
) -> Result<Option<Arc<K>>, SyncError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let key = ObjectKey::of(object.meta());
    let patch = json!({"metadata": {"uid": uid(object.meta()), "ownerReferences": owners}});
    let api: Api<K> = api_in(client, &key);
    match api.patch(&key.name, &PatchParams::default(), &Patch::Strategic(&patch)).await {
        Ok(object) => {
            store.written(object);
            Ok(store.get(&key))
        }
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 422 => Ok(None),
        Err(error) => Err(SyncError::api("patch owners", key)(error)),
    }
}

#[cfg(test)]
mod tests;

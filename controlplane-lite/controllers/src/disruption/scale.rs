//! How many pods the controllers of a budget's pods want, as upstream's getExpectedScale
//! (pkg/controller/disruption/disruption.go): an owner counts only by its group, kind and uid.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;

use crate::Context;
use client::objects::{controller_of, name, owner_group, uid};
use client::workqueue::SyncError;
use client::{ObjectKey, api_in, segment};

/// The sum of the sizes, and the pods that nobody controls.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scale {
    pub(super) size: i32,
    pub(super) unmanaged: Vec<String>,
}

/// A controller that an owner reference leads to, and its size.
type Found = Option<(String, i32)>;

/// What an owner reference may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OwnerKind {
    ReplicaSet,
    StatefulSet,
    ReplicationController,
    Other,
}

/// The kind of an owner; of a group that upstream's finders do not know it is another kind of the same name.
fn owner_kind(owner: &OwnerReference) -> OwnerKind {
    match (owner.kind.as_str(), owner_group(owner)) {
        ("ReplicaSet", "apps" | "extensions") => OwnerKind::ReplicaSet,
        ("StatefulSet", "apps") => OwnerKind::StatefulSet,
        ("ReplicationController", "") => OwnerKind::ReplicationController,
        _ => OwnerKind::Other,
    }
}

/// Adds up the sizes of the controllers of these pods; the inner error says why they are not known.
pub(super) async fn scale(
    ctx: &Context,
    key: &ObjectKey,
    pods: &[Arc<Pod>],
) -> Result<Result<Scale, String>, SyncError> {
    let mut scale = Scale::default();
    // By owner reference, so that each is looked up once; and by what it led to.
    let mut looked_up: BTreeSet<&str> = BTreeSet::new();
    let mut sizes: BTreeMap<String, i32> = BTreeMap::new();
    for pod in pods {
        let Some(owner) = controller_of(&pod.metadata) else {
            scale.unmanaged.push(name(&pod.metadata).to_owned());
            continue;
        };
        if !looked_up.insert(&owner.uid) {
            continue;
        }
        let found = match owner_kind(owner) {
            OwnerKind::ReplicaSet => replica_set(ctx, key, owner),
            OwnerKind::StatefulSet => stateful_set(ctx, key, owner).await?,
            OwnerKind::ReplicationController => replication_controller(ctx, key, owner).await?,
            OwnerKind::Other => {
                return Ok(Err(format!("{} {} does not implement the scale subresource", owner.kind, owner.name)));
            }
        };
        let Some((uid, size)) = found else {
            return Ok(Err(format!("found no controllers for pod {:?}", name(&pod.metadata))));
        };
        sizes.insert(uid, size);
    }
    scale.size = sizes.values().copied().fold(0, i32::saturating_add);
    Ok(Ok(scale))
}

/// A ReplicaSet, or the Deployment that it belongs to: all its sets together have that one's size.
fn replica_set(ctx: &Context, key: &ObjectKey, owner: &OwnerReference) -> Found {
    let set = ctx.informers.replica_sets.get(&ObjectKey::new(&*key.namespace, &*owner.name))?;
    if uid(&set.metadata) != owner.uid {
        return None;
    }
    let above = controller_of(&set.metadata)
        .filter(|above| above.kind == "Deployment" && matches!(owner_group(above), "apps" | "extensions"));
    let Some(above) = above else {
        return Some((owner.uid.clone(), set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)));
    };
    let deployment = ctx.informers.deployments.get(&ObjectKey::new(&*key.namespace, &*above.name))?;
    let size = |d: &Deployment| d.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
    (uid(&deployment.metadata) == above.uid).then(|| (above.uid.clone(), size(&deployment)))
}

async fn stateful_set(ctx: &Context, key: &ObjectKey, owner: &OwnerReference) -> Result<Found, SyncError> {
    let api: Api<StatefulSet> = api_in(&ctx.client, key);
    let found = api.get_opt(&segment(&owner.name)).await.map_err(SyncError::api("get StatefulSet", &owner.name))?;
    let found = found.filter(|set| uid(&set.metadata) == owner.uid);
    Ok(found.map(|set| (owner.uid.clone(), set.spec.and_then(|s| s.replicas).unwrap_or(1))))
}

async fn replication_controller(ctx: &Context, key: &ObjectKey, owner: &OwnerReference) -> Result<Found, SyncError> {
    let api: Api<ReplicationController> = api_in(&ctx.client, key);
    let found =
        api.get_opt(&segment(&owner.name)).await.map_err(SyncError::api("get ReplicationController", &owner.name))?;
    let found = found.filter(|controller| uid(&controller.metadata) == owner.uid);
    Ok(found.map(|controller| (owner.uid.clone(), controller.spec.and_then(|s| s.replicas).unwrap_or(1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_known_by_its_group_too() {
        let kind = |api_version: &str, kind: &str| {
            owner_kind(&OwnerReference { api_version: api_version.into(), kind: kind.into(), ..Default::default() })
        };
        assert_eq!(kind("apps/v1", "ReplicaSet"), OwnerKind::ReplicaSet);
        assert_eq!(kind("extensions/v1beta1", "ReplicaSet"), OwnerKind::ReplicaSet);
        assert_eq!(kind("example.com/v1", "ReplicaSet"), OwnerKind::Other);
        assert_eq!(kind("apps/v1", "StatefulSet"), OwnerKind::StatefulSet);
        assert_eq!(kind("example.com/v1", "StatefulSet"), OwnerKind::Other);
        assert_eq!(kind("v1", "ReplicationController"), OwnerKind::ReplicationController);
        assert_eq!(kind("apps/v1", "ReplicationController"), OwnerKind::Other);
    }
}

//! What becomes of the finalizer of a claim or a volume. Pure.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use client::objects::{controller_of, deleting, name, terminated};

/// Keeps claims.
pub const CLAIM: &str = "kubernetes.io/pvc-protection";
/// Keeps volumes.
pub const VOLUME: &str = "kubernetes.io/pv-protection";

/// What to do with a finalizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is right as it is.
    Keep,
    /// It is missing.
    Add,
    /// Nobody uses the object: it may go.
    Remove,
}

/// Judges an object by whether it is used.
pub fn judge(meta: &ObjectMeta, finalizer: &str, used: impl FnOnce() -> bool) -> Verdict {
    let has = meta.finalizers.iter().flatten().any(|one| one == finalizer);
    match (deleting(meta), has) {
        (false, false) => Verdict::Add,
        (true, true) if !used() => Verdict::Remove,
        _ => Verdict::Keep,
    }
}

/// The finalizers without, or with, one of them.
pub fn next(meta: &mut ObjectMeta, finalizer: &str, verdict: Verdict) {
    let finalizers = meta.finalizers.get_or_insert_default();
    finalizers.retain(|one| one != finalizer);
    if verdict == Verdict::Add {
        finalizers.push(finalizer.to_owned());
    }
}

/// The claims that a pod names, whoever made them.
pub fn claims(pod: &Pod) -> impl Iterator<Item = String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| match &volume.persistent_volume_claim {
        Some(claim) => Some(claim.claim_name.clone()),
        None => volume.ephemeral.as_ref().map(|_| format!("{}-{}", name(&pod.metadata), volume.name)),
    })
}

/// Whether a pod uses a claim. One without a node does not: the kubelet starts none with a claim that is going.
pub fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let Some(spec) = pod.spec.as_ref().filter(|spec| spec.node_name.as_ref().is_some_and(|node| !node.is_empty()))
    else {
        return false;
    };
    let wanted = name(&claim.metadata);
    let owns = || controller_of(&claim.metadata).is_some_and(|owner| Some(&owner.uid) == pod.metadata.uid.as_ref());
    spec.volumes.iter().flatten().any(|volume| match &volume.persistent_volume_claim {
        Some(of) => of.claim_name == wanted,
        None => {
            let made = volume.ephemeral.is_some() && format!("{}-{}", name(&pod.metadata), volume.name) == wanted;
            made && owns() && !is_shut_down(pod)
        }
    })
}

/// Whether all that the kubelet did for a pod is undone.
fn is_shut_down(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let statuses = status.and_then(|status| status.container_statuses.as_ref());
    let runs =
        statuses.into_iter().flatten().any(|one| one.state.as_ref().is_some_and(|state| state.running.is_some()));
    terminated(pod) && deleting(&pod.metadata) && !runs
}

/// Whether a claim is bound to the volume.
pub fn bound(volume: &PersistentVolume) -> bool {
    volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, from_value, json};

    #[test]
    fn a_finalizer_goes_with_the_last_user() {
        let meta = |finalizers: &[&str], going: bool| {
            let mut meta = json!({"finalizers": finalizers});
            if going {
                meta["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            }
            from_value::<ObjectMeta>(meta).unwrap()
        };
        for (finalizers, going, used, expect) in [
            (&[][..], false, false, Verdict::Add),
            (&[CLAIM][..], false, false, Verdict::Keep),
            (&[CLAIM][..], true, true, Verdict::Keep),
            (&[CLAIM][..], true, false, Verdict::Remove),
            (&["other"][..], true, false, Verdict::Keep),
        ] {
            assert_eq!(judge(&meta(finalizers, going), CLAIM, || used), expect, "{finalizers:?} {going} {used}");
        }
        let mut changed = meta(&["a/b", CLAIM], true);
        next(&mut changed, CLAIM, Verdict::Remove);
        assert_eq!(changed.finalizers, Some(vec!["a/b".to_owned()]));
        next(&mut changed, CLAIM, Verdict::Add);
        assert_eq!(changed.finalizers.unwrap().len(), 2);
    }

    #[test]
    fn pods_on_nodes_use_their_claims() {
        let claim = |name: &str, owner: &str| {
            let owners = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": owner, "controller": true}]);
            from_value::<PersistentVolumeClaim>(json!({"metadata": {"name": name, "ownerReferences": owners}})).unwrap()
        };
        let pod = |node: &str, phase: &str, going: bool, volume: Value| {
            let mut pod = json!({"metadata": {"name": "p", "uid": "u"}, "status": {"phase": phase},
                "spec": {"nodeName": node, "containers": [], "volumes": [volume]}});
            if going {
                pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            }
            from_value::<Pod>(pod).unwrap()
        };
        let direct = json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}});
        let ephemeral = json!({"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}});
        for (pod, of, expect) in [
            (pod("n", "Running", false, direct.clone()), claim("c", "x"), true),
            (pod("n", "Succeeded", false, direct.clone()), claim("c", "x"), true),
            (pod("", "Pending", false, direct.clone()), claim("c", "x"), false),
            (pod("n", "Running", false, direct.clone()), claim("d", "x"), false),
            (pod("n", "Running", false, ephemeral.clone()), claim("p-v", "u"), true),
            (pod("n", "Running", false, ephemeral.clone()), claim("p-v", "other"), false),
            (pod("n", "Succeeded", true, ephemeral.clone()), claim("p-v", "u"), false),
        ] {
            assert_eq!(uses(&pod, &of), expect, "{pod:?}");
        }
        let named: Vec<_> = claims(&pod("n", "Running", false, ephemeral)).collect();
        assert_eq!(named, ["p-v"]);
    }
}

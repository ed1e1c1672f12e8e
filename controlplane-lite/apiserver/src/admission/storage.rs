//! StorageObjectInUseProtection: volumes and claims stay while they are used, which their controllers know.
//! PersistentVolumeClaimResize: a claim grows where its class lets it. Follow
//! `plugin/pkg/admission/storage/{storageobjectinuseprotection,persistentvolume/resize}`.

use quota::read;
use serde_json::{Value, json};

use super::{Mutated, Operation, Refusal, Request, View};
use scheme::access::{bool_at, ensure_map, list_at, str_at};

/// Kinds with what keeps their objects.
const FINALIZERS: [(&str, &str); 2] =
    [("persistentvolumes", "kubernetes.io/pv-protection"), ("persistentvolumeclaims", "kubernetes.io/pvc-protection")];

pub(super) fn protect(request: &Request<'_>, object: Option<&mut Value>, _: &dyn View) -> Result<Mutated, Refusal> {
    let finalizer = FINALIZERS.iter().find(|(plural, _)| request.is("", plural)).map(|(_, finalizer)| *finalizer);
    let (Some(object), Some(finalizer)) = (object, finalizer) else { return Ok(Mutated::No) };
    let there = list_at(object, &["metadata", "finalizers"]).iter().any(|one| one == finalizer);
    if request.operation != Operation::Create || !request.subresource.is_empty() || there {
        return Ok(Mutated::No);
    }
    let finalizers = ensure_map(object, &["metadata"]).entry("finalizers").or_insert_with(|| json!([]));
    match finalizers {
        Value::Array(list) => list.push(finalizer.into()),
        other => *other = json!([finalizer]),
    }
    Ok(Mutated::Whole)
}

pub(super) fn resize(request: &Request<'_>, object: Option<&Value>, view: &dyn View) -> Result<(), Refusal> {
    let changes = request.is("", "persistentvolumeclaims") && request.subresource.is_empty();
    let (Some(new), Some(old)) = (object, request.old) else { return Ok(()) };
    let size = |claim: &Value| read(&claim["spec"]["resources"]["requests"]).get("storage").copied();
    if !changes || request.operation != Operation::Update || size(new) <= size(old) {
        return Ok(());
    }
    if str_at(old, &["status", "phase"]) != "Bound" {
        return Err(request.forbidden("Only bound persistent volume claims can be expanded"));
    }
    let (class, before) = (class_of(new), class_of(old));
    let grows = || {
        let class = view.get("storage.k8s.io", "storageclasses", "", class);
        class.is_some_and(|class| bool_at(&class, &["allowVolumeExpansion"]))
    };
    if class.is_empty() || class != before || !grows() {
        return Err(request.forbidden(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support \
             resize",
        ));
    }
    Ok(())
}

fn class_of(claim: &Value) -> &str {
    let annotated = claim["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"].as_str();
    annotated.unwrap_or_else(|| str_at(claim, &["spec", "storageClassName"]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Operation;
    use super::super::tests::{Asked, Objects, creating, run};
    use serde_json::{Value, json};

    #[test]
    fn what_may_be_used_is_protected_once() {
        for (plural, namespace, finalizer) in [
            ("persistentvolumes", "", "kubernetes.io/pv-protection"),
            ("persistentvolumeclaims", "default", "kubernetes.io/pvc-protection"),
        ] {
            let asked = Asked { namespace, ..creating(plural) };
            let mut object = json!({"metadata": {"name": "v"}, "spec": {}});
            for _ in 0..2 {
                run(&asked, &mut object, &Objects::cluster()).unwrap();
                assert_eq!(object["metadata"]["finalizers"], json!([finalizer]));
            }
            let mut object = json!({"metadata": {"name": "v", "finalizers": ["a/b"]}, "spec": {}});
            let update = Asked { operation: Operation::Update, old: Some(object.clone()), ..asked };
            run(&update, &mut object, &Objects::cluster()).unwrap();
            assert_eq!(object["metadata"]["finalizers"], json!(["a/b"]), "whoever removed it meant it");
        }
    }

    #[test]
    fn claims_grow_where_their_class_lets_them() {
        let claim = |size: &str, class: &str, phase: &str| {
            json!({"metadata": {"name": "c", "namespace": "default"}, "status": {"phase": phase},
                "spec": {"storageClassName": class, "resources": {"requests": {"storage": size}}}})
        };
        let objects = Objects::cluster()
            .with("storageclasses", json!({"metadata": {"name": "grows"}, "allowVolumeExpansion": true}))
            .with("storageclasses", json!({"metadata": {"name": "fixed"}}));
        let refused = |old: Value, mut new: Value| {
            let asked = creating("persistentvolumeclaims");
            let asked = Asked { operation: Operation::Update, old: Some(old), ..asked };
            run(&asked, &mut new, &objects).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!(refused(claim("1Gi", "grows", "Bound"), claim("2Gi", "grows", "Bound")), "");
        assert_eq!(refused(claim("2Gi", "fixed", "Bound"), claim("1Gi", "fixed", "Bound")), "");
        for class in ["fixed", "gone", ""] {
            let why = refused(claim("1Gi", class, "Bound"), claim("2Gi", class, "Bound"));
            assert!(why.contains("only dynamically provisioned pvc can be resized"), "{class}: {why}");
        }
        let why = refused(claim("1Gi", "grows", "Pending"), claim("2Gi", "grows", "Pending"));
        assert!(why.contains("Only bound persistent volume claims can be expanded"), "{why}");
    }
}

//! Every field of a pod that names another object is known to the walker over a pod's references, or says here why it
//! need not be.

use std::collections::BTreeSet;
use std::sync::Arc;

use auth::pod::{CONTAINER_PATHS, PATHS};
use scheme::builtin;
use scheme::schema::{ObjectType, Type};

/// Words in a field's path, or in the name of the type that holds it, that say what it names.
const WORDS: [&str; 7] =
    ["secret", "configmap", "claim", "serviceaccount", "trustbundle", "localobjectreference", "typedobjectreference"];

/// Fields with such a word that name no object whose rights a pod would give.
const OTHERS: [(&str, &str); 17] = [
    ("valueFrom.configMapKeyRef.key", "a key inside"),
    ("valueFrom.secretKeyRef.key", "a key inside"),
    (".items[].key", "a key inside"),
    (".items[].path", "a path inside the volume"),
    ("clusterTrustBundle.path", "a path inside the volume"),
    ("clusterTrustBundle.labelSelector.", "a bundle is chosen by its signer"),
    ("serviceAccountToken.", "a token of the pod's own account"),
    ("azureFile.shareName", "the server's share"),
    ("resources.claims[].name", "a claim of the pod's own list"),
    ("resources.claims[].request", "a request inside a claim"),
    ("spec.resourceClaims[].name", "the pod's own word for it"),
    (".ephemeral.volumeClaimTemplate.", "the claim is named after pod and volume, and refers to volumes"),
    ("resourceClaimStatuses[].name", "the pod's own word for it"),
    ("extendedResourceClaimStatus.requestMappings[].", "names inside the claim and the pod"),
    ("podCertificate.", "a certificate of the pod's own account"),
    ("cephfs.secretFile", "a path on the node"),
    ("nodeAllocatableResourceClaimStatuses[].", "written by the node, so it gives no right"),
];

fn strings(object: &Arc<ObjectType>, path: &str, above: &mut Vec<String>, found: &mut BTreeSet<(String, String)>) {
    if above.iter().any(|name| name == object.name()) {
        return;
    }
    above.push(object.name().to_owned());
    for field in object.fields() {
        let mut ty = &field.ty;
        let mut step = format!("{path}{}", field.name);
        while let Type::List(items) | Type::Map(items) = ty {
            step.push_str("[]");
            ty = items;
        }
        match ty {
            Type::String => drop(found.insert((step, object.name().to_owned()))),
            Type::Object(inner) => strings(inner, &format!("{step}."), above, found),
            _ => {}
        }
    }
    above.pop();
}

#[test]
fn every_field_that_names_an_object_is_walked() {
    let pod = builtin().by_gvr("", "v1", "pods").unwrap().schema();
    let mut found = BTreeSet::new();
    for part in ["spec", "status"] {
        let inner = pod.field(part).unwrap().ty.object().unwrap();
        strings(inner, &format!("{part}."), &mut Vec::new(), &mut found);
    }
    let walked: BTreeSet<String> = ["containers", "initContainers", "ephemeralContainers"]
        .iter()
        .flat_map(|list| CONTAINER_PATHS.iter().map(move |(_, path)| format!("spec.{list}[].{path}")))
        .chain(PATHS.iter().map(|(_, path)| (*path).to_owned()))
        .collect();
    let paths: BTreeSet<&String> = found.iter().map(|(path, _)| path).collect();
    for path in &walked {
        assert!(paths.contains(path), "the walker looks at {path}, which no pod has");
    }
    let names_one = |path: &str, holder: &str| {
        let text = format!("{path} {holder}").to_lowercase();
        WORDS.iter().any(|word| text.contains(word))
    };
    let missing: Vec<&String> = found
        .iter()
        .filter(|(path, holder)| names_one(path, holder.rsplit('.').next().unwrap()))
        .map(|(path, _)| path)
        .filter(|path| !walked.contains(*path) && !OTHERS.iter().any(|(part, _)| path.contains(part)))
        .collect();
    assert!(missing.is_empty(), "neither walked nor excused: {missing:#?}");
    for (part, why) in OTHERS {
        assert!(paths.iter().any(|path| path.contains(part)), "{part} ({why}) is in no pod");
    }
}

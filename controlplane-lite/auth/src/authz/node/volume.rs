//! What a PersistentVolume names: its claim, and the Secrets that a node mounts it with (upstream's
//! `pkg/api/v1/persistentvolume/util.go`). Pure.

use serde_json::Value;

/// Where a Secret reference is, below a source of a PersistentVolume, and whether a reference without a namespace means
/// one in the claim's. What only controllers use (`controllerPublishSecretRef`, `controllerExpandSecretRef`) is left
/// out.
const SECRETS: [(&str, &str, bool); 10] = [
    ("cephfs", "secretRef", true),
    ("cinder", "secretRef", false),
    ("csi", "nodeExpandSecretRef", false),
    ("csi", "nodePublishSecretRef", false),
    ("csi", "nodeStageSecretRef", false),
    ("flexVolume", "secretRef", true),
    ("iscsi", "secretRef", true),
    ("rbd", "secretRef", true),
    ("scaleIO", "secretRef", true),
    ("storageos", "secretRef", false),
];

/// Namespace and name of the claim that a volume is bound to.
pub(super) fn claim(volume: &Value) -> Option<(&str, &str)> {
    let claim = &volume["spec"]["claimRef"];
    Some((claim["namespace"].as_str()?, claim["name"].as_str()?))
}

/// Whether a bound volume is mounted with this Secret.
pub(super) fn names_secret(volume: &Value, namespace: &str, name: &str) -> bool {
    let Some((of_claim, _)) = claim(volume) else { return false };
    let within = |given: &Value, inherits: bool| match given.as_str().unwrap_or_default() {
        "" if inherits => namespace == of_claim,
        given => given == namespace,
    };
    let spec = &volume["spec"];
    let azure = &spec["azureFile"];
    let file = azure["secretName"] == name && within(&azure["secretNamespace"], true);
    file || SECRETS.iter().any(|(source, field, inherits)| {
        let secret = &spec[source][field];
        secret["name"] == name && within(&secret["namespace"], *inherits)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_source_names_what_a_node_mounts_it_with() {
        let bound = |source: &str, what: Value| json!({"spec": {"claimRef": {"namespace": "ns", "name": "data"}, source: what}});
        let secret = |field: &str, namespace: Value| json!({field: {"name": "s", "namespace": namespace}});
        for (source, field, inherits) in SECRETS {
            let elsewhere = bound(source, secret(field, json!("other")));
            assert!(names_secret(&elsewhere, "other", "s") && !names_secret(&elsewhere, "ns", "s"), "{source} {field}");
            assert!(!names_secret(&elsewhere, "other", "t"), "{source}");
            let here = bound(source, secret(field, json!(null)));
            assert_eq!(names_secret(&here, "ns", "s"), inherits, "{source} {field}");
            let mut unbound = elsewhere;
            unbound["spec"]["claimRef"] = json!(null);
            assert!(!names_secret(&unbound, "other", "s"), "{source}: upstream's graph has no edge before it is bound");
        }
        let azure = |namespace: Value| bound("azureFile", json!({"secretName": "s", "secretNamespace": namespace}));
        assert!(names_secret(&azure(json!(null)), "ns", "s") && names_secret(&azure(json!("")), "ns", "s"));
        assert!(names_secret(&azure(json!("other")), "other", "s") && !names_secret(&azure(json!("other")), "ns", "s"));
        for field in ["controllerPublishSecretRef", "controllerExpandSecretRef"] {
            assert!(!names_secret(&bound("csi", secret(field, json!("other"))), "other", "s"), "{field}");
        }
    }
}

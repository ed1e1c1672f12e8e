//! Nodes, namespaces, secrets, volumes and claims, RBAC, classes.

use base64::Engine as _;
use serde_json::{Value, json};

use crate::access::{at, ensure_map, is_empty, list_at, list_at_mut, map_at_mut, set_default, set_default_str, str_at};

/// Node: allocatable is capacity until the kubelet says otherwise; podCIDR and podCIDRs agree.
pub fn node(object: &mut Value) {
    let capacity = at(object, &["status", "capacity"]).clone();
    if !is_empty(&capacity) && is_empty(at(object, &["status", "allocatable"])) {
        ensure_map(object, &["status"]).insert("allocatable".to_owned(), capacity);
    }
    let single = str_at(object, &["spec", "podCIDR"]).to_owned();
    let first = list_at(object, &["spec", "podCIDRs"]).first().cloned();
    match first {
        None if !single.is_empty() => {
            ensure_map(object, &["spec"]).insert("podCIDRs".to_owned(), json!([single]));
        }
        Some(first) if single.is_empty() => {
            ensure_map(object, &["spec"]).insert("podCIDR".to_owned(), first);
        }
        _ => {}
    }
}

/// Namespace: phase, and the label that lets selectors name it.
pub fn namespace(object: &mut Value) {
    set_default_str(ensure_map(object, &["status"]), "phase", "Active");
    let name = str_at(object, &["metadata", "name"]).to_owned();
    if !name.is_empty() {
        let labels = ensure_map(object, &["metadata", "labels"]);
        labels.insert("kubernetes.io/metadata.name".to_owned(), name.into());
    }
}

/// Secret: type, and `stringData` written into `data`.
pub fn secret(object: &mut Value) {
    let Some(map) = object.as_object_mut() else { return };
    set_default_str(map, "type", "Opaque");
    if let Some(Value::Object(strings)) = map.remove("stringData") {
        let data = ensure_map(object, &["data"]);
        for (key, value) in strings {
            let encoded = base64::engine::general_purpose::STANDARD.encode(value.as_str().unwrap_or(""));
            data.insert(key, encoded.into());
        }
    }
}

/// PersistentVolume.
pub fn persistent_volume(object: &mut Value) {
    set_default_str(ensure_map(object, &["status"]), "phase", "Pending");
    let spec = ensure_map(object, &["spec"]);
    set_default_str(spec, "persistentVolumeReclaimPolicy", "Retain");
    set_default(spec, "volumeMode", "Filesystem");
    if let Some(path) = map_at_mut(object, &["spec", "hostPath"]) {
        set_default(path, "type", "");
    }
}

/// PersistentVolumeClaim.
pub fn persistent_volume_claim(object: &mut Value) {
    set_default_str(ensure_map(object, &["status"]), "phase", "Pending");
    claim_spec(object);
}

/// The spec of a claim or of a claim template.
pub fn claim_spec(object: &mut Value) {
    let spec = ensure_map(object, &["spec"]);
    set_default(spec, "volumeMode", "Filesystem");
    // dataSource and dataSourceRef say the same when both may.
    let (source, reference) = (spec.get("dataSource").cloned(), spec.get("dataSourceRef").cloned());
    match (source.filter(|v| !v.is_null()), reference.filter(|v| !v.is_null())) {
        (Some(source), None) => {
            spec.insert("dataSourceRef".to_owned(), source);
        }
        (None, Some(reference)) if str_at(&reference, &["namespace"]).is_empty() => {
            let known = matches!(str_at(&reference, &["kind"]), "PersistentVolumeClaim" | "VolumeSnapshot");
            if known {
                spec.insert("dataSource".to_owned(), reference);
            }
        }
        _ => {}
    }
}

const RBAC: &str = "rbac.authorization.k8s.io";

/// RoleBinding and ClusterRoleBinding.
pub fn role_binding(object: &mut Value) {
    if let Some(role) = map_at_mut(object, &["roleRef"]) {
        set_default_str(role, "apiGroup", RBAC);
    }
    for subject in list_at_mut(object, &["subjects"]) {
        let group = match str_at(subject, &["kind"]) {
            "User" | "Group" => RBAC,
            _ => continue,
        };
        set_default_str(ensure_map(subject, &[]), "apiGroup", group);
    }
}

/// StorageClass.
pub fn storage_class(object: &mut Value) {
    let map = ensure_map(object, &[]);
    set_default(map, "reclaimPolicy", "Delete");
    set_default(map, "volumeBindingMode", "Immediate");
}

/// CSIDriver.
pub fn csi_driver(object: &mut Value) {
    let spec = ensure_map(object, &["spec"]);
    for (key, value) in [
        ("attachRequired", json!(true)),
        ("podInfoOnMount", json!(false)),
        ("storageCapacity", json!(false)),
        ("fsGroupPolicy", json!("ReadWriteOnceWithFSType")),
        ("requiresRepublish", json!(false)),
        ("seLinuxMount", json!(false)),
    ] {
        set_default(spec, key, value);
    }
    if spec.get("volumeLifecycleModes").is_none_or(is_empty) {
        spec.insert("volumeLifecycleModes".to_owned(), json!(["Persistent"]));
    }
}

/// PriorityClass.
pub fn priority_class(object: &mut Value) {
    let map = ensure_map(object, &[]);
    set_default(map, "preemptionPolicy", "PreemptLowerPriority");
    set_default(map, "value", 0);
}

/// LimitRange: for containers, limits default from max, requests from limits or min.
pub fn limit_range(object: &mut Value) {
    for item in list_at_mut(object, &["spec", "limits"]) {
        if str_at(item, &["type"]) != "Container" {
            continue;
        }
        for (target, source) in [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")] {
            let values = at(item, &[source]).as_object().cloned().unwrap_or_default();
            if values.is_empty() {
                continue;
            }
            let map = ensure_map(item, &[target]);
            for (key, value) in values {
                map.entry(key).or_insert(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_fold_string_data() {
        let mut object = json!({"stringData": {"a": "x"}, "data": {"a": "old", "b": "eQ=="}});
        secret(&mut object);
        assert_eq!(object, json!({"type": "Opaque", "data": {"a": "eA==", "b": "eQ=="}}));
    }

    #[test]
    fn bindings_name_their_groups() {
        let mut object = json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [
            {"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s", "namespace": "n"}]});
        role_binding(&mut object);
        assert_eq!(object["roleRef"]["apiGroup"], RBAC);
        assert_eq!(object["subjects"][0]["apiGroup"], RBAC);
        assert!(object["subjects"][1].get("apiGroup").is_none());
    }

    #[test]
    fn nodes_agree_on_pod_cidrs() {
        let mut object = json!({"spec": {"podCIDR": "10.42.0.0/24"}, "status": {"capacity": {"cpu": "1"}}});
        node(&mut object);
        assert_eq!(object["spec"]["podCIDRs"], json!(["10.42.0.0/24"]));
        assert_eq!(object["status"]["allocatable"], json!({"cpu": "1"}));
    }
}

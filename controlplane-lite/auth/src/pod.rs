//! Which objects a pod refers to: the one walker that the Node authorizer and admission share, so that what a kubelet
//! may read through a pod and what a mirror pod may not name are the same list.

use serde_json::Value;

/// The annotation of a mirror pod: one that a kubelet made for a static pod.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

/// Whether a pod stands for a static pod of its kubelet.
pub fn is_mirror(pod: &Value) -> bool {
    pod["metadata"]["annotations"].get(MIRROR).is_some()
}

/// What a pod can refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    Secret,
    ConfigMap,
    PersistentVolumeClaim,
    ServiceAccount,
    ResourceClaim,
    ClusterTrustBundle,
}

use Reference::{ClusterTrustBundle, ConfigMap, PersistentVolumeClaim, ResourceClaim, Secret, ServiceAccount};

const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// The names that a pod holds; `[]` stands for the items of a list.
pub const PATHS: &[(Reference, &str)] = &[
    (ServiceAccount, "spec.serviceAccountName"),
    (ServiceAccount, "spec.serviceAccount"),
    (Secret, "spec.imagePullSecrets[].name"),
    (Secret, "spec.volumes[].secret.secretName"),
    (Secret, "spec.volumes[].projected.sources[].secret.name"),
    (Secret, "spec.volumes[].azureFile.secretName"),
    (Secret, "spec.volumes[].cephfs.secretRef.name"),
    (Secret, "spec.volumes[].cinder.secretRef.name"),
    (Secret, "spec.volumes[].csi.nodePublishSecretRef.name"),
    (Secret, "spec.volumes[].flexVolume.secretRef.name"),
    (Secret, "spec.volumes[].iscsi.secretRef.name"),
    (Secret, "spec.volumes[].rbd.secretRef.name"),
    (Secret, "spec.volumes[].scaleIO.secretRef.name"),
    (Secret, "spec.volumes[].storageos.secretRef.name"),
    (ConfigMap, "spec.volumes[].configMap.name"),
    (ConfigMap, "spec.volumes[].projected.sources[].configMap.name"),
    (PersistentVolumeClaim, "spec.volumes[].persistentVolumeClaim.claimName"),
    (ClusterTrustBundle, "spec.volumes[].projected.sources[].clusterTrustBundle.name"),
    (ClusterTrustBundle, "spec.volumes[].projected.sources[].clusterTrustBundle.signerName"),
    (ResourceClaim, "spec.resourceClaims[].resourceClaimName"),
    (ResourceClaim, "spec.resourceClaims[].resourceClaimTemplateName"),
    (ResourceClaim, "status.resourceClaimStatuses[].resourceClaimName"),
    (ResourceClaim, "status.extendedResourceClaimStatus.resourceClaimName"),
];

/// The names that each container holds.
pub const CONTAINER_PATHS: &[(Reference, &str)] = &[
    (Secret, "envFrom[].secretRef.name"),
    (Secret, "env[].valueFrom.secretKeyRef.name"),
    (ConfigMap, "envFrom[].configMapRef.name"),
    (ConfigMap, "env[].valueFrom.configMapKeyRef.name"),
];

/// Calls `visit` with each object of the pod's namespace (or the cluster) that the pod refers to.
pub fn references(pod: &Value, visit: &mut dyn FnMut(Reference, &str)) {
    let mut named = |what: Reference, name: &Value| match name.as_str() {
        None | Some("") => {}
        Some(name) => visit(what, name),
    };
    for (what, path) in PATHS {
        walk(pod, path, &mut |name| named(*what, name));
    }
    let containers = CONTAINERS.iter().flat_map(|list| items(&pod["spec"][list]));
    for container in containers {
        for (what, path) in CONTAINER_PATHS {
            walk(container, path, &mut |name| named(*what, name));
        }
    }
    // A generic ephemeral volume's claim is named after pod and volume.
    let pod_name = pod["metadata"]["name"].as_str().unwrap_or_default();
    for volume in items(&pod["spec"]["volumes"]).filter(|volume| volume["ephemeral"].is_object()) {
        if let Some(volume) = volume["name"].as_str() {
            visit(PersistentVolumeClaim, &format!("{pod_name}-{volume}"));
        }
    }
}

/// Whether a pod has a reference of the kind.
pub fn has(pod: &Value, what: Reference) -> bool {
    let mut found = false;
    references(pod, &mut |kind, _| found = found || kind == what);
    found
}

fn walk(value: &Value, path: &str, visit: &mut dyn FnMut(&Value)) {
    let (step, rest) = path.split_once('.').map_or((path, None), |(step, rest)| (step, Some(rest)));
    let mut go = |value: &Value| match rest {
        Some(rest) => walk(value, rest, visit),
        None => visit(value),
    };
    match step.strip_suffix("[]") {
        Some(list) => items(&value[list]).for_each(go),
        None => go(&value[step]),
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests;

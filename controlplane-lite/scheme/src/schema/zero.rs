//! Scalar fields whose zero value Go leaves out on the wire: writing them out
//! (`hostNetwork: false`) means the same as leaving them out. Dropping them keeps
//! objects comparable with what a Go client sends back.

/// (end of the type's full name, fields). Pointer fields, where zero means something, are not here.
pub(super) static ROWS: &[(&str, &[&str])] = &[
    (
        ".core.v1.PodSpec",
        &[
            "hostIPC",
            "hostNetwork",
            "hostPID",
            "hostname",
            "nodeName",
            "priorityClassName",
            "serviceAccount",
            "serviceAccountName",
            "subdomain",
        ],
    ),
    (".core.v1.Container", &["image", "imagePullPolicy", "stdin", "stdinOnce", "tty", "workingDir"]),
    (".core.v1.EphemeralContainer", &["image", "stdin", "stdinOnce", "targetContainerName", "tty", "workingDir"]),
    (".core.v1.ContainerPort", &["hostIP", "hostPort", "name", "protocol"]),
    (".core.v1.EnvVar", &["value"]),
    (".core.v1.EnvFromSource", &["prefix"]),
    (".core.v1.VolumeMount", &["readOnly", "subPath", "subPathExpr"]),
    (".core.v1.Probe", &["initialDelaySeconds"]),
    (".core.v1.HTTPGetAction", &["host"]),
    (".core.v1.EmptyDirVolumeSource", &["medium"]),
    (".core.v1.PersistentVolumeClaimVolumeSource", &["readOnly"]),
    (".core.v1.NFSVolumeSource", &["readOnly"]),
    (".core.v1.Toleration", &["effect", "key", "operator", "value"]),
    (
        ".core.v1.ServiceSpec",
        &[
            "clusterIP",
            "externalName",
            "externalTrafficPolicy",
            "healthCheckNodePort",
            "loadBalancerIP",
            "publishNotReadyAddresses",
        ],
    ),
    (".core.v1.ServicePort", &["name", "nodePort", "protocol"]),
    (".core.v1.NodeSpec", &["podCIDR", "providerID", "unschedulable"]),
    (".core.v1.PersistentVolumeSpec", &["storageClassName"]),
    (".core.v1.PersistentVolumeClaimSpec", &["volumeName"]),
    (".apps.v1.DeploymentSpec", &["minReadySeconds", "paused"]),
    (".apps.v1.ReplicaSetSpec", &["minReadySeconds"]),
    (".apps.v1.DaemonSetSpec", &["minReadySeconds"]),
    (".apps.v1.StatefulSetSpec", &["minReadySeconds", "serviceName"]),
    (".scheduling.v1.PriorityClass", &["description", "globalDefault"]),
    (".meta.v1.ObjectMeta", &["generateName", "generation", "namespace", "resourceVersion", "selfLink", "uid"]),
];

/// Whether the zero value of this field is left out.
pub(super) fn drops(ty: &str, field: &str) -> bool {
    ROWS.iter().any(|(end, fields)| ty.ends_with(end) && fields.contains(&field))
}

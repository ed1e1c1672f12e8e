//! Facts about lists and patches that the schemas of k8s-openapi lack: which
//! lists are maps or sets (`x-kubernetes-list-type`, `-list-map-keys`), which
//! maps are atomic, and how strategic merge patch treats a field
//! (`x-kubernetes-patch-strategy`, `-patch-merge-key`). Sorted by type, then field.
//! List facts follow the schemas in k8s.io/client-go/applyconfigurations/internal; patch facts follow the Go tags.

use super::{ListType, Patch};

/// One row: type, field, list type, patch behaviour.
pub(super) type Row = (&'static str, &'static str, ListType, Patch);

const NO: Patch = Patch { merge: false, merge_key: "", retain_keys: false };

const fn merge(merge_key: &'static str) -> Patch {
    Patch { merge: true, merge_key, retain_keys: false }
}

const fn retain(merge: bool, merge_key: &'static str) -> Patch {
    Patch { merge, merge_key, retain_keys: true }
}

pub(super) static ROWS: &[Row] = &[
    (
        "io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicySpec",
        "matchConditions",
        ListType::Map(&["name"]),
        NO,
    ),
    ("io.k8s.api.admissionregistration.v1.MutatingWebhook", "matchConditions", ListType::Map(&["name"]), merge("name")),
    (
        "io.k8s.api.admissionregistration.v1.MutatingWebhookConfiguration",
        "webhooks",
        ListType::Map(&["name"]),
        merge("name"),
    ),
    (
        "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicyBindingSpec",
        "validationActions",
        ListType::Set,
        NO,
    ),
    (
        "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicySpec",
        "matchConditions",
        ListType::Map(&["name"]),
        merge("name"),
    ),
    ("io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicySpec", "variables", ListType::Map(&["name"]), NO),
    ("io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicyStatus", "conditions", ListType::Map(&["type"]), NO),
    (
        "io.k8s.api.admissionregistration.v1.ValidatingWebhook",
        "matchConditions",
        ListType::Map(&["name"]),
        merge("name"),
    ),
    (
        "io.k8s.api.admissionregistration.v1.ValidatingWebhookConfiguration",
        "webhooks",
        ListType::Map(&["name"]),
        merge("name"),
    ),
    ("io.k8s.api.apps.v1.ControllerRevision", "data", ListType::AtomicMap, NO),
    ("io.k8s.api.apps.v1.DaemonSetStatus", "conditions", ListType::Map(&["type"]), merge("type")),
    ("io.k8s.api.apps.v1.DeploymentSpec", "strategy", ListType::Default, retain(false, "")),
    ("io.k8s.api.apps.v1.DeploymentStatus", "conditions", ListType::Map(&["type"]), merge("type")),
    ("io.k8s.api.apps.v1.ReplicaSetStatus", "conditions", ListType::Map(&["type"]), merge("type")),
    ("io.k8s.api.apps.v1.StatefulSetStatus", "conditions", ListType::Map(&["type"]), merge("type")),
    ("io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerStatus", "conditions", ListType::Map(&["type"]), merge("type")),
    ("io.k8s.api.batch.v1.JobStatus", "conditions", ListType::Default, merge("type")),
    ("io.k8s.api.batch.v1.PodFailurePolicyOnExitCodesRequirement", "values", ListType::Set, NO),
    ("io.k8s.api.batch.v1.UncountedTerminatedPods", "failed", ListType::Set, NO),
    ("io.k8s.api.batch.v1.UncountedTerminatedPods", "succeeded", ListType::Set, NO),
    ("io.k8s.api.certificates.v1.CertificateSigningRequestStatus", "conditions", ListType::Map(&["type"]), NO),
    ("io.k8s.api.core.v1.ComponentStatus", "conditions", ListType::Map(&["type"]), NO),
    ("io.k8s.api.core.v1.Container", "env", ListType::Map(&["name"]), merge("name")),
    ("io.k8s.api.core.v1.Container", "ports", ListType::Map(&["containerPort", "protocol"]), merge("containerPort")),
    ("io.k8s.api.core.v1.Container", "volumeDevices", ListType::Map(&["devicePath"]), merge("devicePath")),
    ("io.k8s.api.core.v1.Container", "volumeMounts", ListType::Map(&["mountPath"]), merge("mountPath")),
    ("io.k8s.api.core.v1.ContainerRestartRuleOnExitCodes", "values", ListType::Set, NO),
    ("io.k8s.api.core.v1.ContainerStatus", "allocatedResourcesStatus", ListType::Map(&["name"]), NO),
    ("io.k8s.api.core.v1.ContainerStatus", "volumeMounts", ListType::Map(&["mountPath"]), NO),
    ("io.k8s.api.core.v1.EphemeralContainer", "env", ListType::Map(&["name"]), merge("name")),
    (
        "io.k8s.api.core.v1.EphemeralContainer",
        "ports",
        ListType::Map(&["containerPort", "protocol"]),
        merge("containerPort"),
    ),
    ("io.k8s.api.core.v1.EphemeralContainer", "volumeDevices", ListType::Map(&["devicePath"]), merge("devicePath")),
    ("io.k8s.api.core.v1.EphemeralContainer", "volumeMounts", ListType::Map(&["mountPath"]), merge("mountPath")),
    ("io.k8s.api.core.v1.NamespaceStatus", "conditions", ListType::Map(&["type"]), merge("type")),
    ("io.k8s.api.core.v1.NodeAllocatableResourceClaimStatus", "containers", ListType::Set, NO),
    ("io.k8s.api.core.v1.NodeSpec", "podCIDRs", ListType::Set, merge("")),
    ("io.k8s.api.core.v1.NodeStatus", "addresses", ListType::Map(&["type"]), merge("type")),
    ("io.k8s.api.core.v1.NodeStatus", "conditions", ListType::Map(&["type"]), merge("type")),
    ("io.k8s.api.core.v1.PersistentVolumeClaimStatus", "conditions", ListType::Map(&["type"]), merge("type")),
    ("io.k8s.api.core.v1.PodSpec", "containers", ListType::Map(&["name"]), merge("name")),
    ("io.k8s.api.core.v1.PodSpec", "ephemeralContainers", ListType::Map(&["name"]), merge("name")),
    ("io.k8s.api.core.v1.PodSpec", "hostAliases", ListType::Map(&["ip"]), merge("ip")),
    ("io.k8s.api.core.v1.PodSpec", "imagePullSecrets", ListType::Map(&["name"]), merge("name")),
    ("io.k8s.api.core.v1.PodSpec", "initContainers", ListType::Map(&["name"]), merge("name")),
    ("io.k8s.api.core.v1.PodSpec", "nodeSelector", ListType::AtomicMap, NO),
    ("io.k8s.api.core.v1.PodSpec", "resourceClaims", ListType::Map(&["name"]), retain(true, "name")),
    ("io.k8s.api.core.v1.PodSpec", "schedulingGates", ListType::Map(&["name"]), merge("name")),
    (
        "io.k8s.api.core.v1.PodSpec",
        "topologySpreadConstraints",
        ListType::Map(&["topologyKey", "whenUnsatisfiable"]),
        merge("topologyKey"),
    ),
    ("io.k8s.api.core.v1.PodSpec", "volumes", ListType::Map(&["name"]), retain(true, "name")),
    ("io.k8s.api.core.v1.PodStatus", "conditions", ListType::Map(&["type"]), merge("type")),
    ("io.k8s.api.core.v1.PodStatus", "hostIPs", ListType::Default, merge("ip")),
    ("io.k8s.api.core.v1.PodStatus", "podIPs", ListType::Map(&["ip"]), merge("ip")),
    ("io.k8s.api.core.v1.PodStatus", "resourceClaimStatuses", ListType::Map(&["name"]), retain(true, "name")),
    ("io.k8s.api.core.v1.ReplicationControllerSpec", "selector", ListType::AtomicMap, NO),
    ("io.k8s.api.core.v1.ReplicationControllerStatus", "conditions", ListType::Map(&["type"]), merge("type")),
    ("io.k8s.api.core.v1.ResourceRequirements", "claims", ListType::Map(&["name"]), NO),
    ("io.k8s.api.core.v1.ResourceStatus", "resources", ListType::Map(&["resourceID"]), NO),
    ("io.k8s.api.core.v1.ServiceAccount", "secrets", ListType::Map(&["name"]), merge("name")),
    ("io.k8s.api.core.v1.ServiceSpec", "ports", ListType::Map(&["port", "protocol"]), merge("port")),
    ("io.k8s.api.core.v1.ServiceSpec", "selector", ListType::AtomicMap, NO),
    ("io.k8s.api.core.v1.ServiceStatus", "conditions", ListType::Map(&["type"]), merge("type")),
    ("io.k8s.api.discovery.v1.Endpoint", "addresses", ListType::Set, NO),
    ("io.k8s.api.flowcontrol.v1.FlowSchemaStatus", "conditions", ListType::Map(&["type"]), NO),
    ("io.k8s.api.flowcontrol.v1.NonResourcePolicyRule", "nonResourceURLs", ListType::Set, NO),
    ("io.k8s.api.flowcontrol.v1.NonResourcePolicyRule", "verbs", ListType::Set, NO),
    ("io.k8s.api.flowcontrol.v1.PriorityLevelConfigurationStatus", "conditions", ListType::Map(&["type"]), NO),
    ("io.k8s.api.flowcontrol.v1.ResourcePolicyRule", "apiGroups", ListType::Set, NO),
    ("io.k8s.api.flowcontrol.v1.ResourcePolicyRule", "namespaces", ListType::Set, NO),
    ("io.k8s.api.flowcontrol.v1.ResourcePolicyRule", "resources", ListType::Set, NO),
    ("io.k8s.api.flowcontrol.v1.ResourcePolicyRule", "verbs", ListType::Set, NO),
    ("io.k8s.api.networking.v1.ServiceCIDRStatus", "conditions", ListType::Map(&["type"]), merge("type")),
    ("io.k8s.api.node.v1.Scheduling", "nodeSelector", ListType::AtomicMap, NO),
    ("io.k8s.api.policy.v1.PodDisruptionBudgetStatus", "conditions", ListType::Map(&["type"]), merge("type")),
    ("io.k8s.api.resource.v1.AllocatedDeviceStatus", "conditions", ListType::Map(&["type"]), NO),
    (
        "io.k8s.api.resource.v1.ResourceClaimStatus",
        "devices",
        ListType::Map(&["driver", "device", "pool", "shareId"]),
        NO,
    ),
    ("io.k8s.api.resource.v1.ResourceClaimStatus", "reservedFor", ListType::Map(&["uid"]), NO),
    ("io.k8s.api.storage.v1.CSIDriverSpec", "volumeLifecycleModes", ListType::Set, NO),
    ("io.k8s.api.storage.v1.CSINodeSpec", "drivers", ListType::Map(&["name"]), merge("name")),
    (
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinitionStatus",
        "conditions",
        ListType::Map(&["type"]),
        NO,
    ),
    (
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps",
        "x-kubernetes-validations",
        ListType::Map(&["rule"]),
        NO,
    ),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "finalizers", ListType::Set, merge("")),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "ownerReferences", ListType::Map(&["uid"]), merge("uid")),
    ("io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.APIServiceStatus", "conditions", ListType::Map(&["type"]), NO),
];

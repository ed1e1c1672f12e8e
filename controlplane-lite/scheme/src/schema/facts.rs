//! Facts about lists and patches that the schemas of k8s-openapi lack: which
//! lists are maps or sets (`x-kubernetes-list-type`, `-list-map-keys`), which
//! maps are atomic, and how strategic merge patch treats a field
//! (`x-kubernetes-patch-strategy`, `-patch-merge-key`). Sorted by type, then field.
//! List facts follow the schemas in k8s.io/client-go/applyconfigurations/internal; patch facts follow the Go tags.

use super::{Keys, ListType, Patch};

/// One row: type, field, list type, patch behaviour.
pub(super) type Row = (&'static str, &'static str, ListType, Patch);

const NO: Patch = Patch { merge: false, merge_key: "", retain_keys: false };

const fn merge(merge_key: &'static str) -> Patch {
    Patch { merge: true, merge_key, retain_keys: false }
}

const fn retain(merge: bool, merge_key: &'static str) -> Patch {
    Patch { merge, merge_key, retain_keys: true }
}

const fn keys(keys: &'static [&'static str]) -> ListType {
    ListType::Map(Keys::Static(keys))
}

pub(super) static ROWS: &[Row] = &[
    (
        "io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicySpec",
        "matchConditions",
        keys(&["name"]),
        merge("name"),
    ),
    ("io.k8s.api.admissionregistration.v1.MutatingWebhook", "matchConditions", keys(&["name"]), merge("name")),
    ("io.k8s.api.admissionregistration.v1.MutatingWebhookConfiguration", "webhooks", keys(&["name"]), merge("name")),
    (
        "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicyBindingSpec",
        "validationActions",
        ListType::Set,
        NO,
    ),
    (
        "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicySpec",
        "matchConditions",
        keys(&["name"]),
        merge("name"),
    ),
    ("io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicySpec", "variables", keys(&["name"]), merge("name")),
    ("io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicyStatus", "conditions", keys(&["type"]), NO),
    ("io.k8s.api.admissionregistration.v1.ValidatingWebhook", "matchConditions", keys(&["name"]), merge("name")),
    ("io.k8s.api.admissionregistration.v1.ValidatingWebhookConfiguration", "webhooks", keys(&["name"]), merge("name")),
    ("io.k8s.api.apps.v1.ControllerRevision", "data", ListType::AtomicMap, NO),
    ("io.k8s.api.apps.v1.DaemonSetStatus", "conditions", keys(&["type"]), merge("type")),
    ("io.k8s.api.apps.v1.DeploymentSpec", "strategy", ListType::Default, retain(false, "")),
    ("io.k8s.api.apps.v1.DeploymentStatus", "conditions", keys(&["type"]), merge("type")),
    ("io.k8s.api.apps.v1.ReplicaSetStatus", "conditions", keys(&["type"]), merge("type")),
    ("io.k8s.api.apps.v1.StatefulSetStatus", "conditions", keys(&["type"]), merge("type")),
    ("io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerStatus", "conditions", keys(&["type"]), merge("type")),
    ("io.k8s.api.batch.v1.JobStatus", "conditions", ListType::Default, merge("type")),
    ("io.k8s.api.batch.v1.PodFailurePolicyOnExitCodesRequirement", "values", ListType::Set, NO),
    ("io.k8s.api.batch.v1.UncountedTerminatedPods", "failed", ListType::Set, NO),
    ("io.k8s.api.batch.v1.UncountedTerminatedPods", "succeeded", ListType::Set, NO),
    ("io.k8s.api.certificates.v1.CertificateSigningRequestStatus", "conditions", keys(&["type"]), NO),
    ("io.k8s.api.core.v1.ComponentStatus", "conditions", keys(&["type"]), NO),
    ("io.k8s.api.core.v1.Container", "env", keys(&["name"]), merge("name")),
    ("io.k8s.api.core.v1.Container", "ports", keys(&["containerPort", "protocol"]), merge("containerPort")),
    ("io.k8s.api.core.v1.Container", "volumeDevices", keys(&["devicePath"]), merge("devicePath")),
    ("io.k8s.api.core.v1.Container", "volumeMounts", keys(&["mountPath"]), merge("mountPath")),
    ("io.k8s.api.core.v1.ContainerRestartRuleOnExitCodes", "values", ListType::Set, NO),
    ("io.k8s.api.core.v1.ContainerStatus", "allocatedResourcesStatus", keys(&["name"]), NO),
    ("io.k8s.api.core.v1.ContainerStatus", "volumeMounts", keys(&["mountPath"]), NO),
    ("io.k8s.api.core.v1.EphemeralContainer", "env", keys(&["name"]), merge("name")),
    ("io.k8s.api.core.v1.EphemeralContainer", "ports", keys(&["containerPort", "protocol"]), merge("containerPort")),
    ("io.k8s.api.core.v1.EphemeralContainer", "volumeDevices", keys(&["devicePath"]), merge("devicePath")),
    ("io.k8s.api.core.v1.EphemeralContainer", "volumeMounts", keys(&["mountPath"]), merge("mountPath")),
    ("io.k8s.api.core.v1.NamespaceStatus", "conditions", keys(&["type"]), merge("type")),
    ("io.k8s.api.core.v1.NodeAllocatableResourceClaimStatus", "containers", ListType::Set, NO),
    ("io.k8s.api.core.v1.NodeSpec", "podCIDRs", ListType::Set, merge("")),
    ("io.k8s.api.core.v1.NodeStatus", "addresses", keys(&["type"]), merge("type")),
    ("io.k8s.api.core.v1.NodeStatus", "conditions", keys(&["type"]), merge("type")),
    ("io.k8s.api.core.v1.PersistentVolumeClaimStatus", "conditions", keys(&["type"]), merge("type")),
    ("io.k8s.api.core.v1.PodSpec", "containers", keys(&["name"]), merge("name")),
    ("io.k8s.api.core.v1.PodSpec", "ephemeralContainers", keys(&["name"]), merge("name")),
    ("io.k8s.api.core.v1.PodSpec", "hostAliases", keys(&["ip"]), merge("ip")),
    ("io.k8s.api.core.v1.PodSpec", "imagePullSecrets", keys(&["name"]), merge("name")),
    ("io.k8s.api.core.v1.PodSpec", "initContainers", keys(&["name"]), merge("name")),
    ("io.k8s.api.core.v1.PodSpec", "nodeSelector", ListType::AtomicMap, NO),
    ("io.k8s.api.core.v1.PodSpec", "resourceClaims", keys(&["name"]), retain(true, "name")),
    ("io.k8s.api.core.v1.PodSpec", "schedulingGates", keys(&["name"]), merge("name")),
    (
        "io.k8s.api.core.v1.PodSpec",
        "topologySpreadConstraints",
        keys(&["topologyKey", "whenUnsatisfiable"]),
        merge("topologyKey"),
    ),
    ("io.k8s.api.core.v1.PodSpec", "volumes", keys(&["name"]), retain(true, "name")),
    ("io.k8s.api.core.v1.PodStatus", "conditions", keys(&["type"]), merge("type")),
    ("io.k8s.api.core.v1.PodStatus", "hostIPs", ListType::Default, merge("ip")),
    ("io.k8s.api.core.v1.PodStatus", "nodeAllocatableResourceClaimStatuses", keys(&["resourceClaimName"]), NO),
    ("io.k8s.api.core.v1.PodStatus", "podIPs", keys(&["ip"]), merge("ip")),
    ("io.k8s.api.core.v1.PodStatus", "resourceClaimStatuses", keys(&["name"]), retain(true, "name")),
    ("io.k8s.api.core.v1.ReplicationControllerSpec", "selector", ListType::AtomicMap, NO),
    ("io.k8s.api.core.v1.ReplicationControllerStatus", "conditions", keys(&["type"]), merge("type")),
    ("io.k8s.api.core.v1.ResourceRequirements", "claims", keys(&["name"]), NO),
    ("io.k8s.api.core.v1.ResourceStatus", "resources", keys(&["resourceID"]), NO),
    ("io.k8s.api.core.v1.ServiceAccount", "secrets", keys(&["name"]), merge("name")),
    ("io.k8s.api.core.v1.ServiceSpec", "ports", keys(&["port", "protocol"]), merge("port")),
    ("io.k8s.api.core.v1.ServiceSpec", "selector", ListType::AtomicMap, NO),
    ("io.k8s.api.core.v1.ServiceStatus", "conditions", keys(&["type"]), merge("type")),
    ("io.k8s.api.discovery.v1.Endpoint", "addresses", ListType::Set, NO),
    ("io.k8s.api.flowcontrol.v1.FlowSchemaStatus", "conditions", keys(&["type"]), merge("type")),
    ("io.k8s.api.flowcontrol.v1.NonResourcePolicyRule", "nonResourceURLs", ListType::Set, NO),
    ("io.k8s.api.flowcontrol.v1.NonResourcePolicyRule", "verbs", ListType::Set, NO),
    ("io.k8s.api.flowcontrol.v1.PriorityLevelConfigurationStatus", "conditions", keys(&["type"]), merge("type")),
    ("io.k8s.api.flowcontrol.v1.ResourcePolicyRule", "apiGroups", ListType::Set, NO),
    ("io.k8s.api.flowcontrol.v1.ResourcePolicyRule", "namespaces", ListType::Set, NO),
    ("io.k8s.api.flowcontrol.v1.ResourcePolicyRule", "resources", ListType::Set, NO),
    ("io.k8s.api.flowcontrol.v1.ResourcePolicyRule", "verbs", ListType::Set, NO),
    ("io.k8s.api.networking.v1.ServiceCIDRStatus", "conditions", keys(&["type"]), merge("type")),
    ("io.k8s.api.node.v1.Scheduling", "nodeSelector", ListType::AtomicMap, NO),
    ("io.k8s.api.policy.v1.PodDisruptionBudgetStatus", "conditions", keys(&["type"]), merge("type")),
    ("io.k8s.api.resource.v1.AllocatedDeviceStatus", "conditions", keys(&["type"]), NO),
    ("io.k8s.api.resource.v1.ResourceClaimStatus", "devices", keys(&["driver", "device", "pool", "shareId"]), NO),
    ("io.k8s.api.resource.v1.ResourceClaimStatus", "reservedFor", keys(&["uid"]), merge("uid")),
    ("io.k8s.api.storage.v1.CSIDriverSpec", "volumeLifecycleModes", ListType::Set, NO),
    ("io.k8s.api.storage.v1.CSINodeSpec", "drivers", keys(&["name"]), merge("name")),
    (
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinitionStatus",
        "conditions",
        keys(&["type"]),
        NO,
    ),
    (
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps",
        "x-kubernetes-validations",
        keys(&["rule"]),
        merge("rule"),
    ),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "finalizers", ListType::Set, merge("")),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "ownerReferences", keys(&["uid"]), merge("uid")),
    (
        "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.APIServiceStatus",
        "conditions",
        keys(&["type"]),
        merge("type"),
    ),
];

//! Events, certificates, networking, policy, RBAC, scheduling, coordination, node and discovery groups.

use super::STATUS;
use crate::convert;
use crate::kind::{KindInfo, STATUS_VERBS, Subresource};
use crate::selector::Fields;
use crate::strategy;
use crate::table::policy as print;

static EVENT_FIELDS: Fields = Fields::plain(&[
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "regarding.apiVersion",
    "regarding.resourceVersion",
    "regarding.fieldPath",
    "reason",
    "reportingController",
    "type",
]);
static CSR_FIELDS: Fields = Fields::plain(&["spec.signerName"]);

pub(super) static EVENTS: &[KindInfo] = &[KindInfo {
    group: "events.k8s.io",
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    conversion: Some(convert::EVENTS),
    strategy: &strategy::EventV1,
    printer: &print::EVENTS_V1,
    fields: &EVENT_FIELDS,
    definition: "io.k8s.api.events.v1.Event",
    ..KindInfo::NAMESPACED
}];

pub(super) static CERTIFICATES: &[KindInfo] = &[KindInfo {
    group: "certificates.k8s.io",
    kind: "CertificateSigningRequest",
    plural: "certificatesigningrequests",
    singular: "certificatesigningrequest",
    short_names: &["csr"],
    subresources: &[Subresource::own("approval", STATUS_VERBS), STATUS],
    strategy: &strategy::CertificateSigningRequest,
    printer: &print::CERTIFICATE_SIGNING_REQUESTS,
    fields: &CSR_FIELDS,
    definition: "io.k8s.api.certificates.v1.CertificateSigningRequest",
    ..KindInfo::CLUSTER
}];

pub(super) static NETWORKING: &[KindInfo] = &[
    KindInfo {
        group: "networking.k8s.io",
        kind: "IngressClass",
        plural: "ingressclasses",
        singular: "ingressclass",
        strategy: &strategy::IngressClass,
        printer: &print::INGRESS_CLASSES,
        definition: "io.k8s.api.networking.v1.IngressClass",
        ..KindInfo::CLUSTER
    },
    KindInfo {
        group: "networking.k8s.io",
        kind: "Ingress",
        plural: "ingresses",
        singular: "ingress",
        short_names: &["ing"],
        subresources: &[STATUS],
        strategy: &strategy::Ingress,
        printer: &print::INGRESSES,
        definition: "io.k8s.api.networking.v1.Ingress",
        ..KindInfo::NAMESPACED
    },
    KindInfo {
        group: "networking.k8s.io",
        kind: "IPAddress",
        plural: "ipaddresses",
        singular: "ipaddress",
        short_names: &["ip"],
        strategy: &strategy::IpAddress,
        printer: &print::IP_ADDRESSES,
        definition: "io.k8s.api.networking.v1.IPAddress",
        ..KindInfo::CLUSTER
    },
    KindInfo {
        group: "networking.k8s.io",
        kind: "NetworkPolicy",
        plural: "networkpolicies",
        singular: "networkpolicy",
        short_names: &["netpol"],
        strategy: &strategy::NetworkPolicy,
        printer: &print::NETWORK_POLICIES,
        definition: "io.k8s.api.networking.v1.NetworkPolicy",
        ..KindInfo::NAMESPACED
    },
    KindInfo {
        group: "networking.k8s.io",
        kind: "ServiceCIDR",
        plural: "servicecidrs",
        singular: "servicecidr",
        subresources: &[STATUS],
        strategy: &strategy::ServiceCidr,
        printer: &print::SERVICE_CIDRS,
        definition: "io.k8s.api.networking.v1.ServiceCIDR",
        ..KindInfo::CLUSTER
    },
];

pub(super) static POLICY: &[KindInfo] = &[KindInfo {
    group: "policy",
    kind: "PodDisruptionBudget",
    plural: "poddisruptionbudgets",
    singular: "poddisruptionbudget",
    short_names: &["pdb"],
    subresources: &[STATUS],
    strategy: &strategy::PodDisruptionBudget,
    printer: &print::DISRUPTION_BUDGETS,
    definition: "io.k8s.api.policy.v1.PodDisruptionBudget",
    ..KindInfo::NAMESPACED
}];

pub(super) static RBAC: &[KindInfo] = &[
    KindInfo {
        group: "rbac.authorization.k8s.io",
        kind: "ClusterRoleBinding",
        plural: "clusterrolebindings",
        singular: "clusterrolebinding",
        strategy: &strategy::RoleBinding,
        printer: &print::CLUSTER_ROLE_BINDINGS,
        definition: "io.k8s.api.rbac.v1.ClusterRoleBinding",
        ..KindInfo::CLUSTER
    },
    KindInfo {
        group: "rbac.authorization.k8s.io",
        kind: "ClusterRole",
        plural: "clusterroles",
        singular: "clusterrole",
        strategy: &strategy::ClusterRole,
        printer: &print::CLUSTER_ROLES,
        definition: "io.k8s.api.rbac.v1.ClusterRole",
        ..KindInfo::CLUSTER
    },
    KindInfo {
        group: "rbac.authorization.k8s.io",
        kind: "RoleBinding",
        plural: "rolebindings",
        singular: "rolebinding",
        strategy: &strategy::RoleBinding,
        printer: &print::ROLE_BINDINGS,
        definition: "io.k8s.api.rbac.v1.RoleBinding",
        ..KindInfo::NAMESPACED
    },
    KindInfo {
        group: "rbac.authorization.k8s.io",
        kind: "Role",
        plural: "roles",
        singular: "role",
        strategy: &strategy::Role,
        printer: &print::ROLES,
        definition: "io.k8s.api.rbac.v1.Role",
        ..KindInfo::NAMESPACED
    },
];

pub(super) static SCHEDULING: &[KindInfo] = &[KindInfo {
    group: "scheduling.k8s.io",
    kind: "PriorityClass",
    plural: "priorityclasses",
    singular: "priorityclass",
    short_names: &["pc"],
    strategy: &strategy::PriorityClass,
    printer: &print::PRIORITY_CLASSES,
    definition: "io.k8s.api.scheduling.v1.PriorityClass",
    ..KindInfo::CLUSTER
}];

pub(super) static COORDINATION: &[KindInfo] = &[KindInfo {
    group: "coordination.k8s.io",
    kind: "Lease",
    plural: "leases",
    singular: "lease",
    strategy: &strategy::Lease,
    printer: &print::LEASES,
    definition: "io.k8s.api.coordination.v1.Lease",
    ..KindInfo::NAMESPACED
}];

pub(super) static NODE: &[KindInfo] = &[KindInfo {
    group: "node.k8s.io",
    kind: "RuntimeClass",
    plural: "runtimeclasses",
    singular: "runtimeclass",
    strategy: &strategy::RuntimeClass,
    printer: &print::RUNTIME_CLASSES,
    definition: "io.k8s.api.node.v1.RuntimeClass",
    ..KindInfo::CLUSTER
}];

pub(super) static DISCOVERY: &[KindInfo] = &[KindInfo {
    group: "discovery.k8s.io",
    kind: "EndpointSlice",
    plural: "endpointslices",
    singular: "endpointslice",
    strategy: &strategy::EndpointSlice,
    printer: &print::ENDPOINT_SLICES,
    definition: "io.k8s.api.discovery.v1.EndpointSlice",
    ..KindInfo::NAMESPACED
}];

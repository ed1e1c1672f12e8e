//! Events, certificates, networking, policy, RBAC, scheduling, coordination, node and discovery groups.

use k8s_openapi::api::{
    certificates::v1 as certificates, coordination::v1 as coordination, discovery::v1 as discovery,
    events::v1 as events, networking::v1 as networking, node::v1 as node, policy::v1 as policy, rbac::v1 as rbac,
    scheduling::v1 as scheduling,
};

use super::STATUS;
use crate::scheme::convert;
use crate::scheme::kind::{KindInfo, STATUS_VERBS, Subresource, schema_of};
use crate::scheme::rules;
use crate::scheme::selector::Fields;
use crate::scheme::table::policy as print;

static EVENT_FIELDS: Fields = Fields {
    names: &[
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
    ],
    get: crate::scheme::selector::plain_field,
};
static CSR_FIELDS: Fields = Fields::plain(&["spec.signerName"]);

pub(super) static EVENTS: &[KindInfo] = &[KindInfo {
    group: "events.k8s.io",
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    conversion: Some(convert::EVENTS),
    rules: rules::EVENT_V1,
    printer: &print::EVENTS_V1,
    fields: &EVENT_FIELDS,
    schema: schema_of::<events::Event>,
    ..KindInfo::NAMESPACED
}];

pub(super) static CERTIFICATES: &[KindInfo] = &[KindInfo {
    group: "certificates.k8s.io",
    kind: "CertificateSigningRequest",
    plural: "certificatesigningrequests",
    singular: "certificatesigningrequest",
    short_names: &["csr"],
    subresources: &[Subresource::own("approval", STATUS_VERBS), STATUS],
    rules: rules::CERTIFICATE_SIGNING_REQUEST,
    printer: &print::CERTIFICATE_SIGNING_REQUESTS,
    fields: &CSR_FIELDS,
    schema: schema_of::<certificates::CertificateSigningRequest>,
    ..KindInfo::CLUSTER
}];

pub(super) static NETWORKING: &[KindInfo] = &[
    KindInfo {
        group: "networking.k8s.io",
        kind: "IngressClass",
        plural: "ingressclasses",
        singular: "ingressclass",
        rules: rules::INGRESS_CLASS,
        printer: &print::INGRESS_CLASSES,
        schema: schema_of::<networking::IngressClass>,
        ..KindInfo::CLUSTER
    },
    KindInfo {
        group: "networking.k8s.io",
        kind: "Ingress",
        plural: "ingresses",
        singular: "ingress",
        short_names: &["ing"],
        subresources: &[STATUS],
        rules: rules::INGRESS,
        printer: &print::INGRESSES,
        schema: schema_of::<networking::Ingress>,
        ..KindInfo::NAMESPACED
    },
    KindInfo {
        group: "networking.k8s.io",
        kind: "IPAddress",
        plural: "ipaddresses",
        singular: "ipaddress",
        short_names: &["ip"],
        rules: rules::PLAIN,
        printer: &print::IP_ADDRESSES,
        schema: schema_of::<networking::IPAddress>,
        ..KindInfo::CLUSTER
    },
    KindInfo {
        group: "networking.k8s.io",
        kind: "NetworkPolicy",
        plural: "networkpolicies",
        singular: "networkpolicy",
        short_names: &["netpol"],
        rules: rules::NETWORK_POLICY,
        printer: &print::NETWORK_POLICIES,
        schema: schema_of::<networking::NetworkPolicy>,
        ..KindInfo::NAMESPACED
    },
    KindInfo {
        group: "networking.k8s.io",
        kind: "ServiceCIDR",
        plural: "servicecidrs",
        singular: "servicecidr",
        subresources: &[STATUS],
        rules: rules::PLAIN,
        printer: &print::SERVICE_CIDRS,
        schema: schema_of::<networking::ServiceCIDR>,
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
    rules: rules::POD_DISRUPTION_BUDGET,
    printer: &print::DISRUPTION_BUDGETS,
    schema: schema_of::<policy::PodDisruptionBudget>,
    ..KindInfo::NAMESPACED
}];

pub(super) static RBAC: &[KindInfo] = &[
    KindInfo {
        group: "rbac.authorization.k8s.io",
        kind: "ClusterRoleBinding",
        plural: "clusterrolebindings",
        singular: "clusterrolebinding",
        rules: rules::ROLE_BINDING,
        printer: &print::CLUSTER_ROLE_BINDINGS,
        schema: schema_of::<rbac::ClusterRoleBinding>,
        ..KindInfo::CLUSTER
    },
    KindInfo {
        group: "rbac.authorization.k8s.io",
        kind: "ClusterRole",
        plural: "clusterroles",
        singular: "clusterrole",
        rules: rules::CLUSTER_ROLE,
        printer: &print::CLUSTER_ROLES,
        schema: schema_of::<rbac::ClusterRole>,
        ..KindInfo::CLUSTER
    },
    KindInfo {
        group: "rbac.authorization.k8s.io",
        kind: "RoleBinding",
        plural: "rolebindings",
        singular: "rolebinding",
        rules: rules::ROLE_BINDING,
        printer: &print::ROLE_BINDINGS,
        schema: schema_of::<rbac::RoleBinding>,
        ..KindInfo::NAMESPACED
    },
    KindInfo {
        group: "rbac.authorization.k8s.io",
        kind: "Role",
        plural: "roles",
        singular: "role",
        rules: rules::ROLE,
        printer: &print::ROLES,
        schema: schema_of::<rbac::Role>,
        ..KindInfo::NAMESPACED
    },
];

pub(super) static SCHEDULING: &[KindInfo] = &[KindInfo {
    group: "scheduling.k8s.io",
    kind: "PriorityClass",
    plural: "priorityclasses",
    singular: "priorityclass",
    short_names: &["pc"],
    rules: rules::PRIORITY_CLASS,
    printer: &print::PRIORITY_CLASSES,
    schema: schema_of::<scheduling::PriorityClass>,
    ..KindInfo::CLUSTER
}];

pub(super) static COORDINATION: &[KindInfo] = &[KindInfo {
    group: "coordination.k8s.io",
    kind: "Lease",
    plural: "leases",
    singular: "lease",
    rules: rules::LEASE,
    printer: &print::LEASES,
    schema: schema_of::<coordination::Lease>,
    ..KindInfo::NAMESPACED
}];

pub(super) static NODE: &[KindInfo] = &[KindInfo {
    group: "node.k8s.io",
    kind: "RuntimeClass",
    plural: "runtimeclasses",
    singular: "runtimeclass",
    rules: rules::RUNTIME_CLASS,
    printer: &print::RUNTIME_CLASSES,
    schema: schema_of::<node::RuntimeClass>,
    ..KindInfo::CLUSTER
}];

pub(super) static DISCOVERY: &[KindInfo] = &[KindInfo {
    group: "discovery.k8s.io",
    kind: "EndpointSlice",
    plural: "endpointslices",
    singular: "endpointslice",
    rules: rules::ENDPOINT_SLICE,
    printer: &print::ENDPOINT_SLICES,
    schema: schema_of::<discovery::EndpointSlice>,
    ..KindInfo::NAMESPACED
}];

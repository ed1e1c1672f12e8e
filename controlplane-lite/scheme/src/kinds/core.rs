//! core/v1.

use super::{SCALE, STATUS};
use crate::kind::{ALL_VERBS, CREATE_ONLY, KindInfo, Serving, Subresource};
use crate::selector::Fields;
use crate::strategy;
use crate::table::core as print;

const CONNECT: &[&str] = &["create", "get"];
const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];
const POD: (&str, &str) = ("", "v1");

const POD_SUBRESOURCES: &[Subresource] = &[
    Subresource::of("attach", (POD.0, POD.1, "PodAttachOptions"), CONNECT),
    Subresource::of("binding", (POD.0, POD.1, "Binding"), CREATE_ONLY),
    Subresource::own("ephemeralcontainers", &["get", "patch", "update"]),
    Subresource::of("eviction", ("policy", "v1", "Eviction"), CREATE_ONLY),
    Subresource::of("exec", (POD.0, POD.1, "PodExecOptions"), CONNECT),
    Subresource::own("log", &["get"]),
    Subresource::of("portforward", (POD.0, POD.1, "PodPortForwardOptions"), CONNECT),
    Subresource::of("proxy", (POD.0, POD.1, "PodProxyOptions"), PROXY),
    Subresource::own("resize", &["get", "patch", "update"]),
    STATUS,
];

static POD_FIELDS: Fields = Fields { names: POD_FIELD_NAMES, get: pod_field, paths: &[] };

const POD_FIELD_NAMES: &[&str] = &[
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.podIPs",
    "status.nominatedNodeName",
];

fn pod_field(pod: &serde_json::Value, name: &str) -> String {
    match name {
        "spec.hostNetwork" => crate::access::bool_at(pod, &["spec", "hostNetwork"]).to_string(),
        other => crate::selector::plain_field(pod, other),
    }
}

static EVENT_FIELDS: Fields = Fields {
    names: &[
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ],
    get: event_field,
    paths: &[("source", &["source.component", "reportingComponent"])],
};

fn event_field(event: &serde_json::Value, name: &str) -> String {
    use crate::selector::plain_field;
    match name {
        "source" => {
            let component = plain_field(event, "source.component");
            if component.is_empty() { plain_field(event, "reportingComponent") } else { component }
        }
        other => plain_field(event, other),
    }
}

static NAMESPACE_FIELDS: Fields = Fields::plain(&["status.phase"]);
static NODE_FIELDS: Fields = Fields { names: &["spec.unschedulable"], get: node_field, paths: &[] };

fn node_field(node: &serde_json::Value, _: &str) -> String {
    crate::access::bool_at(node, &["spec", "unschedulable"]).to_string()
}

static SECRET_FIELDS: Fields = Fields::plain(&["type"]);
static SERVICE_FIELDS: Fields = Fields::plain(&["spec.clusterIP", "spec.type"]);
static RC_FIELDS: Fields = super::apps::REPLICAS;

pub(super) static KINDS: &[KindInfo] = &[
    KindInfo {
        kind: "Binding",
        plural: "bindings",
        singular: "binding",
        namespaced: true,
        serving: Serving::Binding,
        definition: "io.k8s.api.core.v1.Binding",
        ..KindInfo::VIRTUAL
    },
    KindInfo {
        kind: "ConfigMap",
        plural: "configmaps",
        singular: "configmap",
        short_names: &["cm"],
        strategy: &strategy::ConfigMap,
        printer: &print::CONFIG_MAPS,
        definition: "io.k8s.api.core.v1.ConfigMap",
        ..KindInfo::NAMESPACED
    },
    KindInfo {
        kind: "Endpoints",
        plural: "endpoints",
        singular: "endpoints",
        short_names: &["ep"],
        deprecated: Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
        strategy: &strategy::Endpoints,
        printer: &print::ENDPOINTS,
        definition: "io.k8s.api.core.v1.Endpoints",
        ..KindInfo::NAMESPACED
    },
    KindInfo {
        kind: "Event",
        plural: "events",
        singular: "event",
        short_names: &["ev"],
        strategy: &strategy::Event,
        printer: &print::EVENTS,
        fields: &EVENT_FIELDS,
        definition: "io.k8s.api.core.v1.Event",
        ..KindInfo::NAMESPACED
    },
    KindInfo {
        kind: "LimitRange",
        plural: "limitranges",
        singular: "limitrange",
        short_names: &["limits"],
        strategy: &strategy::LimitRange,
        printer: &print::CREATED_AT,
        definition: "io.k8s.api.core.v1.LimitRange",
        ..KindInfo::NAMESPACED
    },
    KindInfo {
        kind: "Namespace",
        plural: "namespaces",
        singular: "namespace",
        short_names: &["ns"],
        verbs: &["create", "delete", "get", "list", "patch", "update", "watch"],
        subresources: &[Subresource::own("finalize", &["update"]), STATUS],
        strategy: &strategy::Namespace,
        printer: &print::NAMESPACES,
        fields: &NAMESPACE_FIELDS,
        definition: "io.k8s.api.core.v1.Namespace",
        ..KindInfo::CLUSTER
    },
    KindInfo {
        kind: "Node",
        plural: "nodes",
        singular: "node",
        short_names: &["no"],
        subresources: &[Subresource::of("proxy", (POD.0, POD.1, "NodeProxyOptions"), PROXY), STATUS],
        strategy: &strategy::Node,
        printer: &print::NODES,
        fields: &NODE_FIELDS,
        definition: "io.k8s.api.core.v1.Node",
        ..KindInfo::CLUSTER
    },
    KindInfo {
        kind: "PersistentVolumeClaim",
        plural: "persistentvolumeclaims",
        singular: "persistentvolumeclaim",
        short_names: &["pvc"],
        subresources: &[STATUS],
        strategy: &strategy::PersistentVolumeClaim,
        printer: &print::CLAIMS,
        definition: "io.k8s.api.core.v1.PersistentVolumeClaim",
        ..KindInfo::NAMESPACED
    },
    KindInfo {
        kind: "PersistentVolume",
        plural: "persistentvolumes",
        singular: "persistentvolume",
        short_names: &["pv"],
        subresources: &[STATUS],
        strategy: &strategy::PersistentVolume,
        printer: &print::VOLUMES,
        definition: "io.k8s.api.core.v1.PersistentVolume",
        ..KindInfo::CLUSTER
    },
    KindInfo {
        kind: "Pod",
        plural: "pods",
        singular: "pod",
        short_names: &["po"],
        categories: &["all"],
        subresources: POD_SUBRESOURCES,
        strategy: &strategy::Pod,
        printer: &print::PODS,
        fields: &POD_FIELDS,
        definition: "io.k8s.api.core.v1.Pod",
        ..KindInfo::NAMESPACED
    },
    KindInfo {
        kind: "PodTemplate",
        plural: "podtemplates",
        singular: "podtemplate",
        strategy: &strategy::PodTemplate,
        printer: &print::POD_TEMPLATES,
        definition: "io.k8s.api.core.v1.PodTemplate",
        ..KindInfo::NAMESPACED
    },
    KindInfo {
        kind: "ReplicationController",
        plural: "replicationcontrollers",
        singular: "replicationcontroller",
        short_names: &["rc"],
        categories: &["all"],
        subresources: &[SCALE, STATUS],
        strategy: &strategy::ReplicationController,
        printer: &crate::table::workloads::REPLICATION_CONTROLLERS,
        fields: &RC_FIELDS,
        definition: "io.k8s.api.core.v1.ReplicationController",
        ..KindInfo::NAMESPACED
    },
    KindInfo {
        kind: "ResourceQuota",
        plural: "resourcequotas",
        singular: "resourcequota",
        short_names: &["quota"],
        subresources: &[STATUS],
        strategy: &strategy::ResourceQuota,
        printer: &print::QUOTAS,
        definition: "io.k8s.api.core.v1.ResourceQuota",
        ..KindInfo::NAMESPACED
    },
    KindInfo {
        kind: "Secret",
        plural: "secrets",
        singular: "secret",
        strategy: &strategy::Secret,
        printer: &print::SECRETS,
        fields: &SECRET_FIELDS,
        definition: "io.k8s.api.core.v1.Secret",
        ..KindInfo::NAMESPACED
    },
    KindInfo {
        kind: "ServiceAccount",
        plural: "serviceaccounts",
        singular: "serviceaccount",
        short_names: &["sa"],
        subresources: &[Subresource::of("token", ("authentication.k8s.io", "v1", "TokenRequest"), CREATE_ONLY)],
        strategy: &strategy::ServiceAccount,
        printer: &print::SERVICE_ACCOUNTS,
        definition: "io.k8s.api.core.v1.ServiceAccount",
        ..KindInfo::NAMESPACED
    },
    KindInfo {
        kind: "Service",
        plural: "services",
        singular: "service",
        short_names: &["svc"],
        categories: &["all"],
        verbs: ALL_VERBS,
        subresources: &[Subresource::of("proxy", (POD.0, POD.1, "ServiceProxyOptions"), PROXY), STATUS],
        strategy: &strategy::Service,
        printer: &print::SERVICES,
        fields: &SERVICE_FIELDS,
        definition: "io.k8s.api.core.v1.Service",
        ..KindInfo::NAMESPACED
    },
    KindInfo {
        kind: "ComponentStatus",
        plural: "componentstatuses",
        singular: "componentstatus",
        short_names: &["cs"],
        deprecated: Some("v1 ComponentStatus is deprecated in v1.19+"),
        verbs: &["get", "list"],
        serving: Serving::ComponentStatus,
        printer: &print::COMPONENT_STATUSES,
        definition: "io.k8s.api.core.v1.ComponentStatus",
        ..KindInfo::CLUSTER
    },
];

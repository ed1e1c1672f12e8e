//! One role per controller, bound to the service account of that name and to nobody
//! else, as upstream's controller_policy.go: ours run as these accounts too.

use serde_json::Value;

use super::{ClusterRole, READ, account, binding, events, named, paths, rule};
use crate::authz::rbac::PolicyRule;

pub(super) fn cluster_roles() -> Vec<ClusterRole> {
    all().into_iter().map(|(name, rules)| ClusterRole::new(format!("system:controller:{name}"), rules)).collect()
}

pub(super) fn cluster_role_bindings() -> Vec<Value> {
    let bind = |(name, _): (&str, Vec<PolicyRule>)| {
        let full = format!("system:controller:{name}");
        binding("ClusterRoleBinding", "", &full, ("ClusterRole", &full), &[account(name)])
    };
    all().into_iter().map(bind).collect()
}

fn all() -> Vec<(&'static str, Vec<PolicyRule>)> {
    [apps(), batch(), services(), nodes(), cleaning(), identities(), storage()].into_iter().flatten().collect()
}

/// What keeps pods running.
fn apps() -> Vec<(&'static str, Vec<PolicyRule>)> {
    let pods = "create,delete,list,patch,watch";
    vec![
        (
            "daemon-set-controller",
            vec![
                rule(READ, "apps,extensions", "daemonsets"),
                rule("update", "apps,extensions", "daemonsets/finalizers,daemonsets/status"),
                rule("list,watch", "core", "nodes"),
                rule(pods, "core", "pods"),
                rule("create", "core", "pods/binding"),
                rule("create,delete,get,list,patch,update,watch", "apps", "controllerrevisions"),
                events(),
            ],
        ),
        (
            "deployment-controller",
            vec![
                // Ours patches where upstream's updates, here and below.
                rule("get,list,patch,update,watch", "apps,extensions", "deployments"),
                rule("update", "apps,extensions", "deployments/finalizers,deployments/status"),
                rule("create,delete,get,list,patch,update,watch", "apps,extensions", "replicasets"),
                rule("get,list,update,watch", "core", "pods"),
                events(),
            ],
        ),
        (
            "replicaset-controller",
            vec![
                rule("get,list,update,watch", "apps,extensions", "replicasets"),
                rule("update", "apps,extensions", "replicasets/finalizers,replicasets/status"),
                rule(pods, "core", "pods"),
                events(),
            ],
        ),
        (
            "replication-controller",
            vec![
                rule("get,list,update,watch", "core", "replicationcontrollers"),
                rule("update", "core", "replicationcontrollers/finalizers,replicationcontrollers/status"),
                rule(pods, "core", "pods"),
                events(),
            ],
        ),
        (
            "statefulset-controller",
            vec![
                rule("list,watch", "core", "pods"),
                rule(READ, "apps", "statefulsets"),
                rule("update", "apps", "statefulsets/finalizers,statefulsets/status"),
                rule("create,delete,get,patch,update", "core", "pods"),
                rule("create,delete,get,list,patch,update,watch", "apps", "controllerrevisions"),
                rule("create,delete,get,list,update,watch", "core", "persistentvolumeclaims"),
                events(),
            ],
        ),
    ]
}

/// What runs pods to their end, and scales.
fn batch() -> Vec<(&'static str, Vec<PolicyRule>)> {
    vec![
        (
            "cronjob-controller",
            vec![
                rule("get,list,update,watch", "batch", "cronjobs"),
                rule("create,delete,get,list,patch,update,watch", "batch", "jobs"),
                rule("update", "batch", "cronjobs/finalizers,cronjobs/status"),
                rule("delete,list", "core", "pods"),
                events(),
            ],
        ),
        (
            "job-controller",
            vec![
                rule("get,list,patch,update,watch", "batch", "jobs"),
                rule("update", "batch", "jobs/finalizers,jobs/status"),
                rule("create,delete,get,list,patch,update,watch", "core", "pods"),
                rule("update", "core", "pods/status"),
                events(),
            ],
        ),
        (
            "horizontal-pod-autoscaler",
            vec![
                rule(READ, "autoscaling", "horizontalpodautoscalers"),
                rule("update", "autoscaling", "horizontalpodautoscalers/status"),
                rule("get,update", "*", "*/scale"),
                rule("list", "core", "pods"),
                rule("get,list", "custom.metrics.k8s.io,external.metrics.k8s.io", "*"),
                rule("list", "metrics.k8s.io", "pods"),
                events(),
            ],
        ),
    ]
}

/// Services and their endpoints.
fn services() -> Vec<(&'static str, Vec<PolicyRule>)> {
    vec![
        (
            "endpoint-controller",
            vec![
                rule(READ, "core", "pods,services"),
                rule("create,delete,get,list,update,watch", "core", "endpoints"),
                rule("create", "core", "endpoints/restricted"),
                events(),
            ],
        ),
        (
            "endpointslice-controller",
            vec![
                rule(READ, "core", "nodes,pods,services"),
                rule("update", "core", "services/finalizers"),
                rule("create,delete,get,list,update,watch", "discovery.k8s.io", "endpointslices"),
                rule("create", "discovery.k8s.io", "endpointslices/restricted"),
                events(),
            ],
        ),
        (
            "endpointslicemirroring-controller",
            vec![
                rule(READ, "core", "endpoints,services"),
                rule("update", "core", "endpoints/finalizers,services/finalizers"),
                rule("create,delete,get,list,update,watch", "discovery.k8s.io", "endpointslices"),
                rule("create", "discovery.k8s.io", "endpointslices/restricted"),
                events(),
            ],
        ),
        (
            "service-controller",
            vec![
                rule(READ, "core", "services"),
                rule("patch,update", "core", "services/status"),
                rule("list,watch", "core", "nodes"),
                events(),
            ],
        ),
    ]
}

/// Nodes, and what disturbs pods on them.
fn nodes() -> Vec<(&'static str, Vec<PolicyRule>)> {
    vec![
        (
            "node-controller",
            vec![
                rule("delete,get,list,patch,update,watch", "core", "nodes"),
                rule("patch,update", "core", "nodes/status"),
                rule("patch,update", "core", "pods/status"),
                rule("delete,get,list,watch", "core", "pods"),
                rule(READ, "coordination.k8s.io", "leases"),
                rule("create,get,list,update,watch", "networking.k8s.io", "clustercidrs,servicecidrs"),
                events(),
            ],
        ),
        (
            "route-controller",
            vec![rule("list,watch", "core", "nodes"), rule("patch", "core", "nodes/status"), events()],
        ),
        (
            "disruption-controller",
            vec![
                rule(READ, "apps,extensions", "deployments,replicasets"),
                rule(READ, "core", "pods,replicationcontrollers"),
                rule(READ, "policy", "poddisruptionbudgets"),
                rule(READ, "apps", "statefulsets"),
                rule("update", "policy", "poddisruptionbudgets/status"),
                rule("patch,update", "core", "pods/status"),
                rule("get", "*", "*/scale"),
                events(),
            ],
        ),
    ]
}

/// What has to be removed some time.
fn cleaning() -> Vec<(&'static str, Vec<PolicyRule>)> {
    vec![
        ("generic-garbage-collector", vec![rule("delete,get,list,patch,update,watch", "*", "*"), events()]),
        (
            "namespace-controller",
            vec![
                rule("delete,get,list,watch", "core", "namespaces"),
                rule("update", "core", "namespaces/finalize"),
                rule("patch,update", "core", "namespaces/status"),
                rule("delete,deletecollection,get,list", "*", "*"),
            ],
        ),
        (
            "pod-garbage-collector",
            vec![
                rule("delete,list,watch", "core", "pods"),
                rule("get,list", "core", "nodes"),
                rule("patch", "core", "pods/status"),
            ],
        ),
        ("ttl-after-finished-controller", vec![rule("delete,get,list,watch", "batch", "jobs"), events()]),
        ("ttl-controller", vec![rule("list,patch,update,watch", "core", "nodes"), events()]),
        (
            "resourcequota-controller",
            vec![rule("list,watch", "*", "*"), rule("update", "core", "resourcequotas/status"), events()],
        ),
    ]
}

/// Accounts, certificates and roles.
fn identities() -> Vec<(&'static str, Vec<PolicyRule>)> {
    vec![
        (
            "service-account-controller",
            vec![rule("create", "core", "serviceaccounts"), rule(READ, "core", "namespaces,serviceaccounts"), events()],
        ),
        (
            "root-ca-cert-publisher",
            vec![
                rule("create,get,list,update,watch", "core", "configmaps"),
                rule(READ, "core", "namespaces"),
                events(),
            ],
        ),
        (
            "certificate-controller",
            vec![
                rule("delete,get,list,watch", "certificates.k8s.io", "certificatesigningrequests"),
                rule(
                    "update",
                    "certificates.k8s.io",
                    "certificatesigningrequests/approval,certificatesigningrequests/status",
                ),
                // Upstream's controller does not approve kubelets' serving certificates: here it compares them with
                // Nodes.
                named(
                    "approve",
                    "certificates.k8s.io",
                    "signers",
                    "kubernetes.io/kube-apiserver-client-kubelet,kubernetes.io/kubelet-serving",
                ),
                named(
                    "sign",
                    "certificates.k8s.io",
                    "signers",
                    "kubernetes.io/kube-apiserver-client,kubernetes.io/kube-apiserver-client-kubelet,\
                     kubernetes.io/kubelet-serving,kubernetes.io/legacy-unknown",
                ),
                rule("create", "authorization.k8s.io", "subjectaccessreviews"),
                events(),
            ],
        ),
        (
            "clusterrole-aggregation-controller",
            vec![
                rule("escalate,get,list,patch,update,watch", "rbac.authorization.k8s.io", "clusterroles"),
                // Collecting roles may hold paths too.
                paths("get", "/metrics"),
            ],
        ),
    ]
}

fn storage() -> Vec<(&'static str, Vec<PolicyRule>)> {
    vec![
        (
            "attachdetach-controller",
            vec![
                rule("list,watch", "core", "persistentvolumeclaims,persistentvolumes"),
                rule(READ, "core", "nodes"),
                rule("patch,update", "core", "nodes/status"),
                rule("list,watch", "core", "pods"),
                rule("create,delete,get,list,patch,watch", "storage.k8s.io", "volumeattachments"),
                rule(READ, "storage.k8s.io", "csidrivers,csinodes"),
                events(),
            ],
        ),
        (
            "ephemeral-volume-controller",
            vec![
                rule("update", "core", "pods/finalizers"),
                rule(READ, "core", "pods"),
                rule("create,get,list,watch", "core", "persistentvolumeclaims"),
                events(),
            ],
        ),
        (
            "expand-controller",
            vec![
                rule("get,list,patch,update,watch", "core", "persistentvolumes"),
                rule("patch,update", "core", "persistentvolumeclaims/status"),
                rule(READ, "core", "persistentvolumeclaims"),
                rule(READ, "storage.k8s.io", "storageclasses"),
                events(),
            ],
        ),
        (
            "persistent-volume-binder",
            vec![
                rule("create,delete,get,list,update,watch", "core", "persistentvolumes"),
                rule("update", "core", "persistentvolumes/status"),
                rule("get,list,update,watch", "core", "persistentvolumeclaims"),
                rule("update", "core", "persistentvolumeclaims/status"),
                rule("create,delete,get,list,watch", "core", "pods"),
                rule(READ, "storage.k8s.io", "storageclasses"),
                rule("get,list", "core", "nodes"),
                events(),
            ],
        ),
        ("pv-protection-controller", vec![rule("get,list,update,watch", "core", "persistentvolumes"), events()]),
        (
            "pvc-protection-controller",
            vec![rule("get,list,update,watch", "core", "persistentvolumeclaims"), rule(READ, "core", "pods"), events()],
        ),
    ]
}

//! The roles of the system's components and of nodes.

use super::{ClusterRole, READ, events, named, paths, rule};
use crate::authz::rbac::PolicyRule;

const HEALTH: &str = "/healthz,/livez,/readyz,/version,/version/";

pub(super) fn cluster_roles() -> Vec<ClusterRole> {
    let mut roles = everyone();
    roles.extend(nodes());
    roles.extend(components());
    roles.extend(certificates());
    roles
}

/// What anyone, or any monitoring, may see and ask.
fn everyone() -> Vec<ClusterRole> {
    let role = |name: &str, rules| ClusterRole::new(name, rules);
    vec![
        role(
            "system:discovery",
            vec![paths(
                "get",
                "/api,/api/*,/apis,/apis/*,/healthz,/livez,/openapi,/openapi/*,/readyz,/version,/version/",
            )],
        ),
        role("system:public-info-viewer", vec![paths("get", HEALTH)]),
        role(
            "system:monitoring",
            vec![paths("get", "/healthz,/healthz/*,/livez,/livez/*,/metrics,/metrics/slis,/readyz,/readyz/*")],
        ),
        role(
            "system:basic-user",
            vec![
                rule("create", "authorization.k8s.io", "selfsubjectaccessreviews,selfsubjectrulesreviews"),
                rule("create", "authentication.k8s.io", "selfsubjectreviews"),
            ],
        ),
        role(
            "system:service-account-issuer-discovery",
            vec![paths(
                "get",
                "/.well-known/openid-configuration,/.well-known/openid-configuration/,/openid/v1/jwks,/openid/v1/jwks/",
            )],
        ),
        role("system:cluster-trust-bundle-discovery", vec![rule(READ, "certificates.k8s.io", "clustertrustbundles")]),
    ]
}

/// Nodes and what talks to them.
fn nodes() -> Vec<ClusterRole> {
    let role = |name: &str, rules| ClusterRole::new(name, rules);
    vec![
        role("system:node", node_rules()),
        role(
            "system:node-problem-detector",
            vec![rule("get", "core", "nodes"), rule("patch", "core", "nodes/status"), events()],
        ),
        role(
            "system:node-bootstrapper",
            vec![rule("create,get,list,watch", "certificates.k8s.io", "certificatesigningrequests")],
        ),
        role(
            "system:node-proxier",
            vec![
                rule("list,watch", "core", "endpoints,services"),
                rule(READ, "core", "nodes"),
                events(),
                rule("list,watch", "discovery.k8s.io", "endpointslices"),
                rule("list,watch", "networking.k8s.io", "servicecidrs"),
            ],
        ),
        role(
            "system:kubelet-api-admin",
            vec![
                rule(READ, "core", "nodes"),
                rule("proxy", "core", "nodes"),
                rule(
                    "*",
                    "core",
                    "nodes/configz,nodes/healthz,nodes/log,nodes/metrics,nodes/pods,nodes/proxy,nodes/stats",
                ),
            ],
        ),
    ]
}

/// The components of a control plane.
fn components() -> Vec<ClusterRole> {
    let role = |name: &str, rules| ClusterRole::new(name, rules);
    vec![
        role(
            "system:auth-delegator",
            vec![
                rule("create", "authentication.k8s.io", "tokenreviews"),
                rule("create", "authorization.k8s.io", "subjectaccessreviews"),
            ],
        ),
        role("system:kube-aggregator", vec![rule(READ, "core", "endpoints,services")]),
        role("system:kube-dns", vec![rule("list,watch", "core", "endpoints,services")]),
        role(
            "system:persistent-volume-provisioner",
            vec![
                rule("create,delete,get,list,watch", "core", "persistentvolumes"),
                rule("get,list,update,watch", "core", "persistentvolumeclaims"),
                rule(READ, "storage.k8s.io", "storageclasses"),
                rule("watch", "core", "events"),
                events(),
            ],
        ),
        role(
            "system:volume-scheduler",
            vec![
                rule("get,list,patch,update,watch", "core", "persistentvolumes"),
                rule(READ, "storage.k8s.io", "storageclasses"),
                rule("get,list,patch,update,watch", "core", "persistentvolumeclaims"),
            ],
        ),
        role("system:kube-scheduler", scheduler_rules()),
        role("system:kube-controller-manager", controller_manager_rules()),
    ]
}

/// Who may ask for, approve and sign which certificates.
fn certificates() -> Vec<ClusterRole> {
    const CSR: &str = "certificates.k8s.io";
    let request = |part: &str| {
        let name = format!("system:certificates.k8s.io:certificatesigningrequests:{part}");
        ClusterRole::new(name, vec![rule("create", CSR, &format!("certificatesigningrequests/{part}"))])
    };
    let mut roles = vec![request("nodeclient"), request("selfnodeclient")];
    let signers = [
        ("legacy-unknown-approver", "approve", "kubernetes.io/legacy-unknown"),
        ("kubelet-serving-approver", "approve", "kubernetes.io/kubelet-serving"),
        ("kube-apiserver-client-approver", "approve", "kubernetes.io/kube-apiserver-client"),
        ("kube-apiserver-client-kubelet-approver", "approve", "kubernetes.io/kube-apiserver-client-kubelet"),
    ];
    roles.extend(signers.map(|(name, verb, signer)| {
        ClusterRole::new(format!("system:certificates.k8s.io:{name}"), vec![named(verb, CSR, "signers", signer)])
    }));
    roles
}

pub(super) fn node_rules() -> Vec<PolicyRule> {
    vec![
        rule("create", "authentication.k8s.io", "tokenreviews"),
        rule("create", "authorization.k8s.io", "localsubjectaccessreviews,subjectaccessreviews"),
        rule(READ, "core", "services"),
        rule("create,get,list,watch", "core", "nodes"),
        rule("patch,update", "core", "nodes,nodes/status"),
        rule("create,patch,update", "core", "events"),
        rule(READ, "core", "pods"),
        rule("create,delete", "core", "pods"),
        rule("patch,update", "core", "pods/status"),
        rule("create", "core", "pods/eviction"),
        rule(READ, "core", "configmaps,secrets"),
        rule("get", "core", "persistentvolumeclaims,persistentvolumes"),
        rule("get", "core", "endpoints"),
        rule("create,get,list,watch", "certificates.k8s.io", "certificatesigningrequests"),
        rule("create,delete,get,patch,update", "coordination.k8s.io", "leases"),
        rule("get", "storage.k8s.io", "volumeattachments"),
        rule("create", "core", "serviceaccounts/token"),
        rule("get,patch,update", "core", "persistentvolumeclaims/status"),
        rule(READ, "storage.k8s.io", "csidrivers"),
        rule("create,delete,get,patch,update", "storage.k8s.io", "csinodes"),
        rule(READ, "node.k8s.io", "runtimeclasses"),
        rule("get", "resource.k8s.io", "resourceclaims"),
        rule(READ, "certificates.k8s.io", "clustertrustbundles"),
    ]
}

fn scheduler_rules() -> Vec<PolicyRule> {
    vec![
        events(),
        rule("create", "coordination.k8s.io", "leases"),
        named("get,update", "coordination.k8s.io", "leases", "kube-scheduler"),
        rule("list,watch", "coordination.k8s.io", "leases"),
        rule(READ, "core", "nodes"),
        rule("delete,get,list,watch", "core", "pods"),
        rule("create", "core", "bindings,pods/binding"),
        rule("patch,update", "core", "pods/status"),
        rule(READ, "core", "replicationcontrollers,services"),
        rule(READ, "apps,extensions", "replicasets"),
        rule(READ, "apps", "statefulsets"),
        rule(READ, "policy", "poddisruptionbudgets"),
        rule(READ, "core", "persistentvolumeclaims,persistentvolumes"),
        rule("patch,update", "core", "persistentvolumeclaims,persistentvolumes"),
        rule("create", "authentication.k8s.io", "tokenreviews"),
        rule("create", "authorization.k8s.io", "subjectaccessreviews"),
        rule(READ, "storage.k8s.io", "csidrivers,csinodes,csistoragecapacities,storageclasses,volumeattachments"),
        rule(READ, "core", "namespaces"),
        rule(READ, "resource.k8s.io", "deviceclasses,resourceclaims,resourceslices"),
        rule("patch,update", "resource.k8s.io", "resourceclaims,resourceclaims/status"),
        rule(READ, "scheduling.k8s.io", "priorityclasses"),
    ]
}

fn controller_manager_rules() -> Vec<PolicyRule> {
    vec![
        events(),
        rule("create", "coordination.k8s.io", "leases"),
        named("get,update", "coordination.k8s.io", "leases", "kube-controller-manager"),
        rule("create", "core", "secrets,serviceaccounts"),
        rule("delete", "core", "secrets"),
        rule("get", "core", "configmaps,namespaces,secrets,serviceaccounts"),
        rule("update", "core", "secrets,serviceaccounts"),
        rule("create", "authentication.k8s.io", "tokenreviews"),
        rule("create", "authorization.k8s.io", "subjectaccessreviews"),
        // Garbage collection and quota look at every resource there is.
        rule("list,watch", "*", "*"),
        rule("create", "core", "serviceaccounts/token"),
    ]
}

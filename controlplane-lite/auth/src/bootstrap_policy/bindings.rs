//! Who has the default roles, and the roles of single namespaces.

use serde_json::{Value, json};

use super::{KUBELET_CLIENT, READ, account, binding, events, group, named, object, rule, user};
use crate::authn::{AUTHENTICATED, MASTERS, NODES, UNAUTHENTICATED};
use crate::authz::rbac::{PolicyRule, Subject};

pub(super) fn cluster_role_bindings() -> Vec<Value> {
    let bind =
        |name: &str, subjects: &[Subject]| binding("ClusterRoleBinding", "", name, ("ClusterRole", name), subjects);
    let own = |name: &str, role: &str, subject: Subject| {
        binding("ClusterRoleBinding", "", name, ("ClusterRole", role), &[subject])
    };
    let csr = "system:certificates.k8s.io:certificatesigningrequests";
    vec![
        bind("cluster-admin", &[group(MASTERS)]),
        bind("system:monitoring", &[group("system:monitoring")]),
        bind("system:discovery", &[group(AUTHENTICATED)]),
        bind("system:basic-user", &[group(AUTHENTICATED)]),
        bind("system:public-info-viewer", &[group(AUTHENTICATED), group(UNAUTHENTICATED)]),
        // Nodes are authorized by the node authorizer; the role is for those who do without.
        bind("system:node", &[]),
        bind("system:node-proxier", &[user("system:kube-proxy")]),
        bind("system:kube-controller-manager", &[user("system:kube-controller-manager")]),
        bind("system:kube-dns", &[account("kube-dns")]),
        bind("system:kube-scheduler", &[user("system:kube-scheduler")]),
        bind("system:volume-scheduler", &[user("system:kube-scheduler")]),
        bind("system:service-account-issuer-discovery", &[group("system:serviceaccounts")]),
        bind("system:cluster-trust-bundle-discovery", &[group("system:serviceaccounts")]),
        // Logs, exec and the rest of kubelets' APIs, on behalf of those who may.
        own("copepod:kubelet-api-admin", "system:kubelet-api-admin", user(KUBELET_CLIENT)),
        // An agent is kubelet and proxy in one, with one identity.
        own("copepod:node-proxier", "system:node-proxier", group(NODES)),
        // Joining with a token, and renewing what was joined with.
        own("copepod:node-bootstrapper", "system:node-bootstrapper", group("system:bootstrappers")),
        own("copepod:node-autoapprove-bootstrap", &format!("{csr}:nodeclient"), group("system:bootstrappers")),
        own("copepod:node-autoapprove-certificate-rotation", &format!("{csr}:selfnodeclient"), group(NODES)),
    ]
}

pub(super) fn namespaced() -> Vec<Value> {
    let system = "kube-system";
    let leader = |component: &str| {
        vec![rule("watch", "core", "configmaps"), named("get,update", "core", "configmaps", component)]
    };
    let manager = "system::leader-locking-kube-controller-manager";
    let scheduler = "system::leader-locking-kube-scheduler";
    let authentication = "extension-apiserver-authentication-reader";
    let signer = "system:controller:bootstrap-signer";
    let cleaner = "system:controller:token-cleaner";
    let (as_manager, as_scheduler) = (user("system:kube-controller-manager"), user("system:kube-scheduler"));
    let info = "copepod:bootstrap-signer-clusterinfo";
    let bind = |namespace: &str, name: &str, subjects: &[Subject]| {
        binding("RoleBinding", namespace, name, ("Role", name), subjects)
    };
    vec![
        role(system, authentication, &[named(READ, "core", "configmaps", "extension-apiserver-authentication")]),
        role(system, manager, &leader("kube-controller-manager")),
        role(system, scheduler, &leader("kube-scheduler")),
        role(system, signer, &[rule(READ, "core", "secrets")]),
        role(system, cleaner, &[rule("delete,get,list,watch", "core", "secrets"), events()]),
        role(
            "kube-public",
            signer,
            &[rule(READ, "core", "configmaps"), named("update", "core", "configmaps", "cluster-info"), events()],
        ),
        // Whoever wants to join has no name yet.
        role("kube-public", info, &[named("get", "core", "configmaps", "cluster-info")]),
        bind("kube-public", info, &[user("system:anonymous")]),
        bind(system, authentication, &[as_manager.clone(), as_scheduler.clone()]),
        bind(system, manager, &[as_manager, account("kube-controller-manager")]),
        bind(system, scheduler, &[as_scheduler, account("kube-scheduler")]),
        bind(system, signer, &[account("bootstrap-signer")]),
        bind(system, cleaner, &[account("token-cleaner")]),
        bind("kube-public", signer, &[account("bootstrap-signer")]),
    ]
}

fn role(namespace: &str, name: &str, rules: &[PolicyRule]) -> Value {
    let mut role = object("Role", namespace, name);
    role["rules"] = json!(rules);
    role
}

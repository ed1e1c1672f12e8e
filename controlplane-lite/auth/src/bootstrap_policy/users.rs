//! The roles meant for people: cluster-admin, admin, edit, view and their parts.

use super::{ClusterRole, READ, READ_WRITE, WRITE, paths, rule};
use crate::authz::rbac::PolicyRule;

const TO_ADMIN: &str = "rbac.authorization.k8s.io/aggregate-to-admin";
const TO_EDIT: &str = "rbac.authorization.k8s.io/aggregate-to-edit";
const TO_VIEW: &str = "rbac.authorization.k8s.io/aggregate-to-view";

pub(super) fn cluster_roles() -> Vec<ClusterRole> {
    let viewed = view_rules();
    let edited: Vec<_> = edit_rules().into_iter().chain(viewed.clone()).collect();
    let administered: Vec<_> = admin_rules().into_iter().chain(edited.clone()).collect();
    vec![
        ClusterRole::new("cluster-admin", vec![rule("*", "*", "*"), paths("*", "*")]),
        ClusterRole::new("admin", administered).collecting(TO_ADMIN),
        ClusterRole::new("edit", edited).collecting(TO_EDIT).labelled(TO_ADMIN),
        ClusterRole::new("view", viewed).collecting(TO_VIEW).labelled(TO_EDIT),
        ClusterRole::new("system:aggregate-to-admin", admin_rules()).labelled(TO_ADMIN),
        ClusterRole::new("system:aggregate-to-edit", edit_rules()).labelled(TO_EDIT),
        ClusterRole::new("system:aggregate-to-view", view_rules()).labelled(TO_VIEW),
    ]
}

fn admin_rules() -> Vec<PolicyRule> {
    vec![
        rule("create", "authorization.k8s.io", "localsubjectaccessreviews"),
        rule(READ_WRITE, "rbac.authorization.k8s.io", "rolebindings,roles"),
    ]
}

fn edit_rules() -> Vec<PolicyRule> {
    vec![
        rule(READ, "core", "pods/attach,pods/exec,pods/portforward,pods/proxy,secrets,services/proxy"),
        rule("impersonate", "core", "serviceaccounts"),
        rule(WRITE, "core", "pods,pods/attach,pods/exec,pods/portforward,pods/proxy"),
        rule("create", "core", "pods/eviction"),
        rule(
            WRITE,
            "core",
            "configmaps,events,persistentvolumeclaims,replicationcontrollers,replicationcontrollers/scale,\
             secrets,serviceaccounts,services,services/proxy",
        ),
        rule("create", "core", "serviceaccounts/token"),
        rule(
            WRITE,
            "apps",
            "daemonsets,deployments,deployments/rollback,deployments/scale,replicasets,replicasets/scale,\
             statefulsets,statefulsets/scale",
        ),
        rule(WRITE, "autoscaling", "horizontalpodautoscalers"),
        rule(WRITE, "batch", "cronjobs,jobs"),
        rule(
            WRITE,
            "extensions",
            "daemonsets,deployments,deployments/rollback,deployments/scale,ingresses,networkpolicies,replicasets,replicasets/scale,replicationcontrollers/scale",
        ),
        rule(WRITE, "policy", "poddisruptionbudgets"),
        rule(WRITE, "networking.k8s.io", "ingresses,networkpolicies"),
        rule(READ_WRITE, "coordination.k8s.io", "leases"),
        rule(WRITE, "resource.k8s.io", "resourceclaims,resourceclaimtemplates"),
    ]
}

fn view_rules() -> Vec<PolicyRule> {
    vec![
        rule(
            READ,
            "core",
            "configmaps,endpoints,persistentvolumeclaims,persistentvolumeclaims/status,pods,replicationcontrollers,\
             replicationcontrollers/scale,serviceaccounts,services,services/status",
        ),
        rule(
            READ,
            "core",
            "bindings,events,limitranges,namespaces/status,pods/log,pods/status,replicationcontrollers/status,\
             resourcequotas,resourcequotas/status",
        ),
        rule(READ, "core", "namespaces"),
        rule(READ, "discovery.k8s.io", "endpointslices"),
        rule(
            READ,
            "apps",
            "controllerrevisions,daemonsets,daemonsets/status,deployments,deployments/scale,deployments/status,\
             replicasets,replicasets/scale,replicasets/status,statefulsets,statefulsets/scale,statefulsets/status",
        ),
        rule(READ, "autoscaling", "horizontalpodautoscalers,horizontalpodautoscalers/status"),
        rule(READ, "batch", "cronjobs,cronjobs/status,jobs,jobs/status"),
        rule(
            READ,
            "extensions",
            "daemonsets,daemonsets/status,deployments,deployments/scale,deployments/status,ingresses,ingresses/status,networkpolicies,replicasets,replicasets/scale,replicasets/status,replicationcontrollers/scale",
        ),
        rule(READ, "policy", "poddisruptionbudgets,poddisruptionbudgets/status"),
        rule(READ, "networking.k8s.io", "ingresses,ingresses/status,networkpolicies"),
        rule(READ, "resource.k8s.io", "resourceclaims,resourceclaims/status,resourceclaimtemplates"),
    ]
}

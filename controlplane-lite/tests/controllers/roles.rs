//! ClusterRoles that gather the rules of others.

#![allow(clippy::unwrap_used)]

use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{from_value, json};

use crate::cluster::{Cluster, config};

async fn resources(roles: &Api<ClusterRole>, name: &str) -> Vec<String> {
    let rules = roles.get(name).await.unwrap().rules.unwrap_or_default();
    rules.into_iter().flat_map(|rule| rule.resources.unwrap_or_default()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_shows_what_it_gathers() {
    let c = Cluster::start(config()).await;
    let roles: Api<ClusterRole> = Api::all(c.client.clone());
    let sum = json!({"metadata": {"name": "sum"},
        "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"part": "true"}}]}, "rules": []});
    roles.create(&PostParams::default(), &from_value(sum).unwrap()).await.unwrap();
    let part = json!({
        "metadata": {"name": "part", "labels": {"part": "true", "rbac.authorization.k8s.io/aggregate-to-view": "true"}},
        "rules": [{"apiGroups": ["example.com"], "resources": ["widgets"], "verbs": ["get"]}]});
    roles.create(&PostParams::default(), &from_value(part).unwrap()).await.unwrap();
    c.wait_for("the part's rules", || async { resources(&roles, "sum").await == ["widgets"] }).await;
    c.wait_for("more to view", || async { resources(&roles, "view").await.contains(&"widgets".to_owned()) }).await;
    // Through view, edit and admin too.
    c.wait_for("more to edit", || async { resources(&roles, "admin").await.contains(&"widgets".to_owned()) }).await;
    let other = json!({"rules": [{"apiGroups": ["example.com"], "resources": ["gadgets"], "verbs": ["get"]}]});
    roles.patch("part", &PatchParams::default(), &Patch::Merge(&other)).await.unwrap();
    c.wait_for("the other rules", || async { resources(&roles, "sum").await == ["gadgets"] }).await;
    roles.delete("part", &DeleteParams::default()).await.unwrap();
    c.wait_for("no rules", || async { resources(&roles, "sum").await.is_empty() }).await;
}

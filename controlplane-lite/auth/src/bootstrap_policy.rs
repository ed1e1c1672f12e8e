//! The default roles and bindings every cluster starts with, as data: upstream's,
//! and the few that copepod's own nodes need. Owns the text of the policy, not its
//! creation in the cluster.

mod bindings;
mod controllers;
mod reconcile;
mod roles;
mod users;

use serde_json::{Map, Value, json};

use super::authz::rbac::{PolicyRule, Subject};
pub use reconcile::reconcile;

/// As whom an API server talks to kubelets.
pub const KUBELET_CLIENT: &str = "kube-apiserver-kubelet-client";

const GROUP: &str = "rbac.authorization.k8s.io";
/// What components that belong to the control plane read.
const READ: &str = "get,list,watch";
const WRITE: &str = "create,delete,deletecollection,patch,update";
const READ_WRITE: &str = "create,delete,deletecollection,get,list,patch,update,watch";

/// Everything: ClusterRoles, ClusterRoleBindings, Roles, RoleBindings, complete
/// but for what creation fills in.
pub fn objects() -> Vec<Value> {
    let roles = roles::cluster_roles().into_iter().chain(users::cluster_roles()).chain(controllers::cluster_roles());
    let mut objects: Vec<Value> = roles.map(ClusterRole::into_object).collect();
    objects.extend(bindings::cluster_role_bindings());
    objects.extend(controllers::cluster_role_bindings());
    objects.extend(bindings::namespaced());
    objects
}

/// What every kubelet may do; the rules of `system:node`.
pub fn node_rules() -> Vec<PolicyRule> {
    roles::node_rules()
}

/// A ClusterRole in the making.
struct ClusterRole {
    name: String,
    labels: Vec<(&'static str, &'static str)>,
    rules: Vec<PolicyRule>,
    /// The label that selects the roles this one collects.
    aggregates: Option<&'static str>,
}

impl ClusterRole {
    fn new(name: impl Into<String>, rules: Vec<PolicyRule>) -> Self {
        Self { name: name.into(), labels: Vec::new(), rules, aggregates: None }
    }

    fn labelled(mut self, label: &'static str) -> Self {
        self.labels.push((label, "true"));
        self
    }

    fn collecting(mut self, label: &'static str) -> Self {
        self.aggregates = Some(label);
        self
    }

    fn into_object(self) -> Value {
        let mut role = object("ClusterRole", "", &self.name);
        for (label, value) in self.labels {
            role["metadata"]["labels"][label] = value.into();
        }
        role["rules"] = json!(self.rules);
        if let Some(label) = self.aggregates {
            role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
        }
        role
    }
}

/// The start of an object of the default policy.
fn object(kind: &str, namespace: &str, name: &str) -> Value {
    let mut metadata = Map::new();
    metadata.insert("name".into(), name.into());
    if !namespace.is_empty() {
        metadata.insert("namespace".into(), namespace.into());
    }
    metadata.insert("labels".into(), json!({"kubernetes.io/bootstrapping": "rbac-defaults"}));
    metadata.insert("annotations".into(), json!({"rbac.authorization.kubernetes.io/autoupdate": "true"}));
    json!({"apiVersion": format!("{GROUP}/v1"), "kind": kind, "metadata": metadata})
}

fn binding(kind: &str, namespace: &str, name: &str, role: (&str, &str), subjects: &[Subject]) -> Value {
    let mut binding = object(kind, namespace, name);
    binding["roleRef"] = json!({"apiGroup": GROUP, "kind": role.0, "name": role.1});
    if !subjects.is_empty() {
        binding["subjects"] = json!(subjects);
    }
    binding
}

fn user(name: &str) -> Subject {
    Subject { kind: "User".into(), api_group: GROUP.into(), name: name.into(), ..Subject::default() }
}

fn group(name: &str) -> Subject {
    Subject { kind: "Group".into(), api_group: GROUP.into(), name: name.into(), ..Subject::default() }
}

fn account(name: &str) -> Subject {
    Subject { kind: "ServiceAccount".into(), namespace: "kube-system".into(), name: name.into(), ..Subject::default() }
}

/// A rule on resources; lists are written with commas, the core group as `core`.
fn rule(verbs: &str, groups: &str, resources: &str) -> PolicyRule {
    let api_groups = words(groups).into_iter().map(|group| if group == "core" { String::new() } else { group });
    PolicyRule {
        verbs: words(verbs),
        api_groups: api_groups.collect(),
        resources: words(resources),
        ..PolicyRule::default()
    }
}

/// The same for objects of certain names only.
fn named(verbs: &str, groups: &str, resources: &str, names: &str) -> PolicyRule {
    PolicyRule { resource_names: words(names), ..rule(verbs, groups, resources) }
}

/// A rule on paths.
fn paths(verbs: &str, urls: &str) -> PolicyRule {
    PolicyRule { verbs: words(verbs), non_resource_urls: words(urls), ..PolicyRule::default() }
}

fn events() -> PolicyRule {
    rule("create,patch,update", "core,events.k8s.io", "events")
}

fn words(list: &str) -> Vec<String> {
    list.split(',').map(ToOwned::to_owned).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::HashSet;

    use super::super::authz::rbac::{Binding, Role};
    use super::*;

    #[test]
    fn every_object_is_complete_and_unique() {
        let mut seen = HashSet::new();
        for object in objects() {
            let text = object.to_string();
            let kind = object["kind"].as_str().unwrap().to_owned();
            assert!(
                seen.insert((
                    kind.clone(),
                    object["metadata"]["namespace"].clone(),
                    object["metadata"]["name"].clone()
                )),
                "{text} twice"
            );
            if kind.ends_with("Binding") {
                Binding::from_json(text.as_bytes()).unwrap();
            } else {
                let role = Role::from_json(text.as_bytes()).unwrap();
                for rule in role.rules {
                    assert!(!rule.verbs.is_empty());
                    let fields = rule.verbs.iter().chain(&rule.resources).chain(&rule.non_resource_urls);
                    assert!(fields.into_iter().all(|word| !word.is_empty() && !word.contains(' ')), "{text}");
                    assert_ne!(rule.resources.is_empty(), rule.non_resource_urls.is_empty(), "{text}");
                    assert!(
                        rule.api_groups.iter().all(|group| group.is_empty()
                            || group == "*"
                            || group.contains('.')
                            || ["apps", "batch", "policy", "autoscaling", "extensions"].contains(&group.as_str())),
                        "{text}"
                    );
                }
            }
        }
    }

    #[test]
    fn every_binding_finds_its_role() {
        let objects = objects();
        let exists = |kind: &str, namespace: &Value, name: &Value| {
            objects.iter().any(|object| {
                object["kind"] == kind
                    && object["metadata"]["name"] == *name
                    && (kind == "ClusterRole" || object["metadata"]["namespace"] == *namespace)
            })
        };
        for object in objects.iter().filter(|object| object["roleRef"].is_object()) {
            let kind = object["roleRef"]["kind"].as_str().unwrap();
            assert!(exists(kind, &object["metadata"]["namespace"], &object["roleRef"]["name"]), "{object}");
        }
    }

    #[test]
    fn collecting_roles_hold_what_they_collect() {
        let objects = objects();
        let rules = |name: &str| {
            let role =
                objects.iter().find(|object| object["kind"] == "ClusterRole" && object["metadata"]["name"] == name);
            Role::from_json(role.unwrap().to_string().as_bytes()).unwrap().rules
        };
        for (outer, inner) in [
            ("admin", "edit"),
            ("edit", "view"),
            ("view", "system:aggregate-to-view"),
            ("admin", "system:aggregate-to-admin"),
        ] {
            assert!(crate::authz::rbac::covers(&rules(outer), &rules(inner)), "{outer} ⊇ {inner}");
        }
        assert!(!crate::authz::rbac::covers(&rules("view"), &rules("edit")));
        let secrets = rule("get", "core", "secrets");
        assert!(!crate::authz::rbac::covers(&rules("view"), &[secrets]), "view shows no secrets");
    }
}

//! What a kubelet may do: its own node, its own pods, and of everything else only
//! what those pods refer to. Pure over a [`NodeView`]; mirrors upstream's node
//! authorizer and its static rules for `system:node`.

use std::sync::{Arc, LazyLock};

use scheme::selector::FieldSelector;
use serde_json::Value;

use super::rbac::{PolicyRule, rule_allows};
use super::{Attributes, Authorizer, Decision};
use crate::pod::{self, Reference};

mod volume;

/// What the authorizer has to know about the cluster.
pub trait NodeView: Send + Sync + std::fmt::Debug {
    /// The node that a pod is bound to.
    fn pod_node(&self, namespace: &str, pod: &str) -> Option<String>;
    /// True when a pod of the namespace that is bound to the node [gives it the right](rights) to the object.
    fn any_pod_refers(&self, node: &str, namespace: &str, what: Reference, name: &str) -> bool;
    /// The PersistentVolume of this name.
    fn volume(&self, name: &str) -> Option<Value>;
    /// True when `wanted` holds for a PersistentVolume; only for those that `word` occurs in it is asked.
    fn any_volume(&self, word: &str, wanted: &dyn Fn(&Value) -> bool) -> bool;
    /// The node a VolumeAttachment is for.
    fn attachment_node(&self, attachment: &str) -> Option<String>;
    /// The node a ResourceSlice is of.
    fn slice_node(&self, slice: &str) -> Option<String>;
}

/// Authorizes kubelets; has no opinion about anyone else, and never denies.
#[derive(Debug)]
pub struct NodeAuthorizer {
    view: Arc<dyn NodeView>,
}

impl NodeAuthorizer {
    /// An authorizer over a view.
    pub fn new(view: Arc<dyn NodeView>) -> Self {
        Self { view }
    }

    fn referred(&self, node: &str, attributes: &Attributes, what: Reference) -> Decision {
        let Attributes { namespace, name, .. } = attributes;
        if namespace.is_empty() || name.is_empty() {
            return no("can only access namespaced object of an individual resource name");
        }
        if self.view.any_pod_refers(node, namespace, what, name) {
            return Decision::allow("");
        }
        no(format!("no relationship found between node '{node}' and this object"))
    }

    /// Secrets of a node's pods, and those that their volumes are mounted with.
    fn secret(&self, node: &str, attributes: &Attributes) -> Decision {
        let decision = self.referred(node, attributes, Reference::Secret);
        let Attributes { namespace, name, .. } = attributes;
        if decision.allowed() || namespace.is_empty() || name.is_empty() {
            return decision;
        }
        let gives = |volume: &Value| volume::names_secret(volume, namespace, name) && self.uses(node, volume);
        if self.view.any_volume(name, &gives) { Decision::allow("") } else { decision }
    }

    fn volume(&self, node: &str, name: &str) -> Decision {
        if self.view.volume(name).is_some_and(|volume| self.uses(node, &volume)) {
            return Decision::allow("");
        }
        no(format!("no relationship found between node '{node}' and this object"))
    }

    /// Whether a pod of the node uses the claim that a volume is bound to.
    fn uses(&self, node: &str, volume: &Value) -> bool {
        let Some((namespace, claim)) = volume::claim(volume) else { return false };
        self.view.any_pod_refers(node, namespace, Reference::PersistentVolumeClaim, claim)
    }

    fn pods(&self, node: &str, attributes: &Attributes) -> Option<Decision> {
        if !attributes.subresource.is_empty() {
            return None;
        }
        match attributes.verb.as_str() {
            "get" => {
                let own = self.view.pod_node(&attributes.namespace, &attributes.name).is_some_and(|of| of == node);
                Some(if own {
                    Decision::allow("")
                } else {
                    no(format!("no relationship found between node '{node}' and this object"))
                })
            }
            "list" | "watch" => Some(if selects(&attributes.field_selector, "spec.nodeName", node) {
                Decision::allow("")
            } else {
                no("can only list/watch pods with spec.nodeName field selector")
            }),
            _ => None,
        }
    }

    fn slice(&self, node: &str, attributes: &Attributes) -> Decision {
        let Attributes { verb, name, subresource, field_selector, .. } = attributes;
        if !subresource.is_empty() {
            return no("cannot authorize ResourceSlice subresources");
        }
        match verb.as_str() {
            // Of which node the new one is, NodeRestriction sees.
            "create" => Decision::allow(""),
            "get" | "update" | "patch" | "delete" if self.view.slice_node(name).is_some_and(|of| of == node) => {
                Decision::allow("")
            }
            "get" | "update" | "patch" | "delete" => {
                no(format!("no relationship found between node '{node}' and this object"))
            }
            "list" | "watch" | "deletecollection" if selects(field_selector, "spec.nodeName", node) => {
                Decision::allow("")
            }
            "list" | "watch" | "deletecollection" => {
                no("can only list/watch/deletecollection resourceslices with nodeName field selector")
            }
            _ => no(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, \
                     delete, deletecollection",
            ),
        }
    }

    fn decide(&self, node: &str, attributes: &Attributes) -> Decision {
        let Attributes { verb, resource, subresource, group, .. } = attributes;
        let reads = matches!(verb.as_str(), "get" | "list" | "watch");
        let special = match (group.as_str(), resource.as_str(), subresource.as_str()) {
            ("", "secrets", "") if reads => Some(self.secret(node, attributes)),
            ("", "secrets", "") => Some(no("can only read resources of this type")),
            ("", "configmaps", "") if reads => Some(self.referred(node, attributes, Reference::ConfigMap)),
            ("", "configmaps", "") => Some(no("can only read resources of this type")),
            ("", "persistentvolumeclaims", "") if verb == "get" => {
                Some(self.referred(node, attributes, Reference::PersistentVolumeClaim))
            }
            ("", "persistentvolumeclaims", "status") if matches!(verb.as_str(), "update" | "patch") => {
                Some(self.referred(node, attributes, Reference::PersistentVolumeClaim))
            }
            ("", "persistentvolumes", "") if verb == "get" => Some(self.volume(node, &attributes.name)),
            ("resource.k8s.io", "resourceclaims", "") if verb == "get" => {
                Some(self.referred(node, attributes, Reference::ResourceClaim))
            }
            ("", "serviceaccounts", "token") if verb == "create" => {
                Some(self.referred(node, attributes, Reference::ServiceAccount))
            }
            ("", "serviceaccounts", "") if verb == "get" => {
                Some(self.referred(node, attributes, Reference::ServiceAccount))
            }
            ("storage.k8s.io", "volumeattachments", "") if verb == "get" => {
                let own = self.view.attachment_node(&attributes.name).is_some_and(|of| of == node);
                Some(if own { Decision::allow("") } else { no("can only get its own VolumeAttachments") })
            }
            // What these are otherwise asked for is nothing of a node's, whatever its static rules say.
            ("", "secrets" | "configmaps", _) => Some(no("cannot read subresource")),
            ("", "serviceaccounts", _) => Some(no("can only create tokens for individual service accounts")),
            ("", "persistentvolumeclaims", "status") => Some(no("can only get/update/patch this type")),
            ("", "persistentvolumeclaims" | "persistentvolumes", _)
            | ("resource.k8s.io", "resourceclaims", _)
            | ("storage.k8s.io", "volumeattachments", _) => Some(no("can only get individual resources of this type")),
            ("coordination.k8s.io", "leases", "") => Some(lease(node, attributes)),
            ("storage.k8s.io", "csinodes", "") => Some(csi_node(node, attributes)),
            ("resource.k8s.io", "resourceslices", _) => Some(self.slice(node, attributes)),
            ("", "nodes", "") => nodes(node, attributes),
            ("", "pods", _) => self.pods(node, attributes),
            _ => None,
        };
        match special {
            Some(decision) => decision,
            None if NODE_RULES.iter().any(|rule| rule_allows(attributes, rule)) => Decision::allow(""),
            None => Decision::no_opinion(""),
        }
    }
}

impl Authorizer for NodeAuthorizer {
    fn authorize(&self, attributes: &Attributes) -> Decision {
        match attributes.user.node_name() {
            Some(node) => self.decide(node, attributes),
            None => Decision::no_opinion(""),
        }
    }
}

/// Calls `visit` with what a pod gives its node the right to. A node makes its mirror pods itself, so they give none.
pub(crate) fn rights(pod: &Value, visit: &mut dyn FnMut(Reference, &str)) {
    if !pod::is_mirror(pod) {
        pod::references(pod, visit);
    }
}

fn no(reason: impl Into<String>) -> Decision {
    Decision::no_opinion(reason)
}

fn lease(node: &str, attributes: &Attributes) -> Decision {
    let Attributes { verb, namespace, name, .. } = attributes;
    if !matches!(verb.as_str(), "get" | "create" | "update" | "patch" | "delete") {
        return no("can only get, create, update, patch, or delete a node lease");
    }
    if namespace != "kube-node-lease" {
        return no("can only access leases in the \"kube-node-lease\" system namespace");
    }
    // A create does not say its name in the path.
    if verb != "create" && name != node {
        return no("can only access node lease with the same name as the requesting node");
    }
    Decision::allow("")
}

fn csi_node(node: &str, attributes: &Attributes) -> Decision {
    let Attributes { verb, name, .. } = attributes;
    if !matches!(verb.as_str(), "get" | "create" | "update" | "patch" | "delete") {
        return no("can only get, create, update, patch, or delete a CSINode");
    }
    if verb != "create" && name != node {
        return no("can only access CSINode with the same name as the requesting node");
    }
    Decision::allow("")
}

fn nodes(node: &str, attributes: &Attributes) -> Option<Decision> {
    match attributes.verb.as_str() {
        "get" if attributes.name == node => Some(Decision::allow("")),
        "get" => Some(no("can only get its own node")),
        "list" | "watch" if attributes.name == node || selects(&attributes.field_selector, "metadata.name", node) => {
            Some(Decision::allow(""))
        }
        "list" | "watch" => Some(no("can only list/watch its own node with a metadata.name field selector")),
        _ => None,
    }
}

/// True when a field selector requires `field` to be `value`, as whoever lists will read it: a comma in a value begins
/// no requirement.
fn selects(selector: &str, field: &str, value: &str) -> bool {
    FieldSelector::parse_any(selector).is_ok_and(|selector| selector.exact(field) == Some(value))
}

/// What every kubelet may do whatever runs on it.
static NODE_RULES: LazyLock<Vec<PolicyRule>> = LazyLock::new(crate::bootstrap_policy::node_rules);

#[cfg(test)]
mod tests;

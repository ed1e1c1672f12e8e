//! NodeRestriction: a kubelet changes its own node, its own pods' status, its own lease and CSINode, makes mirror pods
//! that refer to nothing, and asks tokens only for pods it runs. Upstream's plugin, rule by rule.

use serde_json::{Value, json};

use super::{Mutated, Operation, Refusal, Request, View};
use crate::registry::ResourceName;
use auth::pod::{self, Reference};
use scheme::Text;
use scheme::access::{at, list_at, str_at};

mod labels;
mod tokens;

const NODE_LEASES: &str = "kube-node-lease";

const NODES: ResourceName = ResourceName { group: Text::Borrowed(""), plural: Text::Borrowed("nodes") };
const PODS: ResourceName = ResourceName { group: Text::Borrowed(""), plural: Text::Borrowed("pods") };

/// Changes nothing, but is among those that do, as upstream's: what a node wrote is judged as it wrote it.
pub(super) fn mutate(request: &Request<'_>, object: Option<&mut Value>, view: &dyn View) -> Result<Mutated, Refusal> {
    judge(request, object.as_deref(), view).map(|()| Mutated::No)
}

fn judge(request: &Request<'_>, object: Option<&Value>, view: &dyn View) -> Result<(), Refusal> {
    let node = match request.user.node_name() {
        Some(node) => node,
        None if request.user.username == "system:node:" && request.user.in_group(auth::authn::NODES) => {
            return Err(request.forbidden("could not determine node from user \"system:node:\""));
        }
        None => return Ok(()),
    };
    let restriction = Restriction { request, node, object, view };
    match (&*request.kind.group, &*request.kind.plural, request.subresource) {
        ("", "pods", "") => restriction.pod(),
        ("", "pods", "status") => restriction.pod_status(),
        ("", "pods", "eviction") => restriction.eviction(),
        ("", "pods", other) => Err(request
            .forbidden(format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"))),
        ("", "nodes", _) => restriction.node(),
        ("", "persistentvolumeclaims", "status") => restriction.claim_status(),
        ("", "persistentvolumeclaims", _) => Err(request.forbidden("may only update PVC status")),
        ("", "serviceaccounts", "token") => restriction.token(),
        ("coordination.k8s.io", "leases", _) => restriction.lease(),
        ("storage.k8s.io", "csinodes", _) => restriction.csi_node(),
        ("resource.k8s.io", "resourceslices", _) => restriction.resource_slice(),
        ("certificates.k8s.io", "certificatesigningrequests", _) => restriction.signing_request(),
        _ => Ok(()),
    }
}

/// One request of one node.
struct Restriction<'a> {
    request: &'a Request<'a>,
    node: &'a str,
    object: Option<&'a Value>,
    view: &'a dyn View,
}

impl Restriction<'_> {
    fn refuse(&self, why: impl Into<String>) -> Result<(), Refusal> {
        Err(self.request.forbidden(why))
    }

    fn pod(&self) -> Result<(), Refusal> {
        let node = self.node;
        match (self.request.operation, self.object) {
            (Operation::Create, Some(pod)) => self.mirror_pod(pod),
            (Operation::Delete, _) => {
                self.own_pod(&format!("node {node:?} can only delete pods with spec.nodeName set to itself"))
            }
            _ => self.refuse(format!(
                "unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"
            )),
        }
    }

    fn mirror_pod(&self, pod: &Value) -> Result<(), Refusal> {
        let node = self.node;
        if !pod::is_mirror(pod) {
            return self.refuse(format!(
                "pod does not have {:?} annotation, node {node:?} can only create mirror pods",
                pod::MIRROR
            ));
        }
        if str_at(pod, &["spec", "nodeName"]) != node {
            return self.refuse(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
        }
        self.owned_by_node(pod)?;
        let references = [
            (Reference::ServiceAccount, "a service account"),
            (Reference::Secret, "secrets"),
            (Reference::ConfigMap, "configmaps"),
            (Reference::ClusterTrustBundle, "clustertrustbundles"),
            (Reference::PersistentVolumeClaim, "persistentvolumeclaims"),
            (Reference::ResourceClaim, "resourceclaims"),
        ];
        match references.iter().find(|(what, _)| pod::has(pod, *what)) {
            Some((_, what)) => self.refuse(format!("node {node:?} can not create pods that reference {what}")),
            None => Ok(()),
        }
    }

    /// Exactly one owner: the node's own Node object, as controller.
    fn owned_by_node(&self, pod: &Value) -> Result<(), Refusal> {
        let node = self.node;
        let owner = match list_at(pod, &["metadata", "ownerReferences"]) {
            [owner] => owner,
            [] => {
                return self
                    .refuse(format!("node {node:?} can only create pods with an owner reference set to itself"));
            }
            _ => {
                return self
                    .refuse(format!("node {node:?} can only create pods with a single owner reference set to itself"));
            }
        };
        if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != node {
            return self.refuse(format!("node {node:?} can only create pods with an owner reference set to itself"));
        }
        if owner["controller"] != true {
            return self
                .refuse(format!("node {node:?} can only create pods with a controller owner reference set to itself"));
        }
        if owner["blockOwnerDeletion"] == true {
            return self.refuse(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
        }
        let Some(stored) = self.view.get("", "nodes", "", node) else {
            return Err(Refusal::NotFound { resource: NODES, name: node.to_owned() });
        };
        let (expected, got) = (str_at(&stored, &["metadata", "uid"]), str_at(owner, &["uid"]));
        if expected != got {
            return self.refuse(format!("node {node} UID mismatch: expected {expected} got {got}"));
        }
        Ok(())
    }

    fn own_pod(&self, why: &str) -> Result<(), Refusal> {
        let request = self.request;
        let of = |pod: &Value| str_at(pod, &["spec", "nodeName"]) == self.node;
        let own = match request.old {
            Some(pod) => of(pod),
            None => match self.view.get("", "pods", request.namespace, request.name) {
                Some(pod) => of(&pod),
                None => return Err(Refusal::NotFound { resource: PODS, name: request.name.to_owned() }),
            },
        };
        if own { Ok(()) } else { self.refuse(why) }
    }

    fn eviction(&self) -> Result<(), Refusal> {
        if self.request.operation != Operation::Create {
            return self.refuse("unexpected operation");
        }
        self.own_pod(&format!("node {} can only evict pods with spec.nodeName set to itself", self.node))
    }

    fn pod_status(&self) -> Result<(), Refusal> {
        let node = self.node;
        let (Operation::Update, Some(old), Some(new)) = (self.request.operation, self.request.old, self.object) else {
            return self.refuse("unexpected operation");
        };
        if str_at(old, &["spec", "nodeName"]) != node {
            return self
                .refuse(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"));
        }
        let differs = |path: &[&str]| !same(at(new, path), at(old, path));
        if differs(&["metadata", "labels"]) {
            return self.refuse(format!("node {node:?} cannot update labels through pod status"));
        }
        if differs(&["status", "resourceClaimStatuses"]) {
            return self.refuse(format!("node {node:?} cannot update resource claim statues"));
        }
        if differs(&["status", "extendedResourceClaimStatus"]) {
            return self.refuse(format!("node {node:?} cannot update extended resource claim status"));
        }
        Ok(())
    }

    fn node(&self) -> Result<(), Refusal> {
        let node = self.node;
        let name = self.name();
        if name != node {
            return self.refuse(format!("node {node:?} is not allowed to modify node {name:?}"));
        }
        let Some(new) = self.object else { return Ok(()) };
        // Beyond upstream, whose kubelets write none either: routes of all other nodes follow it.
        let none = Value::Null;
        let before = self.request.old.unwrap_or(&none);
        self.keeps("finalizers", new, before)?;
        if ["podCIDR", "podCIDRs"].iter().any(|f| !same(at(new, &["spec", f]), at(before, &["spec", f]))) {
            return self.refuse(format!("node {node:?} is not allowed to set its own podCIDRs"));
        }
        let source = at(new, &["spec", "configSource"]);
        // Beyond upstream on create: what a Node is a dependent of takes it along, with the labels and taints that
        // others gave it.
        self.keeps("ownerReferences", new, before)?;
        let Some(old) = self.request.old else {
            if !source.is_null() {
                return self.refuse(format!("node {node:?} is not allowed to create pods with a non-nil configSource"));
            }
            let forbidden = labels::forbidden(at(new, &["metadata", "labels"]), &Value::Null);
            if !forbidden.is_empty() {
                return self.refuse(format!(
                    "node {node:?} is not allowed to set the following labels: {}",
                    forbidden.join(", ")
                ));
            }
            return Ok(());
        };
        if !source.is_null() && source != at(old, &["spec", "configSource"]) {
            return self
                .refuse(format!("node {node:?} is not allowed to update configSource to a new non-nil configSource"));
        }
        let differs = |path: &[&str]| !same(at(new, path), at(old, path));
        if differs(&["spec", "taints"]) {
            return self.refuse(format!("node {node:?} is not allowed to modify taints"));
        }
        let forbidden = labels::forbidden(at(new, &["metadata", "labels"]), at(old, &["metadata", "labels"]));
        if !forbidden.is_empty() {
            return self.refuse(format!("is not allowed to modify labels: {}", forbidden.join(", ")));
        }
        Ok(())
    }

    /// A list of the metadata decides over when an object goes: a node leaves it as it was.
    fn keeps(&self, list: &str, new: &Value, old: &Value) -> Result<(), Refusal> {
        if same(at(new, &["metadata", list]), at(old, &["metadata", list])) {
            return Ok(());
        }
        self.refuse(format!("node {:?} is not allowed to modify {list}", self.node))
    }

    /// What a node has besides its Node may go with that, and with nothing else.
    fn belongs_to_node(&self) -> Result<(), Refusal> {
        let Some(new) = self.object else { return Ok(()) };
        self.keeps("finalizers", new, self.request.old.unwrap_or(&Value::Null))?;
        let own = |owner: &Value| {
            owner["apiVersion"] == "v1"
                && owner["kind"] == "Node"
                && owner["name"] == self.node
                && owner["blockOwnerDeletion"] != true
        };
        if list_at(new, &["metadata", "ownerReferences"]).iter().all(own) {
            return Ok(());
        }
        self.refuse(format!("node {:?} can only set an owner reference to itself", self.node))
    }

    fn claim_status(&self) -> Result<(), Refusal> {
        let (Operation::Update, Some(old), Some(new)) = (self.request.operation, self.request.old, self.object) else {
            return self.refuse("unexpected operation");
        };
        let kept = |claim: &Value| {
            let mut claim = claim.clone();
            if let Some(metadata) = claim["metadata"].as_object_mut() {
                metadata.remove("resourceVersion");
                metadata.remove("managedFields");
            }
            if let Some(status) = claim.get_mut("status").and_then(Value::as_object_mut) {
                for field in ["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"] {
                    status.remove(field);
                }
            }
            claim
        };
        if kept(new) != kept(old) {
            return self.refuse(format!(
                "node {:?} is not allowed to update fields other than status.capacity and status.conditions",
                self.node
            ));
        }
        Ok(())
    }

    fn lease(&self) -> Result<(), Refusal> {
        if self.request.namespace != NODE_LEASES {
            return self.refuse(format!("can only access leases in the {NODE_LEASES:?} system namespace"));
        }
        self.own_name("can only access node lease with the same name as the requesting node")?;
        self.belongs_to_node()
    }

    fn csi_node(&self) -> Result<(), Refusal> {
        self.own_name("can only access CSINode with the same name as the requesting node")?;
        self.belongs_to_node()
    }

    fn resource_slice(&self) -> Result<(), Refusal> {
        let of = |slice: Option<&Value>| slice.is_some_and(|s| str_at(s, &["spec", "nodeName"]) == self.node);
        let (own, verb) = match self.request.operation {
            Operation::Create => (of(self.object), "create"),
            Operation::Delete => (of(self.request.old), "delete"),
            // The authorizer knows the stored slice.
            Operation::Update | Operation::Connect => return Ok(()),
        };
        if own {
            return Ok(());
        }
        self.refuse(format!("can only {verb} ResourceSlice with the same NodeName as the requesting node"))
    }

    /// A node asks only for its own certificates.
    fn signing_request(&self) -> Result<(), Refusal> {
        let Some(new) = self.object.filter(|_| self.request.operation == Operation::Create) else { return Ok(()) };
        let signer = str_at(new, &["spec", "signerName"]);
        if !["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"].contains(&signer) {
            return Ok(());
        }
        let asked = match super::certificates::read(new) {
            Ok(asked) => asked,
            Err(why) => return self.refuse(format!("unable to parse csr: {why}")),
        };
        let own = format!("system:node:{}", self.node);
        if asked.subject().is_ok_and(|subject| subject.common_name() == own) {
            return Ok(());
        }
        self.refuse(format!("can only create a node CSR with CN={own}"))
    }

    /// The name in the path, or in the body of a create.
    fn name(&self) -> &str {
        match self.request.name {
            "" => self.object.map_or("", |o| str_at(o, &["metadata", "name"])),
            name => name,
        }
    }

    fn own_name(&self, why: &str) -> Result<(), Refusal> {
        if self.name() == self.node { Ok(()) } else { self.refuse(why) }
    }
}

/// Whether two values are the same, where an empty one is as good as none.
fn same(a: &Value, b: &Value) -> bool {
    let nothing = |v: &Value| v.is_null() || *v == json!([]) || *v == json!({}) || *v == "";
    a == b || nothing(a) && nothing(b)
}

#[cfg(test)]
mod tests;

//! NodeRestriction: a kubelet changes its own node, its own pods' status, its own lease, and asks tokens only for pods
//! it runs.

use serde_json::Value;

use super::{Operation, Request, View};
use crate::status::ApiError;
use scheme::access::{at, entries_at, str_at};

const MIRROR: &str = "kubernetes.io/config.mirror";
const NODE_LEASES: &str = "kube-node-lease";

pub(super) fn admit(request: &Request<'_>, object: Option<&mut Value>, view: &dyn View) -> Result<(), ApiError> {
    let Some(node) = request.user.username.strip_prefix("system:node:") else { return Ok(()) };
    if !request.user.groups.iter().any(|g| g == "system:nodes") {
        return Ok(());
    }
    if node.is_empty() {
        return Err(request.forbidden("could not determine node from user"));
    }
    let object = object.as_deref();
    match (request.kind.group, request.kind.plural, request.subresource) {
        ("", "pods", "") => pods(request, node, object, view),
        ("", "pods", "status") => pod_status(request, node, object),
        ("", "pods", "eviction") => own_pod(request, node, view, "evict"),
        ("", "nodes", _) => nodes(request, node, object),
        ("", "serviceaccounts", "token") => token(request, node, object, view),
        ("coordination.k8s.io", "leases", _) => lease(request, node, object),
        ("storage.k8s.io", "csinodes", _) => csi_node(request, node, object),
        _ => Ok(()),
    }
}

fn pods(request: &Request<'_>, node: &str, object: Option<&Value>, view: &dyn View) -> Result<(), ApiError> {
    match request.operation {
        Operation::Create => {
            let Some(pod) = object else { return Ok(()) };
            if !at(pod, &["metadata", "annotations", MIRROR]).is_string() {
                return Err(request.forbidden(format!(
                    "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
                )));
            }
            if str_at(pod, &["spec", "nodeName"]) != node {
                return Err(
                    request.forbidden(format!("node {node:?} can only create pods with spec.nodeName set to itself"))
                );
            }
            Ok(())
        }
        Operation::Update => Err(request.forbidden(format!(
            "unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"
        ))),
        Operation::Delete => own_pod(request, node, view, "delete"),
    }
}

fn own_pod(request: &Request<'_>, node: &str, view: &dyn View, verb: &str) -> Result<(), ApiError> {
    let found;
    let pod = match request.old {
        Some(pod) => pod,
        None => match view.get("", "pods", request.namespace, request.name) {
            Some(pod) => {
                found = pod;
                &found
            }
            // The registry answers 404.
            None => return Ok(()),
        },
    };
    if str_at(pod, &["spec", "nodeName"]) != node {
        return Err(request.forbidden(format!("node {node:?} can only {verb} pods with spec.nodeName set to itself")));
    }
    Ok(())
}

fn pod_status(request: &Request<'_>, node: &str, object: Option<&Value>) -> Result<(), ApiError> {
    let Some(old) = request.old else { return Ok(()) };
    if str_at(old, &["spec", "nodeName"]) != node {
        return Err(request
            .forbidden(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself")));
    }
    if let Some(new) = object
        && at(new, &["metadata", "labels"]) != at(old, &["metadata", "labels"])
    {
        return Err(request.forbidden(format!("node {node:?} cannot update labels through pod status")));
    }
    Ok(())
}

/// Labels under these names a kubelet may set on its node.
fn may_set_label(key: &str) -> bool {
    const ALLOWED: [&str; 11] = [
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "node.kubernetes.io/instance-type",
        "beta.kubernetes.io/instance-type",
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
    ];
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let within = |suffix: &str| domain == suffix || domain.ends_with(&format!(".{suffix}"));
    ALLOWED.contains(&key)
        || within("kubelet.kubernetes.io")
        || within("node.kubernetes.io")
        || !(within("kubernetes.io") || within("k8s.io"))
}

fn nodes(request: &Request<'_>, node: &str, object: Option<&Value>) -> Result<(), ApiError> {
    let name =
        if request.name.is_empty() { object.map_or("", |o| str_at(o, &["metadata", "name"])) } else { request.name };
    if name != node {
        return Err(request.forbidden(format!("node {node:?} is not allowed to modify node {name:?}")));
    }
    let Some(new) = object else { return Ok(()) };
    if !at(new, &["spec", "configSource"]).is_null() {
        return Err(request.forbidden(format!("node {node:?} is not allowed to set spec.configSource")));
    }
    let changed = entries_at(new, &["metadata", "labels"]).find(|(key, value)| {
        let before = request.old.map_or(&Value::Null, |old| at(old, &["metadata", "labels", key.as_str()]));
        before != *value && !may_set_label(key)
    });
    if let Some((key, _)) = changed {
        return Err(request.forbidden(format!("is not allowed to modify the following labels on node {node:?}: {key}")));
    }
    if let Some(old) = request.old
        && at(old, &["spec", "taints"]) != at(new, &["spec", "taints"])
    {
        return Err(request.forbidden(format!("node {node:?} is not allowed to modify taints")));
    }
    Ok(())
}

fn token(request: &Request<'_>, node: &str, object: Option<&Value>, view: &dyn View) -> Result<(), ApiError> {
    let Some(review) = object else { return Ok(()) };
    let bound = at(review, &["spec", "boundObjectRef"]);
    let refuse = |why: &str| Err(request.forbidden(format!("node requested token {why}")));
    if bound.is_null() {
        return refuse("not bound to a pod");
    }
    let text = |field: &str| bound[field].as_str().unwrap_or("");
    if text("kind") != "Pod" || text("apiVersion") != "v1" {
        return refuse("not bound to a pod");
    }
    if text("uid").is_empty() {
        return refuse("with a pod binding without a uid");
    }
    let Some(pod) = view.get("", "pods", request.namespace, text("name")) else {
        return Err(ApiError::not_found(super::Subject::new("", "pods"), text("name")));
    };
    if str_at(&pod, &["metadata", "uid"]) != text("uid") {
        return refuse("bound to a pod with a different uid");
    }
    if str_at(&pod, &["spec", "nodeName"]) != node {
        return refuse("bound to a pod scheduled on a different node");
    }
    Ok(())
}

fn lease(request: &Request<'_>, node: &str, object: Option<&Value>) -> Result<(), ApiError> {
    if request.namespace != NODE_LEASES {
        return Err(request.forbidden(format!("can only access leases in the {NODE_LEASES:?} system namespace")));
    }
    own_name(request, node, object, "can only access node lease with the same name as the requesting node")
}

fn csi_node(request: &Request<'_>, node: &str, object: Option<&Value>) -> Result<(), ApiError> {
    own_name(request, node, object, "can only access CSINode with the same name as the requesting node")
}

fn own_name(request: &Request<'_>, node: &str, object: Option<&Value>, why: &str) -> Result<(), ApiError> {
    let name =
        if request.name.is_empty() { object.map_or("", |o| str_at(o, &["metadata", "name"])) } else { request.name };
    if name == node { Ok(()) } else { Err(request.forbidden(why)) }
}

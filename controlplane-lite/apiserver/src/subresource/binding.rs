//! pods/binding and bindings: puts a pod on a node, once.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::body::Body;
use crate::call::Call;
use crate::options;
use crate::registry::{Change, Resource};
use crate::respond;
use crate::status::{self, ApiError, Subject};
use crate::write;
use scheme::access::{ensure_map, entries_at, is_empty, list_at, str_at};

/// Binds the pod the path (or, for `bindings`, the body) names.
///
/// # Errors
/// 400/422 for the body, 404 for the pod, 409 when it is bound, being deleted or gated.
pub async fn create(call: &Call, body: Bytes) -> Result<Response<Body>, ApiError> {
    let options = options::write(&call.query, "CreateOptions")?;
    let kind = scheme::builtin().by_gvk("", "v1", "Binding").ok_or_else(ApiError::no_such_path)?;
    let decoded = call.decode(kind, &body, options.field_validation)?;
    let mut binding = decoded.object;
    // Without a pod in the path it is a resource of its own.
    let of = if call.info.name.is_empty() { kind } else { &call.resource.kind };
    write::ask_admission(call, of, kind, &mut binding, options.dry_run).await?;
    let name = match call.info.name.as_str() {
        "" => str_at(&binding, &["metadata", "name"]).to_owned(),
        name => name.to_owned(),
    };
    let target = str_at(&binding, &["target", "name"]).to_owned();
    check(&binding, &name, &target)?;
    let pods: Arc<Resource> = call.server.registry.get("", "pods").ok_or_else(ApiError::no_such_path)?;
    pods.change(&call.info.namespace, &name, options.dry_run, |pod| bind(pod, &binding, &name, &target)).await?;
    let mut response = respond::document(call, StatusCode::CREATED, &status::success(Some(201)))?;
    respond::warn(&mut response, &decoded.warnings);
    Ok(response)
}

fn check(binding: &Value, name: &str, target: &str) -> Result<(), ApiError> {
    let mut errors = scheme::FieldErrors::new();
    let path = scheme::Path::new("target");
    let kind = str_at(binding, &["target", "kind"]);
    if !kind.is_empty() && kind != "Node" {
        errors.not_supported(&path.child("kind"), kind, &["Node", "<empty>"]);
    }
    if target.is_empty() {
        errors.required(&path.child("name"), "");
    }
    let metadata = scheme::Path::new("metadata");
    let annotations = &binding["metadata"]["annotations"];
    scheme::meta::validate_annotations(annotations, &metadata.child("annotations"), &mut errors);
    crate::call::valid(Subject::new("", "Binding"), name, errors)
}

fn bind(pod: &Value, binding: &Value, name: &str, target: &str) -> Result<Change, ApiError> {
    let conflict = |why: String| Err(ApiError::conflict(Subject::new("", "pods/binding"), name, &why));
    let wanted_uid = str_at(binding, &["metadata", "uid"]);
    let uid = str_at(pod, &["metadata", "uid"]);
    if !wanted_uid.is_empty() && wanted_uid != uid {
        return conflict(format!("Precondition failed: UID in precondition: {wanted_uid}, UID in object meta: {uid}"));
    }
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let node = str_at(pod, &["spec", "nodeName"]);
    if !node.is_empty() {
        return conflict(format!("pod {name} is already assigned to node {node:?}"));
    }
    if !is_empty(&pod["spec"]["schedulingGates"]) {
        return conflict(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let mut bound = pod.clone();
    ensure_map(&mut bound, &["spec"]).insert("nodeName".into(), json!(target));
    for (key, value) in entries_at(binding, &["metadata", "annotations"]) {
        ensure_map(&mut bound, &["metadata", "annotations"]).insert(key.clone(), value.clone());
    }
    for (key, value) in entries_at(binding, &["metadata", "labels"]) {
        ensure_map(&mut bound, &["metadata", "labels"]).insert(key.clone(), value.clone());
    }
    let mut errors = scheme::FieldErrors::new();
    scheme::validation::annotations::update(&bound, pod, &mut errors);
    crate::call::valid(Subject::new("", "Binding"), name, errors)?;
    set_scheduled(&mut bound);
    Ok(Change::Write(bound))
}

fn set_scheduled(pod: &mut Value) {
    let now = crate::deletion::timestamp(jiff::Timestamp::now());
    let scheduled = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
    let mut conditions: Vec<Value> =
        list_at(pod, &["status", "conditions"]).iter().filter(|c| c["type"] != "PodScheduled").cloned().collect();
    conditions.push(scheduled);
    ensure_map(pod, &["status"]).insert("conditions".into(), json!(conditions));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_binding_annotates_no_more_than_an_update_may() {
        let binding = |key: &str| json!({"metadata": {"annotations": {key: "x"}}, "target": {"name": "n"}});
        let mut good = binding("example.com/a");
        good["metadata"]["labels"] = json!({"zone": "a", "both": "b"});
        let pod = json!({"metadata": {"name": "p", "uid": "u", "labels": {"both": "c", "own": "d"}}, "spec": {}});
        check(&good, "p", "n").unwrap();
        assert!(matches!(bind(&pod, &good, "p", "n").unwrap(), Change::Write(bound)
            if bound["metadata"]["annotations"]["example.com/a"] == "x"
                && bound["metadata"]["labels"] == json!({"zone": "a", "both": "b", "own": "d"}) && bound["spec"]["nodeName"] == "n"));
        assert_eq!(check(&binding("a b"), "p", "n").unwrap_err().code(), 422);
        for key in ["kubernetes.io/config.mirror", "container.apparmor.security.beta.kubernetes.io/c"] {
            assert_eq!(bind(&pod, &binding(key), "p", "n").unwrap_err().code(), 422, "{key}");
        }
    }
}

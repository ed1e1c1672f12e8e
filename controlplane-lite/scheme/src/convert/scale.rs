//! The `scale` subresource: autoscaling/v1 Scale from and into a workload.

use serde_json::{Value, json};

use crate::access::{at, ensure_map, int_at};
use crate::field::{FieldErrors, Path};
use crate::selector::LabelSelector;

/// The Scale of a Deployment, ReplicaSet, StatefulSet or ReplicationController.
#[must_use]
pub fn scale_of(object: &Value) -> Value {
    let meta = at(object, &["metadata"]);
    let mut scale_meta = serde_json::Map::new();
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = meta.get(key) {
            scale_meta.insert(key.to_owned(), value.clone());
        }
    }
    let selector = at(object, &["spec", "selector"]);
    let selector = if selector.get("matchLabels").is_some() || selector.get("matchExpressions").is_some() {
        LabelSelector::from_object(selector).unwrap_or_default()
    } else {
        LabelSelector::from_map(selector)
    };
    let mut status = json!({ "replicas": int_at(object, &["status", "replicas"]).unwrap_or(0) });
    if !selector.is_everything() {
        status["selector"] = selector.to_string().into();
    }
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": scale_meta,
        "spec": { "replicas": int_at(object, &["spec", "replicas"]).unwrap_or(0) },
        "status": status,
    })
}

/// Puts a Scale's wish into the workload. The caller compares resourceVersion and uid.
///
/// # Errors
/// When replicas are negative.
pub fn apply_scale(object: &mut Value, scale: &Value) -> Result<(), FieldErrors> {
    let replicas = int_at(scale, &["spec", "replicas"]).unwrap_or(0);
    if replicas < 0 {
        let mut errors = FieldErrors::new();
        errors.invalid(&Path::new("spec").child("replicas"), replicas, "must be greater than or equal to 0");
        return Err(errors);
    }
    ensure_map(object, &["spec"]).insert("replicas".to_owned(), replicas.into());
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reads_and_writes_replicas() {
        let mut deployment = json!({
            "metadata": {"name": "d", "namespace": "n", "resourceVersion": "5", "labels": {"x": "y"}},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}, "matchExpressions": [
                {"key": "c", "operator": "In", "values": ["e", "d"]}]}},
            "status": {"replicas": 2},
        });
        let scale = scale_of(&deployment);
        assert_eq!(scale["spec"]["replicas"], 3);
        assert_eq!(scale["status"], json!({"replicas": 2, "selector": "a=b,c in (d,e)"}));
        assert_eq!(scale["metadata"]["resourceVersion"], "5");
        apply_scale(&mut deployment, &json!({"spec": {"replicas": 7}})).unwrap();
        assert_eq!(deployment["spec"]["replicas"], 7);
        let errors = apply_scale(&mut deployment, &json!({"spec": {"replicas": -1}})).unwrap_err();
        assert_eq!(errors.0[0].to_string(), "spec.replicas: Invalid value: -1: must be greater than or equal to 0");
    }
}

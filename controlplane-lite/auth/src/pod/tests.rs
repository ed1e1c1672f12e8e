//! What a pod refers to, field by field.

#![allow(clippy::unwrap_used)]
use super::*;
use serde_json::json;

/// A value with `leaf` at the path.
fn at_path(path: &str, leaf: Value) -> Value {
    let (step, rest) = path.split_once('.').map_or((path, None), |(step, rest)| (step, Some(rest)));
    let inner = rest.map_or(leaf.clone(), |rest| at_path(rest, leaf));
    match step.strip_suffix("[]") {
        Some(list) => json!({list: [inner]}),
        None => json!({step: inner}),
    }
}

fn refers_to(pod: &Value, what: Reference, name: &str) -> bool {
    let mut found = false;
    references(pod, &mut |kind, of| found = found || kind == what && of == name);
    found
}

#[test]
fn every_path_is_visited() {
    let in_containers = CONTAINERS
        .iter()
        .flat_map(|list| CONTAINER_PATHS.iter().map(move |(what, path)| (*what, format!("spec.{list}[].{path}"))));
    let paths = PATHS.iter().map(|(what, path)| (*what, (*path).to_owned()));
    for (what, path) in paths.chain(in_containers) {
        let pod = at_path(&path, json!("x"));
        assert!(refers_to(&pod, what, "x") && has(&pod, what), "{path}");
        assert!(!refers_to(&pod, what, "y"), "{path}");
        for none in [json!(""), json!(null), json!(3)] {
            assert!(!has(&at_path(&path, none), what), "{path}");
        }
    }
}

#[test]
fn an_ephemeral_volume_has_a_claim_of_its_own() {
    let pod = json!({"metadata": {"name": "web"}, "spec": {"volumes": [{"name": "e", "ephemeral": {}}]}});
    assert!(refers_to(&pod, PersistentVolumeClaim, "web-e"));
    assert!(!refers_to(&pod, PersistentVolumeClaim, "e"));
}

#[test]
fn a_mirror_pod_is_known_by_its_annotation() {
    assert!(is_mirror(&json!({"metadata": {"annotations": {MIRROR: ""}}})));
    assert!(!is_mirror(&json!({"metadata": {"annotations": {"kubernetes.io/config.source": "file"}}})));
}

#[test]
fn odd_pods_do_not_confuse() {
    for odd in [json!(null), json!([]), json!({"spec": 3}), json!({"spec": {"volumes": {}, "containers": [1, null]}})] {
        for what in [Secret, ConfigMap, PersistentVolumeClaim, ServiceAccount, ResourceClaim, ClusterTrustBundle] {
            assert!(!has(&odd, what));
        }
        assert!(!is_mirror(&odd));
    }
}

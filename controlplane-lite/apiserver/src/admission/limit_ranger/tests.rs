//! Defaults and bounds, by the cases of upstream's `plugin/pkg/admission/limitranger/admission_test.go`.

#![allow(clippy::unwrap_used)]
use serde_json::{Value, json};

use super::super::Operation;
use super::super::tests::{Asked, Objects, creating, run};

fn cluster(limits: Value) -> Objects {
    let range = json!({"metadata": {"name": "limits", "namespace": "default"}, "spec": {"limits": limits}});
    Objects::cluster().with("limitranges", range)
}

fn container(name: &str, requests: Value, limits: Value) -> Value {
    json!({"name": name, "resources": {"requests": requests, "limits": limits}})
}

fn pod(containers: Value) -> Value {
    json!({"metadata": {"name": "p", "namespace": "default"}, "spec": {"containers": containers}})
}

/// What a pod is refused for, without what all refusals begin with.
fn refused(asked: &Asked, mut object: Value, limits: Value) -> String {
    let Err(error) = run(asked, &mut object, &cluster(limits)) else { return String::new() };
    let text = error.to_string();
    text.split_once(" is forbidden: ").map_or(text.clone(), |(_, why)| why.to_owned())
}

#[test]
fn containers_get_what_they_leave_open() {
    let limits = json!([
        {"type": "Container", "defaultRequest": {"cpu": "100m", "memory": "5Mi"}, "default": {"cpu": "200m"}},
        {"type": "Pod", "max": {"cpu": "9"}},
    ]);
    let mut object = pod(json!([
        container("foo", json!({"cpu": "50m"}), json!({})), {"name": "bar"},
    ]));
    object["spec"]["initContainers"] = json!([container("init", json!({"memory": "1Mi"}), json!({"cpu": "1"}))]);
    run(&creating("pods"), &mut object, &cluster(limits)).unwrap();
    let resources = |list: &str, index: usize| object["spec"][list][index]["resources"].clone();
    let all = json!({"requests": {"cpu": "100m", "memory": "5Mi"}, "limits": {"cpu": "200m"}});
    assert_eq!(resources("containers", 1), all);
    assert_eq!(
        resources("containers", 0),
        json!({"requests": {"cpu": "50m", "memory": "5Mi"}, "limits": {"cpu": "200m"}})
    );
    assert_eq!(
        resources("initContainers", 0),
        json!({"requests": {"cpu": "100m", "memory": "1Mi"}, "limits": {"cpu": "1"}})
    );
    assert_eq!(
        object["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: memory request for container foo; cpu limit for container foo; cpu, memory request \
         for container bar; cpu limit for container bar; cpu request for init container init"
    );
}

#[test]
fn nothing_is_said_where_nothing_is_set() {
    let limits = json!([{"type": "Container", "defaultRequest": {"cpu": "1"}}]);
    let mut object = pod(json!([container("a", json!({"cpu": "1"}), json!({}))]));
    run(&creating("pods"), &mut object, &cluster(limits)).unwrap();
    assert!(object["metadata"]["annotations"]["kubernetes.io/limit-ranger"].is_null());
    assert_eq!(object["spec"]["containers"][0]["resources"]["limits"], json!({}));
}

#[test]
fn containers_and_pods_stay_in_bounds() {
    let one = |requests: Value, limits: Value| pod(json!([container("a", requests, limits)]));
    let two = |requests: Value, limits: Value| {
        pod(json!([container("a", requests.clone(), limits.clone()), container("b", requests, limits)]))
    };
    let item = |ty: &str, list: &str, amounts: Value| json!([{"type": ty, list: amounts}]);
    for (object, limits, expect) in [
        (one(json!({"cpu": "100m"}), json!({})), item("Container", "min", json!({"cpu": "50m"})), ""),
        (
            one(json!({"cpu": "40m"}), json!({})),
            item("Container", "min", json!({"cpu": "50m"})),
            "minimum cpu usage per Container is 50m, but request is 40m",
        ),
        (
            one(json!({}), json!({})),
            item("Container", "min", json!({"memory": "100Mi"})),
            "minimum memory usage per Container is 100Mi.  No request is specified",
        ),
        (
            one(json!({}), json!({"cpu": "2"})),
            item("Container", "max", json!({"cpu": "1"})),
            "maximum cpu usage per Container is 1, but limit is 2",
        ),
        (
            one(json!({"cpu": "1"}), json!({})),
            item("Container", "max", json!({"cpu": "1"})),
            "maximum cpu usage per Container is 1.  No limit is specified",
        ),
        (
            one(json!({"cpu": "300m"}), json!({"cpu": "1"})),
            item("Container", "maxLimitRequestRatio", json!({"cpu": "1500m"})),
            "cpu max limit to request ratio per Container is 1500m, but provided ratio is 3.333333",
        ),
        (
            one(json!({}), json!({"cpu": "1"})),
            item("Container", "maxLimitRequestRatio", json!({"cpu": "2"})),
            "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0",
        ),
        (
            one(json!({"cpu": "1"}), json!({})),
            item("Container", "maxLimitRequestRatio", json!({"cpu": "2"})),
            "cpu max limit to request ratio per Container is 2, but no limit is specified or limit is 0",
        ),
        (
            one(json!({"cpu": "1"}), json!({"cpu": "2"})),
            item("Container", "maxLimitRequestRatio", json!({"cpu": "2"})),
            "",
        ),
        (
            two(json!({"memory": "60Mi"}), json!({"memory": "60Mi"})),
            item("Pod", "max", json!({"memory": "100Mi"})),
            "maximum memory usage per Pod is 100Mi, but limit is 120Mi",
        ),
        (two(json!({"memory": "60Mi"}), json!({})), item("Pod", "min", json!({"memory": "100Mi"})), ""),
        (
            two(json!({"cpu": "3"}), json!({"cpu": "4"})),
            json!([{"type": "Container", "max": {"cpu": "2"}}]),
            "maximum cpu usage per Container is 2, but limit is 4",
        ),
        (
            one(json!({"cpu": "3"}), json!({"cpu": "4"})),
            json!([{"type": "Container", "max": {"cpu": "2"}}, {"type": "Pod", "max": {"cpu": "1"}}]),
            "[maximum cpu usage per Container is 2, but limit is 4, maximum cpu usage per Pod is 1, but limit is 4]",
        ),
    ] {
        assert_eq!(refused(&creating("pods"), object.clone(), limits.clone()), expect, "{object} {limits}");
    }
}

#[test]
fn claims_ask_for_as_much_as_they_may() {
    let claim = |storage: &str| {
        json!({"metadata": {"name": "c", "namespace": "default"},
            "spec": {"resources": {"requests": {"storage": storage}}}})
    };
    let bounds = json!([{"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "5Gi"}}]);
    let asked = creating("persistentvolumeclaims");
    for (storage, expect) in [
        ("3Gi", ""),
        ("500Mi", "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 500Mi"),
        ("6Gi", "maximum storage usage per PersistentVolumeClaim is 5Gi, but request is 6Gi"),
    ] {
        assert_eq!(refused(&asked, claim(storage), bounds.clone()), expect);
    }
    let update = Asked { operation: Operation::Update, old: Some(claim("3Gi")), ..creating("persistentvolumeclaims") };
    assert_ne!(refused(&update, claim("500Mi"), bounds.clone()), "");
    let mut going = claim("3Gi");
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    let update = Asked { old: Some(going), ..update };
    assert_eq!(refused(&update, claim("500Mi"), bounds), "");
}

#[test]
fn pods_are_checked_when_they_are_made_or_resized() {
    let limits = json!([{"type": "Container", "max": {"cpu": "1"}}]);
    let large = pod(json!([container("a", json!({"cpu": "2"}), json!({"cpu": "2"}))]));
    let small = pod(json!([container("a", json!({"cpu": "1"}), json!({"cpu": "1"}))]));
    let update =
        |subresource| Asked { operation: Operation::Update, subresource, old: Some(small.clone()), ..creating("pods") };
    assert_eq!(refused(&update(""), large.clone(), limits.clone()), "");
    assert_eq!(refused(&update("resize"), large, limits), "maximum cpu usage per Container is 1, but limit is 2");
}

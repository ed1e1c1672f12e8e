//! What each kind uses, by the cases of upstream's `pkg/quota/v1/evaluator/core/*_test.go`.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::amounts::{names, print};
use serde_json::json;

fn used(evaluator: &Evaluator, object: &Value) -> String {
    print(&evaluator.measure(object).usage(Timestamp::UNIX_EPOCH))
}

fn containing(resources: Value) -> Value {
    json!({"spec": {"containers": [{"name": "c", "resources": resources}]}})
}

#[test]
fn pods_use_what_they_ask_for() {
    let pod = |resources: Value| used(&Evaluator::Pods, &containing(resources));
    for (resources, expect) in [
        (json!({}), "count/pods=1,pods=1"),
        (
            json!({"requests": {"cpu": "1m"}, "limits": {"cpu": "2m"}}),
            "count/pods=1,cpu=1m,limits.cpu=2m,pods=1,requests.cpu=1m",
        ),
        (
            json!({"requests": {"ephemeral-storage": "32Mi"}, "limits": {"ephemeral-storage": "64Mi"}}),
            "count/pods=1,ephemeral-storage=32Mi,limits.ephemeral-storage=64Mi,pods=1,requests.ephemeral-storage=32Mi",
        ),
        (
            json!({"requests": {"hugepages-2Mi": "100Mi"}}),
            "count/pods=1,hugepages-2Mi=100Mi,pods=1,requests.hugepages-2Mi=100Mi",
        ),
        (
            json!({"requests": {"example.com/dongle": "3"}, "limits": {"example.com/dongle": "3"}}),
            "count/pods=1,pods=1,requests.example.com/dongle=3",
        ),
        (
            json!({"requests": {"deviceclass.resource.kubernetes.io/dongle": "3"}}),
            "count/pods=1,pods=1,requests.deviceclass.resource.kubernetes.io/dongle=3",
        ),
    ] {
        assert_eq!(pod(resources.clone()), expect, "{resources}");
    }
}

#[test]
fn pods_that_have_ended_count_as_objects_alone() {
    for phase in ["Succeeded", "Failed"] {
        let mut pod = containing(json!({"requests": {"cpu": "1"}}));
        pod["status"]["phase"] = phase.into();
        assert_eq!(used(&Evaluator::Pods, &pod), "count/pods=1");
    }
    let mut pod = containing(json!({}));
    pod["metadata"] = json!({"deletionTimestamp": "2026-01-01T00:00:30Z", "deletionGracePeriodSeconds": 30});
    let measured = Evaluator::Pods.measure(&pod);
    let at = |time: &str| print(&measured.usage(time.parse().unwrap()));
    assert_eq!(at("2026-01-01T00:01:00Z"), "count/pods=1,pods=1");
    assert_eq!(at("2026-01-01T00:01:01Z"), "count/pods=1", "a node that is lost must not hold up others");
}

#[test]
fn services_use_the_node_ports_they_are_meant_to_have() {
    let ports = json!([{"port": 1}, {"port": 2, "nodePort": 30001}]);
    for (spec, node_ports, balancers) in [
        (json!({"type": "ClusterIP", "ports": ports}), 0, 0),
        (json!({"type": "NodePort", "ports": ports}), 2, 0),
        (json!({"type": "LoadBalancer", "ports": ports}), 2, 1),
        (json!({"type": "LoadBalancer", "ports": ports, "allocateLoadBalancerNodePorts": true}), 2, 1),
        (json!({"type": "LoadBalancer", "ports": ports, "allocateLoadBalancerNodePorts": false}), 1, 1),
        (json!({"type": "ExternalName"}), 0, 0),
    ] {
        let expect =
            format!("count/services=1,services=1,services.loadbalancers={balancers},services.nodeports={node_ports}");
        assert_eq!(used(&Evaluator::Services, &json!({"spec": spec})), expect, "{spec}");
    }
}

#[test]
fn claims_are_charged_by_their_class_too() {
    let claim = |class: Value, status: Value| json!({"spec": {"storageClassName": class, "resources": {"requests": {"storage": "10Gi"}}}, "status": status});
    let plain = "count/persistentvolumeclaims=1";
    for (object, expect) in [
        (claim(json!(null), json!({})), format!("{plain},persistentvolumeclaims=1,requests.storage=10Gi")),
        (
            claim(json!("gold"), json!({"allocatedResources": {"storage": "20Gi"}})),
            format!(
                "{plain},gold.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
                 gold.storageclass.storage.k8s.io/requests.storage=20Gi,persistentvolumeclaims=1,requests.storage=20Gi"
            ),
        ),
        (
            claim(json!(""), json!({"allocatedResources": {"storage": "1Gi"}})),
            format!("{plain},persistentvolumeclaims=1,requests.storage=10Gi"),
        ),
        (
            json!({"spec": {"resources": {"requests": {"storage": "1500m"}}}}),
            format!("{plain},persistentvolumeclaims=1,requests.storage=2"),
        ),
    ] {
        assert_eq!(used(&Evaluator::Claims, &object), expect);
    }
    let annotated = json!({"metadata": {"annotations": {"volume.beta.kubernetes.io/storage-class": "old"}},
        "spec": {"storageClassName": "new"}});
    assert!(used(&Evaluator::Claims, &annotated).contains("old.storageclass.storage.k8s.io/"));
}

#[test]
fn resource_claims_use_devices_of_their_classes() {
    let claim = json!({"spec": {"devices": {"requests": [
        {"name": "a", "exactly": {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 2}},
        {"name": "b", "firstAvailable": [
            {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1},
            {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 4},
            {"deviceClassName": "tpu", "allocationMode": "All"}]},
    ]}}});
    assert_eq!(
        used(&Evaluator::ResourceClaims, &claim),
        "count/resourceclaims.resource.k8s.io=1,gpu.deviceclass.resource.k8s.io/devices=6,\
         tpu.deviceclass.resource.k8s.io/devices=32"
    );
}

#[test]
fn every_other_kind_is_counted() {
    let count = |group: &str, plural: &str| used(&Evaluator::of(group, plural), &json!({}));
    assert_eq!(count("", "configmaps"), "configmaps=1,count/configmaps=1");
    assert_eq!(count("", "endpoints"), "count/endpoints=1");
    assert_eq!(count("example.com", "widgets"), "count/widgets.example.com=1");
    assert!(ignored("", "events") && ignored("events.k8s.io", "events") && !ignored("", "pods"));
}

#[test]
fn names_lead_to_what_they_count() {
    for (name, expect) in [
        ("pods", Some(("", "pods"))),
        ("cpu", Some(("", "pods"))),
        ("requests.hugepages-2Mi", Some(("", "pods"))),
        ("hugepages-1Gi", Some(("", "pods"))),
        ("requests.example.com/gpu", Some(("", "pods"))),
        ("example.com/gpu", None),
        ("services.nodeports", Some(("", "services"))),
        ("gold.storageclass.storage.k8s.io/requests.storage", Some(("", "persistentvolumeclaims"))),
        ("gold.storageclass.storage.k8s.io/other", None),
        ("gpu.deviceclass.resource.k8s.io/devices", Some(("resource.k8s.io", "resourceclaims"))),
        ("secrets", Some(("", "secrets"))),
        ("count/deployments.apps", Some(("apps", "deployments"))),
        ("count/widgets.a.example.com", Some(("a.example.com", "widgets"))),
        ("count/events", None),
        ("storage", None),
    ] {
        assert_eq!(Evaluator::resource(name), expect, "{name}");
        if let Some((group, plural)) = expect {
            assert!(Evaluator::of(group, plural).tracks(name), "{name}");
        }
    }
}

#[test]
fn writes_that_can_use_more() {
    use Write::{Create, Update};
    let deployments = Evaluator::of("apps", "deployments");
    for (evaluator, write, subresource, expect) in [
        (&Evaluator::Pods, Create, "", true),
        (&Evaluator::Pods, Update, "", false),
        (&Evaluator::Pods, Update, "resize", true),
        (&Evaluator::Pods, Update, "status", false),
        (&Evaluator::Pods, Create, "binding", false),
        (&Evaluator::Services, Update, "", true),
        (&Evaluator::Claims, Update, "status", true),
        (&Evaluator::Claims, Update, "", true),
        (&Evaluator::ResourceClaims, Update, "status", false),
        (&deployments, Create, "", true),
        (&deployments, Update, "", false),
        (&deployments, Create, "scale", false),
    ] {
        assert_eq!(evaluator.handles(write, subresource), expect, "{evaluator:?} {write:?} {subresource:?}");
    }
}

#[test]
fn containers_that_set_nothing_are_named() {
    let missing = |pod: &Value, restricted: &[&str]| Evaluator::Pods.measure(pod).missing(restricted);
    let pod = json!({"spec": {
        "containers": [{"name": "foo"}, {"name": "bar", "resources": {"limits": {"memory": "1"}}}],
        "initContainers": [{"name": "dummy", "resources": {"requests": {"cpu": "1m", "memory": "1"}}}]}});
    let told = missing(&pod, &["cpu", "memory", "pods", "requests.ephemeral-storage"]);
    assert_eq!(told.as_deref(), Some("must specify cpu for: bar,foo; memory for: bar,foo"));
    assert_eq!(missing(&pod, &["limits.memory"]).as_deref(), Some("must specify limits.memory for: dummy,foo"));
    assert_eq!(missing(&pod, &["pods"]), None);
    let mut whole = pod.clone();
    whole["spec"]["resources"] = json!({"requests": {"cpu": "1"}});
    assert_eq!(missing(&whole, &["cpu", "memory"]), None);
    assert_eq!(names(["b", "a"]), "a,b");
}

//! Each plugin that is off by default, when it is on.

#![allow(clippy::unwrap_used)]
use futures::FutureExt as _;
use serde_json::{Value, json};

use super::super::tests::{Asked, Objects, ask_of, creating};
use super::super::{Chain, Operation, Selection};

/// What becomes of an object with one plugin on; why it is refused.
fn with(plugin: &str, asked: &Asked, object: &mut Value, view: &Objects) -> String {
    let selection = Selection { enable: vec![plugin.to_owned()], disable: Vec::new() };
    let chain = Chain::selected([], &selection);
    let both = ask_of(&chain, asked, object, view).now_or_never().expect("nothing waits");
    both.err().map(|why| why.to_string()).unwrap_or_default()
}

fn pod(spec: Value) -> Value {
    let mut spec = spec;
    if spec["containers"].is_null() {
        spec["containers"] = json!([{"name": "a", "image": "i"}]);
    }
    json!({"metadata": {"name": "p", "namespace": "default"}, "spec": spec})
}

#[test]
fn everything_is_denied_or_nothing() {
    let why = with("AlwaysDeny", &creating("configmaps"), &mut json!({"metadata": {"name": "c"}}), &Objects::cluster());
    assert!(why.ends_with("admission control is denying all modifications"), "{why}");
    let mut map = json!({"metadata": {"name": "c"}});
    assert_eq!(with("AlwaysAdmit", &creating("configmaps"), &mut map, &Objects::cluster()), "");
}

#[test]
fn images_are_always_pulled() {
    let mut object = pod(json!({
        "containers": [{"name": "a", "image": "i", "imagePullPolicy": "Never"}],
        "volumes": [{"name": "v", "image": {"reference": "j", "pullPolicy": "Never"}}],
    }));
    assert_eq!(with("AlwaysPullImages", &creating("pods"), &mut object, &Objects::cluster()), "");
    assert_eq!(object["spec"]["containers"][0]["imagePullPolicy"], "Always");
    assert_eq!(object["spec"]["volumes"][0]["image"]["pullPolicy"], "Always");
    let mut same = pod(json!({"containers": [{"name": "a", "image": "i", "imagePullPolicy": "Never"}]}));
    let update = Asked { operation: Operation::Update, old: Some(same.clone()), ..creating("pods") };
    assert_eq!(with("AlwaysPullImages", &update, &mut same, &Objects::cluster()), "");
    assert_eq!(same["spec"]["containers"][0]["imagePullPolicy"], "Never", "no new image");
}

#[test]
fn external_addresses_are_kept_and_not_added() {
    let service = |ips: Value| json!({"metadata": {"name": "s"}, "spec": {"externalIPs": ips}});
    let refused = |old: Option<Value>, ips: Value| {
        let operation = if old.is_some() { Operation::Update } else { Operation::Create };
        let asked = Asked { operation, old, ..creating("services") };
        !with("DenyServiceExternalIPs", &asked, &mut service(ips), &Objects::cluster()).is_empty()
    };
    assert!(refused(None, json!(["192.0.2.1"])) && !refused(None, json!([])));
    let old = || Some(service(json!(["192.0.2.1", "192.0.2.2"])));
    assert!(!refused(old(), json!(["192.0.2.2"])) && refused(old(), json!(["192.0.2.3"])));
}

#[test]
fn pods_tolerate_nodes_for_what_they_ask() {
    let mut object = pod(json!({"containers": [{"name": "a", "image": "i",
        "resources": {"requests": {"example.com/gpu": "1", "cpu": "1"}}}]}));
    assert_eq!(with("ExtendedResourceToleration", &creating("pods"), &mut object, &Objects::cluster()), "");
    let found = object["spec"]["tolerations"].as_array().unwrap().iter().filter(|one| one["key"] == "example.com/gpu");
    assert_eq!(found.collect::<Vec<_>>(), [&json!({"key": "example.com/gpu", "operator": "Exists"})]);
}

#[test]
fn pods_keep_apart_on_hosts_alone() {
    let spread = |key: &str| {
        let terms = json!([{"topologyKey": key, "labelSelector": {}}]);
        let mut object = pod(json!({"affinity": {"podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": terms}}}));
        with("LimitPodHardAntiAffinityTopology", &creating("pods"), &mut object, &Objects::cluster())
    };
    assert_eq!(spread("kubernetes.io/hostname"), "");
    assert!(spread("zone").ends_with("has TopologyKey zone but only key kubernetes.io/hostname is allowed"));
}

#[test]
fn a_namespace_says_where_its_pods_run() {
    let annotated = |text: &str| {
        let annotations = json!({"scheduler.alpha.kubernetes.io/node-selector": text});
        let namespace = json!({"metadata": {"name": "default", "annotations": annotations}});
        Objects::cluster().with("namespaces", namespace)
    };
    let mut object = pod(json!({"nodeSelector": {"disk": "ssd"}}));
    assert_eq!(with("PodNodeSelector", &creating("pods"), &mut object, &annotated("env=test, zone=a")), "");
    assert_eq!(object["spec"]["nodeSelector"], json!({"disk": "ssd", "env": "test", "zone": "a"}));
    let why = with(
        "PodNodeSelector",
        &creating("pods"),
        &mut pod(json!({"nodeSelector": {"env": "x"}})),
        &annotated("env=test"),
    );
    assert!(why.ends_with("conflicts with its namespace node label selector"), "{why}");
    assert_eq!(with("PodNodeSelector", &creating("pods"), &mut pod(json!({})), &Objects::cluster()), "");
}

//! Tests of `controllers::endpoints::plan`: tables, properties and garbage.

#![allow(clippy::unwrap_used)]
use std::sync::Arc;

use serde_json::{Value, from_value, json};

use super::*;

pub(in super::super) fn service(patch: Value) -> Service {
    let mut value = json!({
        "metadata": {"name": "svc", "namespace": "ns", "uid": "svc-uid"},
        "spec": {"clusterIP": "10.43.0.7", "selector": {"app": "a"}, "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}]}
    });
    json_patch::merge(&mut value, &patch);
    from_value(value).unwrap()
}

pub(in super::super) fn pod(name: &str, ip: &str, patch: Value) -> Pod {
    let mut value = json!({
        "metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}"), "labels": {"app": "a"}},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 8081}]}]},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [{"type": "Ready", "status": "True"}]}
    });
    json_patch::merge(&mut value, &patch);
    from_value(value).unwrap()
}

fn one(service: &Service, pod: &Pod) -> (Ports, Endpoint) {
    let mut all = desired(service, [pod], &|_| None);
    assert_eq!(all.len(), 1);
    let (ports, endpoints) = all.pop_first().unwrap().1;
    (ports, endpoints[0].clone())
}

fn conditions(service: &Service, pod: &Pod) -> (bool, bool, bool) {
    let c = one(service, pod).1.conditions.unwrap();
    (c.ready.unwrap(), c.serving.unwrap(), c.terminating.unwrap())
}

#[test]
fn conditions_follow_readiness_and_deletion() {
    let unready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    let dying = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let publish = service(json!({"spec": {"publishNotReadyAddresses": true}}));
    for (s, patch, want) in [
        (service(json!({})), json!({}), (true, true, false)),
        (service(json!({})), unready.clone(), (false, false, false)),
        (service(json!({})), dying.clone(), (false, true, true)),
        (publish.clone(), unready, (true, false, false)),
        (publish, dying, (true, true, true)),
    ] {
        assert_eq!(conditions(&s, &pod("p", "10.0.0.1", patch)), want);
    }
}

/// One of them in a slice would keep the API from taking the others.
#[test]
fn addresses_that_no_slice_may_have_are_left_out() {
    let both = service(json!({"spec": {"ipFamilies": ["IPv4", "IPv6"]}}));
    for ip in [
        "x",
        "10.0.0",
        "10.0.0.256",
        ":",
        "127.0.0.1",
        "0.0.0.0",
        "169.254.1.1",
        "224.0.0.1",
        "::",
        "::1",
        "fe80::1",
        "ff02::1",
        "::ffff:10.0.0.1",
    ] {
        let pods = [pod("bad", ip, json!({})), pod("good", "10.0.0.1", json!({})), pod("six", "fd00::1", json!({}))];
        let all = desired(&both, &pods, &|_| None);
        let found: Vec<&str> = all.values().flat_map(|(_, e)| e).map(|e| e.addresses[0].as_str()).collect();
        assert_eq!(found, ["10.0.0.1", "fd00::1"], "{ip}");
    }
}

#[test]
fn pods_without_address_or_node_and_ended_pods_are_left_out() {
    for patch in [
        json!({"status": {"podIP": null, "podIPs": null}}),
        json!({"spec": {"nodeName": null}}),
        json!({"status": {"phase": "Failed"}}),
        json!({"status": {"phase": "Succeeded"}}),
    ] {
        let all = desired(&service(json!({})), [&pod("p", "10.0.0.1", patch)], &|_| None);
        assert!(all.values().all(|(_, e)| e.is_empty()));
        assert_eq!(all.len(), 1, "the family still has a slice");
    }
}

#[test]
fn named_ports_split_pods_into_groups() {
    let s = service(json!({"spec": {"ports": [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}]}}));
    let other = json!({"spec": {"containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 9000, "protocol": "TCP"}]}]}});
    let without = json!({"spec": {"containers": [{"name": "c"}]}});
    let pods = [pod("a", "10.0.0.1", json!({})), pod("b", "10.0.0.2", other), pod("c", "10.0.0.3", without)];
    let all = desired(&s, &pods, &|_| None);
    let mut ports: Vec<Vec<i32>> = all.values().map(|(p, _)| p.iter().filter_map(|p| p.port).collect()).collect();
    ports.sort();
    assert_eq!(ports, [vec![], vec![8081], vec![9000]]);
}

#[test]
fn hostnames_zones_and_targets_are_carried() {
    let s = service(json!({"spec": {"clusterIP": "None"}}));
    let p = pod("p", "10.0.0.1", json!({"spec": {"hostname": "h", "subdomain": "svc"}}));
    let node: Arc<Node> =
        Arc::new(from_value(json!({"metadata": {"name": "n", "labels": {ZONE_LABEL: "z1"}}})).unwrap());
    let all = desired(&s, [&p], &|_| Some(node.clone()));
    let e = all.values().next().unwrap().1[0].clone();
    assert_eq!((e.hostname.as_deref(), e.zone.as_deref(), e.node_name.as_deref()), (Some("h"), Some("z1"), Some("n")));
    let target = e.target_ref.unwrap();
    assert_eq!(
        (target.kind.as_deref(), target.name.as_deref(), target.uid.as_deref()),
        (Some("Pod"), Some("p"), Some("uid-p"))
    );
    let elsewhere = pod("p", "10.0.0.1", json!({"spec": {"hostname": "h", "subdomain": "other"}}));
    assert_eq!(one(&s, &elsewhere).1.hostname, None);
    assert!(headless(&s) && !headless(&service(json!({}))));
}

#[test]
fn families_choose_addresses() {
    let dual = service(json!({"spec": {"ipFamilies": ["IPv4", "IPv6"]}}));
    let p = pod("p", "10.0.0.1", json!({"status": {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}}));
    let all = desired(&dual, [&p], &|_| None);
    let found: Vec<_> = all.iter().map(|((f, _), (_, e))| (*f, e[0].addresses[0].as_str())).collect();
    assert_eq!(found, [(Family::V4, "10.0.0.1"), (Family::V6, "fd00::1")]);
    assert_eq!(families(&service(json!({"spec": {"clusterIP": "fd00::7"}}))), [Family::V6]);
}

#[test]
fn services_of_no_concern() {
    assert!(has_endpoints(&service(json!({}))));
    for patch in [
        json!({"spec": {"selector": null}}),
        json!({"spec": {"selector": {"app": null}}}),
        json!({"spec": {"type": "ExternalName"}}),
        json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
    ] {
        assert!(!has_endpoints(&service(patch)));
    }
}

/// The zones and nodes that hints name, as upstream's trafficdist_test.go expects them.
#[test]
fn traffic_distribution_becomes_hints_of_ready_endpoints() {
    let zoned: Arc<Node> =
        Arc::new(from_value(json!({"metadata": {"name": "n", "labels": {ZONE_LABEL: "z1"}}})).unwrap());
    let check = |distribution: Option<&str>, zone: bool, patch: Value, want: Option<Value>| {
        let s = service(json!({"spec": {"trafficDistribution": distribution}}));
        let p = pod("p", "10.0.0.1", patch);
        let all = desired(&s, [&p], &|_| zone.then(|| zoned.clone()));
        let hints = all.values().next().unwrap().1[0].hints.clone();
        assert_eq!(hints.map(|h| serde_json::to_value(h).unwrap()), want, "{distribution:?} {zone}");
    };
    let (of_zone, of_node) = (json!([{"name": "z1"}]), json!([{"name": "n"}]));
    check(None, true, json!({}), None);
    for distribution in ["PreferClose", "PreferSameZone"] {
        check(Some(distribution), true, json!({}), Some(json!({"forZones": of_zone})));
        check(Some(distribution), false, json!({}), None);
    }
    check(Some("PreferSameNode"), true, json!({}), Some(json!({"forZones": of_zone, "forNodes": of_node})));
    check(Some("PreferSameNode"), false, json!({}), Some(json!({"forNodes": of_node})));
    let unready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    check(Some("PreferSameNode"), true, unready, None);
}

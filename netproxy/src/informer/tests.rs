//! Whatever an object looks like, it stops nothing.

#![allow(clippy::unwrap_used)]

use kube::core::ObjectList;
use kube::core::watch::WatchEvent;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::api::{EndpointSlice, Namespace, Node, Service};

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "web", "namespace": "default", "uid": "u", "resourceVersion": "7", "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": "web"},
            "annotations": {"a": "b", "endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "y", "controller": true}],
            "managedFields": [{"manager": "m", "operation": "Update", "time": "2026-01-01T00:00:00Z", "fieldsV1": {}}],
        },
        "spec": {
            "type": "LoadBalancer", "clusterIP": "10.43.0.1", "clusterIPs": ["10.43.0.1"], "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "nodePort": 30080, "targetPort": "web"}],
            "externalIPs": ["192.0.2.1"], "externalName": "x.example", "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10}}, "internalTrafficPolicy": "Local",
            "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000,
            "loadBalancerSourceRanges": ["192.0.2.0/24"], "publishNotReadyAddresses": true,
        },
        "status": {
            "loadBalancer": {"ingress": [{"ip": "192.0.2.2", "ipMode": "VIP", "ports": [{"port": 80, "protocol": "TCP"}]}]},
            "conditions": [{"type": "A", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        },
    })
}

fn slice() -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "web-1", "namespace": "default", "resourceVersion": "8",
            "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP", "appProtocol": "http"}],
        "endpoints": [{
            "addresses": ["10.42.0.1"], "hostname": "web-0", "nodeName": "here", "zone": "a",
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "hints": {"forZones": [{"name": "a"}], "forNodes": [{"name": "here"}]},
            "targetRef": {"kind": "Pod", "name": "web-0", "namespace": "default", "uid": "u"},
            "deprecatedTopology": {"a": "b"},
        }],
    })
}

fn node() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "here", "resourceVersion": "9", "labels": {"topology.kubernetes.io/zone": "a"},
            "annotations": {"copepod.local/vtep-mac": "0a:59:00:00:00:01", "copepod.local/vtep-ip": "192.0.2.9"},
            "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"podCIDR": "10.42.0.0/24", "podCIDRs": ["10.42.0.0/24"],
            "taints": [{"key": "k", "effect": "NoSchedule", "timeAdded": "2026-01-01T00:00:00Z"}]},
        "status": {"conditions": [{"type": "Ready", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}],
            "addresses": [{"type": "InternalIP", "address": "192.0.2.9"}],
            "images": [{"names": null, "sizeBytes": 7}], "nodeInfo": {"machineID": ""}},
    })
}

fn namespace() -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default", "resourceVersion": "1"},
        "status": {"phase": "Active", "conditions": [{"type": "X", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}})
}

/// What is done to a field.
#[derive(Clone, Copy, Debug)]
enum Edit {
    Null,
    Absent,
    Zero,
}

/// Every place below an object that can be changed, as a path of keys and indexes; metadata's name
/// and version, which every object of the API has, apart.
fn places(value: &Value, path: &[String], found: &mut Vec<Vec<String>>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(at, value)| (at.to_string(), value)).collect(),
        _ => Vec::new(),
    };
    for (key, child) in children {
        let path: Vec<_> = path.iter().cloned().chain([key]).collect();
        let kept = ["metadata", "metadata/name", "metadata/namespace", "metadata/resourceVersion"];
        if !kept.contains(&path.join("/").as_str()) {
            found.push(path.clone());
        }
        places(child, &path, found);
    }
}

fn apply_edit(value: &mut Value, path: &[String], edit: Edit) {
    let (Some(key), rest) = (path.first(), path.get(1..).unwrap_or_default()) else { return };
    if rest.is_empty() {
        let zero = |value: &Value| match value {
            Value::Null => Value::Null,
            Value::Bool(_) => json!(false),
            Value::Number(_) => json!(0),
            Value::String(_) => json!(""),
            Value::Array(_) => json!([]),
            Value::Object(_) => json!({}),
        };
        match (edit, value) {
            (Edit::Absent, Value::Object(fields)) => drop(fields.remove(key)),
            (Edit::Null, Value::Object(fields)) => drop(fields.insert(key.clone(), Value::Null)),
            (Edit::Zero, Value::Object(fields)) => {
                if let Some(field) = fields.get_mut(key) {
                    *field = zero(field);
                }
            }
            (edit, Value::Array(items)) => {
                if let Some(item) = key.parse().ok().and_then(|at: usize| items.get_mut(at)) {
                    *item = if matches!(edit, Edit::Zero) { zero(item) } else { Value::Null };
                }
            }
            _ => {}
        }
        return;
    }
    let child = match value {
        Value::Object(fields) => fields.get_mut(key),
        Value::Array(items) => key.parse().ok().and_then(|at: usize| items.get_mut(at)),
        _ => None,
    };
    if let Some(child) = child {
        apply_edit(child, rest, edit);
    }
}

fn reads<T: Kind>(object: &Value) -> Result<(), TestCaseError> {
    let item: Item<T> = serde_json::from_str(&object.to_string()).unwrap();
    prop_assert!(item.content.is_ok(), "{:?}: {object}", item.content);
    prop_assert!(!item.name().name.is_empty() && item.meta.resource_version.is_some());
    Ok(())
}

proptest! {
    #[test]
    fn whatever_the_api_accepts_is_read(
        changes in proptest::collection::vec(
            (any::<prop::sample::Index>(), prop::sample::select(vec![Edit::Null, Edit::Absent, Edit::Zero])), 0..12)
    ) {
        for (at, mut object) in [service(), slice(), node(), namespace()].into_iter().enumerate() {
            let mut all = Vec::new();
            places(&object, &[], &mut all);
            for (index, edit) in &changes {
                apply_edit(&mut object, &all[index.index(all.len())], *edit);
            }
            match at {
                0 => reads::<Service>(&object)?,
                1 => reads::<EndpointSlice>(&object)?,
                2 => reads::<Node>(&object)?,
                _ => reads::<Namespace>(&object)?,
            }
        }
    }
}

#[test]
fn each_field_may_be_null_alone() {
    let mut all = Vec::new();
    places(&service(), &[], &mut all);
    for path in all {
        let mut object = service();
        apply_edit(&mut object, &path, Edit::Null);
        reads::<Service>(&object).unwrap();
    }
}

#[test]
fn an_object_that_makes_no_sense_spoils_neither_a_list_nor_a_watch() {
    let mut bad = service();
    bad["spec"]["ports"] = json!("all of them");
    let list = json!({"kind": "ServiceList", "apiVersion": "v1", "metadata": {"resourceVersion": "9"},
        "items": [service(), bad, 7, null, service()]});
    let list: ObjectList<Item<Service>> = serde_json::from_str(&list.to_string()).unwrap();
    let readable: Vec<_> = list.items.iter().map(|item| item.content.is_ok()).collect();
    assert_eq!(readable, [true, false, false, false, true]);
    assert_eq!(list.items[1].name().to_string(), "default/web", "it can be named");

    for event in
        [format!(r#"{{"type": "MODIFIED", "object": {bad}}}"#), format!(r#"{{"object": {bad}, "type": "MODIFIED"}}"#)]
    {
        let event = serde_json::from_str::<WatchEvent<Item<Service>>>(&event).unwrap();
        let WatchEvent::Modified(item) = event else { panic!() };
        assert_eq!(item.meta.resource_version.as_deref(), Some("7"), "the watch goes on from there");
    }
}

#[test]
fn what_cannot_be_read_is_counted_by_kind() {
    let metrics = Metrics::default();
    let mut bad = service();
    bad["spec"] = json!("ports");
    let item: Item<Service> = serde_json::from_str(&bad.to_string()).unwrap();
    assert!(applied(item, &metrics).is_none());
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let line = r#"copepod_netproxy_unreadable_objects_total{resource="services"} 1"#;
    assert!(text.contains(line), "{text}");
}

#[tokio::test(start_paused = true)]
async fn two_watches_of_a_kind_are_told_apart() {
    let (watched, refused) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let (one, all) = (Arc::clone(&watched), Arc::clone(&refused));
    let answer = move |uri: axum::http::Uri| async move {
        let query = uri.query().unwrap_or_default();
        if !query.contains("fieldSelector") {
            all.notify_one();
            return Err(axum::http::StatusCode::INTERNAL_SERVER_ERROR);
        }
        if query.contains("watch=true") {
            one.notify_one();
            std::future::pending::<()>().await;
        }
        let list =
            json!({"kind": "NodeList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": [node()]});
        Ok(axum::Json(list))
    };
    let client = Client::new(axum::Router::new().fallback(answer), "default");
    let metrics = Metrics::default();
    let watches = [
        tokio::spawn(Informer::<Node>::named(client.clone(), metrics.clone(), "here").run(|_| true)),
        tokio::spawn(Informer::<Node>::all(client, metrics.clone()).run(|_| true)),
    ];
    watched.notified().await;
    // The second time, the first refusal was taken note of.
    refused.notified().await;
    refused.notified().await;
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        r#"copepod_netproxy_watch_synced{resource="nodes",scope="one"} 1"#,
        r#"copepod_netproxy_watch_synced{resource="nodes",scope="all"} 0"#,
    ] {
        assert!(text.contains(line), "{text}");
    }
    watches.into_iter().for_each(|watch| watch.abort());
}

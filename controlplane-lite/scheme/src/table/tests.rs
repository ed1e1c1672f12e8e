//! Tests of `scheme::table`: tables, properties and garbage.

#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;
use crate::builtin;

const NOW: &str = "2026-01-01T01:00:00Z";

fn cells(group: &str, version: &str, kind: &str, object: Value) -> Vec<Value> {
    let kind = builtin().by_gvk(group, version, kind).unwrap();
    let cells = kind.printer.cells(&object, NOW.parse().unwrap());
    assert_eq!(cells.len(), kind.printer.columns().len(), "{kind:?}");
    cells
}

#[test]
fn every_printer_prints_an_empty_object() {
    for kind in builtin().kinds() {
        let printed = kind.printer.cells(&json!({}), NOW.parse().unwrap());
        assert_eq!(printed.len(), kind.printer.columns().len(), "{kind:?}");
    }
}

#[test]
fn durations() {
    for (seconds, expect) in [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (200, "3m20s"),
        (600, "10m"),
        (3600 * 2, "120m"),
        (3600 * 3 + 300, "3h5m"),
        (3600 * 8, "8h"),
        (3600 * 47, "47h"),
        (3600 * 24 * 3 + 3600 * 4, "3d4h"),
        (3600 * 24 * 9, "9d"),
        (3600 * 24 * 800, "2y70d"),
        (3600 * 24 * 365 * 9, "9y"),
        (-1, "0s"),
        (-5, "<invalid>"),
    ] {
        assert_eq!(human_duration(seconds), expect, "{seconds}");
    }
}

fn pod_cells(status: Value, extra: Value) -> Vec<Value> {
    let mut object = json!({
        "metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:59:00Z"},
        "spec": {"containers": [{"name": "a"}, {"name": "b"}]}, "status": status,
    });
    object = crate::patch::merge::apply(&object, &extra);
    cells("", "v1", "Pod", object)
}

#[test]
fn pod_status_words() {
    let running = |name: &str| json!({"name": name, "ready": true, "restartCount": 0, "state": {"running": {}}});
    for (status, extra, expect) in [
        (json!({"phase": "Pending"}), json!({}), json!(["p", "0/2", "Pending", "0"])),
        (
            json!({"phase": "Running", "containerStatuses": [running("a"), running("b")]}),
            json!({}),
            json!(["p", "2/2", "Running", "0"]),
        ),
        (
            json!({"phase": "Running", "containerStatuses": [running("a"), {"name": "b", "restartCount": 3,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:59:55Z"}}}]}),
            json!({}),
            json!(["p", "1/2", "CrashLoopBackOff", "3 (5s ago)"]),
        ),
        (
            json!({"phase": "Succeeded", "containerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}),
            json!({}),
            json!(["p", "0/2", "Completed", "0"]),
        ),
        (
            json!({"phase": "Failed", "containerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 7}}}]}),
            json!({}),
            json!(["p", "0/2", "ExitCode:7", "0"]),
        ),
        (
            json!({"phase": "Running", "containerStatuses": [running("a"), running("b")]}),
            json!({"metadata": {"deletionTimestamp": NOW}}),
            json!(["p", "2/2", "Terminating", "0"]),
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}),
            json!({"spec": {"initContainers": [{"name": "i"}, {"name": "j"}]}}),
            json!(["p", "0/2", "Init:0/2", "0"]),
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [
                {"name": "i", "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
            json!({"spec": {"initContainers": [{"name": "i"}]}}),
            json!(["p", "0/2", "Init:CrashLoopBackOff", "2"]),
        ),
        (
            json!({"phase": "Running", "initContainerStatuses": [{"name": "i", "started": true, "ready": true, "state": {"running": {}}}],
                "containerStatuses": [running("a"), running("b")]}),
            json!({"spec": {"initContainers": [{"name": "i", "restartPolicy": "Always"}]}}),
            json!(["p", "3/3", "Running", "0"]),
        ),
        (
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
            json!({}),
            json!(["p", "0/2", "SchedulingGated", "0"]),
        ),
        (json!({"phase": "Failed", "reason": "Evicted"}), json!({}), json!(["p", "0/2", "Evicted", "0"])),
    ] {
        let got = pod_cells(status, extra);
        assert_eq!(Value::from(&got[..4]), expect);
        assert_eq!(got[4], "60s");
        assert_eq!(got[5], "<none>");
    }
}

#[test]
fn services_and_nodes() {
    let got = cells(
        "",
        "v1",
        "Service",
        json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "clusterIPs": ["10.43.0.9"], "selector": {"app": "x"},
            "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}}),
    );
    assert_eq!(
        Value::from(got),
        json!(["s", "NodePort", "10.43.0.9", "<none>", "80:30080/TCP,53/UDP", "<unknown>", "app=x"])
    );
    let got = cells(
        "",
        "v1",
        "Node",
        json!({"metadata": {"name": "n", "labels": {"node-role.kubernetes.io/control-plane": ""}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}],
                "nodeInfo": {"kubeletVersion": "v1.36.0"}, "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}}),
    );
    assert_eq!(
        Value::from(&got[..7]),
        json!(["n", "Ready,SchedulingDisabled", "control-plane", "<unknown>", "v1.36.0", "10.0.0.1", "<none>"])
    );
}

#[test]
fn tables_have_what_kubectl_reads() {
    let kind = builtin().by_gvk("apps", "v1", "Deployment").unwrap();
    let object = json!({"metadata": {"name": "d", "uid": "u"}, "spec": {"replicas": 3,
        "selector": {"matchLabels": {"app": "x"}},
        "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}, "status": {"readyReplicas": 1}});
    let made =
        table(kind, json!({"resourceVersion": "7"}), [&object], IncludeObject::Metadata, true, NOW.parse().unwrap());
    assert_eq!(made["columnDefinitions"][0]["format"], "name");
    assert_eq!(made["rows"][0]["cells"][1], "1/3");
    assert_eq!(made["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(made["rows"][0]["object"]["metadata"]["uid"], "u");
    assert!(row(kind, &object, IncludeObject::None, NOW.parse().unwrap())["object"].is_null());
}

#[test]
fn events_and_slices() {
    let got = cells(
        "events.k8s.io",
        "v1",
        "Event",
        json!({"metadata": {"name": "e"}, "regarding": {"kind": "Pod", "name": "p"}, "note": " hi ", "type": "Normal",
            "reason": "Started", "eventTime": "2026-01-01T00:59:50.000000Z", "reportingController": "kubelet"}),
    );
    assert_eq!(Value::from(&got[..4]), json!(["10s", "Normal", "Started", "pod/p"]));
    assert_eq!(got[6], "hi");
    let got = cells(
        "discovery.k8s.io",
        "v1",
        "EndpointSlice",
        json!({"metadata": {"name": "s"}, "addressType": "IPv4", "ports": [{"port": 80}],
            "endpoints": [{"addresses": ["1.1.1.1"]}, {"addresses": ["1.1.1.2"]}, {"addresses": ["1.1.1.3"]}, {"addresses": ["1.1.1.4"]}]}),
    );
    assert_eq!(Value::from(&got[1..4]), json!(["IPv4", "80", "1.1.1.1,1.1.1.2,1.1.1.3 + 1 more..."]));
}

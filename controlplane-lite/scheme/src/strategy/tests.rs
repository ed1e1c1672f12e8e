//! Tests of strategies: tables of what a write there may change.

#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;
use crate::Kind;
use crate::builtin;

fn kind(group: &str, name: &str) -> &'static Kind {
    builtin().by_gvk(group, "v1", name).unwrap()
}

fn written(kind: &Kind, subresource: &str, new: &Value, old: &Value) -> Value {
    let mut new = new.clone();
    kind.prepare_update(subresource, &mut new, old, &crate::tests::context());
    new
}

#[test]
fn a_requester_cannot_say_who_asks() {
    let request = kind("certificates.k8s.io", "CertificateSigningRequest");
    let mut object = json!({"metadata": {"name": "x"}, "spec": {"request": "r", "username": "admin", "uid": "7",
        "groups": ["system:masters"], "extra": {"a": ["b"]}}});
    let groups = ["system:authenticated".to_owned()];
    let context = crate::tests::context();
    let user = Requester { username: "jane", groups: &groups, ..context.user };
    request.prepare_create(&mut object, &Context { user, ..context });
    let expect = json!({"request": "r", "username": "jane", "groups": ["system:authenticated"]});
    assert_eq!(object["spec"], expect);
    assert_eq!(object["metadata"]["uid"], "u");
}

#[test]
fn a_namespace_keeps_the_finalizers_it_is_made_with() {
    let namespaces = kind("", "Namespace");
    let mut object = json!({"metadata": {"name": "x"}, "spec": {"finalizers": ["example.com/mine"]},
        "status": {"phase": "Terminating"}});
    namespaces.prepare_create(&mut object, &crate::tests::context());
    assert_eq!(object["spec"]["finalizers"], json!(["example.com/mine", "kubernetes"]));
    assert_eq!(object["status"], json!({"phase": "Active"}));
    assert_eq!(object["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "x"}));
    assert_eq!(namespaces.validate_create(&object).0, []);
    object["spec"]["finalizers"] = json!(["mine"]);
    let errors = namespaces.validate_create(&object);
    assert!(errors.0[0].to_string().starts_with("spec.finalizers[0]: Invalid value"), "{errors:?}");
}

#[test]
fn a_new_pod_has_no_ephemeral_containers_and_no_node_while_it_is_gated() {
    let pods = kind("", "Pod");
    let container = json!({"name": "c", "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File"});
    let mut debugger = container.clone();
    debugger["name"] = json!("d");
    let mut pod = json!({"metadata": {"name": "x", "namespace": "default"}, "spec": {
        "containers": [container], "ephemeralContainers": [debugger],
        "schedulingGates": [{"name": "a"}], "nodeName": "n"}});
    pods.default(&mut pod);
    pods.prepare_create(&mut pod, &crate::tests::context());
    let errors: Vec<String> = pods.validate_create(&pod).0.iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "spec.ephemeralContainers: Forbidden: cannot be set on create",
            "spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared",
        ]
    );
}

#[test]
fn a_nodes_status_names_each_address_once_and_no_negative_amount() {
    let nodes = kind("", "Node");
    let old = json!({"metadata": {"name": "x"}});
    let problems = |status: Value| -> Vec<String> {
        let sent = json!({"metadata": {"name": "x"}, "status": status});
        let new = written(nodes, "status", &sent, &old);
        nodes.validate_update("status", &new, &old).0.iter().map(ToString::to_string).collect()
    };
    let address = |kind: &str, address: &str| json!({"type": kind, "address": address});
    let (internal, host) = (address("InternalIP", "192.0.2.1"), address("Hostname", "192.0.2.1"));
    assert_eq!(problems(json!({"addresses": [internal, host, address("InternalIP", "192.0.2.2")]})), [""; 0]);
    let twice = problems(json!({"addresses": [internal, host, internal]}));
    assert!(twice.len() == 1 && twice[0].starts_with("status.addresses[2]: Duplicate value: "), "{twice:?}");
    let owed = problems(json!({"capacity": {"cpu": "-1"}}));
    assert_eq!(owed, ["status.capacity[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"]);
}

#[test]
fn a_volume_says_since_when_it_is_in_its_phase() {
    let volumes = kind("", "PersistentVolume");
    let now = crate::tests::context().now;
    let mut made = json!({"metadata": {"name": "v"}, "status": {"phase": "Bound", "lastPhaseTransitionTime": "t9"}});
    volumes.prepare_create(&mut made, &crate::tests::context());
    assert_eq!(made["status"], json!({"phase": "Pending", "lastPhaseTransitionTime": now}));
    let status = |phase: &str, since: Value| json!({"metadata": {"name": "v"}, "status": {"phase": phase, "lastPhaseTransitionTime": since}});
    let old = status("Available", json!("t0"));
    for (phase, given, expect) in [
        ("Available", json!(null), json!("t0")),
        ("Available", json!("t1"), json!("t1")),
        ("Bound", json!(null), json!(now)),
        ("Bound", json!("t0"), json!(now)),
        ("Bound", json!("t1"), json!("t1")),
    ] {
        let new = written(volumes, "status", &status(phase, given.clone()), &old);
        assert_eq!(new["status"], json!({"phase": phase, "lastPhaseTransitionTime": expect}), "{phase} {given}");
    }
    let never = json!({"metadata": {"name": "v"}, "status": {"phase": "Available"}});
    assert_eq!(written(volumes, "status", &never, &never)["status"], never["status"]);
}

#[test]
fn only_a_load_balancer_has_the_addresses_of_one() {
    let services = kind("", "Service");
    let service = |ty: &str, status: Value| {
        let mut spec =
            json!({"type": ty, "ports": [{"port": 80}], "clusterIP": "10.43.0.9", "clusterIPs": ["10.43.0.9"]});
        if ty == "ClusterIP" {
            spec["ports"][0]["nodePort"] = json!(null);
        }
        let mut object = json!({"metadata": {"name": "s", "namespace": "n"}, "spec": spec, "status": status});
        services.default(&mut object);
        object
    };
    let served = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}]}});
    let balancer = service("LoadBalancer", served.clone());
    assert_eq!(written(services, "", &service("LoadBalancer", json!({})), &balancer)["status"], served);
    let plain = written(services, "", &service("ClusterIP", json!({})), &balancer);
    assert_eq!(plain["status"], json!({"loadBalancer": {}}));
    assert_eq!(services.validate_update("status", &balancer, &balancer).0, []);
    let forged = services.validate_update("status", &service("NodePort", served), &plain);
    assert!(forged.0[0].to_string().starts_with("status.loadBalancer.ingress: Forbidden"), "{forged:?}");
}

/// `ResetObjectMetaForStatus` in `pkg/registry/storage/volumeattachment/strategy.go`; of most kinds labels may change.
#[test]
fn a_status_of_an_attachment_takes_no_metadata_along() {
    let (attachments, nodes) = (kind("storage.k8s.io", "VolumeAttachment"), kind("", "Node"));
    let object = |metadata: Value, attached: bool| json!({"metadata": metadata, "status": {"attached": attached}});
    let old = object(json!({"name": "a", "labels": {"a": "1"}, "finalizers": ["x"]}), false);
    let new = object(json!({"name": "a", "labels": {"b": "2"}, "annotations": {"c": "3"}, "finalizers": []}), true);
    assert_eq!(written(attachments, "status", &new, &old), object(old["metadata"].clone(), true));
    let node = written(nodes, "status", &new, &old);
    assert_eq!(node["metadata"]["labels"], json!({"b": "2"}));
    let main = written(attachments, "", &new, &old);
    assert_eq!((&main["status"], &main["metadata"]["labels"]), (&old["status"], &json!({"b": "2"})));
    assert!(!attachments.facts.unconditional_update);
}

#[test]
fn a_subresource_changes_its_own_part_only() {
    let namespace = json!({"metadata": {"name": "x"}, "spec": {"finalizers": ["kubernetes"]}});
    let all = json!({"metadata": {"name": "x", "labels": {"a": "b"}, "annotations": {"c": "d"}},
        "spec": {"finalizers": [], "containers": [{"name": "c", "image": "new", "resources": {"limits": {"cpu": "2"}}}],
                 "ephemeralContainers": [{"name": "e"}]},
        "status": {"conditions": [{"type": "Approved", "status": "True"}], "phase": "Running"}});
    let pod = json!({"metadata": {"name": "x", "generation": 3},
        "spec": {"containers": [{"name": "c", "image": "old"}]}, "status": {"phase": "Pending"}});
    let request = json!({"metadata": {"name": "x"}, "spec": {"request": "r"}});
    let now = crate::tests::context().now;
    for (group, name, subresource, old, expect) in [
        ("", "Namespace", "finalize", &namespace, json!({"metadata": {"name": "x"}, "spec": {"finalizers": []}})),
        (
            "",
            "Pod",
            "ephemeralcontainers",
            &pod,
            json!({"metadata": {"name": "x", "generation": 4}, "status": {"phase": "Pending"},
                "spec": {"containers": [{"name": "c", "image": "old"}], "ephemeralContainers": [{"name": "e"}]}}),
        ),
        (
            "",
            "Pod",
            "resize",
            &pod,
            json!({"metadata": {"name": "x", "generation": 4}, "status": {"phase": "Pending"},
                "spec": {"containers": [{"name": "c", "image": "old", "resources": {"limits": {"cpu": "2"}}}]}}),
        ),
        (
            "certificates.k8s.io",
            "CertificateSigningRequest",
            "approval",
            &request,
            json!({"metadata": {"name": "x", "labels": {"a": "b"}, "annotations": {"c": "d"}}, "spec": {"request": "r"},
                "status": {"conditions": [{"type": "Approved", "status": "True", "lastUpdateTime": now,
                                           "lastTransitionTime": now}]}}),
        ),
        ("", "ConfigMap", "unknown", &request, request.clone()),
    ] {
        assert_eq!(written(kind(group, name), subresource, &all, old), expect, "{name} {subresource}");
    }
}

#[test]
fn heartbeats_say_nothing_else() {
    let lease =
        json!({"metadata": {"name": "n", "resourceVersion": "1"}, "spec": {"holderIdentity": "n", "renewTime": "a"}});
    let node = json!({"metadata": {"name": "n"}, "status": {"conditions": [
        {"type": "Ready", "status": "True", "lastHeartbeatTime": "a"}]}});
    let with = |object: &Value, pointer: &str, value: Value| {
        let mut object = object.clone();
        *object.pointer_mut(pointer).unwrap() = value;
        object
    };
    let (leases, nodes) = (kind("coordination.k8s.io", "Lease"), kind("", "Node"));
    for (kind, subresource, old, new, expect) in [
        (leases, "", &lease, with(&lease, "/spec/renewTime", json!("b")), true),
        (leases, "", &lease, with(&lease, "/metadata/resourceVersion", json!("2")), true),
        (leases, "", &lease, with(&lease, "/spec/holderIdentity", json!("m")), false),
        (nodes, "status", &node, with(&node, "/status/conditions/0/lastHeartbeatTime", json!("b")), true),
        (nodes, "status", &node, with(&node, "/status/conditions/0/status", json!("False")), false),
        (nodes, "", &node, with(&node, "/status/conditions/0/lastHeartbeatTime", json!("b")), false),
        (kind("", "ConfigMap"), "", &lease, lease.clone(), false),
    ] {
        assert_eq!(kind.strategy.is_heartbeat(subresource, &new, old), expect, "{kind:?} {subresource} {new}");
    }
}

#[test]
fn pods_get_the_time_they_ask_for() {
    let pod = |node: &str, phase: &str, seconds: i64| json!({"spec": {"nodeName": node, "terminationGracePeriodSeconds": seconds}, "status": {"phase": phase}});
    for (pod, asked, expect) in [
        (pod("n", "Running", 30), None, 30),
        (pod("n", "Running", 30), Some(5), 5),
        (pod("n", "Running", 30), Some(-1), 1),
        (pod("n", "Running", 30), Some(i64::MAX), 100 * 366 * 24 * 3600),
        (pod("", "Pending", 30), Some(5), 0),
        (pod("n", "Succeeded", 30), None, 0),
        (pod("n", "Failed", 30), None, 0),
    ] {
        assert_eq!(kind("", "Pod").strategy.grace_period(&pod, asked), expect, "{pod}");
    }
}

//! What nodes are refused, rule by rule; expectations are those of upstream's own table.

#![allow(clippy::unwrap_used)]

use base64::Engine as _;
use serde_json::{Value, json};

use super::super::tests::{Asked, Objects, run};
use super::super::{Operation, UserInfo};
use auth::pod::{CONTAINER_PATHS, PATHS, Reference};

fn cluster() -> Objects {
    Objects::cluster()
        .with("namespaces", json!({"metadata": {"name": "kube-node-lease"}, "status": {"phase": "Active"}}))
        .with("nodes", json!({"metadata": {"name": "a", "uid": "node-uid"}}))
        .with("pods", bound("own", "a", json!([])))
        .with("pods", bound("theirs", "b", json!([])))
}

fn bound(name: &str, node: &str, volumes: Value) -> Value {
    json!({"metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"nodeName": node, "volumes": volumes}})
}

fn asked(plural: (&'static str, &'static str), operation: Operation) -> Asked {
    let namespace = match plural.1 {
        "nodes" | "csinodes" | "certificatesigningrequests" => "",
        "leases" => "kube-node-lease",
        _ => "default",
    };
    Asked { operation, plural, subresource: "", namespace, user: UserInfo::node("a"), old: None }
}

#[track_caller]
fn refused(asked: &Asked, object: Value, view: &Objects, why: &str) {
    let mut object = object;
    let error = run(asked, &mut object, view).unwrap_err();
    assert!(error.to_string().contains(why), "{error}");
}

fn mirror() -> Value {
    json!({
        "metadata": {"name": "m", "namespace": "default", "annotations": {"kubernetes.io/config.mirror": "hash"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "a", "uid": "node-uid", "controller": true}]},
        "spec": {"nodeName": "a", "containers": [{"name": "c"}]},
    })
}

#[test]
fn a_mirror_pod_is_the_nodes_own() {
    let create = asked(("", "pods"), Operation::Create);
    run(&create, &mut mirror(), &cluster()).unwrap();
    let owner = |change: &dyn Fn(&mut Value)| {
        let mut pod = mirror();
        change(&mut pod["metadata"]["ownerReferences"]);
        pod
    };
    let cases: Vec<(Value, &str)> = vec![
        (owner(&|o| *o = json!([])), "with an owner reference set to itself"),
        (owner(&|o| *o = json!([o[0], o[0]])), "with a single owner reference set to itself"),
        (owner(&|o| o[0]["kind"] = json!("Pod")), "with an owner reference set to itself"),
        (owner(&|o| o[0]["apiVersion"] = json!("v2")), "with an owner reference set to itself"),
        (owner(&|o| o[0]["name"] = json!("b")), "with an owner reference set to itself"),
        (owner(&|o| o[0]["controller"] = json!(false)), "with a controller owner reference set to itself"),
        (owner(&|o| o[0]["blockOwnerDeletion"] = json!(true)), "must not set blockOwnerDeletion"),
        (owner(&|o| o[0]["uid"] = json!("other")), "UID mismatch: expected node-uid got other"),
    ];
    for (pod, why) in cases {
        refused(&create, pod, &cluster(), why);
    }
    let mut elsewhere = mirror();
    elsewhere["spec"]["nodeName"] = json!("b");
    refused(&create, elsewhere, &cluster(), "with spec.nodeName set to itself");
    let mut plain = mirror();
    plain["metadata"]["annotations"] = json!({"kubernetes.io/config.source": "file"});
    refused(&create, plain, &cluster(), "can only create mirror pods");
    assert_eq!(run(&create, &mut mirror(), &Objects::cluster()).unwrap_err().code(), 404, "no such node");
}

/// A pod with a name at the path.
fn with_name(pod: &mut Value, path: &str) {
    let (step, rest) = path.split_once('.').map_or((path, None), |(step, rest)| (step, Some(rest)));
    let inner = match step.strip_suffix("[]") {
        Some(list) => {
            if !pod[list].is_array() {
                pod[list] = json!([{}]);
            }
            &mut pod[list][0]
        }
        None => &mut pod[step],
    };
    match rest {
        Some(rest) => with_name(inner, rest),
        None => *inner = json!("x"),
    }
}

#[test]
fn a_mirror_pod_refers_to_nothing() {
    let create = asked(("", "pods"), Operation::Create);
    let in_containers = ["containers", "initContainers", "ephemeralContainers"]
        .into_iter()
        .flat_map(|list| CONTAINER_PATHS.iter().map(move |(what, path)| (*what, format!("spec.{list}[].{path}"))));
    for (what, path) in PATHS.iter().map(|(what, path)| (*what, (*path).to_owned())).chain(in_containers) {
        let mut pod = mirror();
        with_name(&mut pod, &path);
        let error = run(&create, &mut pod, &cluster()).unwrap_err();
        assert_eq!(error.code(), 403, "{what:?} {path}: {error}");
        // Who is no node is refused what ServiceAccount admission looks at.
        let anybody = Asked { user: UserInfo::new("jane", ["people"]), ..asked(("", "pods"), Operation::Create) };
        let mut pod = mirror();
        with_name(&mut pod, &path);
        let refused = run(&anybody, &mut pod, &cluster()).is_err();
        assert_eq!(refused, matches!(what, Reference::Secret | Reference::ServiceAccount), "{what:?} {path}");
    }
    let mut token = mirror();
    token["spec"]["volumes"] =
        json!([{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]);
    refused(&create, token, &cluster(), "ServiceAccountToken volume projections");
    let mut ephemeral = mirror();
    ephemeral["spec"]["volumes"] = json!([{"name": "e", "ephemeral": {}}]);
    refused(&create, ephemeral, &cluster(), "reference persistentvolumeclaims");
}

#[test]
fn pods_of_others_are_left_alone() {
    let delete = asked(("", "pods"), Operation::Delete);
    run(&delete, &mut json!({"metadata": {"name": "own"}}), &cluster()).unwrap();
    refused(&delete, json!({"metadata": {"name": "theirs"}}), &cluster(), "can only delete pods");
    let evict = Asked { subresource: "eviction", ..asked(("", "pods"), Operation::Create) };
    run(&evict, &mut json!({"metadata": {"name": "own"}}), &cluster()).unwrap();
    refused(&evict, json!({"metadata": {"name": "theirs"}}), &cluster(), "can only evict pods");
    let update = Asked { old: Some(mirror()), ..asked(("", "pods"), Operation::Update) };
    refused(&update, mirror(), &cluster(), "can only create and delete mirror pods");
    for subresource in ["binding", "ephemeralcontainers", "resize", "exec", "anything"] {
        let update = Asked { subresource, old: Some(mirror()), ..asked(("", "pods"), Operation::Update) };
        refused(&update, mirror(), &cluster(), "only 'status' and 'eviction' are allowed");
    }
}

#[test]
fn a_pods_status_is_its_nodes() {
    let status = |node: &str| Asked {
        subresource: "status",
        old: Some(bound("p", node, json!([]))),
        ..asked(("", "pods"), Operation::Update)
    };
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut pod = bound("p", "a", json!([]));
        pod["status"] = json!({"phase": "Running"});
        change(&mut pod);
        pod
    };
    run(&status("a"), &mut changed(&|_| {}), &cluster()).unwrap();
    run(&status("a"), &mut changed(&|p| p["metadata"]["labels"] = json!({})), &cluster()).unwrap();
    refused(&status("b"), changed(&|_| {}), &cluster(), "can only update pod status");
    refused(&status("a"), changed(&|p| p["metadata"]["labels"] = json!({"a": "b"})), &cluster(), "labels");
    for field in ["resourceClaimStatuses", "extendedResourceClaimStatus"] {
        refused(&status("a"), changed(&|p| p["status"][field] = json!([{"name": "x"}])), &cluster(), "claim");
    }
}

#[test]
fn a_node_keeps_what_steers_pods_to_it() {
    let old = json!({"metadata": {"name": "a", "labels": {
        "node-restriction.kubernetes.io/tier": "x", "node-role.kubernetes.io/control-plane": "",
        "kubernetes.io/hostname": "a", "mine": "1"}}, "spec": {"taints": [{"key": "k"}]}});
    let update = |subresource: &'static str| Asked {
        subresource,
        old: Some(old.clone()),
        ..asked(("", "nodes"), Operation::Update)
    };
    type Change = fn(&mut Value);
    let refuse: [(Change, &str); 10] = [
        (|n| n["metadata"]["finalizers"] = json!(["example.com/stay"]), "finalizers"),
        (|n| n["spec"]["podCIDR"] = json!("10.42.9.0/24"), "podCIDRs"),
        (|n| n["spec"]["podCIDRs"] = json!(["0.0.0.0/0"]), "podCIDRs"),
        (
            |n| drop(n["metadata"]["labels"].as_object_mut().unwrap().remove("node-restriction.kubernetes.io/tier")),
            "labels",
        ),
        (
            |n| drop(n["metadata"]["labels"].as_object_mut().unwrap().remove("node-role.kubernetes.io/control-plane")),
            "labels",
        ),
        (|n| n["metadata"]["labels"]["node-role.kubernetes.io/master"] = json!(""), "labels"),
        (|n| n["metadata"]["labels"]["sub.node-restriction.kubernetes.io/x"] = json!(""), "labels"),
        (|n| n["spec"]["taints"] = json!([]), "taints"),
        (|n| n["spec"]["configSource"] = json!({"configMap": {}}), "configSource"),
        (
            |n| {
                n["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "y"}])
            },
            "ownerReferences",
        ),
    ];
    for subresource in ["", "status"] {
        for (change, why) in refuse {
            let mut node = old.clone();
            change(&mut node);
            refused(&update(subresource), node, &cluster(), why);
        }
    }
    let mut allowed = old.clone();
    allowed["metadata"]["labels"] = json!({"node-restriction.kubernetes.io/tier": "x",
        "node-role.kubernetes.io/control-plane": "", "topology.kubernetes.io/zone": "z", "x.kubelet.kubernetes.io/y": "z",
        "notnode-restriction.example.com/x": "y"});
    run(&update(""), &mut allowed, &cluster()).unwrap();
    let create = asked(("", "nodes"), Operation::Create);
    let labelled = json!({"metadata": {"name": "a", "labels": {"node-role.kubernetes.io/x": ""}}});
    refused(&create, labelled, &cluster(), "set the following labels: node-role.kubernetes.io/x");
    refused(&create, json!({"metadata": {"name": "b"}}), &cluster(), "not allowed to modify node");
    let routed = json!({"metadata": {"name": "a"}, "spec": {"podCIDR": "10.42.0.0/24", "podCIDRs": ["10.42.0.0/24"]}});
    refused(&create, routed, &cluster(), "not allowed to set its own podCIDRs");
    // It would go with what it says it depends on, and come back without its taints.
    let dependent = json!({"metadata": {"name": "a", "ownerReferences": [
        {"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "name": "a", "uid": "u"}]}});
    refused(&create, dependent, &cluster(), "not allowed to modify ownerReferences");
    let staying = json!({"metadata": {"name": "a", "finalizers": ["example.com/stay"]}});
    refused(&create, staying, &cluster(), "not allowed to modify finalizers");
    run(&create, &mut json!({"metadata": {"name": "a"}}), &cluster()).unwrap();
}

#[test]
fn a_claims_status_is_changed_where_kubelets_may() {
    let claim = json!({"metadata": {"name": "c", "labels": {"a": "b"}}, "status": {"phase": "Bound"}});
    let status = Asked {
        subresource: "status",
        old: Some(claim.clone()),
        ..asked(("", "persistentvolumeclaims"), Operation::Update)
    };
    let mut grown = claim.clone();
    grown["status"]["capacity"] = json!({"storage": "1Gi"});
    grown["status"]["conditions"] = json!([{"type": "FileSystemResizePending"}]);
    run(&status, &mut grown, &cluster()).unwrap();
    let mut relabelled = claim.clone();
    relabelled["metadata"]["labels"] = json!({});
    refused(&status, relabelled, &cluster(), "other than status.capacity");
    let mut lost = claim.clone();
    lost["status"]["phase"] = json!("Lost");
    refused(&status, lost, &cluster(), "other than status.capacity");
    for operation in [Operation::Create, Operation::Update, Operation::Delete] {
        let main = Asked { old: Some(claim.clone()), ..asked(("", "persistentvolumeclaims"), operation) };
        refused(&main, claim.clone(), &cluster(), "may only update PVC status");
    }
}

fn token(name: &str, uid: &str, audiences: Value) -> Value {
    json!({"metadata": {"name": "robot"}, "spec": {"audiences": audiences,
        "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}}})
}

#[test]
fn tokens_are_for_the_nodes_own_pods() {
    let ask = Asked { subresource: "token", ..asked(("", "serviceaccounts"), Operation::Create) };
    run(&ask, &mut token("own", "own", json!([])), &cluster()).unwrap();
    refused(&ask, token("theirs", "theirs", json!([])), &cluster(), "scheduled on a different node");
    refused(&ask, token("own", "", json!([])), &cluster(), "without a uid");
    refused(&ask, token("own", "old", json!([])), &cluster(), "does not match the UID in record");
    refused(&ask, token("", "own", json!([])), &cluster(), "not bound to a pod");
    refused(&ask, json!({"metadata": {"name": "robot"}}), &cluster(), "not bound to a pod");
    assert_eq!(run(&ask, &mut token("gone", "x", json!([])), &cluster()).unwrap_err().code(), 404);
}

#[test]
fn tokens_are_for_audiences_that_the_pod_names() {
    let ask = Asked { subresource: "token", ..asked(("", "serviceaccounts"), Operation::Create) };
    let volumes = json!([
        {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"audience": "vault"}}]}},
        {"name": "i", "csi": {"driver": "inline.example.com"}},
        {"name": "c", "persistentVolumeClaim": {"claimName": "data"}},
    ]);
    let driver = |name: &str, audience: &str| json!({"metadata": {"name": name}, "spec": {"tokenRequests": [{"audience": audience}]}});
    let view = cluster()
        .with("pods", bound("own", "a", volumes))
        .with("csidrivers", driver("inline.example.com", "inline"))
        .with("csidrivers", driver("disk.example.com", "disk"))
        .with(
            "persistentvolumeclaims",
            json!({"metadata": {"name": "data", "namespace": "default"}, "spec": {"volumeName": "v"}}),
        )
        .with("persistentvolumes", json!({"metadata": {"name": "v"}, "spec": {"csi": {"driver": "disk.example.com"}}}));
    for audience in ["", "own-audience", "vault", "inline", "disk"] {
        run(&ask, &mut token("own", "own", json!([audience])), &view).unwrap();
    }
    refused(&ask, token("own", "own", json!(["bank"])), &view, "audience \"bank\" not found in pod spec volume");
    refused(&ask, token("own", "own", json!(["vault", "disk"])), &view, "0 or 1 audiences");
}

#[test]
fn leases_slices_and_csi_nodes_are_the_nodes_own() {
    for plural in [("coordination.k8s.io", "leases"), ("storage.k8s.io", "csinodes")] {
        for operation in [Operation::Create, Operation::Update, Operation::Delete] {
            let ask = Asked { old: Some(json!({})), ..asked(plural, operation) };
            run(&ask, &mut json!({"metadata": {"name": "a"}}), &cluster()).unwrap();
            refused(&ask, json!({"metadata": {"name": "b"}}), &cluster(), "same name as the requesting node");
        }
        for operation in [Operation::Create, Operation::Update] {
            let ask = Asked { old: Some(json!({})), ..asked(plural, operation) };
            let owned = |owner: Value| json!({"metadata": {"name": "a", "ownerReferences": [owner]}});
            let own = json!({"apiVersion": "v1", "kind": "Node", "name": "a", "uid": "node-uid"});
            run(&ask, &mut owned(own.clone()), &cluster()).unwrap();
            for (field, value) in [
                ("kind", json!("Pod")),
                ("name", json!("b")),
                ("apiVersion", json!("apps/v1")),
                ("blockOwnerDeletion", json!(true)),
            ] {
                let mut other = own.clone();
                other[field] = value;
                refused(&ask, owned(other), &cluster(), "can only set an owner reference to itself");
            }
            let staying = json!({"metadata": {"name": "a", "finalizers": ["example.com/stay"]}});
            refused(&ask, staying, &cluster(), "not allowed to modify finalizers");
        }
    }
    let elsewhere = Asked { namespace: "default", ..asked(("coordination.k8s.io", "leases"), Operation::Create) };
    refused(&elsewhere, json!({"metadata": {"name": "a"}}), &cluster(), "\"kube-node-lease\" system namespace");
}

fn signing_request(signer: &str, common_name: &str) -> Value {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
    let pem = params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    let encoded = base64::engine::general_purpose::STANDARD.encode(pem);
    json!({"metadata": {"name": "r"}, "spec": {"signerName": signer, "request": encoded}})
}

#[test]
fn a_node_asks_for_its_own_certificates() {
    let ask = asked(("certificates.k8s.io", "certificatesigningrequests"), Operation::Create);
    for signer in ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"] {
        run(&ask, &mut signing_request(signer, "system:node:a"), &cluster()).unwrap();
        refused(&ask, signing_request(signer, "system:node:b"), &cluster(), "with CN=system:node:a");
        let mut garbage = signing_request(signer, "system:node:a");
        garbage["spec"]["request"] = json!("%%");
        refused(&ask, garbage, &cluster(), "unable to parse csr");
    }
    run(&ask, &mut signing_request("example.com/x", "anything"), &cluster()).unwrap();
}

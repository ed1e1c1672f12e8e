//! Tests of `scheme::validation`: tables, properties and garbage.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::cluster;
use crate::field::FieldErrors;
use crate::patch::merge;
use crate::{Kind, builtin};

mod confinement;

fn kind(group: &str, name: &str) -> &'static Kind {
    builtin().by_gvk(group, "v1", name).unwrap()
}

fn base(kind: &Kind, spec: &Value) -> Value {
    let mut object =
        merge::apply(&json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": {"name": "x"}}), spec);
    if kind.namespaced {
        object["metadata"]["namespace"] = "n".into();
    }
    kind.default(&mut object);
    object
}

/// Problems of a new object, as texts.
fn problems(kind: &Kind, content: &Value) -> Vec<String> {
    let mut object = base(kind, content);
    kind.prepare_create(&mut object, &crate::tests::context());
    kind.validate_create(&object).0.iter().map(ToString::to_string).collect()
}

/// Problems of an update, as texts.
fn update_problems(kind: &Kind, old: &Value, new: &Value) -> Vec<String> {
    let (old, mut new) = (base(kind, old), base(kind, new));
    kind.prepare_update("", &mut new, &old, &crate::tests::context());
    kind.validate_update("", &new, &old).0.iter().map(ToString::to_string).collect()
}

fn pod(extra: Value) -> Value {
    merge::apply(&json!({"spec": {"containers": [{"name": "c", "image": "i"}]}}), &extra)
}

#[test]
fn pods() {
    for (extra, expect) in [
        (json!({}), vec![]),
        (json!({"spec": {"containers": []}}), vec!["spec.containers: Required value"]),
        (
            json!({"spec": {"containers": [{"name": "C"}]}}),
            vec![
                "spec.containers[0].name: Invalid value: \"C\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
                "spec.containers[0].image: Required value",
            ],
        ),
        (
            json!({"spec": {"containers": [{"name": "c", "image": "i"}, {"name": "c", "image": "i"}]}}),
            vec!["spec.containers[1].name: Duplicate value: \"c\""],
        ),
        (
            json!({"spec": {"containers": [{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/x"}]}]}}),
            vec!["spec.containers[0].volumeMounts[0].name: Not found: \"v\""],
        ),
        (
            json!({"spec": {"restartPolicy": "Sometimes"}}),
            vec![
                "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"Never\", \"OnFailure\"",
            ],
        ),
        (
            json!({"spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 70000}]}]}}),
            vec![
                "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            ],
        ),
        (
            json!({"spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}]}}),
            vec![
                "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
            ],
        ),
        (
            json!({"spec": {"containers": [{"name": "c", "image": "i", "livenessProbe": {"exec": {"command": ["x"]}, "tcpSocket": {"port": 1}, "successThreshold": 2}}]}}),
            vec![
                "spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
                "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
            ],
        ),
        (
            json!({"spec": {"tolerations": [{"operator": "Equal", "value": "x"}]}}),
            vec![
                "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            ],
        ),
        (
            json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/x"}}]}}),
            vec!["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"],
        ),
        (
            json!({"spec": {"activeDeadlineSeconds": 0}}),
            vec!["spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"],
        ),
    ] {
        assert_eq!(problems(kind("", "Pod"), &pod(extra.clone())), expect, "{extra}");
    }
}

#[test]
fn pod_updates() {
    let k = kind("", "Pod");
    let old = pod(json!({"spec": {"tolerations": [{"key": "a", "operator": "Exists"}]}}));
    let mut image = old.clone();
    image["spec"]["containers"][0]["image"] = "j".into();
    // The pull policy was defaulted at creation and does not follow the image.
    assert_eq!(update_problems(k, &old, &image), Vec::<String>::new());
    let mut more = old.clone();
    more["spec"]["tolerations"].as_array_mut().unwrap().push(json!({"key": "b", "operator": "Exists"}));
    assert_eq!(update_problems(k, &old, &more), Vec::<String>::new());
    let mut command = old.clone();
    command["spec"]["containers"][0]["command"] = json!(["x"]);
    assert!(
        update_problems(k, &old, &command)[0]
            .starts_with("spec: Forbidden: pod updates may not change fields other than")
    );
    let mut fewer = old.clone();
    fewer["spec"]["tolerations"] = json!([]);
    assert_eq!(
        update_problems(k, &old, &fewer),
        ["spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"]
    );
    let mut added = old.clone();
    added["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "d", "image": "i"}));
    assert_eq!(
        update_problems(k, &old, &added),
        ["spec.containers: Forbidden: pod updates may not add or remove containers"]
    );
}

#[test]
fn deployments() {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let good = json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let k = kind("apps", "Deployment");
    assert_eq!(problems(k, &good), Vec::<String>::new());
    for (extra, expect) in [
        (json!({"spec": {"selector": null}}), "spec.selector: Required value"),
        (
            json!({"spec": {"selector": {"matchLabels": {"a": "c"}}}}),
            "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
        ),
        (json!({"spec": {"replicas": -1}}), "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        (
            json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}}}),
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
        ),
        (
            json!({"spec": {"template": {"spec": {"restartPolicy": "Never"}}}}),
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
        ),
    ] {
        assert_eq!(problems(k, &merge::apply(&good, &extra)), [expect], "{extra}");
    }
    let other = merge::apply(
        &good,
        &json!({"spec": {"selector": {"matchLabels": {"a": null, "z": "b"}}, "template": {"metadata": {"labels": {"z": "b"}}}}}),
    );
    assert_eq!(
        update_problems(k, &good, &other),
        ["spec.selector: Invalid value: {\"matchLabels\":{\"z\":\"b\"}}: field is immutable"]
    );
}

#[test]
fn services() {
    let good = json!({"spec": {"ports": [{"port": 80}]}});
    let k = kind("", "Service");
    assert_eq!(problems(k, &good), Vec::<String>::new());
    for (content, expect) in [
        (json!({"spec": {}}), "spec.ports: Required value"),
        (
            json!({"spec": {"ports": [{"port": 0}]}}),
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        (json!({"spec": {"ports": [{"port": 1, "name": "a"}, {"port": 2}]}}), "spec.ports[1].name: Required value"),
        (
            json!({"spec": {"type": "Odd", "ports": [{"port": 1}]}}),
            "spec.type: Unsupported value: \"Odd\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
        ),
        (
            json!({"spec": {"clusterIP": "no", "ports": [{"port": 1}]}}),
            "spec.clusterIPs[0]: Invalid value: \"no\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ),
    ] {
        let got = problems(k, &content);
        assert!(got.iter().any(|p| p == expect), "{content}: {got:?}");
    }
    health_check_ports(k);
    let headless = json!({"spec": {"clusterIP": "None"}});
    assert_eq!(problems(k, &headless), Vec::<String>::new());
    let (old, new) = (
        json!({"spec": {"clusterIP": "10.43.0.5", "clusterIPs": ["10.43.0.5"], "ports": [{"port": 80}]}}),
        json!({"spec": {"clusterIP": "10.43.0.6", "clusterIPs": ["10.43.0.6"], "ports": [{"port": 80}]}}),
    );
    assert_eq!(
        update_problems(k, &old, &new),
        ["spec.clusterIPs[0]: Invalid value: \"10.43.0.6\": field is immutable"]
    );
}

fn health_check_ports(k: &Kind) {
    let service = |ty: &str, policy: &str, port: i64| {
        let mut spec = json!({"type": ty, "healthCheckNodePort": port, "ports": [{"port": 80}]});
        if ty != "ClusterIP" {
            spec["externalTrafficPolicy"] = json!(policy);
        }
        json!({ "spec": spec })
    };
    let unused = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
    for (ty, policy) in [("ClusterIP", ""), ("NodePort", "Local"), ("LoadBalancer", "Cluster")] {
        let expect = format!("spec.healthCheckNodePort: Invalid value: 31000: {unused}");
        assert_eq!(problems(k, &service(ty, policy, 31_000)), [expect], "{ty} {policy}");
        assert_eq!(problems(k, &service(ty, policy, 0)), Vec::<String>::new(), "{ty} {policy}");
    }
    let balancer = |port: i64| service("LoadBalancer", "Local", port);
    for port in [-1, 65_536] {
        assert!(problems(k, &balancer(port))[0].ends_with("must be between 1 and 65535, inclusive"), "{port}");
    }
    for port in [0, 31_000] {
        assert_eq!(problems(k, &balancer(port)), Vec::<String>::new(), "{port}: it may be drawn later");
    }
    let moved = update_problems(k, &balancer(31_000), &balancer(31_001));
    assert_eq!(moved, ["spec.healthCheckNodePort: Forbidden: field is immutable"]);
}

#[test]
fn data_objects() {
    let maps = kind("", "ConfigMap");
    assert_eq!(problems(maps, &json!({"data": {"a.b": "c"}})), Vec::<String>::new());
    assert!(problems(maps, &json!({"data": {"a/b": "c"}}))[0].starts_with("data[a/b]: Invalid value: \"a/b\""));
    let big = "x".repeat(1024 * 1024 + 1);
    assert_eq!(problems(maps, &json!({"data": {"a": big}})), ["Too long: may not be more than 1048576 bytes"]);
    let frozen = json!({"immutable": true, "data": {"a": "b"}});
    assert_eq!(
        update_problems(maps, &frozen, &json!({"immutable": true, "data": {"a": "c"}})),
        ["data: Forbidden: field is immutable when `immutable` is set"]
    );
    let secrets = kind("", "Secret");
    assert_eq!(
        problems(secrets, &json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}})),
        ["data[tls.key]: Required value"]
    );
    assert_eq!(
        update_problems(secrets, &json!({"type": "a/b"}), &json!({"type": "c/d"})),
        ["type: Invalid value: \"c/d\": field is immutable"]
    );
}

#[test]
fn other_kinds() {
    for (group, name, content, expect) in [
        (
            "discovery.k8s.io",
            "EndpointSlice",
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["::1"]}]}),
            "endpoints[0].addresses[0]: Invalid value: \"::1\": must be an IPv4 address",
        ),
        (
            "rbac.authorization.k8s.io",
            "Role",
            json!({"rules": [{"apiGroups": [""], "resources": ["pods"]}]}),
            "rules[0].verbs: Required value: verbs must contain at least one value",
        ),
        (
            "rbac.authorization.k8s.io",
            "ClusterRoleBinding",
            json!({"roleRef": {"kind": "Role", "name": "r"}}),
            "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
        ),
        (
            "coordination.k8s.io",
            "Lease",
            json!({"spec": {"leaseDurationSeconds": 0}}),
            "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
        ),
        (
            "",
            "Node",
            json!({"spec": {"taints": [{"key": "a", "effect": "Never"}]}}),
            "spec.taints[0].effect: Unsupported value: \"Never\": supported values: \"NoExecute\", \"NoSchedule\", \"PreferNoSchedule\"",
        ),
        (
            "batch",
            "CronJob",
            json!({"spec": {"schedule": "61 * * * *", "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}}}),
            "spec.schedule: Invalid value: \"61 * * * *\": end of range (61) above maximum (59): 61",
        ),
        (
            "",
            "PersistentVolumeClaim",
            json!({"spec": {"accessModes": ["ReadWriteOnce"]}}),
            "spec.resources[storage]: Required value",
        ),
        ("storage.k8s.io", "StorageClass", json!({}), "provisioner: Required value"),
    ] {
        assert_eq!(problems(kind(group, name), &content), [expect], "{name}");
    }
}

/// Texts that would mean more than they say where they are used.
#[test]
fn texts_that_reach_files_are_checked() {
    let with = |extra: Value| problems(kind("", "Pod"), &pod(json!({"spec": extra})));
    let dns = |config: Value| with(json!({"dnsConfig": config}));
    let mount = |path: &str| {
        with(json!({"volumes": [{"name": "v", "emptyDir": {}}], "containers": [
            {"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": path}]}]}))
    };
    let token = |path: &str| {
        let source = json!({"serviceAccountToken": {"path": path}});
        with(json!({"volumes": [{"name": "v", "projected": {"sources": [source]}}]}))
    };
    let sysctl = |name: &str| with(json!({"securityContext": {"sysctls": [{"name": name, "value": "1"}]}}));
    for (found, bad) in [
        (
            dns(
                json!({"nameservers": ["10.0.0.1"], "searches": ["a.b", "_x.y.", "."], "options": [{"name": "ndots", "value": "2"}]}),
            ),
            0,
        ),
        (dns(json!({"nameservers": ["10.0.0.1\nnameserver 6.6.6.6"]})), 1),
        (dns(json!({"searches": ["a\nnameserver 6.6.6.6"]})), 1),
        (dns(json!({"options": [{"name": "a\nnameserver 6.6.6.6"}]})), 1),
        (dns(json!({"options": [{"name": "a", "value": "1\nb"}, {"name": ""}]})), 2),
        (mount("/a"), 0),
        (mount("/a:ro"), 1),
        (token("a/b"), 0),
        (token("../b"), 1),
        (token("/b"), 1),
        (sysctl("kernel.shm_rmid_forced"), 0),
        (sysctl("net/ipv4/conf.eth0-1/x"), 0),
        (sysctl("foo-"), 1),
        (sysctl("bar.."), 1),
        (sysctl("A.b"), 1),
    ] {
        assert_eq!(found.len(), bad, "{found:?}");
    }
}

#[test]
fn addresses_are_named_by_their_canonical_form() {
    let ip = kind("networking.k8s.io", "IPAddress");
    let named = |name: &str| {
        problems(ip, &json!({"metadata": {"name": name}, "spec": {"parentRef": {"resource": "services", "name": "a"}}}))
    };
    assert!(named("10.0.0.1").is_empty() && named("2001:db8::1").is_empty());
    assert_eq!((named("2001:DB8::1").len(), named("web").len()), (1, 1));
    assert_eq!(problems(ip, &json!({"metadata": {"name": "10.0.0.1"}})).len(), 1);
}

#[test]
fn ranges_of_services_are_one_of_each_family_and_stay() {
    let ranges = kind("networking.k8s.io", "ServiceCIDR");
    let range = |cidrs: Value| json!({"metadata": {"name": "r"}, "spec": {"cidrs": cidrs}});
    for (cidrs, bad) in [
        (json!(["203.0.113.0/24"]), false),
        (json!(["2001:db8::/64", "203.0.113.0/24"]), false),
        (json!([]), true),
        (json!(["203.0.113.0/24", "198.51.100.0/24"]), true),
        (json!(["203.0.113.0/24", "2001:db8::/64", "198.51.100.0/24"]), true),
        (json!(["203.0.113.0"]), true),
    ] {
        assert_eq!(!problems(ranges, &range(cidrs.clone())).is_empty(), bad, "{cidrs}");
    }
    let old = range(json!(["203.0.113.0/24"]));
    for (cidrs, bad) in [
        (json!(["203.0.113.0/24"]), false),
        (json!(["203.0.113.0/24", "2001:db8::/64"]), false),
        (json!(["2001:db8::/64", "203.0.113.0/24"]), true),
        (json!(["198.51.100.0/24"]), true),
    ] {
        assert_eq!(!ranges.validate_update("", &range(cidrs.clone()), &old).is_empty(), bad, "{cidrs}");
    }
}

/// A list of as many items as a body can hold, in every place where items must differ. Looking each up among those
/// before it would take hours.
#[test]
fn long_lists_are_checked_in_linear_time() {
    let many = |item: &dyn Fn(usize) -> Value| (0..60_000).map(item).collect::<Value>();
    let container = |key: &str, list: Value| json!({"spec": {"containers": [{"name": "c", "image": "i", key: list}]}});
    let names = many(&|n| json!({"name": format!("n{n}")}));
    let port = |n: usize| json!({"name": format!("p{n}"), "containerPort": 1 + n % 65_535, "hostPort": 1 + n % 65_535});
    let mount = |n: usize| json!({"name": format!("n{n}"), "mountPath": format!("/{n}")});
    let service_port = |n: usize| json!({"name": format!("p{n}"), "port": 1 + n, "nodePort": 30_000 + n});
    for (group, name, content) in [
        ("", "Pod", container("ports", many(&port))),
        ("", "Pod", merge::apply(&container("volumeMounts", many(&mount)), &json!({"spec": {"volumes": names}}))),
        ("", "Pod", json!({"spec": {"containers": names, "schedulingGates": names}})),
        ("", "Pod", pod(json!({"spec": {"securityContext": {"sysctls": names}}}))),
        ("", "Service", json!({"spec": {"type": "NodePort", "ports": many(&service_port)}})),
        ("", "Node", json!({"spec": {"taints": many(&|n| json!({"key": format!("k{n}"), "effect": "NoExecute"}))}})),
        ("discovery.k8s.io", "EndpointSlice", json!({"addressType": "IPv4", "endpoints": [], "ports": names})),
        (
            "certificates.k8s.io",
            "CertificateSigningRequest",
            json!({"spec": {"signerName": "a.b/c", "usages": many(&|n| json!(format!("u{n}")))}}),
        ),
    ] {
        assert!(problems(kind(group, name), &content).len() <= 1000, "{name}");
    }
    let gated = pod(json!({"spec": {"schedulingGates": names}}));
    assert!(!update_problems(kind("", "Pod"), &pod(json!({})), &gated).is_empty());
}

#[test]
fn a_nodes_pod_ranges_are_ranges_and_agree() {
    let found = |spec: Value| {
        let mut errors = FieldErrors::new();
        cluster::node(&json!({"metadata": {"name": "n"}, "spec": spec}), &mut errors);
        errors.0.iter().map(|e| e.path.clone()).collect::<Vec<_>>()
    };
    let both = |single: &str, list: Value| json!({"podCIDR": single, "podCIDRs": list});
    assert_eq!(found(json!({})), [""; 0]);
    assert_eq!(found(both("10.0.0.0/24", json!(["10.0.0.0/24"]))), [""; 0]);
    assert_eq!(found(both("10.0.0.0/24", json!(["10.0.0.0/24", "fd00::/64"]))), [""; 0]);
    assert_eq!(found(both("10.0.1.0/24", json!(["10.0.0.0/24"]))), ["spec.podCIDR"], "one field was changed alone");
    assert_eq!(found(both("10.0.0.0", json!(["10.0.0.0"]))), ["spec.podCIDRs[0]"]);
    assert_eq!(found(both("10.0.0.0/24", json!(["10.0.0.0/24", "10.0.1.0/24"]))), ["spec.podCIDRs"]);
    let three = json!(["10.0.0.0/24", "fd00::/64", "fd01::/64"]);
    assert_eq!(found(both("10.0.0.0/24", three)), ["spec.podCIDRs"]);
}

/// What was stored before a rule was made can be labelled and let go, and nothing more.
#[test]
fn old_faults_hold_up_no_change_of_metadata() {
    let deployment = kind("apps", "Deployment");
    let mut old = json!({"metadata": {"name": "d", "namespace": "ns", "uid": "u", "resourceVersion": "1",
        "finalizers": ["orphan"]}, "spec": {"replicas": -1}});
    deployment.default(&mut old);
    let errors = |new: &Value| deployment.validate_update("", new, &old).0.len();
    let mut new = old.clone();
    new["metadata"]["finalizers"] = json!([]);
    new["metadata"]["labels"] = json!({"a": "b"});
    assert_eq!(errors(&new), 0, "{:?}", deployment.validate_update("", &new, &old));
    new["spec"]["replicas"] = json!(-2);
    assert!(errors(&new) > 0);
    // A rule about metadata itself is kept.
    let secret = kind("", "Secret");
    let old = json!({"metadata": {"name": "t", "namespace": "ns", "uid": "u", "resourceVersion": "1",
        "annotations": {"kubernetes.io/service-account.name": "a"}}, "type": "kubernetes.io/service-account-token"});
    let mut new = old.clone();
    new["metadata"]["annotations"] = json!({});
    let refused = secret.validate_update("", &new, &old);
    assert_eq!(refused.0[0].path, "metadata.annotations[kubernetes.io/service-account.name]");
}

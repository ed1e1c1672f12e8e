//! Tests of `scheme::validation`: tables, properties and garbage.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::cluster;
use crate::field::FieldErrors;
use crate::patch::merge;
use crate::{Kind, builtin};

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
                "spec.containers[0].name: Invalid value: \"C\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name', or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
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

/// Problems of ephemeral containers that are added to a running pod, as texts.
fn debugger_problems(debuggers: &Value) -> Vec<String> {
    let old = base(
        kind("", "Pod"),
        &pod(json!({"spec": {
            "initContainers": [{"name": "i", "image": "i"}],
            "volumes": [{"name": "v", "emptyDir": {}}]}})),
    );
    let mut new = old.clone();
    new["spec"]["ephemeralContainers"] = debuggers.clone();
    kind("", "Pod").default(&mut new);
    let mut errors = FieldErrors::new();
    super::ephemeral::update(&new, &old, &mut errors);
    errors.0.iter().map(ToString::to_string).collect()
}

#[test]
fn ephemeral_containers_are_checked_as_containers() {
    let good = json!([{"name": "d", "image": "i", "targetContainerName": "c", "stdin": true, "tty": true,
        "env": [{"name": "A", "value": "b"}], "volumeMounts": [{"name": "v", "mountPath": "/x"}],
        "securityContext": {"runAsUser": 0, "capabilities": {"add": ["SYS_PTRACE"]}}, "resources": {}, "ports": []}]);
    assert_eq!(debugger_problems(&good), Vec::<String>::new());
    let at = "spec.ephemeralContainers[0]";
    let long = "a".repeat(100_000);
    for (extra, expect) in [
        (json!({"name": "../../../tmp/x"}), format!("{at}.name: Invalid value")),
        (json!({"name": ".."}), format!("{at}.name: Invalid value")),
        (json!({"name": "a/b"}), format!("{at}.name: Invalid value")),
        (json!({"name": long}), format!("{at}.name: Invalid value")),
        (json!({"name": ""}), format!("{at}.name: Required value")),
        (json!({"name": "c"}), format!("{at}.name: Duplicate value")),
        (json!({"name": "i"}), format!("{at}.name: Duplicate value")),
        (json!({"image": ""}), format!("{at}.image: Required value")),
        (json!({"imagePullPolicy": "Sometimes"}), format!("{at}.imagePullPolicy: Unsupported value")),
        (
            json!({"volumeMounts": [{"name": "v", "mountPath": "/x:y"}]}),
            format!("{at}.volumeMounts[0].mountPath: Invalid"),
        ),
        (
            json!({"volumeMounts": [{"name": "v", "mountPath": ""}]}),
            format!("{at}.volumeMounts[0].mountPath: Required"),
        ),
        (json!({"volumeMounts": [{"name": "w", "mountPath": "/x"}]}), format!("{at}.volumeMounts[0].name: Not found")),
        (
            json!({"volumeMounts": [{"name": "v", "mountPath": "/x", "subPath": "a"}]}),
            format!("{at}.volumeMounts[0].subPath: Forbidden: cannot be set for an Ephemeral Container"),
        ),
        (
            json!({"volumeMounts": [{"name": "v", "mountPath": "/x", "subPathExpr": "$(A)"}]}),
            format!("{at}.volumeMounts[0].subPathExpr: Forbidden: cannot be set for an Ephemeral Container"),
        ),
        (json!({"securityContext": {"runAsUser": -5}}), format!("{at}.securityContext.runAsUser: Invalid value: -5")),
        (json!({"targetContainerName": "nobody"}), format!("{at}.targetContainerName: Not found: \"nobody\"")),
        (json!({"targetContainerName": "d"}), format!("{at}.targetContainerName: Not found")),
        (json!({"env": [{"name": "a=b", "value": "c"}]}), format!("{at}.env[0].name: Invalid value")),
    ] {
        let debugger = merge::apply(&json!({"name": "d", "image": "i"}), &extra);
        let found = debugger_problems(&json!([debugger]));
        let text = if found.len() == 1 { found[0].as_str() } else { "" };
        assert!(text.starts_with(&expect), "{}: {found:?}", expect);
    }
    for (field, value) in [
        ("restartPolicy", json!("Always")),
        ("restartPolicyRules", json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [1]}}])),
        ("resources", json!({"limits": {"cpu": "3"}})),
        ("resizePolicy", json!([{"resourceName": "cpu", "restartPolicy": "NotRequired"}])),
        ("ports", json!([{"containerPort": 80, "protocol": "TCP"}])),
        ("livenessProbe", json!({"exec": {"command": ["x"]}})),
        ("readinessProbe", json!({"exec": {"command": ["x"]}})),
        ("startupProbe", json!({"exec": {"command": ["x"]}})),
        ("lifecycle", json!({"preStop": {"exec": {"command": ["x"]}}})),
    ] {
        let mut debugger = json!({"name": "d", "image": "i"});
        debugger[field] = value;
        let found = debugger_problems(&json!([debugger]));
        assert_eq!(found, [format!("{at}.{field}: Forbidden: cannot be set for an Ephemeral Container")]);
    }
    let twice = json!([{"name": "d", "image": "i"}, {"name": "d", "image": "i"}]);
    assert_eq!(debugger_problems(&twice), ["spec.ephemeralContainers[1].name: Duplicate value: \"d\""]);
}

#[test]
fn ephemeral_containers_are_only_added_and_not_to_static_pods() {
    let old = base(kind("", "Pod"), &pod(json!({"spec": {"ephemeralContainers": [{"name": "d", "image": "i"}]}})));
    let problems = |new: &Value, old: &Value| {
        let mut errors = FieldErrors::new();
        super::ephemeral::update(new, old, &mut errors);
        errors.0.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(problems(&old, &old), Vec::<String>::new());
    let mut changed = old.clone();
    changed["spec"]["ephemeralContainers"][0]["image"] = "j".into();
    let words = "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be changed\n";
    assert_eq!(problems(&changed, &old), [words]);
    let mut gone = old.clone();
    gone["spec"]["ephemeralContainers"] = json!([]);
    let words = "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be removed\n";
    assert_eq!(problems(&gone, &old), [words]);
    let mut mirror = old.clone();
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    mirror["spec"]["nodeName"] = "n".into();
    assert_eq!(problems(&mirror, &mirror), ["Forbidden: static pods do not support ephemeral containers"]);
}

#[test]
fn what_leads_out_of_a_pod_is_refused() {
    let c = "spec.containers[0]";
    let with = |extra: Value| {
        let container = merge::apply(&json!({"name": "c", "image": "i"}), &extra);
        json!({"spec": {"containers": [container], "volumes": [{"name": "v", "emptyDir": {}}]}})
    };
    let volume = |source: Value| json!({"spec": {"volumes": [merge::apply(&json!({"name": "v"}), &source)]}});
    let source = |source: Value| volume(json!({"projected": {"sources": [source]}}));
    for (extra, expect) in [
        (
            with(json!({"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "../x"}}})),
            format!("{c}.securityContext.seccompProfile.localhostProfile: Invalid value: \"../x\": must not contain '..'"),
        ),
        (
            with(json!({"securityContext": {"seccompProfile": {"type": "Localhost"}}})),
            format!(
                "{c}.securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is \
                 Localhost"
            ),
        ),
        (
            json!({"spec": {"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "/x"}}}}),
            "spec.securityContext.seccompProfile.localhostProfile: Invalid value: \"/x\": must be a relative path".into(),
        ),
        (
            with(json!({"securityContext": {"appArmorProfile": {"type": "RuntimeDefault", "localhostProfile": "x"}}})),
            format!(
                "{c}.securityContext.appArmorProfile.localhostProfile: Invalid value: \"x\": can only be set when \
                 AppArmor type is Localhost"
            ),
        ),
        (
            with(json!({"securityContext": {"procMount": "Unmasked"}})),
            format!(
                "{c}.securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to use `Unmasked`"
            ),
        ),
        (
            with(json!({"volumeMounts": [{"name": "v", "mountPath": "/x", "mountPropagation": "Bidirectional"}]})),
            format!(
                "{c}.volumeMounts[0].mountPropagation: Forbidden: Bidirectional mount propagation is available only to \
                 privileged containers"
            ),
        ),
        (
            with(json!({"volumeMounts": [{"name": "v", "mountPath": "/x", "subPathExpr": "../$(A)"}]})),
            format!("{c}.volumeMounts[0].subPathExpr: Invalid value: \"../$(A)\": must not contain '..'"),
        ),
        (
            with(json!({"volumeDevices": [{"name": "w", "devicePath": "/dev/x"}]})),
            format!("{c}.volumeDevices[0].name: Not found: \"w\""),
        ),
        (
            with(json!({"volumeDevices": [{"name": "v", "devicePath": "/dev/x"}]})),
            format!(
                "{c}.volumeDevices[0].name: Invalid value: \"v\": can only use volume source type of \
                 PersistentVolumeClaim or Ephemeral for block mode"
            ),
        ),
        (
            with(json!({"ports": [{"containerPort": 80, "hostPort": 80, "hostIP": "x;y"}]})),
            format!(
                "{c}.ports[0].hostIP: Invalid value: \"x;y\": must be a valid IP address, (e.g. 10.9.8.7 or \
                 2001:db8::ffff)"
            ),
        ),
        (
            with(json!({"resources": {"claims": [{"name": "x"}]}})),
            format!("{c}.resources.claims[0]: Not found: \"x\""),
        ),
        (
            with(json!({"resizePolicy": [{"resourceName": "../x", "restartPolicy": "NotRequired"}]})),
            format!("{c}.resizePolicy: Unsupported value: \"../x\": supported values: \"cpu\", \"memory\""),
        ),
        (
            volume(json!({"emptyDir": {"medium": "../x"}})),
            "spec.volumes[0].emptyDir.medium: Unsupported value: \"../x\": supported values: \"HugePages\", \
             \"HugePages-<size>\", \"Memory\""
                .into(),
        ),
        (
            source(json!({"clusterTrustBundle": {"name": "b", "path": "../x"}})),
            "spec.volumes[0].projected.sources[0].clusterTrustBundle.path: Invalid value: \"../x\": must not contain '..'"
                .into(),
        ),
        (
            source(json!({"podCertificate": {"signerName": "a.b/c", "keyType": "ED25519", "keyPath": "/x"}})),
            "spec.volumes[0].projected.sources[0].podCertificate.keyPath: Invalid value: \"/x\": must be a relative path"
                .into(),
        ),
        (
            source(json!({"configMap": {"name": "m", "items": [{"key": "k", "path": "..data"}]}})),
            "spec.volumes[0].projected.sources[0].configMap.items[0].path: Invalid value: \"..data\": must not start with \
             '..'"
                .into(),
        ),
    ] {
        assert_eq!(problems(kind("", "Pod"), &pod(extra.clone())), [expect], "{extra}");
    }
    for good in [
        with(
            json!({"securityContext": {"procMount": "Default", "seccompProfile": {"type": "Localhost", "localhostProfile": "a/b"}}}),
        ),
        with(json!({"securityContext": {"privileged": true}, "volumeMounts": [
            {"name": "v", "mountPath": "/x", "mountPropagation": "Bidirectional"}]})),
        with(json!({"ports": [{"containerPort": 80, "hostPort": 80, "hostIP": "127.0.0.1"}]})),
        volume(json!({"emptyDir": {"medium": "HugePages-2Mi"}})),
        volume(json!({"emptyDir": {"medium": "Memory"}})),
        source(json!({"clusterTrustBundle": {"name": "b", "path": "a/b.pem"}})),
    ] {
        assert_eq!(problems(kind("", "Pod"), &pod(good.clone())), Vec::<String>::new(), "{good}");
    }
}

#[test]
fn a_claim_template_can_be_a_block_device() {
    let set = json!({"spec": {
        "serviceName": "s", "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [
            {"name": "c", "image": "i", "volumeDevices": [{"name": "data", "devicePath": "/dev/x"}]}]}},
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "volumeMode": "Block", "resources": {"requests": {"storage": "1Gi"}}}}]}});
    assert_eq!(problems(kind("apps", "StatefulSet"), &set), Vec::<String>::new());
}

#[test]
fn an_address_in_disguise_is_refused() {
    let slice = |ty: &str, ip: &str| json!({"addressType": ty, "endpoints": [{"addresses": [ip]}]});
    let of = |kind: &Kind, object: Value| problems(kind, &object).join("\n");
    let k = builtin().by_gvk("discovery.k8s.io", "v1", "EndpointSlice").unwrap();
    for ip in ["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::7f00:1"] {
        assert!(of(k, slice("IPv6", ip)).contains("must not be an IPv4-mapped IPv6 address"), "{ip}");
        let external = json!({"spec": {"ports": [{"port": 80}], "externalIPs": [ip]}});
        assert!(of(kind("", "Service"), external).contains("must not be an IPv4-mapped IPv6 address"), "{ip}");
    }
    assert!(of(k, slice("IPv6", "64:ff9b::127.0.0.1")).contains("loopback"));
    for ip in ["2001:db8::1", "64:ff9b::192.0.2.1"] {
        assert_eq!(of(k, slice("IPv6", ip)), "");
    }
}

#[test]
fn a_pod_never_becomes_or_ceases_to_be_a_mirror() {
    let k = kind("", "Pod");
    let annotated =
        |annotations: Value| pod(json!({"metadata": {"annotations": annotations}, "spec": {"nodeName": "n"}}));
    let at = "metadata.annotations";
    let armor = "container.apparmor.security.beta.kubernetes.io/c";
    for (old, new, expect) in [
        (json!({"a": "b"}), json!({"a": "c", "d": "e"}), vec![]),
        (json!({"kubernetes.io/config.mirror": "x"}), json!({"kubernetes.io/config.mirror": "x", "a": "b"}), vec![]),
        (
            json!({}),
            json!({"kubernetes.io/config.mirror": "x"}),
            vec![format!("{at}[kubernetes.io/config.mirror]: Forbidden: may not add mirror pod annotation")],
        ),
        (
            json!({"kubernetes.io/config.mirror": "x"}),
            json!({"kubernetes.io/config.mirror": "y"}),
            vec![format!(
                "{at}[kubernetes.io/config.mirror]: Forbidden: may not remove or update mirror pod annotation"
            )],
        ),
        (
            json!({"kubernetes.io/config.mirror": "x"}),
            json!({}),
            vec![format!(
                "{at}[kubernetes.io/config.mirror]: Forbidden: may not remove or update mirror pod annotation"
            )],
        ),
        (
            json!({}),
            json!({armor: "unconfined"}),
            vec![format!("{at}[{armor}]: Forbidden: may not add AppArmor annotations")],
        ),
        (
            json!({armor: "unconfined"}),
            json!({}),
            vec![format!("{at}[{armor}]: Forbidden: may not remove or update AppArmor annotations")],
        ),
    ] {
        let (old, new) = (base(k, &annotated(old)), base(k, &annotated(new)));
        assert_eq!(update_problems(k, &old, &new), expect, "{new}");
        let mut errors = FieldErrors::new();
        super::update::pod_status(&new, &old, &mut errors);
        assert_eq!(errors.0.iter().map(ToString::to_string).collect::<Vec<_>>(), expect, "status: {new}");
    }
    let unbound = pod(json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}}));
    let words = "must set spec.nodeName if mirror pod annotation is set";
    let expect = format!("{at}[kubernetes.io/config.mirror]: Invalid value: \"x\": {words}");
    assert_eq!(problems(k, &unbound), [expect]);
}

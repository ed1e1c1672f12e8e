//! What would lead out of a pod, or pass for something else, is refused.

use serde_json::{Value, json};

use super::{base, kind, pod, problems, update_problems};
use crate::field::FieldErrors;
use crate::patch::merge;
use crate::validation::{ephemeral, pod_status};
use crate::{Kind, builtin};

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
    ephemeral::update(&new, &old, &mut errors);
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
        ephemeral::update(new, old, &mut errors);
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
        pod_status::update(&new, &old, &mut errors);
        assert_eq!(errors.0.iter().map(ToString::to_string).collect::<Vec<_>>(), expect, "status: {new}");
    }
    let unbound = pod(json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}}));
    let words = "must set spec.nodeName if mirror pod annotation is set";
    let expect = format!("{at}[kubernetes.io/config.mirror]: Invalid value: \"x\": {words}");
    assert_eq!(problems(k, &unbound), [expect]);
}

/// Upstream's `ValidateSecurityContext` compares with one spelling; MetalLB's manifests have the other.
#[test]
fn privileges_that_need_escalation_are_told_by_upstreams_spelling() {
    let why = |capability: &str| {
        problems(
            kind("", "Pod"),
            &pod(json!({"spec": {"containers": [{"name": "c", "image": "i", "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": {"add": [capability]}}}]}})),
        )
    };
    assert!(why("SYS_ADMIN").is_empty(), "{:?}", why("SYS_ADMIN"));
    let told = why("CAP_SYS_ADMIN");
    assert!(told.len() == 1 && told[0].contains("`capabilities.Add` CAP_SYS_ADMIN"), "{told:?}");
}

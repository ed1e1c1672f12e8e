//! What each level refuses, in upstream's words; and what follows from a namespace's labels.

#![allow(clippy::unwrap_used)]
use serde_json::{Value, json};

use super::super::tests::{Asked, Objects, creating, run};
use super::super::{Operation, UserInfo};
use super::*;

fn told(pod: &Value, level: Level) -> String {
    print(&violations(pod, level))
}

fn pod(spec: Value, container: Value) -> Value {
    let mut pod = json!({"metadata": {"name": "p", "namespace": "default"}, "spec": spec});
    let mut container = container;
    container["name"] = json!("a");
    pod["spec"]["containers"] = json!([container]);
    pod
}

/// A pod that the strictest level takes.
fn good() -> Value {
    pod(
        json!({"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": [{"name": "c", "configMap": {"name": "x"}}, {"name": "e"}]}),
        json!({"securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}),
    )
}

#[test]
fn a_plain_pod_lacks_four_things() {
    let plain = pod(json!({}), json!({}));
    assert_eq!(told(&plain, Level::Privileged), "");
    assert_eq!(told(&plain, Level::Baseline), "");
    assert_eq!(
        told(&plain, Level::Restricted),
        "allowPrivilegeEscalation != false (container \"a\" must set securityContext.allowPrivilegeEscalation=false), \
         unrestricted capabilities (container \"a\" must set securityContext.capabilities.drop=[\"ALL\"]), \
         runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true), \
         seccompProfile (pod or container \"a\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \
         \"Localhost\")"
    );
    assert_eq!(told(&good(), Level::Restricted), "");
}

#[test]
fn baseline_refuses_ways_to_the_host() {
    let context = |context: Value| json!({"securityContext": context});
    let cases = [
        (json!({"hostNetwork": true, "hostPID": true}), json!({}), "host namespaces (hostNetwork=true, hostPID=true)"),
        (
            json!({}),
            context(json!({"privileged": true})),
            "privileged (container \"a\" must not set securityContext.privileged=true)",
        ),
        (json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}), json!({}), "hostPath volumes (volume \"v\")"),
        (
            json!({}),
            json!({"ports": [{"hostPort": 80}, {"hostPort": 81}]}),
            "hostPort (container \"a\" uses hostPorts 80, 81)",
        ),
        (
            json!({}),
            context(json!({"procMount": "Unmasked"})),
            "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (
            json!({}),
            context(json!({"capabilities": {"add": ["NET_ADMIN", "CHOWN"]}})),
            "non-default capabilities (container \"a\" must not include \"NET_ADMIN\" in securityContext.capabilities.add)",
        ),
        (
            context(json!({"sysctls": [{"name": "kernel.msgmax"}, {"name": "net.ipv4.tcp_rmem"}]})),
            json!({}),
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            context(json!({"seccompProfile": {"type": "Unconfined"}})),
            json!({}),
            "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            context(json!({"seLinuxOptions": {"type": "spc_t", "user": "u"}})),
            json!({}),
            "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may not be set)",
        ),
        (
            json!({}),
            context(json!({"appArmorProfile": {"type": "Unconfined"}})),
            "forbidden AppArmor profile (container \"a\" must not set AppArmor profile type to \"Unconfined\")",
        ),
        (
            context(json!({"windowsOptions": {"hostProcess": true}})),
            json!({}),
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            json!({}),
            json!({"livenessProbe": {"httpGet": {"host": "10.0.0.1"}}}),
            "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"10.0.0.1\")",
        ),
    ];
    for (spec, container, expected) in cases {
        let pod = pod(spec, container);
        assert_eq!(told(&pod, Level::Baseline), expected);
        let stricter = told(&pod, Level::Restricted);
        let reason = expected.split(" (").next().unwrap().replace("hostPath volumes", "restricted volume types");
        let reason = reason.replace("non-default", "unrestricted");
        assert!(stricter.contains(&reason), "{stricter}");
        // Wherever a container is.
        for list in ["initContainers", "ephemeralContainers"] {
            let mut elsewhere = pod.clone();
            elsewhere["spec"][list] = elsewhere["spec"]["containers"].take();
            assert_eq!(told(&elsewhere, Level::Baseline), expected, "{list}");
        }
    }
}

#[test]
fn restricted_wants_the_pod_locked() {
    let mut root = good();
    root["spec"]["securityContext"]["runAsUser"] = json!(0);
    assert_eq!(told(&root, Level::Restricted), "runAsUser=0 (pod must not set runAsUser=0)");
    let mut mixed = good();
    mixed["spec"]["containers"][0]["securityContext"]["runAsNonRoot"] = json!(false);
    let expected = "runAsNonRoot != true (container \"a\" must not set securityContext.runAsNonRoot=false)";
    assert_eq!(told(&mixed, Level::Restricted), expected);
    let mut volume = good();
    volume["spec"]["volumes"] =
        json!([{"name": "n", "nfs": {"server": "x"}}, {"name": "h", "hostPath": {"path": "/"}}]);
    let expected = "restricted volume types (volumes \"n\", \"h\" use restricted volume types \"hostPath\", \"nfs\")";
    assert_eq!(told(&volume, Level::Restricted), expected);
    let mut binding = good();
    binding["spec"]["containers"][0]["securityContext"]["capabilities"]["add"] = json!(["NET_BIND_SERVICE"]);
    assert_eq!(told(&binding, Level::Restricted), "");
    let mut windows = pod(json!({"os": {"name": "windows"}, "securityContext": {"runAsNonRoot": true}}), json!({}));
    assert_eq!(told(&windows, Level::Restricted), "");
    windows["spec"]["os"]["name"] = json!("linux");
    assert_ne!(told(&windows, Level::Restricted), "");
}

fn labelled(labels: Value) -> Objects {
    let namespace = json!({"metadata": {"name": "default", "labels": labels}, "status": {"phase": "Active"}});
    Objects::cluster().with("namespaces", namespace)
}

async fn warned(asked: &Asked, object: Value, view: &Objects) -> (Result<(), String>, Vec<String>) {
    let mut object = object;
    warnings::collect(async { run(asked, &mut object, view).map_err(|e| e.to_string()) }).await
}

const ENFORCE: &str = "pod-security.kubernetes.io/enforce";
const WARN: &str = "pod-security.kubernetes.io/warn";

#[tokio::test]
async fn a_namespace_refuses_what_its_labels_say() {
    let view = labelled(json!({ENFORCE: "restricted", "pod-security.kubernetes.io/enforce-version": "v1.30"}));
    let (refused, _) = warned(&creating("pods"), pod(json!({}), json!({})), &view).await;
    let text = refused.unwrap_err();
    let start =
        "pods \"p\" is forbidden: violates PodSecurity \"restricted:v1.30\": allowPrivilegeEscalation != false (";
    assert!(text.starts_with(start), "{text}");
    assert_eq!(warned(&creating("pods"), good(), &view).await, (Ok(()), vec![]));
    // A template is only warned of: its pods are refused.
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"template": pod(json!({}), json!({"securityContext": {"privileged": true}}))}});
    let asked = Asked { plural: ("apps", "deployments"), ..creating("pods") };
    let (taken, warnings) = warned(&asked, deployment, &labelled(json!({WARN: "baseline"}))).await;
    taken.unwrap();
    assert_eq!(
        warnings,
        [
            "would violate PodSecurity \"baseline:latest\": privileged (container \"a\" must not set securityContext.privileged=true)"
        ]
    );
    // Labels that mean nothing are as strict as can be.
    let broken = labelled(json!({ENFORCE: "severe"}));
    assert!(warned(&creating("pods"), pod(json!({}), json!({})), &broken).await.0.is_err());
}

#[tokio::test]
async fn a_running_pod_may_still_change_what_is_no_matter_of_security() {
    let view = labelled(json!({ENFORCE: "baseline"}));
    let old = pod(json!({"hostNetwork": true}), json!({"image": "a"}));
    let update = |old: &Value| Asked { operation: Operation::Update, old: Some(old.clone()), ..creating("pods") };
    let mut new = old.clone();
    new["metadata"]["labels"] = json!({"x": "y"});
    warned(&update(&old), new.clone(), &view).await.0.unwrap();
    // Upstream's isSignificantContainerUpdate: another image is another program with these rights.
    new["spec"]["containers"][0]["image"] = json!("b");
    assert!(warned(&update(&old), new, &view).await.0.is_err());
    let mut ephemeral = old.clone();
    ephemeral["spec"]["ephemeralContainers"] = json!([{"name": "debug", "securityContext": {"privileged": true}}]);
    let asked = Asked { subresource: "ephemeralcontainers", ..update(&old) };
    assert!(warned(&asked, ephemeral, &view).await.0.is_err());
    let status = Asked { subresource: "status", ..update(&old) };
    warned(&status, old.clone(), &view).await.0.unwrap();
}

#[tokio::test]
async fn a_stricter_namespace_tells_of_its_pods() {
    let mut one = pod(json!({"hostNetwork": true}), json!({}));
    one["metadata"]["name"] = json!("one");
    let mut two = one.clone();
    two["metadata"]["name"] = json!("two");
    let view = labelled(json!({})).with("pods", one).with("pods", two);
    let update = |old: Value| Asked {
        operation: Operation::Update,
        old: Some(json!({"metadata": {"name": "default", "labels": old}})),
        namespace: "",
        user: UserInfo::new("jane", ["people"]),
        ..creating("namespaces")
    };
    let wanted = json!({"metadata": {"name": "default", "labels": {ENFORCE: "baseline"}}});
    let (taken, warnings) = warned(&update(json!({})), wanted.clone(), &view).await;
    taken.unwrap();
    assert_eq!(
        warnings,
        [
            "existing pods in namespace \"default\" violate the new PodSecurity enforce level \"baseline:latest\"",
            "one (and 1 other pod): host namespaces"
        ]
    );
    let unchanged = warned(&update(json!({ENFORCE: "restricted"})), wanted, &view).await;
    assert_eq!(unchanged, (Ok(()), vec![]));
    let broken = json!({"metadata": {"name": "default", "labels": {ENFORCE: "severe"}}});
    let (refused, _) = warned(&update(json!({})), broken.clone(), &view).await;
    assert!(refused.unwrap_err().contains("metadata.labels[pod-security.kubernetes.io/enforce]"));
    warned(&update(json!({ENFORCE: "severe"})), broken, &view).await.0.unwrap();
}

#[tokio::test]
async fn what_nothing_acts_on_is_said() {
    let asked = |group: &'static str, plural: &'static str| Asked { plural: (group, plural), ..creating("pods") };
    for (group, plural, word) in [
        ("", "replicationcontrollers", "ReplicationController has no controller"),
        ("networking.k8s.io", "networkpolicies", "NetworkPolicy is not enforced"),
        ("batch", "cronjobs", "CronJob has no controller"),
    ] {
        let (taken, warnings) =
            warned(&asked(group, plural), json!({"metadata": {"name": "x"}}), &Objects::cluster()).await;
        taken.unwrap();
        assert!(warnings.len() == 1 && warnings[0].contains(word), "{warnings:?}");
    }
    assert_eq!(
        warned(&asked("apps", "deployments"), json!({"metadata": {"name": "x"}}), &Objects::cluster()).await.1,
        [""; 0]
    );
    let (_, warnings) =
        warned(&creating("pods"), pod(json!({"hostUsers": false}), json!({})), &Objects::cluster()).await;
    assert!(warnings[0].contains("hostUsers"), "{warnings:?}");
}

#[test]
fn garbage_is_judged_without_panic() {
    for odd in
        [json!(null), json!({"spec": 3}), json!({"spec": {"containers": [1, null, {"ports": 3}], "volumes": {}}})]
    {
        for level in [Level::Privileged, Level::Baseline, Level::Restricted] {
            let _ = violations(&odd, level);
        }
    }
}

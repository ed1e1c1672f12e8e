//! What upstream warns of when an object is written, although it is accepted. Pure.

use serde_json::Value;

use crate::access::at;
use crate::field::Path;

mod extensions;
mod network;
mod node;
mod pod;

pub(crate) use extensions::definition;
pub(crate) use network::{ingress, service};

/// Warnings about a Pod.
pub(crate) fn pod(object: &Value) -> Vec<String> {
    pod::warnings(object, &Path::ROOT, false)
}

/// Warnings about the pod template at `path`.
pub(crate) fn template(object: &Value, path: &[&str]) -> Vec<String> {
    pod::warnings(at(object, path), &Path::new(&path.join(".")), true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::builtin;
    use serde_json::json;

    #[test]
    fn negative_grace_periods_are_taken_as_one() {
        let negative = json!({"terminationGracePeriodSeconds": -1, "containers": [{"name": "a", "image": "x"}]});
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": negative});
        let words = "terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1";
        for (group, kind, object, path) in [
            ("", "Pod", json!({"spec": negative}), &["spec"][..]),
            ("apps", "Deployment", json!({"spec": {"template": template}}), &["spec", "template", "spec"]),
            (
                "batch",
                "CronJob",
                json!({"spec": {"jobTemplate": {"spec": {"template": template}}}}),
                &["spec", "jobTemplate", "spec", "template", "spec"],
            ),
        ] {
            let kind = builtin().by_gvk(group, "v1", kind).unwrap();
            assert_eq!(kind.strategy.warnings(&object), [format!("{}.{words}", path.join("."))]);
            let mut defaulted = object.clone();
            kind.default(&mut defaulted);
            let path: Vec<&str> = path.iter().copied().chain(["terminationGracePeriodSeconds"]).collect();
            assert_eq!(at(&defaulted, &path), 1);
            assert!(kind.strategy.warnings(&defaulted).is_empty());
        }
    }

    /// Texts and their order are those of upstream's pkg/api/pod/warnings.go.
    #[test]
    fn what_a_pod_says_in_vain_is_told() {
        let pod = json!({
            "metadata": {"annotations": {
                "scheduler.alpha.kubernetes.io/critical-pod": "true",
                "container.seccomp.security.alpha.kubernetes.io/a": "unconfined",
            }},
            "spec": {
                "nodeSelector": {"beta.kubernetes.io/arch": "amd64"},
                "hostAliases": [{"ip": "1.1.1.1"}, {"ip": "1.1.1.1"}],
                "imagePullSecrets": [{"name": ""}],
                "volumes": [{"name": "g", "gitRepo": {}}, {"name": "r", "rbd": {}}],
                "containers": [{
                    "name": "a",
                    "env": [{"name": "a", "value": "a"}, {"name": "a", "value": "$(a)b"}, {"name": "a", "value": "b"}],
                    "ports": [
                        {"containerPort": 80}, {"containerPort": 80, "name": "x", "protocol": "TCP"},
                        {"containerPort": 80, "protocol": "UDP", "hostIP": "1.2.3.4", "name": "y"},
                    ],
                    "resources": {"limits": {"memory": "1500m"}, "requests": {"cpu": "1500m"}},
                }],
                "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "a"}]}},
            },
        });
        let words = [
            r#"spec.nodeSelector[beta.kubernetes.io/arch]: deprecated since v1.14; use "kubernetes.io/arch" instead"#,
            r#"metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; use the "priorityClassName" field instead"#,
            r#"metadata.annotations[container.seccomp.security.alpha.kubernetes.io/a]: non-functional in v1.27+; use the "seccompProfile" field instead"#,
            "spec.volumes[0].gitRepo: deprecated in v1.11",
            "spec.volumes[1].rbd: deprecated in v1.28, non-functional in v1.31+",
            r#"spec.hostAliases[1].ip: duplicate ip "1.1.1.1""#,
            r#"spec.imagePullSecrets[0].name: invalid empty name """#,
            r#"spec.containers[0].resources.limits[memory]: fractional byte value "1500m" is invalid, must be an integer"#,
            r#"spec.containers[0].env[2]: hides previous definition of "a", which may be dropped when using apply"#,
            "spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]",
            "spec.containers[0].ports[2]: hostIP set without hostPort: {Name:y HostPort:0 ContainerPort:80 Protocol:UDP \
             HostIP:1.2.3.4}",
            "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector: a null \
             labelSelector results in matching no pod",
        ];
        assert_eq!(super::pod(&pod), words);
        let below = template(&json!({"spec": {"template": pod}}), &["spec", "template"]);
        let prefixed = words.map(|text| {
            // The path of the port that was there before is in the middle of its sentence.
            format!("spec.template.{}", text.replace("with spec.", "with spec.template.spec."))
        });
        assert_eq!(below, prefixed);
        assert!(super::pod(&json!({"spec": {"containers": [{"name": "a", "image": "x"}]}})).is_empty());
        for odd in [json!(null), json!([]), json!({"spec": 7}), json!({"spec": {"containers": {"a": 1}}})] {
            assert!(super::pod(&odd).is_empty());
        }
    }

    #[test]
    fn what_a_service_or_ingress_says_in_vain_is_told() {
        let annotated = json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "nginx"}}});
        let words =
            r#"annotation "kubernetes.io/ingress.class" is deprecated, please use 'spec.ingressClassName' instead"#;
        assert_eq!(ingress(&annotated), [words]);
        assert!(ingress(&json!({})).is_empty() && service(&json!({"spec": {}})).is_empty());
        let headless =
            json!({"spec": {"clusterIP": "None", "externalIPs": ["1.1.1.1"], "sessionAffinity": "ClientIP"}});
        let ignored =
            ["spec.externalIPs", "spec.SessionAffinity"].map(|f| format!("{f} is ignored for headless services"));
        assert_eq!(service(&headless), ignored);
        let named = json!({"spec": {"externalName": "a.example", "trafficDistribution": "PreferClose"}});
        assert_eq!(
            service(&named),
            [
                r#"spec.externalName is ignored when spec.type is not "ExternalName""#,
                r#"spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone""#,
            ]
        );
    }

    /// A request may hold as many ports as fit into its body.
    #[test]
    fn equal_ports_are_told_once_each() {
        let ports: Vec<Value> = (0..50_000).map(|n| json!({"containerPort": 80, "hostPort": n % 3})).collect();
        let told = super::pod(&json!({"spec": {"containers": [{"name": "a", "ports": ports}]}}));
        assert_eq!(told.len(), ports.len() - 1, "one for each port but the first");
    }

    /// Ports that collide with nothing are many, too.
    #[test]
    fn different_ports_are_told_in_order() {
        let port = |ip: &str, host: i64| json!({"containerPort": 80, "hostIP": ip, "hostPort": host});
        let told = |ports: &[Value]| super::pod(&json!({"spec": {"containers": [{"name": "a", "ports": ports}]}}));
        let many: Vec<Value> = (0..50_000).map(|n| port(&format!("10.0.{}.{}", n / 250, n % 250), 1 + n)).collect();
        assert!(told(&many).is_empty());
        let path = |n: usize| format!("spec.containers[0].ports[{n}]");
        for (ports, expect) in [
            (vec![port("10.0.0.1", 1), port("", 1)], Some("dangerously ambiguous port definition with")),
            (vec![port("", 1), port("10.0.0.1", 1)], Some("dangerously ambiguous port definition with")),
            (vec![port("10.0.0.1", 1), port("10.0.0.2", 1)], None),
            (vec![port("10.0.0.1", 1), port("10.0.0.1", 1)], Some("duplicate port definition with")),
            (vec![port("10.0.0.1", 1), port("", 0)], Some("overlapping port definition with")),
            (vec![port("", 0), port("10.0.0.1", 1)], Some("overlapping port definition with")),
        ] {
            let expect: Vec<String> = expect.map(|how| format!("{}: {how} {}", path(1), path(0))).into_iter().collect();
            assert_eq!(told(&ports), expect, "{ports:?}");
        }
        // Of several that collide the first by address is told.
        let ports = [port("10.0.0.2", 5), port("10.0.0.1", 5), port("", 5)];
        assert_eq!(told(&ports), [format!("{}: dangerously ambiguous port definition with {}", path(2), path(1))]);
    }
}

//! The status that a new object has: upstream's are structs, so that an object whose status nobody wrote yet has one,
//! with what Go's encoder writes of it.

use serde_json::Value;

/// Lines of a type and its empty status, sorted by type after the comments.
static STATUS: &str = include_str!("status.txt");

/// Gives an object of this type the status of one that is new: all of it, or to what a client said of it only what Go
/// would add.
pub(crate) fn begin(object: &mut Value, definition: &str, keep: bool) {
    let Some(map) = object.as_object_mut() else { return };
    if !keep {
        map.remove("status");
    }
    let zero = super::find(STATUS, definition).and_then(|text| serde_json::from_str(text).ok());
    if let Some(zero) = zero {
        fill(map.entry("status").or_insert(Value::Null), zero);
    }
}

fn fill(into: &mut Value, zero: Value) {
    match (into, zero) {
        (Value::Object(into), Value::Object(zero)) => {
            for (field, value) in zero {
                fill(into.entry(field).or_insert(Value::Null), value);
            }
        }
        (into, zero) if into.is_null() => *into = zero,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use crate::builtin;

    /// Every kind whose status is written through `/status`, and what an object made with a status of the client's has.
    /// Expected values are what upstream's server answers.
    #[test]
    fn new_objects_have_the_status_of_gos_zero_values() {
        let load_balancer = json!({"loadBalancer": {}});
        let local = crate::apiregistration::local_condition(crate::tests::context().now);
        let expected = [
            ("APIService", json!({"conditions": [local]})),
            ("CertificateSigningRequest", json!({})),
            ("CronJob", json!({})),
            (
                "CustomResourceDefinition",
                json!({"acceptedNames": {"kind": "", "plural": ""}, "conditions": null, "storedVersions": null}),
            ),
            (
                "DaemonSet",
                json!({"currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0}),
            ),
            ("Deployment", json!({})),
            ("FlowSchema", json!({})),
            ("HorizontalPodAutoscaler", json!({"currentMetrics": null, "desiredReplicas": 0})),
            ("Ingress", load_balancer.clone()),
            ("Job", json!({})),
            ("Namespace", json!({"phase": "Active"})),
            ("PersistentVolume", json!({"phase": "Pending", "lastPhaseTransitionTime": crate::tests::context().now})),
            ("PersistentVolumeClaim", json!({"phase": "Pending"})),
            ("Pod", json!({"phase": "Pending", "qosClass": "BestEffort"})),
            (
                "PodDisruptionBudget",
                json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0}),
            ),
            ("PriorityLevelConfiguration", json!({})),
            ("ReplicaSet", json!({"replicas": 0})),
            ("ReplicationController", json!({"replicas": 0})),
            ("ResourceClaim", json!({})),
            ("ResourceQuota", json!({})),
            ("Service", load_balancer),
            ("ServiceCIDR", json!({})),
            ("StatefulSet", json!({"availableReplicas": 0, "replicas": 0})),
            ("ValidatingAdmissionPolicy", json!({})),
            ("VolumeAttachment", json!({"attached": false})),
        ];
        let mut seen = 0;
        let scheme = builtin();
        for kind in
            scheme.kinds().filter(|k| k.stored() && k.has_status() && k.conversion.is_none() && k.kind != "Node")
        {
            let Some((_, expect)) = expected.iter().find(|(name, _)| *name == kind.kind) else { panic!("{kind:?}") };
            for sent in [json!(null), json!({"mine": 1})] {
                let mut object = json!({"metadata": {"name": "x"}, "spec": {}, "status": sent});
                kind.prepare_create(&mut object, &crate::tests::context());
                assert_eq!(object["status"], *expect, "{kind:?}");
            }
            seen += 1;
        }
        assert_eq!(seen, expected.len());
    }

    /// A kubelet says what it knows, and another client nothing.
    #[test]
    fn a_node_keeps_the_status_that_it_is_made_with() {
        let nodes = builtin().by_gvk("", "v1", "Node").unwrap();
        let made = |status| {
            let mut node = json!({"metadata": {"name": "x"}, "status": status});
            nodes.prepare_create(&mut node, &crate::tests::context());
            node["status"].take()
        };
        assert_eq!(made(json!(null))["daemonEndpoints"], json!({"kubeletEndpoint": {"Port": 0}}));
        let said = json!({"addresses": [], "nodeInfo": {"osImage": "Debian"},
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}});
        let made = made(said);
        assert_eq!(made["daemonEndpoints"], json!({"kubeletEndpoint": {"Port": 10250}}));
        assert_eq!((&made["nodeInfo"]["osImage"], &made["nodeInfo"]["bootID"]), (&json!("Debian"), &json!("")));
        assert_eq!(made["addresses"], json!([]));
    }
}

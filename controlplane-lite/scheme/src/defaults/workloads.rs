//! apps, batch and autoscaling.

use serde_json::{Value, json};

use super::pod::template;
use crate::access::{at, bool_at, ensure_map, is_empty, list_at_mut, set_default, set_default_str, str_at};

/// Deployment.
pub fn deployment(object: &mut Value) {
    template(object);
    let spec = ensure_map(object, &["spec"]);
    set_default(spec, "replicas", 1);
    set_default(spec, "revisionHistoryLimit", 10);
    set_default(spec, "progressDeadlineSeconds", 600);
    let strategy = ensure_map(object, &["spec", "strategy"]);
    set_default_str(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        let rolling = ensure_map(object, &["spec", "strategy", "rollingUpdate"]);
        set_default(rolling, "maxUnavailable", "25%");
        set_default(rolling, "maxSurge", "25%");
    }
}

/// ReplicaSet.
pub fn replica_set(object: &mut Value) {
    template(object);
    set_default(ensure_map(object, &["spec"]), "replicas", 1);
}

/// ReplicationController: selector and labels come from the template.
pub fn replication_controller(object: &mut Value) {
    template(object);
    let labels = at(object, &["spec", "template", "metadata", "labels"]).clone();
    if !is_empty(&labels) {
        if is_empty(at(object, &["spec", "selector"])) {
            ensure_map(object, &["spec"]).insert("selector".to_owned(), labels.clone());
        }
        if is_empty(at(object, &["metadata", "labels"])) {
            ensure_map(object, &["metadata"]).insert("labels".to_owned(), labels);
        }
    }
    set_default(ensure_map(object, &["spec"]), "replicas", 1);
}

/// DaemonSet.
pub fn daemon_set(object: &mut Value) {
    template(object);
    set_default(ensure_map(object, &["spec"]), "revisionHistoryLimit", 10);
    let strategy = ensure_map(object, &["spec", "updateStrategy"]);
    set_default_str(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        let rolling = ensure_map(object, &["spec", "updateStrategy", "rollingUpdate"]);
        set_default(rolling, "maxUnavailable", 1);
        set_default(rolling, "maxSurge", 0);
    }
}

/// StatefulSet.
pub fn stateful_set(object: &mut Value) {
    template(object);
    let spec = ensure_map(object, &["spec"]);
    set_default_str(spec, "podManagementPolicy", "OrderedReady");
    set_default(spec, "replicas", 1);
    set_default(spec, "revisionHistoryLimit", 10);
    let retention = ensure_map(object, &["spec", "persistentVolumeClaimRetentionPolicy"]);
    set_default_str(retention, "whenDeleted", "Retain");
    set_default_str(retention, "whenScaled", "Retain");
    let strategy = ensure_map(object, &["spec", "updateStrategy"]);
    set_default_str(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        set_default(ensure_map(object, &["spec", "updateStrategy", "rollingUpdate"]), "partition", 0);
    }
    for claim in list_at_mut(object, &["spec", "volumeClaimTemplates"]) {
        super::cluster::persistent_volume_claim(claim);
        let map = ensure_map(claim, &[]);
        set_default_str(map, "apiVersion", "v1");
        set_default_str(map, "kind", "PersistentVolumeClaim");
    }
}

/// Job.
pub fn job(object: &mut Value) {
    template(object);
    let template_labels = at(object, &["spec", "template", "metadata", "labels"]).clone();
    if is_empty(at(object, &["metadata", "labels"])) && !is_empty(&template_labels) {
        ensure_map(object, &["metadata"]).insert("labels".to_owned(), template_labels);
    }
    let failure_policy = !is_empty(at(object, &["spec", "podFailurePolicy"]));
    let spec = ensure_map(object, &["spec"]);
    let unset = |spec: &serde_json::Map<String, Value>, key: &str| spec.get(key).is_none_or(Value::is_null);
    if unset(spec, "completions") && unset(spec, "parallelism") {
        spec.insert("completions".to_owned(), 1.into());
    }
    set_default(spec, "parallelism", 1);
    let backoff = if unset(spec, "backoffLimitPerIndex") { 6 } else { i32::MAX };
    set_default(spec, "backoffLimit", backoff);
    set_default_str(spec, "completionMode", "NonIndexed");
    set_default(spec, "suspend", false);
    set_default(spec, "manualSelector", false);
    set_default_str(spec, "podReplacementPolicy", if failure_policy { "Failed" } else { "TerminatingOrFailed" });
    for rule in list_at_mut(object, &["spec", "podFailurePolicy", "rules"]) {
        for pattern in list_at_mut(rule, &["onPodConditions"]) {
            set_default_str(ensure_map(pattern, &[]), "status", "True");
        }
    }
}

/// Labels and selector that tie a Job's pods to it, made on create from its uid.
pub fn job_selector(object: &mut Value) {
    if bool_at(object, &["spec", "manualSelector"]) {
        return;
    }
    let uid = str_at(object, &["metadata", "uid"]).to_owned();
    let name = str_at(object, &["metadata", "name"]).to_owned();
    let labels = ensure_map(object, &["spec", "template", "metadata", "labels"]);
    for (key, value) in [
        ("batch.kubernetes.io/job-name", &name),
        ("job-name", &name),
        ("batch.kubernetes.io/controller-uid", &uid),
        ("controller-uid", &uid),
    ] {
        labels.insert(key.to_owned(), value.clone().into());
    }
    let selector = ensure_map(object, &["spec", "selector", "matchLabels"]);
    selector.insert("batch.kubernetes.io/controller-uid".to_owned(), uid.into());
}

/// CronJob.
pub fn cron_job(object: &mut Value) {
    if let Some(pod) = object.pointer_mut("/spec/jobTemplate/spec/template/spec") {
        super::pod::pod_spec(pod);
    }
    let spec = ensure_map(object, &["spec"]);
    set_default_str(spec, "concurrencyPolicy", "Allow");
    set_default(spec, "suspend", false);
    set_default(spec, "successfulJobsHistoryLimit", 3);
    set_default(spec, "failedJobsHistoryLimit", 1);
}

/// HorizontalPodAutoscaler (v2).
pub fn horizontal_pod_autoscaler(object: &mut Value) {
    let spec = ensure_map(object, &["spec"]);
    set_default(spec, "minReplicas", 1);
    if spec.get("metrics").is_none_or(is_empty) {
        let metric = json!([{"type": "Resource", "resource": {
            "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]);
        spec.insert("metrics".to_owned(), metric);
    }
    for (direction, select, policies) in [
        (
            "scaleUp",
            "Max",
            json!([{"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]),
        ),
        ("scaleDown", "Max", json!([{"type": "Percent", "value": 100, "periodSeconds": 15}])),
    ] {
        if let Some(rules) = object.pointer_mut(&format!("/spec/behavior/{direction}")).and_then(Value::as_object_mut) {
            set_default_str(rules, "selectPolicy", select);
            set_default(rules, "policies", policies);
            if direction == "scaleUp" {
                set_default(rules, "stabilizationWindowSeconds", 0);
            }
        }
    }
}

/// HorizontalPodAutoscaler (v1).
pub fn horizontal_pod_autoscaler_v1(object: &mut Value) {
    let others = !is_empty(&at(object, &["metadata", "annotations"])["autoscaling.alpha.kubernetes.io/metrics"]);
    let spec = ensure_map(object, &["spec"]);
    set_default(spec, "minReplicas", 1);
    if !others {
        set_default(spec, "targetCPUUtilizationPercentage", 80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deployments() {
        let mut object = json!({"spec": {"template": {"spec": {"containers": []}}}});
        deployment(&mut object);
        assert_eq!(object["spec"]["replicas"], 1);
        assert_eq!(object["spec"]["strategy"]["rollingUpdate"], json!({"maxSurge": "25%", "maxUnavailable": "25%"}));
        assert_eq!(object["spec"]["template"]["spec"]["restartPolicy"], "Always");
        let mut object = json!({"spec": {"strategy": {"type": "Recreate"}}});
        deployment(&mut object);
        assert_eq!(object["spec"]["strategy"], json!({"type": "Recreate"}));
    }

    #[test]
    fn jobs_get_a_selector_from_their_uid() {
        let mut object = json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": {"spec": {}}}});
        job(&mut object);
        job_selector(&mut object);
        assert_eq!(object["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"], "u");
        assert_eq!(object["spec"]["template"]["metadata"]["labels"]["job-name"], "j");
        assert_eq!((&object["spec"]["completions"], &object["spec"]["backoffLimit"]), (&json!(1), &json!(6)));
    }
}

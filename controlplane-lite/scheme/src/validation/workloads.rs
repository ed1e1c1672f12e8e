//! apps, batch and autoscaling.

use std::collections::HashSet;

use serde_json::Value;

use super::{immutable, int_or_percent, non_negative, one_of, pod, scaled};
use crate::access::{at, bool_at, int_at, is_empty, list_at, str_at};
use crate::field::{FieldErrors, Path};
use crate::selector::{self, LabelSelector};

const SPEC: Path<'static> = Path::new("spec");

/// A selector that must be there, select something and match the template's labels.
fn selector_and_template(object: &Value, kind: &str, errors: &mut FieldErrors) {
    let value = at(object, &["spec", "selector"]);
    let path = SPEC.child("selector");
    if value.is_null() {
        errors.required(&path, "");
    } else {
        selector::validate_object(value, &path, errors);
        let parsed = LabelSelector::from_object(value);
        if parsed.as_ref().is_ok_and(LabelSelector::is_everything) {
            errors.invalid(&path, value, format!("empty selector is invalid for {kind}"));
        }
        match parsed {
            Err(_) => errors.invalid(&path, value, "invalid label selector"),
            Ok(parsed) => {
                let template = at(object, &["spec", "template"]);
                if !parsed.is_everything() && !parsed.matches_object(template) {
                    let spec = SPEC.child("template");
                    let metadata = spec.child("metadata");
                    errors.invalid(
                        &metadata.child("labels"),
                        at(template, &["metadata", "labels"]),
                        "`selector` does not match template `labels`",
                    );
                }
            }
        }
    }
    pod::template(at(object, &["spec", "template"]), &SPEC.child("template"), errors);
}

/// Templates of controllers that keep pods running allow no other restart policy.
fn always_restarts(object: &Value, errors: &mut FieldErrors) {
    let template = SPEC.child("template");
    let spec = template.child("spec");
    let policy = str_at(object, &["spec", "template", "spec", "restartPolicy"]);
    if policy != "Always" && !policy.is_empty() {
        errors.not_supported(&spec.child("restartPolicy"), policy, &["Always"]);
    }
    if int_at(object, &["spec", "template", "spec", "activeDeadlineSeconds"]).is_some() {
        errors.forbidden(&spec.child("activeDeadlineSeconds"), "activeDeadlineSeconds in ReplicaSet is not Supported");
    }
}

/// Deployment.
pub fn deployment(object: &Value, errors: &mut FieldErrors) {
    let spec = at(object, &["spec"]);
    non_negative(spec, "replicas", &SPEC, errors);
    selector_and_template(object, "deployment", errors);
    always_restarts(object, errors);
    let strategy = at(spec, &["strategy"]);
    let path = SPEC.child("strategy");
    one_of(strategy, "type", &["Recreate", "RollingUpdate"], true, &path, errors);
    let rolling = at(strategy, &["rollingUpdate"]);
    match str_at(strategy, &["type"]) {
        "Recreate" if !rolling.is_null() => {
            errors.forbidden(&path.child("rollingUpdate"), "may not be specified when strategy `type` is 'Recreate'");
        }
        "RollingUpdate" if rolling.is_null() => {
            errors.required(&path.child("rollingUpdate"), "this should be defaulted and never be nil");
        }
        "RollingUpdate" => rolling_update(rolling, "maxSurge", &path.child("rollingUpdate"), errors),
        _ => {}
    }
    for key in ["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        non_negative(spec, key, &SPEC, errors);
    }
    if let Some(deadline) = int_at(spec, &["progressDeadlineSeconds"])
        && deadline <= int_at(spec, &["minReadySeconds"]).unwrap_or(0)
    {
        errors.invalid(&SPEC.child("progressDeadlineSeconds"), deadline, "must be greater than minReadySeconds");
    }
}

fn rolling_update(rolling: &Value, surge: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    for key in ["maxUnavailable", surge] {
        int_or_percent(at(rolling, &[key]), &path.child(key), errors);
    }
    let unavailable = at(rolling, &["maxUnavailable"]);
    if scaled(unavailable) == 0 && scaled(at(rolling, &[surge])) == 0 {
        errors.invalid(&path.child("maxUnavailable"), unavailable, format!("may not be 0 when `{surge}` is 0"));
    }
    if unavailable.is_string() && scaled(unavailable) > 100 {
        errors.invalid(&path.child("maxUnavailable"), unavailable, "must not be greater than 100%");
    }
}

/// The selector of a workload never changes.
pub fn selector_immutable(new: &Value, old: &Value, errors: &mut FieldErrors) {
    immutable(at(new, &["spec", "selector"]), at(old, &["spec", "selector"]), &SPEC.child("selector"), errors);
}

/// ReplicaSet.
pub fn replica_set(object: &Value, errors: &mut FieldErrors) {
    let spec = at(object, &["spec"]);
    non_negative(spec, "replicas", &SPEC, errors);
    non_negative(spec, "minReadySeconds", &SPEC, errors);
    selector_and_template(object, "replicaset", errors);
    always_restarts(object, errors);
}

/// ReplicationController: a plain map selects.
pub fn replication_controller(object: &Value, errors: &mut FieldErrors) {
    let spec = at(object, &["spec"]);
    non_negative(spec, "replicas", &SPEC, errors);
    non_negative(spec, "minReadySeconds", &SPEC, errors);
    let selector = at(spec, &["selector"]);
    if is_empty(selector) {
        errors.required(&SPEC.child("selector"), "");
    } else if at(spec, &["template"]).is_null() {
        errors.required(&SPEC.child("template"), "");
    } else if !LabelSelector::from_map(selector).matches_object(at(spec, &["template"])) {
        let template = SPEC.child("template");
        let metadata = template.child("metadata");
        errors.invalid(
            &metadata.child("labels"),
            at(spec, &["template", "metadata", "labels"]),
            "`selector` does not match template `labels`",
        );
    }
    pod::template(at(spec, &["template"]), &SPEC.child("template"), errors);
    always_restarts(object, errors);
}

/// DaemonSet.
pub fn daemon_set(object: &Value, errors: &mut FieldErrors) {
    let spec = at(object, &["spec"]);
    selector_and_template(object, "daemonset", errors);
    always_restarts(object, errors);
    for key in ["minReadySeconds", "revisionHistoryLimit"] {
        non_negative(spec, key, &SPEC, errors);
    }
    let path = SPEC.child("updateStrategy");
    let strategy = at(spec, &["updateStrategy"]);
    one_of(strategy, "type", &["OnDelete", "RollingUpdate"], true, &path, errors);
    let rolling = at(strategy, &["rollingUpdate"]);
    if str_at(strategy, &["type"]) == "RollingUpdate" && !rolling.is_null() {
        let path = path.child("rollingUpdate");
        rolling_update(rolling, "maxSurge", &path, errors);
        if scaled(at(rolling, &["maxUnavailable"])) > 0 && scaled(at(rolling, &["maxSurge"])) > 0 {
            errors.invalid(
                &path.child("maxSurge"),
                at(rolling, &["maxSurge"]),
                "may not be set when maxUnavailable is non-zero",
            );
        }
    }
}

/// StatefulSet.
pub fn stateful_set(object: &Value, errors: &mut FieldErrors) {
    let spec = at(object, &["spec"]);
    for key in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        non_negative(spec, key, &SPEC, errors);
    }
    one_of(spec, "podManagementPolicy", &["OrderedReady", "Parallel"], true, &SPEC, errors);
    let strategy = at(spec, &["updateStrategy"]);
    one_of(strategy, "type", &["OnDelete", "RollingUpdate"], true, &SPEC.child("updateStrategy"), errors);
    if str_at(strategy, &["type"]) == "OnDelete" && !at(strategy, &["rollingUpdate"]).is_null() {
        errors.invalid(
            &SPEC.child("updateStrategy").child("rollingUpdate"),
            at(strategy, &["rollingUpdate"]),
            "only allowed for updateStrategy 'RollingUpdate'",
        );
    }
    let update = SPEC.child("updateStrategy");
    non_negative(at(strategy, &["rollingUpdate"]), "partition", &update.child("rollingUpdate"), errors);
    let retention = SPEC.child("persistentVolumeClaimRetentionPolicy");
    for key in ["whenDeleted", "whenScaled"] {
        let policy = at(spec, &["persistentVolumeClaimRetentionPolicy"]);
        one_of(policy, key, &["Delete", "Retain"], false, &retention, errors);
    }
    // Mounts may refer to claim templates: they count as volumes.
    let mut with_claims = object.clone();
    let claims: Vec<Value> = list_at(spec, &["volumeClaimTemplates"])
        .iter()
        .map(|c| str_at(c, &["metadata", "name"]))
        .map(|name| serde_json::json!({"name": name, "persistentVolumeClaim": {"claimName": name}}))
        .collect();
    if !claims.is_empty()
        && let Some(pod) = with_claims.pointer_mut("/spec/template/spec").and_then(Value::as_object_mut)
    {
        let volumes = pod.entry("volumes").or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(list) = volumes {
            let claimed: HashSet<&str> = claims.iter().map(|c| str_at(c, &["name"])).collect();
            list.retain(|v| !claimed.contains(str_at(v, &["name"])));
            list.extend(claims);
        }
    }
    selector_and_template(&with_claims, "statefulset", errors);
    always_restarts(object, errors);
}

/// StatefulSets change only in these ways.
pub fn stateful_set_update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    const ALLOWED: [&str; 8] = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
        "status",
    ];
    let rest = |object: &Value| {
        let mut spec = at(object, &["spec"]).clone();
        if let Some(map) = spec.as_object_mut() {
            map.retain(|key, _| !ALLOWED.contains(&key.as_str()));
        }
        spec
    };
    if rest(new) != rest(old) {
        errors.forbidden(
            &SPEC,
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        );
    }
}

/// ControllerRevision: data is there.
pub fn controller_revision(object: &Value, errors: &mut FieldErrors) {
    if at(object, &["data"]).is_null() {
        errors.required(&Path::new("data"), "data is mandatory");
    }
    non_negative(object, "revision", &Path::ROOT, errors);
}

/// ControllerRevision: data never changes.
pub fn controller_revision_update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    immutable(at(new, &["data"]), at(old, &["data"]), &Path::new("data"), errors);
}

/// PodTemplate.
pub fn pod_template(object: &Value, errors: &mut FieldErrors) {
    pod::template(at(object, &["template"]), &Path::new("template"), errors);
}

/// Job.
pub fn job(object: &Value, errors: &mut FieldErrors) {
    let selector = at(object, &["spec", "selector"]);
    if selector.is_null() {
        errors.required(&SPEC.child("selector"), "");
    } else if LabelSelector::from_object(selector).is_ok_and(|s| !s.matches_object(at(object, &["spec", "template"]))) {
        let template = SPEC.child("template");
        let metadata = template.child("metadata");
        errors.invalid(
            &metadata.child("labels"),
            at(object, &["spec", "template", "metadata", "labels"]),
            "`selector` does not match template `labels`",
        );
    }
    job_spec(at(object, &["spec"]), &SPEC, errors);
}

fn job_spec(spec: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    for key in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
        "ttlSecondsAfterFinished",
    ] {
        non_negative(spec, key, path, errors);
    }
    one_of(spec, "completionMode", &["Indexed", "NonIndexed"], false, path, errors);
    if str_at(spec, &["completionMode"]) == "Indexed" && int_at(spec, &["completions"]).is_none() {
        errors.required(&path.child("completions"), "when completion mode is Indexed");
    }
    let template = path.child("template");
    pod::template(at(spec, &["template"]), &template, errors);
    let policy = str_at(spec, &["template", "spec", "restartPolicy"]);
    if policy == "Always" {
        let pod = template.child("spec");
        errors.invalid_restart(&pod.child("restartPolicy"), policy);
    }
}

impl FieldErrors {
    /// Jobs' pods end: `Always` is not among the supported policies.
    fn invalid_restart(&mut self, path: &Path<'_>, policy: &str) {
        self.not_supported(path, policy, &["OnFailure", "Never"]);
    }
}

/// Jobs: selector, completions (mostly) and template never change while the job runs.
pub fn job_update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    selector_immutable(new, old, errors);
    let indexed = str_at(new, &["spec", "completionMode"]) == "Indexed";
    if !indexed {
        immutable(
            at(new, &["spec", "completions"]),
            at(old, &["spec", "completions"]),
            &SPEC.child("completions"),
            errors,
        );
    }
    for key in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy"] {
        immutable(at(new, &["spec", key]), at(old, &["spec", key]), &SPEC.child(key), errors);
    }
    // A suspended job that never started may change where its pods go.
    let movable = bool_at(old, &["spec", "suspend"]) && at(old, &["status", "startTime"]).is_null();
    if !movable {
        immutable(at(new, &["spec", "template"]), at(old, &["spec", "template"]), &SPEC.child("template"), errors);
    }
}

/// CronJob.
pub fn cron_job(object: &Value, errors: &mut FieldErrors) {
    let spec = at(object, &["spec"]);
    let schedule = str_at(spec, &["schedule"]);
    if schedule.is_empty() {
        errors.required(&SPEC.child("schedule"), "");
    } else if schedule.contains("TZ") {
        errors.invalid(
            &SPEC.child("schedule"),
            schedule,
            "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
        );
    } else if let Some(problem) = cron_problem(schedule) {
        errors.invalid(&SPEC.child("schedule"), schedule, problem);
    }
    for key in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        non_negative(spec, key, &SPEC, errors);
    }
    one_of(spec, "concurrencyPolicy", &["Allow", "Forbid", "Replace"], true, &SPEC, errors);
    let template = SPEC.child("jobTemplate");
    job_spec(at(spec, &["jobTemplate", "spec"]), &template.child("spec"), errors);
    let name = str_at(object, &["metadata", "name"]);
    if name.len() > 52 {
        errors.invalid(&Path::new("metadata").child("name"), name, "must be no more than 52 characters");
    }
}

/// Why a schedule is no cron line of five fields; ranges are checked, names of months and days accepted.
fn cron_problem(schedule: &str) -> Option<String> {
    if let Some(word) = schedule.strip_prefix('@') {
        let known = matches!(word, "yearly" | "annually" | "monthly" | "weekly" | "daily" | "midnight" | "hourly")
            || word.starts_with("every ");
        return (!known).then(|| format!("unrecognized descriptor: {schedule}"));
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != 5 {
        return Some(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    let bounds = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)];
    for (field, (low, high)) in fields.iter().zip(bounds) {
        for part in field.split(',') {
            let (range, step) = part.split_once('/').unwrap_or((part, "1"));
            if step.parse::<u32>().is_err() {
                return Some(format!("failed to parse int from {step}"));
            }
            if matches!(range, "*" | "?") {
                continue;
            }
            for end in range.splitn(2, '-') {
                let name = end.len() == 3 && end.bytes().all(|b| b.is_ascii_alphabetic());
                match end.parse::<i32>() {
                    Ok(number) if (low..=high).contains(&number) => {}
                    Ok(number) if number > high => {
                        return Some(format!("end of range ({number}) above maximum ({high}): {part}"));
                    }
                    Ok(number) => return Some(format!("beginning of range ({number}) below minimum ({low}): {part}")),
                    Err(_) if name && high <= 12 => {}
                    Err(_) => return Some(format!("failed to parse int from {end}")),
                }
            }
        }
    }
    None
}

/// HorizontalPodAutoscaler.
pub fn autoscaler(object: &Value, errors: &mut FieldErrors) {
    let spec = at(object, &["spec"]);
    let min = int_at(spec, &["minReplicas"]).unwrap_or(1);
    let max = int_at(spec, &["maxReplicas"]).unwrap_or(0);
    if min < 1 {
        errors.invalid(&SPEC.child("minReplicas"), min, "must be greater than or equal to 1");
    }
    if max < 1 {
        errors.invalid(&SPEC.child("maxReplicas"), max, "must be greater than 0");
    } else if max < min {
        errors.invalid(&SPEC.child("maxReplicas"), max, "must be greater than or equal to `minReplicas`");
    }
    let path = SPEC.child("scaleTargetRef");
    for key in ["kind", "name"] {
        if str_at(spec, &["scaleTargetRef", key]).is_empty() {
            errors.required(&path.child(key), "");
        }
    }
}

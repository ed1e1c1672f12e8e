//! What upstream warns of when an object is written, although it is accepted. Pure.

use serde_json::Value;

use crate::access::{at, int_at};
use crate::field::Path;
use crate::kind::Kind;

/// Warnings about an object as the client sent it.
#[must_use]
pub fn warnings(kind: &Kind, object: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    let spec = Path::new("spec");
    let template = spec.child("template");
    let template_spec = template.child("spec");
    match (kind.group, kind.kind) {
        ("", "Pod") => pod_spec(at(object, &["spec"]), &spec, &mut warnings),
        ("apps", "DaemonSet" | "Deployment" | "ReplicaSet" | "StatefulSet")
        | ("batch", "Job")
        | ("", "ReplicationController") => {
            pod_spec(at(object, &["spec", "template", "spec"]), &template_spec, &mut warnings);
        }
        ("batch", "CronJob") => {
            let job = spec.child("jobTemplate");
            let (job_spec, pod) = (job.child("spec"), ["spec", "jobTemplate", "spec", "template", "spec"]);
            let template = job_spec.child("template");
            pod_spec(at(object, &pod), &template.child("spec"), &mut warnings);
        }
        ("", "PodTemplate") => {
            let template = Path::new("template");
            pod_spec(at(object, &["template", "spec"]), &template.child("spec"), &mut warnings);
        }
        _ => {}
    }
    warnings
}

fn pod_spec(spec: &Value, path: &Path<'_>, warnings: &mut Vec<String>) {
    if int_at(spec, &["terminationGracePeriodSeconds"]).is_some_and(|seconds| seconds < 0) {
        let path = path.child("terminationGracePeriodSeconds");
        warnings.push(format!("{path}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
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
            assert_eq!(warnings(kind, &object), [format!("{}.{words}", path.join("."))]);
            let mut defaulted = object.clone();
            kind.default(&mut defaulted);
            let path: Vec<&str> = path.iter().copied().chain(["terminationGracePeriodSeconds"]).collect();
            assert_eq!(at(&defaulted, &path), 1);
            assert!(warnings(kind, &defaulted).is_empty());
        }
    }
}

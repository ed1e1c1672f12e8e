//! What upstream warns of when an object is written, although it is accepted. Pure.

use serde_json::Value;

use crate::access::{at, int_at};

/// Warnings about a Pod.
pub(crate) fn pod(object: &Value) -> Vec<String> {
    pod_spec(object, &["spec"])
}

/// Warnings about the pod template at `path`.
pub(crate) fn template(object: &Value, path: &[&str]) -> Vec<String> {
    let spec: Vec<&str> = path.iter().copied().chain(["spec"]).collect();
    pod_spec(object, &spec)
}

fn pod_spec(object: &Value, path: &[&str]) -> Vec<String> {
    let mut warnings = Vec::new();
    if int_at(at(object, path), &["terminationGracePeriodSeconds"]).is_some_and(|seconds| seconds < 0) {
        warnings.push(format!(
            "{}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
            path.join(".")
        ));
    }
    warnings
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
}

//! What the `resize` subresource of a pod may change: CPU and memory of containers that run along, in place, without
//! another class of service.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::{annotations, pod};
use crate::access::{at, entries_at, is_empty, list_at, str_at};
use crate::defaults::pod::qos_class;
use crate::field::{FieldErrors, Path};

/// Everything wrong with a resize.
pub fn pod_resize(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let spec = Path::new("spec");
    if at(old, &["metadata", "annotations"]).get(annotations::MIRROR).is_some() {
        return errors.forbidden(&Path::ROOT, "static pods may not be resized");
    }
    pod::pod(new, errors);
    for list in ["containers", "initContainers"] {
        let path = spec.child(list);
        let before = list_at(old, &["spec", list]).iter();
        let before: HashMap<&str, &Value> = before.map(|c| (str_at(c, &["name"]), c)).collect();
        for (i, container) in list_at(new, &["spec", list]).iter().enumerate() {
            let old = before.get(str_at(container, &["name"])).copied();
            container_resize(list, container, old.unwrap_or(&Value::Null), &path.index(i), errors);
        }
    }
    let (was, is) = (qos_class(at(old, &["spec"])), qos_class(at(new, &["spec"])));
    if was != is {
        errors.invalid(&spec, is, "Pod QOS Class may not change as a result of resizing");
    }
}

fn container_resize(list: &str, new: &Value, old: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let same = |a: &Value, b: &Value| a == b || is_empty(a) && is_empty(b);
    for place in [&["resizePolicy"][..], &["resources", "claims"]] {
        if !same(at(new, place), at(old, place)) {
            errors.forbidden(&Path::new("spec"), "only cpu and memory resources are mutable");
        }
    }
    let (now, before) = (at(new, &["resources"]), at(old, &["resources"]));
    if now == before {
        return;
    }
    let path = path.child("resources");
    if list == "initContainers" && str_at(old, &["restartPolicy"]) != "Always" {
        return errors.forbidden(&path, "resources for non-sidecar init containers are immutable");
    }
    for kind in ["limits", "requests"] {
        let path = path.child(kind);
        for (name, quantity) in entries_at(before, &[kind]) {
            let after = at(now, &[kind, name]);
            let resizable = matches!(name.as_str(), "cpu" | "memory");
            if after.is_null() {
                errors.forbidden(&path.key(name), format!("resource {kind} cannot be removed"));
            } else if !resizable && after != quantity {
                errors.forbidden(&path.key(name), "only cpu and memory resources are mutable");
            }
        }
        for (name, _) in entries_at(now, &[kind]) {
            let resizable = matches!(name.as_str(), "cpu" | "memory");
            if !resizable && at(before, &[kind, name]).is_null() {
                errors.forbidden(&path.key(name), "only cpu and memory resources are mutable");
            }
        }
    }
}

/// What a container asks to happen when its resources change.
pub(super) fn policies(item: &Value, pod_restart_policy: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    const RESOURCES: [&str; 2] = ["cpu", "memory"];
    const POLICIES: [&str; 2] = ["NotRequired", "RestartContainer"];
    let mut seen = HashSet::new();
    for (i, policy) in list_at(item, &["resizePolicy"]).iter().enumerate() {
        let (resource, restart) = (str_at(policy, &["resourceName"]), str_at(policy, &["restartPolicy"]));
        if !seen.insert(resource) {
            errors.duplicate(&path.index(i), resource);
        }
        for (value, known) in [(resource, RESOURCES), (restart, POLICIES)] {
            if value.is_empty() {
                errors.required(path, "");
            } else if !known.contains(&value) {
                errors.not_supported(path, value, &known);
            }
        }
        if pod_restart_policy == "Never" && restart != "NotRequired" {
            errors.invalid(path, restart, "must be 'NotRequired' when `restartPolicy` is 'Never'");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn pod(resources: Value) -> Value {
        let mut pod = json!({"spec": {
            "containers": [{"name": "a", "image": "i", "resources": resources}],
            "initContainers": [{"name": "i", "image": "i"}, {"name": "s", "image": "i", "restartPolicy": "Always"}]}});
        crate::defaults::pod::pod(&mut pod);
        pod
    }

    #[test]
    fn resizes_are_checked() {
        let burstable = json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2"}});
        for (from, to, expect) in [
            (burstable.clone(), burstable.clone(), ""),
            (burstable.clone(), json!({"requests": {"cpu": "2", "memory": "2Gi"}, "limits": {"cpu": "3"}}), ""),
            (
                burstable.clone(),
                json!({"requests": {"cpu": "3", "memory": "1Gi"}, "limits": {"cpu": "2"}}),
                "spec.containers[0].resources.requests: Invalid value: \"3\": must be less than or equal to cpu limit of 2",
            ),
            (
                burstable.clone(),
                json!({"requests": {"cpu": "-1", "memory": "1Gi"}, "limits": {"cpu": "2"}}),
                "spec.containers[0].resources.requests[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
            ),
            (
                burstable.clone(),
                json!({"requests": {"cpu": "1", "memory": "1Gi"}}),
                "spec.containers[0].resources.limits[cpu]: Forbidden: resource limits cannot be removed",
            ),
            (
                burstable.clone(),
                json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2", "ephemeral-storage": "1Gi"}}),
                "spec.containers[0].resources.limits[ephemeral-storage]: Forbidden: only cpu and memory resources are mutable\n\
                 spec.containers[0].resources.requests[ephemeral-storage]: Forbidden: only cpu and memory resources are \
                 mutable",
            ),
            (
                json!({}),
                json!({"requests": {"cpu": "1"}}),
                "spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing",
            ),
            (
                burstable.clone(),
                json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2"}, "claims": [{"name": "x"}]}),
                "spec.containers[0].resources.claims[0]: Not found: \"x\"\n\
                 spec: Forbidden: only cpu and memory resources are mutable",
            ),
        ] {
            let mut errors = FieldErrors::new();
            pod_resize(&pod(to.clone()), &pod(from), &mut errors);
            let texts: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
            assert_eq!(texts.join("\n"), expect, "{to}");
        }
    }

    #[test]
    fn policies_are_known_and_stay() {
        let mut old = pod(json!({"requests": {"cpu": "1"}}));
        let policy = |resource: &str, restart: &str| json!([{"resourceName": resource, "restartPolicy": restart}]);
        let known = policy("cpu", "NotRequired");
        let mut errors = FieldErrors::new();
        policies(&json!({"resizePolicy": known}), "Always", &Path::new("p"), &mut errors);
        assert!(errors.is_empty(), "{errors:?}");
        old["spec"]["containers"][0]["resizePolicy"] = known;
        for (changed, expect) in [
            (
                policy("../x", "zz"),
                "spec.containers[0].resizePolicy: Unsupported value: \"../x\": supported values: \"cpu\", \"memory\"\n\
                 spec.containers[0].resizePolicy: Unsupported value: \"zz\": supported values: \"NotRequired\", \
                 \"RestartContainer\"\n\
                 spec: Forbidden: only cpu and memory resources are mutable",
            ),
            (policy("memory", "NotRequired"), "spec: Forbidden: only cpu and memory resources are mutable"),
        ] {
            let mut new = old.clone();
            new["spec"]["containers"][0]["resizePolicy"] = changed;
            let mut errors = FieldErrors::new();
            pod_resize(&new, &old, &mut errors);
            let texts: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
            assert_eq!(texts.join("\n"), expect);
        }
    }

    #[test]
    fn only_what_runs_along_is_resized() {
        let mut old = pod(json!({"requests": {"cpu": "1"}}));
        let mut new = old.clone();
        new["spec"]["initContainers"][1]["resources"] = json!({"requests": {"cpu": "1"}});
        let mut errors = FieldErrors::new();
        pod_resize(&new, &old, &mut errors);
        assert!(errors.is_empty(), "{errors:?}");
        new["spec"]["initContainers"][0]["resources"] = json!({"requests": {"cpu": "1"}});
        pod_resize(&new, &old, &mut errors);
        assert_eq!(errors.0.len(), 1);
        old["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
        let mut errors = FieldErrors::new();
        pod_resize(&old, &old, &mut errors);
        assert_eq!(errors.0[0].detail, "static pods may not be resized");
    }
}

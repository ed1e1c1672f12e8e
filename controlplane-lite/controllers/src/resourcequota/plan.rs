//! What a quota needs to know and what its status will say. Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use quota::{Amounts, Evaluator, Quota};
use serde_json::Value;

/// Group and plural of a resource.
pub type Resource = (String, String);

/// How a count is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Count {
    /// As it is.
    Exact,
    /// What admission has charged may not be there yet: the status goes down by what was freed alone, and never below
    /// what is there.
    AtLeast {
        /// By what changed or went since the last count.
        freed: Amounts,
    },
}

/// The resources that a quota counts.
pub fn resources(quota: &Quota) -> BTreeSet<Resource> {
    let named = quota.wanted.keys().filter_map(|name| Evaluator::resource(name));
    named.map(|(group, plural)| (group.to_owned(), plural.to_owned())).collect()
}

/// The status to write, if it is another one.
pub fn next_status(quota: &Quota, mut counted: Amounts, count: &Count) -> Option<Value> {
    if let Count::AtLeast { freed } = count {
        for (name, now) in &mut counted {
            let charged = quota.used.get(name).copied().unwrap_or(*now);
            let left = freed.get(name).map_or(charged, |freed| charged - *freed);
            *now = left.max(*now);
        }
    }
    quota.next_status(&counted)
}

/// Whether a pod uses something else than before: it has ended, is going to, or is resized.
pub fn changed(old: &Pod, new: &Pod) -> bool {
    fn given(pod: &Pod) -> Vec<(&str, Option<String>)> {
        let status = pod.status.iter();
        let all = status.flat_map(|status| [&status.container_statuses, &status.init_container_statuses]);
        let given = |status: &ContainerStatus| {
            let resources = (&status.resources, &status.allocated_resources);
            (resources.0.is_some() || resources.1.is_some()).then(|| format!("{resources:?}"))
        };
        all.flatten().flatten().map(|status| (status.name.as_str(), given(status))).collect()
    }
    let phase = |pod: &Pod| client::objects::terminated(pod);
    phase(old) != phase(new)
        || old.metadata.deletion_timestamp != new.metadata.deletion_timestamp
        || old.spec != new.spec
        || given(old) != given(new)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{from_value, json};

    #[test]
    fn a_quota_needs_the_resources_it_names() {
        let hard = json!({"pods": "1", "cpu": "1", "secrets": "1", "count/jobs.batch": "1", "unknown": "1"});
        let found = resources(&Quota::read(&json!({"spec": {"hard": hard}})));
        let found: Vec<_> = found.iter().map(|(group, plural)| (group.as_str(), plural.as_str())).collect();
        assert_eq!(found, [("", "pods"), ("", "secrets"), ("batch", "jobs")]);
    }

    #[test]
    fn a_count_that_may_be_behind_gives_back_what_went_alone() {
        let quota = Quota::read(&json!({"spec": {"hard": {"pods": "5", "secrets": "5"}},
            "status": {"hard": {"pods": "5", "secrets": "5"}, "used": {"pods": "3", "secrets": "1"}}}));
        let used = |counted: Value, count: Count| {
            next_status(&quota, quota::read(&counted), &count).map(|status| status["used"].clone())
        };
        let at_least = |freed: Value| Count::AtLeast { freed: quota::read(&freed) };
        let counted = json!({"pods": "1", "secrets": "2"});
        assert_eq!(used(counted.clone(), Count::Exact), Some(json!({"pods": "1", "secrets": "2"})));
        // Of three pods that were charged one went, and one is not there yet.
        let one = at_least(json!({"pods": "1"}));
        assert_eq!(used(counted.clone(), one.clone()), Some(json!({"pods": "2", "secrets": "2"})));
        assert_eq!(used(counted, at_least(json!({}))), Some(json!({"pods": "3", "secrets": "2"})));
        assert_eq!(used(json!({"pods": "3"}), one), None, "a cache that still shows it");
    }

    #[test]
    fn only_some_changes_of_a_pod_matter() {
        let pod = |value: Value| from_value::<Pod>(value).unwrap();
        let running = json!({"spec": {"containers": [{"name": "c"}]}, "status": {"phase": "Running"}});
        let with = |path: &str, value: Value| {
            let mut pod = running.clone();
            let (parent, key) = path.rsplit_once('/').unwrap();
            pod.pointer_mut(parent).unwrap()[key] = value;
            pod
        };
        for (new, expect) in [
            (running.clone(), false),
            (with("/status/podIP", json!("10.0.0.1")), false),
            (with("/status/phase", json!("Pending")), false),
            (with("/status/phase", json!("Succeeded")), true),
            (with("/spec/activeDeadlineSeconds", json!(3)), true),
            (
                with(
                    "/status/containerStatuses",
                    json!([{"name": "c", "ready": true, "restartCount": 0, "image": "i",
                "imageID": "", "allocatedResources": {"cpu": "1"}}]),
                ),
                true,
            ),
        ] {
            assert_eq!(changed(&pod(running.clone()), &pod(new.clone())), expect, "{new}");
        }
    }
}

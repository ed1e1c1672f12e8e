//! What a pod asks for: the sum over its containers, as the life of a pod needs it
//! (`k8s.io/component-helpers/resource/helpers.go`).

use serde_json::Value;

use crate::amounts::{Amounts, add, at_least, read};

/// Requests and limits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// What it asks for.
    pub requests: Amounts,
    /// What it may use at most.
    pub limits: Amounts,
}

/// What the pod's spec asks for, without overhead.
#[must_use]
pub fn asked(pod: &Value) -> Asked {
    total(pod, &|container| Asked::of(&container["resources"]))
}

/// What the pod counts with: its spec and, while it is resized, what its node still gives it; with overhead.
#[must_use]
pub fn in_effect(pod: &Value) -> Asked {
    let infeasible = list(&pod["status"]["conditions"])
        .iter()
        .find(|condition| condition["type"] == "PodResizePending")
        .is_some_and(|condition| condition["reason"] == "Infeasible");
    let mut total = total(pod, &|container| {
        let spec = Asked::of(&container["resources"]);
        let status = status_of(pod, container).filter(|status| status["resources"].is_object());
        let Some(status) = status else { return spec };
        let mut asked = if infeasible { Asked::default() } else { spec };
        let actual = Asked::of(&status["resources"]);
        at_least(&mut asked.requests, &actual.requests);
        at_least(&mut asked.requests, &read(&status["allocatedResources"]));
        at_least(&mut asked.limits, &actual.limits);
        asked
    });
    let overhead = read(&pod["spec"]["overhead"]);
    add(&mut total.requests, &overhead);
    for (name, quantity) in &overhead {
        if let Some(limit) = total.limits.get_mut(name).filter(|limit| !limit.is_zero()) {
            *limit = *limit + *quantity;
        }
    }
    total
}

/// Whether requests and limits are set for the pod as a whole.
pub(crate) fn has_own(pod: &Value) -> bool {
    let own = Asked::of(&pod["spec"]["resources"]);
    own.requests.keys().chain(own.limits.keys()).any(|name| is_pod_level(name))
}

/// Resources of which a container may ask for less than it may use: those of Kubernetes itself but huge pages.
#[must_use]
pub fn is_overcommit_allowed(name: &str) -> bool {
    is_native(name) && !name.starts_with("hugepages-")
}

/// Whether a resource is one of Kubernetes itself.
#[must_use]
pub fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether a container may ask for it as an extended resource: its name has to be one with `requests.` before it, too.
#[must_use]
pub fn is_extended(name: &str) -> bool {
    const SUBDOMAIN: usize = 253;
    let prefix = name.split_once('/').map_or(0, |(prefix, _)| "requests.".len() + prefix.len());
    !is_native(name) && !name.starts_with("requests.") && prefix <= SUBDOMAIN
}

impl Asked {
    /// Of a `resources` field.
    #[must_use]
    pub fn of(resources: &Value) -> Self {
        Self { requests: read(&resources["requests"]), limits: read(&resources["limits"]) }
    }

    fn add(&mut self, more: &Self) {
        add(&mut self.requests, &more.requests);
        add(&mut self.limits, &more.limits);
    }

    fn at_least(&mut self, other: &Self) {
        at_least(&mut self.requests, &other.requests);
        at_least(&mut self.limits, &other.limits);
    }
}

/// Containers and sidecars run together; an init container runs beside the sidecars before it. What is set for the pod
/// as a whole takes the place of the sum.
fn total(pod: &Value, of: &dyn Fn(&Value) -> Asked) -> Asked {
    let mut running = Asked::default();
    for container in list(&pod["spec"]["containers"]) {
        running.add(&of(container));
    }
    let (mut sidecars, mut most) = (Asked::default(), Asked::default());
    for container in list(&pod["spec"]["initContainers"]) {
        let mut at_once = of(container);
        if container["restartPolicy"] == "Always" {
            running.add(&at_once);
            sidecars.add(&at_once);
            at_once = sidecars.clone();
        } else {
            at_once.add(&sidecars);
        }
        most.at_least(&at_once);
    }
    running.at_least(&most);
    let own = Asked::of(&pod["spec"]["resources"]);
    running.requests.extend(own.requests.into_iter().filter(|(name, _)| is_pod_level(name)));
    running.limits.extend(own.limits.into_iter().filter(|(name, _)| is_pod_level(name)));
    running
}

fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

fn status_of<'p>(pod: &'p Value, container: &Value) -> Option<&'p Value> {
    let status = &pod["status"];
    let all = list(&status["containerStatuses"]).iter().chain(list(&status["initContainerStatuses"]));
    all.into_iter().find(|status| status["name"] == container["name"])
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amounts::print;
    use serde_json::json;

    fn container(name: &str, cpu: &str, limit: &str) -> Value {
        json!({"name": name, "resources": {"requests": {"cpu": cpu}, "limits": {"cpu": limit}}})
    }

    fn sidecar(name: &str, cpu: &str, limit: &str) -> Value {
        let mut made = container(name, cpu, limit);
        made["restartPolicy"] = "Always".into();
        made
    }

    fn printed(asked: &Asked) -> (String, String) {
        (print(&asked.requests), print(&asked.limits))
    }

    fn is(asked: &Asked, requests: &str, limits: &str) {
        assert_eq!(printed(asked), (requests.to_owned(), limits.to_owned()));
    }

    #[test]
    fn what_runs_together_is_summed() {
        let pod = json!({"spec": {
            "containers": [container("a", "1", "2"), container("b", "500m", "1")],
            "initContainers": [container("i", "3", "3"), sidecar("s", "1", "1"), container("j", "2", "4")],
        }});
        is(&asked(&pod), "cpu=3", "cpu=5");
        let mut own = pod.clone();
        own["spec"]["resources"] = json!({"requests": {"cpu": "10", "memory": "1Gi", "example.com/a": "1"}});
        is(&asked(&own), "cpu=10,memory=1Gi", "cpu=5");
        assert!(has_own(&own) && !has_own(&pod));
    }

    #[test]
    fn overhead_counts_where_there_is_a_limit() {
        let pod = json!({"spec": {
            "containers": [container("a", "1", "2")], "overhead": {"cpu": "250m", "memory": "1Mi"}}});
        is(&asked(&pod), "cpu=1", "cpu=2");
        is(&in_effect(&pod), "cpu=1250m,memory=1Mi", "cpu=2250m");
    }

    #[test]
    fn a_resize_counts_with_the_larger_of_both() {
        let status = |cpu: &str, limit: &str, allocated: &str| {
            json!([{"name": "a", "allocatedResources": {"cpu": allocated},
                "resources": {"requests": {"cpu": cpu}, "limits": {"cpu": limit}}}])
        };
        let mut pod = json!({"spec": {"containers": [container("a", "2", "2")]}});
        pod["status"]["containerStatuses"] = status("1", "1", "1500m");
        is(&in_effect(&pod), "cpu=2", "cpu=2");
        pod["spec"]["containers"][0] = container("a", "500m", "500m");
        is(&in_effect(&pod), "cpu=1500m", "cpu=1");
        pod["spec"]["containers"][0] = container("a", "9", "9");
        pod["status"]["conditions"] = json!([{"type": "PodResizePending", "reason": "Infeasible"}]);
        is(&in_effect(&pod), "cpu=1500m", "cpu=1");
    }

    #[test]
    fn names_of_resources() {
        for (name, native, extended, overcommit) in [
            ("cpu", true, false, true),
            ("hugepages-2Mi", true, false, false),
            ("example.com/gpu", false, true, false),
            ("requests.example.com/gpu", false, false, false),
            ("kubernetes.io/batch", true, false, true),
        ] {
            let said = (is_native(name), is_extended(name), is_overcommit_allowed(name));
            assert_eq!(said, (native, extended, overcommit), "{name}");
        }
        assert!(!is_extended(&format!("{}/gpu", "a.".repeat(125))), "too long as a quota's name");
    }
}

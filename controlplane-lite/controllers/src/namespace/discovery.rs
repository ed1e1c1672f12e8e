//! The resources a server offers, as controllers that work on all of them need
//! them. Failures of single groups are collected, not fatal.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIResource, APIResourceList};
use kube::Client;
use kube::core::discovery::ApiResource;

/// A resource type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resource {
    /// Group, version, kind and plural.
    pub api: ApiResource,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Verbs it knows.
    pub verbs: Vec<String>,
}

impl Resource {
    /// Whether it knows a verb.
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }
}

/// What was found, and what could not be asked.
#[derive(Debug, Default)]
pub(crate) struct Discovered {
    /// Preferred version of every resource type.
    pub resources: Vec<Resource>,
    /// (group version, error) of groups that did not answer.
    pub failures: Vec<(String, String)>,
}

/// Asks the server for its resources: of each group the preferred version, and
/// what only other versions have.
pub(crate) async fn discover(client: &Client) -> Result<Discovered, kube::Error> {
    let mut out = Discovered::default();
    for version in client.list_core_api_versions().await?.versions {
        match client.list_core_api_resources(&version).await {
            Ok(list) => add(&mut out, &list),
            Err(error) => out.failures.push((version, error.to_string())),
        }
    }
    for group in client.list_api_groups().await?.groups {
        let preferred = group.preferred_version.as_ref().map(|v| v.group_version.clone());
        let mut versions: Vec<String> = group.versions.iter().map(|v| v.group_version.clone()).collect();
        versions.sort_by_key(|v| Some(v) != preferred.as_ref());
        for version in versions {
            match client.list_api_group_resources(&version).await {
                Ok(list) => add(&mut out, &list),
                Err(error) => out.failures.push((version, error.to_string())),
            }
        }
    }
    Ok(out)
}

fn add(out: &mut Discovered, list: &APIResourceList) {
    let (group, version) = list.group_version.split_once('/').unwrap_or(("", &list.group_version));
    for resource in list.resources.iter().filter(|r| !r.name.contains('/')) {
        let found = resource_of(resource, group, version);
        let known = |r: &Resource| r.api.group == found.api.group && r.api.plural == found.api.plural;
        if !out.resources.iter().any(known) {
            out.resources.push(found);
        }
    }
}

fn resource_of(resource: &APIResource, group: &str, version: &str) -> Resource {
    let group = resource.group.clone().filter(|g| !g.is_empty()).unwrap_or_else(|| group.to_owned());
    let version = resource.version.clone().filter(|v| !v.is_empty()).unwrap_or_else(|| version.to_owned());
    let api_version = if group.is_empty() { version.clone() } else { format!("{group}/{version}") };
    let api = ApiResource { group, version, api_version, kind: resource.kind.clone(), plural: resource.name.clone() };
    Resource { api, namespaced: resource.namespaced, verbs: resource.verbs.clone() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{from_value, json};

    #[test]
    fn subresources_are_left_out_and_the_first_version_wins() {
        let list = |gv: &str| {
            from_value::<APIResourceList>(json!({"groupVersion": gv, "resources": [
                {"name": "deployments", "singularName": "", "namespaced": true, "kind": "Deployment", "verbs": ["list", "delete"]},
                {"name": "deployments/scale", "singularName": "", "namespaced": true, "kind": "Scale", "verbs": ["get"]}]}))
            .unwrap()
        };
        let mut out = Discovered::default();
        add(&mut out, &list("apps/v1"));
        add(&mut out, &list("apps/v1beta1"));
        add(&mut out, &list("v1"));
        let found: Vec<_> = out.resources.iter().map(|r| (r.api.api_version.as_str(), r.api.plural.as_str())).collect();
        assert_eq!(found, [("apps/v1", "deployments"), ("v1", "deployments")]);
        assert!(out.resources[0].can("list") && !out.resources[0].can("watch"));
    }
}

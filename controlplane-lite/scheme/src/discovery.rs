//! Discovery documents: `/api`, `/apis`, one per group and version, and the
//! aggregated form (apidiscovery.k8s.io v2 and v2beta1).

use std::sync::Arc;

use serde_json::{Value, json};

use super::access::str_at;
use super::kind::{Kind, Subresource};
use super::{Scheme, apiregistration};

mod foreign;

pub use foreign::{converted, resources_of};

/// Which aggregated document a client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AggregatedVersion {
    /// `apidiscovery.k8s.io/v2`, clients from 1.30.
    V2,
    /// `apidiscovery.k8s.io/v2beta1`, clients 1.26 to 1.29.
    V2Beta1,
}

impl AggregatedVersion {
    /// The apiVersion of the document.
    #[must_use]
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::V2 => "apidiscovery.k8s.io/v2",
            Self::V2Beta1 => "apidiscovery.k8s.io/v2beta1",
        }
    }

    /// The Content-Type of the answer.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::V2 => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            Self::V2Beta1 => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        }
    }
}

/// `/api`: APIVersions. `server_address` is `host:port` as clients reach it.
#[must_use]
pub fn api_versions(server_address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": server_address }],
    })
}

/// A group version that another server serves.
#[derive(Debug, Clone)]
pub struct Elsewhere {
    /// Group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Priorities of the group and of the version, as its APIService has them.
    pub priorities: (i32, i32),
    /// Its resources in the aggregated form; none when the server did not answer.
    pub resources: Option<Arc<Value>>,
}

/// A group with its versions, preferred first, and who else serves them.
struct Listed<'a> {
    name: &'a str,
    versions: Vec<(&'a str, Option<&'a Elsewhere>)>,
}

/// All groups in the order of discovery. What is served here has upstream's priorities.
fn listed<'a>(scheme: &'a Scheme, elsewhere: &'a [Elsewhere]) -> Vec<Listed<'a>> {
    let here = scheme.groups().into_iter();
    let own = here.map(|group| (group.name, group.versions)).collect::<Vec<_>>();
    let plain = |(name, versions): &(&'a str, Vec<&'a str>)| Listed {
        name,
        versions: versions.iter().map(|version| (*version, None)).collect(),
    };
    if elsewhere.is_empty() {
        return own.iter().map(plain).collect();
    }
    let is_elsewhere = |group: &str, version: &str| elsewhere.iter().any(|e| e.group == group && e.version == version);
    let (first, others): (Vec<_>, Vec<_>) = own.into_iter().partition(|(name, _)| *name == apiregistration::GROUP);
    let mut services = Vec::new();
    for (group, versions) in &others {
        let here = versions.iter().filter(|version| !is_elsewhere(group, version));
        services.extend(here.filter_map(|version| apiregistration::local(group, version)));
    }
    services.extend(elsewhere.iter().map(|e| {
        json!({
            "metadata": {"name": apiregistration::name_of(&e.group, &e.version)},
            "spec": {"group": e.group, "version": e.version,
                     "groupPriorityMinimum": e.priorities.0, "versionPriority": e.priorities.1},
        })
    }));
    // Names of what is sorted are found again, so that nothing refers to what is made here.
    let find = |group: &str, version: &str| {
        let there = elsewhere.iter().find(|e| e.group == group && e.version == version);
        let here = others
            .iter()
            .find(|(name, _)| *name == group)
            .map(|(name, versions)| (*name, versions.iter().find(|known| **known == version).copied()));
        match (there, here) {
            (Some(e), _) => Some((e.group.as_str(), e.version.as_str(), Some(e))),
            (None, Some((name, Some(version)))) => Some((name, version, None)),
            _ => None,
        }
    };
    let sorted = apiregistration::by_group(&services).into_iter().filter_map(|(group, of)| {
        let versions: Vec<_> = of.iter().filter_map(|s| find(group, str_at(s, &["spec", "version"]))).collect();
        let name = versions.first()?.0;
        Some(Listed { name, versions: versions.into_iter().map(|(_, version, there)| (version, there)).collect() })
    });
    first.iter().map(plain).chain(sorted).collect()
}

fn group_object(group: &Listed<'_>) -> Value {
    let version =
        |(v, _): &(&str, Option<&Elsewhere>)| json!({ "groupVersion": format!("{}/{v}", group.name), "version": v });
    json!({
        "name": group.name,
        "versions": group.versions.iter().map(version).collect::<Vec<_>>(),
        "preferredVersion": group.versions.first().map(version),
    })
}

/// `/apis`: APIGroupList without the core group.
#[must_use]
pub fn api_group_list(scheme: &Scheme, elsewhere: &[Elsewhere]) -> Value {
    let listed = listed(scheme, elsewhere);
    let groups: Vec<Value> = listed.iter().filter(|g| !g.name.is_empty()).map(group_object).collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

/// `/apis/GROUP`: APIGroup; `None` when there is no such group.
#[must_use]
pub fn api_group(scheme: &Scheme, elsewhere: &[Elsewhere], name: &str) -> Option<Value> {
    let group = listed(scheme, elsewhere).into_iter().find(|g| g.name == name && !name.is_empty())?;
    let mut object = group_object(&group);
    object["kind"] = "APIGroup".into();
    object["apiVersion"] = "v1".into();
    Some(object)
}

/// `/api/v1` or `/apis/GROUP/VERSION`: APIResourceList; `None` when there is no such version.
#[must_use]
pub fn api_resource_list(scheme: &Scheme, group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for kind in scheme.in_group_version(group, version) {
        resources.push(resource(kind));
        resources.extend(kind.subresources.iter().map(|s| subresource(kind, s)));
    }
    if resources.is_empty() {
        return None;
    }
    resources.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version,
        "resources": resources,
    }))
}

fn resource(kind: &Kind) -> Value {
    let mut object = json!({
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": kind.verbs,
    });
    if !kind.short_names.is_empty() {
        object["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        object["categories"] = json!(kind.categories);
    }
    if kind.stored() {
        object["storageVersionHash"] = storage_version_hash(kind).into();
    }
    object
}

fn subresource(kind: &Kind, sub: &Subresource) -> Value {
    let mut object = json!({
        "name": format!("{}/{}", kind.plural, sub.name),
        "singularName": "",
        "namespaced": kind.namespaced,
        "kind": sub.body.map_or(&*kind.kind, |b| b.2),
        "verbs": sub.verbs,
    });
    if let Some((group, version, _)) = sub.body
        && (kind.group != group || kind.version != version)
    {
        object["group"] = group.into();
        object["version"] = version.into();
    }
    object
}

/// Upstream's opaque hash of group, version and kind of the stored form.
fn storage_version_hash(kind: &Kind) -> String {
    use base64::Engine as _;
    use sha2::Digest as _;
    let (group, version, name) = match &kind.conversion {
        Some(form) => (&form.group, &form.version, &form.kind),
        None => (&kind.group, &kind.version, &kind.kind),
    };
    let text = format!("{group}/{version}/{name}");
    base64::engine::general_purpose::STANDARD.encode(&sha2::Sha256::digest(text.as_bytes())[..8])
}

/// The aggregated document: at `/api` the core group only, at `/apis` all others. What another server serves is stale
/// while that does not answer.
#[must_use]
pub fn aggregated(scheme: &Scheme, elsewhere: &[Elsewhere], core: bool, version: AggregatedVersion) -> Value {
    let of = |group: &Listed<'_>, (version, there): (&str, Option<&Elsewhere>)| match there {
        None => {
            let kinds = scheme.in_group_version(group.name, version);
            let resources: Vec<Value> = kinds.map(|kind| aggregated_resource(kind)).collect();
            json!({ "version": version, "resources": resources, "freshness": "Current" })
        }
        Some(Elsewhere { resources: Some(resources), .. }) => {
            json!({ "version": version, "resources": **resources, "freshness": "Current" })
        }
        Some(_) => json!({ "version": version, "freshness": "Stale" }),
    };
    let items: Vec<Value> = listed(scheme, elsewhere)
        .iter()
        .filter(|g| g.name.is_empty() == core)
        .map(|group| {
            let versions: Vec<Value> = group.versions.iter().map(|version| of(group, *version)).collect();
            let metadata = if core {
                json!({ "creationTimestamp": null })
            } else {
                json!({ "name": group.name, "creationTimestamp": null })
            };
            json!({ "metadata": metadata, "versions": versions })
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": version.api_version(),
        "metadata": {},
        "items": items,
    })
}

fn aggregated_resource(kind: &Kind) -> Value {
    let mut object = json!({
        "resource": kind.plural,
        "responseKind": { "group": kind.group, "version": kind.version, "kind": kind.kind },
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": kind.verbs,
    });
    if !kind.short_names.is_empty() {
        object["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        object["categories"] = json!(kind.categories);
    }
    if !kind.subresources.is_empty() {
        object["subresources"] = kind
            .subresources
            .iter()
            .map(|s| {
                let (group, version, body) = s.body.unwrap_or((&kind.group, &kind.version, &kind.kind));
                json!({
                    "subresource": s.name,
                    "responseKind": { "group": group, "version": version, "kind": body },
                    "verbs": s.verbs,
                })
            })
            .collect();
    }
    object
}

#[cfg(test)]
mod upstream;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::builtin;

    #[test]
    fn documents_name_the_same_resources() {
        let plain = api_resource_list(builtin(), "apps", "v1").unwrap();
        let names: Vec<&str> =
            plain["resources"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
        assert!(names.contains(&"deployments") && names.contains(&"deployments/scale"));
        assert!(names.is_sorted());
        let scale = plain["resources"].as_array().unwrap().iter().find(|r| r["name"] == "deployments/scale").unwrap();
        assert_eq!(scale["group"], "autoscaling");
        let all = aggregated(builtin(), &[], false, AggregatedVersion::V2);
        let apps = all["items"].as_array().unwrap().iter().find(|g| g["metadata"]["name"] == "apps").unwrap();
        assert_eq!(apps["versions"][0]["resources"].as_array().unwrap().len(), 5);
        let core = aggregated(builtin(), &[], true, AggregatedVersion::V2Beta1);
        assert_eq!(core["items"].as_array().unwrap().len(), 1);
        assert!(api_resource_list(builtin(), "nope", "v1").is_none());
        assert!(
            api_group(builtin(), &[], "autoscaling").is_some() && api_group(builtin(), &[], "meta.k8s.io").is_none()
        );
    }

    fn elsewhere(group: &str, version: &str, priorities: (i32, i32), resources: Option<Value>) -> Elsewhere {
        let (group, version) = (group.to_owned(), version.to_owned());
        Elsewhere { group, version, priorities, resources: resources.map(Arc::new) }
    }

    #[test]
    fn what_others_serve_stands_where_its_priority_says() {
        let there = [
            elsewhere("metrics.k8s.io", "v1beta1", (100, 100), Some(json!([{"resource": "nodes"}]))),
            elsewhere("first.example", "v1", (20_000, 1), None),
            elsewhere("apps", "v9", (17_900, 20), Some(json!([]))),
        ];
        let list = api_group_list(builtin(), &there);
        let names: Vec<&str> = list["groups"].as_array().unwrap().iter().map(|g| str_at(g, &["name"])).collect();
        assert_eq!(names[..3], [apiregistration::GROUP, "first.example", "apps"]);
        assert_eq!(names.last(), Some(&"metrics.k8s.io"));
        assert_eq!(names.len(), api_group_list(builtin(), &[])["groups"].as_array().unwrap().len() + 2);
        let apps = api_group(builtin(), &there, "apps").unwrap();
        assert_eq!(apps["preferredVersion"]["version"], "v9");
        assert_eq!(apps["versions"].as_array().unwrap().len(), 2);
        let all = aggregated(builtin(), &there, false, AggregatedVersion::V2);
        let find = |name: &str| {
            let items = all["items"].as_array().unwrap();
            items.iter().find(|g| g["metadata"]["name"] == name).unwrap()["versions"].clone()
        };
        assert_eq!(find("first.example"), json!([{"version": "v1", "freshness": "Stale"}]));
        assert_eq!(
            find("metrics.k8s.io"),
            json!([{"version": "v1beta1", "freshness": "Current", "resources": [{"resource": "nodes"}]}])
        );
        assert_eq!(find("apps")[1]["resources"].as_array().unwrap().len(), 5);
        let core = aggregated(builtin(), &there, true, AggregatedVersion::V2);
        assert_eq!(core["items"].as_array().unwrap().len(), 1);
    }
}

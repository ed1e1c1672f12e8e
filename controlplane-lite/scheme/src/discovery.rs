//! Discovery documents: `/api`, `/apis`, one per group and version, and the
//! aggregated form (apidiscovery.k8s.io v2 and v2beta1).

use serde_json::{Value, json};

use super::kind::{Kind, Subresource};
use super::{Group, Scheme};

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

fn group_object(group: &Group<'_>) -> Value {
    let version = |v: &&str| json!({ "groupVersion": format!("{}/{v}", group.name), "version": v });
    json!({
        "name": group.name,
        "versions": group.versions.iter().map(version).collect::<Vec<_>>(),
        "preferredVersion": group.versions.first().map(version),
    })
}

/// `/apis`: APIGroupList without the core group.
#[must_use]
pub fn api_group_list(scheme: &Scheme) -> Value {
    let groups: Vec<Value> = scheme.groups().iter().filter(|g| !g.name.is_empty()).map(group_object).collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

/// `/apis/GROUP`: APIGroup; `None` when there is no such group.
#[must_use]
pub fn api_group(scheme: &Scheme, name: &str) -> Option<Value> {
    let group = scheme.groups().into_iter().find(|g| g.name == name && !name.is_empty())?;
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

/// The aggregated document: at `/api` the core group only, at `/apis` all others.
#[must_use]
pub fn aggregated(scheme: &Scheme, core: bool, version: AggregatedVersion) -> Value {
    let items: Vec<Value> = scheme
        .groups()
        .iter()
        .filter(|g| g.name.is_empty() == core)
        .map(|group| {
            let versions: Vec<Value> = group
                .versions
                .iter()
                .map(|v| {
                    let kinds = scheme.in_group_version(group.name, v);
                    json!({
                        "version": v,
                        "resources": kinds.map(|kind| aggregated_resource(kind)).collect::<Vec<_>>(),
                        "freshness": "Current",
                    })
                })
                .collect();
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
        let all = aggregated(builtin(), false, AggregatedVersion::V2);
        let apps = all["items"].as_array().unwrap().iter().find(|g| g["metadata"]["name"] == "apps").unwrap();
        assert_eq!(apps["versions"][0]["resources"].as_array().unwrap().len(), 5);
        let core = aggregated(builtin(), true, AggregatedVersion::V2Beta1);
        assert_eq!(core["items"].as_array().unwrap().len(), 1);
        assert!(api_resource_list(builtin(), "nope", "v1").is_none());
        assert!(api_group(builtin(), "autoscaling").is_some() && api_group(builtin(), "meta.k8s.io").is_none());
    }
}

//! OpenAPI documents, built when asked for: v3 per group and
//! version (kubectl explain, checks of query parameters) and one v2 document.
//! Descriptions come from k8s-openapi through the build script, list and patch extensions from the schema facts.

use serde_json::{Map, Value, json};
use sha2::Digest as _;

use super::Scheme;
use super::kind::Kind;

mod definitions;
mod part;
mod paths;
mod schemas;

pub use part::Part;

/// The two dialects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Of version 2 (Swagger).
    V2,
    /// Of version 3.
    V3,
}

impl Dialect {
    /// Where definitions stand in the document.
    pub(crate) const fn prefix(self) -> &'static str {
        match self {
            Self::V2 => "#/definitions/",
            Self::V3 => definitions::PREFIX,
        }
    }
}

fn info() -> Value {
    json!({ "title": "Kubernetes", "version": "v1.36.0" })
}

/// One of the documents.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DocumentName {
    /// `/openapi/v2`.
    V2,
    /// `/openapi/v3`.
    V3Root,
    /// `/openapi/v3/api/v1` or `/openapi/v3/apis/GROUP/VERSION`.
    V3(String, String),
}

/// The document at a path below `/openapi/`, if there is one.
#[must_use]
pub fn name(scheme: &Scheme, path: &[&str]) -> Option<DocumentName> {
    let (group, version) = match path {
        ["v2"] => return Some(DocumentName::V2),
        ["v3"] => return Some(DocumentName::V3Root),
        ["v3", "api", version] => ("", *version),
        ["v3", "apis", group, version] => (*group, *version),
        _ => return None,
    };
    scheme.has_group_version(group, version).then(|| DocumentName::V3(group.to_owned(), version.to_owned()))
}

/// A document as JSON text; empty for a group and version that are not served. Version 3's root is made of the tags of
/// the others, see [`v3_root`].
#[must_use]
pub fn document(scheme: &Scheme, name: &DocumentName) -> Vec<u8> {
    let value = match name {
        DocumentName::V2 => v2_document(scheme),
        DocumentName::V3Root => {
            let tags: Vec<_> = v3_names(scheme).into_iter().map(|name| (tag(&document(scheme, &name)), name)).collect();
            v3_root(tags.iter().map(|(tag, name)| (name, tag.as_str())))
        }
        DocumentName::V3(group, version) => v3_document(scheme, group, version).unwrap_or_default(),
    };
    value.to_string().into_bytes()
}

/// What tells one content of a document from another.
#[must_use]
pub fn tag(document: &[u8]) -> String {
    sha2::Sha256::digest(document).iter().map(|b| format!("{b:02X}")).collect()
}

/// The documents of groups and versions.
#[must_use]
pub fn v3_names(scheme: &Scheme) -> Vec<DocumentName> {
    let groups = scheme.groups();
    let names = groups.iter().flat_map(|group| group.versions.iter().map(|version| (group.name, *version)));
    names.map(|(group, version)| DocumentName::V3(group.to_owned(), version.to_owned())).collect()
}

/// `/openapi/v3`: where the documents are, with hashes of their content.
#[must_use]
pub fn v3_root<'t>(tags: impl IntoIterator<Item = (&'t DocumentName, &'t str)>) -> Value {
    let mut paths = Map::new();
    for (name, hash) in tags {
        if let DocumentName::V3(group, version) = name {
            let path = group_version_path(group, version);
            paths.insert(path.clone(), json!({ "serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}") }));
        }
    }
    json!({ "paths": paths })
}

fn group_version_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// `/openapi/v3/api/v1` or `/openapi/v3/apis/GROUP/VERSION`; `None` when there is no such version.
#[must_use]
pub fn v3_document(scheme: &Scheme, group: &str, version: &str) -> Option<Value> {
    if !scheme.has_group_version(group, version) {
        return None;
    }
    let kinds: Vec<&Kind> =
        scheme.kinds().filter(|k| !k.unserved && k.group == group && k.version == version).map(|k| &**k).collect();
    let schemas = schemas::definitions(&kinds, Dialect::V3);
    let mut paths = Map::new();
    for kind in kinds.iter().filter(|k| !k.plural.is_empty()) {
        paths::of_kind(kind, &schemas.names, Dialect::V3, &mut paths);
    }
    Some(json!({
        "openapi": "3.0.0",
        "info": info(),
        "paths": paths,
        "components": {
            "schemas": schemas.definitions,
            "securitySchemes": { "BearerToken": {
                "type": "apiKey", "name": "authorization", "in": "header",
                "description": "Bearer Token authentication",
            } },
        },
    }))
}

/// The head of the version 2 document (`swagger` and `info`) in its protobuf form: fields 1 and 2 of a Document, fields
/// 1 and 2 of its Info.
#[must_use]
pub fn v2_head_protobuf() -> Vec<u8> {
    let info = info();
    let text = |name: &str| info[name].as_str().unwrap_or_default().to_owned();
    let info =
        [length_delimited(1, text("title").as_bytes()), length_delimited(2, text("version").as_bytes())].concat();
    [length_delimited(1, b"2.0"), length_delimited(2, &info)].concat()
}

/// A protobuf field of text, bytes or a message.
fn length_delimited(field: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![(field << 3) | 2];
    let mut left = content.len();
    while left >= 0x80 {
        out.push(left.to_le_bytes()[0] | 0x80);
        left >>= 7;
    }
    out.push(left.to_le_bytes()[0]);
    out.extend_from_slice(content);
    out
}

/// `/openapi/v2` as JSON: all groups in one document.
#[must_use]
pub fn v2_document(scheme: &Scheme) -> Value {
    let kinds: Vec<&Kind> = scheme.kinds().filter(|k| !k.unserved).map(|k| &**k).collect();
    let schemas = schemas::definitions(&kinds, Dialect::V2);
    let mut paths = Map::new();
    for kind in kinds.iter().filter(|k| !k.plural.is_empty()) {
        paths::of_kind(kind, &schemas.names, Dialect::V2, &mut paths);
    }
    json!({
        "swagger": "2.0",
        "info": info(),
        "paths": paths,
        "definitions": schemas.definitions,
        "securityDefinitions": { "BearerToken": {
            "type": "apiKey", "name": "authorization", "in": "header",
            "description": "Bearer Token authentication",
        } },
        "security": [{ "BearerToken": [] }],
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::builtin;

    /// Every reference in a document must have a definition.
    fn check_references(value: &Value, prefix: &str, known: &Value) {
        match value {
            Value::Object(map) => {
                if let Some(target) = map.get("$ref").and_then(Value::as_str) {
                    let name = target.strip_prefix(prefix).unwrap_or_else(|| panic!("reference {target}"));
                    assert!(known.get(name).is_some(), "no definition {name}");
                }
                map.values().for_each(|v| check_references(v, prefix, known));
            }
            Value::Array(list) => list.iter().for_each(|v| check_references(v, prefix, known)),
            _ => {}
        }
    }

    #[test]
    fn v3_documents_are_complete() {
        let root: Value = serde_json::from_slice(&document(builtin(), &DocumentName::V3Root)).unwrap();
        for path in root["paths"].as_object().unwrap().keys() {
            let (group, version) = match path.split('/').collect::<Vec<_>>()[..] {
                ["api", version] => ("", version),
                ["apis", group, version] => (group, version),
                _ => panic!("{path}"),
            };
            let document = v3_document(builtin(), group, version).unwrap();
            check_references(&document, Dialect::V3.prefix(), &document["components"]["schemas"]);
            assert!(!document["paths"].as_object().unwrap().is_empty(), "{path}");
        }
        assert!(v3_document(builtin(), "nope", "v1").is_none());
    }

    #[test]
    fn v3_has_what_explain_and_validation_read() {
        let document = v3_document(builtin(), "apps", "v1").unwrap();
        let list = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments"]["get"];
        assert_eq!(list["x-kubernetes-group-version-kind"]["kind"], "Deployment");
        let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        let parameters = patch["parameters"].as_array().unwrap();
        assert!(parameters.iter().any(|p| p["name"] == "fieldValidation"));
        let schemas = &document["components"]["schemas"];
        let deployment = &schemas["io.k8s.api.apps.v1.Deployment"];
        assert_eq!(deployment["x-kubernetes-group-version-kind"][0]["kind"], "Deployment");
        assert!(schemas["io.k8s.api.apps.v1.DeploymentList"]["properties"]["items"].is_object());
        let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
        assert!(containers["description"].as_str().unwrap().contains("containers"));
        let spec = &deployment["properties"]["spec"];
        assert_eq!(spec["allOf"][0]["$ref"], "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec");
    }

    #[test]
    fn v2_is_complete() {
        let document = v2_document(builtin());
        check_references(&document, Dialect::V2.prefix(), &document["definitions"]);
        let volumes = &document["definitions"]["io.k8s.api.core.v1.PodSpec"]["properties"]["volumes"];
        assert_eq!(volumes["x-kubernetes-patch-strategy"], "merge,retainKeys");
        let port = &document["definitions"]["io.k8s.apimachinery.pkg.util.intstr.IntOrString"];
        assert_eq!((&port["type"], &port["format"]), (&json!("string"), &json!("int-or-string")));
    }
}

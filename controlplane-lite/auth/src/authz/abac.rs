//! Attribute-based access control: a file with one policy per line, as upstream's
//! `--authorization-policy-file`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Attributes, Authorizer, Decision};
use crate::authn::UserInfo;

const VERSION: &str = "abac.authorization.kubernetes.io/v1beta1";

/// The policies of a file.
#[derive(Debug)]
pub struct AbacAuthorizer {
    policies: Vec<Policy>,
}

/// Why a policy file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AbacError {
    #[error("read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path}, line {line}: {reason}")]
    Line { path: PathBuf, line: usize, reason: String },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Line {
    api_version: String,
    kind: String,
    spec: Policy,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Policy {
    user: String,
    group: String,
    readonly: bool,
    api_group: String,
    resource: String,
    namespace: String,
    non_resource_path: String,
}

impl AbacAuthorizer {
    /// Reads a policy file.
    pub fn load(path: &Path) -> Result<Self, AbacError> {
        let text = std::fs::read_to_string(path).map_err(|source| AbacError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Reads a policy file's text; `path` is for errors.
    pub fn parse(text: &str, path: &Path) -> Result<Self, AbacError> {
        let mut policies = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.trim_start().starts_with('#') {
                continue;
            }
            let fail = |reason| AbacError::Line { path: path.to_owned(), line: index + 1, reason };
            let line: Line = serde_json::from_str(line).map_err(|error| fail(error.to_string()))?;
            if line.api_version != VERSION || line.kind != "Policy" {
                return Err(fail(format!("{} {} is not a Policy of {VERSION}", line.api_version, line.kind)));
            }
            policies.push(line.spec);
        }
        Ok(Self { policies })
    }
}

impl Authorizer for AbacAuthorizer {
    fn authorize(&self, attributes: &Attributes) -> Decision {
        if self.policies.iter().any(|policy| policy.allows(attributes)) {
            Decision::allow("")
        } else {
            Decision::no_opinion("No policy matched.")
        }
    }
}

impl Policy {
    fn allows(&self, attributes: &Attributes) -> bool {
        let any = |have: &str, wanted: &str| have == "*" || have == wanted;
        let reads = matches!(attributes.verb.as_str(), "get" | "list" | "watch");
        if !self.concerns(&attributes.user) || (self.readonly && !reads) {
            return false;
        }
        if !attributes.resource_request {
            return match self.non_resource_path.strip_suffix('*') {
                Some(prefix) => attributes.path.starts_with(prefix),
                None => !self.non_resource_path.is_empty() && self.non_resource_path == attributes.path,
            };
        }
        any(&self.namespace, &attributes.namespace)
            && any(&self.resource, &attributes.resource)
            && any(&self.api_group, &attributes.group)
    }

    /// A policy names a user, a group, or both; one that names neither is nobody's.
    fn concerns(&self, user: &UserInfo) -> bool {
        let is_user = self.user == "*" || self.user == user.username;
        let in_group = self.group == "*" || user.in_group(&self.group);
        match (self.user.is_empty(), self.group.is_empty()) {
            (true, true) => false,
            (false, true) => is_user,
            (true, false) => in_group,
            (false, false) => is_user && in_group,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn line(spec: &str) -> String {
        format!(r#"{{"apiVersion":"{VERSION}","kind":"Policy","spec":{spec}}}"#)
    }

    #[test]
    fn policies() {
        let text = [
            "# comment".into(),
            line(r#"{"user":"jane","namespace":"ns","resource":"pods","readonly":true}"#),
            line(r#"{"group":"ops","namespace":"*","resource":"*","apiGroup":"*"}"#),
            line(r#"{"user":"*","nonResourcePath":"/healthz*"}"#),
            line(r#"{"namespace":"*","resource":"*","apiGroup":"*"}"#),
        ]
        .join("\n");
        let abac = AbacAuthorizer::parse(&text, Path::new("p")).unwrap();
        let ask = |user: &str, group: &str, verb: &str, api: &str, resource: &str, namespace: &str| {
            let request = Attributes::resource(UserInfo::new(user, [group]), verb, api, resource, namespace);
            abac.authorize(&request).allowed()
        };
        assert!(ask("jane", "", "list", "", "pods", "ns"));
        assert!(!ask("jane", "", "delete", "", "pods", "ns"));
        assert!(!ask("jane", "", "list", "", "pods", "other"));
        assert!(!ask("jane", "", "list", "apps", "pods", "ns"));
        assert!(ask("joe", "ops", "delete", "apps", "deployments", "x"));
        assert!(!ask("joe", "dev", "get", "", "pods", "ns"), "a policy for nobody");
        let path = |path: &str| abac.authorize(&Attributes::non_resource(UserInfo::new("x", [""]), "get", path));
        assert!(path("/healthz/ping").allowed());
        assert!(!path("/metrics").allowed());
    }

    #[test]
    fn garbage_names_its_line() {
        for bad in [
            "{",
            "not json",
            r#"{"user":"jane"}"#,
            &line(r#"{"usr":"x"}"#),
            &line("3"),
            &line("{}").replace("Policy", "Pod"),
        ] {
            let error = AbacAuthorizer::parse(&format!("\n{bad}"), Path::new("policy.jsonl")).unwrap_err().to_string();
            assert!(error.starts_with("policy.jsonl, line 2: "), "{error}");
        }
    }
}

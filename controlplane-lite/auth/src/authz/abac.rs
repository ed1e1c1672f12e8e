//! Attribute-based access control: a file with one policy per line, as upstream's
//! `--authorization-policy-file` (`pkg/auth/authorizer/abac/abac.go`, `pkg/apis/abac`). Fields that no policy has are
//! refused, where upstream passes over them: whoever wrote one did not mean to allow what is left.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::{Attributes, Authorizer, Decision};
use crate::authn::{AUTHENTICATED, UserInfo};

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

/// A policy of the time before they had versions.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Unversioned {
    user: String,
    group: String,
    readonly: bool,
    resource: String,
    namespace: String,
}

impl From<Unversioned> for Policy {
    /// What is left out is everything; any group of the API is meant, and paths where neither resource nor namespace is
    /// named.
    fn from(old: Unversioned) -> Self {
        let or_all = |text: &str| if text.is_empty() { "*".to_owned() } else { text.to_owned() };
        let everything = old.namespace.is_empty() && old.resource.is_empty();
        let everybody = old.user.is_empty() && old.group.is_empty();
        Self {
            group: if everybody { AUTHENTICATED.to_owned() } else { old.group },
            user: old.user,
            readonly: old.readonly,
            api_group: "*".to_owned(),
            namespace: or_all(&old.namespace),
            resource: or_all(&old.resource),
            non_resource_path: if everything { "*".to_owned() } else { String::new() },
        }
    }
}

/// What a policy lets somebody do, as upstream tells it to who asks for their own rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    pub readonly: bool,
    /// API group and resource, if it names one.
    pub resource: Option<(String, String)>,
    /// A path, if it names one.
    pub path: Option<String>,
}

impl AbacAuthorizer {
    /// Reads a policy file.
    pub fn load(path: &Path) -> Result<Self, AbacError> {
        let text = std::fs::read_to_string(path).map_err(|source| AbacError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// What a user may do in a namespace.
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> Vec<Allowed> {
        let here = |policy: &&Policy| policy.namespace == "*" || policy.namespace == namespace;
        let theirs = self.policies.iter().filter(|policy| policy.concerns(user)).filter(here);
        let rule = |policy: &Policy| Allowed {
            readonly: policy.readonly,
            resource: Some((policy.api_group.clone(), policy.resource.clone())).filter(|(_, name)| !name.is_empty()),
            path: Some(policy.non_resource_path.clone()).filter(|path| !path.is_empty()),
        };
        theirs.map(rule).collect()
    }

    /// Reads a policy file's text; `path` is for errors.
    pub fn parse(text: &str, path: &Path) -> Result<Self, AbacError> {
        let mut policies = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.trim_start().starts_with('#') {
                continue;
            }
            let fail = |reason| AbacError::Line { path: path.to_owned(), line: index + 1, reason };
            let invalid = |error: serde_json::Error| fail(error.to_string());
            let value: Value = serde_json::from_str(line).map_err(invalid)?;
            // Of itself a struct is also read from a list.
            if !value.is_object() || value.get("spec").is_some_and(|spec| !spec.is_object()) {
                return Err(fail("a policy is an object".to_owned()));
            }
            let policy: Policy = if value.get("apiVersion").is_none() && value.get("kind").is_none() {
                serde_json::from_value::<Unversioned>(value).map_err(invalid)?.into()
            } else {
                let line: Line = serde_json::from_value(value).map_err(invalid)?;
                if line.api_version != VERSION || line.kind != "Policy" {
                    return Err(fail(format!("{} {} is not a Policy of {VERSION}", line.api_version, line.kind)));
                }
                line.spec
            };
            policies.push(policy.of_the_authenticated());
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
    /// A policy for any user or group is one for all who have said who they are.
    fn of_the_authenticated(self) -> Self {
        if self.user != "*" && self.group != "*" {
            return self;
        }
        Self { user: String::new(), group: AUTHENTICATED.to_owned(), ..self }
    }

    fn allows(&self, attributes: &Attributes) -> bool {
        let any = |have: &str, wanted: &str| have == "*" || have == wanted;
        let reads = matches!(attributes.verb.as_str(), "get" | "list" | "watch");
        if !self.concerns(&attributes.user) || (self.readonly && !reads) {
            return false;
        }
        if !attributes.resource_request {
            return match self.non_resource_path.strip_suffix('*') {
                Some(prefix) => attributes.path.starts_with(prefix.trim_end_matches('*')),
                None => !self.non_resource_path.is_empty() && self.non_resource_path == attributes.path,
            };
        }
        any(&self.namespace, &attributes.namespace)
            && any(&self.resource, &attributes.resource)
            && any(&self.api_group, &attributes.group)
    }

    /// A policy names a user, a group, or both; one that names neither is nobody's.
    fn concerns(&self, user: &UserInfo) -> bool {
        let is_user = self.user == user.username;
        let in_group = user.in_group(&self.group);
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
            line(r#"{"user":"*","nonResourcePath":"/healthz**"}"#),
            line(r#"{"group":"*","namespace":"open","resource":"pods"}"#),
            r#"{"user":"old","readonly":true}"#.into(),
            r#"{"resource":"events"}"#.into(),
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
        // Any user is none who has not said who they are.
        let asks = |user: &UserInfo, resource: &str, namespace: &str| {
            abac.authorize(&Attributes::resource(user.clone(), "get", "", resource, namespace)).allowed()
        };
        let nobody = UserInfo::anonymous();
        assert!(asks(&UserInfo::new("x", [""; 0]), "pods", "open") && !asks(&nobody, "pods", "open"));
        assert!(!abac.authorize(&Attributes::non_resource(nobody.clone(), "get", "/healthz")).allowed());
        // Without a version, what is left out is everything.
        let old = UserInfo::new("old", [""; 0]);
        assert!(ask("old", "", "get", "apps", "deployments", "any") && !ask("old", "", "create", "", "pods", "any"));
        assert!(abac.authorize(&Attributes::non_resource(old.clone(), "get", "/metrics")).allowed());
        assert!(ask("x", "", "create", "events.k8s.io", "events", "any") && !asks(&nobody, "events", "any"));
        let rules = abac.rules_for(&UserInfo::new("jane", [""; 0]), "ns");
        let rule = |readonly, group: &str, name: &str| Allowed {
            readonly,
            resource: Some((group.to_owned(), name.to_owned())),
            path: None,
        };
        assert_eq!(rules, [rule(true, "", "pods"), rule(false, "*", "events")]);
    }

    #[test]
    fn garbage_names_its_line() {
        for bad in [
            "{",
            "not json",
            r#"{"user":"jane","verb":"get"}"#,
            r#"["jane"]"#,
            &line(r#"["jane"]"#),
            &line(r#"{"usr":"x"}"#),
            &line("3"),
            &line("{}").replace("Policy", "Pod"),
        ] {
            let error = AbacAuthorizer::parse(&format!("\n{bad}"), Path::new("policy.jsonl")).unwrap_err().to_string();
            assert!(error.starts_with("policy.jsonl, line 2: "), "{error}");
        }
    }
}

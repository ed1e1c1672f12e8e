//! Roles and bindings as RBAC needs them, read from encoded objects.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

/// What a role grants.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyRule {
    #[serde(deserialize_with = "list")]
    pub verbs: Vec<String>,
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    #[serde(rename = "nonResourceURLs", deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub non_resource_urls: Vec<String>,
}

/// The role a binding binds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RoleRef {
    pub api_group: String,
    pub kind: String,
    pub name: String,
}

/// Whom a binding binds it to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Subject {
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_group: String,
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}

/// A RoleBinding, or a ClusterRoleBinding when the namespace is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Binding {
    pub namespace: String,
    pub name: String,
    pub role_ref: RoleRef,
    pub subjects: Vec<Subject>,
}

/// A Role, or a ClusterRole when the namespace is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Role {
    pub namespace: String,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub rules: Vec<PolicyRule>,
    /// Selects the ClusterRoles whose rules this one collects.
    pub aggregates: Vec<LabelSelector>,
}

/// A label selector of an aggregation rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    #[serde(deserialize_with = "nullable")]
    pub match_labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "list")]
    pub match_expressions: Vec<LabelRequirement>,
}

/// One expression of a label selector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LabelRequirement {
    pub key: String,
    pub operator: String,
    #[serde(deserialize_with = "list")]
    pub values: Vec<String>,
}

impl LabelSelector {
    /// True when the labels meet every condition; unknown operators never match.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let expression = |requirement: &LabelRequirement| {
            let have = labels.get(&requirement.key);
            let listed = have.is_some_and(|have| requirement.values.contains(have));
            match requirement.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => have.is_some(),
                "DoesNotExist" => have.is_none(),
                _ => false,
            }
        };
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(expression)
    }
}

/// A stored role or binding that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("read RBAC object")]
pub struct RbacParseError(#[from] serde_json::Error);

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
    namespace: String,
    #[serde(deserialize_with = "nullable")]
    labels: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Aggregation {
    #[serde(deserialize_with = "list")]
    cluster_role_selectors: Vec<LabelSelector>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRole {
    metadata: Metadata,
    #[serde(default, deserialize_with = "list")]
    rules: Vec<PolicyRule>,
    aggregation_rule: Option<Aggregation>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawBinding {
    metadata: Metadata,
    role_ref: RoleRef,
    #[serde(default, deserialize_with = "list")]
    subjects: Vec<Subject>,
}

impl Role {
    /// Reads a Role or ClusterRole.
    pub fn from_json(json: &[u8]) -> Result<Self, RbacParseError> {
        let RawRole { metadata, rules, aggregation_rule } = serde_json::from_slice(json)?;
        let Metadata { name, namespace, labels } = metadata;
        let aggregates = aggregation_rule.unwrap_or_default().cluster_role_selectors;
        Ok(Self { namespace, name, labels, rules, aggregates })
    }
}

impl Binding {
    /// Reads a RoleBinding or ClusterRoleBinding.
    pub fn from_json(json: &[u8]) -> Result<Self, RbacParseError> {
        let RawBinding { metadata, role_ref, subjects } = serde_json::from_slice(json)?;
        Ok(Self { namespace: metadata.namespace, name: metadata.name, role_ref, subjects })
    }
}

/// A list that may be null.
fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A map that may be null.
fn nullable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

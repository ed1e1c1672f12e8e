//! Which rules a role gathers. Pure.

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt as _};

/// The rules that an aggregated role ought to have, when it has others; `None` for every other role.
pub(super) fn rules<'r>(
    role: &ClusterRole,
    all: impl IntoIterator<Item = &'r ClusterRole> + Clone,
) -> Option<Vec<PolicyRule>> {
    let selectors = role.aggregation_rule.as_ref()?.cluster_role_selectors.as_ref()?;
    let mut gathered: Vec<PolicyRule> = Vec::new();
    for selector in selectors {
        let mut selected: Vec<&ClusterRole> = all
            .clone()
            .into_iter()
            .filter(|other| other.metadata.name != role.metadata.name && selects(selector, other))
            .collect();
        selected.sort_unstable_by_key(|other| other.metadata.name.as_deref());
        for rule in selected.iter().flat_map(|other| other.rules.iter().flatten()) {
            if !gathered.contains(rule) {
                gathered.push(rule.clone());
            }
        }
    }
    (role.rules.as_deref().unwrap_or_default() != gathered).then_some(gathered)
}

/// An empty selector selects every role; one that cannot be read, none.
fn selects(selector: &LabelSelector, role: &ClusterRole) -> bool {
    let labels = role.metadata.labels.clone().unwrap_or_default();
    Selector::try_from(selector.clone()).is_ok_and(|selector| selector.matches(&labels))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn role(name: &str, labels: Value, rules: &[&str]) -> ClusterRole {
        let rules: Vec<Value> =
            rules.iter().map(|r| json!({"verbs": ["get"], "apiGroups": [""], "resources": [r]})).collect();
        serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "rules": rules})).unwrap()
    }

    fn gathering(name: &str, label: &str, rules: &[&str]) -> ClusterRole {
        let mut role = role(name, json!({"l": name}), rules);
        let rule = json!({"clusterRoleSelectors": [{"matchLabels": {"l": label}}]});
        role.aggregation_rule = serde_json::from_value(rule).unwrap();
        role
    }

    fn resources(rules: &[PolicyRule]) -> Vec<&str> {
        rules.iter().flat_map(|r| r.resources.iter().flatten()).map(String::as_str).collect()
    }

    #[test]
    fn a_role_gathers_what_it_selects_in_order_of_names() {
        let all = [
            gathering("sum", "x", &["stale"]),
            role("b", json!({"l": "x"}), &["pods", "nodes"]),
            role("a", json!({"l": "x"}), &["secrets", "pods"]),
            role("other", json!({"l": "y"}), &["jobs"]),
        ];
        let found = rules(&all[0], &all).unwrap();
        assert_eq!(resources(&found), ["secrets", "pods", "nodes"]);
        let mut done = all[0].clone();
        done.rules = Some(found);
        assert_eq!(rules(&done, &all), None, "once is enough");
        assert_eq!(rules(&all[1], &all), None, "its own rules are its own");
        let lonely = gathering("lonely", "none", &["stale"]);
        assert_eq!(rules(&lonely, [&lonely]), Some(vec![]));
        let mut everything = gathering("everything", "x", &[]);
        everything.aggregation_rule = serde_json::from_value(json!({"clusterRoleSelectors": [{}]})).unwrap();
        assert_eq!(resources(&rules(&everything, &all).unwrap()), ["secrets", "pods", "nodes", "jobs", "stale"]);
        let circle = gathering("x", "x", &[]);
        assert_eq!(rules(&circle, [&circle]), None, "not from itself");
    }
}

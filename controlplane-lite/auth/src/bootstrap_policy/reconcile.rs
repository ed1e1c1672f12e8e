//! What an upgrade changes of stored default roles and bindings: what they lack is added, what an administrator added
//! stays. Upstream's reconciliation at start.

use serde_json::{Map, Value, json};

use crate::authz::rbac::{PolicyRule, covers};

const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// The stored object with what it lacks of the default one; `None` when it lacks nothing, or its administrator wants it
/// left alone.
pub fn reconcile(stored: &Value, wanted: &Value) -> Option<Value> {
    if stored["metadata"]["annotations"][AUTOUPDATE] == "false" {
        return None;
    }
    let mut new = stored.clone();
    for field in ["labels", "annotations"] {
        add_entries(&mut new["metadata"], field, &wanted["metadata"][field]);
    }
    if wanted["roleRef"].is_object() {
        new["roleRef"] = wanted["roleRef"].clone();
        let same = |a: &Value, b: &Value| {
            ["kind", "apiGroup", "name", "namespace"]
                .iter()
                .all(|f| a[f].as_str().unwrap_or_default() == b[f].as_str().unwrap_or_default())
        };
        add_items(&mut new, &["subjects"], &wanted["subjects"], same);
    } else if wanted["aggregationRule"].is_object() {
        let selectors = &wanted["aggregationRule"]["clusterRoleSelectors"];
        add_items(&mut new, &["aggregationRule", "clusterRoleSelectors"], selectors, |a, b| a == b);
    } else {
        add_rules(&mut new, &wanted["rules"]);
    }
    (new != *stored).then_some(new)
}

fn add_entries(parent: &mut Value, field: &str, wanted: &Value) {
    let Some(wanted) = wanted.as_object() else { return };
    if !parent[field].is_object() {
        parent[field] = Value::Object(Map::new());
    }
    if let Some(have) = parent[field].as_object_mut() {
        for (key, value) in wanted {
            have.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
}

fn add_items(parent: &mut Value, path: &[&str], wanted: &Value, same: impl Fn(&Value, &Value) -> bool) {
    let Some(wanted) = wanted.as_array() else { return };
    let mut list = parent;
    for step in path {
        list = &mut list[*step];
    }
    if !list.is_array() {
        *list = json!([]);
    }
    if let Some(have) = list.as_array_mut() {
        for item in wanted {
            if !have.iter().any(|have| same(have, item)) {
                have.push(item.clone());
            }
        }
    }
}

fn add_rules(role: &mut Value, wanted: &Value) {
    let read = |rules: &Value| -> Vec<PolicyRule> {
        let rules = rules.as_array().into_iter().flatten();
        rules.filter_map(|rule| serde_json::from_value(rule.clone()).ok()).collect()
    };
    let have = read(&role["rules"]);
    let missing: Vec<Value> =
        read(wanted).iter().filter(|rule| !covers(&have, std::slice::from_ref(rule))).map(|rule| json!(rule)).collect();
    if missing.is_empty() {
        return;
    }
    match role["rules"].as_array_mut() {
        Some(rules) => rules.extend(missing),
        None => role["rules"] = json!(missing),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn named<'o>(objects: &'o [Value], kind: &str, name: &str) -> &'o Value {
        objects.iter().find(|o| o["kind"] == kind && o["metadata"]["name"] == name).unwrap()
    }

    #[test]
    fn what_is_as_it_should_be_stays() {
        for object in super::super::objects() {
            assert_eq!(reconcile(&object, &object), None, "{object}");
        }
    }

    #[test]
    fn what_lacks_is_added_and_what_was_added_stays() {
        let objects = super::super::objects();
        let wanted = named(&objects, "ClusterRole", "system:kube-scheduler");
        let mut stored = wanted.clone();
        let own = json!({"verbs": ["get"], "apiGroups": ["example.com"], "resources": ["widgets"]});
        stored["rules"] = json!([wanted["rules"][0], own]);
        stored["metadata"]["labels"] = json!({"mine": "x"});
        let new = reconcile(&stored, wanted).unwrap();
        assert!(new["rules"].as_array().unwrap().contains(&own));
        assert_eq!(new["rules"].as_array().unwrap().len(), wanted["rules"].as_array().unwrap().len() + 1);
        assert_eq!(new["metadata"]["labels"]["mine"], "x");
        assert_eq!(new["metadata"]["labels"]["kubernetes.io/bootstrapping"], "rbac-defaults");
        assert_eq!(reconcile(&new, wanted), None, "once is enough");
        stored["metadata"]["annotations"][AUTOUPDATE] = json!("false");
        assert_eq!(reconcile(&stored, wanted), None);
    }

    #[test]
    fn subjects_and_selectors_are_added() {
        let objects = super::super::objects();
        let wanted = named(&objects, "ClusterRoleBinding", "system:public-info-viewer");
        let mut stored = wanted.clone();
        let other = json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "jane"});
        stored["subjects"] = json!([wanted["subjects"][1], other]);
        stored["roleRef"]["name"] = json!("elsewhere");
        let new = reconcile(&stored, wanted).unwrap();
        assert_eq!(new["subjects"].as_array().unwrap().len(), 3);
        assert_eq!(new["roleRef"], wanted["roleRef"]);
        let wanted = named(&objects, "ClusterRole", "admin");
        let mut stored = wanted.clone();
        stored["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"own": "true"}}]});
        let new = reconcile(&stored, wanted).unwrap();
        assert_eq!(new["aggregationRule"]["clusterRoleSelectors"].as_array().unwrap().len(), 2);
        assert_eq!(new["rules"], stored["rules"], "rules of such a role are its controller's");
    }

    #[test]
    fn garbage_is_no_reason_to_stop() {
        for stored in [json!({}), json!({"rules": 3, "metadata": {}}), json!({"subjects": null, "metadata": {}})] {
            for object in super::super::objects() {
                let _ = reconcile(&stored, &object);
            }
        }
    }
}

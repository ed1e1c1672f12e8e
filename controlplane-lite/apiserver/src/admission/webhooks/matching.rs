//! Whether a webhook is about a request, and as which resource it sees it
//! (k8s.io/apiserver/pkg/admission/plugin/webhook/{generic/webhook,predicates}). Pure.

use serde_json::Value;

use super::hook::{Hook, Rule, Scope};
use scheme::selector::LabelSelector;

/// A resource, or a kind, of a group and version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Named<'a> {
    pub group: &'a str,
    pub version: &'a str,
    /// The plural, or the kind.
    pub name: &'a str,
}

/// What is asked of the rules.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub operation: &'a str,
    pub resource: Named<'a>,
    pub subresource: &'a str,
    /// Of an object of kind Namespace, its own name.
    pub namespace: &'a str,
}

impl Subject<'_> {
    /// Whether it is about a Namespace, which lives in none although it has its own name for one.
    pub(super) fn is_namespace(&self) -> bool {
        self.resource == Named { group: "", version: "v1", name: "namespaces" }
    }
}

/// The place of what a webhook's rules match first, in a list of resources that are the same in other versions: the one
/// that was asked for is the first, and for others only their like counts.
pub(super) fn resource(hook: &Hook, subject: &Subject<'_>, others: &[Named<'_>]) -> Option<usize> {
    if hook.rules.iter().any(|rule| matches(rule, subject)) {
        return Some(0);
    }
    if !hook.equivalent {
        return None;
    }
    // Earlier rules first, whatever they match.
    hook.rules.iter().find_map(|rule| {
        let of = |resource: &Named<'_>| matches(rule, &Subject { resource: *resource, ..*subject });
        others.iter().position(of).map(|place| place + 1)
    })
}

fn matches(rule: &Rule, subject: &Subject<'_>) -> bool {
    let clustered = subject.is_namespace() || subject.namespace.is_empty();
    let scope = match rule.scope {
        Scope::All => true,
        Scope::Cluster => clustered,
        Scope::Namespaced => !clustered,
        Scope::Nowhere => false,
    };
    scope
        && is_one(&rule.operations, subject.operation)
        && is_one(&rule.groups, subject.resource.group)
        && is_one(&rule.versions, subject.resource.version)
        && rule.resources.iter().any(|text| names(text, subject))
}

fn is_one(items: &[String], wanted: &str) -> bool {
    items.iter().any(|item| item == "*" || item == wanted)
}

fn names(text: &str, subject: &Subject<'_>) -> bool {
    let (resource, subresource) = text.split_once('/').unwrap_or((text, ""));
    let is = |word: &str, wanted: &str| word == "*" || word == wanted;
    is(resource, subject.resource.name) && is(subresource, subject.subresource)
}

/// Whether the labels of the object, as it was or as it is to be, are selected.
pub(super) fn selects(selector: &LabelSelector, objects: [Option<&Value>; 2]) -> bool {
    let labelled = |object: &Value| object["metadata"].is_object();
    selector.is_everything()
        || objects.into_iter().flatten().any(|object| labelled(object) && selector.matches_object(object))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::outbound::Unusable;

    fn hook(changes: Value) -> Hook {
        let base = json!({"name": "a.b.c", "matchPolicy": "Exact", "namespaceSelector": {}, "objectSelector": {}});
        let webhook = scheme::patch::merge::apply(&base, &changes);
        Hook::read("config", &webhook, 0, |_| Err(Unusable::NoPlace))
    }

    const PODS: Named<'_> = Named { group: "", version: "v1", name: "pods" };
    const CREATE: Subject<'_> = Subject { operation: "CREATE", resource: PODS, subresource: "", namespace: "n" };

    fn rule(operations: &[&str], group: &str, version: &str, resource: &str, scope: &str) -> Value {
        json!({"operations": operations, "apiGroups": [group], "apiVersions": [version], "resources": [resource],
            "scope": scope})
    }

    /// The cases of `predicates/rules/rules_test.go`.
    #[test]
    fn rules() {
        let nodes = Subject { resource: Named { name: "nodes", ..PODS }, namespace: "", ..CREATE };
        let namespaces = Subject { resource: Named { name: "namespaces", ..PODS }, namespace: "n", ..CREATE };
        let status = Subject { subresource: "status", operation: "UPDATE", ..CREATE };
        let apps = Subject { resource: Named { group: "apps", version: "v1", name: "deployments" }, ..CREATE };
        for (rule, subject, expect) in [
            (rule(&["CREATE"], "", "v1", "pods", "*"), CREATE, true),
            (rule(&["*"], "*", "*", "*", "*"), CREATE, true),
            (rule(&["UPDATE", "DELETE"], "*", "*", "*", "*"), CREATE, false),
            (rule(&["*"], "apps", "*", "*", "*"), CREATE, false),
            (rule(&["*"], "", "v2", "*", "*"), CREATE, false),
            (rule(&["*"], "", "*", "*", "*"), apps, false),
            (rule(&["*"], "*", "*", "pods", "*"), status, false),
            (rule(&["*"], "*", "*", "*", "*"), status, false),
            (rule(&["*"], "*", "*", "*/*", "*"), status, true),
            (rule(&["*"], "*", "*", "pods/*", "*"), status, true),
            (rule(&["*"], "*", "*", "*/status", "*"), status, true),
            (rule(&["*"], "*", "*", "nodes/status", "*"), status, false),
            (rule(&["*"], "*", "*", "pods/*", "*"), CREATE, true),
            (rule(&["*"], "*", "*", "*", "Namespaced"), CREATE, true),
            (rule(&["*"], "*", "*", "*", "Cluster"), CREATE, false),
            (rule(&["*"], "*", "*", "*", "Namespaced"), nodes, false),
            (rule(&["*"], "*", "*", "*", "Cluster"), nodes, true),
            (rule(&["*"], "*", "*", "*", "Namespaced"), namespaces, false),
            (rule(&["*"], "*", "*", "*", "Cluster"), namespaces, true),
            (rule(&["*"], "*", "*", "*", "Other"), CREATE, false),
        ] {
            let hook = hook(json!({"rules": [rule]}));
            assert_eq!(resource(&hook, &subject, &[]).is_some(), expect, "{rule} {subject:?}");
        }
        assert_eq!(resource(&hook(json!({})), &CREATE, &[]), None);
    }

    #[test]
    fn other_versions_count_where_they_may() {
        let v1 = Named { group: "autoscaling", version: "v1", name: "horizontalpodautoscalers" };
        let v2 = Named { version: "v2", ..v1 };
        let asked = Subject { resource: v2, ..CREATE };
        let of_v1 = json!({"rules": [rule(&["*"], "autoscaling", "v1", "*", "*")]});
        let equivalent = scheme::patch::merge::apply(&of_v1, &json!({"matchPolicy": "Equivalent"}));
        assert_eq!(resource(&hook(of_v1), &asked, &[v1]), None);
        assert_eq!(resource(&hook(equivalent.clone()), &asked, &[v1]), Some(1));
        assert_eq!(resource(&hook(equivalent), &asked, &[]), None);
        // What was asked for is preferred, and then the rule that stands first.
        let both = json!({"matchPolicy": "Equivalent", "rules": [
            rule(&["*"], "autoscaling", "v1", "*", "*"), rule(&["*"], "autoscaling", "v2", "*", "*")]});
        assert_eq!(resource(&hook(both.clone()), &asked, &[v1]), Some(0));
        let beta = Named { version: "v2beta1", ..v1 };
        assert_eq!(resource(&hook(both), &Subject { resource: beta, ..CREATE }, &[v2, v1]), Some(2));
    }

    #[test]
    fn labels_of_either_state_count() {
        let selector = |object: Value| LabelSelector::from_object(&object).unwrap_or_default();
        let labelled = json!({"metadata": {"labels": {"a": "b"}}});
        let bare = json!({"metadata": {}});
        let wants = selector(json!({"matchLabels": {"a": "b"}}));
        let avoids = selector(json!({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}));
        assert!(selects(&selector(json!({})), [None, None]));
        assert!(!selects(&wants, [None, None]) && !selects(&avoids, [None, None]));
        assert!(selects(&wants, [Some(&labelled), None]) && selects(&wants, [Some(&bare), Some(&labelled)]));
        assert!(!selects(&wants, [Some(&bare), None]) && selects(&avoids, [Some(&labelled), Some(&bare)]));
        // Options of a connection have no labels, and no metadata to have any.
        assert!(!selects(&avoids, [Some(&json!({"kind": "PodExecOptions"})), None]));
    }
}

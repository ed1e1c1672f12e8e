//! Whether a Node is one that a pod may be on, by what the pod selects and what the Node is tainted with.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, Taint, Toleration};

use crate::convert::spec;

type Labels = BTreeMap<String, String>;

/// Whether the Node is one that the pod selects, by `nodeSelector` and by the affinity that is required
/// (component-helpers, scheduling/corev1/nodeaffinity: `GetRequiredNodeAffinity`).
pub fn is_selected(pod: &Pod, node: &Node) -> bool {
    let spec = spec::spec(pod);
    let none = Labels::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&none);
    let selected = spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    let fields = Labels::from([("metadata.name".to_owned(), node.metadata.name.clone().unwrap_or_default())]);
    selected
        && required.is_none_or(|required| required.node_selector_terms.iter().any(|term| holds(term, labels, &fields)))
}

/// A term that asks for nothing selects nothing.
fn holds(term: &NodeSelectorTerm, labels: &Labels, fields: &Labels) -> bool {
    let asked = [(&term.match_expressions, labels), (&term.match_fields, fields)];
    let mut all =
        asked.iter().flat_map(|(wanted, of)| wanted.iter().flatten().map(move |wanted| (wanted, *of))).peekable();
    all.peek().is_some() && all.all(|(wanted, of)| meets(wanted, of))
}

fn meets(wanted: &NodeSelectorRequirement, of: &Labels) -> bool {
    let (value, values) = (of.get(&wanted.key), wanted.values.as_deref().unwrap_or_default());
    let number = |text: &String| text.parse::<i64>().ok();
    let compared = || value.and_then(number).zip(values.first().and_then(number));
    match wanted.operator.as_str() {
        "In" => value.is_some_and(|value| values.contains(value)),
        "NotIn" => value.is_none_or(|value| !values.contains(value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared().is_some_and(|(value, least)| value > least),
        "Lt" => compared().is_some_and(|(value, most)| value < most),
        _ => false,
    }
}

/// Whether the Node is tainted such that what runs there and does not tolerate it has to go.
pub fn has_untolerated_taint(pod: &Pod, node: &Node) -> bool {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let mut expelling = taints.filter(|taint| taint.effect == "NoExecute");
    expelling.any(|taint| !tolerates(pod, taint))
}

/// Whether the pod tolerates a taint (component-helpers, scheduling/corev1: `ToleratesTaint`).
pub fn tolerates(pod: &Pod, taint: &Taint) -> bool {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let by = |toleration: &Toleration| {
        let (key, effect) = (text(&toleration.key), text(&toleration.effect));
        (key.is_empty() || key == taint.key)
            && (effect.is_empty() || effect == taint.effect)
            && match text(&toleration.operator).as_str() {
                "Exists" => true,
                "" | "Equal" => text(&toleration.value) == text(&taint.value),
                _ => false,
            }
    };
    spec::spec(pod).tolerations.iter().flatten().any(by)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testutil::pod;

    fn node(text: &str) -> Node {
        serde_norway::from_str(text).unwrap()
    }

    #[test]
    fn selectors_and_affinity() {
        let node = node("metadata: {name: n1, labels: {disk: ssd, cores: '8'}}");
        let with = |spec: &str| is_selected(&pod(&format!("{spec}\n  containers: []")), &node);
        let terms = |terms: &str| {
            with(&format!(
                "  affinity: {{nodeAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: {{nodeSelectorTerms: [{terms}]}}}}}}"
            ))
        };
        assert!(with("") && with("  nodeSelector: {disk: ssd}"));
        assert!(!with("  nodeSelector: {disk: ssd, zone: a}"));
        let one = |requirement: &str| terms(&format!("{{matchExpressions: [{{{requirement}}}]}}"));
        for (requirement, met) in [
            ("key: disk, operator: In, values: [hdd, ssd]", true),
            ("key: disk, operator: In, values: [hdd]", false),
            ("key: zone, operator: In, values: [a]", false),
            ("key: disk, operator: NotIn, values: [hdd]", true),
            ("key: disk, operator: NotIn, values: [ssd]", false),
            ("key: zone, operator: NotIn, values: [a]", true),
            ("key: disk, operator: Exists", true),
            ("key: zone, operator: Exists", false),
            ("key: zone, operator: DoesNotExist", true),
            ("key: disk, operator: DoesNotExist", false),
            ("key: cores, operator: Gt, values: ['7']", true),
            ("key: cores, operator: Gt, values: ['8']", false),
            ("key: cores, operator: Lt, values: ['9']", true),
            ("key: disk, operator: Lt, values: ['9']", false),
            ("key: zone, operator: Gt, values: ['0']", false),
            ("key: disk, operator: Resembles, values: [ssd]", false),
        ] {
            assert_eq!(one(requirement), met, "{requirement}");
        }
        // One term is enough, all of it is needed, and one that asks for nothing is none.
        let (fits, not) = ("{key: disk, operator: Exists}", "{key: zone, operator: Exists}");
        assert!(terms(&format!("{{matchExpressions: [{not}]}}, {{matchExpressions: [{fits}]}}")));
        assert!(!terms(&format!("{{matchExpressions: [{fits}, {not}]}}")));
        assert!(!terms("{}") && !terms("") && !terms("{matchExpressions: []}"));
        let field = |name: &str| format!("matchFields: [{{key: metadata.name, operator: In, values: [{name}]}}]");
        assert!(terms(&format!("{{{}}}", field("n1"))) && !terms(&format!("{{{}}}", field("n2"))));
        assert!(!terms(&format!("{{matchExpressions: [{not}], {}}}", field("n1"))));
    }

    #[test]
    fn taints_and_tolerations() {
        let node = node("spec: {taints: [{key: a, value: x, effect: NoExecute}, {key: b, effect: NoSchedule}]}");
        let expelled = |tolerations: &str| {
            has_untolerated_taint(&pod(&format!("  tolerations: [{tolerations}]\n  containers: []")), &node)
        };
        for (tolerations, goes) in [
            ("", true),
            ("{key: a, operator: Exists}", false),
            ("{key: a, value: x}", false),
            ("{key: a, operator: Equal, value: x, effect: NoExecute}", false),
            ("{key: a, value: y}", true),
            ("{key: a, operator: Exists, effect: NoSchedule}", true),
            ("{operator: Exists}", false),
            ("{key: b, operator: Exists}, {key: a, operator: Exists}", false),
            ("{key: b, operator: Exists}", true),
        ] {
            assert_eq!(expelled(tolerations), goes, "{tolerations}");
        }
        assert!(!has_untolerated_taint(&pod("  containers: []"), &Node::default()));
    }
}

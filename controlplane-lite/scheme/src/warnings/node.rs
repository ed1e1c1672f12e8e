//! Labels of nodes that are deprecated, and where selectors name them (`pkg/api/node/util.go`). Pure.

use serde_json::Value;

use crate::access::{list_at, str_at};
use crate::field::Path;

/// Labels, and what to use instead.
const LABELS: [(&str, &str); 8] = [
    ("beta.kubernetes.io/arch", r#"deprecated since v1.14; use "kubernetes.io/arch" instead"#),
    ("beta.kubernetes.io/os", r#"deprecated since v1.14; use "kubernetes.io/os" instead"#),
    (
        "failure-domain.beta.kubernetes.io/region",
        r#"deprecated since v1.17; use "topology.kubernetes.io/region" instead"#,
    ),
    ("failure-domain.beta.kubernetes.io/zone", r#"deprecated since v1.17; use "topology.kubernetes.io/zone" instead"#),
    ("beta.kubernetes.io/instance-type", r#"deprecated since v1.17; use "node.kubernetes.io/instance-type" instead"#),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    ("scheduler.alpha.kubernetes.io/preferAvoidPods", "deprecated since v1.22; use Taints and Tolerations instead"),
    ("node-role.kubernetes.io/master", r#"use "node-role.kubernetes.io/control-plane" instead"#),
];

/// What to say of a label of nodes, if it is deprecated.
pub(super) fn deprecated_label(label: &str) -> Option<&'static str> {
    LABELS.iter().find(|(name, _)| *name == label).map(|(_, message)| *message)
}

/// Warns of the deprecated labels that a node selector term names.
pub(super) fn deprecated_terms(term: &Value, path: &Path<'_>, out: &mut Vec<String>) {
    let path = path.child("matchExpressions");
    for (index, expression) in list_at(term, &["matchExpressions"]).iter().enumerate() {
        let key = str_at(expression, &["key"]);
        if let Some(message) = deprecated_label(key) {
            out.push(format!("{}: {key} is {message}", path.index(index).child("key")));
        }
    }
}

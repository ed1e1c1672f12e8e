//! admissionregistration.k8s.io (`pkg/printers/internalversion/printers.go`).

use serde_json::Value;

use super::{Column, Printer, age, name};
use crate::access::{at, list_at, str_at};

const fn count(name: &'static str, description: &'static str) -> Column<'static> {
    Column { description, ..Column::int(name) }
}

const fn about(name: &'static str, description: &'static str) -> Column<'static> {
    Column { description, ..Column::text(name) }
}

const PARAM_KIND: Column<'static> =
    about("ParamKind", "ParamKind specifies the kind of resources used to parameterize this policy");

/// Configurations of webhooks, mutating and validating.
pub static WEBHOOK_CONFIGURATIONS: Printer = Printer::new(
    &[
        Column::NAME,
        count("Webhooks", "Webhooks indicates the number of webhooks registered in this configuration"),
        Column::AGE,
    ],
    |object, now| vec![name(object), list_at(object, &["webhooks"]).len().into(), age(object, now)],
);

/// ValidatingAdmissionPolicies.
pub static VALIDATING_POLICIES: Printer = Printer::new(
    &[
        Column::NAME,
        count("Validations", "Validations indicates the number of validation rules defined in this configuration"),
        PARAM_KIND,
        Column::AGE,
    ],
    |object, now| {
        let rules = list_at(object, &["spec", "validations"]).len();
        vec![name(object), rules.into(), param_kind(object), age(object, now)]
    },
);

/// MutatingAdmissionPolicies.
pub static MUTATING_POLICIES: Printer = Printer::new(
    &[
        Column::NAME,
        count("Mutations", "Mutation indicates the number of mutations rules defined in this configuration"),
        PARAM_KIND,
        Column::AGE,
    ],
    |object, now| {
        let rules = list_at(object, &["spec", "mutations"]).len();
        vec![name(object), rules.into(), param_kind(object), age(object, now)]
    },
);

/// Bindings of policies, mutating and validating.
pub static POLICY_BINDINGS: Printer = Printer::new(
    &[
        Column::NAME,
        about("PolicyName", "PolicyName indicates the policy definition which the policy binding binded to"),
        about("ParamRef", "ParamRef indicates the param resource which sets the configration param"),
        Column::AGE,
    ],
    |object, now| {
        vec![name(object), str_at(object, &["spec", "policyName"]).into(), param_ref(object), age(object, now)]
    },
);

fn param_kind(object: &Value) -> Value {
    match at(object, &["spec", "paramKind"]) {
        Value::Null => "<unset>".into(),
        kind => format!("{}/{}", str_at(kind, &["apiVersion"]), str_at(kind, &["kind"])).into(),
    }
}

/// Whether parameters live in namespaces is not to be seen here: without one they are shown in any.
fn param_ref(object: &Value) -> Value {
    let reference = at(object, &["spec", "paramRef"]);
    let namespace = match str_at(reference, &["namespace"]) {
        "" => "*",
        namespace => namespace,
    };
    match (str_at(reference, &["name"]), at(reference, &["selector"])) {
        ("", Value::Null) => "<unset>".into(),
        ("", selector) => go_selector(selector).into(),
        (name, _) => format!("{namespace}/{name}").into(),
    }
}

/// A selector as Go prints the struct (`&LabelSelector{MatchLabels:map[string]string{a: b,},…}`).
fn go_selector(selector: &Value) -> String {
    let labels = crate::access::entries_at(selector, &["matchLabels"]);
    let labels: String = labels.map(|(key, value)| format!("{key}: {},", value.as_str().unwrap_or(""))).collect();
    let requirement = |one: &Value| {
        let values: Vec<&str> = list_at(one, &["values"]).iter().filter_map(Value::as_str).collect();
        let (key, operator) = (str_at(one, &["key"]), str_at(one, &["operator"]));
        format!("LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{}],}},", values.join(" "))
    };
    let expressions: String = list_at(selector, &["matchExpressions"]).iter().map(requirement).collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},\
         MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn references_are_printed_as_upstream_prints_them() {
        let binding = |reference| json!({"spec": {"paramRef": reference}});
        for (reference, expect) in [
            (json!(null), "<unset>"),
            (json!({"name": "a"}), "*/a"),
            (json!({"name": "a", "namespace": "n"}), "n/a"),
            (
                json!({"selector": {"matchLabels": {"a": "b"},
                    "matchExpressions": [{"key": "k", "operator": "In", "values": ["x", "y"]}]}}),
                "&LabelSelector{MatchLabels:map[string]string{a: b,},MatchExpressions:[]LabelSelectorRequirement{\
                 LabelSelectorRequirement{Key:k,Operator:In,Values:[x y],},},}",
            ),
        ] {
            assert_eq!(param_ref(&binding(reference)), expect);
        }
        assert_eq!(
            param_kind(&json!({"spec": {"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}}})),
            "v1/ConfigMap"
        );
    }
}

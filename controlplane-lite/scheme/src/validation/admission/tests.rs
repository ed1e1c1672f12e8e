//! Tables of configurations and policies that are refused, with upstream's texts; the cases are those of
//! `pkg/apis/admissionregistration/validation/validation_test.go`.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use serde_json::{Value, json};

use crate::expressions::{Expression, ExpressionCheck, Purpose};
use crate::field::{FieldErrors, Path};
use crate::patch::merge;
use crate::{Kind, Scheme, builtin};

mod policies;

use policies::{mutating, validating};

const GROUP: &str = "admissionregistration.k8s.io";

fn kind(name: &str) -> &'static Kind {
    builtin().by_gvk(GROUP, "v1", name).unwrap()
}

fn texts(errors: &FieldErrors) -> Vec<String> {
    errors.0.iter().map(ToString::to_string).collect()
}

fn created(kind: &Kind, mut object: Value) -> (Value, Vec<String>) {
    kind.default(&mut object);
    kind.prepare_create(&mut object, &crate::tests::context());
    let problems = texts(&kind.validate_create(&object));
    (object, problems)
}

fn updated(kind: &Kind, old: &Value, changes: &Value) -> Vec<String> {
    let mut new = merge::apply(old, changes);
    kind.default(&mut new);
    kind.prepare_update("", &mut new, old, &crate::tests::context());
    texts(&kind.validate_update("", &new, old))
}

fn hook(changes: &Value) -> Value {
    let hook = json!({"name": "webhook.k8s.io", "clientConfig": {"url": "https://example.com"}, "sideEffects": "None",
        "admissionReviewVersions": ["v1"]});
    merge::apply(&hook, changes)
}

fn hooks(hooks: &[Value]) -> Value {
    json!({"metadata": {"name": "config"}, "webhooks": hooks})
}

fn rule(changes: &Value) -> Value {
    let rule = json!({"operations": ["CREATE"], "apiGroups": ["a"], "apiVersions": ["v1"], "resources": ["a"]});
    merge::apply(&rule, changes)
}

const WEBHOOK: &str = "webhooks[0]";

#[test]
fn webhooks_are_defaulted() {
    let changes = json!({"rules": [rule(&json!({}))],
        "clientConfig": {"url": null, "service": {"name": "n", "namespace": "s"}}});
    for (name, more) in [
        ("MutatingWebhookConfiguration", json!({"reinvocationPolicy": "Never"})),
        ("ValidatingWebhookConfiguration", json!({})),
    ] {
        let (object, problems) = created(kind(name), hooks(&[hook(&changes)]));
        assert_eq!(problems, [""; 0]);
        let defaulted = json!({"failurePolicy": "Fail", "matchPolicy": "Equivalent", "namespaceSelector": {},
            "objectSelector": {}, "timeoutSeconds": 10, "rules": [rule(&json!({"scope": "*"}))],
            "clientConfig": {"service": {"port": 443}}});
        let expect = merge::apply(&merge::apply(&hook(&changes), &defaulted), &more);
        assert_eq!(object["webhooks"][0], expect);
        assert_eq!(object["metadata"]["generation"], 1);
    }
}

#[test]
fn webhooks_that_are_none() {
    let of_rule = |changes: Value| json!({"rules": [rule(&changes)]});
    let required = |field: &str| vec![format!("{WEBHOOK}.{field}: Required value")];
    let invalid = |field: &str, rest: &str| vec![format!("{WEBHOOK}.{field}: Invalid value: {rest}")];
    let rows = [
        (json!({"name": ""}), required("name")),
        (
            json!({"name": "k8s.io"}),
            invalid("name", "\"k8s.io\": should be a domain with at least three segments separated by dots"),
        ),
        (of_rule(json!({"operations": []})), required("rules[0].operations")),
        (
            of_rule(json!({"operations": ["*", "CREATE"]})),
            invalid("rules[0].operations", "[\"*\",\"CREATE\"]: if '*' is present, must not specify other operations"),
        ),
        (
            of_rule(json!({"operations": ["PATCH"]})),
            vec![format!(
                "{WEBHOOK}.rules[0].operations[0]: Unsupported value: \"PATCH\": supported values: \"*\", \"CONNECT\", \
                 \"CREATE\", \"DELETE\", \"UPDATE\""
            )],
        ),
        (of_rule(json!({"apiGroups": null})), required("rules[0].apiGroups")),
        (
            of_rule(json!({"apiGroups": ["a", "*"]})),
            invalid("rules[0].apiGroups", "[\"a\",\"*\"]: if '*' is present, must not specify other API groups"),
        ),
        (of_rule(json!({"apiVersions": [""]})), required("rules[0].apiVersions[0]")),
        (of_rule(json!({"resources": []})), required("rules[0].resources")),
        (of_rule(json!({"resources": [""]})), required("rules[0].resources[0]")),
        (
            of_rule(json!({"resources": ["a/*", "a/x"]})),
            invalid("rules[0].resources[1]", "\"a/x\": if 'a/*' is present, must not specify a/x"),
        ),
        (
            of_rule(json!({"resources": ["*/a", "x/a"]})),
            invalid("rules[0].resources[1]", "\"x/a\": if '*/a' is present, must not specify x/a"),
        ),
        (
            of_rule(json!({"resources": ["*/*", "a"]})),
            invalid("rules[0].resources", "[\"*/*\",\"a\"]: if '*/*' is present, must not specify other resources"),
        ),
        (
            of_rule(json!({"resources": ["*", "a"]})),
            invalid(
                "rules[0].resources",
                "[\"*\",\"a\"]: if '*' is present, must not specify other resources without subresources",
            ),
        ),
        (of_rule(json!({"resources": ["*", "a/b"]})), vec![]),
        (
            of_rule(json!({"scope": ""})),
            vec![format!(
                "{WEBHOOK}.rules[0].scope: Unsupported value: \"\": supported values: \"*\", \"Cluster\", \
                 \"Namespaced\""
            )],
        ),
        (
            json!({"failurePolicy": "other"}),
            vec![format!(
                "{WEBHOOK}.failurePolicy: Unsupported value: \"other\": supported values: \"Fail\", \"Ignore\""
            )],
        ),
        (
            json!({"sideEffects": null}),
            vec![format!("{WEBHOOK}.sideEffects: Required value: must specify one of None, NoneOnDryRun")],
        ),
        (
            json!({"sideEffects": "Some"}),
            vec![format!(
                "{WEBHOOK}.sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\""
            )],
        ),
        (
            json!({"timeoutSeconds": 31}),
            invalid("timeoutSeconds", "31: the timeout value must be between 1 and 30 seconds"),
        ),
        (
            json!({"clientConfig": {"service": {"name": "n", "namespace": "s"}}}),
            vec![format!("{WEBHOOK}.clientConfig: Required value: exactly one of url or service is required")],
        ),
        (
            json!({"clientConfig": {"url": "http://a"}}),
            invalid(
                "clientConfig.url",
                "\"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
            ),
        ),
        (
            json!({"admissionReviewVersions": []}),
            vec![format!("{WEBHOOK}.admissionReviewVersions: Required value: must specify one of v1, v1beta1")],
        ),
        (
            json!({"admissionReviewVersions": ["v2"]}),
            invalid("admissionReviewVersions", "[\"v2\"]: must include at least one of v1, v1beta1"),
        ),
        (
            json!({"admissionReviewVersions": ["v1", "v1"]}),
            invalid("admissionReviewVersions[1]", "\"v1\": duplicate version"),
        ),
        (json!({"matchConditions": [{"name": "a", "expression": " "}]}), required("matchConditions[0].expression")),
        (json!({"matchConditions": [{"expression": "true"}]}), required("matchConditions[0].name")),
        (
            json!({"matchConditions": [{"name": "a", "expression": "a"}, {"name": "a", "expression": "b"}]}),
            vec![format!("{WEBHOOK}.matchConditions[1].name: Duplicate value: \"a\"")],
        ),
        (
            json!({"matchConditions": vec![json!({"expression": "a"}); 65]}),
            (0..66)
                .map(|n| match n {
                    0 => format!("{WEBHOOK}.matchConditions: Too many: 65: must have at most 64 items"),
                    n => format!("{WEBHOOK}.matchConditions[{}].name: Required value", n - 1),
                })
                .collect(),
        ),
    ];
    for (changes, expect) in rows {
        for name in ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"] {
            assert_eq!(created(kind(name), hooks(&[hook(&changes)])).1, expect, "{changes}");
        }
    }
    let mutating = kind("MutatingWebhookConfiguration");
    let twice = created(mutating, hooks(&[hook(&json!({})), hook(&json!({}))])).1;
    assert_eq!(twice, ["webhooks[1].name: Duplicate value: \"webhook.k8s.io\""]);
    let other = created(mutating, hooks(&[hook(&json!({"reinvocationPolicy": "Always"}))])).1;
    assert_eq!(
        other,
        ["webhooks[0].reinvocationPolicy: Unsupported value: \"Always\": supported values: \"IfNeeded\", \"Never\""]
    );
}

/// What was stored before a rule was made, or from another version, can still be changed.
#[test]
fn updates_of_webhooks_keep_what_was_stored() {
    let kind = kind("ValidatingWebhookConfiguration");
    let rows = [
        (json!({"sideEffects": "Some"}), json!({"sideEffects": "Unknown"})),
        (json!({"admissionReviewVersions": ["v2"]}), json!({"admissionReviewVersions": ["v3"]})),
        (json!({"matchConditions": [{"name": "a"}]}), json!({"matchConditions": [{"name": "a"}], "timeoutSeconds": 3})),
        (
            json!({"objectSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["-"]}]}}),
            json!({"objectSelector": {"matchExpressions": [{"key": "b", "operator": "In", "values": ["+"]}]}}),
        ),
    ];
    for (stored, changed) in rows {
        let mut old = hooks(&[hook(&stored)]);
        kind.default(&mut old);
        let mut fine = hooks(&[hook(&json!({}))]);
        kind.default(&mut fine);
        let with = json!({"webhooks": [hook(&changed)]});
        assert_eq!(updated(kind, &old, &with), [""; 0], "{changed}");
        assert!(!updated(kind, &fine, &with).is_empty(), "{changed}");
    }
    let mut twice = hooks(&[hook(&json!({})), hook(&json!({}))]);
    kind.default(&mut twice);
    assert_eq!(updated(kind, &twice, &json!({"metadata": {"labels": {"a": "b"}}})), [""; 0]);
}

#[test]
fn names_of_files_are_warned_of() {
    for name in ["MutatingWebhookConfiguration", "ValidatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"] {
        let told = kind(name).strategy.warnings(&json!({"metadata": {"name": "a.static.k8s.io"}}));
        assert_eq!(
            told,
            [
                "metadata.name: names ending with \".static.k8s.io\" are reserved for static manifest-based configurations \
              and cannot be managed via the API"
            ]
        );
        assert!(kind(name).strategy.warnings(&json!({"metadata": {"name": "a"}})).is_empty());
    }
}

/// Says of each expression what it was told.
fn asking() -> Arc<Scheme> {
    let check: Arc<ExpressionCheck> = Arc::new(|e: Expression<'_>, path: &Path<'_>, errors: &mut FieldErrors| {
        let variables: Vec<&str> = e.variables.iter().filter_map(|v| v["name"].as_str()).collect();
        let told = format!("{:?} {} {} {}", e.purpose, e.params, variables.join("+"), e.stored);
        errors.invalid(path, e.text, told);
    });
    crate::with_expressions(builtin(), &check)
}

#[test]
fn expressions_are_asked_about() {
    let scheme = asking();
    let kind = |name: &str| scheme.by_gvk(GROUP, "v1", name).unwrap();
    let policy = validating(&json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConditions": [{"name": "m", "expression": " m "}],
        "variables": [{"name": "a", "expression": "va"}, {"name": "b", "expression": "vb"}],
        "validations": [{"expression": "v", "messageExpression": "say"}],
        "auditAnnotations": [{"key": "k", "valueExpression": " aa"}],
    }));
    let (stored, problems) = created(kind("ValidatingAdmissionPolicy"), policy);
    let told = |path: &str, text: &str, what: &str| format!("spec.{path}: Invalid value: \"{text}\": {what}");
    assert_eq!(
        problems,
        [
            told("matchConditions[0].expression", "m", "MatchCondition true  false"),
            told("variables[0].expression", "va", "Variable true  false"),
            told("variables[1].expression", "vb", "Variable true a false"),
            told("validations[0].expression", "v", "Validation true a+b false"),
            told("validations[0].messageExpression", "say", "Message true a+b false"),
            told("auditAnnotations[0].valueExpression", "aa", "AuditAnnotation true a+b false"),
        ]
    );
    // Conditions that are as they were are not asked about, and the rest is known.
    let problems = updated(kind("ValidatingAdmissionPolicy"), &stored, &json!({"metadata": {"labels": {"a": "b"}}}));
    assert_eq!(problems.len(), 5);
    assert_eq!(problems[2], told("validations[0].expression", "v", "Validation true a+b true"));
    let (_, problems) = created(kind("MutatingAdmissionPolicy"), mutating(&json!({})));
    assert_eq!(problems, [told("mutations[0].jsonPatch.expression", "[]", "JsonPatch false  false")]);
    let conditions = json!({"matchConditions": [{"name": "m", "expression": "m"}]});
    let (stored, problems) = created(kind("MutatingWebhookConfiguration"), hooks(&[hook(&conditions)]));
    assert_eq!(
        problems,
        ["webhooks[0].matchConditions[0].expression: Invalid value: \"m\": MatchCondition false  false"]
    );
    assert_eq!(updated(kind("MutatingWebhookConfiguration"), &stored, &json!({"metadata": {"labels": {}}})), [""; 0]);
    assert_eq!(Purpose::Variable, Purpose::Variable);
}

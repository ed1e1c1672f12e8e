//! Policies and bindings.

use serde_json::{Value, json};

use super::{created, kind, rule, texts};
use crate::patch::merge;

pub(super) fn validating(changes: &Value) -> Value {
    let policy = json!({"metadata": {"name": "config"}, "spec": {
        "matchConstraints": {"resourceRules": [rule(&json!({}))]},
        "validations": [{"expression": "object.x < 100"}]}});
    merge::apply(&policy, &json!({"spec": changes}))
}

pub(super) fn mutating(changes: &Value) -> Value {
    let policy = json!({"metadata": {"name": "config"}, "spec": {
        "matchConstraints": {"resourceRules": [rule(&json!({}))]}, "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[]"}}]}});
    merge::apply(&policy, &json!({"spec": changes}))
}

#[test]
fn policies_are_defaulted() {
    for (name, policy) in
        [("ValidatingAdmissionPolicy", validating(&json!({}))), ("MutatingAdmissionPolicy", mutating(&json!({})))]
    {
        let (object, problems) = created(kind(name), policy);
        assert_eq!(problems, [""; 0]);
        assert_eq!(object["spec"]["failurePolicy"], "Fail");
        let expect = json!({"matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {},
            "resourceRules": [rule(&json!({"scope": "*"}))]});
        assert_eq!(object["spec"]["matchConstraints"], expect);
        assert_eq!(object.get("status").is_some(), name == "ValidatingAdmissionPolicy");
    }
}

#[test]
fn policies_that_are_none() {
    const NEITHER: &str = "Required value: validations or auditAnnotations must contain at least one item";
    let of_kind = |kind: Value| json!({"paramKind": kind});
    let named =
        |name: &str| json!({"matchConstraints": {"resourceRules": [rule(&json!({"resourceNames": [name, name]}))]}});
    let validation = |changes: Value| json!({"validations": [merge::apply(&json!({"expression": "true"}), &changes)]});
    let annotation = |changes: Value| json!({"auditAnnotations": [merge::apply(&json!({"key": "k", "valueExpression": "'a'"}), &changes)]});
    let rows: [(Value, &[&str]); 20] = [
        (
            json!({"failurePolicy": "other"}),
            &["spec.failurePolicy: Unsupported value: \"other\": supported values: \"Fail\", \"Ignore\""],
        ),
        (json!({"matchConstraints": null}), &["spec.matchConstraints: Required value"]),
        (
            json!({"matchConstraints": {"resourceRules": null}}),
            &["spec.matchConstraints.resourceRules: Required value"],
        ),
        (named("a"), &["spec.matchConstraints.resourceRules[0].resourceNames[1]: Duplicate value: \"a\""]),
        (of_kind(json!({"apiVersion": "", "kind": "K"})), &["spec.paramKind.apiVersion: Required value"]),
        (
            of_kind(json!({"apiVersion": "a/b/c", "kind": "K"})),
            &["spec.paramKind.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c"],
        ),
        (
            of_kind(json!({"apiVersion": "a/", "kind": "K"})),
            &["spec.paramKind.apiVersion: Invalid value: \"a/\": version must be specified"],
        ),
        (
            of_kind(json!({"apiVersion": "/", "kind": "K"})),
            &["spec.paramKind.apiVersion: Invalid value: \"/\": version must be specified"],
        ),
        (of_kind(json!({"apiVersion": "v1"})), &["spec.paramKind.kind: Required value"]),
        (
            json!({"validations": null}),
            &[
                &*Box::leak(format!("spec.validations: {NEITHER}").into_boxed_str()),
                &*Box::leak(format!("spec.auditAnnotations: {NEITHER}").into_boxed_str()),
            ],
        ),
        (
            validation(json!({"expression": " "})),
            &["spec.validations[0].expression: Required value: expression is not specified"],
        ),
        (
            validation(json!({"messageExpression": " "})),
            &["spec.validations[0].messageExpression: Invalid value: \" \": must be non-empty if specified"],
        ),
        (
            validation(json!({"message": " "})),
            &["spec.validations[0].message: Invalid value: \" \": message must be non-empty if specified"],
        ),
        (
            validation(json!({"message": "a\nb"})),
            &["spec.validations[0].message: Invalid value: \"a\\nb\": message must not contain line breaks"],
        ),
        (
            validation(json!({"reason": "Other"})),
            &[
                "spec.validations[0].reason: Unsupported value: \"Other\": supported values: \"Forbidden\", \"Invalid\", \
               \"RequestEntityTooLarge\"",
            ],
        ),
        (
            annotation(json!({"key": ""})),
            &[
                "spec.auditAnnotations[0].key: Invalid value: \"config/\": name part must be non-empty",
                "spec.auditAnnotations[0].key: Invalid value: \"config/\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            ],
        ),
        (
            annotation(json!({"valueExpression": ""})),
            &["spec.auditAnnotations[0].valueExpression: Required value: valueExpression is not specified"],
        ),
        (
            annotation(json!({"valueExpression": "a".repeat(5121)})),
            &["spec.auditAnnotations[0].valueExpression: Required value: must not exceed 5120 bytes in length"],
        ),
        (
            json!({"variables": [{"name": "4ever", "expression": "1"}, {"name": "in", "expression": " "}]}),
            &[
                "spec.variables[0].name: Invalid value: \"4ever\": name is not a valid CEL identifier",
                "spec.variables[1].name: Invalid value: \"in\": name is not a valid CEL identifier",
                "spec.variables[1].expression: Required value: expression is not specified",
            ],
        ),
        (
            json!({"auditAnnotations": vec![json!({"key": "k", "valueExpression": "'a'"}); 2]}),
            &["spec.auditAnnotations[1].key: Duplicate value: \"k\""],
        ),
    ];
    for (changes, expect) in rows {
        assert_eq!(created(kind("ValidatingAdmissionPolicy"), validating(&changes)).1, expect, "{changes}");
    }
}

#[test]
fn mutating_policies_that_are_none() {
    let operations = json!({"matchConstraints": {"resourceRules": [rule(&json!({"operations": ["DELETE"]}))]}});
    let rows: [(Value, &[&str]); 8] = [
        (
            operations,
            &["spec.matchConstraints.resourceRules.operations: Unsupported value: \"DELETE\": supported values: \
            \"*\", \"CONNECT\", \"CREATE\", \"UPDATE\""],
        ),
        (json!({"mutations": null}), &["spec.mutations: Required value: mutations must contain at least one item"]),
        (json!({"mutations": [{}]}), &["spec.mutations[0].patchType: Required value"]),
        (
            json!({"mutations": [{"patchType": "Other"}]}),
            &["spec.mutations[0].patchType: Unsupported value: \"Other\": supported values: \"ApplyConfiguration\", \
               \"JSONPatch\""],
        ),
        (
            json!({"mutations": [{"patchType": "JSONPatch", "applyConfiguration": {"expression": "a"}}]}),
            &[
                "spec.mutations[0].jsonPatch: Required value: must be specified when patchType is JSONPatch",
                "spec.mutations[0].applyConfiguration: Invalid value: \"{applyConfiguration}\": must not be specified when \
               patchType is JSONPatch",
            ],
        ),
        (
            json!({"mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {}}]}),
            &["spec.mutations[0].applyConfiguration.expression: Required value"],
        ),
        (json!({"reinvocationPolicy": null}), &["spec.reinvocationPolicy: Required value"]),
        (
            json!({"reinvocationPolicy": "Often"}),
            &["spec.reinvocationPolicy: Unsupported value: \"Often\": supported values: \"IfNeeded\", \"Never\""],
        ),
    ];
    for (changes, expect) in rows {
        assert_eq!(created(kind("MutatingAdmissionPolicy"), mutating(&changes)).1, expect, "{changes}");
    }
}

#[test]
fn bindings_that_are_none() {
    let rows: [(Value, &[&str]); 8] = [
        (json!({}), &[]),
        (json!({"policyName": null}), &["spec.policyName: Required value"]),
        (
            json!({"paramRef": {"parameterNotFoundAction": "Deny"}}),
            &["spec.paramRef: Required value: one of name or selector must be specified"],
        ),
        (
            json!({"paramRef": {"name": "a", "selector": {}}}),
            &[
                "spec.paramRef.name: Forbidden: name and selector are mutually exclusive",
                "spec.paramRef.selector: Forbidden: name and selector are mutually exclusive",
                "spec.paramRef.parameterNotFoundAction: Required value",
            ],
        ),
        (
            json!({"paramRef": {"name": "a", "parameterNotFoundAction": "Maybe"}}),
            &["spec.paramRef.parameterNotFoundAction: Unsupported value: \"Maybe\": supported values: \"Allow\", \
               \"Deny\""],
        ),
        (
            json!({"validationActions": []}),
            &["spec.validationActions: Required value: at least one validation action is required"],
        ),
        (
            json!({"validationActions": ["Deny", "Deny", "Else"]}),
            &[
                "spec.validationActions[1]: Duplicate value: \"Deny\"",
                "spec.validationActions[2]: Unsupported value: \"Else\": supported values: \"Audit\", \"Deny\", \"Warn\"",
            ],
        ),
        (
            json!({"validationActions": ["Deny", "Warn"]}),
            &[
                "spec.validationActions: Invalid value: [\"Deny\",\"Warn\"]: must not contain both Deny and Warn (repeating \
               the same validation failure information in the API response and headers serves no purpose)",
            ],
        ),
    ];
    let base = |more: &Value| {
        let binding = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}});
        merge::apply(&binding, &json!({"spec": more}))
    };
    for (changes, expect) in rows {
        assert_eq!(created(kind("ValidatingAdmissionPolicyBinding"), base(&changes)).1, expect, "{changes}");
    }
    let deletes = json!({"matchResources": {"resourceRules": [rule(&json!({"operations": ["DELETE"]}))]}});
    assert_eq!(created(kind("ValidatingAdmissionPolicyBinding"), base(&deletes)).1, [""; 0]);
    assert_eq!(created(kind("MutatingAdmissionPolicyBinding"), base(&deletes)).1.len(), 1);
}

#[test]
fn a_status_is_checked() {
    let kind = kind("ValidatingAdmissionPolicy");
    let (old, _) = created(kind, validating(&json!({})));
    let mut new = old.clone();
    new["status"] = json!({"conditions": [{"type": "a"}], "typeChecking": {"expressionWarnings": [
        {"fieldRef": "spec.validations[0].expression", "warning": "w"}, {"fieldRef": "", "warning": ""}, {"fieldRef": "a[", "warning": "w"}]}});
    let problems = texts(&kind.validate_update("status", &new, &old));
    assert_eq!(
        problems[..3],
        [
            "status.typeChecking.expressionWarnings[1].warning: Required value",
            "status.typeChecking.expressionWarnings[1].fieldRef: Required value",
            "status.typeChecking.expressionWarnings[2].fieldRef: Invalid value: \"a[\": invalid JSONPath: unterminated array",
        ]
    );
    assert_eq!(problems[3], "status.conditions[0].status: Required value");
}

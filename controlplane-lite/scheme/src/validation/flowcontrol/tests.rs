//! Tables of what is refused, with upstream's texts; the cases are those of
//! pkg/apis/flowcontrol/validation/validation_test.go.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::url_problem;
use crate::builtin;
use crate::flowcontrol::{GROUP, bootstrap};
use crate::meta::dns1123_label;
use crate::patch::merge;

fn problems(plural: &str, object: &Value) -> Vec<String> {
    let kind = builtin().by_gvr(GROUP, "v1", plural).unwrap();
    let mut object = object.clone();
    kind.default(&mut object);
    kind.validate_create(&object).0.iter().map(ToString::to_string).collect()
}

fn own(plural: &str, name: &str) -> Value {
    let is = |object: &Value| object["metadata"]["name"] == name;
    bootstrap().into_iter().find(|b| b.plural == plural && is(&b.object)).unwrap().object
}

fn schema(changes: &Value) -> Value {
    let base = json!({"metadata": {"name": "system-foo"}, "spec": {
        "matchingPrecedence": 50, "priorityLevelConfiguration": {"name": "system-bar"}}});
    merge::apply(&base, changes)
}

/// A schema with one rule for a user.
fn with_rule(changes: &Value) -> Value {
    let rule = json!({
        "subjects": [{"kind": "User", "user": {"name": "noxu"}}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    });
    schema(&json!({"spec": {"rules": [merge::apply(&rule, changes)]}}))
}

#[test]
fn schemas_are_refused_as_upstream_refuses_them() {
    let only_exempt =
        "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1";
    let rows: Vec<(Value, Vec<String>)> = vec![
        (schema(&json!({})), vec![]),
        (own("flowschemas", "exempt"), vec![]),
        (own("flowschemas", "catch-all"), vec![]),
        (schema(&json!({"spec": {"matchingPrecedence": 1}})), vec![only_exempt.into()]),
        (
            schema(&json!({"spec": {"matchingPrecedence": -1}})),
            vec!["spec.matchingPrecedence: Invalid value: -1: must be a positive value".into()],
        ),
        (
            schema(&json!({"spec": {"matchingPrecedence": 10_001}})),
            vec!["spec.matchingPrecedence: Invalid value: 10001: must not be greater than 10000".into()],
        ),
        (
            schema(&json!({"spec": {"distinguisherMethod": {"type": "Huh"}}})),
            vec![
                r#"spec.distinguisherMethod.type: Unsupported value: {"type":"Huh"}: supported values: "ByNamespace", "ByUser""#
                    .into(),
            ],
        ),
        (
            schema(&json!({"spec": {"priorityLevelConfiguration": null}})),
            vec!["spec.priorityLevelConfiguration.name: Required value: must reference a priority level".into()],
        ),
        (
            with_rule(&json!({"nonResourceRules": null})),
            vec![
                "spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty"
                    .into(),
            ],
        ),
        (
            with_rule(&json!({"subjects": []})),
            vec!["spec.rules[0].subjects: Required value: subjects must contain at least one value".into()],
        ),
    ];
    for (object, expect) in rows {
        assert_eq!(problems("flowschemas", &object), expect, "{object}");
    }
    for name in ["exempt", "catch-all"] {
        let mut object = own("flowschemas", name);
        object["spec"]["rules"] = json!([]);
        let expect = "must equal the fixed value";
        let found = problems("flowschemas", &object);
        assert!(found.len() == 1 && found[0].ends_with(&format!("spec of '{name}' {expect}")), "{found:?}");
    }
}

#[test]
fn subjects_are_of_one_kind() {
    let rows: Vec<(Value, Vec<&str>)> = vec![
        (json!({"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "n"}}), vec![]),
        (
            json!({"kind": "ServiceAccount", "user": {"name": "u"}, "group": {"name": "g"}}),
            vec![
                "serviceAccount: Required value: serviceAccount is required when subject kind is 'ServiceAccount'",
                "user: Forbidden: user is forbidden when subject kind is not 'User'",
                "group: Forbidden: group is forbidden when subject kind is not 'Group'",
            ],
        ),
        (
            json!({"kind": "User", "serviceAccount": {"name": "a", "namespace": "n"}, "group": {"name": "g"}}),
            vec![
                "user: Required value: user is required when subject kind is 'User'",
                "serviceAccount: Forbidden: serviceAccount is forbidden when subject kind is not 'ServiceAccount'",
                "group: Forbidden: group is forbidden when subject kind is not 'Group'",
            ],
        ),
        (
            json!({"kind": "Group", "group": {"name": ""}, "user": {"name": "u"}}),
            vec!["group.name: Required value", "user: Forbidden: user is forbidden when subject kind is not 'User'"],
        ),
        (
            json!({"kind": "ServiceAccount", "serviceAccount": {"name": "", "namespace": ""}}),
            vec![
                "serviceAccount.name: Required value",
                "serviceAccount.namespace: Required value: must specify namespace for service account",
            ],
        ),
        (
            json!({"kind": "Huh"}),
            vec![r#"kind: Unsupported value: "Huh": supported values: "Group", "ServiceAccount", "User""#],
        ),
    ];
    for (subject, expect) in rows {
        let expect: Vec<String> = expect.iter().map(|text| format!("spec.rules[0].subjects[0].{text}")).collect();
        assert_eq!(problems("flowschemas", &with_rule(&json!({"subjects": [subject]}))), expect, "{subject}");
    }
}

#[test]
fn rules_name_what_there_is() {
    let resources = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]});
    let namespace = "each member of this list must be '*' or a DNS-1123 label";
    let rows: Vec<(Value, Vec<String>)> = vec![
        (json!({}), vec![]),
        (json!({"namespaces": ["a"]}), vec![]),
        (json!({"namespaces": null, "clusterScope": true}), vec![]),
        (
            json!({"namespaces": []}),
            vec![
                "namespaces: Required value: resource rules that are not cluster scoped must supply at least one namespace"
                    .into(),
            ],
        ),
        (
            json!({"namespaces": ["a", "*"]}),
            vec![
                r#"namespaces: Invalid value: ["a","*"]: if '*' is present, must not specify other namespaces"#.into(),
            ],
        ),
        (
            json!({"namespaces": ["-a"]}),
            vec![format!("namespaces[0]: Invalid value: \"-a\": {namespace}; {}", dns1123_label("-a")[0])],
        ),
        (
            json!({"verbs": ["feed"]}),
            vec![
                r#"verbs: Unsupported value: ["feed"]: supported values: "create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch""#
                    .into(),
            ],
        ),
        (
            json!({"verbs": ["*", "get"], "apiGroups": ["*", "a"], "resources": []}),
            vec![
                r#"verbs: Invalid value: ["*","get"]: if '*' is present, must not specify other verbs"#.into(),
                r#"apiGroups: Invalid value: ["*","a"]: if '*' is present, must not specify other api groups"#.into(),
                "resources: Required value: resource rules must supply at least one resource".into(),
            ],
        ),
    ];
    for (changes, expect) in rows {
        let rule = json!({"resourceRules": [merge::apply(&resources, &changes)]});
        let expect: Vec<String> = expect.iter().map(|text| format!("spec.rules[0].resourceRules[0].{text}")).collect();
        assert_eq!(problems("flowschemas", &with_rule(&rule)), expect, "{changes}");
    }
}

#[test]
fn urls() {
    for (path, is_good) in [
        ("", false),
        ("foo", false),
        ("/", true),
        ("//", false),
        ("/foo", true),
        ("/////", false),
        ("/apis/", true),
        ("/healthz/*", true),
        ("/healthz/*/foo", false),
        ("/healthz/foo bar", false),
        ("/health*", false),
        ("/health*/foo", false),
        ("/*/*", false),
    ] {
        assert_eq!(url_problem(path).is_none(), is_good, "{path}");
    }
}

fn level(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": spec})
}

fn limited(limited: Value) -> Value {
    let base = json!({"nominalConcurrencyShares": 100, "limitResponse": {"type": "Reject"}});
    level("system-foo", json!({"type": "Limited", "limited": merge::apply(&base, &limited)}))
}

fn queues(queues: i64, hand: i64) -> Value {
    let queuing = json!({"queues": queues, "handSize": hand, "queueLengthLimit": 100});
    limited(json!({"limitResponse": {"type": "Queue", "queuing": queuing}}))
}

#[test]
fn levels_are_refused_as_upstream_refuses_them() {
    let type_of_exempt =
        r#"spec.type: Invalid value: "Limited": type must be 'Exempt' if and only if name is 'exempt'"#;
    let entropy = |queues: i64, hand: i64| {
        format!(
            "spec.limited.limitResponse.queuing.handSize: Invalid value: {hand}: required entropy bits of deckSize \
             {queues} and handSize {hand} should not be greater than 60"
        )
    };
    let rows: Vec<(Value, Vec<String>)> = vec![
        (own("prioritylevelconfigurations", "exempt"), vec![]),
        (own("prioritylevelconfigurations", "catch-all"), vec![]),
        (level("exempt", json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 7, "lendablePercent": 9}})), vec![]),
        (
            level("exempt", json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": -1, "lendablePercent": 101}})),
            vec![
                "spec.exempt.nominalConcurrencyShares: Invalid value: -1: must be a non-negative integer".into(),
                "spec.exempt.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive".into(),
            ],
        ),
        (
            level("broken-limited", json!({"type": "Limited", "exempt": {}})),
            vec![
                "spec.exempt: Forbidden: must be nil if the type is Limited".into(),
                "spec.limited: Required value: must not be empty when type is Limited".into(),
            ],
        ),
        (
            level("x", json!({"type": "Huh"})),
            vec![r#"spec.type: Unsupported value: "Huh": supported values: "Exempt", "Limited""#.into()],
        ),
        (limited(json!({})), vec![]),
        (limited(json!({"nominalConcurrencyShares": 0})), vec![]),
        (
            limited(json!({"nominalConcurrencyShares": -1, "lendablePercent": 101, "borrowingLimitPercent": -1})),
            vec![
                "spec.limited.nominalConcurrencyShares: Invalid value: -1: must be a non-negative integer".into(),
                "spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive".into(),
                "spec.limited.borrowingLimitPercent: Invalid value: -1: if specified, must be a non-negative integer"
                    .into(),
            ],
        ),
        (
            limited(json!({"limitResponse": {"queuing": {}}})),
            vec![
                "spec.limited.limitResponse.queuing: Forbidden: must be nil if limited.limitResponse.type is not Limited"
                    .into(),
            ],
        ),
        (
            limited(json!({"limitResponse": {"type": "Queue"}})),
            vec![
                "spec.limited.limitResponse.queuing: Required value: must not be empty if limited.limitResponse.type is Limited"
                    .into(),
            ],
        ),
        (queues(512, 4), vec![]),
        (queues(10_000_000, 2), vec![]),
        (queues(512, 8), vec![entropy(512, 8)]),
        (queues(128, 10), vec![entropy(128, 10)]),
        (
            queues(2_147_483_647, 3),
            vec![
                "spec.limited.limitResponse.queuing.queues: Invalid value: 2147483647: must not be greater than 10000000"
                    .into(),
                entropy(2_147_483_647, 3),
            ],
        ),
        (
            queues(7, 8),
            vec![
                "spec.limited.limitResponse.queuing.handSize: Invalid value: 8: should not be greater than queues (7)"
                    .into(),
            ],
        ),
    ];
    for (object, expect) in rows {
        assert_eq!(problems("prioritylevelconfigurations", &object), expect, "{object}");
    }
    let repurposed =
        level("exempt", json!({"type": "Limited", "exempt": {}, "limited": {"limitResponse": {"type": "Reject"}}}));
    let found = problems("prioritylevelconfigurations", &repurposed);
    assert_eq!(
        found[..2],
        [type_of_exempt.to_owned(), "spec.exempt: Forbidden: must be nil if the type is Limited".into()]
    );
    assert!(
        found[2].ends_with("spec of 'exempt' except the 'spec.exempt' field must equal the fixed value"),
        "{found:?}"
    );
    let mut annotated = limited(json!({}));
    annotated["metadata"]["annotations"] = json!({"flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares": ""});
    let found = problems("prioritylevelconfigurations", &annotated);
    assert!(found.len() == 1 && found[0].starts_with("metadata.annotations: Forbidden: annotation '"), "{found:?}");
}

#[test]
fn defaults() {
    let kind = |plural: &str| builtin().by_gvr(GROUP, "v1", plural).unwrap();
    let mut object = json!({"spec": {"matchingPrecedence": 0}});
    kind("flowschemas").default(&mut object);
    assert_eq!(object["spec"]["matchingPrecedence"], 1000);
    let mut object = json!({"spec": {"exempt": {}, "limited": {"limitResponse": {"queuing": {"queues": 9}}}}});
    kind("prioritylevelconfigurations").default(&mut object);
    assert_eq!(
        object["spec"],
        json!({
            "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0},
            "limited": {"nominalConcurrencyShares": 30, "lendablePercent": 0, "limitResponse": {"queuing":
                {"queues": 9, "handSize": 8, "queueLengthLimit": 50}}},
        })
    );
    object["spec"]["limited"]["nominalConcurrencyShares"] = 0.into();
    kind("prioritylevelconfigurations").default(&mut object);
    assert_eq!(object["spec"]["limited"]["nominalConcurrencyShares"], 0, "zero is a value");
}

#[test]
fn statuses() {
    for plural in ["flowschemas", "prioritylevelconfigurations"] {
        let kind = builtin().by_gvr(GROUP, "v1", plural).unwrap();
        let mut object =
            json!({"metadata": {"name": "a"}, "status": {"conditions": [{"type": "1"}, {"type": "1"}, {}]}});
        object["metadata"]["resourceVersion"] = "1".into();
        let found: Vec<String> =
            kind.validate_update("status", &object, &object).0.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                r#"status.conditions[1].type: Duplicate value: "1""#,
                "status.conditions[2].type: Required value: must not be empty"
            ]
        );
    }
}

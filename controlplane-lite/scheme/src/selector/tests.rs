//! Tests of `scheme::selector`: tables, properties and garbage.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::builtin;

fn selects(text: &str, labels: &Value) -> bool {
    LabelSelector::parse(text).unwrap().matches(|k| labels.get(k).and_then(Value::as_str))
}

#[test]
fn label_selectors() {
    let labels = json!({"app": "web", "tier": "front", "n": "5", "e": ""});
    for (text, expect) in [
        ("", true),
        ("app=web", true),
        ("app==web,tier=front", true),
        ("app!=web", false),
        ("missing!=x", true),
        ("app in (web, db)", true),
        ("app notin (web)", false),
        ("missing notin (web)", true),
        ("app", true),
        ("!app", false),
        ("!missing", true),
        ("n>4", true),
        ("n<5", false),
        ("e=", true),
        (" app = web , tier in (front) ", true),
    ] {
        assert_eq!(selects(text, &labels), expect, "{text}");
    }
}

#[test]
fn label_selector_errors() {
    for (text, expect) in [
        ("a in b", "unable to parse requirement: found 'b', expected: '('"),
        ("a,", "unable to parse requirement: found '', expected: identifier after ','"),
        ("=x", "unable to parse requirement: found '=', expected: !, identifier, or 'end of string'"),
        ("a=b c", "unable to parse requirement: found 'c', expected: ',' or 'end of string'"),
    ] {
        assert_eq!(LabelSelector::parse(text).unwrap_err().to_string(), expect, "{text}");
    }
    assert!(LabelSelector::parse("a/b/c=d").is_err() && LabelSelector::parse("a=b!").is_err());
}

#[test]
fn selectors_of_requests_are_bounded() {
    let terms = |n: usize| vec!["!z"; n].join(",");
    assert!(LabelSelector::parse(&terms(MAX_TERMS)).is_ok());
    let long = LabelSelector::parse(&terms(MAX_TERMS + 1)).unwrap_err();
    assert_eq!(long.to_string(), "invalid selector: more than 400 terms");
    let values = |n: usize| (0..n).map(|v| format!("v{v}")).collect::<Vec<_>>().join(",");
    assert!(LabelSelector::parse(&format!("a in ({})", values(MAX_VALUES))).is_ok());
    let half = values(MAX_VALUES / 2 + 1);
    let long = LabelSelector::parse(&format!("a in ({half}),b notin ({half})")).unwrap_err();
    assert_eq!(long.to_string(), "invalid selector: more than 1000 values");
    let pods = builtin().by_gvk("", "v1", "Pod").unwrap();
    let terms = |n: usize| vec!["spec.nodeName!=a"; n].join(",");
    assert!(FieldSelector::parse(pods, &terms(MAX_TERMS)).is_ok());
    assert!(FieldSelector::parse(pods, &terms(MAX_TERMS + 1)).is_err());
}

#[test]
fn selector_objects() {
    let selector = LabelSelector::from_object(&json!({"matchLabels": {"a": "b"},
        "matchExpressions": [{"key": "c", "operator": "In", "values": ["e", "d"]}, {"key": "x", "operator": "DoesNotExist"}]}))
    .unwrap();
    assert_eq!(selector.to_string(), "a=b,c in (d,e),!x");
    assert!(selector.matches_object(&json!({"metadata": {"labels": {"a": "b", "c": "d"}}})));
    assert!(!LabelSelector::from_object(&Value::Null).unwrap().matches_object(&json!({})));
    assert!(LabelSelector::from_object(&json!({})).unwrap().matches_object(&json!({})));
    assert!(LabelSelector::from_object(&json!({"matchExpressions": [{"key": "a", "operator": "Near"}]})).is_err());
}

#[test]
fn field_selectors() {
    let pod = builtin().by_gvk("", "v1", "Pod").unwrap();
    let object = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}});
    for (text, expect) in [
        ("spec.nodeName=n", true),
        ("spec.nodeName!=n,status.phase=Running", false),
        ("metadata.name==p", true),
        ("status.podIP=", true),
    ] {
        assert_eq!(FieldSelector::parse(pod, text).unwrap().matches_object(pod, &object), expect, "{text}");
    }
    assert_eq!(FieldSelector::parse(pod, "spec.nodeName=n").unwrap().exact("spec.nodeName"), Some("n"));
    assert_eq!(FieldSelector::parse(pod, "spec.foo=x").unwrap_err().to_string(), "field label not supported: spec.foo");
    assert_eq!(
        FieldSelector::parse(pod, "nonsense").unwrap_err().to_string(),
        "invalid selector: 'nonsense'; can't understand 'nonsense'"
    );
    assert_eq!(FieldSelector::parse_any("a=b\\,c").unwrap().terms[0].value, "b,c");
    let map = builtin().by_gvk("", "v1", "ConfigMap").unwrap();
    assert!(FieldSelector::parse(map, "data.x=1").is_err());
}

proptest! {
    #[test]
    fn printing_is_parsing_backwards(text in "[a-c](=|!=|==)[x-z]{0,3}(,[d-f] (in|notin) \\([x-z],[p-q]\\))?(,!?[g-h])?") {
        let selector = LabelSelector::parse(&text).unwrap();
        prop_assert_eq!(LabelSelector::parse(&selector.to_string()).unwrap().to_string(), selector.to_string());
    }

    #[test]
    fn garbage_never_panics(text in "\\PC{0,60}") {
        let _ = LabelSelector::parse(&text);
        let _ = FieldSelector::parse_any(&text);
    }

    #[test]
    fn punctuation_never_panics(text in "[a!=<>(),\\\\ in]{0,30}") {
        let _ = LabelSelector::parse(&text);
        let _ = FieldSelector::parse_any(&text);
    }
}

/// What is not set is selected by what it means.
#[test]
fn absent_fields_have_values() {
    let pod = builtin().by_gvk("", "v1", "Pod").unwrap();
    let set = builtin().by_gvk("apps", "v1", "ReplicaSet").unwrap();
    let job = builtin().by_gvk("batch", "v1", "Job").unwrap();
    let controller = builtin().by_gvk("", "v1", "ReplicationController").unwrap();
    let event = builtin().by_gvk("", "v1", "Event").unwrap();
    for (kind, object, selector, selected) in [
        (pod, json!({}), "spec.hostNetwork=false", true),
        (pod, json!({"spec": {"hostNetwork": true}}), "spec.hostNetwork=false", false),
        (set, json!({}), "status.replicas=0", true),
        (set, json!({"status": {"replicas": 2}}), "status.replicas=0", false),
        (controller, json!({}), "status.replicas=0", true),
        (job, json!({}), "status.successful=0", true),
        (job, json!({"status": {"succeeded": 1}}), "status.successful=1", true),
        (event, json!({"source": {"component": "x"}}), "source=x", true),
        (event, json!({"reportingComponent": "x"}), "source=x", true),
    ] {
        let parsed = FieldSelector::parse(kind, selector).unwrap();
        assert_eq!(parsed.matches_object(kind, &object), selected, "{selector} {object}");
    }
}

//! What rules refuse, and which rules are refused.
#![allow(clippy::unwrap_used)]

use scheme::{FieldErrors, Path};
use serde_json::{Value, json};

use crate::{Structural, validate_schema};

fn schema() -> Value {
    json!({"type": "object", "properties": {
        "spec": {"type": "object",
            "x-kubernetes-validations": [
                {"rule": "self.min <= self.max", "message": "min is above max"},
                {"rule": "!has(self.kept) || self.kept == oldSelf.kept", "messageExpression": "'was ' + oldSelf.kept",
                 "reason": "FieldValueForbidden", "fieldPath": ".kept"}],
            "properties": {
                "min": {"type": "integer"}, "max": {"type": "integer"}, "kept": {"type": "string"},
                "names": {"type": "array", "maxItems": 5, "items": {"type": "string", "maxLength": 9,
                    "x-kubernetes-validations": [{"rule": "self.startsWith('a')"}]}},
                "__a-b": {"type": "object", "additionalProperties": {"type": "integer"}}}}},
        "x-kubernetes-validations": [{"rule": "self.metadata.name.size() < 9"}]})
}

fn told(new: &Value, old: Option<&Value>) -> Vec<String> {
    let structural = Structural::parse(&schema()).unwrap();
    let mut errors = FieldErrors::new();
    structural.evaluate(new, old, &mut errors);
    errors.0.iter().map(ToString::to_string).collect()
}

fn object(spec: Value) -> Value {
    json!({"metadata": {"name": "n"}, "spec": spec})
}

#[test]
fn rules_that_do_not_hold_are_told() {
    assert_eq!(told(&object(json!({"min": 1, "max": 2, "names": ["a"]})), None), Vec::<String>::new());
    assert_eq!(told(&object(json!({"min": 3, "max": 2})), None), ["spec: Invalid value: min is above max"]);
    assert_eq!(
        told(&object(json!({"min": 1, "max": 2, "names": ["a", "b"]})), None),
        ["spec.names[1]: Invalid value: \"b\": failed rule: self.startsWith('a')"]
    );
    assert_eq!(
        told(&object(json!({"min": 1})), None),
        ["spec: Invalid value: \"object\": no such key: max evaluating rule: min is above max"]
    );
    let long = json!({"metadata": {"name": "a-long-name"}, "spec": {"min": 1, "max": 1}});
    assert_eq!(told(&long, None), ["<nil>: Invalid value: failed rule: self.metadata.name.size() < 9"]);
}

#[test]
fn transitions_are_judged_and_what_stays_is_not() {
    let old = object(json!({"min": 1, "max": 2, "kept": "a"}));
    let new = object(json!({"min": 1, "max": 2, "kept": "b"}));
    assert_eq!(told(&new, Some(&old)), ["spec.kept: Forbidden: was a"]);
    assert_eq!(told(&new, None), Vec::<String>::new());
    let wrong = object(json!({"min": 3, "max": 2, "names": ["b"]}));
    assert_eq!(told(&wrong, Some(&wrong)), Vec::<String>::new());
}

#[test]
fn rules_that_are_none_are_refused() {
    let refused = |rule: Value, of: Value| {
        let mut inner = of;
        inner["x-kubernetes-validations"] = json!([rule]);
        let schema = json!({"type": "object", "properties": {"x": inner}});
        let mut errors = FieldErrors::new();
        validate_schema(&schema, &Path::new("s"), &mut errors);
        errors.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    let text = || json!({"type": "string"});
    assert_eq!(refused(json!({"rule": "self == 'a'"}), json!({"type": "string", "maxLength": 9})), "");
    let cases = [
        (
            json!({"rule": "self >"}),
            text(),
            "s.properties[x].x-kubernetes-validations[0].rule: Invalid value: \"self >\": compilation failed: ERROR: ",
        ),
        (json!({"rule": "self.size()"}), text(), "cel expression must evaluate to a bool"),
        (json!({"rule": "self == 1"}), text(), "found no matching overload for '_==_' applied to '(string, int)'"),
        (json!({"rule": "true", "messageExpression": "1"}), text(), "messageExpression must evaluate to a string"),
        (
            json!({"rule": "self.all(a, self.all(b, a != b))"}),
            json!({"type": "array", "items": {"type": "string"}}),
            "estimated rule cost exceeds budget by factor of more than 100x",
        ),
        (json!({"rule": "true", "optionalOldSelf": true}), text(), "may not be set if oldSelf is not used in rule"),
    ];
    for (rule, of, why) in cases {
        let told = refused(rule.clone(), of);
        assert!(told.contains(why), "{rule}: {told}");
    }
}

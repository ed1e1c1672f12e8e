//! Rules in CEL of custom resources. The cases are those of upstream's
//! test/e2e/apimachinery/crd_validation_rules.go.

use apiserver::testing::*;
use http::StatusCode;
use serde_json::{Value, json};

use crate::custom::{CRDS, define, widgets};

const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

/// A definition of widgets whose spec has rules.
fn ruled(rules: &Value) -> Value {
    let mut crd = widgets(&json!({}));
    let spec = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    spec["x-kubernetes-validations"] = rules.clone();
    crd
}

fn widget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn rules_judge_custom_resources() {
    let (_api, client) = start().await;
    let rules = json!([
        {"rule": "!has(self.replicas) || self.size >= self.replicas", "message": "size must be at least replicas"},
        {"rule": "!has(oldSelf.color) || has(self.color) && self.color == oldSelf.color", "message": "color stays"}]);
    define(&client, &ruled(&rules)).await;
    expect(
        post(&client, WIDGETS, &widget("a", json!({"size": 3, "replicas": 2, "color": "red"}))).await,
        StatusCode::CREATED,
    );
    let wrong = post(&client, WIDGETS, &widget("b", json!({"size": 1, "replicas": 2}))).await;
    let refused = expect(wrong, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        refused["message"],
        "Widget.example.com \"b\" is invalid: spec: Invalid value: size must be at least replicas"
    );
    let change = json!({"spec": {"color": "blue"}});
    let changed = patch(&client, &format!("{WIDGETS}/a"), "merge-patch+json", &change).await;
    let refused = expect(changed, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused["message"].as_str().unwrap().ends_with("spec: Invalid value: color stays"), "{refused}");
}

#[tokio::test]
async fn definitions_with_rules_that_are_none_are_refused() {
    let (_api, client) = start().await;
    let path = "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule";
    for (rule, why) in [
        ("self.size >", "compilation failed: ERROR: <input>:1:12: Syntax error: mismatched input '<EOF>'"),
        ("self.missing == 1", "undefined field 'missing'"),
        ("self.parts.all(a, self.parts.all(b, a.name + b.name != 'x'))", "estimated rule cost exceeds budget"),
    ] {
        let refused = post(&client, CRDS, &ruled(&json!([{"rule": rule}]))).await;
        let refused = expect(refused, StatusCode::UNPROCESSABLE_ENTITY);
        let cause = &refused["details"]["causes"][0];
        assert_eq!(cause["field"], path, "{refused}");
        assert!(cause["message"].as_str().unwrap().contains(why), "{refused}");
    }
}

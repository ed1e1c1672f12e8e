//! Admission policies: what they judge, change and say. The cases are those of upstream's e2e specs
//! (`test/e2e/apimachinery/{validatingadmissionpolicy,mutatingadmissionpolicy}.go`) and of its integration tests
//! (`test/integration/apiserver/cel`).

use apiserver::testing::*;
use http::StatusCode;
use serde_json::{Value, json};

mod mutating;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";

/// Rules about config maps.
fn about(operations: &[&str]) -> Value {
    json!({"resourceRules": [
        {"apiGroups": [""], "apiVersions": ["v1"], "operations": operations, "resources": ["configmaps"]}]})
}

/// Writes a policy, and what binds it; when this returns, it is in effect.
pub async fn bind(client: &kube::Client, mutating: bool, name: &str, spec: Value, binding: Value) {
    let (kind, plural) = kinds(mutating);
    let base = json!({"failurePolicy": "Fail", "matchConstraints": about(&["CREATE", "UPDATE"])});
    let spec = scheme::patch::merge::apply(&base, &spec);
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name},
        "spec": spec});
    expect(post(client, &format!("{GROUP}/{plural}"), &policy).await, StatusCode::CREATED);
    let base =
        if mutating { json!({"policyName": name}) } else { json!({"policyName": name, "validationActions": ["Deny"]}) };
    let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{kind}Binding"),
        "metadata": {"name": format!("{name}-binding")}, "spec": scheme::patch::merge::apply(&base, &binding)});
    let path = format!("{GROUP}/{}", plural.replace("policies", "policybindings"));
    expect(post(client, &path, &binding).await, StatusCode::CREATED);
    // A list that may not be old: what was written before it is seen.
    expect(get(client, &path).await, StatusCode::OK);
}

fn kinds(mutating: bool) -> (&'static str, &'static str) {
    if mutating {
        ("MutatingAdmissionPolicy", "mutatingadmissionpolicies")
    } else {
        ("ValidatingAdmissionPolicy", "validatingadmissionpolicies")
    }
}

fn map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn message(answer: &Value) -> &str {
    answer["message"].as_str().unwrap()
}

#[tokio::test]
async fn rules_that_do_not_hold_deny() {
    let (_api, client) = start().await;
    let spec = json!({"validations": [
        {"expression": "object.data.size() < 3", "message": " at most two "},
        {"expression": "!has(object.data.secret)", "messageExpression": "'no secret in ' + object.metadata.name",
         "reason": "Forbidden"},
        {"expression": "object.data.all(k, v, v != '')"}]});
    bind(&client, false, "sizes", spec, json!({})).await;
    expect(post(&client, MAPS, &map("fine", json!({"a": "1"}))).await, StatusCode::CREATED);
    let says =
        |what: &str| format!("ValidatingAdmissionPolicy 'sizes' with binding 'sizes-binding' denied request: {what}");
    for (name, data, code, what) in [
        ("many", json!({"a": "1", "b": "1", "c": "1"}), StatusCode::UNPROCESSABLE_ENTITY, "at most two"),
        ("told", json!({"secret": "1"}), StatusCode::FORBIDDEN, "no secret in told"),
        (
            "empty",
            json!({"a": ""}),
            StatusCode::UNPROCESSABLE_ENTITY,
            "failed expression: object.data.all(k, v, v != '')",
        ),
    ] {
        let denied = expect(post(&client, MAPS, &map(name, data)).await, code);
        assert_eq!(message(&denied), format!("configmaps \"{name}\" is forbidden: {}", says(what)));
        assert_eq!(denied["details"]["causes"][0]["message"], says(what));
        assert_eq!(denied["reason"], if code == StatusCode::FORBIDDEN { "Forbidden" } else { "Invalid" });
    }
    // What is not of its operations is none of its business.
    expect(delete(&client, &format!("{MAPS}/fine")).await, StatusCode::OK);
}

#[tokio::test]
async fn variables_requests_and_namespaces_can_be_asked() {
    let (_api, client) = start().await;
    let spec = json!({
        "variables": [
            {"name": "team", "expression": "'team' in object.data ? object.data.team : 'none'"},
            {"name": "known", "expression": "['a', 'b', variables.team + 'x']"}],
        "matchConditions": [{"name": "not-exempt", "expression": "!object.metadata.name.startsWith('exempt')"}],
        "validations": [{"expression": "variables.team in variables.known && request.operation == 'CREATE' \
            && request.resource.resource == 'configmaps' && request.namespace == 'default' \
            && namespaceObject.metadata.name == 'default' && oldObject == null \
            && authorizer.group('').resource('pods').namespace('default').check('create').allowed()",
            "messageExpression": "'team ' + variables.team"}]});
    bind(&client, false, "teams", spec, json!({})).await;
    expect(post(&client, MAPS, &map("a", json!({"team": "a"}))).await, StatusCode::CREATED);
    let denied = expect(post(&client, MAPS, &map("c", json!({"team": "c"}))).await, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(message(&denied).ends_with("denied request: team c"), "{denied}");
    expect(post(&client, MAPS, &map("exempt-c", json!({"team": "c"}))).await, StatusCode::CREATED);
}

#[tokio::test]
async fn bindings_give_parameters() {
    let (_api, client) = start().await;
    let limits = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "limits", "labels": {"limits": "yes"}}, "data": {"most": "1"}});
    expect(post(&client, MAPS, &limits).await, StatusCode::CREATED);
    let spec = |params: &str| {
        json!({"paramKind": {"apiVersion": "v1", "kind": params},
            "validations": [{"expression": "object.data.size() <= int(params.data.most)",
                "messageExpression": "'more than ' + params.data.most"}]})
    };
    let by_name = json!({"paramRef": {"name": "limits", "parameterNotFoundAction": "Deny"}});
    bind(&client, false, "by-name", spec("ConfigMap"), by_name).await;
    let two = json!({"a": "1", "b": "1"});
    let denied = expect(post(&client, MAPS, &map("two", two.clone())).await, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(message(&denied).ends_with("'by-name-binding' denied request: more than 1"), "{denied}");
    expect(post(&client, MAPS, &map("one", json!({"a": "1"}))).await, StatusCode::CREATED);
    expect(delete(&client, &format!("{GROUP}/validatingadmissionpolicies/by-name")).await, StatusCode::OK);
    let selected =
        json!({"paramRef": {"selector": {"matchLabels": {"limits": "yes"}}, "parameterNotFoundAction": "Allow"}});
    bind(&client, false, "selected", spec("ConfigMap"), selected).await;
    expect(post(&client, MAPS, &map("two", two.clone())).await, StatusCode::UNPROCESSABLE_ENTITY);
    expect(delete(&client, &format!("{GROUP}/validatingadmissionpolicies/selected")).await, StatusCode::OK);
    let gone = json!({"paramRef": {"name": "gone", "parameterNotFoundAction": "Deny"}});
    bind(&client, false, "gone", spec("ConfigMap"), gone).await;
    let denied = expect(post(&client, MAPS, &map("two", two.clone())).await, StatusCode::UNPROCESSABLE_ENTITY);
    let why = "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
    assert!(message(&denied).ends_with(why), "{denied}");
    expect(delete(&client, &format!("{GROUP}/validatingadmissionpolicies/gone")).await, StatusCode::OK);
    bind(
        &client,
        false,
        "unknown",
        spec("Nothing"),
        json!({"paramRef": {"name": "x", "parameterNotFoundAction": "Allow"}}),
    )
    .await;
    let denied = expect(post(&client, MAPS, &map("two", two)).await, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(message(&denied).contains("failed to configure policy: failed to find resource"), "{denied}");
}

#[tokio::test]
async fn failures_follow_the_failure_policy_and_actions() {
    let (_api, client) = start().await;
    let spec =
        |policy: &str| json!({"failurePolicy": policy, "validations": [{"expression": "object.data.missing == 'x'"}]});
    bind(&client, false, "ignores", spec("Ignore"), json!({})).await;
    expect(post(&client, MAPS, &map("a", json!({"a": "1"}))).await, StatusCode::CREATED);
    bind(&client, false, "warns", spec("Fail"), json!({"validationActions": ["Warn", "Audit"]})).await;
    expect(post(&client, MAPS, &map("b", json!({"a": "1"}))).await, StatusCode::CREATED);
    bind(&client, false, "fails", spec("Fail"), json!({})).await;
    let denied = expect(post(&client, MAPS, &map("c", json!({"a": "1"}))).await, StatusCode::UNPROCESSABLE_ENTITY);
    let why = "expression 'object.data.missing == 'x'' resulted in error: no such key: missing";
    assert!(message(&denied).ends_with(why), "{denied}");
}

#[tokio::test]
async fn evaluations_end_when_they_cost_too_much() {
    let (_api, client) = start().await;
    let expression = "lists.range(1000).all(a, lists.range(1000).all(b, a + b >= 0))";
    bind(&client, false, "costs", json!({"validations": [{"expression": expression}]}), json!({})).await;
    let denied = expect(post(&client, MAPS, &map("a", json!({}))).await, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(message(&denied).contains("operation cancelled: actual cost limit exceeded"), "{denied}");
}

#[tokio::test]
async fn what_a_policy_is_about_is_for_rules_and_selectors() {
    let (_api, client) = start().await;
    let never = json!([{"expression": "false", "message": "never"}]);
    let mut constraints = about(&["CREATE"]);
    constraints["resourceRules"][0]["resourceNames"] = json!(["named"]);
    bind(&client, false, "named", json!({"matchConstraints": constraints, "validations": never}), json!({})).await;
    expect(post(&client, MAPS, &map("other", json!({}))).await, StatusCode::CREATED);
    expect(post(&client, MAPS, &map("named", json!({}))).await, StatusCode::UNPROCESSABLE_ENTITY);
    expect(delete(&client, &format!("{GROUP}/validatingadmissionpolicies/named")).await, StatusCode::OK);
    let mut constraints = about(&["CREATE"]);
    constraints["excludeResourceRules"] = about(&["*"])["resourceRules"].clone();
    constraints["excludeResourceRules"][0]["resourceNames"] = json!(["spared"]);
    let chosen = json!({"matchResources": {"objectSelector": {"matchLabels": {"judge": "me"}}}});
    bind(&client, false, "chosen", json!({"matchConstraints": constraints, "validations": never}), chosen).await;
    let labelled = |name: &str| {
        let mut map = map(name, json!({}));
        map["metadata"]["labels"] = json!({"judge": "me"});
        map
    };
    expect(post(&client, MAPS, &map("unlabelled", json!({}))).await, StatusCode::CREATED);
    expect(post(&client, MAPS, &labelled("spared")).await, StatusCode::CREATED);
    expect(post(&client, MAPS, &labelled("labelled")).await, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn what_is_no_expression_is_refused() {
    let (_api, client) = start().await;
    let write = async |spec: Value| {
        let base = json!({"failurePolicy": "Fail", "matchConstraints": about(&["CREATE"])});
        let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": "p"}, "spec": scheme::patch::merge::apply(&base, &spec)});
        let path = format!("{GROUP}/validatingadmissionpolicies?dryRun=All");
        expect(post(&client, &path, &policy).await, StatusCode::UNPROCESSABLE_ENTITY)
    };
    for (spec, field, why) in [
        (
            json!({"validations": [{"expression": "1"}]}),
            "spec.validations[0].expression",
            "must evaluate to bool but got int",
        ),
        (
            json!({"validations": [{"expression": "object.x >"}]}),
            "spec.validations[0].expression",
            "compilation failed: ERROR: <input>:1:11: Syntax error: mismatched input '<EOF>'",
        ),
        (
            json!({"validations": [{"expression": "params.x == 1"}]}),
            "spec.validations[0].expression",
            "undeclared reference to 'params' (in container '')",
        ),
        (
            json!({"variables": [{"name": "a", "expression": "variables.b"}, {"name": "b", "expression": "1"}],
            "validations": [{"expression": "true"}]}),
            "spec.variables[0].expression",
            "undefined field 'b'",
        ),
        (
            json!({"validations": [{"expression": "true", "messageExpression": "1"}]}),
            "spec.validations[0].messageExpression",
            "must evaluate to string but got int",
        ),
    ] {
        let refused = write(spec).await;
        let cause = &refused["details"]["causes"][0];
        assert_eq!(cause["field"], field, "{refused}");
        assert!(cause["message"].as_str().unwrap().contains(why), "{refused}");
    }
}

/// The status says what expressions make of the types of what a policy is about.
#[tokio::test]
async fn the_status_warns_of_types() {
    let (_api, client) = start().await;
    let rules = json!({"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"],
        "resources": ["deployments"]}]});
    let spec = json!({"matchConstraints": rules,
        "variables": [{"name": "replicas", "expression": "object.spec.replicas"}],
        "validations": [
            {"expression": "object.spec.replicas > 1"},
            {"expression": "object.spec.replicas > '1'"},
            {"expression": "object.spec.missing > 1", "messageExpression": "'is ' + string(variables.replicas)"},
            {"expression": "object.spec.template.spec.containers.all(c, c.image != '' && variables.replicas > 1)"}]});
    bind(&client, false, "types", spec, json!({})).await;
    let path = format!("{GROUP}/validatingadmissionpolicies/types");
    let status = harness::time::eventually("the status", async || {
        let (_, policy) = get(&client, &path).await;
        let status = policy["status"].clone();
        anyhow::ensure!(status["observedGeneration"] == policy["metadata"]["generation"], "{status}");
        Ok(status)
    })
    .await
    .unwrap();
    let warnings = status["typeChecking"]["expressionWarnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 2, "{status}");
    assert_eq!(warnings[0]["fieldRef"], "spec.validations[1].expression");
    let told = "apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, \
                string)'";
    assert!(warnings[0]["warning"].as_str().unwrap().starts_with(told), "{status}");
    assert!(warnings[1]["warning"].as_str().unwrap().contains("undefined field 'missing'"), "{status}");
}

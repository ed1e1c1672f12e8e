//! Policies that change objects.

use super::*;

async fn created(client: &kube::Client, object: &Value) -> Value {
    expect(post(client, MAPS, object).await, StatusCode::CREATED)
}

#[tokio::test]
async fn fields_are_applied() {
    let (_api, client) = start().await;
    let expression = "Object{metadata: Object.metadata{labels: {'changed': 'yes', 'by': request.userInfo.username}}, \
        data: {'b': string(object.data.size())}}";
    let spec = json!({"reinvocationPolicy": "Never",
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}]});
    bind(&client, true, "labels", spec, json!({})).await;
    let object = created(&client, &map("a", json!({"a": "1"}))).await;
    assert_eq!(object["data"], json!({"a": "1", "b": "1"}));
    assert_eq!(object["metadata"]["labels"]["changed"], "yes");
}

#[tokio::test]
async fn operations_are_done() {
    let (_api, client) = start().await;
    let expression = "[JSONPatch{op: 'test', path: '/data/a', value: '1'}, \
        JSONPatch{op: 'add', path: '/data/' + jsonpatch.escapeKey('x.y/z'), value: params.data.word}, \
        JSONPatch{op: 'add', path: '/metadata/labels', value: Object.metadata.labels{k: 'v'}}]";
    let words = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "words"}, "data": {"word": "w"}});
    expect(post(&client, MAPS, &words).await, StatusCode::CREATED);
    let spec = json!({"reinvocationPolicy": "Never", "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConditions": [{"name": "c", "expression": "!has(object.metadata.labels)"}],
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}]});
    bind(&client, true, "patches", spec, json!({"paramRef": {"name": "words", "parameterNotFoundAction": "Deny"}}))
        .await;
    // A key of a config map has no slash: what a policy makes is validated as anything.
    let refused = expect(post(&client, MAPS, &map("a", json!({"a": "1"}))).await, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(message(&refused).contains("x.y/z"), "{refused}");
    // A test that fails leaves the object as it was.
    let object = created(&client, &map("b", json!({"a": "2"}))).await;
    assert_eq!(object["data"], json!({"a": "2"}));
    assert!(object["metadata"]["labels"].is_null());
}

/// A policy sees what those before it did, and once more what those after it did, if it asked for that.
#[tokio::test]
async fn policies_are_asked_again() {
    let (_api, client) = start().await;
    let adds = |key: &str, policy: &str| {
        let expression = format!("Object{{data: {{'{key}': object.data.map(k, k).sort().join('')}}}}");
        json!({"reinvocationPolicy": policy,
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}]})
    };
    bind(&client, true, "first", adds("a", "IfNeeded"), json!({})).await;
    bind(&client, true, "second", adds("b", "Never"), json!({})).await;
    let object = created(&client, &map("m", json!({"x": ""}))).await;
    assert_eq!(object["data"], json!({"a": "abx", "b": "ax", "x": ""}));
}

#[tokio::test]
async fn what_cannot_be_changed_denies() {
    let (_api, client) = start().await;
    let fails = |policy: &str, expression: &str| {
        json!({"reinvocationPolicy": "Never", "failurePolicy": policy,
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}]})
    };
    bind(&client, true, "ignored", fails("Ignore", "Object{data: {'a': object.data.missing}}"), json!({})).await;
    expect(post(&client, MAPS, &map("a", json!({"a": "1"}))).await, StatusCode::CREATED);
    let cases = [
        ("missing", "Object{data: {'a': object.data.missing}}", "no such key: missing"),
        (
            "names",
            "Object{data: Object.spec{a: '1'}}",
            "type mismatch: unexpected type name \"Object.spec\", expected \"Object.data\", which matches field name path",
        ),
        ("unknown", "Object{nothing: 1}", "error applying patch: failed to convert patch object to typed object"),
    ];
    for (name, expression, why) in cases {
        bind(&client, true, name, fails("Fail", expression), json!({})).await;
        let denied = expect(post(&client, MAPS, &map("b", json!({"a": "1"}))).await, StatusCode::FORBIDDEN);
        let starts = format!("policy '{name}' with binding '{name}-binding' denied request: ");
        assert!(message(&denied).starts_with(&starts) && message(&denied).contains(why), "{denied}");
        expect(delete(&client, &format!("{GROUP}/mutatingadmissionpolicies/{name}")).await, StatusCode::OK);
    }
}

//! admissionregistration.k8s.io as its clients meet it: who may have policies read what, and defaults over HTTP.

use apiserver::testing::*;
use auth::authn::UserInfo;
use http::StatusCode;
use serde_json::{Value, json};

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
const ROLE_BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";

fn policy(name: &str, kind: &Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "paramKind": kind,
        "matchConstraints": {"resourceRules": [
            {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]},
        "validations": [{"expression": "true"}],
    }})
}

fn binding(name: &str, policy: &str, reference: &Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"policyName": policy, "validationActions": ["Deny"], "paramRef": reference}})
}

/// Grants cluster-wide rules to a user.
async fn grant(client: &kube::Client, name: &str, rules: &Value) {
    expect(post(client, ROLES, &json!({"metadata": {"name": name}, "rules": rules})).await, StatusCode::CREATED);
    let binding = json!({"metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}]});
    expect(post(client, ROLE_BINDINGS, &binding).await, StatusCode::CREATED);
}

#[tokio::test]
async fn who_has_objects_read_may_read_them() {
    let (api, admin) = start().await;
    let policies = json!([{"apiGroups": ["admissionregistration.k8s.io"], "resources": ["*"], "verbs": ["*"]}]);
    grant(&admin, "policies", &policies).await;
    grant(&admin, "maps", &json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}])).await;
    api.server().registry.fresh().await.unwrap();
    let jane = api.client(UserInfo::new("jane", ["people"]));
    let (secrets, maps) =
        (json!({"apiVersion": "v1", "kind": "Secret"}), json!({"apiVersion": "v1", "kind": "ConfigMap"}));
    expect(post(&jane, POLICIES, &policy("maps", &maps)).await, StatusCode::CREATED);
    expect(post(&jane, POLICIES, &policy("none", &json!(null))).await, StatusCode::CREATED);
    let refused = expect(post(&jane, POLICIES, &policy("secrets", &secrets)).await, StatusCode::UNPROCESSABLE_ENTITY);
    let why = "ValidatingAdmissionPolicy.admissionregistration.k8s.io \"secrets\" is invalid: spec.paramKind: Forbidden: \
               user &{jane  [people system:authenticated] map[]} must have \"get\" permission on all objects of the \
               referenced paramKind (kind=Secret, apiVersion=v1)";
    assert_eq!(refused["message"], why);
    expect(post(&admin, POLICIES, &policy("secrets", &secrets)).await, StatusCode::CREATED);
    // What a policy reads already is not granted again.
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    expect(patch(&jane, &format!("{POLICIES}/secrets"), "merge-patch+json", &label).await, StatusCode::OK);
    let other = json!({"spec": {"paramKind": secrets}});
    let refused = patch(&jane, &format!("{POLICIES}/maps"), "merge-patch+json", &other).await;
    expect(refused, StatusCode::UNPROCESSABLE_ENTITY);

    let reference = json!({"name": "x", "namespace": "default", "parameterNotFoundAction": "Deny"});
    api.server().registry.fresh().await.unwrap();
    expect(post(&jane, BINDINGS, &binding("maps", "maps", &reference)).await, StatusCode::CREATED);
    for unknown in ["secrets", "nowhere"] {
        let refused =
            expect(post(&jane, BINDINGS, &binding("b", unknown, &reference)).await, StatusCode::UNPROCESSABLE_ENTITY);
        let told = refused["message"].as_str().unwrap();
        let why = "does not have \"get\" permission on the object referenced by paramRef";
        assert!(told.contains("spec.paramRef: Forbidden: user &{jane ") && told.ends_with(why), "{told}");
    }
    expect(post(&jane, BINDINGS, &binding("b", "nowhere", &json!(null))).await, StatusCode::CREATED);
}

#[tokio::test]
async fn a_status_is_written_by_itself_and_generations_count() {
    let (_api, client) = start().await;
    let made = expect(post(&client, POLICIES, &policy("p", &json!(null))).await, StatusCode::CREATED);
    assert_eq!((&made["status"], &made["metadata"]["generation"]), (&json!({}), &json!(1)));
    let status = json!({"spec": {"failurePolicy": "Ignore"}, "status": {"observedGeneration": 1}});
    let path = format!("{POLICIES}/p");
    let written = expect(patch(&client, &format!("{path}/status"), "merge-patch+json", &status).await, StatusCode::OK);
    assert_eq!(
        (&written["status"]["observedGeneration"], &written["spec"]["failurePolicy"]),
        (&json!(1), &json!("Fail"))
    );
    let written = expect(patch(&client, &path, "merge-patch+json", &status).await, StatusCode::OK);
    assert_eq!((&written["metadata"]["generation"], &written["status"]["observedGeneration"]), (&json!(2), &json!(1)));
    // Upstream demands a version of who replaces one.
    let put = expect(put(&client, &path, &policy("p", &json!(null))).await, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(put["message"].as_str().unwrap().contains("metadata.resourceVersion"), "{put}");
}

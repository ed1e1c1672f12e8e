//! Tables of what matches what, after k8s.io/apiserver/pkg/util/flowcontrol/match_test.go, and the objects over a
//! server.

#![allow(clippy::unwrap_used)]

use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use super::rule::Rule;
use super::*;
use crate::request_info::{self, Query};
use crate::testing::{delete, expect, get, patch, post, start};

const SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
const LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";

fn info(method: Method, path: &str) -> RequestInfo {
    request_info::parse(&method, path, &Query::parse(None))
}

#[test]
fn subjects() {
    let everything = json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}]);
    let pods = info(Method::GET, "/api/v1/namespaces/a/pods");
    let user = |name: &str| json!({"kind": "User", "user": {"name": name}});
    let group = |name: &str| json!({"kind": "Group", "group": {"name": name}});
    let account = |namespace: &str, name: &str| json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": namespace, "name": name}});
    let (jane, bot) = (UserInfo::new("jane", ["devs"]), UserInfo::service_account("n", "bot"));
    for (subject, who, expect) in [
        (user("jane"), &jane, true),
        (user("*"), &jane, true),
        (user("john"), &jane, false),
        (group("devs"), &jane, true),
        (group("*"), &jane, true),
        (group("system:authenticated"), &jane, true),
        (group("ops"), &jane, false),
        (account("n", "bot"), &bot, true),
        (account("n", "*"), &bot, true),
        (account("n", "other"), &bot, false),
        (account("m", "*"), &bot, false),
        (account("", "*"), &bot, false),
        (account("n", "bot"), &jane, false),
        (user("system:serviceaccount:n:bot"), &bot, true),
        (json!({"kind": "User"}), &jane, false),
        (json!({"kind": "ServiceAccount"}), &bot, false),
        (json!({"kind": "Huh", "user": {"name": "*"}}), &jane, false),
    ] {
        let rule = Rule::new(&json!({"subjects": [subject], "resourceRules": everything}));
        assert_eq!(rule.matches(who, &pods), expect, "{subject} {}", who.username);
    }
}

#[test]
fn requests() {
    let jane = UserInfo::new("jane", Vec::<String>::new());
    let resource = |changes: Value| {
        let mut rule = json!({"verbs": ["list"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["a"]});
        rule.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        json!({"resourceRules": [rule]})
    };
    let other = |url: &str| json!({"nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": [url]}]});
    for (rule, path, expect) in [
        (resource(json!({})), "/api/v1/namespaces/a/pods", true),
        (resource(json!({})), "/api/v1/namespaces/b/pods", false),
        (resource(json!({})), "/api/v1/pods", false),
        (resource(json!({"clusterScope": true})), "/api/v1/pods", true),
        (resource(json!({"clusterScope": true, "namespaces": []})), "/api/v1/namespaces/a/pods", false),
        (resource(json!({"namespaces": ["*"]})), "/api/v1/namespaces/b/pods", true),
        (resource(json!({"namespaces": ["*"]})), "/api/v1/pods", false),
        (resource(json!({"verbs": ["get"]})), "/api/v1/namespaces/a/pods", false),
        (resource(json!({"verbs": ["*"]})), "/api/v1/namespaces/a/pods", true),
        (resource(json!({"apiGroups": ["apps"]})), "/api/v1/namespaces/a/pods", false),
        (resource(json!({"verbs": ["get"], "resources": ["pods"]})), "/api/v1/namespaces/a/pods/p/log", false),
        (resource(json!({"verbs": ["get"], "resources": ["pods/log"]})), "/api/v1/namespaces/a/pods/p/log", true),
        (resource(json!({"verbs": ["get"], "resources": ["*"]})), "/api/v1/namespaces/a/pods/p/log", true),
        (resource(json!({})), "/healthz", false),
        (other("*"), "/healthz", true),
        (other("/healthz"), "/healthz", true),
        (other("/healthz"), "/healthz/ping", true),
        (other("/healthz"), "/healthzz", false),
        (other("/healthz/*"), "/healthz/ping", true),
        (other("/healthz/*"), "/healthz", false),
        (other("/"), "/healthz", true),
        (other("*"), "/api/v1/pods", false),
    ] {
        let mut rule = rule;
        rule["subjects"] = json!([{"kind": "User", "user": {"name": "jane"}}]);
        assert_eq!(Rule::new(&rule).matches(&jane, &info(Method::GET, path)), expect, "{rule} {path}");
    }
}

fn stored(name: &str, precedence: i64, level: &str, user: &str) -> Value {
    json!({"metadata": {"name": name, "uid": format!("uid-{name}")}, "spec": {
        "matchingPrecedence": precedence, "priorityLevelConfiguration": {"name": level},
        "rules": [{"subjects": [{"kind": "User", "user": {"name": user}}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]}})
}

#[test]
fn the_first_that_matches_decides() {
    let levels = [json!({"metadata": {"name": "l", "uid": "uid-l"}})];
    let schemas = Schemas::new(
        &[
            stored("b", 5, "l", "jane"),
            stored("a", 5, "l", "jane"),
            stored("c", 4, "l", "john"),
            stored("dangling", 2, "none", "*"),
        ],
        &levels,
    );
    let class = |user: &UserInfo| {
        let class = schemas.classify(user, &info(Method::GET, "/version")).unwrap();
        (class.schema.to_str().unwrap().to_owned(), class.level.to_str().unwrap().to_owned())
    };
    let named = |name: &str| UserInfo::new(name, Vec::<String>::new());
    assert_eq!(class(&named("jane")), ("uid-a".into(), "uid-l".into()));
    assert_eq!(class(&named("john")), ("uid-c".into(), "uid-l".into()));
    // Neither of the mandatory schemas is stored: they are there, and have no uid.
    assert_eq!(class(&named("other")), (String::new(), String::new()));
    assert_eq!(class(&UserInfo::default()), (String::new(), String::new()), "in no group at all");
    assert_eq!(class(&UserInfo::new("jane", ["system:masters"])), (String::new(), String::new()), "exempt is first");
}

/// What a request as a user is told: code, FlowSchema, level.
async fn told(client: &kube::Client, user: &str, path: &str) -> (u16, String, String) {
    let request = Request::get(path).header("impersonate-user", user).body(kube::client::Body::empty()).unwrap();
    let response = client.send(request).await.unwrap();
    let header = |name: HeaderName| response.headers().get(name).unwrap().to_str().unwrap().to_owned();
    (response.status().as_u16(), header(FLOW_SCHEMA), header(PRIORITY_LEVEL))
}

async fn uid_of(client: &kube::Client, path: &str) -> String {
    let object = expect(get(client, path).await, StatusCode::OK);
    object["metadata"]["uid"].as_str().unwrap().to_owned()
}

/// test/e2e/apimachinery/flowcontrol.go, "should ensure that requests can be classified".
#[tokio::test]
async fn requests_are_classified_by_what_is_stored() {
    let (_api, client) = start().await;
    let fallback = uid_of(&client, &format!("{SCHEMAS}/global-default")).await;
    let default_level = uid_of(&client, &format!("{LEVELS}/global-default")).await;
    // A refusal says it, too.
    assert_eq!(told(&client, "noxu", "/version").await, (200, fallback.clone(), default_level.clone()));
    assert_eq!(told(&client, "noxu", "/api/v1/nodes").await, (403, fallback, default_level));
    let level = json!({"metadata": {"name": "l"}, "spec": {"type": "Limited", "limited": {
        "nominalConcurrencyShares": 1, "limitResponse": {"type": "Reject"}}}});
    let level = expect(post(&client, LEVELS, &level).await, StatusCode::CREATED);
    let schema = json!({"metadata": {"name": "s"}, "spec": {
        "matchingPrecedence": 1000, "priorityLevelConfiguration": {"name": "l"},
        "distinguisherMethod": {"type": "ByUser"},
        "rules": [{"subjects": [{"kind": "User", "user": {"name": "noxu"}}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]}});
    let schema = expect(post(&client, SCHEMAS, &schema).await, StatusCode::CREATED);
    let uid = |object: &Value| object["metadata"]["uid"].as_str().unwrap().to_owned();
    let wanted = (200, uid(&schema), uid(&level));
    let classified = async || told(&client, "noxu", "/version").await == wanted;
    harness::time::eventually_true("the new schema is in force", classified).await.unwrap();
    assert_ne!(told(&client, "other", "/version").await.1, wanted.1);
    // Without its level it is out of force, and says so.
    expect(delete(&client, &format!("{LEVELS}/l")).await, StatusCode::OK);
    let dangling = async || {
        let schema = get(&client, &format!("{SCHEMAS}/s")).await.1;
        schema["status"]["conditions"][0]["status"] == "True" && told(&client, "noxu", "/version").await != wanted
    };
    harness::time::eventually_true("the schema dangles", dangling).await.unwrap();
}

#[tokio::test]
async fn what_every_cluster_has_is_there_and_stays() {
    let (api, client) = start().await;
    let list = expect(get(&client, SCHEMAS).await, StatusCode::OK);
    let schemas = list["items"].as_array().unwrap();
    assert_eq!(schemas.len(), 11);
    for schema in schemas {
        let condition = &schema["status"]["conditions"][0];
        assert_eq!((condition["type"].as_str(), condition["status"].as_str()), (Some("Dangling"), Some("False")));
        assert_eq!(schema["metadata"]["generation"], 1);
    }
    assert_eq!(expect(get(&client, LEVELS).await, StatusCode::OK)["items"].as_array().unwrap().len(), 8);
    // What is mandatory cannot be changed, and comes back; what is suggested can be taken over.
    let narrower = json!({"spec": {"matchingPrecedence": 9999}});
    let path = |name: &str| format!("{SCHEMAS}/{name}");
    expect(patch(&client, &path("catch-all"), "merge-patch+json", &narrower).await, StatusCode::UNPROCESSABLE_ENTITY);
    expect(delete(&client, &path("catch-all")).await, StatusCode::OK);
    let annotated = json!({"metadata": {"annotations": {"apf.kubernetes.io/autoupdate-spec": "false"}},
        "spec": {"matchingPrecedence": 700}});
    expect(patch(&client, &path("system-nodes"), "merge-patch+json", &annotated).await, StatusCode::OK);
    expect(
        patch(&client, &path("probes"), "merge-patch+json", &json!({"spec": {"matchingPrecedence": 3}})).await,
        StatusCode::OK,
    );
    let left = json!({"metadata": {"name": "old", "annotations": {"apf.kubernetes.io/autoupdate-spec": "true"}},
        "spec": {"priorityLevelConfiguration": {"name": "exempt"}}});
    expect(post(&client, SCHEMAS, &left).await, StatusCode::CREATED);
    api.server().registry.fresh().await.unwrap();
    objects(api.server()).await.unwrap();
    api.server().registry.fresh().await.unwrap();
    let precedence = async |name: &str| get(&client, &path(name)).await.1["spec"]["matchingPrecedence"].clone();
    assert_eq!(precedence("catch-all").await, 10_000);
    assert_eq!(precedence("system-nodes").await, 700);
    assert_eq!(precedence("probes").await, 2);
    expect(get(&client, &path("old")).await, StatusCode::NOT_FOUND);
    assert_eq!(get(&client, &path("probes")).await.1["metadata"]["generation"], 3);
}

#[tokio::test]
async fn tables() {
    let (_api, client) = start().await;
    let table = async |path: &str| {
        let accept = "application/json;as=Table;g=meta.k8s.io;v=v1";
        let request = Request::get(path).header("accept", accept).body(kube::client::Body::empty()).unwrap();
        let bytes = kube::client::Body::collect_bytes(client.send(request).await.unwrap().into_body()).await.unwrap();
        serde_json::from_slice::<Value>(&bytes).unwrap()["rows"][0]["cells"].as_array().unwrap().clone()
    };
    let cells = table(&format!("{SCHEMAS}/system-nodes")).await;
    assert_eq!(json!(cells[..4]), json!(["system-nodes", "system", 500, "ByUser"]));
    assert_eq!(cells[5], "False");
    let cells = table(&format!("{LEVELS}/system")).await;
    assert_eq!(json!(cells[..6]), json!(["system", "Limited", 30, 64, 6, 50]));
    let cells = table(&format!("{LEVELS}/exempt")).await;
    assert_eq!(json!(cells[1..6]), json!(["Exempt", "<none>", "<none>", "<none>", "<none>"]));
}

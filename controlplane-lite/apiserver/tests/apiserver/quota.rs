//! What a namespace's quotas admit, with their status written as the controller would.

use apiserver::testing::*;
use http::StatusCode;
use serde_json::{Value, json};

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// A quota that has been counted.
async fn quota(client: &kube::Client, name: &str, spec: Value, used: Value) {
    let hard = spec["hard"].clone();
    expect(post(client, QUOTAS, &json!({"metadata": {"name": name}, "spec": spec})).await, StatusCode::CREATED);
    let status = json!({"status": {"hard": hard, "used": used}});
    let path = format!("{QUOTAS}/{name}/status");
    expect(patch(client, &path, "merge-patch+json", &status).await, StatusCode::OK);
}

async fn used(client: &kube::Client, name: &str) -> Value {
    expect(get(client, &format!("{QUOTAS}/{name}")).await, StatusCode::OK)["status"]["used"].clone()
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}})
}

async fn account(client: &kube::Client) {
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    expect(post(client, accounts, &json!({"metadata": {"name": "default"}})).await, StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creates_that_race_never_get_more_than_there_is() {
    let (_server, client) = start().await;
    quota(&client, "objects", json!({"hard": {"count/configmaps": "7"}}), json!({"count/configmaps": "0"})).await;
    quota(&client, "wide", json!({"hard": {"configmaps": "100"}}), json!({"configmaps": "0"})).await;
    let racing = (0..40).map(|n| {
        let client = client.clone();
        tokio::spawn(async move { post(&client, MAPS, &map(&format!("m{n}"))).await })
    });
    let answers = futures::future::join_all(racing).await;
    let (mut made, mut refused) = (0, 0);
    for answer in answers {
        let (code, body) = answer.unwrap();
        match code {
            201 => made += 1,
            _ => {
                assert_eq!(code, 403, "{body}");
                let message = body["message"].as_str().unwrap();
                let why = "exceeded quota: objects, requested: count/configmaps=1, used: count/configmaps=7, \
                           limited: count/configmaps=7";
                assert!(message.ends_with(why), "{message}");
                refused += 1;
            }
        }
    }
    assert_eq!((made, refused), (7, 33));
    assert_eq!(used(&client, "objects").await, json!({"count/configmaps": "7"}));
    assert_eq!(used(&client, "wide").await, json!({"configmaps": "7"}), "what is refused is charged nowhere");
    let (_, metrics) = get(&client, "/metrics").await;
    let row = "apiserver_admission_controller_admission_duration_seconds_count{name=\"ResourceQuota\",\
               operation=\"CREATE\",rejected=\"true\",type=\"validate\"} 33";
    assert!(metrics.as_str().unwrap().contains(row), "{metrics}");
}

#[tokio::test]
async fn a_dry_run_is_judged_and_not_charged() {
    let (_server, client) = start().await;
    quota(&client, "q", json!({"hard": {"configmaps": "1"}}), json!({"configmaps": "0"})).await;
    let dry = format!("{MAPS}?dryRun=All");
    expect(post(&client, &dry, &map("a")).await, StatusCode::CREATED);
    assert_eq!(used(&client, "q").await, json!({"configmaps": "0"}));
    expect(post(&client, MAPS, &map("a")).await, StatusCode::CREATED);
    expect(post(&client, &dry, &map("b")).await, StatusCode::FORBIDDEN);
    assert_eq!(used(&client, "q").await, json!({"configmaps": "1"}));
    // Elsewhere there is none.
    expect(post(&client, "/api/v1/namespaces/kube-public/configmaps", &map("b")).await, StatusCode::CREATED);
}

#[tokio::test]
async fn a_quota_that_was_not_counted_yet_admits_nothing_it_counts() {
    let (_server, client) = start().await;
    let fresh = json!({"metadata": {"name": "q"}, "spec": {"hard": {"secrets": "3"}}});
    expect(post(&client, QUOTAS, &fresh).await, StatusCode::CREATED);
    let secrets = "/api/v1/namespaces/default/secrets";
    // What holds is in the status, and there is none yet.
    expect(post(&client, secrets, &map("a")).await, StatusCode::CREATED);
    let status = json!({"status": {"hard": {"secrets": "3"}}});
    expect(patch(&client, &format!("{QUOTAS}/q/status"), "merge-patch+json", &status).await, StatusCode::OK);
    let refused = expect(post(&client, secrets, &map("b")).await, StatusCode::FORBIDDEN);
    assert_eq!(refused["message"], "secrets \"b\" is forbidden: status unknown for quota: q, resources: secrets");
    expect(post(&client, MAPS, &map("b")).await, StatusCode::CREATED);
}

#[tokio::test]
async fn services_are_charged_when_they_change() {
    let (_server, client) = start().await;
    let hard = json!({"hard": {"services": "2", "services.nodeports": "1", "services.loadbalancers": "0"}});
    let none = json!({"services": "0", "services.nodeports": "0", "services.loadbalancers": "0"});
    quota(&client, "q", hard, none).await;
    let service = |name: &str, ty: &str| json!({"metadata": {"name": name}, "spec": {"type": ty, "ports": [{"port": 80}], "selector": {"a": "b"}}});
    expect(post(&client, SERVICES, &service("a", "NodePort")).await, StatusCode::CREATED);
    expect(post(&client, SERVICES, &service("b", "ClusterIP")).await, StatusCode::CREATED);
    let more = json!({"services": "2", "services.nodeports": "1", "services.loadbalancers": "0"});
    assert_eq!(used(&client, "q").await, more);
    let refused = expect(post(&client, SERVICES, &service("c", "LoadBalancer")).await, StatusCode::FORBIDDEN);
    assert_eq!(
        refused["message"],
        "services \"c\" is forbidden: exceeded quota: q, requested: \
         services=1,services.loadbalancers=1,services.nodeports=1, used: \
         services=2,services.loadbalancers=0,services.nodeports=1, limited: \
         services=2,services.loadbalancers=0,services.nodeports=1"
    );
    let open = json!({"spec": {"type": "NodePort"}});
    let path = format!("{SERVICES}/b");
    expect(patch(&client, &path, "merge-patch+json", &open).await, StatusCode::FORBIDDEN);
    let named = json!({"metadata": {"labels": {"x": "y"}}});
    expect(patch(&client, &path, "merge-patch+json", &named).await, StatusCode::OK);
    assert_eq!(used(&client, "q").await, more);
}

#[tokio::test]
async fn pods_have_to_say_what_a_quota_restricts() {
    let (_server, client) = start().await;
    account(&client).await;
    let hard = json!({"hard": {"pods": "2", "limits.cpu": "1"}});
    quota(&client, "q", hard, json!({"pods": "0", "limits.cpu": "0"})).await;
    let scoped = json!({"hard": {"pods": "0"}, "scopes": ["BestEffort"]});
    quota(&client, "best", scoped, json!({"pods": "0"})).await;
    let pod = |name: &str, resources: Value| {
        json!({"metadata": {"name": name},
            "spec": {"containers": [{"name": "c", "image": "i", "resources": resources}]}})
    };
    let refused = expect(post(&client, PODS, &pod("a", json!({}))).await, StatusCode::FORBIDDEN);
    let message = refused["message"].as_str().unwrap();
    // The quotas are asked in the order of their names.
    assert_eq!(message, "pods \"a\" is forbidden: failed quota: q: must specify limits.cpu for: c");
    let limited = pod("a", json!({"limits": {"cpu": "600m"}}));
    expect(post(&client, PODS, &limited).await, StatusCode::CREATED);
    let refused =
        expect(post(&client, PODS, &pod("b", json!({"limits": {"cpu": "600m"}}))).await, StatusCode::FORBIDDEN);
    assert_eq!(
        refused["message"],
        "pods \"b\" is forbidden: exceeded quota: q, requested: limits.cpu=600m, used: limits.cpu=600m, limited: \
         limits.cpu=1"
    );
    assert_eq!(used(&client, "q").await, json!({"pods": "1", "limits.cpu": "600m"}));
    assert_eq!(used(&client, "best").await, json!({"pods": "0"}));
}

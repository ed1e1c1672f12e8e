//! The APIServices of what the server serves itself, and what it tells other servers of its front proxy.

use super::*;

async fn names(client: &kube::Client) -> Vec<String> {
    let list = expect(get(client, SERVICES).await, StatusCode::OK);
    list["items"].as_array().unwrap().iter().map(|s| s["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn every_group_version_has_one() {
    let (_api, client) = start().await;
    let names = names(&client).await;
    let all = expect(get(&client, "/apis").await, StatusCode::OK);
    let groups = all["groups"].as_array().unwrap().iter().filter(|g| g["name"] != "apiregistration.k8s.io");
    let mut wanted = vec!["v1.".to_owned()];
    for group in groups {
        for version in group["versions"].as_array().unwrap() {
            wanted.push(format!("{}.{}", version["version"].as_str().unwrap(), group["name"].as_str().unwrap()));
        }
    }
    wanted.sort();
    assert_eq!(names, wanted);
    let apps = expect(get(&client, &format!("{SERVICES}/v1.apps")).await, StatusCode::OK);
    assert_eq!(apps["metadata"]["labels"], json!({"kube-aggregator.kubernetes.io/automanaged": "onstart"}));
    assert_eq!(
        apps["spec"],
        json!({"group": "apps", "version": "v1", "groupPriorityMinimum": 17800, "versionPriority": 15})
    );
    assert_eq!(apps["status"]["conditions"][0]["reason"], "Local");
}

#[tokio::test]
async fn they_are_made_once_and_kept_at_every_start() {
    let ca = Ca::default();
    let config = config(&ca);
    let server = apiserver::ApiServer::new(config.clone()).await.unwrap();
    let client = server.client(admin());
    expect(delete(&client, &format!("{SERVICES}/v1.apps")).await, StatusCode::OK);
    let other = json!({"spec": {"groupPriorityMinimum": 5}});
    expect(patch(&client, &format!("{SERVICES}/v1.batch"), "merge-patch+json", &other).await, StatusCode::OK);
    let stray = json!({"metadata": {"name": "v9.old", "labels": {"kube-aggregator.kubernetes.io/automanaged": "onstart"}},
        "spec": {"group": "old", "version": "v9", "groupPriorityMinimum": 1, "versionPriority": 1}});
    expect(post(&client, SERVICES, &stray).await, StatusCode::CREATED);
    let own = json!({"metadata": {"name": "v9.own"},
        "spec": {"group": "own", "version": "v9", "groupPriorityMinimum": 1, "versionPriority": 1}});
    expect(post(&client, SERVICES, &own).await, StatusCode::CREATED);
    // What is not there is served all the same.
    assert_eq!(get(&client, "/apis/apps/v1").await.0, 200);
    let again = apiserver::ApiServer::new(config).await.unwrap();
    let client = again.client(admin());
    let names = names(&client).await;
    assert!(names.contains(&"v1.apps".to_owned()) && names.contains(&"v9.own".to_owned()), "{names:?}");
    assert!(!names.contains(&"v9.old".to_owned()), "{names:?}");
    let batch = expect(get(&client, &format!("{SERVICES}/v1.batch")).await, StatusCode::OK);
    assert_eq!(batch["spec"]["groupPriorityMinimum"], 17400);
}

#[tokio::test]
async fn kinds_that_come_and_go_have_one_meanwhile() {
    let (api, client) = start().await;
    let registry = &api.server().registry;
    registry.publish(crate::published::widget()).await.unwrap();
    let path = format!("{SERVICES}/v1.com.example");
    let made = async || get(&client, &path).await.0 == 200;
    time::eventually_true("it is made", made).await.unwrap();
    let service = expect(get(&client, &path).await, StatusCode::OK);
    assert_eq!(service["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "true");
    assert_eq!(
        (&service["spec"]["groupPriorityMinimum"], &service["spec"]["versionPriority"]),
        (&json!(1000), &json!(100))
    );
    expect(delete(&client, &path).await, StatusCode::OK);
    time::eventually_true("it comes back", made).await.unwrap();
    assert!(registry.withdraw("com.example", "widgets").await);
    time::eventually_true("it goes", async || get(&client, &path).await.0 == 404).await.unwrap();
}

/// A definition's kinds are announced as those that are published one by one.
#[tokio::test]
async fn what_definitions_define_has_one_meanwhile() {
    let (_api, client) = start().await;
    crate::custom::define(&client, &crate::custom::widgets(&json!({}))).await;
    let path = format!("{SERVICES}/v1.example.com");
    time::eventually_true("it is made", async || get(&client, &path).await.0 == 200).await.unwrap();
    let definition = format!("{}/widgets.example.com", crate::custom::CRDS);
    expect(delete(&client, &definition).await, StatusCode::OK);
    time::eventually_true("it goes", async || get(&client, &path).await.0 == 404).await.unwrap();
}

#[tokio::test]
async fn what_a_definition_defines_has_one_meanwhile() {
    let (_api, client) = start().await;
    crate::custom::define(&client, &crate::custom::widgets(&json!({}))).await;
    let path = format!("{SERVICES}/v1.example.com");
    let is = async |code: u16| get(&client, &path).await.0 == code;
    time::eventually_true("it is made", async || is(200).await).await.unwrap();
    expect(delete(&client, &format!("{}/widgets.example.com", crate::custom::CRDS)).await, StatusCode::OK);
    time::eventually_true("it goes", async || is(404).await).await.unwrap();
}

#[tokio::test]
async fn other_servers_learn_whom_to_believe() {
    let ca = Ca::default();
    let server = apiserver::ApiServer::new(config(&ca)).await.unwrap();
    let path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let map = expect(get(&server.client(admin()), path).await, StatusCode::OK);
    assert_eq!(
        map["data"]["requestheader-client-ca-file"].as_str().unwrap().trim(),
        ca.pki.front_proxy_ca().cert_pem().trim()
    );
    assert_eq!(map["data"]["requestheader-allowed-names"], r#"["front-proxy-client"]"#);
    assert_eq!(map["data"]["requestheader-username-headers"], r#"["X-Remote-User"]"#);
}

//! Secrets that ask for the token of an account: filled, good for the API, and gone with the account.

#![allow(clippy::unwrap_used)]

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewStatus};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::{from_value, json};

use crate::cluster::{Cluster, config};

/// What kubectl makes of the manifest in upstream's documentation ("manually create a long-lived API token").
async fn ask(c: &Cluster, secret: &str, account: &str) {
    c.create::<Secret>(json!({
        "metadata": {"name": secret, "annotations": {"kubernetes.io/service-account.name": account}},
        "type": "kubernetes.io/service-account-token"}))
        .await;
}

async fn text(c: &Cluster, secret: &str, key: &str) -> Option<String> {
    let data = c.api::<Secret>().get(secret).await.unwrap().data?;
    Some(String::from_utf8(data.get(key)?.0.clone()).unwrap())
}

async fn review(c: &Cluster, token: &str) -> TokenReviewStatus {
    let api: Api<TokenReview> = Api::all(c.client.clone());
    let review = from_value(json!({"spec": {"token": token}})).unwrap();
    api.create(&PostParams::default(), &review).await.unwrap().status.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_holds_a_token_as_long_as_its_account_is_there() {
    let c = Cluster::start(config()).await;
    let account: ServiceAccount = c.create(json!({"metadata": {"name": "robot"}})).await;
    ask(&c, "robot-token", "robot").await;
    c.wait_for("a token", || async { text(&c, "robot-token", "token").await.is_some() }).await;
    let of = |key: &'static str| text(&c, "robot-token", key);
    assert_eq!((of("namespace").await.as_deref(), of("ca.crt").await.as_deref()), (Some("default"), Some("PEM")));
    let secret: Secret = c.api().get("robot-token").await.unwrap();
    assert_eq!(secret.annotations().get("kubernetes.io/service-account.uid"), account.uid().as_ref());

    let token = of("token").await.unwrap();
    let status = review(&c, &token).await;
    let user = status.user.unwrap();
    assert_eq!(status.authenticated, Some(true));
    assert_eq!((user.username.as_deref(), user.uid), (Some("system:serviceaccount:default:robot"), account.uid()));

    c.api::<ServiceAccount>().delete("robot", &DeleteParams::default()).await.unwrap();
    c.wait_for("the Secret is gone, too", || async { !c.exists::<Secret>("robot-token").await }).await;
    assert_ne!(review(&c, &token).await.authenticated, Some(true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_ends_with_its_secret_and_is_named_no_longer() {
    let c = Cluster::start(config()).await;
    c.create::<ServiceAccount>(json!({"metadata": {"name": "robot"}, "secrets": [{"name": "s"}, {"name": "other"}]}))
        .await;
    ask(&c, "s", "robot").await;
    c.wait_for("a token", || async { text(&c, "s", "token").await.is_some() }).await;
    let token = text(&c, "s", "token").await.unwrap();
    assert_eq!(review(&c, &token).await.authenticated, Some(true));
    c.api::<Secret>().delete("s", &DeleteParams::default()).await.unwrap();
    // The authenticator follows what is stored.
    c.wait_for("the token ends", || async { review(&c, &token).await.authenticated != Some(true) }).await;
    c.wait_for("the account names it no longer", || async {
        let account: ServiceAccount = c.api().get("robot").await.unwrap();
        account.secrets.unwrap_or_default().iter().filter_map(|s| s.name.clone()).collect::<Vec<_>>() == ["other"]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_of_no_account_goes() {
    let c = Cluster::start(config()).await;
    ask(&c, "of-nobody", "nobody").await;
    c.wait_for("gone", || async { !c.exists::<Secret>("of-nobody").await }).await;
}

/// A name that is no name would be a watch of all accounts, which never ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_reads_like_a_query_holds_nobody_up() {
    let c = Cluster::start(config()).await;
    for (secret, account) in
        [("a", "?watch=true&timeoutSeconds=31622400"), ("b", "?watch=true&timeoutSeconds=31622399"), ("c", "x/token")]
    {
        ask(&c, secret, account).await;
    }
    c.create::<ServiceAccount>(json!({"metadata": {"name": "robot"}})).await;
    ask(&c, "robot-token", "robot").await;
    c.wait_for("a token", || async { text(&c, "robot-token", "token").await.is_some() }).await;
    for secret in ["a", "b", "c"] {
        c.wait_for("gone", || async { !c.exists::<Secret>(secret).await }).await;
    }
}

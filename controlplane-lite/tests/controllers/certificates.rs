//! Certificates that nodes ask for, and the tokens that they join with.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use controlplane_lite::auth::authn::UserInfo;
use controlplane_lite::controllers::ControllersConfig;
use controlplane_lite::pki::{CertInfo, Pki};
use harness::time;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, from_value, json};

use crate::cluster::{Cluster, config};

async fn start() -> (Cluster, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let pki = Pki::load_or_create(directory.path(), jiff::Timestamp::now()).unwrap();
    let config = ControllersConfig { signer: Some(Arc::new(pki)), ..config() };
    (Cluster::start(config).await, directory)
}

fn pem(node: &str, names: &[&str]) -> String {
    let mut params = rcgen::CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(rcgen::DnType::CommonName, format!("system:node:{node}"));
    params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}

/// Asks as somebody; what was stored.
async fn ask(c: &Cluster, user: UserInfo, name: &str, kind: (&str, &str), pem: String) -> CertificateSigningRequest {
    try_ask(c, user, name, kind, pem).await.unwrap()
}

/// The same; the code of a refusal.
async fn try_ask(
    c: &Cluster,
    user: UserInfo,
    name: &str,
    (signer, usage): (&str, &str),
    pem: String,
) -> Result<CertificateSigningRequest, u16> {
    let mut request: CertificateSigningRequest = from_value(json!({
        "metadata": {"name": name},
        "spec": {"request": "", "signerName": format!("kubernetes.io/{signer}"), "expirationSeconds": 3600,
            "usages": ["digital signature", usage], "username": "forged", "groups": ["system:masters"]},
    }))
    .unwrap();
    request.spec.request = ByteString(pem.into_bytes());
    let api: Api<CertificateSigningRequest> = Api::all(c.client_as(user));
    match api.create(&PostParams::default(), &request).await {
        Err(kube::Error::Api(status)) => Err(status.code),
        stored => Ok(stored.unwrap()),
    }
}

/// Approves as an administrator, and waits until the signer has refused.
async fn approved_in_vain(c: &Cluster, name: &str) -> Vec<String> {
    let api: Api<CertificateSigningRequest> = Api::all(c.client.clone());
    let mut request = api.get(name).await.unwrap();
    let yes = json!({"conditions": [{"type": "Approved", "status": "True", "reason": "Test"}]});
    request.status = from_value(yes).unwrap();
    let _: CertificateSigningRequest =
        api.replace_subresource("approval", name, &PostParams::default(), &request).await.unwrap();
    let reasons = |request: CertificateSigningRequest| -> Vec<String> {
        let conditions = request.status.unwrap().conditions.unwrap();
        conditions.into_iter().map(|c| format!("{} {}", c.type_, c.reason.unwrap_or_default())).collect()
    };
    c.wait_for("a failure", || async { reasons(api.get(name).await.unwrap()).len() == 2 }).await;
    let failed = api.get(name).await.unwrap();
    assert_eq!(certificate(&failed), None);
    reasons(failed)
}

fn certificate(request: &CertificateSigningRequest) -> Option<CertInfo> {
    let pem = request.status.as_ref()?.certificate.as_ref()?;
    Some(CertInfo::from_pem(std::str::from_utf8(&pem.0).unwrap()).unwrap())
}

async fn issued(c: &Cluster, name: &str) -> CertInfo {
    let api: Api<CertificateSigningRequest> = Api::all(c.client.clone());
    c.wait_for("a certificate", || async { certificate(&api.get(name).await.unwrap()).is_some() }).await;
    certificate(&api.get(name).await.unwrap()).unwrap()
}

fn joiner() -> UserInfo {
    UserInfo::new("system:bootstrap:abcdef", ["system:bootstrappers"])
}

const CLIENT: (&str, &str) = ("kube-apiserver-client-kubelet", "client auth");
const SERVING: (&str, &str) = ("kubelet-serving", "server auth");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_get_their_client_certificates() {
    let (c, _directory) = start().await;
    let stored = ask(&c, joiner(), "join", CLIENT, pem("n1", &[])).await;
    assert_eq!(stored.spec.username.as_deref(), Some("system:bootstrap:abcdef"));
    assert!(!stored.spec.groups.unwrap().contains(&"system:masters".to_owned()));
    let info = issued(&c, "join").await;
    assert_eq!((info.common_name.as_str(), info.organizations[0].as_str()), ("system:node:n1", "system:nodes"));
    let left = info.not_after.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((3500..=3600).contains(&left), "{left}");
    ask(&c, UserInfo::node("n1"), "renew", CLIENT, pem("n1", &[])).await;
    issued(&c, "renew").await;
    // A node asks for no other's, and nobody for two names at once.
    assert_eq!(try_ask(&c, UserInfo::node("n1"), "other", CLIENT, pem("n2", &[])).await.unwrap_err(), 403);
    for user in [UserInfo::node("n1"), joiner()] {
        let refused = try_ask(&c, user, "two", CLIENT, with_two_names("n1", "system:kube-controller-manager")).await;
        assert!([403, 422].contains(&refused.unwrap_err()));
    }
    // Whose form is another is not approved here, and not signed though somebody approved it.
    ask(&c, joiner(), "named", CLIENT, pem("n1", &["n1"])).await;
    assert_eq!(approved_in_vain(&c, "named").await, ["Approved Test", "Failed SignerValidationFailure"]);
}

fn with_two_names(node: &str, other: &str) -> String {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(rcgen::DnType::CommonName, format!("system:node:{node}"));
    params.distinguished_name.push(rcgen::DnType::CustomDnType(vec![2, 5, 4, 3]), other);
    params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_serving_certificate_waits_for_the_nodes_addresses() {
    let (c, _directory) = start().await;
    c.node("n1").await;
    ask(&c, UserInfo::node("n1"), "serve", SERVING, pem("n1", &["n1", "10.0.0.1"])).await;
    ask(&c, UserInfo::node("n1"), "api", SERVING, pem("n1", &["n1", "192.0.2.1"])).await;
    let nodes: Api<Node> = Api::all(c.client.clone());
    let addresses = json!({"status": {"addresses": [
        {"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": "n1"}]}});
    nodes.patch_status("n1", &PatchParams::default(), &Patch::Merge(&addresses)).await.unwrap();
    let info = issued(&c, "serve").await;
    assert_eq!((info.dns_names.len(), info.ip_addresses.len()), (1, 1));
    let api: Api<CertificateSigningRequest> = Api::all(c.client.clone());
    assert_eq!(certificate(&api.get("api").await.unwrap()), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_administrator_approved_wrongly_fails() {
    let (c, _directory) = start().await;
    ask(&c, joiner(), "odd", ("kube-apiserver-client", "server auth"), pem("n1", &[])).await;
    assert_eq!(approved_in_vain(&c, "odd").await, ["Approved Test", "Failed SignerValidationFailure"]);
}

fn token(id: &str, expires_in: i64) -> Value {
    let ends = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(expires_in);
    json!({"metadata": {"name": format!("bootstrap-token-{id}")}, "type": "bootstrap.kubernetes.io/token",
        "stringData": {"token-id": id, "token-secret": "0123456789abcdef", "expiration": ends.to_string(),
            "usage-bootstrap-signing": "true", "usage-bootstrap-authentication": "true"}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_sign_cluster_info_until_they_end() {
    let (c, _directory) = start().await;
    let secrets: Api<Secret> = Api::namespaced(c.client.clone(), "kube-system");
    let maps: Api<ConfigMap> = Api::namespaced(c.client.clone(), "kube-public");
    let info = json!({"metadata": {"name": "cluster-info"}, "data": {"kubeconfig": "content"}});
    maps.create(&PostParams::default(), &from_value(info).unwrap()).await.unwrap();
    // Long enough to be signed by on any machine.
    let short = i64::try_from(time::attempt().as_secs() / 2).unwrap();
    for token in [token("abcdef", 86_400), token("ghijkl", short)] {
        secrets.create(&PostParams::default(), &from_value(token).unwrap()).await.unwrap();
    }
    let signed_by = |wanted: &'static [&'static str]| {
        let maps = maps.clone();
        move || {
            let maps = maps.clone();
            async move {
                let data = maps.get("cluster-info").await.unwrap().data.unwrap();
                data.keys().filter_map(|k| k.strip_prefix("jws-kubeconfig-")).eq(wanted.iter().copied())
            }
        }
    };
    c.wait_for("two signatures", signed_by(&["abcdef", "ghijkl"])).await;
    c.wait_for("one signature", signed_by(&["abcdef"])).await;
    assert!(secrets.get_opt("bootstrap-token-ghijkl").await.unwrap().is_none());
    assert!(secrets.get_opt("bootstrap-token-abcdef").await.unwrap().is_some());
    secrets.delete("bootstrap-token-abcdef", &Default::default()).await.unwrap();
    c.wait_for("no signature", signed_by(&[])).await;
    c.stop_controllers().await;
}

//! Objects that the cluster is given beside those every API server has: the DNS Service, what DNS may read, and how
//! to join.
//!
//! None of them is needed for the API to answer. What is in the way of one (another Service that has the DNS
//! address) can be removed through the API alone, so nothing here keeps it from starting.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use controlplane_lite::apiserver::ApiServer;
use controlplane_lite::auth::authn::UserInfo;
use controlplane_lite::controllers::bootstrap::CLUSTER_INFO;
use controlplane_lite::pki::Pki;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;

use super::ControlPlaneInputs;
use crate::cli::ClusterNet;
use crate::tasks::Tasks;
use crate::{errors, flags, kubeconfig};

/// Publishes all of it. What fails is told, and tried again until it works.
pub async fn start(api: &ApiServer, pki: &Arc<Pki>, inputs: &ControlPlaneInputs, tasks: &Tasks) {
    if let Err(error) = all(api, pki, inputs).await {
        tracing::warn!(error = errors::one_line(&error), "the cluster lacks objects that it should have");
        let (api, pki, inputs) = (api.clone(), pki.clone(), inputs.clone());
        tasks.keep("cluster objects", move |token| {
            let (api, pki, inputs) = (api.clone(), pki.clone(), inputs.clone());
            async move {
                all(&api, &pki, &inputs).await?;
                token.cancelled().await;
                Ok(())
            }
        });
    }
}

/// Each of them, whatever becomes of the others.
async fn all(api: &ApiServer, pki: &Pki, inputs: &ControlPlaneInputs) -> Result<()> {
    let outcomes = [
        dns(api, &inputs.net).await.context("publish the DNS Service"),
        allow_dns(api).await.context("let DNS see namespaces"),
        cluster_info(api, pki, inputs).await.context("publish how to join"),
    ];
    let failures: Vec<_> = outcomes.into_iter().filter_map(Result::err).map(|error| errors::one_line(&error)).collect();
    if failures.is_empty() { Ok(()) } else { bail!(failures.join("; ")) }
}

/// The Service under whose address every node answers names. It has no
/// endpoints: what is sent to it never leaves the node.
async fn dns(api: &ApiServer, net: &ClusterNet) -> Result<()> {
    let services: Api<Service> =
        Api::namespaced(api.client(UserInfo::new("system:apiserver", ["system:masters"])), "kube-system");
    let port = |name: &str, protocol: &str| json!({"name": name, "port": 53, "targetPort": 53, "protocol": protocol});
    let service = serde_json::from_value(json!({
        "metadata": {
            "name": "kube-dns",
            "labels": {
                "k8s-app": "kube-dns",
                "kubernetes.io/cluster-service": "true",
                "kubernetes.io/name": "CoreDNS",
                // Not for service proxies: they would refuse a Service without endpoints.
                "service.kubernetes.io/service-proxy-name": "copepod-dns",
            },
        },
        "spec": {"clusterIP": flags::dns_address(net)?, "ports": [port("dns", "UDP"), port("dns-tcp", "TCP")]},
    }))?;
    // Looked up first: creating it again would find its own address taken.
    if services.get_opt("kube-dns").await?.is_none() {
        services.create(&PostParams::default(), &service).await?;
    }
    Ok(())
}

/// Lets the service proxy, as which nodes ask for what names follow from, see which namespaces there
/// are. The role is called as that of upstream's server.
async fn allow_dns(api: &ApiServer) -> Result<()> {
    let client = api.client(UserInfo::new("system:apiserver", ["system:masters"]));
    let (roles, bindings) = (Api::<ClusterRole>::all(client.clone()), Api::<ClusterRoleBinding>::all(client));
    let name = "system:coredns";
    if roles.get_opt(name).await?.is_none() {
        let role = serde_json::from_value(json!({
            "metadata": {"name": name},
            "rules": [{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["list", "watch"]}],
        }))?;
        roles.create(&PostParams::default(), &role).await?;
    }
    if bindings.get_opt(name).await?.is_none() {
        let binding = serde_json::from_value(json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:kube-proxy"}],
        }))?;
        bindings.create(&PostParams::default(), &binding).await?;
    }
    Ok(())
}

/// What who wants to join has to know: where the API is and whom to trust. The
/// bootstrap signer adds the signatures.
async fn cluster_info(api: &ApiServer, pki: &Pki, inputs: &ControlPlaneInputs) -> Result<()> {
    let (namespace, name) = CLUSTER_INFO;
    let maps: Api<ConfigMap> =
        Api::namespaced(api.client(UserInfo::new("system:apiserver", ["system:masters"])), namespace);
    let server = format!("https://{}", SocketAddr::new(inputs.address, inputs.args.secure_port));
    let content = serde_norway::to_string(&kubeconfig::anonymous(&server, pki.ca().cert_pem()))?;
    let data = |mut data: BTreeMap<String, String>| {
        data.insert("kubeconfig".to_owned(), content.clone());
        Some(data)
    };
    match maps.get_opt(name).await? {
        None => {
            let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
            let map = ConfigMap { metadata, data: data(BTreeMap::new()), ..ConfigMap::default() };
            maps.create(&PostParams::default(), &map).await?;
        }
        Some(map) if map.data.as_ref().and_then(|d| d.get("kubeconfig")) != Some(&content) => {
            let map = ConfigMap { data: data(map.data.clone().unwrap_or_default()), ..map };
            // Somebody else's write in between is the signer's, which comes again.
            let map = ConfigMap { metadata: ObjectMeta { resource_version: None, ..map.metadata }, ..map };
            maps.replace(name, &PostParams::default(), &map).await?;
        }
        Some(_) => {}
    }
    Ok(())
}

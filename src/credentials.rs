//! Credentials for members of a cluster, issued from its certificates on disk.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result};
use controlplane_lite::pki::{CertifiedKey, LEAF_LIFETIME, Pki, Subject};
use jiff::Timestamp;
use serde_json::Value;

use crate::kubeconfig::{self, Entry};

/// A kubeconfig with a client certificate for the node `name`.
///
/// # Errors
/// When the cluster's authority cannot be read.
pub fn node_kubeconfig(pki: &Path, name: &str, server: &str) -> Result<Value> {
    user_kubeconfig(pki, &format!("system:node:{name}"), Some("system:nodes"), server)
}

/// A kubeconfig with a client certificate for the nodes' service proxies.
///
/// # Errors
/// When the cluster's authority cannot be read.
pub fn proxy_kubeconfig(pki: &Path, server: &str) -> Result<Value> {
    user_kubeconfig(pki, "system:kube-proxy", None, server)
}

/// A serving certificate for the kubelet of the node `name`, which the API server takes for nobody else's.
///
/// # Errors
/// When the cluster's authority cannot be read.
pub fn node_serving(pki: &Path, name: &str, ip: IpAddr) -> Result<CertifiedKey> {
    kubeconfig::require(&pki.join("ca.key"))?;
    let now = Timestamp::now();
    let pki = Pki::load_or_create(pki, now).context("load the cluster's certificates")?;
    let subject = Subject::server(&format!("system:node:{name}"), vec![name.to_owned()], vec![ip]);
    pki.ca().issue(&subject, LEAF_LIFETIME, now).with_context(|| format!("issue a serving certificate for {name}"))
}

/// A kubeconfig with a client certificate for any user.
///
/// # Errors
/// When the cluster's authority cannot be read.
pub fn user_kubeconfig(pki: &Path, user: &str, group: Option<&str>, server: &str) -> Result<Value> {
    kubeconfig::require(&pki.join("ca.key"))?;
    let now = Timestamp::now();
    let pki = Pki::load_or_create(pki, now).context("load the cluster's certificates")?;
    let issued = pki.ca().issue(&Subject::client(user, group), LEAF_LIFETIME, now);
    let issued = issued.with_context(|| format!("issue a certificate for {user}"))?;
    Ok(render("copepod", server, pki.ca().cert_pem(), &issued))
}

/// A kubeconfig of one cluster called `name`.
pub fn render(name: &str, server: &str, ca_pem: &str, identity: &CertifiedKey) -> Value {
    kubeconfig::render(&Entry {
        name,
        server,
        ca_pem,
        client_cert_pem: &identity.cert_pem,
        client_key_pem: &identity.key_pem,
    })
}

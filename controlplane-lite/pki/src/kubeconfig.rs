//! Kubeconfig files for the cluster's own clients.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::CertifiedKey;

/// A kubeconfig with one cluster, one user and one context, all inline.
pub fn kubeconfig(cluster: &str, user: &str, server: &str, ca_pem: &str, identity: &CertifiedKey) -> String {
    let document = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "preferences": {},
        "current-context": cluster,
        "clusters": [{
            "name": cluster,
            "cluster": {"server": server, "certificate-authority-data": STANDARD.encode(ca_pem)},
        }],
        "users": [{
            "name": user,
            "user": {
                "client-certificate-data": STANDARD.encode(&identity.cert_pem),
                "client-key-data": STANDARD.encode(&identity.key_pem),
            },
        }],
        "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": user}}],
    });
    serde_norway::to_string(&document).expect("strings and lists are always YAML")
}

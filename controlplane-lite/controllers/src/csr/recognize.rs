//! What a request asks for, told by upstream's exact forms. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;

use pki::{CsrInfo, NODES, Usage};

/// Clients of the API.
pub(super) const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// Kubelets as clients of the API.
pub(super) const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Kubelets' own servers.
pub(super) const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";

const NODE_PREFIX: &str = "system:node:";
const SIGNATURE: &str = "digital signature";
const ENCIPHERMENT: &str = "key encipherment";
const CLIENT_AUTH: &str = "client auth";
const SERVER_AUTH: &str = "server auth";

/// What is asked, as far as it can be read.
pub(super) fn read(request: &CertificateSigningRequest) -> Result<CsrInfo, String> {
    let pem = std::str::from_utf8(&request.spec.request.0).map_err(|error| error.to_string())?;
    CsrInfo::from_pem(pem).map_err(|error| error.to_string())
}

/// The signature, the usage itself, and for RSA keys encipherment.
fn usages_are(usages: &[String], wanted: &str) -> bool {
    let usages: BTreeSet<&str> = usages.iter().map(String::as_str).collect();
    usages == BTreeSet::from([SIGNATURE, wanted]) || usages == BTreeSet::from([SIGNATURE, ENCIPHERMENT, wanted])
}

/// Whether this is how a kubelet asks for its client certificate.
pub(super) fn kubelet_client(asked: &CsrInfo, usages: &[String]) -> Result<(), &'static str> {
    if asked.organizations != [NODES] {
        return Err("subject organization is not system:nodes");
    }
    if !asked.dns_names.is_empty() {
        return Err("DNS subjectAltNames are not allowed");
    }
    if !asked.email_addresses.is_empty() {
        return Err("Email subjectAltNames are not allowed");
    }
    if !asked.ip_addresses.is_empty() {
        return Err("IP subjectAltNames are not allowed");
    }
    if !asked.uris.is_empty() {
        return Err("URI subjectAltNames are not allowed");
    }
    if !asked.common_name.starts_with(NODE_PREFIX) {
        return Err("subject common name does not begin with system:node: ");
    }
    if !usages_are(usages, CLIENT_AUTH) {
        return Err(
            "usages did not match [digital signature client auth] or [digital signature key encipherment client auth]",
        );
    }
    Ok(())
}

/// Whether this is how a kubelet asks for its serving certificate.
pub(super) fn kubelet_serving(asked: &CsrInfo, usages: &[String]) -> Result<(), &'static str> {
    if asked.organizations != [NODES] {
        return Err("subject organization is not system:nodes");
    }
    if asked.dns_names.is_empty() && asked.ip_addresses.is_empty() {
        return Err("DNS or IP subjectAltName is required");
    }
    if !asked.email_addresses.is_empty() {
        return Err("Email subjectAltNames are not allowed");
    }
    if !asked.uris.is_empty() {
        return Err("URI subjectAltNames are not allowed");
    }
    if !usages_are(usages, SERVER_AUTH) {
        return Err(
            "usages did not match [digital signature server auth] or [digital signature key encipherment server auth]",
        );
    }
    if !asked.common_name.starts_with(NODE_PREFIX) {
        return Err("subject common name does not begin with system:node: ");
    }
    Ok(())
}

/// Whether a client of the API asks for no more than that.
fn api_client(usages: &[String]) -> Result<(), String> {
    if let Some(other) = usages.iter().find(|u| ![SIGNATURE, ENCIPHERMENT, CLIENT_AUTH].contains(&u.as_str())) {
        return Err(format!("invalid usage for client certificate: {other}"));
    }
    if !usages.iter().any(|u| u == CLIENT_AUTH) {
        return Err(format!("missing required usage for client certificate: {CLIENT_AUTH}"));
    }
    Ok(())
}

/// What a certificate of the signer may be used for, when the request has the signer's form. `None` for signers that
/// are somebody else's.
pub(super) fn for_signer(signer: &str, asked: &CsrInfo, usages: &[String]) -> Option<Result<Usage, String>> {
    match signer {
        CLIENT => Some(api_client(usages).map(|()| Usage::ClientAuth)),
        KUBELET_CLIENT => Some(kubelet_client(asked, usages).map(|()| Usage::ClientAuth).map_err(str::to_owned)),
        KUBELET_SERVING => Some(kubelet_serving(asked, usages).map(|()| Usage::ServerAuth).map_err(str::to_owned)),
        _ => None,
    }
}

/// The node that asks for its own serving certificate.
pub(super) fn serving_node<'r>(request: &'r CertificateSigningRequest, asked: &CsrInfo) -> Option<&'r str> {
    let spec = &request.spec;
    let user = spec.username.as_deref()?;
    let is_node = spec.groups.iter().flatten().any(|group| group == NODES);
    let fits = spec.signer_name == KUBELET_SERVING
        && is_node
        && user == asked.common_name
        && kubelet_serving(asked, spec.usages.as_deref().unwrap_or_default()).is_ok();
    user.strip_prefix(NODE_PREFIX).filter(|_| fits)
}

/// Names and addresses under which a node may be reached.
fn reached_by(node: &Node) -> BTreeSet<String> {
    let addresses = node.status.iter().flat_map(|s| s.addresses.iter().flatten());
    addresses.map(|address| normal(&address.address)).collect()
}

fn normal(name: &str) -> String {
    name.parse::<IpAddr>().map_or_else(|_| name.to_ascii_lowercase(), |ip| ip.to_string())
}

/// Whether the names asked for are all of this node's and nobody else's. `taken` are addresses of Services and of the
/// API itself.
pub(super) fn names_are_the_nodes(asked: &CsrInfo, node: &Node, others: &[&Node], taken: &BTreeSet<String>) -> bool {
    let wanted: BTreeSet<String> =
        asked.dns_names.iter().map(|n| normal(n)).chain(asked.ip_addresses.iter().map(ToString::to_string)).collect();
    let special = |name: &String| match name.parse::<IpAddr>() {
        Ok(ip) => ip.is_loopback() || ip.is_unspecified(),
        Err(_) => name == "localhost" || name.contains('*') || name == "kubernetes" || name.starts_with("kubernetes."),
    };
    let elsewhere = |name: &String| taken.contains(name) || others.iter().any(|other| reached_by(other).contains(name));
    !wanted.is_empty() && wanted == reached_by(node) && !wanted.iter().any(|name| special(name) || elsewhere(name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn client() -> CsrInfo {
        CsrInfo { common_name: "system:node:a".into(), organizations: vec![NODES.into()], ..CsrInfo::default() }
    }

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn kubelets_are_known_by_their_exact_form() {
        let usages = words(&[CLIENT_AUTH, SIGNATURE]);
        assert!(kubelet_client(&client(), &usages).is_ok());
        assert!(kubelet_client(&client(), &words(&[SIGNATURE, ENCIPHERMENT, CLIENT_AUTH])).is_ok());
        type Change = fn(&mut CsrInfo);
        let changes: [Change; 6] = [
            |c| c.organizations.push("system:masters".into()),
            |c| c.organizations.clear(),
            |c| c.dns_names.push("a".into()),
            |c| c.ip_addresses.push([10, 0, 0, 1].into()),
            |c| c.common_name = "node".into(),
            |c| c.uris.push("spiffe://x".into()),
        ];
        for change in changes {
            let mut changed = client();
            change(&mut changed);
            assert!(kubelet_client(&changed, &usages).is_err(), "{changed:?}");
        }
        for usages in [&[CLIENT_AUTH][..], &[], &[CLIENT_AUTH, SIGNATURE, SERVER_AUTH]] {
            assert!(kubelet_client(&client(), &words(usages)).is_err(), "{usages:?}");
        }
    }

    #[test]
    fn signers_take_what_upstreams_take() {
        let any = CsrInfo { common_name: "jane".into(), ..CsrInfo::default() };
        assert_eq!(for_signer(CLIENT, &any, &words(&[CLIENT_AUTH])), Some(Ok(Usage::ClientAuth)));
        assert!(for_signer(CLIENT, &any, &words(&[CLIENT_AUTH, SERVER_AUTH])).unwrap().is_err());
        assert!(for_signer(CLIENT, &any, &words(&[SIGNATURE])).unwrap().is_err());
        assert!(for_signer(KUBELET_CLIENT, &any, &words(&[CLIENT_AUTH, SIGNATURE])).unwrap().is_err());
        assert!(for_signer(KUBELET_SERVING, &client(), &words(&[SERVER_AUTH, SIGNATURE])).unwrap().is_err());
        let serving = CsrInfo { dns_names: words(&["a"]), ..client() };
        let usages = words(&[SERVER_AUTH, SIGNATURE]);
        assert_eq!(for_signer(KUBELET_SERVING, &serving, &usages), Some(Ok(Usage::ServerAuth)));
        assert_eq!(for_signer("example.com/x", &any, &usages), None);
    }

    fn node(name: &str, ip: &str) -> Node {
        serde_json::from_value(json!({"metadata": {"name": name}, "status": {"addresses": [
            {"type": "InternalIP", "address": ip}, {"type": "Hostname", "address": name}]}}))
        .unwrap()
    }

    #[test]
    fn a_serving_certificate_is_for_the_node_and_nobody_else() {
        let (a, b) = (node("a", "10.0.0.1"), node("b", "10.0.0.2"));
        let ask =
            |dns: &[&str], ip: [u8; 4]| CsrInfo { dns_names: words(dns), ip_addresses: vec![ip.into()], ..client() };
        let none = BTreeSet::new();
        let good = ask(&["a"], [10, 0, 0, 1]);
        assert!(names_are_the_nodes(&good, &a, &[&b], &none));
        for bad in [ask(&["a"], [10, 0, 0, 2]), ask(&["a", "b"], [10, 0, 0, 1]), ask(&[], [10, 0, 0, 1])] {
            assert!(!names_are_the_nodes(&bad, &a, &[&b], &none), "{bad:?}");
        }
        // What a node says of itself is not enough to become somebody else.
        assert!(!names_are_the_nodes(&good, &a, &[&node("x", "10.0.0.1")], &none));
        assert!(!names_are_the_nodes(&good, &a, &[], &BTreeSet::from(["10.0.0.1".to_owned()])));
        for name in ["kubernetes", "kubernetes.default.svc", "localhost", "*.a"] {
            assert!(!names_are_the_nodes(&ask(&[name], [10, 0, 0, 1]), &node(name, "10.0.0.1"), &[], &none), "{name}");
        }
        assert!(!names_are_the_nodes(&ask(&["l"], [127, 0, 0, 1]), &node("l", "127.0.0.1"), &[], &none));
        assert!(!names_are_the_nodes(&client(), &Node::default(), &[], &none), "nothing is no name");
    }
}

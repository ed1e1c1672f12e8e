//! What a request asks for, told by upstream's exact forms. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;

use pki::{AlternativeNames, NODES, Name, Request, Usage};

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
pub(super) fn read(request: &CertificateSigningRequest) -> Result<Request, String> {
    let pem = std::str::from_utf8(&request.spec.request.0).map_err(|error| error.to_string())?;
    Request::from_pem(pem).map_err(|error| error.to_string())
}

/// The signature, the usage itself, and for RSA keys encipherment.
fn usages_are(usages: &[String], wanted: &str) -> bool {
    let usages: BTreeSet<&str> = usages.iter().map(String::as_str).collect();
    usages == BTreeSet::from([SIGNATURE, wanted]) || usages == BTreeSet::from([SIGNATURE, ENCIPHERMENT, wanted])
}

/// The subject of a kubelet's certificate.
fn kubelet_subject(asked: &Request) -> Result<&Name, String> {
    let subject = asked.subject()?;
    if !subject.organizations().eq([NODES]) {
        return Err("subject organization is not system:nodes".into());
    }
    if !subject.common_name().starts_with(NODE_PREFIX) {
        return Err("subject common name does not begin with system:node: ".into());
    }
    Ok(subject)
}

fn usages_fit(usages: &[String], wanted: &str) -> Result<(), String> {
    if usages_are(usages, wanted) {
        return Ok(());
    }
    Err(format!("usages did not match [digital signature {wanted}] or [digital signature key encipherment {wanted}]"))
}

/// Whether this is how a kubelet asks for its client certificate.
pub(super) fn kubelet_client<'r>(asked: &'r Request, usages: &[String]) -> Result<&'r Name, String> {
    let subject = kubelet_subject(asked)?;
    let AlternativeNames { dns_names, ip_addresses, email_addresses, uris } = asked.names();
    let none = [
        ("DNS", dns_names.is_empty()),
        ("Email", email_addresses.is_empty()),
        ("IP", ip_addresses.is_empty()),
        ("URI", uris.is_empty()),
    ];
    if let Some((kind, _)) = none.iter().find(|(_, empty)| !empty) {
        return Err(format!("{kind} subjectAltNames are not allowed"));
    }
    usages_fit(usages, CLIENT_AUTH)?;
    Ok(subject)
}

/// Whether this is how a kubelet asks for its serving certificate.
pub(super) fn kubelet_serving<'r>(asked: &'r Request, usages: &[String]) -> Result<&'r Name, String> {
    let subject = kubelet_subject(asked)?;
    let AlternativeNames { dns_names, ip_addresses, email_addresses, uris } = asked.names();
    if dns_names.is_empty() && ip_addresses.is_empty() {
        return Err("DNS or IP subjectAltName is required".into());
    }
    if !email_addresses.is_empty() {
        return Err("Email subjectAltNames are not allowed".into());
    }
    if !uris.is_empty() {
        return Err("URI subjectAltNames are not allowed".into());
    }
    usages_fit(usages, SERVER_AUTH)?;
    Ok(subject)
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
pub(super) fn for_signer(signer: &str, asked: &Request, usages: &[String]) -> Option<Result<Usage, String>> {
    match signer {
        CLIENT => {
            Some(api_client(usages).and_then(|()| asked.subject().map(|_| Usage::ClientAuth).map_err(Into::into)))
        }
        KUBELET_CLIENT => Some(kubelet_client(asked, usages).map(|_| Usage::ClientAuth)),
        KUBELET_SERVING => Some(kubelet_serving(asked, usages).map(|_| Usage::ServerAuth)),
        _ => None,
    }
}

/// The node that asks for its own serving certificate.
pub(super) fn serving_node<'r>(request: &'r CertificateSigningRequest, asked: &Request) -> Option<&'r str> {
    let spec = &request.spec;
    let user = spec.username.as_deref()?;
    let is_node = spec.groups.iter().flatten().any(|group| group == NODES);
    let subject = kubelet_serving(asked, spec.usages.as_deref().unwrap_or_default()).ok()?;
    let fits = spec.signer_name == KUBELET_SERVING && is_node && user == subject.common_name();
    user.strip_prefix(NODE_PREFIX).filter(|_| fits)
}

/// Names and addresses under which a node may be reached.
fn reached_by(node: &Node) -> BTreeSet<String> {
    let addresses = node.status.iter().flat_map(|s| s.addresses.iter().flatten());
    addresses.map(|address| normal(&address.address)).collect()
}

/// A name or address in one way of writing.
pub(super) fn normal(name: &str) -> String {
    name.parse::<IpAddr>().map_or_else(|_| name.to_ascii_lowercase(), |ip| ip.to_string())
}

/// A node with more names and addresses than that is none.
const MAX_NAMES: usize = 100;

/// Whether the names asked for are all of this node's and nobody else's. `taken` are addresses of Services and of the
/// API itself.
pub(super) fn names_are_the_nodes(asked: &Request, node: &Node, others: &[&Node], taken: &BTreeSet<String>) -> bool {
    let AlternativeNames { dns_names, ip_addresses, .. } = asked.names();
    let wanted: BTreeSet<String> =
        dns_names.iter().map(|n| normal(n)).chain(ip_addresses.iter().map(ToString::to_string)).collect();
    let special = |name: &String| match name.parse::<IpAddr>() {
        Ok(ip) => ip.is_loopback() || ip.is_unspecified(),
        Err(_) => name == "localhost" || name.contains('*') || name == "kubernetes" || name.starts_with("kubernetes."),
    };
    if wanted.len() > MAX_NAMES {
        return false;
    }
    let others: BTreeSet<String> = others.iter().flat_map(|other| reached_by(other)).collect();
    let elsewhere = |name: &String| taken.contains(name) || others.contains(name);
    !wanted.is_empty() && wanted == reached_by(node) && !wanted.iter().any(|name| special(name) || elsewhere(name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn client() -> (Name, AlternativeNames) {
        (Name::client("system:node:a", &[NODES]), AlternativeNames::default())
    }

    fn request((subject, names): (Name, AlternativeNames)) -> Request {
        Request::of(subject, names)
    }

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn kubelets_are_known_by_their_exact_form() {
        let usages = words(&[CLIENT_AUTH, SIGNATURE]);
        assert!(kubelet_client(&request(client()), &usages).is_ok());
        assert!(kubelet_client(&request(client()), &words(&[SIGNATURE, ENCIPHERMENT, CLIENT_AUTH])).is_ok());
        type Change = fn(&mut (Name, AlternativeNames));
        let changes: [Change; 7] = [
            |c| c.0 = Name::client("system:node:a", &[NODES, "system:masters"]),
            |c| c.0 = Name::client("system:node:a", &[]),
            |c| c.1.dns_names.push("a".into()),
            |c| c.1.ip_addresses.push([10, 0, 0, 1].into()),
            |c| c.0 = Name::client("node", &[NODES]),
            |c| c.1.uris.push("spiffe://x".into()),
            |c| c.1.email_addresses.push("a@b".into()),
        ];
        for change in changes {
            let mut changed = client();
            change(&mut changed);
            assert!(kubelet_client(&request(changed.clone()), &usages).is_err(), "{changed:?}");
        }
        for usages in [&[CLIENT_AUTH][..], &[], &[CLIENT_AUTH, SIGNATURE, SERVER_AUTH]] {
            assert!(kubelet_client(&request(client()), &words(usages)).is_err(), "{usages:?}");
        }
    }

    #[test]
    fn signers_take_what_upstreams_take() {
        let any = request((Name::client("jane", &[]), AlternativeNames::default()));
        assert_eq!(for_signer(CLIENT, &any, &words(&[CLIENT_AUTH])), Some(Ok(Usage::ClientAuth)));
        assert!(for_signer(CLIENT, &any, &words(&[CLIENT_AUTH, SERVER_AUTH])).unwrap().is_err());
        assert!(for_signer(CLIENT, &any, &words(&[SIGNATURE])).unwrap().is_err());
        assert!(for_signer(KUBELET_CLIENT, &any, &words(&[CLIENT_AUTH, SIGNATURE])).unwrap().is_err());
        assert!(for_signer(KUBELET_SERVING, &request(client()), &words(&[SERVER_AUTH, SIGNATURE])).unwrap().is_err());
        let serving = AlternativeNames { dns_names: words(&["a"]), ..AlternativeNames::default() };
        let serving = request((client().0, serving));
        let usages = words(&[SERVER_AUTH, SIGNATURE]);
        assert_eq!(for_signer(KUBELET_SERVING, &serving, &usages), Some(Ok(Usage::ServerAuth)));
        assert_eq!(for_signer("example.com/x", &any, &usages), None);
        let twice = request((Name::client("jane", &["a", "b"]), AlternativeNames::default()));
        assert!(
            for_signer(CLIENT, &twice, &words(&[CLIENT_AUTH])).unwrap().is_err(),
            "a subject that cannot be signed"
        );
    }

    fn node(name: &str, ip: &str) -> Node {
        serde_json::from_value(json!({"metadata": {"name": name}, "status": {"addresses": [
            {"type": "InternalIP", "address": ip}, {"type": "Hostname", "address": name}]}}))
        .unwrap()
    }

    #[test]
    fn a_serving_certificate_is_for_the_node_and_nobody_else() {
        let (a, b) = (node("a", "10.0.0.1"), node("b", "10.0.0.2"));
        let ask = |dns: &[&str], ip: [u8; 4]| {
            let names = AlternativeNames { dns_names: words(dns), ip_addresses: vec![ip.into()], ..client().1 };
            request((client().0, names))
        };
        let none = BTreeSet::new();
        let good = ask(&["a"], [10, 0, 0, 1]);
        assert!(names_are_the_nodes(&good, &a, &[&b], &none));
        for bad in [ask(&["a"], [10, 0, 0, 2]), ask(&["a", "b"], [10, 0, 0, 1]), ask(&[], [10, 0, 0, 1])] {
            assert!(!names_are_the_nodes(&bad, &a, &[&b], &none), "{bad:?}");
        }
        // What a node says of itself is not enough to become somebody else.
        assert!(!names_are_the_nodes(&good, &a, &[&node("x", "10.0.0.1")], &none));
        for taken in ["10.0.0.1", "a"] {
            assert!(
                !names_are_the_nodes(&good, &a, &[], &BTreeSet::from([taken.to_owned()])),
                "the API is called {taken}"
            );
        }
        for name in ["kubernetes", "kubernetes.default.svc", "localhost", "*.a"] {
            assert!(!names_are_the_nodes(&ask(&[name], [10, 0, 0, 1]), &node(name, "10.0.0.1"), &[], &none), "{name}");
        }
        assert!(!names_are_the_nodes(&ask(&["l"], [127, 0, 0, 1]), &node("l", "127.0.0.1"), &[], &none));
        assert!(!names_are_the_nodes(&request(client()), &Node::default(), &[], &none), "nothing is no name");
    }
}

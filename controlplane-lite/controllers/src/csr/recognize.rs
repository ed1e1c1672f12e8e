//! What a request asks for, told by upstream's exact forms. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;

use crate::nodeipam::Cidr;
use pki::{AlternativeNames, NODES, Name, Request, Usage, canonical};

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

/// Whether a signer is one of the cluster's own.
pub(super) fn is_own(signer: &str) -> bool {
    signer == CLIENT || is_kubelets(signer)
}

/// Whether a signer is for kubelets, whose requests are approved here.
pub(super) fn is_kubelets(signer: &str) -> bool {
    [KUBELET_CLIENT, KUBELET_SERVING].contains(&signer)
}

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
fn reached_by(node: &Node) -> BTreeSet<Host> {
    let addresses = node.status.iter().flat_map(|s| s.addresses.iter().flatten());
    addresses.map(|address| Host::of(&address.address)).collect()
}

/// A name or an address, in the one form in which they are compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Host {
    Name(String),
    Address(IpAddr),
}

impl Host {
    /// Reads a name or an address.
    pub(super) fn of(text: &str) -> Self {
        let name = || text.trim_end_matches('.').to_ascii_lowercase();
        text.parse().map_or_else(|_| Self::Name(name()), |ip| Self::Address(canonical(ip)))
    }
}

/// What is somebody else's, so that no node gets a certificate for it.
#[derive(Debug, Default)]
pub(super) struct Taken<'a> {
    /// The other nodes.
    pub(super) others: Vec<&'a Node>,
    /// Addresses of Services and of pods, and names and addresses of the API.
    pub(super) hosts: BTreeSet<Host>,
    /// The ranges from which Services and pods get theirs.
    pub(super) ranges: Vec<Cidr>,
}

impl Taken<'_> {
    fn has(&self, host: &Host) -> bool {
        let in_range = |ip: &IpAddr| match ip {
            IpAddr::V4(ip) => Cidr::new(*ip, 32).is_ok_and(|ip| self.ranges.iter().any(|range| range.overlaps(ip))),
            IpAddr::V6(_) => false,
        };
        self.hosts.contains(host)
            || matches!(host, Host::Address(ip) if in_range(ip))
            || self.others.iter().any(|other| {
                let named = other.metadata.name.as_deref().is_some_and(|name| Host::of(name) == *host);
                named || reached_by(other).contains(host)
            })
    }
}

/// A node with more names and addresses than that is none.
const MAX_NAMES: usize = 100;

/// Whether the names asked for are all of this node's and nobody else's. Of names a node has one that is more than its
/// own word: that of its Node.
pub(super) fn names_are_the_nodes(asked: &Request, node: &Node, taken: &Taken<'_>) -> bool {
    let AlternativeNames { dns_names, ip_addresses, .. } = asked.names();
    if dns_names.len() + ip_addresses.len() > MAX_NAMES || ip_addresses.iter().any(|ip| canonical(*ip) != *ip) {
        return false;
    }
    let names = dns_names.iter().map(|name| Host::of(name));
    let wanted: BTreeSet<Host> = names.chain(ip_addresses.iter().map(|ip| Host::Address(*ip))).collect();
    let own = node.metadata.name.as_deref().map(Host::of);
    let fits = |host: &Host| match host {
        Host::Name(name) => own.as_ref() == Some(host) && !is_in_cluster(name),
        Host::Address(ip) => !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast()),
    };
    !wanted.is_empty() && wanted == reached_by(node) && wanted.iter().all(|host| fits(host) && !taken.has(host))
}

/// Whether a name means something in the cluster's DNS, whatever its domain: a Service or pod in a namespace, or what
/// the search list of a pod makes one of.
fn is_in_cluster(name: &str) -> bool {
    let labels: Vec<&str> = name.split('.').collect();
    matches!(labels[..], ["localhost" | "kubernetes"] | ["kubernetes", ..])
        || name.contains('*')
        || labels.iter().skip(1).any(|label| matches!(*label, "svc" | "pod"))
        || name.ends_with(".cluster.local")
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

    fn taken<'a>(others: &[&'a Node], hosts: &[&str]) -> Taken<'a> {
        Taken {
            others: others.to_vec(),
            hosts: hosts.iter().map(|host| Host::of(host)).collect(),
            ranges: ["10.42.0.0/16", "10.43.0.0/16"].iter().map(|range| range.parse().unwrap()).collect(),
        }
    }

    fn ask(dns: &[&str], ip: &str) -> Request {
        let names = AlternativeNames { dns_names: words(dns), ip_addresses: vec![ip.parse().unwrap()], ..client().1 };
        request((client().0, names))
    }

    #[test]
    fn a_serving_certificate_is_for_the_node_and_nobody_else() {
        let (a, b) = (node("a", "10.0.0.1"), node("b", "10.0.0.2"));
        let good = ask(&["a"], "10.0.0.1");
        assert!(names_are_the_nodes(&good, &a, &taken(&[&b], &[])));
        for bad in [ask(&["a"], "10.0.0.2"), ask(&["a", "b"], "10.0.0.1"), ask(&[], "10.0.0.1")] {
            assert!(!names_are_the_nodes(&bad, &a, &taken(&[&b], &[])), "{bad:?}");
        }
        // What a node says of itself is not enough to become somebody else.
        for ip in ["10.0.0.1", "::ffff:10.0.0.1"] {
            assert!(!names_are_the_nodes(&good, &a, &taken(&[&node("x", ip)], &[])), "{ip}");
            assert!(!names_are_the_nodes(&good, &a, &taken(&[], &[ip])), "the API is called {ip}");
        }
        for name in ["a", "A."] {
            assert!(!names_are_the_nodes(&good, &a, &taken(&[], &[name])), "the API is called {name}");
        }
        assert!(!names_are_the_nodes(&request(client()), &Node::default(), &taken(&[], &[])), "nothing is no name");
    }

    #[test]
    fn an_address_is_the_same_however_it_is_written() {
        // The Service of the API, loopback, and what they are called in IPv6.
        for ip in [
            "10.43.0.1",
            "::ffff:10.43.0.1",
            "::10.43.0.1",
            "64:ff9b::10.43.0.1",
            "127.0.0.1",
            "::ffff:127.0.0.1",
            "::1",
            "0.0.0.0",
            "::ffff:0.0.0.0",
            "224.0.0.1",
            "::ffff:10.0.0.1",
            // A pod on another node.
            "10.42.0.2",
        ] {
            assert!(!names_are_the_nodes(&ask(&["a"], ip), &node("a", ip), &taken(&[], &["10.43.0.1"])), "{ip}");
        }
        // The Node says the one, the request the other.
        assert!(names_are_the_nodes(&ask(&["a"], "10.0.0.1"), &node("a", "::ffff:10.0.0.1"), &taken(&[], &[])));
        assert!(names_are_the_nodes(&ask(&["a"], "2001:db8::1"), &node("a", "2001:db8::1"), &taken(&[], &[])));
    }

    #[test]
    fn a_name_is_the_nodes_own_and_none_of_the_clusters() {
        let called = |name: &str, address: &str| {
            let mut node = node(name, "10.0.0.1");
            node.status.as_mut().unwrap().addresses.as_mut().unwrap()[1].address = address.to_owned();
            names_are_the_nodes(&ask(&[address], "10.0.0.1"), &node, &taken(&[], &[]))
        };
        assert!(called("a", "a") && called("a.example.com", "a.example.com"));
        let foreign = [
            "example.com",
            "vault.prod.svc.cluster.local",
            "vault.prod.svc",
            "gen.default.pod",
            "b",
            "a.b",
            "localhost",
        ];
        for name in foreign {
            assert!(!called("a", name), "{name}");
        }
        // Nodes choose their names when they join.
        for name in [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "localhost",
            "*.a",
            "vault.prod.svc",
            "vault.prod.svc.cluster.local",
            "x.cluster.local",
            "1-2-3-4.default.pod",
        ] {
            assert!(!called(name, name), "{name}");
        }
        let b = node("b", "10.0.0.2");
        assert!(!names_are_the_nodes(&ask(&["b"], "10.0.0.1"), &node("b", "10.0.0.1"), &taken(&[&b], &[])));
    }
}

//! What is asked, what an answer means, and when to ask again. Pure: dice and
//! clock are the caller's.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData};
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use super::JoinError;

const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const SERVING_SIGNER: &str = "kubernetes.io/kubelet-serving";
const NODES: &str = "system:nodes";
/// Characters of the hash in a request's name.
const NAME_LENGTH: usize = 40;

/// A request ready to be sent.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) object: CertificateSigningRequest,
}

impl Request {
    /// For the client certificate of a node.
    pub(super) fn client(node: &str, key_pem: &str) -> Result<Self, JoinError> {
        Self::new(node, key_pem, &[], (CLIENT_SIGNER, "client auth"), "node-csr-")
    }

    /// For the serving certificate of a node that is reached by these names and addresses.
    pub(super) fn serving(node: &str, key_pem: &str, names: &[String]) -> Result<Self, JoinError> {
        Self::new(node, key_pem, names, (SERVING_SIGNER, "server auth"), "node-serving-csr-")
    }

    fn new(
        node: &str,
        key_pem: &str,
        names: &[String],
        (signer, usage): (&str, &str),
        prefix: &str,
    ) -> Result<Self, JoinError> {
        let fail = |error: rcgen::Error| JoinError::Key(error.to_string());
        let key = KeyPair::from_pem(key_pem).map_err(fail)?;
        let mut params = CertificateParams::new(names.to_vec()).map_err(fail)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, NODES);
        params.distinguished_name.push(DnType::CommonName, user(node));
        let pem = params.serialize_request(&key).and_then(|request| request.pem()).map_err(fail)?;
        // Named after what is asked: asking the same again after a crash finds the first request.
        let mut hash = Sha256::new();
        for part in [&key.subject_public_key_info()[..], node.as_bytes(), signer.as_bytes(), names.join(",").as_bytes()]
        {
            hash.update(part);
            hash.update([0]);
        }
        let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let metadata = ObjectMeta { name: Some(format!("{prefix}{}", &hex[..NAME_LENGTH])), ..ObjectMeta::default() };
        let spec = CertificateSigningRequestSpec {
            request: ByteString(pem.into_bytes()),
            signer_name: signer.to_owned(),
            usages: Some(vec!["digital signature".to_owned(), usage.to_owned()]),
            ..CertificateSigningRequestSpec::default()
        };
        Ok(Self { object: CertificateSigningRequest { metadata, spec, status: None } })
    }

    /// The request's name.
    pub(super) fn name(&self) -> &str {
        self.object.metadata.name.as_deref().unwrap_or_default()
    }
}

/// Every name and address that the Node object has, written as they are in a certificate.
pub(super) fn names(node: &Node) -> Vec<String> {
    let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let one = |text: &String| text.parse().map_or_else(|_| text.clone(), |ip: IpAddr| ip.to_string());
    let mut names: Vec<String> = addresses.map(|address| one(&address.address)).collect();
    names.sort();
    names.dedup();
    names
}

/// The user a node's certificate makes.
pub(super) fn user(node: &str) -> String {
    format!("system:node:{node}")
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing yet.
    Pending,
    /// The certificate, PEM.
    Issued(String),
    /// No, and why.
    Refused(String),
}

/// Reads the state of a request.
pub(super) fn answer(request: &CertificateSigningRequest) -> Answer {
    let status = request.status.as_ref();
    let conditions = status.and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    if let Some(no) = conditions.iter().find(|c| c.type_ == "Denied" || c.type_ == "Failed") {
        let words = [no.reason.as_deref(), no.message.as_deref()].into_iter().flatten();
        return Answer::Refused(words.collect::<Vec<_>>().join(": "));
    }
    let approved = conditions.iter().any(|c| c.type_ == "Approved");
    match status.and_then(|s| s.certificate.as_ref()).filter(|pem| approved && !pem.0.is_empty()) {
        Some(pem) => Answer::Issued(String::from_utf8_lossy(&pem.0).into_owned()),
        None => Answer::Pending,
    }
}

/// What a certificate says that matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) common_name: String,
    pub(super) public_key: Vec<u8>,
    /// DNS names and addresses, sorted.
    pub(super) names: Vec<String>,
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
}

/// Reads the first certificate of a PEM text.
pub(super) fn validity(pem: &str) -> Result<Validity, String> {
    for block in x509_parser::pem::Pem::iter_from_buffer(pem.as_bytes()) {
        let block = block.map_err(|error| error.to_string())?;
        if block.label != "CERTIFICATE" {
            continue;
        }
        let certificate = block.parse_x509().map_err(|error| error.to_string())?;
        let time = |seconds| Timestamp::from_second(seconds).map_err(|error| error.to_string());
        let name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        return Ok(Validity {
            common_name: name.unwrap_or_default().to_owned(),
            public_key: certificate.public_key().raw.to_vec(),
            names: alternative_names(&certificate),
            from: time(certificate.validity().not_before.timestamp())?,
            to: time(certificate.validity().not_after.timestamp())?,
        });
    }
    Err("it holds no certificate".to_owned())
}

fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let extension = certificate.subject_alternative_name().ok().flatten();
    let listed = extension.iter().flat_map(|extension| &extension.value.general_names);
    let mut names: Vec<String> = listed
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => match bytes.len() {
                4 => <[u8; 4]>::try_from(*bytes).ok().map(|ip| IpAddr::from(ip).to_string()),
                _ => <[u8; 16]>::try_from(*bytes).ok().map(|ip| IpAddr::from(ip).to_string()),
            },
            _ => None,
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

/// When to renew: after 70 to 90 percent of the life, as upstream; `dice` is from 0 to 1.
pub(super) fn rotation(validity: &Validity, dice: f64) -> Timestamp {
    let life = validity.to.duration_since(validity.from).max(SignedDuration::ZERO);
    let share = 0.7 + 0.2 * dice.clamp(0.0, 1.0);
    let after = SignedDuration::try_from_secs_f64(life.as_secs_f64() * share).unwrap_or(life);
    validity.from.checked_add(after).unwrap_or(validity.to)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn state(status: Value) -> Answer {
        let spec = json!({"request": "", "signerName": "x"});
        answer(&serde_json::from_value(json!({"metadata": {}, "spec": spec, "status": status})).unwrap())
    }

    #[test]
    fn answers_are_read() {
        assert_eq!(state(json!({})), Answer::Pending);
        assert_eq!(state(json!({"conditions": [{"type": "Approved", "status": "True"}]})), Answer::Pending);
        // Unapproved certificates are nobody's.
        assert_eq!(state(json!({"certificate": "eA=="})), Answer::Pending);
        let issued = json!({"conditions": [{"type": "Approved", "status": "True"}], "certificate": "eA=="});
        assert_eq!(state(issued), Answer::Issued("x".into()));
        let denied = json!({"conditions": [{"type": "Denied", "status": "True", "reason": "No", "message": "never"}]});
        assert_eq!(state(denied), Answer::Refused("No: never".into()));
    }

    #[test]
    fn the_same_question_has_the_same_name() {
        let key = KeyPair::generate().unwrap().serialize_pem();
        let name = |node: &str, key: &str| Request::client(node, key).unwrap().name().to_owned();
        assert_eq!(name("a", &key), name("a", &key));
        assert_ne!(name("a", &key), name("b", &key));
        assert_ne!(name("a", &key), name("a", &KeyPair::generate().unwrap().serialize_pem()));
        let serving = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            Request::serving("a", &key, &names).unwrap().name().to_owned()
        };
        assert_ne!(serving(&["a"]), serving(&["a", "10.0.0.1"]));
        assert!(matches!(Request::client("a", "garbage"), Err(JoinError::Key(_))));
    }

    #[test]
    fn renewal_comes_well_before_the_end() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let (from, to) = (at("2026-01-01T00:00:00Z"), at("2026-01-01T10:00:00Z"));
        let validity = Validity { common_name: String::new(), public_key: vec![], names: vec![], from, to };
        // Of no dice at all nothing can be computed: the end is the last moment.
        for (dice, hour) in [(0.0, 7), (1.0, 9), (7.0, 9), (-1.0, 7), (f64::NAN, 10)] {
            let after = rotation(&validity, dice).duration_since(from).as_secs_f64();
            assert!((after - f64::from(hour) * 3600.0).abs() < 1.0, "{dice}: after {after} s");
        }
        assert_eq!(rotation(&Validity { to: from, from: to, ..validity }, 0.5), to, "backwards is over");
    }

    #[test]
    fn a_certificate_tells_whom_it_is_for() {
        let node: Node = serde_json::from_value(json!({"status": {"addresses": [
            {"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": "n"},
            {"type": "ExternalIP", "address": "FD00:0::01"}, {"type": "InternalDNS", "address": "n"}]}}))
        .unwrap();
        let wanted = names(&node);
        assert_eq!(wanted, ["10.0.0.1", "fd00::1", "n"]);
        let made = CertificateParams::new(wanted.clone()).unwrap().self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert_eq!(validity(&made.pem()).unwrap().names, wanted);
        assert!(names(&Node::default()).is_empty());
    }

    #[test]
    fn garbage_is_no_certificate() {
        for bad in ["", "garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(validity(bad).is_err(), "{bad}");
        }
    }
}

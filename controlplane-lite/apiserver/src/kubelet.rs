//! The way to a node's kubelet: which address of the Node may be dialled, who we are there, and whose certificate has
//! to be shown. What a Node says of itself is its node's word: it leads neither back to this machine nor to the API.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use serde_json::Value;

use super::allocate::Cidr;
use super::serve::{TlsError, certificates, private_key};
use super::status::ApiError;
use super::tunnel::AnyServer;
use pki::{CertInfo, canonical};
use scheme::access::{int_at, list_at};

/// The port of kubelets that name none.
const PORT: u16 = 10250;

/// Which addresses this server connects to for others: never itself, and no Service in place of a kubelet.
#[derive(Debug, Clone)]
pub struct DialPolicy {
    /// Where clients reach the API.
    pub advertise: (IpAddr, u16),
    /// Addresses of Services.
    pub services: Vec<Cidr>,
}

impl DialPolicy {
    /// Whether a request may be carried to the address, which somebody else wrote down: as upstream, to global unicast
    /// addresses only, and never back to the API.
    pub fn may_dial(&self, ip: IpAddr, port: u16) -> bool {
        let (advertised, api_port) = self.advertise;
        is_global_unicast(ip) && !(canonical(ip) == canonical(advertised) && port == api_port)
    }

    /// The same for what is behind a Service. Where the API itself is only on this machine, so may be that.
    pub fn may_serve(&self, ip: IpAddr, port: u16) -> bool {
        let here = canonical(ip).is_loopback() && canonical(self.advertise.0).is_loopback();
        self.may_dial(ip, port) || here && port != self.advertise.1
    }

    /// The same for a kubelet, which is no Service either, and never on the API's port. Where the API itself is only on
    /// this machine, so may be its kubelet.
    fn may_be_kubelet(&self, ip: IpAddr, port: u16) -> bool {
        let ip = canonical(ip);
        let here = ip.is_loopback() && canonical(self.advertise.0).is_loopback();
        let service = matches!(ip, IpAddr::V4(v4) if self.services.iter().any(|range| range.contains(v4)));
        (here || is_global_unicast(ip)) && !service && port != self.advertise.1
    }
}

fn is_global_unicast(ip: IpAddr) -> bool {
    match canonical(ip) {
        IpAddr::V4(v4) => {
            let this_network = v4.octets()[0] == 0;
            !(this_network || v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || v4.is_broadcast())
        }
        IpAddr::V6(v6) => {
            let link_local = v6.segments()[0] & 0xffc0 == 0xfe80;
            !(v6.is_unspecified() || v6.is_loopback() || v6.is_multicast() || link_local)
        }
    }
}

/// The host and port that a Node says its kubelet listens on.
///
/// # Errors
/// When it says none.
pub fn endpoint(node: &Value) -> Result<(String, u16), ApiError> {
    let addresses = list_at(node, &["status", "addresses"]);
    let host = ["InternalIP", "Hostname", "ExternalIP"]
        .iter()
        .find_map(|kind| addresses.iter().find(|a| a["type"] == **kind))
        .and_then(|a| a["address"].as_str())
        .ok_or_else(|| ApiError::internal(format!("no preferred addresses found; known addresses: {addresses:?}")))?;
    let port = int_at(node, &["status", "daemonEndpoints", "kubeletEndpoint", "Port"])
        .and_then(|p| u16::try_from(p).ok())
        .filter(|p| *p > 0);
    Ok((host.to_owned(), port.unwrap_or(PORT)))
}

/// The address to dial: names are looked up here, so that what was checked is what is dialled.
///
/// # Errors
/// 400 for an address that no kubelet may have, 500 for a name that leads nowhere.
pub async fn resolve(policy: &DialPolicy, (host, port): (&str, u16)) -> Result<IpAddr, ApiError> {
    let refused = || ApiError::bad_request(format!("address not allowed for a kubelet: {host}:{port}"));
    let found: Vec<SocketAddr> = match host.parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, port)],
        Err(_) => tokio::net::lookup_host((host, port))
            .await
            .map_err(|error| ApiError::plain(500, format!("error dialing backend: lookup {host}: {error}")))?
            .collect(),
    };
    if !found.iter().all(|address| policy.may_be_kubelet(address.ip(), port)) {
        return Err(refused());
    }
    found.first().map(SocketAddr::ip).ok_or_else(refused)
}

/// Our side of TLS towards kubelets.
pub struct KubeletTls {
    provider: Arc<CryptoProvider>,
    client: RwLock<Arc<ClientKey>>,
    roots: Option<Arc<RootCertStore>>,
}

/// Our client certificate, and its key.
pub(super) struct ClientKey {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl ClientKey {
    pub(super) fn new(cert_pem: &str, key_pem: &str) -> Result<Self, TlsError> {
        let chain = certificates("client certificate", cert_pem)?;
        Ok(Self { chain, key: private_key("client key", key_pem)? })
    }
}

impl std::fmt::Debug for KubeletTls {
    /// The key stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubeletTls").field("verifies", &self.roots.is_some()).finish_non_exhaustive()
    }
}

impl KubeletTls {
    /// Our certificate, and the CA of kubelets' serving certificates; without one the peer is taken at its word, as
    /// upstream does without `--kubelet-certificate-authority`.
    ///
    /// # Errors
    /// When a PEM text is broken.
    pub fn new(cert_pem: &str, key_pem: &str, ca_pem: Option<&str>) -> Result<Self, TlsError> {
        let roots = match ca_pem {
            None => None,
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                for cert in certificates("kubelet CA", pem)? {
                    roots.add(cert).map_err(|e| TlsError::Rustls { what: "kubelet CA", source: e.into() })?;
                }
                Some(Arc::new(roots))
            }
        };
        Ok(Self {
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            client: RwLock::new(Arc::new(ClientKey::new(cert_pem, key_pem)?)),
            roots,
        })
    }

    /// Shows kubelets another certificate from the next connection on.
    ///
    /// # Errors
    /// When a PEM text is broken; then the old one stays.
    pub fn replace(&self, cert_pem: &str, key_pem: &str) -> Result<(), TlsError> {
        let next = Arc::new(ClientKey::new(cert_pem, key_pem)?);
        *self.client.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    /// TLS to the kubelet of one node: the certificate it shows has to be that node's.
    ///
    /// # Errors
    /// When rustls refuses our certificate.
    pub fn for_node(&self, node: &str) -> Result<Arc<ClientConfig>, TlsError> {
        let failed = |e: rustls::Error| TlsError::Rustls { what: "kubelet client", source: e.into() };
        let builder = ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            .dangerous();
        let verifier: Arc<dyn ServerCertVerifier> = match &self.roots {
            None => Arc::new(AnyServer(self.provider.clone())),
            Some(roots) => Arc::new(NodeVerifier {
                provider: self.provider.clone(),
                roots: roots.clone(),
                common_name: format!("system:node:{node}"),
            }),
        };
        let client = self.client.read().unwrap_or_else(PoisonError::into_inner).clone();
        builder
            .with_custom_certificate_verifier(verifier)
            .with_client_auth_cert(client.chain.clone(), client.key.clone_key())
            .map(Arc::new)
            .map_err(failed)
    }
}

/// Takes the serving certificate of one node: issued by the cluster's CA, to this node. Addresses in it are what the
/// node said of itself; its name is what the signer checked.
#[derive(Debug)]
struct NodeVerifier {
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    common_name: String,
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        match CertInfo::from_der(end_entity) {
            Ok(info) if info.common_name == self.common_name => Ok(ServerCertVerified::assertion()),
            Ok(_) => Err(CertificateError::NotValidForName.into()),
            Err(_) => Err(CertificateError::BadEncoding.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn policy(advertise: &str) -> DialPolicy {
        DialPolicy { advertise: (advertise.parse().unwrap(), 6443), services: vec!["10.43.0.0/16".parse().unwrap()] }
    }

    #[test]
    fn only_global_unicast_is_dialled() {
        let policy = policy("192.0.2.1");
        for good in ["192.0.2.7", "10.42.0.3", "2001:db8::1", "fd00::1", "::ffff:10.42.0.3"] {
            assert!(policy.may_dial(good.parse().unwrap(), 80), "{good}");
        }
        for bad in [
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "::ffff:0.0.0.0",
        ] {
            assert!(!policy.may_dial(bad.parse().unwrap(), 80), "{bad}");
            assert!(!policy.may_be_kubelet(bad.parse().unwrap(), 10250), "{bad}");
        }
        assert!(policy.may_dial("192.0.2.1".parse().unwrap(), 80));
        for api in ["192.0.2.1", "::ffff:192.0.2.1"] {
            assert!(!policy.may_dial(api.parse().unwrap(), 6443), "{api}");
        }
    }

    #[tokio::test]
    async fn a_kubelet_is_neither_the_api_nor_a_service() {
        let policy = policy("192.0.2.1");
        // A control plane's own kubelet has its address.
        assert!(resolve(&policy, ("192.0.2.1", 10250)).await.is_ok());
        assert!(resolve(&policy, ("192.0.2.7", 6443)).await.is_err(), "the API's port");
        assert!(resolve(&policy, ("10.43.0.1", 10250)).await.is_err(), "a Service");
        assert!(resolve(&policy, ("::ffff:10.43.0.1", 10250)).await.is_err(), "a Service");
        assert!(resolve(&policy, ("localhost", 10250)).await.is_err(), "a name that leads here");
        let local = super::tests::policy("127.0.0.1");
        assert!(resolve(&local, ("127.0.0.1", 10250)).await.is_ok(), "all there is is on this machine");
        assert!(resolve(&local, ("127.0.0.1", 6443)).await.is_err());
        assert!(resolve(&local, ("0.0.0.0", 10250)).await.is_err());
    }

    #[test]
    fn a_node_says_where_its_kubelet_is() {
        let node = |addresses: Value, port: Value| json!({"status": {"addresses": addresses, "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
        let both = json!([{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "192.0.2.7"}]);
        assert_eq!(endpoint(&node(both.clone(), json!(1234))).unwrap(), ("192.0.2.7".to_owned(), 1234));
        for odd in [json!(null), json!(0), json!(-1), json!(70000), json!("x")] {
            assert_eq!(endpoint(&node(both.clone(), odd)).unwrap().1, PORT);
        }
        assert!(endpoint(&json!({})).is_err());
    }
}

//! Whose certificates a peer may show.

use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use pki::CertInfo;

/// The system's roots, read when somebody trusts them first.
#[derive(Debug, Default)]
pub struct Roots(OnceLock<Arc<RootCertStore>>);

impl Roots {
    fn get(&self) -> Arc<RootCertStore> {
        let read = || {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            Arc::new(roots)
        };
        self.0.get_or_init(read).clone()
    }
}

/// Our side of TLS, trusting a bundle of certificates in PEM, or the system's. `second`: HTTP/2 where the peer speaks
/// it.
pub(super) fn client(bundle: Option<&[u8]>, system: &Roots, second: bool) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (roots, own) = match bundle {
        None => (system.get(), Vec::new()),
        Some(pem) => read(pem)?,
    };
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    let mut config = if roots.is_empty() {
        // Nobody is trusted.
        builder.with_root_certificates(roots).with_no_client_auth()
    } else {
        let chains = WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build();
        let verifier = Verifier { chains: chains.map_err(|error| error.to_string())?, own, provider };
        builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
    };
    let protocols: &[&str] = if second { &["h2", "http/1.1"] } else { &["http/1.1"] };
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}

/// The certificates of a bundle; the error is client-go's.
fn read(pem: &[u8]) -> Result<(Arc<RootCertStore>, Vec<CertificateDer<'static>>), String> {
    let mut roots = RootCertStore::empty();
    let (mut own, mut bad) = (Vec::new(), None);
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let Ok(certificate) = certificate else { continue };
        match roots.add(certificate.clone()) {
            Ok(()) => own.push(certificate),
            Err(why) => bad = Some(why),
        }
    }
    let sections = pem.windows(10).any(|part| part == b"-----BEGIN");
    match bad {
        _ if !own.is_empty() => Ok((Arc::new(roots), own)),
        Some(why) => Err(format!("failed to parse certificate: {why}")),
        None if sections => Err("no valid certificate authority data seen".to_owned()),
        None => Err("unable to parse bytes as PEM block".to_owned()),
    }
}

/// Takes what a chain leads from to a root, and, as Go does, a certificate that is itself in the bundle: webhooks make
/// their own, and mark them as authorities.
#[derive(Debug)]
struct Verifier {
    chains: Arc<WebPkiServerVerifier>,
    own: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn is_own(&self, certificate: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> bool {
        let listed = self.own.iter().any(|own| own.as_ref() == certificate.as_ref());
        let valid = CertInfo::from_der(certificate).is_ok_and(|info| {
            let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
            (info.not_before.as_second()..=info.not_after.as_second()).contains(&now)
        });
        let named = ParsedCertificate::try_from(certificate).is_ok_and(|cert| verify_server_name(&cert, name).is_ok());
        listed && valid && named
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chained = self.chains.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match chained {
            Err(_) if self.is_own(end_entity, server_name, now) => Ok(ServerCertVerified::assertion()),
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundles_that_are_none_are_told_as_upstream_tells_them() {
        const KEY: &str = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        const CERT: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (pem, why) in [
            ("", "unable to parse bytes as PEM block"),
            ("garbage", "unable to parse bytes as PEM block"),
            (KEY, "no valid certificate authority data seen"),
            (CERT, "failed to parse certificate: "),
        ] {
            let told = client(Some(pem.as_bytes()), &Roots::default(), false).err();
            assert!(told.as_ref().is_some_and(|told| told.starts_with(why)), "{pem}: {told:?}");
        }
    }
}

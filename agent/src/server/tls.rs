//! TLS of the server: certificate, client authorities.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::config::ServerSettings;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("read {what} from {}: {message}", path.display())]
    Read { what: &'static str, path: PathBuf, message: String },
    #[error("a serving certificate needs both a certificate and a key file")]
    Half,
    #[error("make a serving certificate")]
    Generate(#[from] rcgen::Error),
    #[error("serving certificate and key do not fit: {0}")]
    Config(String),
    #[error("client CA bundle: {0}")]
    ClientCa(String),
}

/// The server's configuration from its settings; `names` go into a certificate
/// made here when none is given.
pub fn server_config(settings: &ServerSettings, names: &[String]) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (chain, key) = match (&settings.cert_file, &settings.key_file) {
        (Some(cert), Some(key)) => (certificates("certificate", cert)?, private_key(key)?),
        (None, None) => self_made(names)?,
        _ => return Err(TlsError::Half),
    };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| TlsError::Config(e.to_string()))?;
    let builder = match &settings.client_ca_file {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates("client CA bundle", path)? {
                roots.add(certificate).map_err(|e| TlsError::ClientCa(e.to_string()))?;
            }
            // Without a certificate a client may still have a token.
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|e| TlsError::ClientCa(e.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|e| TlsError::Config(e.to_string()))?;
    // Sessions are upgraded connections, which HTTP/2 has none of.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fail = |message: String| TlsError::Read { what, path: path.to_owned(), message };
    let found = CertificateDer::pem_file_iter(path).map_err(|e| fail(e.to_string()))?;
    let found: Result<Vec<_>, _> = found.collect();
    let found = found.map_err(|e| fail(e.to_string()))?;
    if found.is_empty() { Err(fail("no certificate in it".into())) } else { Ok(found) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let fail = |message: String| TlsError::Read { what: "private key", path: path.to_owned(), message };
    PrivateKeyDer::from_pem_file(path).map_err(|e| fail(e.to_string()))
}

fn self_made(names: &[String]) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let mut params = CertificateParams::new(names.to_vec())?;
    let name = names.first().map_or("localhost", String::as_str);
    params.distinguished_name.push(DnType::CommonName, format!("{name}@kubelet"));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|e| TlsError::Config(e.to_owned()))?;
    Ok((vec![certificate.der().clone()], key))
}

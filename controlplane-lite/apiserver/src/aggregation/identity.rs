//! TLS towards servers of aggregated APIs: who we are there, and which certificate has to be shown
//! (`BuildTransportConfig` of k8s.io/kube-aggregator/pkg/controllers/status/remote).

use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine as _;
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;

use crate::kubelet::ClientKey;
use crate::serve::{TlsError, certificates};
use crate::tunnel::AnyServer;
use scheme::access::{bool_at, str_at};

/// Where Go's programs find the CAs of a Linux system.
const SYSTEM: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Our certificate as a front proxy.
pub(super) struct FrontProxy {
    provider: Arc<CryptoProvider>,
    client: RwLock<Arc<ClientKey>>,
}

impl std::fmt::Debug for FrontProxy {
    /// The key stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrontProxy").finish_non_exhaustive()
    }
}

impl FrontProxy {
    pub(super) fn new(cert_pem: &str, key_pem: &str) -> Result<Self, TlsError> {
        let client = RwLock::new(Arc::new(ClientKey::new(cert_pem, key_pem)?));
        Ok(Self { provider: Arc::new(rustls::crypto::ring::default_provider()), client })
    }

    pub(super) fn replace(&self, cert_pem: &str, key_pem: &str) -> Result<(), TlsError> {
        let next = Arc::new(ClientKey::new(cert_pem, key_pem)?);
        *self.client.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    /// TLS as the spec of an APIService wants it: by its bundle, by the system's CAs without one, or by nothing.
    ///
    /// # Errors
    /// When the bundle holds no certificates.
    pub(super) fn towards(&self, spec: &Value) -> Result<Arc<ClientConfig>, TlsError> {
        let failed = |e: rustls::Error| TlsError::Rustls { what: "aggregated API", source: e.into() };
        let builder = ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(failed)?;
        let builder = if bool_at(spec, &["insecureSkipTLSVerify"]) {
            let any = Arc::new(AnyServer(self.provider.clone()));
            builder.dangerous().with_custom_certificate_verifier(any)
        } else {
            builder.with_root_certificates(roots(str_at(spec, &["caBundle"]))?)
        };
        let client = self.client.read().unwrap_or_else(PoisonError::into_inner).clone();
        let config = builder.with_client_auth_cert(client.chain.clone(), client.key.clone_key()).map_err(failed)?;
        Ok(Arc::new(config))
    }
}

fn roots(bundle: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    if bundle.is_empty() {
        // Without the file nobody is trusted, as without a bundle that names somebody.
        let system = std::fs::read_to_string(SYSTEM).unwrap_or_default();
        roots.add_parsable_certificates(certificates("the system's CAs", &system)?);
        return Ok(roots);
    }
    let refused = |source: Box<dyn std::error::Error + Send + Sync>| TlsError::Rustls { what: "caBundle", source };
    let pem = base64::engine::general_purpose::STANDARD.decode(bundle).map_err(|e| refused(e.into()))?;
    let found = certificates("caBundle", &String::from_utf8_lossy(&pem))?;
    if found.is_empty() {
        return Err(refused("unable to load root certificates: no certificates in it".into()));
    }
    for certificate in found {
        roots.add(certificate).map_err(|e| refused(e.into()))?;
    }
    Ok(roots)
}

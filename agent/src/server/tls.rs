//! TLS of the server: certificate, client authorities.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, SupportedCipherSuite};

use crate::config::{ServerSettings, TlsMinVersion};

/// How often, at most, files of a renewed certificate are looked for.
const RECHECK: Duration = Duration::from_secs(10);

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
    let provider = Arc::new(provider(&settings.cipher_suites)?);
    let resolver: Arc<dyn ResolvesServerCert> = match (&settings.cert_file, &settings.key_file) {
        (Some(cert), Some(key)) if settings.tls_bootstrap => {
            let (chain, made) = self_made(names)?;
            let first = certified(chain, made, &provider)?;
            Arc::new(FromFiles::open_or(cert, key, provider.clone(), RECHECK, first))
        }
        (Some(cert), Some(key)) => Arc::new(FromFiles::open(cert, key, provider.clone(), RECHECK)?),
        (None, None) => {
            let (chain, key) = self_made(names)?;
            Arc::new(rustls::sign::SingleCertAndKey::from(certified(chain, key, &provider)?))
        }
        _ => return Err(TlsError::Half),
    };
    let versions: &[&rustls::SupportedProtocolVersion] = match settings.tls_min_version {
        TlsMinVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsMinVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
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
    let mut config = builder.with_cert_resolver(resolver);
    // Sessions are upgraded connections, which HTTP/2 has none of.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The cryptography, with the suites of TLS 1.2 that are named; those of 1.3
/// cannot be chosen, as upstream.
fn provider(names: &[String]) -> Result<CryptoProvider, TlsError> {
    let mut provider = rustls::crypto::ring::default_provider();
    if names.is_empty() {
        return Ok(provider);
    }
    let named = |suite: &SupportedCipherSuite| {
        let name = format!("{:?}", suite.suite());
        names.contains(&name)
    };
    if !provider.cipher_suites.iter().any(|suite| suite.tls13().is_none() && named(suite)) {
        return Err(TlsError::Config("none of tlsCipherSuites is spoken here".to_owned()));
    }
    provider.cipher_suites.retain(|suite| suite.tls13().is_some() || named(suite));
    Ok(provider)
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    CertifiedKey::from_der(chain, key, provider).map_err(|e| TlsError::Config(e.to_string()))
}

/// The certificate of two files, read anew when they change: renewing it needs
/// no restart. Files that do not fit (a writer is half done) keep the old one.
#[derive(Debug)]
struct FromFiles {
    cert: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    recheck: Duration,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    certified: Arc<CertifiedKey>,
    changed: [Option<SystemTime>; 2],
    checked: Instant,
}

impl FromFiles {
    fn open(cert: &Path, key: &Path, provider: Arc<CryptoProvider>, recheck: Duration) -> Result<Self, TlsError> {
        let changed = [changed_at(cert), changed_at(key)];
        let certified = Arc::new(certified(certificates("certificate", cert)?, private_key(key)?, &provider)?);
        let current = Mutex::new(Current { certified, changed, checked: Instant::now() });
        Ok(Self { cert: cert.to_owned(), key: key.to_owned(), provider, recheck, current })
    }

    /// The same with a certificate to show until the files are there and good.
    fn open_or(cert: &Path, key: &Path, provider: Arc<CryptoProvider>, recheck: Duration, first: CertifiedKey) -> Self {
        Self::open(cert, key, provider.clone(), recheck).unwrap_or_else(|_| {
            let current = Current { certified: Arc::new(first), changed: [None, None], checked: Instant::now() };
            Self { cert: cert.to_owned(), key: key.to_owned(), provider, recheck, current: Mutex::new(current) }
        })
    }

    fn refresh(&self, current: &mut Current) {
        current.checked = Instant::now();
        let changed = [changed_at(&self.cert), changed_at(&self.key)];
        if changed == current.changed {
            return;
        }
        let read = || certified(certificates("certificate", &self.cert)?, private_key(&self.key)?, &self.provider);
        match read() {
            Ok(certified) => {
                tracing::info!(path = %self.cert.display(), "serving certificate renewed");
                current.certified = Arc::new(certified);
                current.changed = changed;
            }
            Err(error) => tracing::warn!(%error, "serving certificate not renewed"),
        }
    }
}

impl ResolvesServerCert for FromFiles {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.checked.elapsed() >= self.recheck {
            self.refresh(&mut current);
        }
        Some(current.certified.clone())
    }
}

fn changed_at(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).ok()?.modified().ok()
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::Authorization;

    fn settings(dir: &Path) -> ServerSettings {
        ServerSettings {
            enabled: true,
            address: [127, 0, 0, 1].into(),
            port: 0,
            cert_file: Some(dir.join("crt")),
            key_file: Some(dir.join("key")),
            client_ca_file: None,
            authorization: Authorization::Webhook,
            tls_bootstrap: false,
            tls_min_version: Default::default(),
            cipher_suites: Vec::new(),
            webhook_authentication: false,
            anonymous: false,
        }
    }

    fn put_pair(dir: &Path) -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed(["n".to_owned()]).unwrap();
        std::fs::write(dir.join("crt"), made.cert.pem()).unwrap();
        std::fs::write(dir.join("key"), made.signing_key.serialize_pem()).unwrap();
        made.cert.der().clone()
    }

    #[test]
    fn a_renewed_certificate_is_taken_and_a_broken_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let first = put_pair(dir.path());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (cert, key) = (dir.path().join("crt"), dir.path().join("key"));
        let files = FromFiles::open(&cert, &key, provider, Duration::ZERO).unwrap();
        let served = |files: &FromFiles| {
            let mut current = files.current.lock().unwrap();
            // Time stamps are coarse: a change must be seen whenever it was made.
            current.changed = [None, None];
            files.refresh(&mut current);
            current.certified.cert[0].clone()
        };
        assert_eq!(served(&files), first);
        let second = put_pair(dir.path());
        assert_eq!(served(&files), second);
        std::fs::write(&cert, "garbage").unwrap();
        assert_eq!(served(&files), second);
        put_pair(dir.path());
        std::fs::write(&key, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap();
        assert_eq!(served(&files), second);
    }

    #[test]
    fn a_certificate_that_is_not_issued_yet_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (chain, key) = self_made(&["n".to_owned()]).unwrap();
        let first = certified(chain.clone(), key, &provider).unwrap();
        let (cert, key) = (dir.path().join("crt"), dir.path().join("key"));
        let files = FromFiles::open_or(&cert, &key, provider, Duration::ZERO, first);
        let served = |files: &FromFiles| {
            files.refresh(&mut files.current.lock().unwrap());
            files.current.lock().unwrap().certified.cert[0].clone()
        };
        assert_eq!(served(&files), chain[0]);
        std::fs::write(&cert, "half").unwrap();
        assert_eq!(served(&files), chain[0]);
        let issued = put_pair(dir.path());
        assert_eq!(served(&files), issued);
    }

    #[test]
    fn suites_are_those_that_are_named() {
        let names = |list: &[&str]| -> Vec<String> { list.iter().map(|name| (*name).to_owned()).collect() };
        let all = provider(&[]).unwrap().cipher_suites.len();
        let chosen = provider(&names(&["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_RSA_OLD"])).unwrap();
        let old: Vec<_> = chosen.cipher_suites.iter().filter(|suite| suite.tls13().is_none()).collect();
        assert_eq!(old.len(), 1, "{old:?}");
        assert!(chosen.cipher_suites.len() > 1 && chosen.cipher_suites.len() < all, "1.3 stays");
        assert!(provider(&names(&["TLS_RSA_OLD"])).unwrap_err().to_string().contains("none of tlsCipherSuites"));
    }

    #[test]
    fn wrong_settings_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = |settings: &ServerSettings| server_config(settings, &[]).unwrap_err().to_string();
        assert!(error(&settings(dir.path())).starts_with("read certificate from"));
        put_pair(dir.path());
        let mut good = settings(dir.path());
        server_config(&good, &[]).unwrap();
        good.client_ca_file = Some(dir.path().join("key"));
        assert!(error(&good).contains("no certificate in it"), "{}", error(&good));
        good.key_file = None;
        assert!(error(&good).contains("both"));
        server_config(&ServerSettings { cert_file: None, key_file: None, client_ca_file: None, ..good }, &["n".into()])
            .unwrap();
    }
}

//! The cluster's certificates and keys, in one directory: the cluster CA, the
//! front-proxy CA, the service-account signing key, and certificates issued by
//! them. Owns creating, loading, renewing and signing; knows nothing of requests.
//!
//! Files are named as kubeadm names them (`ca.crt`, `ca.key`, `sa.key`, …), mode
//! 0600, and replaced atomically. A key is written before its certificate, so a
//! crash leaves a key without a certificate, which the next start replaces; a CA
//! certificate without its key never comes from a crash and is an error.

mod address;
mod authority;
mod files;
mod inspect;
mod kubeconfig;
mod name;
mod request;

use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use rcgen::{KeyPair, PublicKeyData};

pub use address::canonical;
pub use authority::{Authority, CertifiedKey, Subject, Usage};
pub use inspect::CertInfo;
pub use kubeconfig::kubeconfig;
pub use name::{AlternativeNames, Name};
pub use request::Request;

/// The organization in the client certificate of a node.
pub const NODES: &str = "system:nodes";

/// The name in the certificate of a front proxy, as kubeadm names it.
pub const FRONT_PROXY: &str = "front-proxy-client";

/// How long certificates of a CA live.
pub const CA_LIFETIME: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);
/// How long certificates issued to servers and clients live.
pub const LEAF_LIFETIME: SignedDuration = SignedDuration::from_hours(365 * 24);
/// A certificate with less than this left is renewed.
pub const RENEW_BEFORE: SignedDuration = SignedDuration::from_hours(60 * 24);

/// What went wrong, and with which file.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("{operation} {path}")]
    Io {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} is not a usable {what}: {reason}")]
    Garbage { path: PathBuf, what: &'static str, reason: String },
    #[error("{certificate} has no key: {key} is missing")]
    KeyMissing { certificate: PathBuf, key: PathBuf },
    #[error("{certificate} does not belong to {key}")]
    Mismatch { certificate: PathBuf, key: PathBuf },
    #[error("{path} expired at {at}")]
    Expired { path: PathBuf, at: Timestamp },
    #[error("{path} is valid from {at}: the clock is behind, or was ahead when the certificate was made")]
    NotYetValid { path: PathBuf, at: Timestamp },
    #[error("certificate signing request: {0}")]
    Request(String),
    #[error("{operation}")]
    Crypto {
        operation: &'static str,
        #[source]
        source: rcgen::Error,
    },
}

impl PkiError {
    fn crypto(operation: &'static str) -> impl Fn(rcgen::Error) -> Self {
        move |source| Self::Crypto { operation, source }
    }
}

/// The signing key of service-account tokens.
#[derive(Clone)]
pub struct ServiceAccountKey {
    /// PKCS#8.
    pub private_pem: String,
    /// SubjectPublicKeyInfo.
    pub public_pem: String,
    /// SubjectPublicKeyInfo, DER.
    pub public_der: Vec<u8>,
    /// The uncompressed point without its leading byte: x, then y, 32 bytes each.
    pub point: Vec<u8>,
}

impl std::fmt::Debug for ServiceAccountKey {
    /// The private half stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceAccountKey").field("public_pem", &self.public_pem).finish_non_exhaustive()
    }
}

impl ServiceAccountKey {
    /// A new key, not stored anywhere.
    pub fn generate() -> Result<Self, PkiError> {
        KeyPair::generate().map(|pair| Self::of(&pair)).map_err(PkiError::crypto("generate service account key"))
    }

    fn of(pair: &KeyPair) -> Self {
        Self {
            private_pem: pair.serialize_pem(),
            public_pem: pair.public_key_pem(),
            public_der: pair.subject_public_key_info(),
            point: pair.public_key_raw().get(1..).unwrap_or_default().to_vec(),
        }
    }
}

/// Signs requests that somebody approved. The key itself is in nobody else's hands.
pub trait CertificateSigner: Send + Sync + std::fmt::Debug {
    /// A certificate, PEM, for what `request` asks, good for `usage`.
    fn sign(&self, request: &Request, usage: Usage, lifetime: SignedDuration) -> Result<String, PkiError>;
}

impl CertificateSigner for Pki {
    fn sign(&self, request: &Request, usage: Usage, lifetime: SignedDuration) -> Result<String, PkiError> {
        self.ca.sign_request(request, &[usage], lifetime, Timestamp::now())
    }
}

/// A directory of certificates and keys, loaded.
#[derive(Debug)]
pub struct Pki {
    directory: PathBuf,
    ca: Authority,
    front_proxy_ca: Authority,
    service_account: ServiceAccountKey,
}

impl Pki {
    /// Loads what is in `directory` and creates what is missing.
    pub fn load_or_create(directory: &Path, now: Timestamp) -> Result<Self, PkiError> {
        files::create_directory(directory)?;
        let ca = load_authority(directory, "ca", "copepod-ca", now)?;
        let front_proxy_ca = load_authority(directory, "front-proxy-ca", "copepod-front-proxy-ca", now)?;
        let service_account = load_service_account(directory)?;
        Ok(Self { directory: directory.to_owned(), ca, front_proxy_ca, service_account })
    }

    /// The CA that everything in the cluster trusts.
    pub fn ca(&self) -> &Authority {
        &self.ca
    }

    /// The CA of aggregating front proxies.
    pub fn front_proxy_ca(&self) -> &Authority {
        &self.front_proxy_ca
    }

    /// The key that signs service-account tokens.
    pub fn service_account(&self) -> &ServiceAccountKey {
        &self.service_account
    }

    /// Where everything lies.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The certificate `NAME.crt` with `NAME.key` for `subject`: the stored one
    /// while it fits the subject, comes from the CA and has time left, else a new
    /// one.
    pub fn leaf(&self, name: &str, subject: &Subject, now: Timestamp) -> Result<CertifiedKey, PkiError> {
        self.leaf_of(&self.ca, name, subject, now)
    }

    /// The client certificate of this cluster's front proxy, which servers of aggregated APIs believe when it says who
    /// asks: of a CA of its own, so that it is nobody anywhere else.
    pub fn front_proxy_client(&self, now: Timestamp) -> Result<CertifiedKey, PkiError> {
        self.leaf_of(&self.front_proxy_ca, FRONT_PROXY, &Subject::client(FRONT_PROXY, None), now)
    }

    fn leaf_of(
        &self,
        authority: &Authority,
        name: &str,
        subject: &Subject,
        now: Timestamp,
    ) -> Result<CertifiedKey, PkiError> {
        let (cert_path, key_path) = self.paths(name);
        // A leaf that is damaged is made anew like one that is over: nothing but the
        // file itself depends on it.
        let stored = (files::read(&cert_path).ok().flatten(), files::read(&key_path).ok().flatten());
        if let (Some(cert_pem), Some(key_pem)) = stored
            && let (Ok(info), Ok(key)) = (CertInfo::from_pem(&cert_pem), parse_key(&key_path, &key_pem))
        {
            let fits = info.covers(subject) && info.belongs_to(&key) && info.issued_by(authority);
            // One from the future was made when the clock was wrong: nobody takes it for years.
            if fits && info.not_before <= now && info.not_after > now + RENEW_BEFORE {
                return Ok(CertifiedKey { cert_pem, key_pem });
            }
        }
        let issued = authority.issue(subject, LEAF_LIFETIME, now)?;
        files::write(&key_path, &issued.key_pem)?;
        files::write(&cert_path, &issued.cert_pem)?;
        Ok(issued)
    }

    fn paths(&self, name: &str) -> (PathBuf, PathBuf) {
        paths(&self.directory, name)
    }
}

fn paths(directory: &Path, name: &str) -> (PathBuf, PathBuf) {
    (directory.join(format!("{name}.crt")), directory.join(format!("{name}.key")))
}

fn garbage(path: &Path, what: &'static str, reason: impl ToString) -> PkiError {
    PkiError::Garbage { path: path.to_owned(), what, reason: reason.to_string() }
}

fn parse_key(path: &Path, pem: &str) -> Result<KeyPair, PkiError> {
    KeyPair::from_pem(pem).map_err(|error| garbage(path, "private key", error))
}

fn load_authority(directory: &Path, name: &str, common_name: &str, now: Timestamp) -> Result<Authority, PkiError> {
    let (cert_path, key_path) = paths(directory, name);
    let Some(cert_pem) = files::read(&cert_path)? else {
        // Without its certificate a key has signed nothing yet.
        let (authority, key_pem) = Authority::create(common_name, CA_LIFETIME, now)?;
        files::write(&key_path, &key_pem)?;
        files::write(&cert_path, authority.cert_pem())?;
        return Ok(authority);
    };
    let Some(key_pem) = files::read(&key_path)? else {
        return Err(PkiError::KeyMissing { certificate: cert_path, key: key_path });
    };
    let key = parse_key(&key_path, &key_pem)?;
    let info = CertInfo::from_pem(&cert_pem).map_err(|reason| garbage(&cert_path, "CA certificate", reason))?;
    if !info.is_ca {
        return Err(garbage(&cert_path, "CA certificate", "it is not a certificate authority"));
    }
    if !info.belongs_to(&key) {
        return Err(PkiError::Mismatch { certificate: cert_path, key: key_path });
    }
    if info.not_after <= now {
        // Replacing it would cut off everyone who trusts it; that is for the operator to decide.
        return Err(PkiError::Expired { path: cert_path, at: info.not_after });
    }
    if info.not_before > now {
        return Err(PkiError::NotYetValid { path: cert_path, at: info.not_before });
    }
    Authority::load(cert_pem, key).map_err(|error| garbage(&cert_path, "CA certificate", error))
}

fn load_service_account(directory: &Path) -> Result<ServiceAccountKey, PkiError> {
    let path = directory.join("sa.key");
    let pair = match files::read(&path)? {
        Some(pem) => parse_key(&path, &pem)?,
        None => {
            let pair = KeyPair::generate().map_err(PkiError::crypto("generate service account key"))?;
            files::write(&path, &pair.serialize_pem())?;
            pair
        }
    };
    if pair.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256 {
        return Err(garbage(&path, "service account key", "it is not an ECDSA P-256 key"));
    }
    files::write_if_changed(&directory.join("sa.pub"), &pair.public_key_pem())?;
    Ok(ServiceAccountKey::of(&pair))
}

#[cfg(test)]
mod tests;

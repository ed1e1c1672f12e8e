//! Users by client certificate: the common name is the user, organizations are
//! groups. The TLS layer has verified the chain, at the handshake; a connection may
//! outlive its certificate, so its end is looked at with every request.

use async_trait::async_trait;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{Authenticated, Authenticator, AuthnError, Credentials, UserInfo};
use pki::CertInfo;

/// Reads the user from the verified client certificate.
#[derive(Clone, Copy, Debug)]
pub struct CertificateAuthenticator {
    clock: fn() -> Timestamp,
}

impl CertificateAuthenticator {
    /// An authenticator by a clock.
    pub fn new(clock: fn() -> Timestamp) -> Self {
        Self { clock }
    }
}

/// The user a certificate (DER) names, while it is valid.
pub fn user_of(der: &[u8], now: Timestamp) -> Result<UserInfo, AuthnError> {
    let info = CertInfo::from_der(der).map_err(AuthnError::Certificate)?;
    if now > info.not_after {
        return Err(AuthnError::Certificate(format!("it expired at {}", info.not_after)));
    }
    if info.common_name.is_empty() {
        return Err(AuthnError::Certificate("it has no common name".into()));
    }
    let mut user = UserInfo::new(info.common_name, info.organizations);
    let digest: String = Sha256::digest(der).iter().map(|byte| format!("{byte:02x}")).collect();
    user.extra.insert("authentication.kubernetes.io/credential-id".into(), vec![format!("X509SHA256={digest}")]);
    Ok(user)
}

#[async_trait]
impl Authenticator for CertificateAuthenticator {
    async fn authenticate(&self, credentials: Credentials<'_>) -> Result<Option<Authenticated>, AuthnError> {
        let Some(leaf) = credentials.peer_certificates.first() else { return Ok(None) };
        user_of(leaf, (self.clock)()).map(|user| Some(Authenticated { user, audiences: Vec::new() }))
    }
}

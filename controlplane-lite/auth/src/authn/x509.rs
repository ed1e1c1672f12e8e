//! Users by client certificate: the common name is the user, organizations are
//! groups. The TLS layer has verified the chain, at the handshake, and the
//! certificate is read once per connection; a connection may outlive its
//! certificate, so its end is looked at with every request.

use async_trait::async_trait;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{Authenticated, Authenticator, AuthnError, Credentials, UserInfo};
use pki::CertInfo;

/// The client's certificate of a connection, and whom it names.
#[derive(Clone, Debug)]
pub struct ClientCertificate(Result<Identity, String>);

#[derive(Clone, Debug)]
struct Identity {
    user: UserInfo,
    not_after: Timestamp,
}

impl ClientCertificate {
    /// Reads a certificate (DER) that the TLS layer has verified. One that names
    /// nobody is refused with each request.
    pub fn read(der: &[u8]) -> Self {
        Self(identity(der))
    }

    /// The user it names, while it is valid.
    ///
    /// # Errors
    /// When it cannot be read, names nobody or has expired.
    pub fn user(&self, now: Timestamp) -> Result<UserInfo, AuthnError> {
        let identity = self.0.as_ref().map_err(|error| AuthnError::Certificate(error.clone()))?;
        if now > identity.not_after {
            return Err(AuthnError::Certificate(format!("it expired at {}", identity.not_after)));
        }
        Ok(identity.user.clone())
    }
}

fn identity(der: &[u8]) -> Result<Identity, String> {
    let info = CertInfo::from_der(der)?;
    if info.common_name.is_empty() {
        return Err("it has no common name".into());
    }
    let mut user = UserInfo::new(info.common_name, info.organizations);
    let digest: String = Sha256::digest(der).iter().map(|byte| format!("{byte:02x}")).collect();
    user.extra.insert("authentication.kubernetes.io/credential-id".into(), vec![format!("X509SHA256={digest}")]);
    Ok(Identity { user, not_after: info.not_after })
}

/// Takes the user of the verified client certificate.
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

#[async_trait]
impl Authenticator for CertificateAuthenticator {
    async fn authenticate(&self, credentials: Credentials<'_>) -> Result<Option<Authenticated>, AuthnError> {
        let Some(certificate) = credentials.certificate else { return Ok(None) };
        certificate.user((self.clock)()).map(|user| Some(Authenticated { user, audiences: Vec::new() }))
    }
}

//! A certificate authority and what it issues.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};

use super::{CertInfo, PkiError, Request};

/// Clocks of nodes differ a little; certificates are valid from somewhat earlier.
const BACKDATE: SignedDuration = SignedDuration::from_mins(5);

/// What a certificate may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    ClientAuth,
    ServerAuth,
}

/// Who a certificate is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// The user name of a client.
    pub common_name: String,
    /// The group of a client.
    pub organization: Option<String>,
    pub dns_names: Vec<String>,
    pub ip_addresses: Vec<IpAddr>,
    pub usages: Vec<Usage>,
}

impl Subject {
    /// A client: user name and group.
    pub fn client(user: &str, group: Option<&str>) -> Self {
        Self {
            common_name: user.into(),
            organization: group.map(Into::into),
            usages: vec![Usage::ClientAuth],
            ..Self::default()
        }
    }

    /// A server reached by these names and addresses.
    pub fn server(common_name: &str, dns_names: Vec<String>, ip_addresses: Vec<IpAddr>) -> Self {
        Self {
            common_name: common_name.into(),
            dns_names,
            ip_addresses,
            usages: vec![Usage::ServerAuth],
            ..Self::default()
        }
    }

    /// With one more usage.
    #[must_use]
    pub fn also(mut self, usage: Usage) -> Self {
        self.usages.push(usage);
        self
    }
}

/// A certificate and its key, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct CertifiedKey {
    pub cert_pem: String,
    pub key_pem: String,
}

impl std::fmt::Debug for CertifiedKey {
    /// The key stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertifiedKey").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

/// A CA certificate with its key.
pub struct Authority {
    cert_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    /// The key stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

impl Authority {
    /// A new self-signed CA, and its key for storing.
    pub(super) fn create(
        common_name: &str,
        lifetime: SignedDuration,
        now: Timestamp,
    ) -> Result<(Self, String), PkiError> {
        let key = KeyPair::generate().map_err(PkiError::crypto("generate CA key"))?;
        let mut params = params(lifetime, now);
        params.distinguished_name = name(common_name, None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key).map_err(PkiError::crypto("sign CA certificate"))?;
        let key_pem = key.serialize_pem();
        Ok((Self { cert_pem: certificate.pem(), issuer: Issuer::new(params, key) }, key_pem))
    }

    pub(super) fn load(cert_pem: String, key: KeyPair) -> Result<Self, rcgen::Error> {
        let issuer = Issuer::from_ca_cert_pem(&cert_pem, key)?;
        Ok(Self { cert_pem, issuer })
    }

    /// The CA's certificate, as clients need it to trust the cluster.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The CA's raw public key.
    pub(super) fn public_key(&self) -> &[u8] {
        self.issuer.key().public_key_raw()
    }

    /// A new key with a certificate for `subject`.
    pub fn issue(&self, subject: &Subject, lifetime: SignedDuration, now: Timestamp) -> Result<CertifiedKey, PkiError> {
        let key = KeyPair::generate().map_err(PkiError::crypto("generate key"))?;
        let mut params = params(lifetime.min(self.time_left(now)), now);
        params.distinguished_name = name(&subject.common_name, subject.organization.as_deref());
        for dns in &subject.dns_names {
            let dns = dns.as_str().try_into().map_err(PkiError::crypto("use DNS name"))?;
            params.subject_alt_names.push(SanType::DnsName(dns));
        }
        params.subject_alt_names.extend(subject.ip_addresses.iter().map(|ip| SanType::IpAddress(*ip)));
        restrict(&mut params, &subject.usages);
        let certificate = params.signed_by(&key, &self.issuer).map_err(PkiError::crypto("sign certificate"))?;
        Ok(CertifiedKey { cert_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// Signs a request: its subject and names as they were read, and only `usages`; never as a CA. Whether the subject
    /// may be granted is for the approver, who looks at the same [`Request`].
    pub fn sign_request(
        &self,
        request: &Request,
        usages: &[Usage],
        lifetime: SignedDuration,
        now: Timestamp,
    ) -> Result<String, PkiError> {
        let mut params = params(lifetime.min(self.time_left(now)), now);
        params.distinguished_name = request.distinguished_name()?;
        params.subject_alt_names = request.names().sans()?;
        restrict(&mut params, usages);
        let key = request.public_key()?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(PkiError::crypto("sign certificate"))?;
        Ok(certificate.pem())
    }

    /// Nothing outlives its CA.
    fn time_left(&self, now: Timestamp) -> SignedDuration {
        CertInfo::from_pem(&self.cert_pem).map_or(SignedDuration::MAX, |info| info.not_after.duration_since(now))
    }
}

fn restrict(params: &mut CertificateParams, usages: &[Usage]) {
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    let purpose = |usage: &Usage| match usage {
        Usage::ClientAuth => ExtendedKeyUsagePurpose::ClientAuth,
        Usage::ServerAuth => ExtendedKeyUsagePurpose::ServerAuth,
    };
    params.extended_key_usages = usages.iter().map(purpose).collect();
}

fn name(common_name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}

fn params(lifetime: SignedDuration, now: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    // The date type is not named here: it belongs to a crate only rcgen uses.
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since_epoch = |at: Timestamp| std::time::Duration::from_secs(u64::try_from(at.as_second()).unwrap_or(0));
    params.not_before = epoch + since_epoch(now - BACKDATE);
    params.not_after = epoch + since_epoch(now.checked_add(lifetime).unwrap_or(Timestamp::MAX));
    let mut serial: [u8; 16] = rand::random();
    // Positive and not zero, as the standard wants it.
    serial[0] = serial[0] & 0x7f | 0x01;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}

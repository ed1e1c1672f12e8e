//! Reads certificates.

use std::net::IpAddr;

use jiff::Timestamp;
use rcgen::KeyPair;
use x509_parser::extensions::ParsedExtension;
use x509_parser::pem::parse_x509_pem;

use super::authority::{Authority, Subject, Usage};
use super::name::{AlternativeNames, Name};

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertInfo {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub ip_addresses: Vec<IpAddr>,
    pub usages: Vec<Usage>,
    pub is_ca: bool,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    public_key: Vec<u8>,
    authority_key_id: Option<Vec<u8>>,
    issuer: String,
}

impl CertInfo {
    /// Reads the first certificate of a PEM text; the error is the reason.
    pub fn from_pem(pem: &str) -> Result<Self, String> {
        let (_, pem) = parse_x509_pem(pem.as_bytes()).map_err(|error| error.to_string())?;
        if pem.label != "CERTIFICATE" {
            return Err(format!("it holds a {}", pem.label));
        }
        Self::from_der(&pem.contents)
    }

    /// Reads a certificate; the error is the reason.
    pub fn from_der(der: &[u8]) -> Result<Self, String> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).map_err(|error| error.to_string())?;
        let time = |seconds| Timestamp::from_second(seconds).map_err(|error| error.to_string());
        let subject = Name::read(certificate.subject())?;
        let mut info = Self {
            common_name: subject.common_name().to_owned(),
            organizations: subject.organizations().map(str::to_owned).collect(),
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            usages: Vec::new(),
            is_ca: certificate.is_ca(),
            not_before: time(certificate.validity().not_before.timestamp())?,
            not_after: time(certificate.validity().not_after.timestamp())?,
            public_key: certificate.public_key().subject_public_key.data.to_vec(),
            authority_key_id: None,
            issuer: certificate.issuer().to_string(),
        };
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => {
                    let names = AlternativeNames::read(&names.general_names)?;
                    info.dns_names = names.dns_names;
                    info.ip_addresses = names.ip_addresses;
                }
                ParsedExtension::ExtendedKeyUsage(usage) => {
                    info.usages.extend(usage.client_auth.then_some(Usage::ClientAuth));
                    info.usages.extend(usage.server_auth.then_some(Usage::ServerAuth));
                }
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    info.authority_key_id = id.key_identifier.as_ref().map(|id| id.0.to_vec());
                }
                _ => {}
            }
        }
        Ok(info)
    }

    /// True when the certificate can serve as one for `subject`.
    pub fn covers(&self, subject: &Subject) -> bool {
        self.common_name == subject.common_name
            && self.organizations.iter().eq(subject.organization.iter())
            && subject.dns_names.iter().all(|name| self.dns_names.contains(name))
            && subject.ip_addresses.iter().all(|ip| self.ip_addresses.contains(ip))
            && subject.usages.iter().all(|usage| self.usages.contains(usage))
    }

    pub(super) fn belongs_to(&self, key: &KeyPair) -> bool {
        self.public_key == key.public_key_raw()
    }

    /// True when `ca` issued it: same name, and the same key as far as it is named.
    pub(super) fn issued_by(&self, ca: &Authority) -> bool {
        let Ok(issuer) = Self::from_pem(ca.cert_pem()) else { return false };
        let Ok(subject) = subject_of(ca.cert_pem()) else { return false };
        let (name, key) = subject;
        self.issuer == name
            && issuer.public_key == ca.public_key()
            && self.authority_key_id.as_ref().is_none_or(|id| key.as_ref().is_none_or(|key| key == id))
    }
}

/// A certificate's subject and subject key identifier.
fn subject_of(pem: &str) -> Result<(String, Option<Vec<u8>>), String> {
    let (_, pem) = parse_x509_pem(pem.as_bytes()).map_err(|error| error.to_string())?;
    let certificate = pem.parse_x509().map_err(|error| error.to_string())?;
    let key = certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    });
    Ok((certificate.subject().to_string(), key))
}

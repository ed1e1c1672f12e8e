//! A certificate signing request, parsed once: what is recognized, approved and signed is this one value.

use rcgen::{DistinguishedName, SubjectPublicKeyInfo};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::ParsedExtension;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer;

use super::PkiError;
use super::name::{AlternativeNames, Name};

/// What a signing request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    subject: Result<Name, String>,
    names: AlternativeNames,
    /// SubjectPublicKeyInfo, DER.
    public_key: Vec<u8>,
}

impl Request {
    /// Reads a request and verifies that its sender holds the key.
    pub fn from_pem(pem: &str) -> Result<Self, PkiError> {
        Self::read(pem).map_err(PkiError::Request)
    }

    fn read(pem: &str) -> Result<Self, String> {
        let (_, pem) = parse_x509_pem(pem.as_bytes()).map_err(|error| error.to_string())?;
        if pem.label != "CERTIFICATE REQUEST" {
            return Err("PEM block type must be CERTIFICATE REQUEST".into());
        }
        let (rest, request) = X509CertificationRequest::from_der(&pem.contents).map_err(|error| error.to_string())?;
        if !rest.is_empty() {
            return Err("trailing data after the request".into());
        }
        request.verify_signature().map_err(|error| error.to_string())?;
        let info = &request.certification_request_info;
        Ok(Self {
            subject: unambiguous(Name::read(&info.subject)),
            names: alternative_names(&request)?,
            public_key: info.subject_pki.raw.to_vec(),
        })
    }

    /// A request as it would be read, for tables of those who judge requests.
    pub fn of(subject: Name, names: AlternativeNames) -> Self {
        Self { subject: unambiguous(Ok(subject)), names, public_key: Vec::new() }
    }

    /// The subject, when it can be read in one way only.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn subject(&self) -> Result<&Name, &str> {
        self.subject.as_ref().map_err(String::as_str)
    }

    /// The alternative names.
    pub fn names(&self) -> &AlternativeNames {
        &self.names
    }

    pub(super) fn distinguished_name(&self) -> Result<DistinguishedName, PkiError> {
        self.subject().map(Name::distinguished).map_err(|why| PkiError::Request(why.to_owned()))
    }

    pub(super) fn public_key(&self) -> Result<SubjectPublicKeyInfo, PkiError> {
        SubjectPublicKeyInfo::from_der(&self.public_key).map_err(PkiError::crypto("use the request's public key"))
    }
}

/// A subject that is signed as it was read: the signer's names hold each type once.
fn unambiguous(subject: Result<Name, String>) -> Result<Name, String> {
    let subject = subject?;
    match subject.repeated() {
        Some(oid) => Err(format!("subject attribute {oid} occurs more than once")),
        None => Ok(subject),
    }
}

/// The names of the one extension that may hold them.
fn alternative_names(request: &X509CertificationRequest<'_>) -> Result<AlternativeNames, String> {
    let attributes = request.certification_request_info.attributes();
    let mut requested = attributes.iter().filter_map(|attribute| match attribute.parsed_attribute() {
        ParsedCriAttribute::ExtensionRequest(requested) => Some(requested),
        _ => None,
    });
    let (first, second) = (requested.next(), requested.next());
    if second.is_some() {
        return Err("extensions are requested more than once".into());
    }
    let mut names = None;
    for extension in first.iter().flat_map(|requested| &requested.extensions) {
        if extension.oid.to_id_string() != "2.5.29.17" {
            continue;
        }
        let ParsedExtension::SubjectAlternativeName(found) = extension.parsed_extension() else {
            return Err("the subject alternative names cannot be read".into());
        };
        if names.replace(AlternativeNames::read(&found.general_names)?).is_some() {
            return Err("subject alternative names are requested more than once".into());
        }
    }
    Ok(names.unwrap_or_default())
}

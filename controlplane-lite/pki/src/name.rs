//! Names in certificates and requests: the subject, attribute by attribute, and the alternative names. Nothing is
//! skipped: what cannot be read, or may be read in two ways, is an error.

use std::collections::HashSet;
use std::net::IpAddr;

use rcgen::{DistinguishedName, DnType, SanType};
use x509_parser::asn1_rs::Tag;
use x509_parser::extensions::GeneralName;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use super::PkiError;

const COMMON_NAME: &str = "2.5.4.3";
const ORGANIZATION: &str = "2.5.4.10";
/// Attributes that a subject may have.
const MAX_ATTRIBUTES: usize = 100;

/// A subject whose every attribute was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Name {
    /// Object identifier and value, in order.
    attributes: Vec<(String, String)>,
}

impl Name {
    /// The name of a client.
    pub fn client(common_name: &str, organizations: &[&str]) -> Self {
        let organizations = organizations.iter().map(|o| (ORGANIZATION.to_owned(), (*o).to_owned()));
        let attributes = organizations.chain([(COMMON_NAME.to_owned(), common_name.to_owned())]).collect();
        Self { attributes }
    }

    /// Reads a name; the error is the reason. Of several common names readers take different ones, so there is at most
    /// one.
    pub(super) fn read(name: &X509Name<'_>) -> Result<Self, String> {
        let mut attributes = Vec::new();
        for rdn in name.iter_rdn() {
            if attributes.len() == MAX_ATTRIBUTES {
                return Err(format!("the subject has more than {MAX_ATTRIBUTES} attributes"));
            }
            let mut parts = rdn.iter();
            let (Some(attribute), None) = (parts.next(), parts.next()) else {
                return Err("a relative distinguished name must have exactly one attribute".into());
            };
            attributes.push((attribute.attr_type().to_id_string(), text(attribute)?));
        }
        let name = Self { attributes };
        if name.of_type(COMMON_NAME).count() > 1 {
            return Err("the subject has more than one common name".into());
        }
        Ok(name)
    }

    fn of_type(&self, oid: &str) -> impl Iterator<Item = &str> {
        self.attributes.iter().filter(move |(of, _)| of == oid).map(|(_, value)| value.as_str())
    }

    /// The common name, empty without one.
    pub fn common_name(&self) -> &str {
        self.of_type(COMMON_NAME).next().unwrap_or_default()
    }

    /// The organizations, in order.
    pub fn organizations(&self) -> impl Iterator<Item = &str> {
        self.of_type(ORGANIZATION)
    }

    /// The type that occurs twice, if any does.
    pub(super) fn repeated(&self) -> Option<&str> {
        let mut seen = HashSet::new();
        self.attributes.iter().map(|(oid, _)| oid.as_str()).find(|oid| !seen.insert(*oid))
    }

    /// The name as it is signed: the attributes that upstream's signers carry over.
    pub(super) fn distinguished(&self) -> DistinguishedName {
        let mut name = DistinguishedName::new();
        for (oid, value) in &self.attributes {
            let kind = match oid.as_str() {
                COMMON_NAME => DnType::CommonName,
                ORGANIZATION => DnType::OrganizationName,
                "2.5.4.6" => DnType::CountryName,
                "2.5.4.7" => DnType::LocalityName,
                "2.5.4.8" => DnType::StateOrProvinceName,
                "2.5.4.11" => DnType::OrganizationalUnitName,
                "2.5.4.5" => DnType::CustomDnType(vec![2, 5, 4, 5]),
                "2.5.4.9" => DnType::CustomDnType(vec![2, 5, 4, 9]),
                "2.5.4.17" => DnType::CustomDnType(vec![2, 5, 4, 17]),
                _ => continue,
            };
            name.push(kind, value.as_str());
        }
        name
    }
}

/// An attribute's value. Other string types are read differently by different readers.
fn text(attribute: &AttributeTypeAndValue<'_>) -> Result<String, String> {
    let (value, oid) = (attribute.attr_value(), attribute.attr_type());
    let unreadable = |why: &str| Err(format!("subject attribute {}: {why}", oid.to_id_string()));
    let printable = |c: char| c.is_ascii_alphanumeric() || " '()+,-./:=?*&@".contains(c);
    // An e-mail address and a domain component may only be IA5 strings.
    let ia5 = ["1.2.840.113549.1.9.1", "0.9.2342.19200300.100.1.25"].contains(&oid.to_id_string().as_str());
    let Ok(text) = std::str::from_utf8(value.data) else { return unreadable("not UTF-8") };
    let readable = match value.tag() {
        Tag::Utf8String => !text.chars().any(char::is_control),
        Tag::PrintableString => text.chars().all(printable),
        Tag::Ia5String if ia5 => text.is_ascii() && !text.chars().any(char::is_control),
        _ => return unreadable("must be a UTF8String or a PrintableString"),
    };
    if readable { Ok(text.to_owned()) } else { unreadable("characters that its type does not allow") }
}

/// The names and addresses beside the subject.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlternativeNames {
    pub dns_names: Vec<String>,
    pub ip_addresses: Vec<IpAddr>,
    pub email_addresses: Vec<String>,
    pub uris: Vec<String>,
}

impl AlternativeNames {
    /// Reads names; the error is the reason. Of the other kinds of names upstream knows none either: they are never
    /// signed.
    pub(super) fn read(names: &[GeneralName<'_>]) -> Result<Self, String> {
        let mut found = Self::default();
        let ascii = |what: &str, text: &str| match text.is_ascii() {
            true => Ok(text.to_owned()),
            false => Err(format!("SAN {what} is malformed")),
        };
        for name in names {
            match name {
                GeneralName::DNSName(name) => found.dns_names.push(ascii("dNSName", name)?),
                GeneralName::RFC822Name(name) => found.email_addresses.push(ascii("rfc822Name", name)?),
                GeneralName::URI(name) => found.uris.push(ascii("uniformResourceIdentifier", name)?),
                GeneralName::IPAddress(bytes) => found.ip_addresses.push(ip(bytes)?),
                GeneralName::Invalid(..) => return Err("a subject alternative name is malformed".into()),
                _ => {}
            }
        }
        Ok(found)
    }

    pub(super) fn sans(&self) -> Result<Vec<SanType>, PkiError> {
        let text = |name: &String| name.as_str().try_into().map_err(PkiError::crypto("use alternative name"));
        let mut sans = Vec::new();
        for name in &self.dns_names {
            sans.push(SanType::DnsName(text(name)?));
        }
        for name in &self.email_addresses {
            sans.push(SanType::Rfc822Name(text(name)?));
        }
        sans.extend(self.ip_addresses.iter().copied().map(SanType::IpAddress));
        for name in &self.uris {
            sans.push(SanType::URI(text(name)?));
        }
        Ok(sans)
    }
}

fn ip(bytes: &[u8]) -> Result<IpAddr, String> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(v4.into());
    }
    let v6 = <[u8; 16]>::try_from(bytes).map_err(|_| format!("cannot parse IP address of length {}", bytes.len()));
    v6.map(Into::into)
}

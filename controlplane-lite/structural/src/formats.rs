//! The formats that custom resources' schemas know (`pkg/apiserver/validation/formats.go` upstream), and which texts
//! are of them (`k8s.io/kube-openapi/pkg/validation/strfmt`). An unknown format asks nothing.

use crate::node::Kind;

mod mail;
mod net;
mod text;
mod time;

/// A format that is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FormatKind {
    Int32,
    Int64,
    Float,
    Double,
    BsonObjectId,
    Uri,
    Email,
    Hostname,
    Ipv4,
    Ipv6,
    Cidr,
    Mac,
    Uuid,
    Uuid3,
    Uuid4,
    Uuid5,
    Isbn,
    Isbn10,
    Isbn13,
    CreditCard,
    Ssn,
    HexColor,
    RgbColor,
    Byte,
    Password,
    Date,
    Duration,
    DateTime,
    ShortName,
    LongName,
}

/// A format and how the schema spells it.
#[derive(Debug)]
pub(crate) struct Format {
    kind: FormatKind,
    name: Box<str>,
}

impl Format {
    /// A schema's `format`, where it is one of the type's.
    pub(crate) fn parse(name: &str, kind: Kind) -> Option<Self> {
        let format = match (kind, name) {
            (Kind::Integer, "int32") => FormatKind::Int32,
            (Kind::Integer, "int64") => FormatKind::Int64,
            (Kind::Number, "float") => FormatKind::Float,
            (Kind::Number, "double") => FormatKind::Double,
            (Kind::Any | Kind::String | Kind::IntOrString, name) => of_strings(&name.replace('-', ""))?,
            _ => return None,
        };
        Some(Self { kind: format, name: name.into() })
    }

    pub(crate) const fn kind(&self) -> FormatKind {
        self.kind
    }

    pub(crate) const fn name(&self) -> &str {
        &self.name
    }

    pub(crate) const fn is_of_strings(&self) -> bool {
        !matches!(self.kind, FormatKind::Int32 | FormatKind::Int64 | FormatKind::Float | FormatKind::Double)
    }

    /// Whether a text is of the format.
    pub(crate) fn accepts(&self, value: &str) -> bool {
        match self.kind {
            FormatKind::Int32 | FormatKind::Int64 | FormatKind::Float | FormatKind::Double | FormatKind::Password => {
                true
            }
            FormatKind::BsonObjectId => text::is_bson_object_id(value),
            FormatKind::Uri => net::is_request_uri(value),
            FormatKind::Email => mail::is_address(value),
            FormatKind::Hostname => net::is_hostname(value),
            FormatKind::Ipv4 => net::is_ipv4(value),
            FormatKind::Ipv6 => net::is_ipv6(value),
            FormatKind::Cidr => net::is_cidr(value),
            FormatKind::Mac => net::is_mac(value),
            FormatKind::Uuid => text::is_uuid(value, None, false),
            FormatKind::Uuid3 => text::is_uuid(value, Some('3'), false),
            FormatKind::Uuid4 => text::is_uuid(value, Some('4'), true),
            FormatKind::Uuid5 => text::is_uuid(value, Some('5'), true),
            FormatKind::Isbn => text::is_isbn10(value) || text::is_isbn13(value),
            FormatKind::Isbn10 => text::is_isbn10(value),
            FormatKind::Isbn13 => text::is_isbn13(value),
            FormatKind::CreditCard => text::is_credit_card(value),
            FormatKind::Ssn => text::is_ssn(value),
            FormatKind::HexColor => text::is_hex_color(value),
            FormatKind::RgbColor => text::is_rgb_color(value),
            FormatKind::Byte => text::is_base64(value),
            FormatKind::Date => time::is_date(value),
            FormatKind::Duration => time::is_duration(value),
            FormatKind::DateTime => time::is_date_time(value),
            FormatKind::ShortName => text::is_short_name(value) && value.len() <= 63,
            FormatKind::LongName => value.len() <= 253 && value.split('.').all(text::is_short_name),
        }
    }
}

/// By the name without its dashes.
fn of_strings(name: &str) -> Option<FormatKind> {
    Some(match name {
        "bsonobjectid" => FormatKind::BsonObjectId,
        "uri" => FormatKind::Uri,
        "email" => FormatKind::Email,
        "hostname" => FormatKind::Hostname,
        "ipv4" => FormatKind::Ipv4,
        "ipv6" => FormatKind::Ipv6,
        "cidr" => FormatKind::Cidr,
        "mac" => FormatKind::Mac,
        "uuid" => FormatKind::Uuid,
        "uuid3" => FormatKind::Uuid3,
        "uuid4" => FormatKind::Uuid4,
        "uuid5" => FormatKind::Uuid5,
        "isbn" => FormatKind::Isbn,
        "isbn10" => FormatKind::Isbn10,
        "isbn13" => FormatKind::Isbn13,
        "creditcard" => FormatKind::CreditCard,
        "ssn" => FormatKind::Ssn,
        "hexcolor" => FormatKind::HexColor,
        "rgbcolor" => FormatKind::RgbColor,
        "byte" => FormatKind::Byte,
        "password" => FormatKind::Password,
        "date" => FormatKind::Date,
        "duration" => FormatKind::Duration,
        "datetime" => FormatKind::DateTime,
        "k8sshortname" => FormatKind::ShortName,
        "k8slongname" => FormatKind::LongName,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;

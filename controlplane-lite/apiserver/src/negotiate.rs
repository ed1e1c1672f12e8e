//! Pure: Accept and Content-Type headers → what to send and how to read.
//!
//! Protobuf is understood in bodies and never answered: clients that prefer it list JSON second and get that.

use http::{HeaderMap, header};

use super::status::ApiError;

/// The encoding of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
}

impl Format {
    /// The media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Yaml => "application/yaml",
        }
    }
}

/// The shape an object is answered in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// As stored.
    Object,
    /// `meta.k8s.io/v1` Table.
    Table,
    /// PartialObjectMetadata (or its list).
    Metadata,
}

/// What an Accept header asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accept {
    /// Encoding.
    pub format: Format,
    /// Shape.
    pub shape: Shape,
    /// Whether the shape was asked for as `v1beta1`.
    pub v1beta1: bool,
}

/// Media types a client may accept.
pub const ACCEPTED: [&str; 2] = ["application/json", "application/yaml"];
/// Media types of bodies.
pub const BODY_TYPES: [&str; 3] = ["application/json", "application/yaml", super::protobuf::MEDIA_TYPE];
/// Media types of bodies that are custom resources.
pub const CUSTOM_BODY_TYPES: [&str; 2] = ["application/json", "application/yaml"];
/// The media type of a configuration to apply.
pub const APPLY_TYPE: &str = "application/apply-patch+yaml";
/// Media types of patches of custom resources, whose fields have no merge keys.
pub const CUSTOM_PATCH_TYPES: [&str; 3] = ["application/json-patch+json", "application/merge-patch+json", APPLY_TYPE];
/// Media types of patches.
pub const PATCH_TYPES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    APPLY_TYPE,
];

/// Chooses the first clause of the Accept header this server can answer.
///
/// # Errors
/// 406 when there is none.
pub fn accept(headers: &HeaderMap) -> Result<Accept, ApiError> {
    let plain = Accept { format: Format::Json, shape: Shape::Object, v1beta1: false };
    let mut seen = false;
    for value in headers.get_all(header::ACCEPT) {
        for clause in value.to_str().unwrap_or("").split(',').filter(|c| !c.trim().is_empty()) {
            seen = true;
            if let Some(found) = parse_clause(clause) {
                return Ok(found);
            }
        }
    }
    if seen { Err(ApiError::not_acceptable(&ACCEPTED)) } else { Ok(plain) }
}

/// The format of an answer that has no Table and is no stored object: clauses that ask for another shape are passed
/// over.
///
/// # Errors
/// 406 when no other clause is left.
pub fn accept_plain(headers: &HeaderMap) -> Result<Format, ApiError> {
    let mut seen = false;
    for value in headers.get_all(header::ACCEPT) {
        for clause in value.to_str().unwrap_or("").split(',').filter(|c| !c.trim().is_empty()) {
            seen = true;
            if let Some(Accept { format, shape: Shape::Object, .. }) = parse_clause(clause) {
                return Ok(format);
            }
        }
    }
    if seen { Err(ApiError::not_acceptable(&ACCEPTED)) } else { Ok(Format::Json) }
}

fn parse_clause(clause: &str) -> Option<Accept> {
    let mut parts = clause.split(';').map(str::trim);
    let format = match parts.next()?.to_ascii_lowercase().as_str() {
        "application/json" | "*/*" | "application/*" => Format::Json,
        "application/yaml" => Format::Yaml,
        _ => return None,
    };
    let (mut kind, mut group, mut version) = ("", "", "");
    for part in parts {
        match part.split_once('=') {
            Some(("as", value)) => kind = value,
            Some(("g", value)) => group = value,
            Some(("v", value)) => version = value,
            _ => {}
        }
    }
    if kind.is_empty() {
        return Some(Accept { format, shape: Shape::Object, v1beta1: false });
    }
    if group != "meta.k8s.io" || !matches!(version, "v1" | "v1beta1") {
        return None;
    }
    let shape = match kind {
        "Table" => Shape::Table,
        "PartialObjectMetadata" | "PartialObjectMetadataList" => Shape::Metadata,
        _ => return None,
    };
    Some(Accept { format, shape, v1beta1: version == "v1beta1" })
}

/// The media type of a body without parameters; JSON when there is none.
///
/// # Errors
/// 415 when it is none of `accepted`.
pub fn content_type<'a>(headers: &HeaderMap, accepted: &[&'a str]) -> Result<&'a str, ApiError> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(accepted[0]);
    };
    let media = value.to_str().unwrap_or("").split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    if media == "*/*" || media.is_empty() {
        return Ok(accepted[0]);
    }
    accepted.iter().find(|a| **a == media).copied().ok_or_else(|| ApiError::unsupported_media_type(accepted))
}

/// Whether the client takes gzip.
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT_ENCODING).iter().any(|value| {
        value.to_str().is_ok_and(|text| {
            text.split(',').any(|part| {
                let mut pieces = part.split(';').map(str::trim);
                pieces.next() == Some("gzip") && !pieces.any(|p| matches!(p, "q=0" | "q=0.0"))
            })
        })
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        let mut map = HeaderMap::new();
        map.insert(name, value.parse().unwrap());
        map
    }

    #[test]
    fn accept_takes_the_first_known_clause() {
        for (value, shape) in [
            ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Shape::Table),
            ("application/json;as=Nonsense;v=v1;g=meta.k8s.io,application/json", Shape::Object),
            ("application/vnd.kubernetes.protobuf,application/json", Shape::Object),
            ("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", Shape::Metadata),
            ("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io, */*", Shape::Object),
            ("application/json;stream=watch", Shape::Object),
        ] {
            assert_eq!(accept(&headers(header::ACCEPT, value)).unwrap().shape, shape, "{value}");
        }
        assert_eq!(accept(&headers(header::ACCEPT, "text/html")).unwrap_err().code(), 406);
        assert_eq!(accept(&headers(header::ACCEPT, "application/yaml")).unwrap().format, Format::Yaml);
    }

    #[test]
    fn what_is_not_stored_has_no_table() {
        let of = |text: &str| accept_plain(&headers(header::ACCEPT, text)).map_err(|e| e.code());
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
        assert_eq!(of(table), Err(406));
        assert_eq!(of(&format!("{table},application/json")), Ok(Format::Json));
        assert_eq!(of("application/vnd.kubernetes.protobuf,application/yaml"), Ok(Format::Yaml));
    }

    #[test]
    fn unknown_bodies_are_415() {
        let cbor = headers(header::CONTENT_TYPE, "application/cbor");
        assert_eq!(content_type(&cbor, &BODY_TYPES).unwrap_err().code(), 415);
        let json = headers(header::CONTENT_TYPE, "application/json; charset=utf-8");
        assert_eq!(content_type(&json, &BODY_TYPES).unwrap(), "application/json");
    }

    #[test]
    fn gzip_may_be_refused() {
        assert!(accepts_gzip(&headers(header::ACCEPT_ENCODING, "deflate, gzip")));
        assert!(!accepts_gzip(&headers(header::ACCEPT_ENCODING, "gzip;q=0")));
    }
}

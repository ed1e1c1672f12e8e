//! Objects and lists → responses in the shape and encoding the client accepts: bytes as they are wherever possible.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use serde_json::{Value, json};

use super::body::{Body, ListBody, WriteItem, boxed, raw};
use super::call::Call;
use super::negotiate::{self, Accept, Format, Shape};
use super::request_info::Query;
use super::status::ApiError;
use scheme::table;
use storage::{Object, Revision};

mod made;

/// Lists at least this long are compressed for who takes it (upstream's threshold), in bytes.
const GZIP_FROM: u64 = 128 * 1024;

impl WriteItem for Arc<Object> {
    fn encoded_len(&self) -> usize {
        self.json_bytes().len()
    }

    fn write(&self, out: &mut BytesMut) {
        out.extend_from_slice(self.json_bytes());
    }

    fn shared(&self) -> Option<Bytes> {
        Some(self.json())
    }
}

/// Answers one object.
///
/// # Errors
/// 406 when the client accepts nothing the server speaks.
pub fn object(call: &Call, code: StatusCode, object: &Object) -> Result<Response<Body>, ApiError> {
    let accept = negotiate::accept(&call.headers)?;
    let plain = accept.shape == Shape::Object && accept.format == Format::Json;
    if plain && call.kind.conversion.is_none() && !call.query.flag("pretty") {
        return Ok(raw(code, "application/json", object.json()));
    }
    Ok(encode(code, accept.format, &shaped(call, object.value(), accept), &call.query))
}

/// Answers an object that was not stored: it has no resourceVersion.
///
/// # Errors
/// As [`object`].
pub fn unstored(call: &Call, code: StatusCode, object: &Object) -> Result<Response<Body>, ApiError> {
    let accept = negotiate::accept(&call.headers)?;
    let value = serde_json::from_slice(&object.stored()).map_err(ApiError::internal)?;
    Ok(encode(code, accept.format, &shaped(call, value, accept), &call.query))
}

/// A stored form in the shape the client asked for.
fn shaped(call: &Call, stored: Value, accept: Accept) -> Value {
    let value = call.served(stored);
    match accept.shape {
        Shape::Object => value,
        Shape::Metadata => metadata_of(&value, accept),
        Shape::Table => {
            let version = version_of(&value);
            table_of(call, &[value], version, accept, true)
        }
    }
}

/// Answers any document.
pub fn encode(code: StatusCode, format: Format, value: &impl Serialize, query: &Query) -> Response<Body> {
    raw(code, format.media_type(), text(format, value, query.flag("pretty")))
}

fn text(format: Format, value: &impl Serialize, pretty: bool) -> String {
    match format {
        Format::Json if pretty => serde_json::to_string_pretty(value).unwrap_or_default(),
        Format::Json => serde_json::to_string(value).unwrap_or_default(),
        Format::Yaml => serde_norway::to_string(value).unwrap_or_default(),
    }
}

/// Answers a document that is no stored object (a review, a Scale, a Status).
///
/// # Errors
/// 406 when the client accepts nothing the server speaks.
pub fn document(call: &Call, code: StatusCode, value: &Value) -> Result<Response<Body>, ApiError> {
    let accept = negotiate::accept(&call.headers)?;
    Ok(encode(code, accept.format, value, &call.query))
}

/// A page of a list.
#[derive(Debug)]
pub struct Page {
    /// The objects, in key order.
    pub items: Vec<Arc<Object>>,
    /// The revision shown.
    pub revision: Revision,
    /// Token of the next page; empty on the last.
    pub continue_token: String,
    /// Objects after this page, where known.
    pub remaining: Option<u64>,
}

impl Page {
    fn metadata(&self) -> Value {
        let mut metadata = json!({"resourceVersion": self.revision.to_string()});
        if !self.continue_token.is_empty() {
            metadata["continue"] = json!(self.continue_token);
        }
        if let Some(remaining) = self.remaining {
            metadata["remainingItemCount"] = json!(remaining);
        }
        metadata
    }
}

/// Answers a list.
///
/// # Errors
/// 406 when the client accepts nothing the server speaks.
pub fn list(call: Call, page: Page) -> Result<Response<Body>, ApiError> {
    let accept = negotiate::accept(&call.headers)?;
    let plain = accept.shape == Shape::Object && accept.format == Format::Json;
    if plain && call.kind.conversion.is_none() && !call.query.flag("pretty") {
        return Ok(list_bytes(&call, page));
    }
    made::list(call, page, accept)
}

fn list_bytes(call: &Call, page: Page) -> Response<Body> {
    let mut head = format!(
        r#"{{"kind":"{}","apiVersion":"{}","metadata":{{"resourceVersion":"{}""#,
        call.kind.list_kind(),
        call.kind.api_version(),
        page.revision
    );
    if !page.continue_token.is_empty() {
        // Writing to a String cannot fail.
        let _ = write!(head, r#","continue":"{}""#, page.continue_token);
    }
    if let Some(remaining) = page.remaining {
        let _ = write!(head, r#","remainingItemCount":{remaining}"#);
    }
    head.push_str(r#"},"items":["#);
    let body = ListBody::new(head.into(), page.items, Bytes::from_static(b"]}"));
    let length = body.encoded_len();
    let mut response = Response::new(boxed(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    maybe_gzip(call, response)
}

/// Compresses long bodies frame by frame when the client takes gzip.
fn maybe_gzip(call: &Call, response: Response<Body>) -> Response<Body> {
    use http_body::Body as _;
    let long = response.body().size_hint().exact().is_some_and(|length| length >= GZIP_FROM);
    if long && negotiate::accepts_gzip(&call.headers) { gzip(response) } else { response }
}

fn gzip(response: Response<Body>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    Response::from_parts(parts, super::gzip::compress(body))
}

fn meta_version(accept: Accept) -> &'static str {
    if accept.v1beta1 { "meta.k8s.io/v1beta1" } else { "meta.k8s.io/v1" }
}

/// PartialObjectMetadata of an object.
pub fn metadata_of(value: &Value, accept: Accept) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": meta_version(accept), "metadata": value["metadata"]})
}

/// A Table of objects; `columns` says whether the column definitions are part of it (a watch sends them once).
pub fn table_of(call: &Call, items: &[Value], metadata: Value, accept: Accept, columns: bool) -> Value {
    let include = table::IncludeObject::from_query(call.query.get("includeObject").unwrap_or("")).unwrap_or_default();
    let mut table = table::table(&call.kind, metadata, items, include, columns, jiff::Timestamp::now());
    if accept.v1beta1 {
        table["apiVersion"] = json!(meta_version(accept));
    }
    table
}

/// The list metadata of a Table of one object.
pub fn version_of(object: &Value) -> Value {
    json!({"resourceVersion": object["metadata"]["resourceVersion"]})
}

/// Characters that all warnings of an answer may have, as upstream; beyond it each is cut.
const ALL_WARNINGS: usize = 4 * 1024;
/// What a warning is cut to then.
const ONE_WARNING: usize = 256;

/// The warnings that are sent: each once, cut when they are many, and the rest left out when they are too many.
fn limited(warnings: &[String]) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    let texts: Vec<&String> = warnings.iter().filter(|text| !text.is_empty() && seen.insert(*text)).collect();
    let length = |text: &str| text.chars().count();
    if texts.iter().map(|text| length(text)).sum::<usize>() <= ALL_WARNINGS {
        return texts.into_iter().cloned().collect();
    }
    let mut written = 0;
    let mut out = Vec::new();
    for text in texts {
        if written >= ALL_WARNINGS {
            break;
        }
        let cut: String = text.chars().take(ONE_WARNING).collect();
        written += length(&cut);
        out.push(cut);
    }
    out
}

/// Adds a Warning header per text, as upstream encodes them.
pub fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for text in limited(warnings) {
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"").replace(['\r', '\n'], " ");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

/// PartialObjectMetadata in v1.
pub fn partial(value: &Value) -> Value {
    table::partial_metadata(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_limited() {
        let few = ["a", "b", "a", ""].map(str::to_owned);
        assert_eq!(limited(&few), ["a", "b"]);
        let many: Vec<String> = (0..10_000).map(|n| format!("{n}{}", "é".repeat(1000))).collect();
        let sent = limited(&many);
        assert_eq!(sent.len(), ALL_WARNINGS / ONE_WARNING);
        assert!(sent.iter().all(|text| text.chars().count() == ONE_WARNING));
    }
}

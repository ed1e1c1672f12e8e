//! The OpenAPI documents: each built once, when first asked for, on threads apart; kept compressed, with a tag that
//! changes with the content.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use tokio::sync::OnceCell;

use super::body::{self, Body, full, raw};
use super::negotiate;
use super::server::Server;
use super::status::ApiError;
use scheme::openapi::{self, DocumentName};

/// A document as it is kept.
#[derive(Debug, Clone)]
struct Document {
    tag: Arc<str>,
    packed: Bytes,
}

/// The documents that were asked for.
#[derive(Debug, Default)]
pub struct Documents(Mutex<HashMap<DocumentName, Arc<OnceCell<Document>>>>);

impl Documents {
    /// A document; all who ask for it while it is built wait for the one build.
    async fn get(&self, server: &Server, name: DocumentName) -> Result<Document, ApiError> {
        let cell = {
            let mut cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            cells.entry(name.clone()).or_default().clone()
        };
        let scheme = server.scheme;
        let build = || async move {
            server
                .flow
                .apart(async move {
                    let bytes = openapi::document(scheme, &name);
                    pack(&bytes).map(|packed| Document { tag: openapi::tag(&bytes).into(), packed })
                })
                .await?
                .map_err(ApiError::internal)
        };
        cell.get_or_try_init(build).await.cloned()
    }
}

fn pack(bytes: &[u8]) -> std::io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?.into())
}

fn unpack(packed: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    GzDecoder::new(packed).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Answers a document of this server's kinds; nothing when there is no such one.
///
/// # Errors
/// 500 when it cannot be built.
pub async fn answer(
    server: &Server,
    path: &[&str],
    headers: &HeaderMap,
    hashed: bool,
) -> Result<Option<Response<Body>>, ApiError> {
    let Some(name) = openapi::name(server.scheme, path) else { return Ok(None) };
    let document = server.documents.get(server, name).await?;
    let tag = format!("\"{}\"", document.tag);
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok());
    let unchanged =
        known.flat_map(|v| v.split(',')).map(str::trim).any(|v| v == "*" || v == tag || v == format!("W/{tag}"));
    let mut response = if unchanged {
        let mut response = Response::new(full(""));
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else if negotiate::accepts_gzip(headers) {
        let mut response = raw(StatusCode::OK, "application/json", document.packed);
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response
    } else {
        let bytes = server.flow.apart(async move { unpack(&document.packed) }).await?.map_err(ApiError::internal)?;
        body::raw(StatusCode::OK, "application/json", bytes)
    };
    let out = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        out.insert(header::ETAG, tag);
    }
    out.insert(header::VARY, HeaderValue::from_static("Accept-Encoding, Accept"));
    if hashed {
        // The hash in the address changes with the content.
        out.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, immutable, max-age=31536000"));
    }
    Ok(Some(response))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_packed_comes_back() {
        let bytes = b"{}".repeat(1000);
        assert_eq!(unpack(&pack(&bytes).unwrap()).unwrap(), bytes);
    }
}

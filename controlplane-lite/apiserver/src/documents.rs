//! The OpenAPI documents of what is served: each built once, when first asked for, on threads apart; kept compressed,
//! with a tag that changes with the content. What a change of the kinds does not touch is taken along.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::Value;
use tokio::sync::OnceCell;

use super::body::{self, Body, full, raw};
use super::negotiate;
use super::registry::Served;
use super::server::Server;
use super::status::ApiError;
use scheme::Scheme;
use scheme::openapi::{self, DocumentName};

/// A document as it is kept.
#[derive(Debug, Clone)]
struct Document {
    tag: Arc<str>,
    packed: Bytes,
}

/// A value that is made once, for all who ask meanwhile.
type Once<T> = Arc<OnceCell<T>>;

/// The documents that were asked for.
#[derive(Debug, Default)]
pub struct Documents {
    built: Mutex<HashMap<DocumentName, Once<Document>>>,
    /// Of the documents of groups and versions, which version 3's root tells without anybody asking for them.
    tags: Mutex<HashMap<DocumentName, Once<Arc<str>>>>,
}

impl Documents {
    /// These without what tells of a group and version in which something changed.
    pub fn but(&self, changed: impl Fn(&str, &str) -> bool) -> Self {
        let stays = |name: &DocumentName| match name {
            DocumentName::V2 | DocumentName::V3Root => false,
            DocumentName::V3(group, version) => !changed(group, version),
        };
        Self { built: Mutex::new(kept(&self.built, stays)), tags: Mutex::new(kept(&self.tags, stays)) }
    }

    /// A document; all who ask for it while it is built wait for the one build.
    async fn get(&self, server: &Server, scheme: &Arc<Scheme>, name: DocumentName) -> Result<Document, ApiError> {
        let cell = cell(&self.built, &name);
        let build = || async {
            if name == DocumentName::V3Root {
                let root = self.root(server, scheme).await?;
                return Document::pack(&root.to_string().into_bytes());
            }
            let (scheme, name) = (scheme.clone(), name.clone());
            server.flow.apart(async move { Document::pack(&openapi::document(&scheme, &name)) }).await?
        };
        cell.get_or_try_init(build).await.cloned()
    }

    async fn root(&self, server: &Server, scheme: &Arc<Scheme>) -> Result<Value, ApiError> {
        let mut tags = Vec::new();
        for name in openapi::v3_names(scheme) {
            let tag = self.tag(server, scheme, &name).await?;
            tags.push((name, tag));
        }
        Ok(openapi::v3_root(tags.iter().map(|(name, tag)| (name, &**tag))))
    }

    async fn tag(&self, server: &Server, scheme: &Arc<Scheme>, name: &DocumentName) -> Result<Arc<str>, ApiError> {
        if let Some(document) = cell(&self.built, name).get() {
            return Ok(document.tag.clone());
        }
        let build = || async {
            let (scheme, name) = (scheme.clone(), name.clone());
            server.flow.apart(async move { openapi::tag(&openapi::document(&scheme, &name)).into() }).await
        };
        cell(&self.tags, name).get_or_try_init(build).await.cloned()
    }
}

type Cells<T> = Mutex<HashMap<DocumentName, Once<T>>>;

fn cell<T>(cells: &Cells<T>, name: &DocumentName) -> Once<T> {
    let mut cells = cells.lock().unwrap_or_else(PoisonError::into_inner);
    match cells.get(name) {
        Some(cell) => cell.clone(),
        None => cells.entry(name.clone()).or_default().clone(),
    }
}

fn kept<T>(cells: &Cells<T>, stays: impl Fn(&DocumentName) -> bool) -> HashMap<DocumentName, Once<T>> {
    let cells = cells.lock().unwrap_or_else(PoisonError::into_inner);
    cells.iter().filter(|(name, _)| stays(name)).map(|(name, cell)| (name.clone(), cell.clone())).collect()
}

impl Document {
    fn pack(bytes: &[u8]) -> Result<Self, ApiError> {
        let packed = pack(bytes).map_err(ApiError::internal)?;
        Ok(Self { tag: openapi::tag(bytes).into(), packed })
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
    served: &Served,
    path: &[&str],
    headers: &HeaderMap,
    hashed: bool,
) -> Result<Option<Response<Body>>, ApiError> {
    let Some(name) = openapi::name(&served.scheme, path) else { return Ok(None) };
    let document = served.documents.get(server, &served.scheme, name).await?;
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

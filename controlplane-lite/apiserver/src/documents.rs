//! The OpenAPI documents of what is served: each built once, when first asked for, on threads apart; kept compressed,
//! with a tag that changes with the content, and unpacked while it is sent for who does not take it so. What a change
//! of the kinds does not touch is taken along.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::buf::Reader;
use bytes::{Buf as _, Bytes};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use serde_json::Value;
use tokio::sync::OnceCell;

use super::answer::SLICE;
use super::body::{Body, boxed, full, raw};
use super::negotiate;
use super::registry::Served;
use super::server::Server;
use super::status::ApiError;
use scheme::Scheme;
use scheme::openapi::{self, DocumentName};

/// A document as it is kept.
#[derive(Debug, Clone)]
pub struct Document {
    tag: Arc<str>,
    packed: Bytes,
    /// Unpacked, in bytes.
    length: usize,
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
    /// Packs its content.
    ///
    /// # Errors
    /// 500 when that fails.
    pub fn pack(bytes: &[u8]) -> Result<Self, ApiError> {
        let packed = pack(bytes).map_err(ApiError::internal)?;
        Ok(Self { tag: openapi::tag(bytes).into(), packed, length: bytes.len() })
    }

    /// Its content, all at once: for those that are short.
    ///
    /// # Errors
    /// 500 when that fails.
    pub fn unpack(&self) -> Result<Vec<u8>, ApiError> {
        let mut bytes = Vec::with_capacity(self.length);
        GzDecoder::new(&*self.packed).read_to_end(&mut bytes).map_err(ApiError::internal)?;
        Ok(bytes)
    }
}

fn pack(bytes: &[u8]) -> std::io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?.into())
}

/// A document unpacked slice by slice: for each that is sent, a slice and the decoder's window are in memory.
struct Unpacked {
    decoder: GzDecoder<Reader<Bytes>>,
    left: usize,
}

impl Unpacked {
    fn new(document: Document) -> Self {
        Self { decoder: GzDecoder::new(document.packed.reader()), left: document.length }
    }
}

impl http_body::Body for Unpacked {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let mut part = vec![0; self.left.min(SLICE)];
        let read = self.decoder.read_exact(&mut part);
        self.left = if read.is_ok() { self.left - part.len() } else { 0 };
        Poll::Ready(Some(read.map(|()| Frame::data(part.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
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
    let document = match (&name, server.aggregation.parts(&served.scheme)) {
        (DocumentName::V2, Some(parts)) => parts.v2(server).await?,
        (DocumentName::V3Root, Some(parts)) => {
            parts.root(&served.documents.get(server, &served.scheme, name).await?)?
        }
        _ => served.documents.get(server, &served.scheme, name).await?,
    };
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
        let mut response = Response::new(boxed(Unpacked::new(document)));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
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
    use http_body::Body as _;
    use http_body_util::BodyExt as _;

    #[tokio::test]
    async fn what_is_packed_comes_back_in_slices() {
        for length in [2, SLICE, 10 * SLICE + 6] {
            let bytes: Vec<u8> = (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let mut body = boxed(Unpacked::new(Document::pack(&bytes).unwrap()));
            let mut read = Vec::new();
            while let Some(frame) = body.frame().await {
                let part = frame.unwrap().into_data().unwrap();
                assert!(part.len() <= SLICE);
                read.extend_from_slice(&part);
                assert_eq!(body.size_hint().exact(), Some((length - read.len()) as u64));
            }
            assert_eq!(read, bytes);
        }
    }
}

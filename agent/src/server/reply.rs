//! Answers: bodies and plain-text errors as Go's `http.Error` writes them.

use std::io;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde::Serialize;

/// Any body this server sends.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A body of known bytes.
pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

fn with_type(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// A plain text, without a newline added.
pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    with_type(status, "text/plain; charset=utf-8", body)
}

/// An error in one line of text.
pub(super) fn error(status: StatusCode, message: impl std::fmt::Display) -> Response<Body> {
    text(status, format!("{message}\n"))
}

/// An answer that ends the handling of a request early.
#[derive(Debug)]
pub(crate) struct ErrorResponse {
    pub status: StatusCode,
    pub body: Bytes,
}

impl ErrorResponse {
    /// A refusal with one line of text.
    pub fn new(status: StatusCode, message: impl std::fmt::Display) -> Self {
        Self { status, body: format!("{message}\n").into() }
    }
}

impl From<ErrorResponse> for Response<Body> {
    fn from(refused: ErrorResponse) -> Self {
        text(refused.status, refused.body)
    }
}

/// A JSON document.
pub(super) fn json(value: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(bytes) => with_type(StatusCode::OK, "application/json", bytes),
        Err(problem) => error(StatusCode::INTERNAL_SERVER_ERROR, problem),
    }
}

/// Metrics in Prometheus' text format.
pub(super) fn metrics(body: String) -> Response<Body> {
    with_type(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body)
}

//! Carrying one request to another HTTP server (a kubelet, a pod, a Service's endpoint) and its answer back: streamed
//! bodies, and byte tunnels for upgraded connections (SPDY and WebSocket alike, nothing is interpreted).
//!
//! Does not decide where a request goes nor who may send it.

use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tracing::debug;

use super::body::{Body, BoxError, boxed};
use super::serve::TlsError;
use super::status::ApiError;

const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a request goes.
#[derive(Debug, Clone)]
pub struct Target {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// TLS to use; `None` for plain HTTP.
    pub tls: Option<Arc<ClientConfig>>,
    /// The name that the certificate there has to have, when it is not `host`.
    pub server_name: Option<String>,
    /// Path and query, with the leading slash.
    pub path_and_query: String,
}

impl Target {
    /// `host:port`.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// Client TLS without a certificate of our own and without checking the peer's: proxying to `https:` pods.
///
/// # Errors
/// When rustls refuses the set-up.
pub fn unverified_tls() -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| TlsError::Rustls { what: "proxy client", source: e.into() })?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer(provider)));
    Ok(Arc::new(builder.with_no_client_auth()))
}

/// Takes any server certificate; signatures of the handshake are still checked.
#[derive(Debug)]
pub(super) struct AnyServer(pub(super) Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Sends `request` to `target` and answers with what comes back. An upgraded connection is carried byte for byte
/// until either side ends it.
///
/// # Errors
/// 500 `error dialing backend: …` when the target cannot be reached, 502-like failures as 503.
pub async fn forward(mut request: Request<Body>, target: &Target) -> Result<Response<Body>, ApiError> {
    let upgrade = wants_upgrade(request.headers());
    let on_client = upgrade.then(|| hyper::upgrade::on(&mut request));
    let outgoing = outgoing(request, target, upgrade)?;
    let mut response = send(outgoing, target).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        strip_hop_by_hop(response.headers_mut());
        return Ok(response.map(boxed));
    }
    let Some(on_client) = on_client else {
        return Err(ApiError::unavailable("the backend switched protocols unasked"));
    };
    let on_backend = hyper::upgrade::on(&mut response);
    tokio::spawn(async move {
        match tokio::try_join!(on_client, on_backend) {
            Ok((client, backend)) => {
                let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
                carry(&mut client, &mut backend).await;
            }
            Err(error) => debug!(%error, "tunnel not established"),
        }
    });
    let (parts, _) = response.into_parts();
    let mut switched = Response::new(super::body::full(""));
    *switched.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *switched.headers_mut() = parts.headers;
    Ok(switched)
}

/// Carries bytes both ways until one side is done, as upstream: a side that never closes must not keep the other.
async fn carry<A, B>(client: &mut A, backend: &mut B)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let ((mut from_client, mut to_client), (mut from_backend, mut to_backend)) =
        (tokio::io::split(client), tokio::io::split(backend));
    // Cancel-safe: what the other direction still carries has no reader any more.
    let ended = tokio::select! {
        ended = tokio::io::copy(&mut from_client, &mut to_backend) => ended,
        ended = tokio::io::copy(&mut from_backend, &mut to_client) => ended,
    };
    if let Err(error) = ended {
        debug!(%error, "tunnel ended");
    }
    for end in [to_client.shutdown().await, to_backend.shutdown().await] {
        if let Err(error) = end {
            debug!(%error, "tunnel closed by its other end");
        }
    }
}

/// Sends a request of our own to `target`.
///
/// # Errors
/// As [`forward`].
pub async fn get(target: &Target) -> Result<Response<Body>, ApiError> {
    let request = Request::new(super::body::full(""));
    Ok(send(outgoing(request, target, false)?, target).await?.map(boxed))
}

/// Whether a request asks for another protocol.
pub fn wants_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
        && headers
            .get_all(header::CONNECTION)
            .iter()
            .any(|v| v.to_str().is_ok_and(|t| t.to_ascii_lowercase().contains("upgrade")))
}

const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    headers.remove("keep-alive");
}

fn outgoing(request: Request<Body>, target: &Target, upgrade: bool) -> Result<Request<Body>, ApiError> {
    let (mut parts, body) = request.into_parts();
    let protocol = parts.headers.get(header::UPGRADE).cloned();
    strip_hop_by_hop(&mut parts.headers);
    // The caller's credentials are for this server only.
    parts.headers.remove(header::AUTHORIZATION);
    if let (true, Some(protocol)) = (upgrade, protocol) {
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        parts.headers.insert(header::UPGRADE, protocol);
    }
    let bad = |what: &str| ApiError::bad_request(format!("invalid proxy {what}"));
    parts.uri = target.path_and_query.parse::<Uri>().map_err(|_| bad("path"))?;
    let host = HeaderValue::from_str(&target.authority()).map_err(|_| bad("host"))?;
    parts.headers.insert(header::HOST, host);
    parts.version = http::Version::HTTP_11;
    parts.extensions.clear();
    Ok(Request::from_parts(parts, body))
}

async fn send(request: Request<Body>, target: &Target) -> Result<Response<hyper::body::Incoming>, ApiError> {
    let dial = |error: BoxError| {
        ApiError::plain(500, format!("error dialing backend: dial tcp {}: {error}", target.authority()))
    };
    let connected = tokio::time::timeout(DIAL_TIMEOUT, connect(target)).await;
    match connected {
        Err(_) => Err(dial("i/o timeout".into())),
        Ok(Err(error)) => Err(dial(error)),
        Ok(Ok(Stream::Plain(stream))) => exchange(stream, request).await,
        Ok(Ok(Stream::Tls(stream))) => exchange(*stream, request).await,
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

async fn connect(target: &Target) -> Result<Stream, BoxError> {
    let stream = TcpStream::connect((target.host.as_str(), target.port)).await?;
    stream.set_nodelay(true)?;
    let Some(tls) = &target.tls else {
        return Ok(Stream::Plain(stream));
    };
    let name = ServerName::try_from(target.server_name.as_ref().unwrap_or(&target.host).clone())?;
    Ok(Stream::Tls(Box::new(TlsConnector::from(tls.clone()).connect(name, stream).await?)))
}

async fn exchange<S>(stream: S, request: Request<Body>) -> Result<Response<hyper::body::Incoming>, ApiError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: hyper::Error| ApiError::plain(502, format!("error trying to reach service: {error}"));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            debug!(%error, "backend connection");
        }
    });
    sender.send_request(request).await.map_err(broken)
}

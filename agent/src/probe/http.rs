//! HTTP GET as probes and lifecycle hooks do it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use nix::errno::Errno;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::target::HttpTarget;
use super::url;
use super::worker::ProbeResult;

/// What is read of an answer, for the event.
const MAX_BODY: usize = 10 * 1024;
/// Requests of one probe, redirects included.
const MAX_REQUESTS: usize = 10;
const PROBE_AGENT: &str = "kube-probe/1.36";
const LIFECYCLE_AGENT: &str = "kube-lifecycle/1.36";

/// A request that got no answer.
#[derive(Debug, thiserror::Error)]
enum GetError {
    #[error("Get {url:?}: invalid request: {message}")]
    Request { url: String, message: String },
    #[error("Get {url:?}: {message}")]
    Connection { url: String, message: String },
    #[error("Get {url:?}: http: server gave HTTP response to HTTPS client")]
    NotTls { url: String },
}

struct Answer {
    status: u16,
    location: Option<String>,
    body: String,
}

impl Answer {
    /// Where the answer sends the client, if anywhere.
    fn redirect(&self) -> Option<&str> {
        let location = self.location.as_deref().filter(|l| !l.is_empty());
        location.filter(|_| matches!(self.status, 301 | 302 | 303 | 307 | 308))
    }
}

/// Sends the request and judges the answer: 200 to 299 is success, a redirect that
/// is not followed is one with a warning; redirects are followed on the same host only.
pub async fn probe(target: &HttpTarget, timeout: Duration) -> ProbeResult {
    match tokio::time::timeout(timeout, follow(target)).await {
        Ok(Ok(result)) => result,
        Ok(Err(error @ GetError::Request { .. })) => ProbeResult::Error(error.to_string()),
        Ok(Err(error)) => ProbeResult::Failure(error.to_string()),
        Err(_) => ProbeResult::Failure(format!(
            "Get {:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
            url_of(target)
        )),
    }
}

/// Sends the request of a lifecycle hook: any answer is success, redirects are
/// followed, and a server that speaks no TLS is asked without.
pub async fn send(target: &HttpTarget, timeout: Duration) -> Result<(), String> {
    let work = async {
        match send_on(target).await {
            Err(GetError::NotTls { .. }) => {
                let mut plain = HttpTarget { https: false, ..target.clone() };
                plain.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("authorization"));
                send_on(&plain).await
            }
            other => other,
        }
    };
    match tokio::time::timeout(timeout, work).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err(format!("Get {:?}: no answer within {timeout:?}", url_of(target))),
    }
}

async fn send_on(target: &HttpTarget) -> Result<(), GetError> {
    let mut current = target.clone();
    for _ in 0..MAX_REQUESTS {
        let answer = get(&current, LIFECYCLE_AGENT).await?;
        let Some(location) = answer.redirect() else { return Ok(()) };
        let mut next = redirected(&current, location).ok_or_else(|| unreadable(location))?;
        if next.host != target.host {
            next.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("authorization"));
        }
        current = next;
    }
    Err(GetError::Connection { url: url_of(&current), message: format!("stopped after {MAX_REQUESTS} redirects") })
}

fn unreadable(location: &str) -> GetError {
    let message = format!("failed to parse Location header {location:?}");
    GetError::Connection { url: location.to_owned(), message }
}

fn authority(target: &HttpTarget) -> String {
    if target.host.contains(':') && !target.host.starts_with('[') {
        format!("[{}]:{}", target.host, target.port)
    } else {
        format!("{}:{}", target.host, target.port)
    }
}

fn url_of(target: &HttpTarget) -> String {
    format!("{}://{}{}", if target.https { "https" } else { "http" }, authority(target), target.path)
}

async fn follow(target: &HttpTarget) -> Result<ProbeResult, GetError> {
    let mut current = target.clone();
    for requests in 1.. {
        let answer = get(&current, PROBE_AGENT).await?;
        if let Some(location) = answer.redirect() {
            let next = redirected(&current, location).ok_or_else(|| unreadable(location))?;
            if next.host == target.host {
                if requests >= MAX_REQUESTS {
                    let message = format!("stopped after {MAX_REQUESTS} redirects");
                    return Err(GetError::Connection { url: location.to_owned(), message });
                }
                current = next;
                continue;
            }
        }
        return Ok(judged(answer.status, &answer.body));
    }
    Ok(ProbeResult::Success)
}

/// What the last answer means. Pure.
fn judged(status: u16, body: &str) -> ProbeResult {
    match status {
        200..300 => ProbeResult::Success,
        300..400 => ProbeResult::Warning(format!("Probe terminated redirects, Response body: {body}")),
        _ => {
            tracing::trace!(status, body, "probe answer");
            ProbeResult::Failure(format!("HTTP probe failed with statuscode: {status}"))
        }
    }
}

/// Where a redirect leads; `None` when its location cannot be read. Pure.
fn redirected(from: &HttpTarget, location: &str) -> Option<HttpTarget> {
    let to = url::resolve(&from.path, from.https, location)?;
    let mut next = from.clone();
    next.path = to.path;
    if let Some((https, host, port)) = to.authority {
        (next.https, next.host, next.port) = (https, host, port);
        // The host that a probe names is the one it asks first.
        next.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("host"));
    }
    Some(next)
}

fn request(target: &HttpTarget, agent: &'static str) -> Result<Request<Empty<Bytes>>, GetError> {
    let fail = |message: String| GetError::Request { url: url_of(target), message };
    let mut request = Request::get(target.path.as_str()).body(Empty::new()).map_err(|e| fail(e.to_string()))?;
    let headers = request.headers_mut();
    for (name, value) in &target.headers {
        let name = HeaderName::try_from(name.as_str()).map_err(|e| fail(e.to_string()))?;
        let value = HeaderValue::try_from(value.as_str()).map_err(|e| fail(e.to_string()))?;
        // An empty value means that the default header is not to be sent.
        headers.append(name, value);
    }
    let host = HeaderValue::try_from(authority(target)).map_err(|e| fail(e.to_string()))?;
    headers.entry(HOST).or_insert(host);
    headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(agent));
    headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    for name in [ACCEPT, USER_AGENT] {
        if headers.get(&name).is_some_and(HeaderValue::is_empty) {
            headers.remove(&name);
        }
    }
    Ok(request)
}

async fn get(target: &HttpTarget, agent: &'static str) -> Result<Answer, GetError> {
    let request = request(target, agent)?;
    let fail = |message: String| GetError::Connection { url: url_of(target), message };
    let stream = connect(&target.host, target.port).await.map_err(fail)?;
    if !target.https {
        return exchange(stream, request).await.map_err(fail);
    }
    let name = ServerName::try_from(target.host.clone()).map_err(|e| fail(e.to_string()))?;
    let tls = tokio_rustls::TlsConnector::from(unverified()).connect(name, stream).await;
    let tls = tls.map_err(|e| not_tls(target, &e).unwrap_or_else(|| fail(e.to_string())))?;
    exchange(tls, request).await.map_err(fail)
}

/// The error of a server that answers a handshake with something else.
fn not_tls(target: &HttpTarget, error: &std::io::Error) -> Option<GetError> {
    let cause = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    matches!(cause, rustls::Error::InvalidMessage(_)).then(|| GetError::NotTls { url: url_of(target) })
}

/// Connects to a pod or node address.
pub(super) async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await;
    stream.map_err(|error| format!("dial tcp {host}:{port}: connect: {}", reason(&error)))
}

/// The words that programs in Go have for an error of the system.
fn reason(error: &std::io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |code| Errno::from_raw(code).desc().to_lowercase())
}

async fn exchange<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|e| e.to_string())?;
        Ok(read(answer).await)
    };
    // The connection is driven here, so that it ends with the request.
    tokio::pin!(exchange);
    let mut connection = Box::pin(connection);
    tokio::select! {
        answer = &mut exchange => answer,
        ended = &mut connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(error.to_string()),
        },
    }
}

async fn read(answer: Response<Incoming>) -> Answer {
    let status = answer.status().as_u16();
    let location = answer.headers().get(LOCATION).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let body = match Limited::new(answer.into_body(), MAX_BODY).collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        Err(_) => String::new(),
    };
    Answer { status, location, body }
}

/// TLS that believes any certificate: probes check health, not identity. Servers
/// that have nothing but CBC suites or the curve P-521 for the key exchange cannot
/// be reached: rustls has neither.
fn unverified() -> Arc<ClientConfig> {
    static CONFIG: std::sync::LazyLock<Arc<ClientConfig>> = std::sync::LazyLock::new(|| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for the default versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth();
        Arc::new(config)
    });
    CONFIG.clone()
}

#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    /// Also those that the provider could not verify: nothing is verified.
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let mut schemes = self.0.signature_verification_algorithms.supported_schemes();
        schemes.extend([
            SignatureScheme::ECDSA_NISTP521_SHA512,
            SignatureScheme::ECDSA_SHA1_Legacy,
            SignatureScheme::RSA_PKCS1_SHA1,
        ]);
        schemes
    }
}

#[cfg(test)]
mod tests;

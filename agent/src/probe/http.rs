//! HTTP GET as probes and lifecycle hooks do it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use http::{Request, Response, Uri};
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
use super::worker::Verdict;

/// What is read of an answer, for the event.
const MAX_BODY: usize = 10 * 1024;
const MAX_REDIRECTS: usize = 10;
const AGENT: &str = "kube-probe/1.36";

/// A request that got no answer.
#[derive(Debug, thiserror::Error)]
enum GetError {
    #[error("Get {url:?}: invalid request: {message}")]
    Request { url: String, message: String },
    #[error("Get {url:?}: {message}")]
    Connection { url: String, message: String },
}

struct Answer {
    status: u16,
    location: Option<String>,
    body: String,
}

/// Sends the request and judges the answer: 200 to 399 is success, redirects are
/// followed on the same host only.
pub async fn probe(target: &HttpTarget, timeout: Duration) -> Verdict {
    match tokio::time::timeout(timeout, follow(target)).await {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(error @ GetError::Request { .. })) => Verdict::Error(error.to_string()),
        Ok(Err(error)) => Verdict::Failure(error.to_string()),
        Err(_) => Verdict::Failure(format!(
            "Get {:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
            url(target)
        )),
    }
}

/// Sends the request once; any answer is success, as lifecycle hooks want it.
pub async fn send(target: &HttpTarget, timeout: Duration) -> Result<(), String> {
    match tokio::time::timeout(timeout, get(target)).await {
        Ok(result) => result.map(drop).map_err(|error| error.to_string()),
        Err(_) => Err(format!("Get {:?}: no answer within {timeout:?}", url(target))),
    }
}

fn authority(target: &HttpTarget) -> String {
    if target.host.contains(':') && !target.host.starts_with('[') {
        format!("[{}]:{}", target.host, target.port)
    } else {
        format!("{}:{}", target.host, target.port)
    }
}

fn url(target: &HttpTarget) -> String {
    format!("{}://{}{}", if target.https { "https" } else { "http" }, authority(target), target.path)
}

async fn follow(target: &HttpTarget) -> Result<Verdict, GetError> {
    let mut current = target.clone();
    for _ in 0..=MAX_REDIRECTS {
        let answer = get(&current).await?;
        let Answer { status, location, body } = answer;
        let next = location.filter(|_| matches!(status, 301 | 302 | 303 | 307 | 308));
        match next.and_then(|location| redirected(&current, &location)) {
            Some(next) if next.host == current.host => current = next,
            Some(_) => return Ok(Verdict::Success),
            None if (200..400).contains(&status) => return Ok(Verdict::Success),
            None => {
                tracing::trace!(status, body, "probe answer");
                return Ok(Verdict::Failure(format!("HTTP probe failed with statuscode: {status}")));
            }
        }
    }
    Ok(Verdict::Failure(format!("Get {:?}: stopped after {MAX_REDIRECTS} redirects", url(target))))
}

/// Where a redirect leads; `None` when its location cannot be read. Pure.
fn redirected(from: &HttpTarget, location: &str) -> Option<HttpTarget> {
    let mut next = from.clone();
    let scheme = if from.https { "https:" } else { "http:" };
    let absolute = if location.starts_with("//") { format!("{scheme}{location}") } else { location.to_owned() };
    if !absolute.contains("://") {
        let base = from.path.split('?').next().unwrap_or("/");
        let dir = base.rsplit_once('/').map_or("", |(dir, _)| dir);
        next.path = if location.starts_with('/') { location.to_owned() } else { format!("{dir}/{location}") };
        return Some(next);
    }
    let uri: Uri = absolute.parse().ok()?;
    next.https = uri.scheme_str()? == "https";
    next.host = uri.host()?.trim_matches(['[', ']']).to_owned();
    next.port = uri.port_u16().unwrap_or(if next.https { 443 } else { 80 });
    next.path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
    Some(next)
}

fn request(target: &HttpTarget) -> Result<Request<Empty<Bytes>>, GetError> {
    let fail = |message: String| GetError::Request { url: url(target), message };
    let path = target.path.split('#').next().unwrap_or("/");
    let mut request = Request::get(path).body(Empty::new()).map_err(|e| fail(e.to_string()))?;
    let headers = request.headers_mut();
    for (name, value) in &target.headers {
        let name = HeaderName::try_from(name.as_str()).map_err(|e| fail(e.to_string()))?;
        let value = HeaderValue::try_from(value.as_str()).map_err(|e| fail(e.to_string()))?;
        // An empty value means that the default header is not to be sent.
        headers.append(name, value);
    }
    let host = HeaderValue::try_from(authority(target)).map_err(|e| fail(e.to_string()))?;
    headers.entry(HOST).or_insert(host);
    headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
    headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    for name in [ACCEPT, USER_AGENT] {
        if headers.get(&name).is_some_and(HeaderValue::is_empty) {
            headers.remove(&name);
        }
    }
    Ok(request)
}

async fn get(target: &HttpTarget) -> Result<Answer, GetError> {
    let request = request(target)?;
    let fail = |message: String| GetError::Connection { url: url(target), message };
    let stream = connect(&target.host, target.port).await.map_err(fail)?;
    if !target.https {
        return exchange(stream, request).await.map_err(fail);
    }
    let name = ServerName::try_from(target.host.clone()).map_err(|e| fail(e.to_string()))?;
    let tls = tokio_rustls::TlsConnector::from(unverified()).connect(name, stream).await;
    exchange(tls.map_err(|e| fail(e.to_string()))?, request).await.map_err(fail)
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

/// TLS that believes any certificate: probes check health, not identity.
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

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;

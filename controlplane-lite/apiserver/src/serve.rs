//! The socket side: TLS with an optional client certificate, HTTP/1.1 (with upgrades) and HTTP/2 on one port, and a
//! graceful end.
//!
//! Knows nothing of the API: it hands requests, marked with the peer's certificates, to a handler.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use http::{Request, Response};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use self::connection::{Counted, TimedWrites};
use super::body::{Body, boxed};
use auth::authn::x509::ClientCertificate;

mod connection;

pub use connection::{Connection, Trust};

/// The client's verified certificate; absent when it showed none. An extension of every request.
#[derive(Debug, Clone)]
pub struct PeerCertificate(pub Arc<ClientCertificate>);

/// Where a request came from. An extension of every request from a socket.
#[derive(Debug, Clone, Copy)]
pub struct PeerAddress(pub SocketAddr);

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM text does not hold what it should.
    #[error("{what} is not usable PEM")]
    Pem {
        /// Which input.
        what: &'static str,
        /// The parser's word.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// rustls refuses the combination.
    #[error("TLS set-up of {what}")]
    Rustls {
        /// Which side.
        what: &'static str,
        /// The reason.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Streams one HTTP/2 connection may hold: a client's watches are streams.
const MAX_STREAMS: u32 = 1_000;
/// The same for a connection without a client certificate, as upstream's.
const MAX_STREAMS_WITHOUT_CERTIFICATE: u32 = 250;
/// Bytes of one answer that wait in an HTTP/2 connection, and a slice more: a list that is made while it is sent is
/// made no further.
const SEND_BUFFER: usize = 128 * 1024;
/// A connection that was told to end has so long for it.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// HTTP/2 as ALPN names it. A client that does not ask for it speaks HTTP/1.1.
const HTTP2: &[u8] = b"h2";

fn pem(what: &'static str) -> impl Fn(rustls::pki_types::pem::Error) -> TlsError {
    move |source| TlsError::Pem { what, source }
}

fn tls(what: &'static str) -> impl Fn(Box<dyn std::error::Error + Send + Sync>) -> TlsError {
    move |source| TlsError::Rustls { what, source }
}

/// All certificates of a PEM text.
pub(super) fn certificates(what: &'static str, text: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<_, _>>().map_err(pem(what))
}

/// The private key of a PEM text.
pub(super) fn private_key(what: &'static str, text: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(pem(what))
}

/// The certificate that clients are shown, and its key. Another one is shown from the next handshake on.
#[derive(Debug)]
pub struct ServingKey(RwLock<Arc<CertifiedKey>>);

impl ServingKey {
    /// A certificate chain and its key, PEM.
    ///
    /// # Errors
    /// When a PEM text is broken or the key does not fit the certificate.
    pub fn new(cert_pem: &str, key_pem: &str) -> Result<Self, TlsError> {
        Ok(Self(RwLock::new(certified(cert_pem, key_pem)?)))
    }

    /// Replaces both.
    ///
    /// # Errors
    /// As [`ServingKey::new`]; then the old ones stay.
    pub fn replace(&self, cert_pem: &str, key_pem: &str) -> Result<(), TlsError> {
        let next = certified(cert_pem, key_pem)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }
}

impl ResolvesServerCert for ServingKey {
    fn resolve(&self, _client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn certified(cert_pem: &str, key_pem: &str) -> Result<Arc<CertifiedKey>, TlsError> {
    let (chain, key) = (certificates("server certificate", cert_pem)?, private_key("server key", key_pem)?);
    let provider = rustls::crypto::ring::default_provider();
    CertifiedKey::from_der(chain, key, &provider).map(Arc::new).map_err(|e| tls("server certificate")(e.into()))
}

/// The server's TLS: what it shows, and the CAs whose client certificates it takes.
///
/// # Errors
/// When a PEM text is broken.
pub fn server_tls(serving: Arc<ServingKey>, client_ca_pem: &[&str]) -> Result<Arc<ServerConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    for text in client_ca_pem {
        for cert in certificates("client CA", text)? {
            roots.add(cert).map_err(|e| tls("client CA")(e.into()))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|e| tls("client CA")(e.into()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| tls("server")(e.into()))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(serving);
    config.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Serves until `token` is cancelled, then lets requests in flight end for up to ten seconds.
///
/// # Errors
/// When the listener cannot be used.
pub async fn serve<H, F>(
    listener: std::net::TcpListener,
    tls: Arc<ServerConfig>,
    handler: H,
    token: CancellationToken,
) -> io::Result<()>
where
    H: Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let acceptor = TlsAcceptor::from(tls);
    let tracker = TaskTracker::new();
    let abort = CancellationToken::new();
    loop {
        // Cancel-safe: `accept` loses nothing when dropped, a cancelled token stays cancelled.
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = token.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                // Apart, so that what it needs is gone once the connection is open: open ones are many and long.
                let opening = Box::pin(open(stream, peer, acceptor.clone(), handler.clone(), token.clone()));
                let abort = abort.clone();
                let connection = async move {
                    if let Some(connection) = opening.await {
                        connection.await;
                    }
                };
                tracker.spawn(async move {
                    tokio::select! {
                        () = connection => {}
                        () = abort.cancelled() => {}
                    }
                });
            }
            // Out of descriptors, most likely: leave the connections alive a moment to end.
            Err(error) => {
                debug!(%error, "accept");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
    drop(listener);
    tracker.close();
    if tokio::time::timeout(DRAIN_TIMEOUT, tracker.wait()).await.is_err() {
        abort.cancel();
        tracker.wait().await;
    }
    Ok(())
}

/// The handshake; what remains to be done for the connection afterwards.
async fn open<H, F>(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    handler: H,
    token: CancellationToken,
) -> Option<BoxFuture<'static, ()>>
where
    H: Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    // Watch events are single small writes; Nagle would hold them back.
    let _ = stream.set_nodelay(true);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => return Some(converse(stream, peer, handler, token)),
        Ok(Err(error)) => debug!(%peer, %error, "TLS handshake"),
        Err(_) => debug!(%peer, "TLS handshake timed out"),
    }
    None
}

/// Requests and answers on an open connection.
fn converse<H, F>(
    stream: TlsStream<TcpStream>,
    peer: SocketAddr,
    handler: H,
    token: CancellationToken,
) -> BoxFuture<'static, ()>
where
    H: Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let session = stream.get_ref().1;
    let http2 = session.alpn_protocol() == Some(HTTP2);
    let certificate = session.peer_certificates().and_then(|chain| chain.first());
    let certificate = certificate.map(|leaf| PeerCertificate(Arc::new(ClientCertificate::read(leaf))));
    let streams = if certificate.is_none() { MAX_STREAMS_WITHOUT_CERTIFICATE } else { MAX_STREAMS };
    let state = Arc::new(Connection::default());
    let io = TokioIo::new(TimedWrites::new(stream, state.clone()));
    let of_requests = state.clone();
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let answering = of_requests.begin();
        let state = of_requests.clone();
        let mut request = request.map(boxed);
        if let Some(certificate) = &certificate {
            request.extensions_mut().insert(certificate.clone());
        }
        request.extensions_mut().insert(PeerAddress(peer));
        request.extensions_mut().insert(state.trust());
        let answer = handler(request);
        // A request being decided takes 20 KiB, and hyper keeps room for it as long as its answer streams.
        Box::pin(async move {
            let response = answer.await;
            if response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
                state.may_pause();
            }
            Ok::<_, Infallible>(response.map(|body| Counted::wrap(body, answering)))
        })
    });
    if http2 {
        let connection = Box::pin(http2_builder(streams).serve_connection(io, service));
        drive(connection, http2::Connection::graceful_shutdown, peer, token, state).boxed()
    } else {
        let connection = Box::pin(http1_builder().serve_connection(io, service).with_upgrades());
        drive(connection, http1::UpgradeableConnection::graceful_shutdown, peer, token, state).boxed()
    }
}

/// Runs a connection to its end; no new requests once `token` is cancelled or its own end has come.
async fn drive<C>(
    mut connection: Pin<Box<C>>,
    shut: fn(Pin<&mut C>),
    peer: SocketAddr,
    token: CancellationToken,
    state: Arc<Connection>,
) where
    C: Future<Output = hyper::Result<()>>,
{
    let said = |ended: hyper::Result<()>| {
        if let Err(error) = ended {
            debug!(%peer, %error, "connection");
        }
    };
    // Cancel-safe: the connection is polled in place, the token stays cancelled, and whoever waits for its end is the
    // only one.
    let over = tokio::select! {
        ended = connection.as_mut() => return said(ended),
        () = token.cancelled() => false,
        () = state.over() => true,
    };
    shut(connection.as_mut());
    if !over {
        return said(connection.await);
    }
    // A peer that does not even take its leave is left alone.
    if let Ok(ended) = tokio::time::timeout(CLOSE_TIMEOUT, connection).await {
        said(ended);
    }
}

fn http1_builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
}

fn http2_builder(streams: u32) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(15));
    builder
}

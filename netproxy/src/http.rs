//! The proxy's listening sockets, and what its metrics address answers: `/metrics`, `/healthz`,
//! `/configz`, `/proxyMode`. What health means is in [`crate::healthz`]. Whoever comes has so long
//! for a request and may have so many connections: the descriptors are the whole process'.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accept::{self, Connections};
use crate::metrics::Metrics;

/// How long to wait before trying to listen again, as upstream.
const LISTEN_RETRY: Duration = Duration::from_secs(5);
/// How long a client may take for a request, or may stay silent.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection is kept, whatever it does, and how long its last answer may take.
const CONNECTION_LIFE: Duration = Duration::from_secs(600);
const LAST_ANSWER: Duration = Duration::from_secs(1);
/// Connections of one address, all together and of one client.
const CONNECTIONS: usize = 256;
const CONNECTIONS_PER_CLIENT: usize = 64;

/// A socket that listens, or an address to go on trying.
#[derive(Debug)]
pub enum Listening {
    /// It listens.
    Bound(TcpListener),
    /// Somebody else has the address.
    Wanted(SocketAddr),
}

impl Listening {
    /// Tries to listen. With `hard_fail` an address that is taken is an error.
    ///
    /// # Errors
    /// Why the address cannot be had.
    pub async fn on(address: SocketAddr, hard_fail: bool) -> io::Result<Self> {
        match TcpListener::bind(address).await {
            Ok(listener) => Ok(Self::Bound(listener)),
            Err(error) if hard_fail => Err(error),
            Err(error) => {
                tracing::warn!(%address, error = %error, "cannot listen, trying again");
                Ok(Self::Wanted(address))
            }
        }
    }

    /// Serves until `token` is cancelled. A listener that fails is replaced.
    pub async fn serve(self, router: Router, token: CancellationToken) {
        let connections = Connections::new(CONNECTIONS, CONNECTIONS_PER_CLIENT);
        let (mut listener, address) = match self {
            Self::Bound(listener) => {
                let address = listener.local_addr();
                (Some(listener), address)
            }
            Self::Wanted(address) => (None, Ok(address)),
        };
        let tasks = TaskTracker::new();
        let serving = async {
            loop {
                if let Some(listener) = &listener {
                    let error = accept_all(listener, &router, &connections, &tasks, &token).await;
                    tracing::warn!(%error, "a server of the service proxy lost its socket and takes another");
                }
                // An address that cannot be told cannot be listened on again.
                let Ok(address) = address else { return };
                tokio::time::sleep(LISTEN_RETRY).await;
                listener = TcpListener::bind(address).await.ok();
            }
        };
        let _ = token.run_until_cancelled(serving).await;
        tasks.close();
        tasks.wait().await;
    }
}

/// Takes connections until the listener fails.
async fn accept_all(
    listener: &TcpListener,
    router: &Router,
    connections: &Arc<Connections>,
    tasks: &TaskTracker,
    token: &CancellationToken,
) -> io::Error {
    loop {
        match accept::next(listener).await {
            Ok((stream, client)) => {
                if let Some(permit) = connections.acquire(client.ip()) {
                    let answering = answer(stream, router.clone(), token.clone());
                    tasks.spawn(async move {
                        answering.await;
                        drop(permit);
                    });
                }
            }
            Err(error) => return error,
        }
    }
}

/// Answers one connection's requests, for a while.
async fn answer(stream: TcpStream, router: Router, token: CancellationToken) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    let service = TowerToHyperService::new(router);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // What a client does wrong is its own affair.
        _ = connection.as_mut() => return,
        () = token.cancelled() => {}
        () = tokio::time::sleep(CONNECTION_LIFE) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(LAST_ANSWER, connection).await;
}

#[derive(Debug)]
struct Shown {
    registry: Registry,
    /// The configuration in force, as JSON.
    config: String,
}

/// What the metrics address answers. `config` is the configuration in force.
pub fn metrics_router(metrics: &Metrics, config: &Value) -> Router {
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let config = json!({"kubeproxy.config.k8s.io": config}).to_string();
    Router::new()
        .route("/metrics", get(|State(shown): State<Arc<Shown>>| async move { shown.metrics() }))
        .route("/healthz", get(|| async { plain("ok") }))
        .route("/proxyMode", get(|| async { plain("nftables") }))
        .route("/configz", get(|State(shown): State<Arc<Shown>>| async move { shown.configz() }))
        .with_state(Arc::new(Shown { registry, config }))
}

impl Shown {
    fn metrics(&self) -> Response {
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => {
                ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
            }
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    }

    fn configz(&self) -> Response {
        ([(CONTENT_TYPE, "application/json")], self.config.clone()).into_response()
    }
}

fn plain(text: &'static str) -> Response {
    (
        [
            (CONTENT_TYPE, "text/plain; charset=utf-8"),
            ("x-content-type-options".parse().expect("a header's name"), "nosniff"),
        ],
        text,
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn request(address: SocketAddr, text: &[u8]) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(text).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        request(address, format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await
    }

    #[tokio::test]
    async fn says_what_it_is_asked_and_survives_garbage() {
        let listening = Listening::on((Ipv4Addr::LOCALHOST, 0).into(), true).await.unwrap();
        let Listening::Bound(listener) = &listening else { panic!("not bound") };
        let address = listener.local_addr().unwrap();
        let metrics = Metrics::default();
        metrics.healthz_answered(200);
        let token = CancellationToken::new();
        let server =
            tokio::spawn(listening.serve(metrics_router(&metrics, &json!({"mode": "nftables"})), token.clone()));
        for (path, expected) in [
            ("/metrics", "kubeproxy_proxy_healthz_total{code=\"200\"} 1"),
            ("/metrics", "kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 0"),
            ("/healthz", "\r\n\r\nok"),
            ("/proxyMode", "\r\n\r\nnftables"),
            ("/configz", "{\"kubeproxy.config.k8s.io\":{\"mode\":\"nftables\"}}"),
            ("/else", "404"),
        ] {
            let answer = get(address, path).await;
            assert!(answer.contains(expected), "{path}: {answer}");
        }
        for garbage in [&b"\xff\xff\r\n\r\n"[..], b"POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"] {
            assert!(!request(address, garbage).await.contains("200 OK"));
        }
        assert!(get(address, "/healthz").await.contains("ok"));
        token.cancel();
        server.await.unwrap();
    }

    /// A server on loopback.
    async fn serving() -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        let listening = Listening::on((Ipv4Addr::LOCALHOST, 0).into(), true).await.unwrap();
        let Listening::Bound(listener) = &listening else { panic!("not bound") };
        let (address, token) = (listener.local_addr().unwrap(), CancellationToken::new());
        let router = metrics_router(&Metrics::default(), &Value::Null);
        (address, token.clone(), tokio::spawn(listening.serve(router, token)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_or_half_a_request_is_let_go() {
        let (address, token, server) = serving().await;
        for started in ["", "GET /", "GET /healthz HTTP/1.1\r\nHost: x\r\n", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"]
        {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            stream.write_all(started.as_bytes()).await.unwrap();
            // Virtual time passes while everybody waits; a whole request is answered before.
            let mut answer = Vec::new();
            let ended = timeout(HEADER_TIMEOUT * 3, stream.read_to_end(&mut answer)).await;
            assert!(ended.is_ok(), "{started:?} is kept");
            assert_eq!(answer.starts_with(b"HTTP/1.1 200"), started.ends_with("\r\n\r\n"), "{started:?}");
        }
        token.cancel();
        server.await.unwrap();
    }

    #[tokio::test]
    async fn only_so_many_connections_are_kept() {
        let (address, token, server) = serving().await;
        let mut held = Vec::new();
        let keep_alive = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
        for _ in 0..CONNECTIONS_PER_CLIENT {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            stream.write_all(keep_alive).await.unwrap();
            assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
            held.push(stream);
        }
        let mut beyond = tokio::net::TcpStream::connect(address).await.unwrap();
        let closed = beyond.read(&mut [0; 1]).await;
        assert!(closed.is_err() || closed.unwrap() == 0);
        drop(held.pop());
        let again = async { while !get(address, "/healthz").await.contains("200 OK") {} };
        harness::time::within("a permit is free again", again).await.unwrap();
        token.cancel();
        server.await.unwrap();
        let mut last = held.pop().unwrap();
        assert_eq!(last.read(&mut [0; 1]).await.unwrap_or(0), 0, "what is idle ends with the server");
    }

    #[tokio::test(start_paused = true)]
    async fn a_taken_address_is_an_error_or_waited_for() {
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = holder.local_addr().unwrap();
        assert!(Listening::on(address, true).await.is_err());
        let listening = Listening::on(address, false).await.unwrap();
        assert!(matches!(listening, Listening::Wanted(_)));
        drop(holder);
        let token = CancellationToken::new();
        let router = metrics_router(&Metrics::default(), &Value::Null);
        let server = tokio::spawn(listening.serve(router, token.clone()));
        let served = async {
            while tokio::net::TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), served).await.unwrap();
        token.cancel();
        server.await.unwrap();
    }
}

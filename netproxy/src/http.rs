//! The proxy's listening sockets, and what its metrics address answers: `/metrics`, `/healthz`,
//! `/configz`, `/proxyMode`. What health means is in [`crate::healthz`].

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// How long to wait before trying to listen again, as upstream.
const LISTEN_RETRY: Duration = Duration::from_secs(5);

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

    /// Serves until `token` is cancelled.
    pub async fn serve(self, router: Router, token: CancellationToken) {
        let listener = match self {
            Self::Bound(listener) => listener,
            Self::Wanted(address) => match bind_later(address, &token).await {
                Some(listener) => listener,
                None => return,
            },
        };
        let ended = axum::serve(listener, router).with_graceful_shutdown(token.cancelled_owned()).await;
        if let Err(error) = ended {
            tracing::warn!(error = %error, "a server of the service proxy ended");
        }
    }
}

async fn bind_later(address: SocketAddr, token: &CancellationToken) -> Option<TcpListener> {
    loop {
        tokio::select! {
            () = token.cancelled() => return None,
            () = tokio::time::sleep(LISTEN_RETRY) => {}
        }
        if let Ok(listener) = TcpListener::bind(address).await {
            return Some(listener);
        }
    }
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
        stream.write_all(text).await.unwrap();
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

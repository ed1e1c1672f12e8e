//! HTTP health: the proxy's own (`/healthz`, `/livez`) and one small server per
//! `healthCheckNodePort`, which load balancers ask whether this node has endpoints.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use jiff::Timestamp;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::snapshot::ServiceName;

/// A change that waits longer than this makes the proxy unhealthy (upstream: twice its sync period).
const HEALTH_TIMEOUT_MS: i64 = 60_000;
/// How long to wait before trying to listen again.
const LISTEN_RETRY: Duration = Duration::from_secs(5);

/// What the health endpoints report; clones share it.
#[derive(Clone, Debug)]
pub struct Health {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Milliseconds since 1970 of the last successful sync.
    updated: AtomicI64,
    /// When the oldest change came that is not programmed yet; 0 for none.
    queued: AtomicI64,
    eligible: AtomicBool,
}

impl Health {
    /// Nothing synced yet: a change counts as queued from `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        let inner = Inner {
            updated: AtomicI64::new(0),
            queued: AtomicI64::new(now.as_millisecond()),
            eligible: AtomicBool::new(true),
        };
        Self { inner: Arc::new(inner) }
    }

    /// A change came.
    pub fn queued(&self, now: Timestamp) {
        let _ = self.inner.queued.compare_exchange(0, now.as_millisecond(), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// All changes are programmed.
    pub fn updated(&self, now: Timestamp) {
        self.inner.updated.store(now.as_millisecond(), Ordering::Relaxed);
        self.inner.queued.store(0, Ordering::Relaxed);
    }

    /// Whether load balancers may use this node: false while it is being removed.
    pub fn set_node_eligible(&self, eligible: bool) {
        self.inner.eligible.store(eligible, Ordering::Relaxed);
    }

    /// Whether no change has waited too long.
    #[must_use]
    pub fn healthy(&self, now: Timestamp) -> bool {
        let queued = self.inner.queued.load(Ordering::Relaxed);
        queued == 0 || now.as_millisecond() - queued < HEALTH_TIMEOUT_MS
    }

    fn report(&self, now: Timestamp, with_eligibility: bool) -> Response {
        let eligible = self.inner.eligible.load(Ordering::Relaxed);
        let healthy = self.healthy(now);
        // A healthy proxy with nothing to do is as good as one that just synced.
        let updated = Timestamp::from_millisecond(self.inner.updated.load(Ordering::Relaxed)).unwrap_or(now);
        let updated = if healthy { now } else { updated };
        let body = json!({
            "lastUpdated": updated.to_string(),
            "currentTime": now.to_string(),
            "nodeEligible": eligible,
        });
        let ok = healthy && (eligible || !with_eligibility);
        let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, [("X-Content-Type-Options", "nosniff")], axum::Json(body)).into_response()
    }
}

/// Serves `/healthz` and `/livez` until `token` is cancelled. An address that is taken is tried again.
pub async fn serve(address: SocketAddr, health: Health, token: CancellationToken) {
    let router = Router::new()
        .route("/healthz", get(|State(h): State<Health>| async move { h.report(Timestamp::now(), true) }))
        .route("/livez", get(|State(h): State<Health>| async move { h.report(Timestamp::now(), false) }))
        .with_state(health);
    serve_router(address, router, token).await;
}

async fn serve_router(address: SocketAddr, router: Router, token: CancellationToken) {
    let Some(listener) = listen(address, &token).await else { return };
    let ended = axum::serve(listener, router).with_graceful_shutdown(token.cancelled_owned()).await;
    if let Err(error) = ended {
        tracing::warn!(%address, error = %error, "health server ended");
    }
}

async fn listen(address: SocketAddr, token: &CancellationToken) -> Option<TcpListener> {
    let mut warned = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return Some(listener),
            Err(error) if !warned => {
                tracing::warn!(%address, error = %error, "cannot listen for health checks, trying again");
                warned = true;
            }
            Err(_) => {}
        }
        tokio::select! {
            () = token.cancelled() => return None,
            () = tokio::time::sleep(LISTEN_RETRY) => {}
        }
    }
}

/// What a load balancer asks about one Service.
#[derive(Debug)]
struct ServiceHealth {
    name: ServiceName,
    local_endpoints: AtomicUsize,
    proxy: Health,
}

impl ServiceHealth {
    fn report(&self) -> Response {
        let count = self.local_endpoints.load(Ordering::Relaxed);
        let proxy_healthy = self.proxy.healthy(Timestamp::now());
        let ok = count > 0 && proxy_healthy;
        let body = json!({
            "service": { "namespace": &*self.name.namespace, "name": &*self.name.name },
            "localEndpoints": count,
            "serviceProxyHealthy": proxy_healthy,
        });
        let weight = HeaderName::from_static("x-load-balancing-endpoint-weight");
        let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, [(weight, count.to_string())], axum::Json(body)).into_response()
    }
}

#[derive(Debug)]
struct Server {
    port: u16,
    health: Arc<ServiceHealth>,
    _stop: DropGuard,
}

/// The servers of all health check node ports.
#[derive(Debug)]
pub struct HealthCheckNodePorts {
    proxy: Health,
    servers: BTreeMap<ServiceName, Server>,
}

impl HealthCheckNodePorts {
    /// No servers yet.
    #[must_use]
    pub fn new(proxy: Health) -> Self {
        Self { proxy, servers: BTreeMap::new() }
    }

    /// Takes in how a Service looks now: its port (0 for none) and its ready endpoints on this node.
    /// Servers start and stop accordingly. Needs a tokio runtime.
    pub fn update(&mut self, name: &ServiceName, port: u16, local_endpoints: usize) {
        if self.servers.get(name).is_some_and(|server| server.port != port) {
            self.servers.remove(name);
        }
        if port == 0 {
            return;
        }
        let server = self.servers.entry(name.clone()).or_insert_with(|| start(name, port, self.proxy.clone()));
        server.health.local_endpoints.store(local_endpoints, Ordering::Relaxed);
    }
}

fn start(name: &ServiceName, port: u16, proxy: Health) -> Server {
    let token = CancellationToken::new();
    let health = Arc::new(ServiceHealth { name: name.clone(), local_endpoints: AtomicUsize::new(0), proxy });
    let router = Router::new()
        .fallback(any(|State(h): State<Arc<ServiceHealth>>| async move { h.report() }))
        .with_state(Arc::clone(&health));
    tokio::spawn(serve_router(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), router, token.clone()));
    Server { port, health, _stop: token.drop_guard() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn is_unhealthy_when_a_change_waits_too_long() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let health = Health::new(at(1000));
        assert!(health.healthy(at(1059)));
        assert!(!health.healthy(at(1060)), "the first sync never came");
        health.updated(at(1061));
        assert!(health.healthy(at(9999)), "nothing waits");
        health.queued(at(10_000));
        health.queued(at(10_050));
        assert!(!health.healthy(at(10_061)), "the oldest change counts");
        assert_eq!(health.report(at(10_061), true).status(), StatusCode::SERVICE_UNAVAILABLE);
        health.updated(at(10_062));
        health.set_node_eligible(false);
        assert_eq!(health.report(at(10_063), true).status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(health.report(at(10_063), false).status(), StatusCode::OK);
    }

    #[test]
    fn service_health_counts_local_endpoints() {
        let name = ServiceName { namespace: "ns".into(), name: "svc".into() };
        let proxy = Health::new(Timestamp::now());
        let health = ServiceHealth { name, local_endpoints: AtomicUsize::new(0), proxy };
        assert_eq!(health.report().status(), StatusCode::SERVICE_UNAVAILABLE);
        health.local_endpoints.store(2, Ordering::Relaxed);
        let response = health.report();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["x-load-balancing-endpoint-weight"], "2");
    }
}

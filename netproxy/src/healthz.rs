//! HTTP health: the proxy's own (`/healthz`, `/livez`) and one small server per
//! `healthCheckNodePort`, which load balancers ask whether this node has endpoints.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::X_CONTENT_TYPE_OPTIONS;
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use jiff::Timestamp;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::http::Listening;
use crate::metrics::Metrics;
use crate::services::NodePortAddresses;
use crate::snapshot::ServiceName;

/// What the health endpoints report; clones share it.
#[derive(Clone, Debug)]
pub struct Health {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Milliseconds since 1970 of the last successful sync.
    updated: AtomicI64,
    /// When the oldest change came that is not programmed yet, by a clock that nobody sets.
    queued: Mutex<Option<Instant>>,
    eligible: AtomicBool,
    /// How long a change may wait.
    timeout: Duration,
}

impl Health {
    /// Nothing synced yet: a change counts as queued from `now`. One that waits for `timeout`
    /// (upstream: twice the sync period) makes the proxy unhealthy.
    #[must_use]
    pub fn new(now: Instant, timeout: Duration) -> Self {
        let (updated, queued, eligible) = (AtomicI64::new(0), Mutex::new(Some(now)), AtomicBool::new(true));
        Self { inner: Arc::new(Inner { updated, queued, eligible, timeout }) }
    }

    fn oldest(&self) -> MutexGuard<'_, Option<Instant>> {
        self.inner.queued.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A change came.
    pub fn queued(&self, now: Instant) {
        self.oldest().get_or_insert(now);
    }

    /// All changes are programmed.
    pub fn updated(&self, now: Timestamp) {
        self.inner.updated.store(now.as_millisecond(), Ordering::Relaxed);
        *self.oldest() = None;
    }

    /// Whether load balancers may use this node: false while it is being removed.
    pub fn set_node_eligible(&self, eligible: bool) {
        self.inner.eligible.store(eligible, Ordering::Relaxed);
    }

    /// Whether no change has waited too long.
    #[must_use]
    pub fn healthy(&self, now: Instant) -> bool {
        self.oldest().is_none_or(|queued| now.saturating_duration_since(queued) < self.inner.timeout)
    }

    fn report(&self, at: Instant, now: Timestamp, with_eligibility: bool) -> Response {
        let eligible = self.inner.eligible.load(Ordering::Relaxed);
        let healthy = self.healthy(at);
        // A healthy proxy with nothing to do is as good as one that just synced.
        let updated = Timestamp::from_millisecond(self.inner.updated.load(Ordering::Relaxed)).unwrap_or(now);
        let updated = if healthy { now } else { updated };
        let mut body = json!({ "lastUpdated": updated.to_string(), "currentTime": now.to_string() });
        if with_eligibility {
            body["nodeEligible"] = eligible.into();
        }
        let ok = healthy && (eligible || !with_eligibility);
        let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, [("X-Content-Type-Options", "nosniff")], axum::Json(body)).into_response()
    }
}

/// `/healthz` and `/livez`. The former also says whether load balancers may use this node.
pub fn router(health: Health, metrics: Metrics) -> Router {
    type Both = State<(Health, Metrics)>;
    let healthz = |State((health, metrics)): Both| async move {
        let answer = health.report(Instant::now(), Timestamp::now(), true);
        metrics.healthz_answered(answer.status().as_u16());
        answer
    };
    let livez = |State((health, metrics)): Both| async move {
        let answer = health.report(Instant::now(), Timestamp::now(), false);
        metrics.livez_answered(answer.status().as_u16());
        answer
    };
    Router::new().route("/healthz", get(healthz)).route("/livez", get(livez)).with_state((health, metrics))
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
        let proxy_healthy = self.proxy.healthy(Instant::now());
        let ok = count > 0 && proxy_healthy;
        let body = json!({
            "service": { "namespace": &*self.name.namespace, "name": &*self.name.name },
            "localEndpoints": count,
            "serviceProxyHealthy": proxy_healthy,
        });
        let weight = HeaderName::from_static("x-load-balancing-endpoint-weight");
        let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let headers = [(weight, count.to_string()), (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned())];
        (status, headers, axum::Json(body)).into_response()
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
    addresses: NodePortAddresses,
    servers: BTreeMap<ServiceName, Server>,
}

impl HealthCheckNodePorts {
    /// No servers yet. They listen where NodePorts are served.
    #[must_use]
    pub fn new(proxy: Health, addresses: NodePortAddresses) -> Self {
        Self { proxy, addresses, servers: BTreeMap::new() }
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
        let server =
            self.servers.entry(name.clone()).or_insert_with(|| start(name, port, &self.addresses, self.proxy.clone()));
        server.health.local_endpoints.store(local_endpoints, Ordering::Relaxed);
    }
}

fn start(name: &ServiceName, port: u16, addresses: &NodePortAddresses, proxy: Health) -> Server {
    let token = CancellationToken::new();
    let health = Arc::new(ServiceHealth { name: name.clone(), local_endpoints: AtomicUsize::new(0), proxy });
    let router = Router::new()
        .fallback(any(|State(h): State<Arc<ServiceHealth>>| async move { h.report() }))
        .with_state(Arc::clone(&health));
    for ip in listen_on(addresses, &crate::links::local_addresses()) {
        let (router, token) = (router.clone(), token.clone());
        tokio::spawn(async move {
            // Never an error: a port that is taken is tried again.
            if let Ok(listening) = Listening::on(SocketAddr::from((ip, port)), false).await {
                listening.serve(router, token).await;
            }
        });
    }
    Server { port, health, _stop: token.drop_guard() }
}

/// The addresses to listen on, of those this node has.
fn listen_on(addresses: &NodePortAddresses, local: &[Ipv4Addr]) -> Vec<Ipv4Addr> {
    match addresses {
        NodePortAddresses::AllLocal => vec![Ipv4Addr::UNSPECIFIED],
        NodePortAddresses::Within(nets) => {
            let served = |ip: &&Ipv4Addr| !ip.is_loopback() && nets.iter().any(|net| net.contains(**ip));
            local.iter().filter(served).copied().collect()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn is_unhealthy_when_a_change_waits_too_long() {
        let (began, now) = (Instant::now(), Timestamp::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        let health = Health::new(at(1000), Duration::from_secs(60));
        assert!(health.healthy(at(1059)));
        assert!(!health.healthy(at(1060)), "the first sync never came");
        health.updated(now);
        assert!(health.healthy(at(9999)), "nothing waits");
        health.queued(at(10_000));
        health.queued(at(10_050));
        assert!(!health.healthy(at(10_061)), "the oldest change counts");
        assert_eq!(health.report(at(10_061), now, true).status(), StatusCode::SERVICE_UNAVAILABLE);
        health.updated(now);
        health.set_node_eligible(false);
        assert_eq!(health.report(at(10_063), now, true).status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(health.report(at(10_063), now, false).status(), StatusCode::OK);
    }

    #[tokio::test(start_paused = true)]
    async fn service_health_counts_local_endpoints() {
        let name = ServiceName { namespace: "ns".into(), name: "svc".into() };
        let proxy = Health::new(Instant::now(), Duration::from_secs(60));
        let health = ServiceHealth { name, local_endpoints: AtomicUsize::new(0), proxy };
        assert_eq!(health.report().status(), StatusCode::SERVICE_UNAVAILABLE);
        health.local_endpoints.store(2, Ordering::Relaxed);
        let response = health.report();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["x-load-balancing-endpoint-weight"], "2");
    }

    /// What waits gets older by what passes, whatever anybody sets the machine's clock to.
    #[tokio::test(start_paused = true)]
    async fn the_wall_clock_makes_nobody_healthy() {
        let name = ServiceName { namespace: "ns".into(), name: "svc".into() };
        let proxy = Health::new(Instant::now(), Duration::from_secs(60));
        let health = ServiceHealth { name, local_endpoints: AtomicUsize::new(2), proxy };
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!(health.report().status(), StatusCode::OK);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(health.report().status(), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn health_checks_listen_where_node_ports_are_served() {
        let local: Vec<Ipv4Addr> =
            ["127.0.0.1", "192.0.2.1", "198.51.100.1"].iter().map(|a| a.parse().unwrap()).collect();
        assert_eq!(listen_on(&NodePortAddresses::AllLocal, &local), [Ipv4Addr::UNSPECIFIED]);
        let within = |net: &str| listen_on(&NodePortAddresses::Within(vec![net.parse().unwrap()]), &local);
        assert_eq!(within("192.0.2.0/24"), [local[1]]);
        assert_eq!(within("0.0.0.0/0"), local[1..], "loopback is never served");
        assert_eq!(within("10.0.0.0/8"), [] as [Ipv4Addr; 0]);
    }
}

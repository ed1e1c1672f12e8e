//! What the server counts, under upstream's names.

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::request_info::RequestInfo;

/// Labels of `apiserver_request_total`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Requested {
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    code: u16,
}

/// Labels of `apiserver_request_duration_seconds`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Timed {
    verb: String,
    group: String,
    resource: String,
    subresource: String,
}

/// Labels of `apiserver_current_inflight_requests`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Inflight {
    request_kind: &'static str,
}

type Durations = Family<Timed, Histogram, fn() -> Histogram>;

/// The server's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Requested, Counter>,
    durations: Durations,
    inflight: Family<Inflight, Gauge<i64, AtomicI64>>,
    long_running: Gauge<i64, AtomicI64>,
    panics: Counter,
}

const BUCKETS: [f64; 10] = [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 2.0, 8.0, 30.0];

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let requests = Family::default();
        let durations = Durations::new_with_constructor(|| Histogram::new(BUCKETS));
        let inflight = Family::default();
        let long_running = Gauge::default();
        let panics = Counter::default();
        registry.register("apiserver_request", "Counter of apiserver requests", requests.clone());
        registry.register(
            "apiserver_request_duration_seconds",
            "Response latency distribution in seconds",
            durations.clone(),
        );
        registry.register("apiserver_current_inflight_requests", "Requests being handled, by kind", inflight.clone());
        registry.register("apiserver_longrunning_requests", "Open watches, tunnels and proxies", long_running.clone());
        registry.register("apiserver_handler_panics", "Requests that ended in a panic", panics.clone());
        Self { registry, requests, durations, inflight, long_running, panics }
    }
}

/// Counts a request as in flight until dropped.
#[derive(Debug)]
pub struct InFlight(Gauge<i64, AtomicI64>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// Notes a request's start.
    pub fn begin(&self, info: &RequestInfo, long: bool) -> InFlight {
        let gauge = if long {
            self.long_running.clone()
        } else {
            let mutating = matches!(info.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection");
            let request_kind = if mutating { "mutating" } else { "readOnly" };
            self.inflight.get_or_create(&Inflight { request_kind }).clone()
        };
        gauge.inc();
        InFlight(gauge)
    }

    /// Notes an answer. Only paths that name a resource the server has are counted by it, so that clients cannot make
    /// up labels.
    pub fn end(&self, info: &RequestInfo, known: bool, code: u16, took: Duration) {
        let text = |value: &str| if known { value.to_owned() } else { String::new() };
        let verb = if known || matches!(info.verb.as_str(), "get" | "post" | "head") {
            info.verb.to_ascii_uppercase()
        } else {
            "OTHER".to_owned()
        };
        let (group, resource, subresource) = (text(&info.group), text(&info.resource), text(&info.subresource));
        let requested = Requested {
            verb: verb.clone(),
            group: group.clone(),
            version: text(&info.version),
            resource: resource.clone(),
            subresource: subresource.clone(),
            code,
        };
        self.requests.get_or_create(&requested).inc();
        if info.verb != "watch" {
            let timed = Timed { verb, group, resource, subresource };
            self.durations.get_or_create(&timed).observe(took.as_secs_f64());
        }
    }

    /// Notes a panic in a handler.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// The exposition text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

//! What the server counts, under upstream's names.

use std::hash::{Hash, Hasher};
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use self::admission::Metrics as Admission;
use self::webhooks::Metrics as Webhooks;
use super::request_info::RequestInfo;
use scheme::{Kind, Scheme};

pub mod admission;
pub mod webhooks;

/// The verbs that are counted by name, as upstream writes them.
const VERBS: [(&str, &str); 14] = [
    ("get", "GET"),
    ("list", "LIST"),
    ("watch", "WATCH"),
    ("create", "POST"),
    ("update", "PUT"),
    ("patch", "PATCH"),
    ("delete", "DELETE"),
    ("deletecollection", "DELETECOLLECTION"),
    ("post", "POST"),
    ("put", "PUT"),
    ("head", "GET"),
    ("options", "OPTIONS"),
    ("connect", "CONNECT"),
    ("apply", "APPLY"),
];

/// What requests are counted by. Every value comes from the kinds served or from a list here, never from the request:
/// whoever may send requests, even refused ones, could otherwise fill the memory with labels.
#[derive(Debug, Clone)]
pub struct Labels {
    verb: &'static str,
    of: Of,
    subresource: &'static str,
    scope: &'static str,
}

impl Labels {
    /// The labels of a request; all empty but the verb when it names no resource of the scheme.
    pub fn new(scheme: &Scheme, info: &RequestInfo) -> Self {
        let verb = VERBS.iter().find(|(verb, _)| *verb == info.verb).map_or("OTHER", |(_, shown)| shown);
        let kind = if info.is_resource { scheme.by_gvr(&info.group, &info.version, &info.resource) } else { None };
        let Some(kind) = kind else {
            return Self { verb, of: Of(None), subresource: "", scope: "" };
        };
        let scope = match (info.name.is_empty(), info.namespace.is_empty()) {
            (false, _) => "resource",
            (true, false) => "namespace",
            (true, true) => "cluster",
        };
        let subresource = kind.subresource(&info.subresource).map_or("", |known| known.name);
        Self { verb, of: Of(Some(kind.clone())), subresource, scope }
    }

    fn mutates(&self) -> bool {
        matches!(self.verb, "POST" | "PUT" | "PATCH" | "DELETE" | "DELETECOLLECTION" | "APPLY")
    }
}

/// The resource a request is about: its kind's names, which another kind of the same names shares.
#[derive(Debug, Clone)]
struct Of(Option<Arc<Kind>>);

impl Of {
    fn names(&self) -> [&str; 3] {
        self.0.as_ref().map_or([""; 3], |kind| [&kind.group, &kind.version, &kind.plural])
    }

    fn is_served(&self, scheme: &Scheme) -> bool {
        self.0.as_ref().is_none_or(|kind| scheme.by_gvr(&kind.group, &kind.version, &kind.plural).is_some())
    }
}

impl PartialEq for Of {
    fn eq(&self, other: &Self) -> bool {
        self.names() == other.names()
    }
}

impl Eq for Of {}

impl Hash for Of {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.names().hash(state);
    }
}

impl EncodeLabelSet for Of {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        let [group, version, resource] = self.names();
        [("group", group), ("version", version), ("resource", resource)].encode(encoder)
    }
}

/// Labels of `apiserver_request_total`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Requested {
    verb: &'static str,
    dry_run: &'static str,
    #[prometheus(flatten)]
    of: Of,
    subresource: &'static str,
    scope: &'static str,
    component: &'static str,
    code: u16,
}

/// Labels of `apiserver_request_duration_seconds`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Timed {
    verb: &'static str,
    dry_run: &'static str,
    #[prometheus(flatten)]
    of: Of,
    subresource: &'static str,
    scope: &'static str,
    component: &'static str,
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
    task_panics: Counter,
    webhooks: Webhooks,
    admission: Admission,
    /// The labels of all requests so far, to forget those whose kind went.
    known: Mutex<Vec<(Requested, Timed)>>,
}

const BUCKETS: [f64; 10] = [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 2.0, 8.0, 30.0];

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let requests = Family::default();
        let durations = Durations::new_with_constructor(|| Histogram::new(BUCKETS));
        let inflight = Family::default();
        let long_running = Gauge::default();
        let (panics, task_panics) = (Counter::default(), Counter::default());
        registry.register("apiserver_request", "Counter of apiserver requests", requests.clone());
        registry.register(
            "apiserver_request_duration_seconds",
            "Response latency distribution in seconds",
            durations.clone(),
        );
        registry.register("apiserver_current_inflight_requests", "Requests being handled, by kind", inflight.clone());
        registry.register("apiserver_longrunning_requests", "Open watches, tunnels and proxies", long_running.clone());
        registry.register("apiserver_handler_panics", "Requests that ended in a panic", panics.clone());
        registry.register(
            "apiserver_task_panics",
            "Runs of a background task that ended in a panic",
            task_panics.clone(),
        );
        let (webhooks, known) = (Webhooks::registered(&mut registry), Mutex::default());
        let admission = Admission::registered(&mut registry);
        Self { registry, requests, durations, inflight, long_running, panics, task_panics, webhooks, admission, known }
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
    /// What is counted of admission plugins.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// What is counted of webhooks.
    pub fn webhooks(&self) -> &Webhooks {
        &self.webhooks
    }

    /// Notes a request's start.
    pub fn begin(&self, labels: &Labels, long: bool) -> InFlight {
        let gauge = if long {
            self.long_running.clone()
        } else {
            let request_kind = if labels.mutates() { "mutating" } else { "readOnly" };
            self.inflight.get_or_create(&Inflight { request_kind }).clone()
        };
        gauge.inc();
        InFlight(gauge)
    }

    /// Notes an answer.
    pub fn end(&self, labels: Labels, code: u16, took: Duration) {
        let Labels { verb, of, subresource, scope } = labels;
        let (dry_run, component) = ("", "apiserver");
        // A proxied answer's code is whatever its server likes.
        let code = if (100..600).contains(&code) { code } else { 0 };
        let timed = Timed { verb, dry_run, of: of.clone(), subresource, scope, component };
        let requested = Requested { verb, dry_run, of, subresource, scope, component, code };
        if self.requests.get(&requested).is_none() {
            self.known.lock().unwrap_or_else(PoisonError::into_inner).push((requested.clone(), timed.clone()));
        }
        self.requests.get_or_create(&requested).inc();
        if verb != "WATCH" {
            self.durations.get_or_create(&timed).observe(took.as_secs_f64());
        }
    }

    /// Forgets what was counted for kinds that are served no longer: as they come and go, there would be no end of it.
    fn forget(&self, scheme: &Scheme) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(requested, timed)| {
            let stays = requested.of.is_served(scheme);
            if !stays {
                self.requests.remove(requested);
                self.durations.remove(timed);
            }
            stays
        });
    }

    /// Notes a panic in a handler.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// Counts panics of background tasks.
    pub fn task_panics(&self) -> Counter {
        self.task_panics.clone()
    }

    /// The exposition text, of the kinds that are served.
    pub fn encode(&self, scheme: &Scheme) -> String {
        self.forget(scheme);
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::request_info::{Query, parse};
    use http::Method;

    /// A path cannot make a label, whatever it says and whoever sends it.
    #[test]
    fn labels_are_not_made_of_paths() {
        let metrics = Metrics::default();
        for n in 0..5_000 {
            let method = Method::from_bytes(format!("M{n}").as_bytes()).unwrap();
            for path in [
                format!("/api/v1/namespaces/a/pods/b/x{n}"),
                format!("/api/v1/namespaces/n{n}/pods/p{n}"),
                format!("/apis/g{n}/v{n}/r{n}"),
                format!("/x{n}"),
            ] {
                for method in [&Method::GET, &method] {
                    let info = parse(method, &path, &Query::parse(None));
                    let labels = Labels::new(scheme::builtin(), &info);
                    drop(metrics.begin(&labels, false));
                    metrics.end(labels, 401, Duration::ZERO);
                }
            }
        }
        let text = metrics.encode(scheme::builtin());
        assert!(text.lines().count() < 200, "{}", text.lines().count());
        assert!(text.contains("resource=\"pods\"") && !text.contains("x77"), "{text}");
    }

    #[test]
    fn labels_are_upstreams() {
        let of = |method: &Method, path: &str| {
            let l = Labels::new(scheme::builtin(), &parse(method, path, &Query::parse(None)));
            let [group, version, resource] = l.of.names();
            [l.verb, group, version, resource, l.subresource, l.scope].join(" ")
        };
        assert_eq!(of(&Method::GET, "/apis/apps/v1/namespaces/a/deployments"), "LIST apps v1 deployments  namespace");
        assert_eq!(of(&Method::PUT, "/api/v1/namespaces/a/pods/b/status"), "PUT  v1 pods status resource");
        assert_eq!(of(&Method::POST, "/api/v1/nodes"), "POST  v1 nodes  cluster");
        assert_eq!(of(&Method::GET, "/healthz"), "GET     ");
    }
}

//! What is counted of admission webhooks (k8s.io/apiserver/pkg/admission/metrics/metrics.go).

use std::collections::HashSet;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::admission::Operation;

/// Webhooks that are counted by name. Who may configure webhooks could else fill the memory with names of such ones as
/// came and went; those beyond are counted together.
const NAMES: usize = 500;
const BUCKETS: [f64; 8] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];
/// Codes beyond are counted as this one.
const MAX_CODE: u16 = 600;

/// Which of both phases a webhook is asked in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It may change the object.
    Mutating,
    /// It judges it.
    Validating,
}

impl Phase {
    /// Upstream's word.
    fn word(self) -> &'static str {
        match self {
            Self::Mutating => "admit",
            Self::Validating => "validating",
        }
    }
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// The webhook could not be called.
    Calling,
    /// What it answered could not be made use of.
    Internal,
    /// It said so.
    Denied,
}

/// How a call ended.
#[derive(Debug, Clone, Copy)]
pub struct Called {
    /// In which phase.
    pub phase: Phase,
    /// Of which operation.
    pub operation: Operation,
    /// HTTP's code of the answer, or of the failure.
    pub code: u16,
    /// Whether and why the request was refused.
    pub rejected: Option<Rejection>,
    /// How long it took.
    pub took: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Name(Arc<str>);

impl EncodeLabelValue for Name {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&&*self.0, encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Timed {
    name: Name,
    r#type: &'static str,
    operation: &'static str,
    rejected: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Requested {
    name: Name,
    r#type: &'static str,
    operation: &'static str,
    code: u16,
    rejected: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Rejected {
    name: Name,
    r#type: &'static str,
    operation: &'static str,
    error_type: &'static str,
    rejection_code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailedOpen {
    name: Name,
    r#type: &'static str,
}

/// A counter under the name that it is given: the encoder adds `_total` to a [`Counter`], which upstream's has not.
type Count = Gauge<i64, AtomicI64>;

/// The counters, shared by all who hold them.
#[derive(Debug, Clone)]
pub struct Metrics {
    durations: Family<Timed, Histogram, fn() -> Histogram>,
    requests: Family<Requested, Counter>,
    rejections: Family<Rejected, Count>,
    failed_open: Family<FailedOpen, Count>,
    names: Arc<Mutex<HashSet<Arc<str>>>>,
}

impl Metrics {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let metrics = Self {
            durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            requests: Family::default(),
            rejections: Family::default(),
            failed_open: Family::default(),
            names: Arc::default(),
        };
        registry.register(
            "apiserver_admission_webhook_admission_duration_seconds",
            "Latency of admission webhooks in seconds, by name, type and operation",
            metrics.durations.clone(),
        );
        // The encoder adds `_total`.
        registry.register(
            "apiserver_admission_webhook_request",
            "Calls of admission webhooks, by name, type, operation and code",
            metrics.requests.clone(),
        );
        registry.register(
            "apiserver_admission_webhook_rejection_count",
            "Requests that admission webhooks or their failures refused",
            metrics.rejections.clone(),
        );
        registry.register(
            "apiserver_admission_webhook_fail_open_count",
            "Failures of admission webhooks that were ignored",
            metrics.failed_open.clone(),
        );
        metrics
    }

    fn name(&self, name: &str) -> Name {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = names.get(name) {
            return Name(known.clone());
        }
        let name: Arc<str> = if names.len() < NAMES { name.into() } else { "other".into() };
        if names.len() < NAMES {
            names.insert(name.clone());
        }
        Name(name)
    }

    /// Notes a call.
    pub fn called(&self, name: &str, called: Called) {
        let (name, r#type, operation) = (self.name(name), called.phase.word(), called.operation.as_str());
        let code = called.code.min(MAX_CODE);
        let rejected = if called.rejected.is_some() { "true" } else { "false" };
        let timed = Timed { name: name.clone(), r#type, operation, rejected };
        self.durations.get_or_create(&timed).observe(called.took.as_secs_f64());
        self.requests.get_or_create(&Requested { name: name.clone(), r#type, operation, code, rejected }).inc();
        if let Some(why) = called.rejected {
            let error_type = match why {
                Rejection::Calling => "calling_webhook_error",
                Rejection::Internal => "apiserver_internal_error",
                Rejection::Denied => "no_error",
            };
            self.rejections
                .get_or_create(&Rejected { name, r#type, operation, error_type, rejection_code: code })
                .inc();
        }
    }

    /// Notes a failure that was ignored.
    pub fn failed_open(&self, name: &str, phase: Phase) {
        self.failed_open.get_or_create(&FailedOpen { name: self.name(name), r#type: phase.word() }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_upstreams_and_bounded() {
        let mut registry = Registry::default();
        let metrics = Metrics::registered(&mut registry);
        let called = Called {
            phase: Phase::Mutating,
            operation: Operation::Create,
            code: 700,
            rejected: Some(Rejection::Denied),
            took: Duration::from_millis(30),
        };
        metrics.called("a.b.c", called);
        metrics.failed_open("a.b.c", Phase::Validating);
        for n in 0..2 * NAMES {
            metrics.failed_open(&format!("n{n}"), Phase::Mutating);
        }
        let mut text = String::new();
        assert!(prometheus_client::encoding::text::encode(&mut text, &registry).is_ok());
        for line in [
            "apiserver_admission_webhook_request_total{name=\"a.b.c\",type=\"admit\",operation=\"CREATE\",code=\"600\",rejected=\"true\"} 1",
            "apiserver_admission_webhook_admission_duration_seconds_count{name=\"a.b.c\",type=\"admit\",operation=\"CREATE\",rejected=\"true\"} 1",
            "apiserver_admission_webhook_rejection_count{name=\"a.b.c\",type=\"admit\",operation=\"CREATE\",error_type=\"no_error\",rejection_code=\"600\"} 1",
            "apiserver_admission_webhook_fail_open_count{name=\"a.b.c\",type=\"validating\"} 1",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(text.lines().count() < NAMES + 50);
    }
}

//! How long admission plugins take (k8s.io/apiserver/pkg/admission/metrics/metrics.go). Plugins, operations and phases
//! are few, and each row is made when there is something to count.

use std::sync::OnceLock;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::admission::Operation;

const BUCKETS: [f64; 6] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
const OPERATIONS: [Operation; 4] = [Operation::Create, Operation::Update, Operation::Delete, Operation::Connect];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    name: &'static str,
    operation: &'static str,
    rejected: &'static str,
    r#type: &'static str,
}

/// The histograms, shared by all who hold them.
#[derive(Debug, Clone)]
pub struct Metrics(Family<Labels, Histogram, fn() -> Histogram>);

/// Those of one phase of one plugin, at hand without a search.
#[derive(Debug)]
pub struct Timing {
    metrics: Metrics,
    name: &'static str,
    phase: &'static str,
    /// By operation, admitted and refused.
    rows: [[OnceLock<Histogram>; 2]; OPERATIONS.len()],
}

impl Metrics {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let durations: Family<_, _, fn() -> _> = Family::new_with_constructor(|| Histogram::new(BUCKETS));
        registry.register(
            "apiserver_admission_controller_admission_duration_seconds",
            "Latency of admission plugins in seconds, by name, operation and type",
            durations.clone(),
        );
        Self(durations)
    }

    /// For a plugin's phase, `admit` or `validate`.
    pub fn of(&self, name: &'static str, phase: &'static str) -> Timing {
        Timing { metrics: self.clone(), name, phase, rows: Default::default() }
    }
}

impl Timing {
    /// Notes an answer.
    pub fn answered(&self, operation: Operation, rejected: bool, took: Duration) {
        let Some(at) = OPERATIONS.iter().position(|known| *known == operation) else { return };
        let row = self.rows[at][usize::from(rejected)].get_or_init(|| {
            let (name, r#type) = (self.name, self.phase);
            let rejected = if rejected { "true" } else { "false" };
            self.metrics.0.get_or_create(&Labels { name, operation: operation.as_str(), rejected, r#type }).clone()
        });
        row.observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_upstreams() {
        let mut registry = Registry::default();
        let timing = Metrics::registered(&mut registry).of("LimitRanger", "admit");
        timing.answered(Operation::Create, false, Duration::from_millis(30));
        timing.answered(Operation::Create, false, Duration::from_millis(3));
        let mut text = String::new();
        assert!(prometheus_client::encoding::text::encode(&mut text, &registry).is_ok());
        let row = "apiserver_admission_controller_admission_duration_seconds_count{name=\"LimitRanger\",operation=\"CREATE\",\
                   rejected=\"false\",type=\"admit\"} 2";
        assert!(text.contains(row), "{text}");
        assert_eq!(text.matches("_count").count(), 1, "{text}");
    }
}

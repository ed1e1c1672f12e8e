//! From single probe results to what counts. Pure.

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;

use crate::contract::ProbeOutcome;

/// Which of a container's probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProbeKind {
    Startup,
    Readiness,
    Liveness,
}

impl ProbeKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Startup, Self::Readiness, Self::Liveness];

    /// The word events begin with.
    pub fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }

    /// Whether a failure ends the container, and with it the probing.
    pub fn is_fatal(self) -> bool {
        self != Self::Readiness
    }
}

/// A probe's numbers with upstream's defaults for what is unset or senseless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    pub initial_delay: Duration,
    pub period: Duration,
    pub timeout: Duration,
    pub success_threshold: u32,
    pub failure_threshold: u32,
}

impl Timing {
    /// The numbers of `probe`.
    pub fn of(probe: &Probe) -> Self {
        let or = |value: Option<i32>, default: u32| {
            value.and_then(|v| u32::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default)
        };
        Self {
            initial_delay: Duration::from_secs(or(probe.initial_delay_seconds, 0).into()),
            period: Duration::from_secs(or(probe.period_seconds, 10).into()),
            timeout: Duration::from_secs(or(probe.timeout_seconds, 1).into()),
            success_threshold: or(probe.success_threshold, 1),
            failure_threshold: or(probe.failure_threshold, 3),
        }
    }
}

/// Counts equal results in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    outcome: ProbeOutcome,
    last: Option<bool>,
    run: u32,
}

impl Counter {
    /// A counter that stands at `outcome`.
    pub fn new(outcome: ProbeOutcome) -> Self {
        Self { outcome, last: None, run: 0 }
    }

    /// Takes one result; returns the outcome when it changed.
    pub fn record(&mut self, success: bool, timing: &Timing) -> Option<ProbeOutcome> {
        self.run = if self.last == Some(success) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(success);
        let (threshold, outcome) = if success {
            (timing.success_threshold, ProbeOutcome::Success)
        } else {
            (timing.failure_threshold, ProbeOutcome::Failure)
        };
        if self.run < threshold || self.outcome == outcome {
            return None;
        }
        self.outcome = outcome;
        Some(outcome)
    }
}

/// How long after `since_start` of its container a probe runs first. `jitter`
/// (0..1) spreads the probes of containers that an agent finds at its start.
pub fn first_delay(timing: &Timing, since_start: Duration, jitter: Option<f64>) -> Duration {
    let wait = timing.initial_delay.saturating_sub(since_start);
    wait + jitter.map_or(Duration::ZERO, |part| timing.period.mul_f64(part.clamp(0.0, 1.0)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn timing(success: u32, failure: u32) -> Timing {
        Timing { success_threshold: success, failure_threshold: failure, ..Timing::of(&Probe::default()) }
    }

    #[test]
    fn defaults_stand_in_for_nonsense() {
        let probe: Probe = serde_json::from_value(
            json!({"periodSeconds": -3, "timeoutSeconds": 0, "failureThreshold": 5, "initialDelaySeconds": 7}),
        )
        .unwrap();
        let expect = Timing {
            initial_delay: Duration::from_secs(7),
            period: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            success_threshold: 1,
            failure_threshold: 5,
        };
        assert_eq!(Timing::of(&probe), expect);
    }

    #[test]
    fn outcomes_change_at_thresholds() {
        let check = |start, success, failure, results: &str, expect: &str| {
            let (timing, mut counter, mut seen) = (timing(success, failure), Counter::new(start), String::new());
            for result in results.chars() {
                seen.push(match counter.record(result == '+', &timing) {
                    None => '.',
                    Some(ProbeOutcome::Success) => 'S',
                    Some(_) => 'F',
                });
            }
            assert_eq!(seen, expect, "{results}");
        };
        check(ProbeOutcome::Unknown, 1, 3, "+++---+", "S....FS");
        check(ProbeOutcome::Unknown, 1, 3, "---", "..F");
        check(ProbeOutcome::Unknown, 2, 1, "+-++", ".F.S");
        check(ProbeOutcome::Success, 1, 3, "--+---", ".....F");
        check(ProbeOutcome::Success, 1, 3, "--+--", ".....");
    }

    #[test]
    fn first_runs() {
        let mut t = timing(1, 3);
        t.initial_delay = Duration::from_secs(5);
        let s = Duration::from_secs;
        assert_eq!(first_delay(&t, s(0), None), s(5));
        assert_eq!(first_delay(&t, s(3), None), s(2));
        assert_eq!(first_delay(&t, s(60), Some(0.5)), s(5));
        assert_eq!(first_delay(&t, s(60), None), s(0));
    }

    proptest! {
        /// Whatever came before, a full run of equal results decides.
        #[test]
        fn a_full_run_decides(before in proptest::collection::vec(any::<bool>(), 0..30), last in any::<bool>(),
            success in 1u32..6, failure in 1u32..6) {
            let timing = timing(success, failure);
            let mut counter = Counter::new(ProbeOutcome::Unknown);
            for result in before {
                counter.record(result, &timing);
            }
            for _ in 0..success.max(failure) {
                counter.record(last, &timing);
            }
            let expect = if last { ProbeOutcome::Success } else { ProbeOutcome::Failure };
            prop_assert_eq!(counter.outcome, expect);
        }
    }
}

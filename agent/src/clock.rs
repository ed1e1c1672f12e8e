//! Clocks as values, so that tests with paused time see them move.

use std::sync::LazyLock;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// Where "now" comes from. Copies share one origin.
#[derive(Clone, Copy, Debug, Default)]
pub enum Clock {
    /// The machine's wall clock.
    #[default]
    System,
    /// A fixed wall time that advances with tokio's clock, paused or not.
    Tokio { origin: Timestamp, started: Instant },
}

impl Clock {
    /// A clock that stands at `origin` now and follows tokio's time.
    pub fn tokio(origin: Timestamp) -> Self {
        Self::Tokio { origin, started: Instant::now() }
    }

    /// What a clock shows that nobody sets, and that began with the first look at it. For what is only remembered:
    /// nothing else is told by it.
    pub fn steady(&self) -> Timestamp {
        static FIRST: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);
        let passed = match self {
            Self::System => FIRST.elapsed(),
            Self::Tokio { started, .. } => started.elapsed(),
        };
        moved(Timestamp::UNIX_EPOCH, passed)
    }

    /// The present time.
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => Timestamp::now(),
            Self::Tokio { origin, started } => moved(*origin, started.elapsed()),
        }
    }
}

fn moved(origin: Timestamp, passed: Duration) -> Timestamp {
    let passed = SignedDuration::try_from(passed).unwrap_or(SignedDuration::MAX);
    origin.saturating_add(passed).unwrap_or(Timestamp::MAX)
}

/// `at` cut to whole seconds, the resolution of `metav1.Time` on the wire.
pub fn to_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// A duration of whole seconds as Go prints it: `40s`, `1m20s`, `1h0m5s`.
pub fn go_duration(d: Duration) -> String {
    let s = d.as_secs();
    match (s / 3600, s / 60 % 60, s % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_prints_them() {
        let texts = [0, 40, 80, 300, 3605].map(|s| go_duration(Duration::from_secs(s)));
        assert_eq!(texts, ["0s", "40s", "1m20s", "5m0s", "1h0m5s"]);
    }
}

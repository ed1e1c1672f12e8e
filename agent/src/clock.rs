//! The wall clock as a value, so that tests with paused time see it move.

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

    /// The present time.
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => Timestamp::now(),
            Self::Tokio { origin, started } => {
                let passed = SignedDuration::try_from(started.elapsed()).unwrap_or(SignedDuration::MAX);
                origin.saturating_add(passed).unwrap_or(Timestamp::MAX)
            }
        }
    }
}

/// `at` cut to whole seconds, the resolution of `metav1.Time` on the wire.
pub fn to_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

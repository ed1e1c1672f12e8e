//! The time by which pods wait: it starts with the machine's and is then moved on by the clock that nobody sets, as
//! upstream's times are compared. Set forward, the machine's would end reservations of bindings that are on their way;
//! set back, it would hold up whatever backs off.

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// A clock that goes as time passes.
#[derive(Debug, Clone, Copy)]
pub struct MonotonicClock {
    began: Timestamp,
    at: Instant,
}

impl MonotonicClock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self { began: Timestamp::now(), at: Instant::now() }
    }

    /// The time on this clock. Not for what the API shows.
    pub fn now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.at.elapsed()).unwrap_or(SignedDuration::MAX);
        self.began.checked_add(passed).unwrap_or(Timestamp::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_moved_by_what_passes_and_not_by_the_machines_time() {
        let clock = MonotonicClock::start();
        let before = clock.now();
        assert_eq!(clock.now(), before, "the machine's time goes on");
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(clock.now().duration_since(before), SignedDuration::from_secs(10));
    }
}

//! One moment on two clocks: what lasts is measured on the one that nobody sets, as Go's times do it for upstream.

use std::time::{Duration, Instant};

use jiff::Timestamp;

/// A moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// For what is measured.
    pub instant: Instant,
    /// For what the API shows.
    pub time: Timestamp,
}

impl Moment {
    /// Now. Of tokio's clock, which tests may move.
    pub fn now() -> Self {
        Self { instant: tokio::time::Instant::now().into_std(), time: Timestamp::now() }
    }

    /// The moment of a time that the API shows, if it is past; else this one. What the clock was set by between the two
    /// is not known: such a moment is to be taken once and kept.
    #[must_use]
    pub fn back_to(self, time: Timestamp) -> Self {
        let time = time.clamp(Timestamp::UNIX_EPOCH, self.time.max(Timestamp::UNIX_EPOCH));
        let age = Duration::try_from(self.time.duration_since(time)).unwrap_or_default();
        Self { instant: self.instant.checked_sub(age).unwrap_or(self.instant), time }
    }

    /// How long ago an instant was.
    pub fn since(self, then: Instant) -> Duration {
        self.instant.saturating_duration_since(then)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::LazyLock;

    use super::*;

    static START: LazyLock<Instant> = LazyLock::new(Instant::now);

    /// A time of the API, in seconds after an arbitrary one.
    pub fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).expect("near")
    }

    /// The moment so many seconds later, on clocks that go alike.
    pub fn moment(seconds: u64) -> Moment {
        stepped(seconds, 0)
    }

    /// The same after the clock was set forward (or back) by `step` seconds.
    pub fn stepped(seconds: u64, step: i64) -> Moment {
        Moment { instant: *START + Duration::from_secs(seconds), time: at(seconds.cast_signed() + step) }
    }

    #[test]
    fn a_past_time_is_as_long_ago_on_both_clocks_and_a_future_one_is_now() {
        assert_eq!(moment(100).back_to(at(40)), moment(40));
        assert_eq!(moment(100).back_to(at(100)), moment(100));
        assert_eq!(moment(100).back_to(at(160)), moment(100));
        assert_eq!(moment(100).since(moment(40).instant), Duration::from_secs(60));
        assert_eq!(moment(40).since(moment(100).instant), Duration::ZERO);
        // A time from before the machine was on.
        assert_eq!(moment(100).back_to(Timestamp::MIN).time, Timestamp::UNIX_EPOCH);
    }
}

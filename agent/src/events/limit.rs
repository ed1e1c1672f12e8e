//! How often events are written. Pure.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use jiff::{SignedDuration, Timestamp};

use super::ObjectReference;

/// A bucket of tokens: full it holds `burst`, and one comes back in each `period`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub burst: u32,
    pub period: SignedDuration,
}

/// How full a bucket is: the moment at which it is full again.
type FullAt = Timestamp;

impl Rate {
    /// So many in a second; 0 is no limit.
    pub fn per_second(qps: u32, burst: u32) -> Option<Self> {
        let period = SignedDuration::from_secs(1).checked_div(i32::try_from(qps).unwrap_or(i32::MAX))?;
        Some(Self { burst: burst.max(1), period })
    }

    /// Takes a token; `None` when there is none, and how long to wait for the next.
    fn take(self, full_at: FullAt, now: Timestamp) -> Result<FullAt, SignedDuration> {
        let whole = self.period.saturating_mul(i32::try_from(self.burst).unwrap_or(i32::MAX));
        // Never emptier than empty, also for who was met by a clock that was ahead.
        let latest = now.saturating_add(whole).unwrap_or(Timestamp::MAX);
        let next = full_at.clamp(now, latest).saturating_add(self.period).unwrap_or(Timestamp::MAX);
        let wait = next.duration_since(now) - whole;
        if wait.is_positive() { Err(wait) } else { Ok(next) }
    }
}

/// The rate of all events together.
#[derive(Clone, Copy, Debug)]
pub struct Limiter {
    rate: Rate,
    full_at: FullAt,
}

impl Limiter {
    /// A full bucket.
    pub fn new(rate: Rate) -> Self {
        Self { rate, full_at: Timestamp::MIN }
    }

    /// Takes a token, or says how long to wait for one.
    pub fn take(&mut self, now: Timestamp) -> Result<(), SignedDuration> {
        self.full_at = self.rate.take(self.full_at, now)?;
        Ok(())
    }
}

/// Buckets that are remembered (client-go: `maxLruCacheEntries`).
const CAPACITY: usize = 4096;

/// Keeps one object from crowding out the events of others (client-go, tools/record/events_cache.go:
/// `EventSourceObjectSpamFilter`): each object has a bucket of its own.
#[derive(Debug)]
pub struct SpamFilter {
    rate: Rate,
    buckets: HashMap<u64, FullAt>,
}

impl Default for SpamFilter {
    fn default() -> Self {
        // `defaultSpamBurst` and `defaultSpamQPS`.
        Self { rate: Rate { burst: 25, period: SignedDuration::from_mins(5) }, buckets: HashMap::new() }
    }
}

impl SpamFilter {
    /// Whether an event of this object is one too many.
    pub fn is_spam(&mut self, object: &ObjectReference, now: Timestamp) -> bool {
        let mut hasher = DefaultHasher::new();
        (object.kind, &object.namespace, &object.name, &object.uid).hash(&mut hasher);
        let key = hasher.finish();
        if self.buckets.len() >= CAPACITY && !self.buckets.contains_key(&key) {
            self.make_room(now);
        }
        let full_at = self.buckets.entry(key).or_insert(Timestamp::MIN);
        match self.rate.take(*full_at, now) {
            Ok(next) => *full_at = next,
            Err(_) => return true,
        }
        false
    }

    /// Full buckets need not be remembered; of others those go that are full soonest.
    fn make_room(&mut self, now: Timestamp) {
        self.buckets.retain(|_, full_at| *full_at > now);
        if self.buckets.len() >= CAPACITY
            && let Some(soonest) = self.buckets.iter().min_by_key(|(_, full_at)| **full_at).map(|(key, _)| *key)
        {
            self.buckets.remove(&soonest);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn object(name: &str) -> ObjectReference {
        ObjectReference {
            kind: "Pod",
            namespace: "ns".into(),
            name: name.into(),
            uid: name.into(),
            resource_version: String::new(),
            field_path: "spec.containers{a}".into(),
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    #[test]
    fn each_object_has_a_burst_and_one_in_five_minutes() {
        let mut filter = SpamFilter::default();
        let passed = |filter: &mut SpamFilter, name: &str, times: usize, now: i64| {
            (0..times).filter(|_| !filter.is_spam(&object(name), at(now))).count()
        };
        assert_eq!(passed(&mut filter, "a", 100, 0), 25);
        assert_eq!(passed(&mut filter, "b", 10, 0), 10, "another one's are not counted");
        assert_eq!(passed(&mut filter, "a", 100, 299), 0);
        assert_eq!(passed(&mut filter, "a", 100, 300), 1);
        assert_eq!(passed(&mut filter, "a", 100, 1200), 3);
        assert_eq!(passed(&mut filter, "a", 100, 100_000), 25);
        // Whatever of the object it is about, and in whatever version.
        let other = ObjectReference { field_path: String::new(), resource_version: "7".into(), ..object("a") };
        assert!(filter.is_spam(&other, at(100_000)));
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let mut filter = SpamFilter::default();
        for n in 0..3 * CAPACITY {
            assert!(!filter.is_spam(&object(&n.to_string()), at(0)));
            assert!(filter.buckets.len() <= CAPACITY);
        }
    }

    #[test]
    fn all_together_have_a_rate() {
        let mut limiter = Limiter::new(Rate { burst: 3, period: SignedDuration::from_millis(100) });
        let now = at(0);
        assert_eq!([limiter.take(now), limiter.take(now), limiter.take(now)], [Ok(()); 3]);
        assert_eq!(limiter.take(now), Err(SignedDuration::from_millis(100)));
        assert_eq!(Rate::per_second(10, 3), Some(limiter.rate));
        assert_eq!(Rate::per_second(0, 3), None);
        assert_eq!(limiter.take(now + SignedDuration::from_millis(100)), Ok(()));
        assert!(limiter.take(now + SignedDuration::from_millis(150)).is_err());
    }

    #[test]
    fn a_clock_that_is_set_back_stops_nothing() {
        let rate = Rate::per_second(50, 2).unwrap();
        let (ahead, back) = ("2026-01-01T02:00:00Z".parse().unwrap(), "2026-01-01T00:00:00Z".parse().unwrap());
        let mut all = Limiter::new(rate);
        while all.take(ahead).is_ok() {}
        assert!(all.take(back).unwrap_err() <= rate.period);
    }
}

//! Exponential back-off by key, as data: upstream's crash-loop and image rules. All times are of a clock that is never
//! set back ([`crate::clock::Clock::steady`]).

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// How waits grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackoffPolicy {
    pub initial: Duration,
    /// Longest wait. After twice this time without a failure a key starts anew.
    pub max: Duration,
}

impl BackoffPolicy {
    /// CrashLoopBackOff: 10 s, doubling up to `max`.
    pub fn crash_loop(max: Duration) -> Self {
        Self { initial: Duration::from_secs(10).min(max), max }
    }

    /// Image pulls: 10 s, doubling up to 5 minutes.
    pub fn image_pull() -> Self {
        Self { initial: Duration::from_secs(10), max: Duration::from_secs(300) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    wait: Duration,
    updated: Timestamp,
}

/// Waits by key.
#[derive(Clone, Debug)]
pub struct Backoff<K> {
    policy: BackoffPolicy,
    entries: HashMap<K, Entry>,
}

fn signed(d: Duration) -> SignedDuration {
    SignedDuration::try_from(d).unwrap_or(SignedDuration::MAX)
}

impl<K: Hash + Eq> Backoff<K> {
    /// Nobody waits.
    pub fn new(policy: BackoffPolicy) -> Self {
        Self { policy, entries: HashMap::new() }
    }

    fn live(&self, key: &K, event: Timestamp) -> Option<&Entry> {
        // The comparison saturates, so that an event at the dawn of time is fine.
        self.entries.get(key).filter(|e| event.duration_since(e.updated) <= signed(self.policy.max) * 2)
    }

    /// How long from `now` until `key` may try again, when its last failure was
    /// at `event`; `None` when it may at once.
    pub fn remaining(&self, key: &K, event: Timestamp, now: Timestamp) -> Option<Duration> {
        let entry = self.live(key, event)?;
        let passed = now.duration_since(event);
        Duration::try_from(signed(entry.wait) - passed).ok().filter(|d| !d.is_zero())
    }

    /// When the last failure of `key` was noted.
    pub fn updated(&self, key: &K) -> Option<Timestamp> {
        self.entries.get(key).map(|e| e.updated)
    }

    /// The wait `key` is in or would be in.
    pub fn current(&self, key: &K) -> Duration {
        self.entries.get(key).map_or(Duration::ZERO, |e| e.wait)
    }

    /// Counts a failure at `event` and sets the next wait.
    pub fn next(&mut self, key: K, event: Timestamp, now: Timestamp) {
        let wait = match self.live(&key, event) {
            Some(entry) => (entry.wait * 2).min(self.policy.max),
            None => self.policy.initial,
        };
        self.entries.insert(key, Entry { wait, updated: now });
    }

    /// How long from `now` until `key` may try again, counted from the moment
    /// its last failure was noted.
    pub fn since_update(&self, key: &K, now: Timestamp) -> Option<Duration> {
        let entry = self.live(key, now)?;
        Duration::try_from(signed(entry.wait) - now.duration_since(entry.updated)).ok().filter(|d| !d.is_zero())
    }
}

/// Pulls of a pod's images that failed. The containers of a pod share what is known of an image, pods share nothing
/// (pkg/kubelet/images/image_manager.go: the key is the pod's UID and the image).
#[derive(Clone, Debug)]
pub struct PullBackoff {
    waits: Backoff<String>,
    /// What the last pull failed of, by image.
    errors: HashMap<String, String>,
}

impl Default for PullBackoff {
    fn default() -> Self {
        Self { waits: Backoff::new(BackoffPolicy::image_pull()), errors: HashMap::new() }
    }
}

impl PullBackoff {
    /// A pull failed. One that was under way when another one of the same image failed counts no more.
    pub fn failed(&mut self, image: &str, error: String, now: Timestamp) {
        if self.remaining(image, now).is_none() {
            self.waits.next(image.to_owned(), now, now);
        }
        self.errors.insert(image.to_owned(), error);
    }

    /// How long the next pull has to wait, if it has to.
    pub fn remaining(&self, image: &str, now: Timestamp) -> Option<Duration> {
        self.waits.since_update(&image.to_owned(), now)
    }

    /// What the last pull failed of, while the next one has to wait.
    pub fn waits_for(&self, image: &str, now: Timestamp) -> Option<String> {
        self.remaining(image, now)?;
        Some(self.errors.get(image).cloned().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    #[test]
    fn crash_loop_waits_double_and_reset() {
        let mut b = Backoff::new(BackoffPolicy::crash_loop(Duration::from_secs(300)));
        assert_eq!(b.remaining(&"k", at(0), at(0)), None, "the first restart is immediate");
        b.next("k", at(0), at(0));
        assert_eq!(b.remaining(&"k", at(1), at(1)), Some(Duration::from_secs(10)));
        assert_eq!(b.remaining(&"k", at(1), at(11)), None);
        let (mut t, mut waits) = (11, vec![]);
        for _ in 0..6 {
            b.next("k", at(t), at(t));
            waits.push(b.current(&"k").as_secs());
            t += 300;
        }
        assert_eq!(waits, [20, 40, 80, 160, 300, 300]);
        assert_eq!(b.remaining(&"k", at(t + 601), at(t + 601)), None, "ten quiet minutes");
        b.next("k", at(t + 601), at(t + 601));
        assert_eq!(b.current(&"k").as_secs(), 10);
    }

    #[test]
    fn containers_of_a_pod_share_the_pulls_of_an_image() {
        let mut pulls = PullBackoff::default();
        let left = |pulls: &PullBackoff, image, now| pulls.remaining(image, at(now)).map(|left| left.as_secs());
        assert_eq!(pulls.waits_for("i", at(0)), None);
        pulls.failed("i", "first".to_owned(), at(0));
        pulls.failed("i", "second".to_owned(), at(1));
        assert_eq!((left(&pulls, "i", 1), pulls.waits_for("i", at(1)).as_deref()), (Some(9), Some("second")));
        assert_eq!((left(&pulls, "j", 1), pulls.waits_for("i", at(10))), (None, None));
        let (mut t, mut waits) = (10, vec![]);
        for _ in 0..6 {
            pulls.failed("i", "again".to_owned(), at(t));
            waits.push(left(&pulls, "i", t).unwrap());
            t += 300;
        }
        assert_eq!(waits, [20, 40, 80, 160, 300, 300], "as upstream: five minutes at most");
    }
}

//! Which images to remove when their file system fills up.

use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp};

/// An image and what is known of its use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRecord {
    pub id: String,
    pub size: u64,
    pub pinned: bool,
    pub seen: Seen,
}

/// When an image was seen. Of one that was there before anybody looked it is not known since when: as upstream
/// (pkg/kubelet/images/image_gc_manager.go: `detectImages`) that is as good as ever.
/// Times are of a clock that nobody sets ([`crate::clock::Clock::steady`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub first: Timestamp,
    /// `None`: not in use as long as it was looked at.
    pub used: Option<Timestamp>,
}

impl Seen {
    /// Of an image that is new, or among the first that are seen at all.
    pub fn at(now: Timestamp, first_look: bool) -> Self {
        Self { first: if first_look { Timestamp::MIN } else { now }, used: None }
    }
}

/// Bounds in percent of the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    pub high: u8,
    pub low: u8,
    pub min_age: SignedDuration,
    /// Bytes that are enough to have free, whatever the percentages say.
    pub enough_free: u64,
}

/// How many bytes have to go, 0 below the high mark.
pub fn bytes_to_free(capacity: u64, available: u64, t: &Thresholds) -> u64 {
    if capacity == 0 || available >= t.enough_free {
        return 0;
    }
    let used = u128::from(capacity.saturating_sub(available));
    let percent = |p: u8| u128::from(capacity) * u128::from(p) / 100;
    if used < percent(t.high) {
        return 0;
    }
    u64::try_from(used.saturating_sub(percent(t.low))).unwrap_or(u64::MAX)
}

/// Images that may be removed, the least recently used first: before them those
/// that were not used at all. Pinned, used and young ones stay.
pub fn removable<'a>(
    images: &'a [ImageRecord],
    in_use: &HashSet<String>,
    t: &Thresholds,
    now: Timestamp,
) -> Vec<&'a ImageRecord> {
    let mut candidates: Vec<&ImageRecord> = images
        .iter()
        .filter(|i| !i.pinned && !in_use.contains(&i.id) && now.duration_since(i.seen.first) >= t.min_age)
        .collect();
    candidates.sort_by_key(|i| (i.seen.used, i.seen.first));
    candidates
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn least_recently_used_go_first() {
        let at = |s| Timestamp::from_second(s).unwrap();
        let image = |id: &str, used, pinned| ImageRecord {
            id: id.into(),
            size: 10,
            pinned,
            seen: Seen { first: at(0), used: Some(at(used)) },
        };
        let images = [image("a", 50, false), image("b", 10, false), image("c", 5, true), image("d", 1, false)];
        let t = Thresholds { high: 85, low: 80, min_age: SignedDuration::from_secs(120), enough_free: 50 };
        assert_eq!(bytes_to_free(100, 16, &t), 0);
        assert_eq!(bytes_to_free(100, 10, &t), 10);
        assert_eq!(bytes_to_free(0, 0, &t), 0);
        assert_eq!(bytes_to_free(1000, 50, &t), 0, "50 are enough");
        let used = HashSet::from(["d".to_owned()]);
        let ids: Vec<&str> = removable(&images, &used, &t, at(1000)).into_iter().map(|i| i.id.as_str()).collect();
        assert_eq!(ids, ["b", "a"]);
        assert!(removable(&images, &used, &t, at(100)).is_empty(), "too young");
    }

    #[test]
    fn age_and_use_are_what_was_seen_of_them() {
        let at = |s| Timestamp::from_second(s).unwrap();
        let image = |id: &str, seen| ImageRecord { id: id.into(), size: 10, pinned: false, seen };
        let t = Thresholds { high: 85, low: 80, min_age: SignedDuration::from_secs(120), enough_free: 50 };
        let used = |seen: Seen, second| Seen { used: Some(at(second)), ..seen };
        let images = [
            image("used long ago", used(Seen::at(at(0), true), 5)),
            image("pulled for nothing", Seen::at(at(900), false)),
            image("there before", Seen::at(at(0), true)),
            image("just pulled", Seen::at(at(990), false)),
        ];
        let gone = |now| removable(&images, &HashSet::new(), &t, at(now)).into_iter().map(|i| i.id.as_str()).collect();
        let ids: Vec<&str> = gone(1020);
        assert_eq!(ids, ["there before", "pulled for nothing", "used long ago"]);
        let ids: Vec<&str> = gone(0);
        assert_eq!(ids, ["there before", "used long ago"], "at once: nobody knows how old they are");
    }
}

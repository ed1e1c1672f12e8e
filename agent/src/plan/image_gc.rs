//! Which images to remove when their file system fills up.

use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp};

/// An image and what is known of its use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRecord {
    pub id: String,
    pub size: u64,
    pub pinned: bool,
    pub first_seen: Timestamp,
    pub last_used: Timestamp,
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

/// Images that may be removed, the least recently used first. Pinned, used and
/// young ones stay.
pub fn removable<'a>(
    images: &'a [ImageRecord],
    in_use: &HashSet<String>,
    t: &Thresholds,
    now: Timestamp,
) -> Vec<&'a ImageRecord> {
    let mut candidates: Vec<&ImageRecord> = images
        .iter()
        .filter(|i| !i.pinned && !in_use.contains(&i.id) && now.duration_since(i.first_seen) >= t.min_age)
        .collect();
    candidates.sort_by_key(|i| (i.last_used, i.first_seen));
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
            first_seen: at(0),
            last_used: at(used),
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
}

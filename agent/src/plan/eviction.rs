//! Whether the node runs short of something, since when, and what to do.

pub mod limits;
pub mod rank;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::config::{EvictionSettings, Signal, Threshold};

/// A shortage as the node's conditions tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    Memory,
    Disk,
    Pid,
}

impl Pressure {
    /// The condition's type.
    pub fn condition(self) -> &'static str {
        match self {
            Self::Memory => "MemoryPressure",
            Self::Disk => "DiskPressure",
            Self::Pid => "PIDPressure",
        }
    }

    /// The pressure a signal tells of.
    pub fn of(signal: Signal) -> Self {
        match signal {
            Signal::MemoryAvailable => Self::Memory,
            Signal::PidAvailable => Self::Pid,
            Signal::NodefsAvailable
            | Signal::NodefsInodesFree
            | Signal::ImagefsAvailable
            | Signal::ImagefsInodesFree => Self::Disk,
        }
    }
}

/// All pressures of a node.
pub type Pressures = BTreeSet<Pressure>;

/// What a signal reads. Signals that cannot be read have no observation, which
/// is no shortage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    pub available: u64,
    pub capacity: u64,
}

/// Readings by signal.
pub type Observations = BTreeMap<Signal, Observation>;

/// A threshold that asks for action now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    pub signal: Signal,
    /// What should be available.
    pub wanted: u64,
    pub available: u64,
    /// Whether pods have time to end: a hard threshold gives them none.
    pub soft: bool,
}

/// What an assessment comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assessment {
    pub pressures: Pressures,
    /// Most urgent first.
    pub shortages: Vec<Shortage>,
}

/// Remembers since when thresholds are passed and when pressures were last seen.
#[derive(Clone, Debug)]
pub struct Assessor {
    thresholds: Vec<Threshold>,
    transition: SignedDuration,
    /// By the threshold's index.
    since: BTreeMap<usize, Timestamp>,
    last_seen: BTreeMap<Pressure, Timestamp>,
}

impl Assessor {
    /// An assessor that has seen nothing.
    pub fn new(settings: &EvictionSettings) -> Self {
        Self {
            thresholds: settings.thresholds(),
            transition: SignedDuration::try_from(settings.transition).unwrap_or(SignedDuration::MAX),
            since: BTreeMap::new(),
            last_seen: BTreeMap::new(),
        }
    }

    /// Whether anything could ever come of an assessment.
    pub fn is_idle(&self) -> bool {
        self.thresholds.is_empty()
    }

    /// What `seen` means at `now`, of a clock that is never set back. A pressure lasts for the transition period
    /// after it was last seen; a soft threshold acts once it was passed for as
    /// long as its grace period.
    pub fn assess(&mut self, seen: &Observations, now: Timestamp) -> Assessment {
        let mut due: Vec<Shortage> = Vec::new();
        for (index, threshold) in self.thresholds.iter().enumerate() {
            let Some(shortage) = shortage(threshold, seen) else {
                self.since.remove(&index);
                continue;
            };
            self.last_seen.insert(Pressure::of(threshold.signal), now);
            let since = *self.since.entry(index).or_insert(now);
            let grace = threshold
                .grace
                .map_or(SignedDuration::ZERO, |g| SignedDuration::try_from(g).unwrap_or(SignedDuration::MAX));
            if now.duration_since(since) >= grace {
                due.push(shortage);
            }
        }
        let transition = self.transition;
        self.last_seen.retain(|_, seen| now.duration_since(*seen) <= transition);
        // Memory first, as it kills what it runs out for; a hard threshold before a soft one.
        due.sort_by_key(|s| (s.signal, s.soft));
        due.dedup_by_key(|s| s.signal);
        Assessment { pressures: self.last_seen.keys().copied().collect(), shortages: due }
    }
}

fn shortage(threshold: &Threshold, seen: &Observations) -> Option<Shortage> {
    let reading = seen.get(&threshold.signal)?;
    let wanted = threshold.value.of(reading.capacity);
    (reading.available < wanted).then_some(Shortage {
        signal: threshold.signal,
        wanted,
        available: reading.available,
        soft: threshold.grace.is_some(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;
    use crate::config::ThresholdValue;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn reading(signal: Signal, available: u64) -> Observations {
        [(signal, Observation { available, capacity: 1000 })].into()
    }

    fn assessor(hard: &[(Signal, u64)], soft: &[(Signal, u64, u64)], transition: u64) -> Assessor {
        Assessor::new(&EvictionSettings {
            hard: Some(hard.iter().map(|(s, n)| (*s, Some(ThresholdValue::Amount(*n)))).collect()),
            soft: soft.iter().map(|(s, n, _)| (*s, Some(ThresholdValue::Amount(*n)))).collect(),
            soft_grace: soft.iter().map(|(s, _, grace)| (*s, Duration::from_secs(*grace))).collect(),
            transition: Duration::from_secs(transition),
            ..EvictionSettings::default()
        })
    }

    #[test]
    fn a_hard_threshold_acts_at_once_and_its_condition_lasts() {
        let mut assessor = assessor(&[(Signal::NodefsAvailable, 100)], &[], 60);
        let mut look = |available, second| assessor.assess(&reading(Signal::NodefsAvailable, available), at(second));
        assert_eq!(look(100, 0), Assessment::default(), "just enough");
        let low = look(99, 10);
        let shortage = Shortage { signal: Signal::NodefsAvailable, wanted: 100, available: 99, soft: false };
        assert_eq!((low.shortages, low.pressures), (vec![shortage], Pressures::from([Pressure::Disk])));
        let better = look(500, 70);
        assert!(better.shortages.is_empty() && better.pressures.contains(&Pressure::Disk), "{better:?}");
        assert_eq!(look(500, 71), Assessment::default());
    }

    #[test]
    fn a_soft_threshold_waits_and_starts_anew() {
        let mut assessor = assessor(&[], &[(Signal::PidAvailable, 100, 30)], 0);
        let mut look = |available, second| {
            let found = assessor.assess(&reading(Signal::PidAvailable, available), at(second));
            (found.shortages.len(), found.pressures.contains(&Pressure::Pid))
        };
        assert_eq!(look(1, 0), (0, true));
        assert_eq!(look(1, 29), (0, true));
        assert_eq!(look(500, 30), (0, false));
        assert_eq!(look(1, 31), (0, true));
        assert_eq!(look(1, 61), (1, true));
    }

    #[test]
    fn memory_comes_first_and_hard_before_soft() {
        let both = [Signal::NodefsInodesFree, Signal::MemoryAvailable];
        let mut assessor = assessor(&both.map(|s| (s, 10)), &[(Signal::MemoryAvailable, 50, 0)], 0);
        let seen = both.map(|s| (s, Observation { available: 5, capacity: 1000 })).into();
        let found = assessor.assess(&seen, at(0));
        let order: Vec<_> = found.shortages.iter().map(|s| (s.signal, s.soft, s.wanted)).collect();
        assert_eq!(order, [(Signal::MemoryAvailable, false, 10), (Signal::NodefsInodesFree, false, 10)]);
    }

    #[test]
    fn what_cannot_be_read_is_no_shortage() {
        let mut all = Assessor::new(&EvictionSettings::default());
        assert_eq!(all.assess(&Observations::new(), at(0)), Assessment::default());
        // A file system without inodes to count.
        let none = [(Signal::NodefsInodesFree, Observation::default())].into();
        assert_eq!(all.assess(&none, at(0)), Assessment::default());
    }
}

//! Eviction signals and their thresholds: upstream's defaults, and the fields
//! `eviction*` of a `KubeletConfiguration`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::AgentConfig;
use super::kubelet_config::{duration, parse};
use crate::convert::quantity::nanos;

/// What can become scarce on a node. In upstream's order of reclaiming.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    MemoryAvailable,
    NodefsAvailable,
    NodefsInodesFree,
    ImagefsAvailable,
    ImagefsInodesFree,
    PidAvailable,
}

impl Signal {
    /// Every signal, in order.
    pub const ALL: [Self; 6] = [
        Self::MemoryAvailable,
        Self::NodefsAvailable,
        Self::NodefsInodesFree,
        Self::ImagefsAvailable,
        Self::ImagefsInodesFree,
        Self::PidAvailable,
    ];

    /// As configuration and metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::MemoryAvailable => "memory.available",
            Self::NodefsAvailable => "nodefs.available",
            Self::NodefsInodesFree => "nodefs.inodesFree",
            Self::ImagefsAvailable => "imagefs.available",
            Self::ImagefsInodesFree => "imagefs.inodesFree",
            Self::PidAvailable => "pid.available",
        }
    }
}

/// An amount that must stay free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThresholdValue {
    /// Bytes, inodes or process ids.
    Amount(u64),
    /// Millionths of the whole.
    Share(u32),
    /// Millionths of the whole, but never more than so much: a tenth of a large
    /// disk is plenty.
    ShareUpTo(u32, u64),
}

/// One percent as a share.
pub const PERCENT: u32 = 10_000;

impl ThresholdValue {
    /// As an amount, of a whole of `capacity`.
    pub fn of(self, capacity: u64) -> u64 {
        let share = |millionths: u32| {
            u64::try_from(u128::from(capacity) * u128::from(millionths) / 1_000_000).unwrap_or(u64::MAX)
        };
        match self {
            Self::Amount(amount) => amount,
            Self::Share(millionths) => share(millionths),
            Self::ShareUpTo(millionths, most) => share(millionths).min(most),
        }
    }

    /// Upstream's text; `None` for one that can never matter.
    fn parse(text: &str) -> Result<Option<Self>, String> {
        let bad = || format!("{text:?} is neither a quantity nor a percentage");
        if let Some(number) = text.strip_suffix('%') {
            let percent = number.parse().ok().and_then(millionths).ok_or_else(bad)?;
            return Ok((percent != 0 && percent != 100 * PERCENT).then_some(Self::Share(percent)));
        }
        let amount = nanos(text).filter(|n| *n > 0).ok_or_else(bad)?;
        u64::try_from(amount / 1_000_000_000).map(|n| Some(Self::Amount(n))).map_err(|_| bad())
    }
}

/// A percentage between 0 and 100 in millionths of the whole.
fn millionths(percent: f64) -> Option<u32> {
    let millionths = (percent * f64::from(PERCENT)).round();
    let inside = (0.0..=f64::from(100 * PERCENT)).contains(&millionths);
    // Float to integer has no fallible conversion; the range was just checked.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    inside.then_some(millionths as u32)
}

/// When a signal asks for action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    pub signal: Signal,
    /// Less than this is too little.
    pub value: ThresholdValue,
    /// How long it may be missing: none for a hard threshold.
    pub grace: Option<Duration>,
}

/// When pods are evicted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvictionSettings {
    /// `None`: upstream's defaults. Signals that are set to nothing never act.
    pub hard: Option<BTreeMap<Signal, Option<ThresholdValue>>>,
    /// Whether signals that `hard` does not mention have their defaults.
    pub merge_defaults: bool,
    pub soft: BTreeMap<Signal, Option<ThresholdValue>>,
    pub soft_grace: BTreeMap<Signal, Duration>,
    /// Grace a pod gets that a soft threshold evicts, at most.
    pub max_pod_grace: Duration,
    /// How long a condition stays after its cause is gone.
    pub transition: Duration,
}

impl Default for EvictionSettings {
    fn default() -> Self {
        Self {
            hard: None,
            merge_defaults: false,
            soft: BTreeMap::new(),
            soft_grace: BTreeMap::new(),
            max_pod_grace: Duration::ZERO,
            transition: Duration::from_secs(300),
        }
    }
}

/// Enough to have free on any disk.
const ENOUGH_DISK: u64 = 10 << 30;

/// Upstream's hard thresholds; of large disks, 10 GiB are enough.
fn defaults() -> BTreeMap<Signal, Option<ThresholdValue>> {
    BTreeMap::from([
        (Signal::MemoryAvailable, Some(ThresholdValue::Amount(100 << 20))),
        (Signal::NodefsAvailable, Some(ThresholdValue::ShareUpTo(10 * PERCENT, ENOUGH_DISK))),
        (Signal::NodefsInodesFree, Some(ThresholdValue::Share(5 * PERCENT))),
        (Signal::ImagefsAvailable, Some(ThresholdValue::ShareUpTo(15 * PERCENT, ENOUGH_DISK))),
        (Signal::ImagefsInodesFree, Some(ThresholdValue::Share(5 * PERCENT))),
    ])
}

impl EvictionSettings {
    /// The hard threshold of a signal.
    pub fn hard(&self, signal: Signal) -> Option<ThresholdValue> {
        let default = || defaults().get(&signal).copied().flatten();
        match self.hard.as_ref().map(|hard| hard.get(&signal)) {
            None => default(),
            Some(Some(set)) => *set,
            Some(None) => self.merge_defaults.then(default).flatten(),
        }
    }

    /// All thresholds, hard ones first.
    pub fn thresholds(&self) -> Vec<Threshold> {
        let hard = Signal::ALL.into_iter().filter_map(|signal| {
            let value = self.hard(signal)?;
            Some(Threshold { signal, value, grace: None })
        });
        let soft = self.soft.iter().filter_map(|(signal, value)| {
            let grace = self.soft_grace.get(signal).copied().unwrap_or_default();
            Some(Threshold { signal: *signal, value: (*value)?, grace: Some(grace) })
        });
        hard.chain(soft).collect()
    }

    /// Settings that cannot be true together.
    pub fn contradictions(&self) -> Vec<String> {
        let lacks = self.soft.keys().filter(|signal| !self.soft_grace.contains_key(signal));
        lacks.map(|s| format!("evictionSoftGracePeriod: grace period must be specified for {}", s.name())).collect()
    }
}

/// Values by signal. containerfs follows the other two, as upstream has it.
fn by_signal<T>(value: Value, read: impl Fn(&str) -> Result<T, String>) -> Result<BTreeMap<Signal, T>, String> {
    let mut out = BTreeMap::new();
    for (name, text) in parse::<BTreeMap<String, String>>(value)? {
        let parsed = read(&text).map_err(|problem| format!("{name}: {problem}"))?;
        match Signal::ALL.into_iter().find(|s| s.name() == name) {
            Some(signal) => drop(out.insert(signal, parsed)),
            None if name.starts_with("containerfs.") => {}
            None => return Err(format!("{name}: unknown signal")),
        }
    }
    Ok(out)
}

/// A field of the file.
type Setter = fn(&mut AgentConfig, Value) -> Result<(), String>;

/// The fields about eviction.
pub(super) const FIELDS: &[(&str, Setter)] = &[
    ("evictionHard", |c, value| {
        c.eviction.hard = Some(by_signal(value, ThresholdValue::parse)?);
        Ok(())
    }),
    ("evictionMaxPodGracePeriod", |c, value| {
        c.eviction.max_pod_grace = Duration::from_secs(u64::from(parse::<u32>(value)?));
        Ok(())
    }),
    ("evictionPressureTransitionPeriod", |c, value| {
        c.eviction.transition = duration(&parse::<String>(value)?)?;
        Ok(())
    }),
    ("evictionSoft", |c, value| {
        c.eviction.soft = by_signal(value, ThresholdValue::parse)?;
        Ok(())
    }),
    ("evictionSoftGracePeriod", |c, value| {
        c.eviction.soft_grace = by_signal(value, duration)?;
        Ok(())
    }),
    ("mergeDefaultEvictionSettings", |c, value| {
        c.eviction.merge_defaults = parse(value)?;
        Ok(())
    }),
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn apply(fields: Value) -> Result<EvictionSettings, String> {
        let mut config = AgentConfig::new("n", "/d");
        for (name, value) in fields.as_object().unwrap() {
            let (_, set) = FIELDS.iter().find(|(field, _)| field == name).unwrap();
            set(&mut config, value.clone())?;
        }
        Ok(config.eviction)
    }

    #[test]
    fn minima() {
        use ThresholdValue::{Amount, Share, ShareUpTo};
        let tenth = 10 * PERCENT;
        assert_eq!(
            [Amount(7).of(100), Share(tenth).of(100), ShareUpTo(tenth, 5).of(100), ShareUpTo(tenth, 50).of(100)],
            [7, 10, 5, 10]
        );
        assert_eq!(Share(100 * PERCENT).of(u64::MAX), u64::MAX);
        for (text, expect) in [
            ("100Mi", Ok(Some(Amount(100 << 20)))),
            ("7.5%", Ok(Some(Share(75_000)))),
            ("0%", Ok(None)),
            ("100%", Ok(None)),
            ("1k", Ok(Some(Amount(1000)))),
        ] {
            assert_eq!(ThresholdValue::parse(text), expect, "{text}");
        }
        for text in ["", "%", "-1%", "101%", "NaN%", "inf%", "0", "-5Mi", "some"] {
            assert!(ThresholdValue::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hard_thresholds_replace_the_defaults_or_join_them() {
        let names = |s: &EvictionSettings| s.thresholds().iter().map(|t| t.signal.name()).collect::<Vec<_>>();
        let all = EvictionSettings::default();
        assert_eq!(
            names(&all),
            ["memory.available", "nodefs.available", "nodefs.inodesFree", "imagefs.available", "imagefs.inodesFree"]
        );
        let hard = json!({"pid.available": "5%", "memory.available": "0%", "containerfs.available": "5%"});
        let own = apply(json!({"evictionHard": hard})).unwrap();
        assert_eq!(names(&own), ["pid.available"]);
        let merged = apply(json!({"evictionHard": hard, "mergeDefaultEvictionSettings": true})).unwrap();
        assert_eq!(names(&merged).len(), 5, "{merged:?}");
        assert!(merged.hard(Signal::MemoryAvailable).is_none() && merged.hard(Signal::ImagefsAvailable).is_some());
    }

    #[test]
    fn soft_thresholds_need_a_grace_period() {
        let soft = json!({"evictionSoft": {"memory.available": "1Gi"}, "evictionMaxPodGracePeriod": 7,
            "evictionPressureTransitionPeriod": "30s"});
        let mut settings = apply(soft).unwrap();
        assert_eq!(settings.contradictions().len(), 1);
        settings.soft_grace =
            apply(json!({"evictionSoftGracePeriod": {"memory.available": "1m30s"}})).unwrap().soft_grace;
        assert!(settings.contradictions().is_empty());
        let last = settings.thresholds().pop().unwrap();
        assert_eq!((last.value, last.grace), (ThresholdValue::Amount(1 << 30), Some(Duration::from_secs(90))));
        assert_eq!((settings.max_pod_grace.as_secs(), settings.transition.as_secs()), (7, 30));
    }

    #[test]
    fn garbage_is_named() {
        for (fields, text) in [
            (json!({"evictionHard": {"memory.available": "some"}}), "memory.available: \"some\""),
            (json!({"evictionHard": {"disk": "1Gi"}}), "disk: unknown signal"),
            (json!({"evictionSoftGracePeriod": {"memory.available": "5"}}), "memory.available: \"5\""),
            (json!({"evictionMaxPodGracePeriod": -1}), "invalid value"),
            (json!({"evictionHard": 3}), "invalid type"),
        ] {
            let problem = apply(fields).unwrap_err();
            assert!(problem.starts_with(text), "{problem}");
        }
    }
}

//! What the labels of a namespace say. Pure.

use std::fmt;

use serde_json::Value;

const PREFIX: &str = "pod-security.kubernetes.io/";

/// How strict, in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    #[default]
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    pub(super) const NAMES: [&str; 3] = ["privileged", "baseline", "restricted"];

    fn of(text: &str) -> Option<Self> {
        match text {
            "privileged" => Some(Self::Privileged),
            "baseline" => Some(Self::Baseline),
            "restricted" => Some(Self::Restricted),
            _ => None,
        }
    }
}

/// What happens to pods that violate a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Enforce,
    Audit,
    Warn,
}

/// A level, of a version of the standards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LevelVersion {
    pub(super) level: Level,
    version: String,
}

impl Default for LevelVersion {
    fn default() -> Self {
        Self { level: Level::default(), version: "latest".into() }
    }
}

impl fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", Level::NAMES[self.level as usize], self.version)
    }
}

/// A level for each mode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Policy([LevelVersion; 3]);

impl Policy {
    /// Reads labels; with those that mean nothing come the strictest reading and what is wrong.
    pub(super) fn of(labels: &Value) -> Result<Self, (Self, Vec<(String, String)>)> {
        let mut policy = Self::default();
        let mut problems = Vec::new();
        for (slot, mode) in policy.0.iter_mut().zip(["enforce", "audit", "warn"]) {
            let level = format!("{PREFIX}{mode}");
            if let Some(text) = labels[&level].as_str() {
                slot.level = Level::of(text).unwrap_or_else(|| {
                    problems.push((level.clone(), text.to_owned()));
                    // A level to warn or audit by that means nothing harms nobody.
                    if mode == "enforce" { Level::Restricted } else { Level::Privileged }
                });
            }
            let version = format!("{level}-version");
            if let Some(text) = labels[&version].as_str() {
                if is_version(text) {
                    slot.version = text.to_owned();
                } else {
                    problems.push((version, text.to_owned()));
                }
            }
        }
        // Upstream: where nothing else is said, what is enforced is warned of, too, on templates.
        if labels[format!("{PREFIX}warn")].is_null() {
            policy.0[2] = policy.0[0].clone();
        }
        if problems.is_empty() { Ok(policy) } else { Err((policy, problems)) }
    }

    pub(super) fn of_mode(&self, mode: Mode) -> &LevelVersion {
        &self.0[mode as usize]
    }
}

fn is_version(text: &str) -> bool {
    let minor = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'))
    };
    text == "latest" || text.strip_prefix("v1.").is_some_and(minor)
}

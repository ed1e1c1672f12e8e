//! How much of a container's logs is kept: rotation, and what is left when the container goes.

use std::time::Duration;

/// When to rotate and how much to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationPolicy {
    /// Bytes from which a file is rotated.
    pub max_size: u64,
    /// Files per container, the current one among them; at least 2.
    pub max_files: usize,
    /// How often sizes are looked at.
    pub period: Duration,
}

impl Default for RotationPolicy {
    fn default() -> Self {
        Self { max_size: 10 << 20, max_files: 5, period: Duration::from_secs(10) }
    }
}

/// One thing to do to the files beside a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Remove(String),
    /// Replace by `<name>.gz`.
    Compress(String),
}

/// What to do to the rotated files of `log` (file names) before it is rotated
/// once more.
pub fn before_rotation(log: &str, beside: &[String], max_files: usize) -> Vec<Step> {
    let prefix = format!("{log}.");
    let mut rotated: Vec<&str> = beside.iter().map(String::as_str).filter(|name| name.starts_with(&prefix)).collect();
    rotated.sort_unstable();
    let mut steps = Vec::new();
    // Leftovers of a rotation that died: half-written archives, and originals
    // whose archive is complete.
    rotated.retain(|name| {
        let archive = format!("{name}.gz");
        let leftover = name.ends_with(".tmp") || beside.contains(&archive);
        if leftover {
            steps.push(Step::Remove((*name).to_owned()));
        }
        !leftover
    });
    // The current file and the one about to be made count too.
    let keep = max_files.saturating_sub(2);
    let excess = rotated.len().saturating_sub(keep);
    steps.extend(rotated.drain(..excess).map(|name| Step::Remove(name.to_owned())));
    let plain = rotated.into_iter().filter(|name| !name.ends_with(".gz"));
    steps.extend(plain.map(|name| Step::Compress(name.to_owned())));
    steps
}

/// Whether the file `name` is the log or was rotated of it.
pub fn is_of(log: &[u8], name: &[u8]) -> bool {
    name.strip_prefix(log).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans() {
        let check = |beside: &[&str], max_files, expect: &[&str]| {
            let beside: Vec<String> = beside.iter().map(|n| (*n).to_owned()).collect();
            let steps: Vec<String> = before_rotation("0.log", &beside, max_files)
                .into_iter()
                .map(|step| match step {
                    Step::Remove(name) => format!("-{name}"),
                    Step::Compress(name) => format!("z{name}"),
                })
                .collect();
            assert_eq!(steps, expect, "{beside:?}");
        };
        check(&["0.log"], 5, &[]);
        check(&["0.log", "1.log.1", "0.log.2"], 5, &["z0.log.2"]);
        check(&["0.log", "0.log.1.gz", "0.log.2.gz", "0.log.3.gz", "0.log.4"], 5, &["-0.log.1.gz", "z0.log.4"]);
        check(&["0.log", "0.log.1"], 2, &["-0.log.1"]);
        check(&["0.log", "0.log.1.gz.tmp", "0.log.1"], 5, &["-0.log.1.gz.tmp", "z0.log.1"]);
        check(&["0.log", "0.log.1.gz", "0.log.1"], 5, &["-0.log.1"]);
        check(&[], 0, &[]);
    }
}

//! Settings of connection tracking as upstream's kube-proxy makes them. What to write is decided
//! purely; [`apply`] writes it.
//!
//! They are the kernel's, not a table of ours: they stay when the proxy ends, as upstream's do. What
//! they were before is noted first, so that [`restore`] can undo them. Dying between the note and the
//! change is harmless: only a value that is ours is taken back.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use serde::{Deserialize, Serialize};

use crate::note;

/// Where the kernel has them, for the calling thread's network namespace.
pub const NETFILTER: &str = "/proc/sys/net/netfilter";

/// Upstream's `conntrack` section. The default leaves everything as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConntrackSettings {
    /// Flows to track per core; `None` or 0 leaves the limit and ignores `min`.
    pub max_per_core: Option<u32>,
    /// Flows to track at least.
    pub min: u32,
    /// How long an idle TCP connection is kept; `None` leaves it.
    pub tcp_established: Option<Duration>,
    /// How long a half-closed one is.
    pub tcp_close_wait: Option<Duration>,
    /// Whether packets out of the window are let pass.
    pub tcp_be_liberal: bool,
    /// How long an unanswered UDP flow is kept.
    pub udp: Option<Duration>,
    /// How long an answered one is.
    pub udp_stream: Option<Duration>,
}

impl ConntrackSettings {
    /// What upstream uses where its configuration says nothing.
    #[must_use]
    pub fn upstream() -> Self {
        Self {
            max_per_core: Some(32 * 1024),
            min: 128 * 1024,
            tcp_established: Some(Duration::from_secs(24 * 3600)),
            tcp_close_wait: Some(Duration::from_secs(3600)),
            ..Self::default()
        }
    }

    /// The file names and values to write on a machine with `cores`.
    #[must_use]
    pub fn sysctls(&self, cores: u32) -> Vec<(&'static str, u64)> {
        let per_core = self.max_per_core.filter(|n| *n > 0);
        let max = per_core.map(|n| (u64::from(n) * u64::from(cores)).max(u64::from(self.min)));
        let seconds = |duration: Option<Duration>| duration.map(|d| d.as_secs());
        let values = [
            max,
            seconds(self.tcp_established),
            seconds(self.tcp_close_wait),
            self.tcp_be_liberal.then_some(1),
            seconds(self.udp),
            seconds(self.udp_stream),
        ];
        NAMES.into_iter().zip(values).filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// The settings that are ever written.
const NAMES: [&str; 6] = [
    MAX,
    "nf_conntrack_tcp_timeout_established",
    "nf_conntrack_tcp_timeout_close_wait",
    "nf_conntrack_tcp_be_liberal",
    "nf_conntrack_udp_timeout",
    "nf_conntrack_udp_timeout_stream",
];

/// The one setting that is only ever raised: what is there may be somebody's careful choice.
const MAX: &str = "nf_conntrack_max";

/// A setting that was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Changed {
    /// What it was before anything of ours.
    was: u64,
    /// What we made it.
    set: u64,
}

/// Settings that were changed, by name.
type Note = BTreeMap<String, Changed>;

/// Writes `sysctls` below `directory` where they differ; what is changed is told to the file `note` before. Returns
/// what could not be written: in a network namespace that is not the first, the limit is the machine's and cannot be.
#[must_use]
pub fn apply(directory: &Path, note: Option<&Path>, sysctls: &[(&'static str, u64)]) -> Vec<(&'static str, io::Error)> {
    let write = |name: &str, value: u64| -> io::Result<()> {
        let path = directory.join(name);
        let present = fs::read_to_string(&path)?.trim().parse::<u64>().unwrap_or(0);
        let settled = if name == MAX { present >= value } else { present == value };
        if settled {
            return Ok(());
        }
        if let Some(note) = note {
            remember(note, name, Changed { was: present, set: value })?;
        }
        fs::write(&path, value.to_string())
    };
    sysctls.iter().filter_map(|(name, value)| write(name, *value).err().map(|error| (*name, error))).collect()
}

/// Undoes what [`apply`] noted, unless somebody has changed it since; without a note there is nothing.
///
/// # Errors
/// When the note cannot be read, or a setting not be written; the rest is done.
pub fn restore(directory: &Path, note: &Path) -> io::Result<()> {
    let changed: Note = note::read(note)?;
    // Names that are not ours, whoever wrote them there, are not written to.
    let restored = NAMES.iter().filter_map(|name| Some((directory.join(name), changed.get(*name)?))).map(
        |(path, Changed { was, set })| match fs::read_to_string(&path) {
            Ok(present) if present.trim().parse() == Ok(*set) => fs::write(&path, was.to_string()),
            _ => Ok(()),
        },
    );
    // All of it is tried, whatever fails.
    let restored: Vec<io::Result<()>> = restored.collect();
    restored.into_iter().collect()
}

/// Notes a change. What it was at first counts, unless somebody has made it something else since.
fn remember(note: &Path, name: &str, change: Changed) -> io::Result<()> {
    let mut changed: Note = note::read(note)?;
    let ours = changed.get(name).filter(|before| before.set == change.was);
    let was = ours.map_or(change.was, |before| before.was);
    changed.insert(name.to_owned(), Changed { was, set: change.set });
    note::write(note, &changed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_limit_grows_with_the_cores_and_has_a_floor() {
        let max = |settings: &ConntrackSettings, cores| {
            settings.sysctls(cores).into_iter().find(|(name, _)| *name == MAX).map(|(_, value)| value)
        };
        let upstream = ConntrackSettings::upstream();
        assert_eq!(max(&upstream, 2), Some(131_072));
        assert_eq!(max(&upstream, 64), Some(2_097_152));
        assert_eq!(max(&ConntrackSettings { max_per_core: Some(0), ..upstream.clone() }, 2), None);
        let greedy = ConntrackSettings { max_per_core: Some(u32::MAX), ..upstream };
        assert_eq!(max(&greedy, 4), Some(u64::from(u32::MAX) * 4));
        assert_eq!(ConntrackSettings::default().sysctls(2), []);
    }

    #[test]
    fn writes_what_differs_never_lowers_the_limit_and_names_what_failed() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        let get = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        put(MAX, "262144\n");
        put("nf_conntrack_udp_timeout", "garbage\n");
        put("nf_conntrack_tcp_timeout_established", "432000\n");
        let settings = ConntrackSettings { udp: Some(Duration::from_secs(7)), ..ConntrackSettings::upstream() };
        let failed = apply(dir.path(), None, &settings.sysctls(2));
        assert_eq!(failed.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["nf_conntrack_tcp_timeout_close_wait"]);
        assert_eq!(get(MAX), "262144\n");
        assert_eq!(get("nf_conntrack_udp_timeout"), "7");
        assert_eq!(get("nf_conntrack_tcp_timeout_established"), "86400", "a timeout may get shorter");
        put(MAX, "1000\n");
        let _ = apply(dir.path(), None, &settings.sysctls(2));
        assert_eq!(get(MAX), "131072");
    }

    #[test]
    fn what_was_is_what_will_be_unless_somebody_else_changed_it() {
        let dir = tempfile::tempdir().unwrap();
        let note = dir.path().join("note");
        let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        let get = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap().trim().to_owned();
        let (udp, stream) = ("nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream");
        let make = |seconds: u64| {
            let lasts = Some(Duration::from_secs(seconds));
            let settings = ConntrackSettings { udp: lasts, udp_stream: lasts, ..ConntrackSettings::default() };
            let failed = apply(dir.path(), Some(note.as_path()), &settings.sysctls(2));
            assert!(failed.is_empty(), "{failed:?}");
        };
        restore(dir.path(), &note).unwrap();
        for name in [udp, stream] {
            put(name, "30\n");
        }
        for seconds in [7, 7, 8] {
            make(seconds);
        }
        put(stream, "99\n");
        for _ in 0..2 {
            restore(dir.path(), &note).unwrap();
            assert_eq!((get(udp), get(stream)), ("30".to_owned(), "99".to_owned()));
        }
        // Somebody's choice is what counts from then on.
        make(7);
        restore(dir.path(), &note).unwrap();
        assert_eq!((get(udp), get(stream)), ("30".to_owned(), "99".to_owned()));
        fs::write(&note, "{\"../../kernel/core_pattern\": {\"was\": 1, \"set\": 2}}").unwrap();
        restore(dir.path(), &note).unwrap();
        fs::write(&note, "garbage").unwrap();
        assert!(restore(dir.path(), &note).unwrap_err().to_string().contains("is damaged"));
        let udp_only = ConntrackSettings { udp: Some(Duration::from_secs(7)), ..ConntrackSettings::default() };
        assert_eq!(
            apply(dir.path(), Some(note.as_path()), &udp_only.sysctls(2)).len(),
            1,
            "nothing is changed that is not noted"
        );
        assert_eq!(get(udp), "30");
    }
}

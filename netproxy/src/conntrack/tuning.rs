//! Settings of connection tracking as upstream's kube-proxy makes them. What to write is decided
//! purely; [`apply`] writes it.
//!
//! They are the kernel's, not a table of ours: they stay when the proxy ends, as upstream's do.

use std::path::Path;
use std::time::Duration;
use std::{fs, io};

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
        [
            (MAX, max),
            ("nf_conntrack_tcp_timeout_established", seconds(self.tcp_established)),
            ("nf_conntrack_tcp_timeout_close_wait", seconds(self.tcp_close_wait)),
            ("nf_conntrack_tcp_be_liberal", self.tcp_be_liberal.then_some(1)),
            ("nf_conntrack_udp_timeout", seconds(self.udp)),
            ("nf_conntrack_udp_timeout_stream", seconds(self.udp_stream)),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
    }
}

/// The one setting that is only ever raised: what is there may be somebody's careful choice.
const MAX: &str = "nf_conntrack_max";

/// Writes `sysctls` below `directory` where they differ. Returns what could not be written: in a
/// network namespace that is not the first, the limit is the machine's and cannot be.
#[must_use]
pub fn apply(directory: &Path, sysctls: &[(&'static str, u64)]) -> Vec<(&'static str, io::Error)> {
    let write = |name: &str, value: u64| -> io::Result<()> {
        let path = directory.join(name);
        let present = fs::read_to_string(&path)?.trim().parse::<u64>().unwrap_or(0);
        let settled = if name == MAX { present >= value } else { present == value };
        if settled { Ok(()) } else { fs::write(&path, value.to_string()) }
    };
    sysctls.iter().filter_map(|(name, value)| write(name, *value).err().map(|error| (*name, error))).collect()
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
        let failed = apply(dir.path(), &settings.sysctls(2));
        assert_eq!(failed.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["nf_conntrack_tcp_timeout_close_wait"]);
        assert_eq!(get(MAX), "262144\n");
        assert_eq!(get("nf_conntrack_udp_timeout"), "7");
        assert_eq!(get("nf_conntrack_tcp_timeout_established"), "86400", "a timeout may get shorter");
        put(MAX, "1000\n");
        let _ = apply(dir.path(), &settings.sysctls(2));
        assert_eq!(get(MAX), "131072");
    }
}

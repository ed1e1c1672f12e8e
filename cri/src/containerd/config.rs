//! Pure: containerd's configuration file.
//!
//! 1.6 and 1.7 take version 2 of the format, 2.x takes version 3, which names
//! CRI's plugins differently. Whatever this does not mention is containerd's
//! default.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::{CgroupDriver, Options, Snapshotter};

/// What was found out about this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Machine {
    pub version: Release,
    /// Full path of `runc` or `crun`.
    pub oci_runtime: String,
    /// Full paths of further runtimes, by the name of their handler.
    pub handlers: BTreeMap<String, String>,
    pub snapshotter: Snapshotter,
    /// Without CAP_SYS_RESOURCE nobody can lower an OOM score.
    pub can_lower_oom_score: bool,
}

/// containerd's version, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Release {
    pub major: u32,
    pub minor: u32,
}

impl Release {
    /// Reads the line that `containerd --version` prints: name, package,
    /// version, revision. Distributions write versions in their own ways.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        line.split_whitespace().find_map(|word| {
            let mut parts = word.trim_start_matches('v').split(|c: char| !c.is_ascii_digit());
            let (major, minor) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            word.contains('.').then_some(Self { major, minor })
        })
    }

    fn is_two(self) -> bool {
        self.major >= 2
    }
}

/// Plugins that nothing here uses: each costs memory, start time or a warning.
/// CRI loads only with all that it depends on, which excludes some candidates:
/// `runtime.v1.linux` before 2.0, `image-verifier` after.
const UNUSED: &[&str] = &[
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.erofs",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.differ.v1.erofs",
    "io.containerd.internal.v1.restart",
    "io.containerd.monitor.container.v1.restart",
    "io.containerd.internal.v1.tracing",
    "io.containerd.tracing.processor.v1.otlp",
];

/// A TOML basic string.
fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn path(path: &Path) -> String {
    quote(&path.to_string_lossy())
}

/// The file's text.
pub(super) fn render(o: &Options, m: &Machine) -> String {
    let mut text = String::from("# Generated at every start; changes are lost.\n");
    let version = if m.version.is_two() { 3 } else { 2 };
    let unused: Vec<_> = UNUSED.iter().map(|p| quote(p)).collect();
    let oom_score = if m.can_lower_oom_score { -999 } else { 0 };
    let _ = write!(
        text,
        "version = {version}\nroot = {}\nstate = {}\ntemp = {}\noom_score = {oom_score}\ndisabled_plugins = [{}]\n\n\
         [grpc]\n  address = {}\n\n\
         [plugins.\"io.containerd.internal.v1.opt\"]\n  path = {}\n\n\
         [plugins.\"io.containerd.nri.v1.nri\"]\n  disable = true\n\n",
        path(&o.root),
        path(&o.state),
        path(&o.state.join("tmp")),
        unused.join(", "),
        path(&o.socket()),
        path(&o.root.join("opt")),
    );
    if m.version.is_two() {
        version_three(&mut text, o, m);
    } else {
        version_two(&mut text, o, m);
    }
    text
}

const STREAMS: &str = "  disable_tcp_service = true\n  stream_server_address = \"127.0.0.1\"\n  \
     stream_server_port = \"0\"\n";

/// Seconds between two measurements of all snapshots' sizes, which walk their
/// files: the largest part of what an idle containerd does.
const STATS_PERIOD: u32 = 30;

fn version_two(text: &mut String, o: &Options, m: &Machine) {
    let _ = write!(
        text,
        "[plugins.\"io.containerd.grpc.v1.cri\"]\n{STREAMS}  sandbox_image = {}\n  max_concurrent_downloads = {}\n  \
         stats_collect_period = {STATS_PERIOD}\n",
        quote(&o.sandbox_image),
        o.max_concurrent_downloads,
    );
    behavior(text, m);
    // CDI came in 1.7 and off by default.
    text.push_str("  enable_cdi = false\n\n");
    let snapshotter = quote(snapshotter(m));
    let _ = write!(
        text,
        "  [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n    default_runtime_name = \"runc\"\n    \
         snapshotter = {snapshotter}\n\n"
    );
    runtimes(text, "plugins.\"io.containerd.grpc.v1.cri\".containerd", o, m);
    cni(text, "plugins.\"io.containerd.grpc.v1.cri\".cni", o, m);
}

fn version_three(text: &mut String, o: &Options, m: &Machine) {
    let _ = write!(text, "[plugins.\"io.containerd.grpc.v1.cri\"]\n{STREAMS}\n");
    let _ = write!(
        text,
        "[plugins.\"io.containerd.cri.v1.images\"]\n  snapshotter = {}\n  max_concurrent_downloads = {}\n  \
         stats_collect_period = {STATS_PERIOD}\n\n  \
         [plugins.\"io.containerd.cri.v1.images\".pinned_images]\n    sandbox = {}\n\n",
        quote(snapshotter(m)),
        o.max_concurrent_downloads,
        quote(&o.sandbox_image),
    );
    text.push_str("[plugins.\"io.containerd.cri.v1.runtime\"]\n");
    behavior(text, m);
    text.push_str("  enable_cdi = false\n\n");
    text.push_str("  [plugins.\"io.containerd.cri.v1.runtime\".containerd]\n    default_runtime_name = \"runc\"\n\n");
    runtimes(text, "plugins.\"io.containerd.cri.v1.runtime\".containerd", o, m);
    cni(text, "plugins.\"io.containerd.cri.v1.runtime\".cni", o, m);
    // Saves a process for each pod; 1.x needs the plugin.
    text.push_str("    use_internal_loopback = true\n");
}

/// What all releases call alike.
fn behavior(text: &mut String, m: &Machine) {
    let _ = write!(
        text,
        "  restrict_oom_score_adj = {}\n  enable_unprivileged_ports = true\n  enable_unprivileged_icmp = true\n  \
         netns_mounts_under_state_dir = true\n",
        !m.can_lower_oom_score
    );
}

/// The default runtime is called `runc` whatever program it is: shims and
/// RuntimeClasses know that name. The others have names of their own.
fn runtimes(text: &mut String, parent: &str, o: &Options, m: &Machine) {
    runtime(text, &format!("{parent}.runtimes.runc"), &m.oci_runtime, &o.state.join("runc"), o);
    for (handler, program) in m.handlers.iter().filter(|(handler, _)| *handler != "runc") {
        let table = format!("{parent}.runtimes.{}", quote(handler));
        runtime(text, &table, program, &o.state.join("runtimes").join(handler), o);
    }
}

/// One runtime; it keeps its containers' states in a directory of its own.
fn runtime(text: &mut String, table: &str, program: &str, state: &Path, o: &Options) {
    let systemd = o.cgroup_driver == CgroupDriver::Systemd;
    let _ = write!(
        text,
        "    [{table}]\n      runtime_type = \"io.containerd.runc.v2\"\n\n      \
         [{table}.options]\n        BinaryName = {}\n        Root = {}\n        SystemdCgroup = {systemd}\n\n",
        quote(program),
        path(state),
    );
}

fn cni(text: &mut String, table: &str, o: &Options, m: &Machine) {
    let (bin, conf) = (path(&o.cni_bin_dir), path(&o.cni_conf_dir));
    // 2.1 takes a list, and complains of the old key.
    let bin = if m.version >= (Release { major: 2, minor: 1 }) {
        format!("bin_dirs = [{bin}]")
    } else {
        format!("bin_dir = {bin}")
    };
    let _ = write!(text, "  [{table}]\n    {bin}\n    conf_dir = {conf}\n    max_conf_num = 1\n");
}

fn snapshotter(m: &Machine) -> &'static str {
    match m.snapshotter {
        Snapshotter::Overlayfs => "overlayfs",
        Snapshotter::Native => "native",
    }
}

//! What this machine has: programs, capabilities, file systems.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};
use tokio::process::Command;

use super::config::{Machine, Release};
use super::{ContainerdError, OciRuntime, Options, Snapshotter};

/// Where system programs are even when PATH is that of a plain user.
const SYSTEM_DIRECTORIES: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// Bit of CAP_SYS_RESOURCE, capabilities(7).
const CAP_SYS_RESOURCE: u32 = 24;

/// How long a module may take to load.
const MODPROBE: Duration = Duration::from_secs(10);

/// PATH with the system's directories at its end.
fn search_path() -> Vec<PathBuf> {
    let mut directories: Vec<_> = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    for directory in SYSTEM_DIRECTORIES.map(PathBuf::from) {
        if !directories.contains(&directory) {
            directories.push(directory);
        }
    }
    directories
}

/// PATH for containerd: its own directory first, for its shim.
pub(super) fn path_for(containerd: &Path) -> OsString {
    let own = containerd.parent().map(Path::to_owned);
    env::join_paths(own.into_iter().chain(search_path())).unwrap_or_else(|_| env::var_os("PATH").unwrap_or_default())
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// Finds a program by name, or checks a path.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|p| is_program(p));
    }
    search_path().into_iter().map(|d| d.join(program)).find(|p| is_program(p))
}

/// containerd's path.
pub(super) fn containerd(options: &Options) -> Result<PathBuf, ContainerdError> {
    let wanted = options.containerd.as_ref().map(|p| p.to_string_lossy().into_owned());
    let program = wanted.unwrap_or_else(|| "containerd".to_owned());
    find(&program).ok_or(ContainerdError::Missing { program, package: "containerd" })
}

fn oci_runtime(wanted: &OciRuntime) -> Result<PathBuf, ContainerdError> {
    let (program, package) = match wanted {
        OciRuntime::Runc => ("runc", "runc"),
        OciRuntime::Program(program) => (program.as_str(), if program.ends_with("crun") { "crun" } else { "runc" }),
    };
    find(program).ok_or_else(|| ContainerdError::Missing { program: program.to_owned(), package })
}

/// Everything that the configuration depends on; `version_line` is containerd's.
pub(super) async fn machine(options: &Options, version_line: &str) -> Result<Machine, ContainerdError> {
    let version = Release::parse(version_line).ok_or_else(|| ContainerdError::Version {
        program: "containerd".to_owned(),
        problem: format!("{version_line:?} has no version"),
    })?;
    if version < (Release { major: 1, minor: 6 }) {
        return Err(ContainerdError::TooOld { version: version_line.to_owned() });
    }
    let oci_runtime = oci_runtime(&options.oci_runtime)?;
    let found = |program: &String| Some(find(program)?.to_string_lossy().into_owned());
    let handlers =
        options.handlers.iter().filter_map(|(name, program)| Some((name.clone(), found(program)?))).collect();
    let snapshotter = match options.snapshotter {
        Some(snapshotter) => snapshotter,
        None => usable_snapshotter(&options.root).await,
    };
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let can_lower_oom_score = has_capability(&status, CAP_SYS_RESOURCE);
    let oci_runtime = oci_runtime.to_string_lossy().into_owned();
    Ok(Machine { version, oci_runtime, handlers, snapshotter, can_lower_oom_score })
}

/// Whether the effective capabilities in a `/proc/PID/status` have a bit.
pub(super) fn has_capability(status: &str, bit: u32) -> bool {
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_some_and(|caps| caps >> bit & 1 == 1)
}

async fn usable_snapshotter(root: &Path) -> Snapshotter {
    let listed = || fs::read_to_string("/proc/filesystems").is_ok_and(|t| t.lines().any(|l| l.ends_with("\toverlay")));
    if !listed() {
        // A module that nothing needed yet; without modprobe it is not one.
        let mut modprobe = Command::new("modprobe");
        modprobe.arg("overlay").stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let _ = tokio::time::timeout(MODPROBE, modprobe.status()).await;
    }
    let on_overlay = statfs(root).is_ok_and(|s| s.filesystem_type() == OVERLAYFS_SUPER_MAGIC);
    if listed() && !on_overlay { Snapshotter::Overlayfs } else { Snapshotter::Native }
}
